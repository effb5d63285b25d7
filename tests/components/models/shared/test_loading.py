"""Loading: precision, devices, attention, quantization, and what is told when something cannot be."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import pickle
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from icltool.components.models.chat.chat import ChatModel, ChatOptions
from icltool.components.models.idefics.idefics2 import Idefics2Model
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.loading import check_sizes, load_model, loading_errors
from icltool.components.models.shared.memory import check_memory, free_memory, parameter_count
from icltool.components.models.shared.options import RemoteCodeOptions, TransformersOptions
from icltool.components.models.shared.weights import Weights, find_weights, packaged_weights
from icltool.components.models.text.text import TextModel
from icltool.contracts import Example
from icltool.errors import ConfigError, IclWarning
from icltool.plugin.manager import component
from tests.components.models import tiny

Folder = Callable[[Callable[[Path], str]], str]
GIB = 2**30


def changed(source: str, target: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> str:
    """A copy of a model's folder with other weights."""
    folder = shutil.copytree(source, target)
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize("build", [tiny.gpt2, tiny.llama, tiny.idefics2])
def test_parameters_are_counted_without_loading(build: Callable[[Path], str], folder_of: Folder) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    source, kind = folder_of(build), AutoModelForImageTextToText if build is tiny.idefics2 else AutoModelForCausalLM
    real = sum(p.numel() for p in kind.from_pretrained(source).parameters())

    def never() -> Any:
        raise AssertionError("the files' headers suffice")

    assert parameter_count(source, never) == real
    config = AutoConfig.from_pretrained(source)
    assert parameter_count("nobody/has-this-model", lambda: kind.from_config(config)) == real


def test_only_the_files_that_are_loaded_are_counted(folder_of: Folder, tmp_path: Path) -> None:
    source = folder_of(tiny.gpt2)
    model = AutoModelForCausalLM.from_pretrained(source)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    shutil.copy(Path(source) / "model.safetensors", tmp_path / "consolidated.safetensors")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    real = sum(p.numel() for p in model.parameters())
    assert parameter_count(str(tmp_path), lambda: pytest.fail("the files' headers suffice")) == real
    shards[0].unlink()  # a download that was cut off
    assert parameter_count(str(tmp_path), lambda: AutoModelForCausalLM.from_config(model.config)) == real


def test_a_model_that_cannot_fit_is_told_with_figures() -> None:
    def free(device: torch.device | None) -> int:
        return 20 * GIB

    check_memory("small", 9 * GIB, "bfloat16", torch.device("cpu"), free)
    with pytest.raises(ConfigError) as caught:
        check_memory("idefics-9b", 9 * GIB, "float32", torch.device("cpu"), free)
    assert "9.66 billion parameters in float32 need 39.6 GiB (10% margin included)" in caught.value.message
    assert "20.0 GiB are free on cpu" in caught.value.message
    assert "--dtype bfloat16" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="on all devices together"):
        check_memory("idefics-80b", 80 * GIB, "4bit", None, free)


def test_memory_is_asked_for_before_anything_is_loaded(folder_of: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_memory(torch.device("cpu")) > 0
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr("transformers.GPT2LMHeadModel.from_pretrained", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(ConfigError, match="model gpt2 does not fit"):
        TextModel(RemoteCodeOptions(name="gpt2", path=folder_of(tiny.gpt2), device="cpu"))


def test_weights_that_are_missing_from_the_files_are_not_made_up(folder_of: Folder, tmp_path: Path) -> None:
    name = "transformer.h.1.mlp.c_fc.weight"
    folder = changed(folder_of(tiny.gpt2), tmp_path / "m", lambda t: {k: v for k, v in t.items() if k != name})
    with pytest.raises(ConfigError, match=f"1 of its weights are missing there, including {name}"):
        TextModel(RemoteCodeOptions(path=folder, device="cpu"))


def test_damaged_files_are_named(folder_of: Folder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder_of(tiny.gpt2), tmp_path / "m"))
    whole = (folder / "model.safetensors").read_bytes()
    for content in (whole[:5000], whole[:300], b"", b"no weights at all"):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be loaded|not a safetensors file") as caught:  # noqa: RUF043
            TextModel(RemoteCodeOptions(path=str(folder), device="cpu"))
        assert str(folder) in caught.value.message
    with pytest.raises(ConfigError, match="cannot be loaded from"):
        TextModel(RemoteCodeOptions(path=str(tmp_path), device="cpu"))


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_files_that_are_missing_or_cut_are_named(file: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packaged_weights("tiny-idefics"), tmp_path / "m"))
    whole = (folder / file).read_bytes()
    (folder / file).unlink()
    with pytest.raises(ConfigError, match=f"{file}.* is missing there"):
        component("models", "tiny-idefics", path=str(folder), device="cpu")
    (folder / file).write_bytes(whole[:-20])
    with pytest.raises(ConfigError, match=f": {file} is truncated or malformed"):
        component("models", "tiny-idefics", path=str(folder), device="cpu")


