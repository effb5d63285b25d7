"""`icltool prompts` prints what `icltool evaluate` asks, and reads no weights."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from icltool.cli.app import run as icltool
from icltool.commands.evaluate import run as evaluate
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.prompts import run as prompts
from icltool.commands.prompts.options import PromptsConfig
from icltool.components.models.shared.weights import packaged_weights
from icltool.errors import ConfigError
from icltool.execution.progress import for_terminal
from icltool.plugin.manager import load_registry
from icltool.plugin.registration import Registration
from icltool.plugin.registry import RegisteredComponent
from icltool.store.evaluations import read_predictions
from tests.commands.evaluate.asking import registered
from tests.commands.evaluate.test_ranked import workspace as text_workspace
from tests.components.models import tiny, tiny_captioners
from tests.conftest import Shared

QUIET = for_terminal(quiet=True)
WEIGHTS = (".safetensors", ".bin", ".pt")
FAMILIES: list[tuple[str, Callable[[Path], str] | None]] = [
    ("tiny-idefics", None),
    ("idefics2-8b", tiny.idefics2),
    ("image-text-to-text", tiny.qwen2_vl),
    ("blip-base", tiny_captioners.blip),
    ("blip2-opt-2.7b", tiny_captioners.blip2_opt),
]


def without_weights(folder: str | Path, place: Path) -> Path:
    shutil.copytree(folder, place, ignore=lambda _, names: [n for n in names if n.endswith(WEIGHTS)])
    assert {file.name for file in Path(folder).iterdir()} - {file.name for file in place.iterdir()}
    return place


def evaluated(config: EvaluateConfig) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Prompt, images and demonstrations by method, shots, seed and query, as the predictions hold them."""
    report = evaluate.run(config, QUIET)
    assert report.path is not None
    return {
        (setting.method, setting.shots, setting.seed, row["query_id"]): (row["prompt"], row["images"], row["icd_ids"])
        for setting in report.results
        for row in read_predictions(
            report.path / "predictions" / f"{setting.method}-{setting.shots}-shot-seed{setting.seed}.jsonl"
        )
    }


def printed(config: PromptsConfig) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    return {
        (row["method"], row["shots"], row["seed"], row["query_id"]): (row["prompt"], row["images"], row["icd_ids"])
        for row in prompts.run(config, QUIET).rows()
    }


@pytest.mark.parametrize(("model", "build"), FAMILIES)
def test_the_prompts_are_those_of_the_evaluation(
    workspace: Path, tmp_path: Path, shared: Shared, model: str, build: Callable[[Path], str] | None
) -> None:
    folder = packaged_weights(model) if build is None else tiny.shared_folder(shared, build)
    options: dict[str, Any] = {
        "workspace": workspace, "task": "vqa", "model": model, "methods": ("random", "i2i+mmr", "bm25"),
        "shots": (0, 1, 2), "test_size": 3, "max_new_tokens": 2, "num_beams": 1, "device": "cpu",
    }  # fmt: skip
    expected = evaluated(EvaluateConfig(**options, model_path=str(folder)))
    assert len(expected) == 3 * (1 + 3 * 2)
    config = PromptsConfig(**options, model_path=str(without_weights(folder, tmp_path / "model")))
    assert printed(config) == expected
    rows = prompts.run(config, QUIET).rows()
    assert all(isinstance(row["tokens"], int) for row in rows)
    assert all(("messages" in row) == (model == "image-text-to-text") for row in rows)


def test_the_prompts_of_a_text_model(tmp_path: Path) -> None:
    folder = tiny.gpt2(tmp_path / "gpt2")
    options: dict[str, Any] = {
        "workspace": text_workspace(tmp_path / "ws", ("negative", "positive")), "model": "text-llm",
        "methods": ("random", "bm25"), "shots": (1, 2), "seeds": (0, 1), "test_size": 3, "device": "cpu",
    }  # fmt: skip
    expected = evaluated(EvaluateConfig(**options, model_path=folder))
    bare = without_weights(folder, tmp_path / "model")
    assert printed(PromptsConfig(**options, model_path=str(bare))) == expected


