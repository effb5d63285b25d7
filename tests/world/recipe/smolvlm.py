"""The tiny SmolVLM: its vocabulary, its chat template, its configuration, and the initialisation it learns from."""

from __future__ import annotations

import copy
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icltool.components.tasks import task_named
from icltool.world.easy_words import ANSWERS
from icltool.world.scenes import NONCE_WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, ProcessorMixin, SmolVLMForConditionalGeneration

IMAGE_SIZE, PATCH, SCALE = 64, 8, 4
IMAGE_TOKENS = (IMAGE_SIZE // PATCH // SCALE) ** 2
INITIALIZER_RANGE = 0.08
EMBEDDING_STD = 0.5
HIDDEN = 128
VISION_HIDDEN = 64

START, END, PAD = "<|im_start|>", "<end_of_utterance>", "<pad>"
FAKE, GLOBAL, IMAGE = "<fake_token_around_image>", "<global-img>", "<image>"
#: Turns as SmolVLM writes them: the role in plain words, and END behind every turn.
CHAT_TEMPLATE = (
    START + "{% for m in messages %}{{ m.role | capitalize }}:{% for part in m.content %}"
    "{% if part.type == 'image' %}" + IMAGE + "{% else %} {{ part.text }}{% endif %}{% endfor %}"
    + END + "\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)  # fmt: skip
#: What the task vqa adds to each question. It is the same every time, so it is a single token.
REQUEST = task_named("vqa").prompt(("chat",)).query.replace("{question}", "").strip()
#: Words of easy-VQA's questions and of the template.
WORDS = (
    "user", "assistant", "system", "what", "is", "the", "a", "in", "of", "there", "not", "no", "does", "image", "contain",
    "present", "color", "shape", *(answer for answers in ANSWERS.values() for answer in answers),
)  # fmt: skip


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer of words in lower case, with single characters to fall back on; white space only separates."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = [PAD, START, END, FAKE, GLOBAL, IMAGE]
    alphanumeric = string.ascii_lowercase + string.digits
    pieces = [*WORDS, *NONCE_WORDS, *alphanumeric, *string.punctuation, *(f"##{c}" for c in alphanumeric)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*specials, "<unk>", *pieces]))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", continuing_subword_prefix="##"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\s+"), "removed"), pre_tokenizers.Punctuation("isolated")]
    )
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    backend.add_tokens([AddedToken(REQUEST, normalized=False)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[FAKE, GLOBAL, IMAGE],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> ProcessorMixin:
    """The processor of Idefics3, which writes images as SmolVLM's does but needs neither num2words nor a video processor."""
    from transformers import Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    images = Idefics3ImageProcessorPil(
        size={"longest_edge": IMAGE_SIZE},
        max_image_size={"longest_edge": IMAGE_SIZE},
        do_image_splitting=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    make: Any = Idefics3Processor
    processor: ProcessorMixin = make(images, build_tokenizer(), image_seq_len=IMAGE_TOKENS, chat_template=CHAT_TEMPLATE)
    return processor


def build_smolvlm(tokenizer: PreTrainedTokenizerFast) -> SmolVLMForConditionalGeneration:
    """A fresh SmolVLMForConditionalGeneration of 0.95 million parameters, drawn from torch's global generator.

    As with the tiny IDEFICS, wide initial weights and wider input embeddings decide whether it learns to copy at all.
    """
    import torch
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    config = SmolVLMConfig(
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        scale_factor=SCALE,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        vision_config={
            "hidden_size": VISION_HIDDEN,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH,
            "initializer_range": INITIALIZER_RANGE,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 2048,
            "initializer_range": INITIALIZER_RANGE,
            "tie_word_embeddings": False,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
    )
    model = SmolVLMForConditionalGeneration(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(0.0, EMBEDDING_STD)
    return model


def save_smolvlm(model: SmolVLMForConditionalGeneration, processor: ProcessorMixin, folder: Path) -> None:
    """Writes what `from_pretrained` reads: configuration, safetensors in half precision, tokenizer, processor and chat
    template."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    half: Any = copy.deepcopy(model)
    half.to(torch.float16).save_pretrained(folder)
    processor.save_pretrained(folder)
