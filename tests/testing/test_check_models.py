"""The suite of models catches wrong adapters. They are made from a small right one: a language of hashes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.contracts import Example, GenerationOptions, Prompt, TargetScore
from icltool.errors import ConfigError, DataError
from icltool.testing import check_model, make_examples

WORDS = ("red", "green", "blue", "bar", "block", "frame", "<image>", "Caption:", "\n")


class HashModel:
    """Every word's probability is a hash of all words before it and of the images. Blanks only separate words."""

    name = "hashes"

    def fingerprint(self) -> str:
        return "hashes-1"

    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        if task != "caption":
            raise ConfigError(f"no task {task!r}")
        blocks = [f"{'<image>' * len(e.images)}Caption:{e.label}\n" for e in demonstrations]
        text = "<s>" + "".join(blocks) + "<image>" * len(query.images) + "Caption:"
        return Prompt(
            text, tuple(image for e in (*demonstrations, query) for image in e.images), f"{query.label}\n</s>"
        )

    def clean(self, task: str, text: str) -> str:
        return " ".join(re.split("Caption", text)[0].replace('"', "").split())

    def score(
        self, prompts: Sequence[Prompt], batch_size: int, features: Mapping[str, Any] | None = None
    ) -> list[TargetScore]:
        return [self.target(p, self.seen(p, features)) for p in prompts]

    def target(self, prompt: Prompt, seen: list[str]) -> TargetScore:
        if not prompt.text or not prompt.target:
            raise ValueError("empty prompt")
        before, words = self.words(prompt.text), self.words(prompt.target)
        numbers = [self.number([*seen, *before, *words[: i + 1]]) for i in range(len(words))]
        return TargetScore(-sum(numbers), len(words))

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        batch_size: int,
        features: Mapping[str, Any] | None = None,
    ) -> list[str]:
        return [self.answer(p, options, self.seen(p, features)) for p in prompts]

    def answer(self, prompt: Prompt, options: GenerationOptions, seen: list[str]) -> str:
        words: list[str] = []
        for _ in range(options.max_new_tokens):
            context = [*seen, *self.words(prompt.text), *words]
            words.append(min(WORDS, key=lambda word: self.number([*context, word])))
        return " ".join(words).replace("<image>", "")

    def image_features(self, paths: Sequence[str], batch_size: int) -> list[Any]:
        return [self.image(path) for path in paths]

    def seen(self, prompt: Prompt, features: Mapping[str, Any] | None) -> list[str]:
        return [features[p] if features else self.image(p) for p in prompt.images]

    def image(self, path: str) -> str:
        try:
            return hashlib.blake2b(Path(path).read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{path} cannot be read") from error

    @staticmethod
    def words(text: str) -> list[str]:
        return re.findall(r"<[^>]*>|\n|Caption:|[^\s<]+", text)

    @staticmethod
    def number(parts: Sequence[str]) -> float:
        digest = hashlib.blake2b("\x00".join(parts).encode(), digest_size=8).digest()
        return 4 * int.from_bytes(digest, "big") / 2**64


class CountsAPromptToken(HashModel):
    """The published InfoScore's mask is one token short."""

    def target(self, prompt: Prompt, seen: list[str]) -> TargetScore:
        actual = super().target(prompt, seen)
        return TargetScore(actual.log_prob - self.number([*seen, *self.words(prompt.text)]), actual.tokens + 1)


class MissesTheLastToken(HashModel):
    def target(self, prompt: Prompt, seen: list[str]) -> TargetScore:
        shorter = " ".join(self.words(prompt.target)[:-1]) or prompt.target
        return super().target(replace(prompt, target=shorter), seen)


class FeelsThePadding(HashModel):
    def score(
        self, prompts: Sequence[Prompt], batch_size: int, features: Mapping[str, Any] | None = None
    ) -> list[TargetScore]:
        scores = []
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            longest = max(len(p.text) for p in batch)
            for p, s in zip(batch, super().score(batch, 1, features), strict=True):
                scores.append(replace(s, log_prob=s.log_prob - 0.01 * (longest - len(p.text))))
        return scores


class IsBlind(HashModel):
    def seen(self, prompt: Prompt, features: Mapping[str, Any] | None) -> list[str]:
        return sorted(super().seen(prompt, features))


class SortsItsAnswers(HashModel):
    def score(
        self, prompts: Sequence[Prompt], batch_size: int, features: Mapping[str, Any] | None = None
    ) -> list[TargetScore]:
        return sorted(super().score(prompts, batch_size, features), key=lambda s: s.log_prob)


class ScoresEmptyTargets(HashModel):
    def target(self, prompt: Prompt, seen: list[str]) -> TargetScore:
        return super().target(prompt, seen) if prompt.target else TargetScore(-1.0, 1)


class PositiveScores(HashModel):
    def target(self, prompt: Prompt, seen: list[str]) -> TargetScore:
        actual = super().target(prompt, seen)
        return replace(actual, log_prob=-actual.log_prob)


class ReadsTheTarget(HashModel):
    def answer(self, prompt: Prompt, options: GenerationOptions, seen: list[str]) -> str:
        return super().answer(prompt, options, [*seen, prompt.target])


class GeneratesByBatch(HashModel):
    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        batch_size: int,
        features: Mapping[str, Any] | None = None,
    ) -> list[str]:
        return [self.answer(p, options, [str(batch_size)]) for p in prompts]