def test_a_panic_is_a_fault_and_an_interruption_is_none() -> None:
    class PanicException(BaseException):
        pass

    weights = Weights("nowhere", local_only=True)
    with pytest.raises(ConfigError, match="index out of range"), loading_errors("m", weights):
        raise PanicException("index out of range")
    with pytest.raises(KeyboardInterrupt), loading_errors("m", weights):
        raise KeyboardInterrupt


def test_a_tokenizer_of_no_kind_is_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packaged_weights("tiny-idefics"), tmp_path / "m"))
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**content, "pre_tokenizer": {"type": 7}}))
    with pytest.raises(ConfigError, match=r"cannot be loaded from .*: tokenizer\.json: "):
        component("models", "tiny-idefics", path=str(folder), device="cpu")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"height": [32], "width": 32}, "cannot be loaded from"),
        ({"height": 10**6, "width": 32}, r"size = 1,000,000 pixels, which is beyond any real model"),
    ],
)
def test_sizes_that_no_image_can_have_are_refused_before_one_is_read(
    size: object, message: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(packaged_weights("tiny-idefics"), tmp_path / "m"))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "image_size": size, "size": size}))
    with pytest.raises(ConfigError, match=message):
        component("models", "tiny-idefics", path=str(folder), device="cpu")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packaged_weights("tiny-idefics"), tmp_path / "m"))
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is not a file"):
        component("models", "tiny-idefics", path=str(folder), device="cpu")


@pytest.mark.parametrize("content", [{"eos_token_id": [{"id": 2}]}, {"bos_token_id": "1"}, {"pad_token_id": 2**70}])
def test_tokens_that_are_no_tokens(content: dict[str, object], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packaged_weights("tiny-idefics"), tmp_path / "m"))
    (folder / "generation_config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"cannot be loaded|token_id = .* not a token id"):
        component("models", "tiny-idefics", path=str(folder), device="cpu")


def test_a_folder_in_the_place_of_a_file_that_is_not_needed(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packaged_weights("tiny-idefics"), tmp_path / "m"))
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").mkdir()
    assert component("models", "tiny-idefics", path=str(folder), device="cpu").fingerprint()


def test_a_training_without_its_weights_is_told(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text("{}")
    (tmp_path / "other.safetensors").touch()
    with pytest.raises(ConfigError, match=r"lacks best\.safetensors.*: other\.safetensors"):
        find_weights("blip2-opt-2.7b", None, None, str(tmp_path))


def test_code_of_a_model_s_own_is_not_run(folder_of: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("nobody is asked"))
    source = shutil.copytree(folder_of(tiny.gpt2), tmp_path / "model")
    config = json.loads((source / "config.json").read_text())
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (source / "config.json").write_text(json.dumps({**config, "model_type": "homemade", "auto_map": own}))
    (source / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ConfigError, match="code from its repository, which icltool does not run by default"):
        TextModel(RemoteCodeOptions(name="homemade", path=str(source), device="cpu"))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ConfigError):  # it runs where that is asked for, and is no model
        TextModel(RemoteCodeOptions(name="homemade", path=str(source), device="cpu", trust_remote_code=True))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("key", "value"), [("n_layer", 10**9), ("n_embd", 2**40), ("vocab_size", 10**10), ("n_positions", 10**12)]
)
def test_sizes_that_no_model_has_are_refused_before_it_is_built(
    key: str, value: int, folder_of: Folder, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folder_of(tiny.gpt2), tmp_path / "m"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ConfigError, match="which is beyond any real model"):
        TextModel(RemoteCodeOptions(path=str(folder), device="cpu"))


def test_sizes_below_another_part_are_looked_at() -> None:
    check_sizes("m", {"text_config": {"num_hidden_layers": 80}, "vision_feature_layer": -2, "vocab_size": 256_000})
    with pytest.raises(ConfigError, match=r"config.json, text_config has num_hidden_layers = 5,000"):
        check_sizes("m", {"text_config": {"num_hidden_layers": 5000}})