def test_messages_have_the_paths_of_the_images(workspace: Path, tmp_path: Path, shared: Shared) -> None:
    bare = without_weights(tiny.shared_folder(shared, tiny.qwen2_vl), tmp_path / "model")
    config = PromptsConfig(workspace=workspace, task="vqa", model_path=str(bare), shots=(1,), test_size=1)
    [row] = prompts.run(config, QUIET).rows()
    messages: Any = row["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    paths = [part["path"] for message in messages for part in message["content"] if part["type"] == "image"]
    assert paths == row["images"]


def test_text_has_the_paths_in_the_places_of_the_images(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert icltool(["prompts", "--workspace", str(workspace), "--task=caption", "--shots=1", "--test-size=1"]) == 0
    out = capsys.readouterr().out
    arguments = ["prompts", "--workspace", str(workspace), "--task=caption", "--shots=1", "--test-size=1", "--json"]
    assert icltool(arguments) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    images = "".join(f"[{image}]Caption:" for image in row["images"][-1:])
    assert (
        f"--- query {row['query_id']}; random, 1-shot; demonstrations {row['icd_ids'][0]} ---\n<s>[{row['images'][0]}]"
        in out
    )
    assert images in out
    assert "tokens are not counted: the tokenizer of idefics-9b is not on this machine" in out


def test_one_query(workspace: Path) -> None:
    options: dict[str, Any] = {"workspace": workspace, "task": "vqa", "model": "tiny-idefics", "methods": ("i2i",)}
    everything = printed(PromptsConfig(**options, test_size=-1))
    query = list(everything)[-1]
    assert printed(PromptsConfig(**options, query_id=query[-1])) == {query: everything[query]}
    with pytest.raises(ConfigError, match="has no validation query -7"):
        prompts.run(PromptsConfig(**options, query_id=-7), QUIET)


def test_train_queries(workspace: Path) -> None:
    options: dict[str, Any] = {
        "workspace": workspace, "task": "vqa", "model": "tiny-idefics", "queries": "train", "query_size": 5, "shots": (1,),
    }  # fmt: skip
    expected = evaluated(EvaluateConfig(**options, max_new_tokens=1, num_beams=1, device="cpu"))
    output = printed(PromptsConfig(**options))
    assert len(output) == 3
    assert output.items() <= expected.items()


def test_prompts_that_are_too_long_are_noted(workspace: Path) -> None:
    options: dict[str, Any] = {"workspace": workspace, "task": "vqa", "model": "tiny-idefics", "methods": ("random",)}
    report = prompts.run(PromptsConfig(**options, shots=(1, 100), test_size=1), QUIET)
    assert any("1 of 2 prompts are too long: the model reads 1,024 tokens" in note for note in report.notes)
    assert not prompts.run(PromptsConfig(**options, test_size=1), QUIET).notes


def test_methods_that_ask_the_model_are_refused(workspace: Path) -> None:
    config = PromptsConfig(workspace=workspace, task="vqa", model="tiny-idefics", methods=("random+surest",))
    with registered(), pytest.raises(ConfigError, match=r"random\+surest asks the model which demonstrations to show"):
        prompts.run(config, QUIET)


def test_a_model_that_needs_its_weights_is_refused(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registration = Registration("sealed", f"{__name__}:Sealed", "from a test")
    monkeypatch.setitem(
        load_registry()._by_name, ("models", "sealed"), [RegisteredComponent("models", registration, "tests", "1.0")]
    )
    with pytest.raises(ConfigError, match="model sealed cannot write its prompts without its weights") as error:
        prompts.run(PromptsConfig(workspace=workspace, task="vqa", model="sealed"), QUIET)
    assert "predictions" in str(error.value.hint)


class Sealed:
    """A model whose class does not write prompts without its weights."""


PROMPT = """
instruction = "Look.\\n"
separator = "\\n##\\n"
[tasks.vqa]
query = "Q: {question} A:"
[families.chat]
system = "Be terse."
"""


@pytest.mark.parametrize(("model", "build"), [FAMILIES[0], FAMILIES[2]])
def test_a_prompt_file_decides_prompts_answers_and_identity(
    workspace: Path, tmp_path: Path, shared: Shared, model: str, build: Callable[[Path], str] | None
) -> None:
    folder = packaged_weights(model) if build is None else tiny.shared_folder(shared, build)
    file = tmp_path / "mine.toml"
    file.write_text(PROMPT)
    options: dict[str, Any] = {
        "workspace": workspace, "task": "vqa", "model": model, "model_path": str(folder), "methods": ("random",),
        "shots": (0, 1), "test_size": 2, "max_new_tokens": 2, "num_beams": 1, "device": "cpu", "prompt": file,
    }  # fmt: skip
    rows = printed(PromptsConfig(**options))
    assert rows == evaluated(EvaluateConfig(**options))
    with_one = next(prompt for (_, shots, _, _), (prompt, _, _) in rows.items() if shots)
    assert with_one.count("Q: ") == 2
    assert ("##" in with_one, "Be terse." in with_one) == (build is None, build is not None)
    configured = EvaluateConfig(**options)
    assert configured.identity()["prompt"] == {
        "instruction": "Look.\n", "separator": "\n##\n", "tasks": {"vqa": {"query": "Q: {question} A:"}},
        "families": {"chat": {"system": "Be terse."}},
    }  # fmt: skip
    assert "prompt" not in EvaluateConfig(**{**options, "prompt": None}).identity()
    file.write_text("separator = 3")  # it was read once: workers elsewhere need no file
    assert pickle.loads(pickle.dumps(configured)).model_options()["prompt"] == configured.model_options()["prompt"]


@pytest.mark.parametrize("template", ["lever-lm", "live", "openflamingo", "vl-icl"])
def test_every_template_has_a_prompt_for_chat_models(workspace: Path, shared: Shared, template: str) -> None:
    folder = tiny.shared_folder(shared, tiny.qwen2_vl)
    config = PromptsConfig(
        workspace=workspace, task="vqa", model_path=str(folder), shots=(1,), test_size=1, prompt_template=template
    )  # type: ignore[arg-type]
    [row] = prompts.run(config, QUIET).rows()
    users = [m for m in cast(Any, row["messages"]) if m["role"] == "user"]
    assert len(users) == (1 if template == "vl-icl" else 2)
    assert config.identity()["prompt_template"] == template
    assert "prompt" not in config.identity()


def test_a_prompt_and_a_template_exclude_each_other(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(PROMPT)
    call = ["prompts", "--workspace", str(workspace), "--prompt", str(file), "--prompt-template=live"]
    assert icltool(call) == 2
    assert "--prompt and --prompt-template exclude each other: use one of them" in capsys.readouterr().err
    assert icltool([*call[:3], "--task=vqa", "--model=blip-base", "--prompt", str(file)]) == 2
    assert "model 'blip-base' has no option 'prompt' (--prompt or --prompt-template)" in capsys.readouterr().err


def test_zero_shot_with_demonstrations_as_text(workspace: Path) -> None:
    options: dict[str, Any] = {
        "workspace": workspace, "task": "vqa", "model": "tiny-idefics", "methods": ("zero-shot", "random"), "shots": (1,),
        "test_size": 3, "max_new_tokens": 2, "num_beams": 1, "device": "cpu", "zero_shot_text": 2,
    }  # fmt: skip
    answered, rows = evaluated(EvaluateConfig(**options)), printed(PromptsConfig(**options))
    assert {key: row[:2] for key, row in answered.items()} == {key: row[:2] for key, row in rows.items()}
    for (method, _, _, _), (prompt, images, _) in rows.items():
        assert (prompt.count("Question:"), len(images)) == ((3, 1) if method == "zero-shot" else (2, 2))
    assert EvaluateConfig(**options).identity()["zero_shot_text"] == 2
    assert "zero_shot_text" not in EvaluateConfig(**{**options, "zero_shot_text": 0}).identity()