class OtherFeatures(HashModel):
    def image_features(self, paths: Sequence[str], batch_size: int) -> list[Any]:
        return [self.image(path)[::-1] for path in paths]


class LeavesTheQueryImageOut(HashModel):
    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        prompt = super().prompt(task, demonstrations, query)
        return replace(prompt, images=prompt.images[: len(demonstrations)])


class LeaksTheLabel(HashModel):
    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        prompt = super().prompt(task, demonstrations, query)
        return replace(prompt, text=f"{prompt.text}{query.label[0]}")


class ReversesDemonstrations(HashModel):
    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        prompt = super().prompt(task, demonstrations[::-1], query)
        return replace(prompt, images=tuple(image for e in (*demonstrations, query) for image in e.images))


class TakesAnyTask(HashModel):
    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        return super().prompt("caption", demonstrations, query)


class NeverCuts(HashModel):
    def clean(self, task: str, text: str) -> str:
        return " ".join(text.split())


class CutsOneMoreWordEachTime(HashModel):
    def clean(self, task: str, text: str) -> str:
        answer = super().clean(task, text)
        return answer[:-1] if answer.isupper() else answer


class NamesNoPrecision(HashModel):
    precision = ""


class HidesMissingImages(HashModel):
    def image(self, path: str) -> str:
        try:
            return super().image(path)
        except DataError:
            return ""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return make_examples(tmp_path_factory.mktemp("images"), 10, size=8)


def test_a_right_adapter_passes(examples: list[Example]) -> None:
    check_model(HashModel(), examples)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (CountsAPromptToken, "a token of the prompt is counted"),
        (MissesTheLastToken, "last word of a target"),
        (FeelsThePadding, "mixed lengths"),
        (IsBlind, "order of a prompt's images"),
        (SortsItsAnswers, "mixed lengths"),
        (ScoresEmptyTargets, "empty target"),
        (PositiveScores, "not above 0"),
        (ReadsTheTarget, "depends on the target"),
        (GeneratesByBatch, "depends on the batch size"),
        (OtherFeatures, "with image features"),
        (LeavesTheQueryImageOut, "images, in order"),
        (LeaksTheLabel, "leaks into it"),
        (ReversesDemonstrations, "out of order"),
        (TakesAnyTask, "does not know"),
        (NeverCuts, "next example begins"),
        (CutsOneMoreWordEachTime, "leave a clean answer alone"),
        (NamesNoPrecision, "`precision` must be a name"),
        (HidesMissingImages, "missing image"),
    ],
)
def test_check_model_catches(wrong: type[HashModel], sentence: str, examples: list[Example]) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_model(wrong(), examples)


def test_made_up_images_are_real_and_differ(examples: list[Example]) -> None:
    from PIL import Image

    pixels = [np.asarray(Image.open(e.image)).tobytes() for e in examples]
    assert len(set(pixels)) == len(examples)