def test_weights_of_other_shapes_are_refused(folder_of: Folder, tmp_path: Path) -> None:
    def cut(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return tensors | {"transformer.wte.weight": tensors["transformer.wte.weight"][:7].contiguous()}

    with pytest.raises(ConfigError, match="cannot be loaded"):
        TextModel(RemoteCodeOptions(path=changed(folder_of(tiny.gpt2), tmp_path / "m", cut), device="cpu"))


def test_precision_decides_weights_and_fingerprint(folder_of: Folder, images: Callable[[str], list[Example]]) -> None:
    source = folder_of(tiny.idefics2)
    whole, half = (Idefics2Model(IdeficsOptions(path=source, device="cpu", dtype=d)) for d in ("auto", "bfloat16"))
    assert (whole.model.dtype, half.model.dtype) == (torch.float32, torch.bfloat16)
    assert (whole.precision, half.precision) == ("float32", "bfloat16")
    assert whole.fingerprint() != half.fingerprint()
    examples = images("caption")
    prompt = whole.prompt("caption", examples[1:3], examples[0])
    one, other = whole.score([prompt], 1)[0].log_prob, half.score([prompt], 1)[0].log_prob
    assert other == pytest.approx(one, abs=1.0)
    assert other != one


def test_attention_implementations_agree(folder_of: Folder) -> None:
    example = Example(1, "", 1, "what is it", "red bar", ("red bar",))
    scores = []
    for attention in (None, "sdpa", "eager"):
        model = TextModel(RemoteCodeOptions(path=folder_of(tiny.llama), device="cpu", attention=attention))
        assert attention in (None, model.model.config._attn_implementation)
        scores.append(model.score([model.prompt("classification", [], example)], 1)[0].log_prob)
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"dtype": "float8"}, "unknown dtype 'float8'", "bfloat16"),
        ({"device_map": "everywhere"}, "unknown device map", "balanced"),
        ({"quantization": "2bit"}, "unknown quantization", "4bit, 8bit"),
        ({"attention": "paged"}, "unknown attention implementation", "eager"),
        ({"device": "gpu"}, "unknown device 'gpu'", "cuda:1"),
        ({"attention": "flash_attention_2"}, "needs the package flash-attn", "--attention sdpa"),
        ({"quantization": "4bit"}, "quantization 4bit needs", "--dtype bfloat16"),
        ({"device": "cuda"}, "this machine has no GPU", "--device cpu"),
        ({"device_map": "auto"}, "needs the package accelerate", "pip install accelerate"),
    ],
)
def test_what_cannot_be_met_says_what_can(
    options: dict[str, str], message: str, hint: str, folder_of: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # a machine without the optional packages
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message) as caught:
        TextModel(RemoteCodeOptions(path=folder_of(tiny.gpt2), **options))
    assert hint in str(caught.value.hint)


def test_quantization_is_asked_of_bitsandbytes(folder_of: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be handed to transformers on a machine with a GPU, as far as it can be seen without one."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    calls: dict[str, Any] = {}

    class Stops(BaseException):
        pass

    class Recorder:
        @staticmethod
        def from_pretrained(source: str, **arguments: Any) -> None:
            calls.update(arguments)
            raise Stops

    for bits in ("4bit", "8bit"):
        options = TransformersOptions(device="cuda:0", quantization=bits)
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (GIB, GIB))
        with pytest.raises(Stops):
            load_model(Recorder, Weights(folder_of(tiny.gpt2), True), options)
        assert calls["device_map"] == {"": torch.device("cuda:0")}
        assert calls["dtype"] == torch.bfloat16
        config = calls["quantization_config"]
        assert (config.load_in_4bit, config.load_in_8bit) == (bits == "4bit", bits == "8bit")


