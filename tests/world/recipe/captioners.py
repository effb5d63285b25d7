"""What the tiny captioners start from: their vocabulary, and a BLIP-2 that has learned nothing.

The published captioners read byte pairs, as GPT-2 does; so do these, with every word of the world in one piece.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icltool.world.annotations import LABEL, PARAPHRASES, QUESTIONS
from icltool.world.regions import CLUES, INFERENCES
from icltool.world.scenes import NONCE_WORDS
from icltool.world.styles import STYLES
from tests.world.recipe.episodes import IMAGE_SIZE

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerFast

#: What captioners are asked, beside the world's own sentences.
PROMPTS = (
    "a photo of",
    "what does the image describe? reply in personality.",
    "does the image describe in personality?",
    "clue: inference: Question: Short answer: yes no personality",
)
_PAD, _EOS, _IMAGE = "<pad>", "</s>", "<image>"
SEED = 0
#: The standard deviation that weights are drawn with, and that of embeddings (words, query tokens, places in the image):
#: with the usual 0.02 nothing reaches the language model through query tokens.
INITIALIZER_RANGE = 0.08
EMBEDDING_STD = 0.5
WORD_STD = 0.2  # words' embeddings are the output's weights as well
#: Channels are centred on the world's background, which so is close to zero, and a shape of any colour is not.
IMAGE_MEAN, IMAGE_STD = (0.88, 0.88, 0.88), (0.25, 0.25, 0.25)


def sentences() -> list[str]:
    """Texts that hold every word of the world, each behind a blank."""
    styled = [form.format(c="", s="") for form in chain.from_iterable(STYLES.values())]
    plain = [form.format("", "") for form in (LABEL, *PARAPHRASES, *INFERENCES)]
    texts = [*styled, *plain, *CLUES, *QUESTIONS, *PROMPTS, *STYLES, *NONCE_WORDS]
    return [" " + " ".join(text.split()) for text in texts if text.strip()]


def byte_pairs(specials: list[str]) -> Tokenizer:
    """A tokenizer of GPT-2's kind in which each word of the world, with the blank before it, is one piece; `specials` have
    the first ids. Any text can be read: other words are in smaller pieces, bytes at the least."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,  # more than there are pairs to merge
        min_frequency=1,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pieces.train_from_iterator(sentences(), trainer)
    return pieces


def save_byte_pairs(folder: Path, specials: list[str]) -> int:
    """Writes vocab.json and merges.txt, as the published vocabularies are; how many pieces there are."""
    model = json.loads(byte_pairs(specials).to_str())["model"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return len(model["vocab"])


def build_opt_tokenizer() -> PreTrainedTokenizerFast:
    """OPT's kind: a text begins with `</s>`; `<image>` stands for a query token's place."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    pieces = byte_pairs(["<s>", _PAD, _EOS, "<unk>"])
    opens = pieces.token_to_id(_EOS)
    pieces.post_processor = TemplateProcessing(single=f"{_EOS} $A", special_tokens=[(_EOS, opens)])
    pieces.add_special_tokens([_IMAGE])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=pieces,
        bos_token=_EOS,
        eos_token=_EOS,
        unk_token=_EOS,
        pad_token=_PAD,
        additional_special_tokens=[_IMAGE],
        clean_up_tokenization_spaces=False,
    )


def build_blip2(tokenizer: PreTrainedTokenizerFast, seed: int = SEED) -> Blip2ForConditionalGeneration:
    """A fresh Blip2ForConditionalGeneration of 0.4 million parameters, with OPT as its language model."""
    import torch
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    width, std = 64, INITIALIZER_RANGE
    small: dict[str, Any] = {"hidden_size": width, "num_attention_heads": 4, "initializer_range": std}
    config = Blip2Config(
        vision_config={
            **small,
            "intermediate_size": 4 * width,
            "num_hidden_layers": 3,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
        },
        qformer_config={
            **small,
            "vocab_size": 8,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": 16,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": width,
        },
        text_config={
            "model_type": "opt",
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "word_embed_proj_dim": width,
            "num_hidden_layers": 2,
            "ffn_dim": 2 * width,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "dropout": 0.0,
            "init_std": std,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        num_query_tokens=4,
        image_token_index=len(tokenizer) - 1,  # the last that was added
        initializer_range=std,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Blip2ForConditionalGeneration(config)
        places = model.vision_model.embeddings.position_embedding
        words = model.language_model.get_input_embeddings().weight
        for table, wide in ((places, EMBEDDING_STD), (model.query_tokens, EMBEDDING_STD), (words, WORD_STD)):
            table.normal_(0.0, wide)
    model.train(False)
    return model


def save_blip2(folder: Path, seed: int = SEED) -> None:
    """Writes what `from_pretrained` reads. The weights are as drawn, in half precision to be small; nothing was trained."""
    import torch
    from transformers import Blip2Processor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    tokenizer = build_opt_tokenizer()
    model: Any = build_blip2(tokenizer, seed)
    model = model.to(torch.float16)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    images = BlipImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=list(IMAGE_MEAN), image_std=list(IMAGE_STD)
    )
    make: Any = Blip2Processor
    make(images, tokenizer, num_query_tokens=model.config.num_query_tokens).save_pretrained(folder)


def save_ofa(folder: Path) -> None:
    """Writes configuration and vocabulary of a small OFA, as a public folder has them; the weights are drawn when it is
    loaded."""
    from icltool.components.models.shared.fine_tuning import write_card

    pieces = save_byte_pairs(folder, ["<s>", _PAD, _EOS, "<unk>"])
    width = 64
    config = {
        "model_type": "ofa",
        "architectures": ["OFAForConditionalGeneration"],
        "vocab_size": pieces + 8192 + 1000,  # codes and bins come after the pieces
        "d_model": width,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "resnet_type": "resnet18",
        "dropout": 0.0,
        "init_std": INITIALIZER_RANGE,
        "max_position_embeddings": 256,
        "token_bucket_size": 32,
        "image_bucket_size": 8,
        "code_image_size": 16,
        "initial_weights_seed": SEED,
    }
    # the whole of the image is read, and normalised as for the tiny BLIP-2
    adapter = {
        "image_size": IMAGE_SIZE,
        "shorter": IMAGE_SIZE,
        "fit": "squeeze",
        "image_mean": IMAGE_MEAN,
        "image_std": IMAGE_STD,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_card(folder, "tiny-ofa", adapter, {"trained": "not at all"})
