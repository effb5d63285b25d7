"""The tiny model's tokenizer: WordPiece over the prompt format's words, with single characters to fall back on."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from icltool.world.scenes import NONCE_WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FAKE, IMAGE = "<fake_token_around_image>", "<image>"
#: Words of the prompts that are no label words.
TEMPLATE_WORDS = (
    "Caption", "Question", "Short", "answer", "what", "colour", "shape", "is", "it", "a", "the", "one", "here", "there",
    "this", "Instruction", "provide", "an", "to", "question", "Use", "image",
)  # fmt: skip


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer with idefics' special tokens; a line break is a token, blanks only separate words.

    Any ASCII text can be read: an unknown word becomes its characters. The two image tokens come last, because idefics
    keeps them in a second embedding table.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<unk>", "<s>", "</s>"]
    characters = [c for c in string.printable if not c.isspace()]
    pieces = [*TEMPLATE_WORDS, *NONCE_WORDS, "\n", *characters, *(f"##{c}" for c in characters)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*specials, *pieces, FAKE, IMAGE]))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", continuing_subword_prefix="##"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[ \t\r]+"), "removed"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<unk>",
        additional_special_tokens=[FAKE, IMAGE],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_clip_tokenizer() -> PreTrainedTokenizerFast:
    """The same vocabulary for the tiny CLIP: padded on the right, ended by EOS, which the text tower pools at."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = build_tokenizer()
    ends = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    tokenizer.padding_side = "right"
    return tokenizer