def test_norms_and_feed_forward_layers_are_compiled(
    folder_of: Folder, images: Callable[[str], list[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handed to torch.compile, by a backend that needs no compiler; and they give the same scores."""
    examples, source, real = images("caption"), folder_of(tiny.idefics2), torch.compile
    handed: list[str] = []
    graphs: list[int] = []

    def backend(graph: Any, arguments: Any) -> Any:
        graphs.append(len(list(graph.graph.nodes)))
        return graph.forward

    def compiling(forward: Any, *, dynamic: bool) -> Any:
        assert dynamic, "any batch"
        handed.append(type(forward.__self__).__name__)
        return real(forward, backend=backend, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", compiling)
    plain = Idefics2Model(IdeficsOptions(path=source, device="cpu"))
    assert not handed, "nothing unless it is asked for"
    compiled = Idefics2Model(IdeficsOptions(path=source, device="cpu", compile=True))
    names = [type(part).__name__ for part in plain.model.modules()]
    assert handed == [name for name in names if name.endswith(("MLP", "RMSNorm"))]
    assert {"MistralMLP", "MistralRMSNorm", "Idefics2VisionMLP"} <= set(handed)
    assert graphs == [], "nothing is compiled before it runs"
    prompts = [plain.prompt("caption", examples[k : k + 1], examples[9]) for k in range(2)]
    expected = [score.log_prob for score in plain.score(prompts, 2)]
    assert [score.log_prob for score in compiled.score(prompts, 2)] == pytest.approx(expected, abs=1e-4)
    assert min(graphs) > 1
    assert len(graphs) >= len(set(handed))
    assert compiled.fingerprint() == plain.fingerprint()


@pytest.mark.external
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_gives_the_same_scores(folder_of: Folder, images: Callable[[str], list[Example]]) -> None:
    import torch._dynamo.utils as dynamo

    examples = images("caption")
    plain = Idefics2Model(IdeficsOptions(path=folder_of(tiny.idefics2), device="cpu"))
    compiled = Idefics2Model(IdeficsOptions(path=folder_of(tiny.idefics2), device="cpu", compile=True))
    before = sum(dynamo.counters["stats"].values())
    for shots in (1, 2, 4):
        prompts = [plain.prompt("caption", examples[k : k + shots], examples[9]) for k in range(3)]
        expected = [score.log_prob for score in plain.score(prompts, 3)]
        assert [score.log_prob for score in compiled.score(prompts, 3)] == pytest.approx(expected, abs=1e-4)
    assert sum(dynamo.counters["stats"].values()) > before  # something was compiled
    assert compiled.fingerprint() == plain.fingerprint()


def test_a_named_device_goes_before_a_map_that_comes_with_the_name() -> None:
    assert TransformersOptions(device="cpu", device_map="auto").spread is None
    assert TransformersOptions(device_map="auto").spread == "auto"


def test_a_device_map_gives_the_same_scores(folder_of: Folder, images: Callable[[str], list[Example]]) -> None:
    pytest.importorskip("accelerate")
    source, examples = folder_of(tiny.idefics2), images("caption")
    spread, whole = (
        Idefics2Model(IdeficsOptions(path=source, device_map="auto")),
        Idefics2Model(IdeficsOptions(path=source, device="cpu")),
    )
    prompts = [whole.prompt("caption", examples[1 : 1 + k], examples[0]) for k in (2, 0)]
    actual, expected = ([s.log_prob for s in m.score(prompts, 2)] for m in (spread, whole))
    assert actual == pytest.approx(expected, abs=1e-4)


def test_weights_are_found_by_either_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from icltool.components.models.shared.weights import find_weights

    folder = tmp_path / "weights" / "some-model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.delenv("MODEL_CPK_DIR", raising=False)
    monkeypatch.setenv("CHECKPOINT_PATH", str(tmp_path / "weights"))
    assert find_weights("some", None, "owner/some-model", None).source == str(folder)
    monkeypatch.setenv("MODEL_CPK_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"MODEL_CPK_DIR .* or CHECKPOINT_PATH"):
        find_weights("other", None, "owner/other-model", None)


def test_a_download_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icltool.components.models.shared.weights._in_cache", lambda hub_id: hub_id == "owner/known")
    with pytest.warns(IclWarning, match="downloading owner/new from the hub"):
        assert not find_weights("mine", None, None, "owner/new").local_only
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not find_weights("mine", None, None, "owner/known").local_only


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "fails: access to attribute '__class__' .* is unsafe"),
        ("{{ raise_exception('I want one image') }}", "fails: I want one image"),
        ("{% for", "fails: unexpected 'end of template'"),
        ("{{ a.b.c }}", "fails: 'a' is undefined"),
        ("nothing", "does not write the answer"),
        ("{{ 'x' * 3000000000 }}", "contains '3000000000'"),
        ("{% set a = 9 ** 99 %}{{ 'x' * a }}", r"contains '9 \*\* 9"),
    ],
)
def test_a_chat_template_that_fails_is_one_line(template: str, reason: str, folder_of: Folder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder_of(tiny.qwen2_5_vl), tmp_path / "m"))
    assert (folder / "chat_template.jinja").exists()
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ConfigError) as caught:
        ChatModel(ChatOptions(path=str(folder), device="cpu"))
    assert re.search(f"template.* {reason}", caught.value.message)
    assert "\n" not in caught.value.message


class Evil:
    def __reduce__(self) -> Any:
        return pathlib.Path.touch, (pathlib.Path("ran"),)


@pytest.mark.parametrize("save", [lambda value, file: file.write_bytes(pickle.dumps(value)), torch.save])
def test_pickled_weights_run_nothing_and_are_one_line(
    save: Any, folder_of: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(folder_of(tiny.gpt2), tmp_path / "m"))
    (folder / "model.safetensors").unlink()
    save({"weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded from") as caught:
        TextModel(RemoteCodeOptions(path=str(folder), device="cpu"))
    assert "\n" not in caught.value.message
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", ["[]", "5", '{"model_type": 5}', '{"model_type": "gpt2", "n_layer": "many"}'])
def test_a_configuration_of_another_form_is_one_line(content: str, folder_of: Folder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder_of(tiny.gpt2), tmp_path / "m"))
    (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="cannot be loaded from") as caught:
        TextModel(RemoteCodeOptions(path=str(folder), device="cpu"))
    assert "\n" not in caught.value.message
