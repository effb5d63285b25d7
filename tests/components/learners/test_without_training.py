"""Task vectors, function vectors and in-context vectors by PCA against loops over single prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from icltool.components.interventions.files import read_intervention
from icltool.components.interventions.last_token import LastTokenVector
from icltool.components.interventions.shift import ShiftVectors
from icltool.components.interventions.stored import StoredOptions
from icltool.components.learners.function_vector import FunctionVector, FunctionVectorOptions, summed_heads
from icltool.components.learners.icv_pca import IcvPca, IcvPcaOptions, principal_shift
from icltool.components.learners.interventions import card
from icltool.components.learners.interventions.draws import Draws, held_out
from icltool.components.learners.task_vector import TaskVector
from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.text.text import TextModel
from icltool.components.tasks import task_named
from icltool.contracts import Example, IndexSet, InterventionSet, Prompt, TrainingOutcome, group_code
from icltool.contracts.arrays import text_code
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component
from tests.components.learners.synthetic import RecordingProgress
from tests.components.models import tiny
from tests.conftest import Scenery

SMALL = {"shots": 2, "examples": 5, "dev_size": 4}
FEW: dict[str, dict[str, Any]] = {"function-vector": {**SMALL, "effect_size": 3}}
LEARNERS: dict[str, type] = {"task-vector": TaskVector, "function-vector": FunctionVector, "icv-pca": IcvPca}
LABELS = ("red bar", "green block", "blue frame", "yellow bar", "red block", "green frame", "blue bar", "yellow block")


class Listed:
    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def rows(self, rows: NDArray[np.int64] | Sequence[int]) -> list[Example]:
        return [self.examples[int(row)] for row in rows]


def intervention_set(model: Any, task: str, examples: Sequence[Example], batch_size: int = 3) -> InterventionSet:
    def features(paths: Sequence[str]) -> Mapping[str, Any] | None:
        return dict(zip(paths, model.image_features(paths, 4), strict=True)) if paths else None

    index = IndexSet(
        np.array([e.id for e in examples]),
        np.array([e.image_id for e in examples]),
        np.array([group_code(e.group) for e in examples]),
        contents=np.array([text_code(e.label) for e in examples]),
    )
    return InterventionSet(
        model, task_named(task), Listed(examples), index, features, batch_size, provenance={"dataset": "made here"}
    )


@pytest.fixture(scope="module", params=["idefics", "llama"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> InterventionSet:
    if request.param == "idefics":
        scenery: Scenery = request.getfixturevalue("scenery")
        examples = [scenery.example(i % 8, (3 * i + i // 8) % 8) for i in range(24)]
        return intervention_set(request.getfixturevalue("tiny_model"), "caption", examples)
    model = TextModel(RemoteCodeOptions(name="llama", path=tiny.llama(tmp_path_factory.mktemp("llama")), device="cpu"))
    texts = [f"the {'short ' * (3 * i % 7)}question {i}" for i in range(24)]
    return intervention_set(
        model,
        "vqa",
        [Example(i, "", i, t, LABELS[i % 8], (LABELS[i % 8],), question=t) for i, t in enumerate(texts)],
    )


def learn(data: InterventionSet, method: str, folder: Path, seed: int = 3, **options: Any) -> TrainingOutcome:
    outcome: TrainingOutcome = component(
        "learners", method, **{**FEW.get(method, SMALL), **options}
    ).learn_intervention(data, folder, seed, RecordingProgress())
    return outcome


def drawn(data: InterventionSet, seed: int = 3) -> tuple[Draws, Draws]:
    """(examples that are learned from, development split)."""
    development = held_out(data, SMALL["dev_size"], seed)
    return Draws(data, len(data.examples), seed, apart=development.rows), development


def ends(
    data: InterventionSet, prompts: Sequence[Prompt], modules: Sequence[Any], inputs: bool = False
) -> torch.Tensor:
    """The twin: float64 [n, M, width], by plain hooks, one prompt at a time."""
    model: Any = data.model
    actual = []
    for prompt in prompts:
        batch = model.answer_batch([prompt], data.features(prompt.images))
        seen: dict[int, torch.Tensor] = {}

        def keep(place: int, arguments: Any, output: Any, seen: dict[int, torch.Tensor] = seen) -> None:
            value = arguments[0] if inputs else output
            seen[place] = (value[0] if isinstance(value, tuple) else value)[0]

        with ExitStack() as stack, torch.no_grad():
            for place, module in enumerate(modules):
                handle = module.register_forward_hook(
                    lambda m, arguments, output, p=place, k=keep: k(p, arguments, output)
                )
                stack.callback(handle.remove)
            model.answer_logits(batch)
        last = int(batch.lasts[0])
        actual.append(torch.stack([seen[place][last] for place in range(len(modules))]).double())
    return torch.stack(actual)


def development_log_prob(data: InterventionSet, intervention: Any) -> float:
    prompts = drawn(data)[1].plain_prompts(range(SMALL["dev_size"]))
    with intervention.applied(data.model):
        return float(np.mean([data.model.score([p], 1, data.features(p.images))[0].mean for p in prompts]))


def test_the_task_vector_is_the_mean_state_of_prompts_with_demonstrations(
    data: InterventionSet, tmp_path: Path
) -> None:
    outcome = learn(data, "task-vector", tmp_path)
    layers = data.model.decoder_layers()  # type: ignore[attr-defined]
    pool, _ = drawn(data)
    means = ends(data, pool.prompts(range(5), 2), layers).mean(0)
    stored = read_intervention(outcome.checkpoints["last"])
    values = {int(record["layer"]): record["log_prob"] for record in outcome.history}
    layer = int(stored.tensors["layer"])
    assert sorted(values) == list(range(len(layers)))
    assert (
        layer == max(values, key=values.__getitem__) == outcome.history[-1]["layer"] == stored.about["figures"]["layer"]
    )
    torch.testing.assert_close(stored.tensors["vector"].double(), means[layer], atol=1e-5, rtol=1e-4)
    applied = LastTokenVector(StoredOptions(method="task-vector", file=outcome.checkpoints["last"]))
    assert values[layer] == pytest.approx(development_log_prob(data, applied), abs=1e-4)


def effect_by_hand(data: InterventionSet, prompts: Sequence[Prompt], part: Any, head: int, mean: torch.Tensor) -> float:
    """The mean gain in the answer's geometric mean probability when one head's output at the prompt's end is replaced."""
    model: Any = data.model
    gains = []
    for prompt in prompts:
        batch = model.answer_batch([prompt], data.features(prompt.images))
        columns = slice(head * part.head_width, (head + 1) * part.head_width)

        def replaced(module: Any, arguments: Any, batch: Any = batch, columns: slice = columns) -> Any:
            changed = arguments[0].clone()
            changed[0, int(batch.lasts[0]), columns] = mean[columns].float()
            return (changed,)

        probabilities = []
        for hooked in (True, False):
            handle = part.output.register_forward_pre_hook(replaced) if hooked else None
            with torch.no_grad():
                logs = torch.log_softmax(model.answer_logits(batch).double(), -1)
            if handle is not None:
                handle.remove()
            picked = [float(logs[k, token]) for k, token in enumerate(batch.tokens.tolist())]
            probabilities.append(np.exp(np.mean(picked)))
        gains.append(probabilities[0] - probabilities[1])
    return float(np.mean(gains))


@pytest.mark.parametrize("corrupted", ["zero-shot", "shuffled"])
def test_the_function_vector_sums_the_heads_with_the_largest_effect(
    data: InterventionSet, corrupted: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"heads": 3, "effect_size": 4, "corrupted": corrupted, "corrupted_shots": 3}
    outcome = learn(data, "function-vector", tmp_path, **options)
    attention = data.model.attention_heads()  # type: ignore[attr-defined]
    pool, _ = drawn(data)
    means = ends(data, pool.prompts(range(5), 2), [part.output for part in attention], inputs=True).mean(0)
    stored = read_intervention(outcome.checkpoints["last"])
    chosen = [(int(layer), int(head)) for layer, head, _ in stored.about["figures"]["heads (layer, head, effect)"]]
    expected = torch.zeros(stored.base.width, dtype=torch.float64)
    for layer, head in chosen:
        part = attention[layer]
        columns = slice(head * part.head_width, (head + 1) * part.head_width)
        expected += part.output.weight.double()[:, columns] @ means[layer, columns]
    torch.testing.assert_close(stored.tensors["vector"].double(), expected, atol=1e-5, rtol=1e-4)
    applied = LastTokenVector(StoredOptions(method="function-vector", file=outcome.checkpoints["last"]))
    best = max(record["log_prob"] for record in outcome.history)
    assert best == pytest.approx(development_log_prob(data, applied), abs=1e-4)
    if corrupted == "zero-shot":
        prompts = pool.plain_prompts(range(5, 9))
        effects = {
            (layer, head): effect_by_hand(data, prompts, part, head, means[layer])
            for layer, part in enumerate(attention)
            for head in range(part.heads)
        }
        ranked = sorted(effects, key=lambda place: -effects[place])
        # effects that are equal but for rounding may stand in either order
        assert len(set(chosen)) == 3
        assert [effects[place] for place in chosen] == pytest.approx([effects[p] for p in ranked[:3]], abs=2e-5)
        for layer, head, effect in stored.about["figures"]["heads (layer, head, effect)"]:
            assert effect == pytest.approx(effects[layer, head], abs=2e-5)


def test_shuffled_prompts_hold_the_same_labels_in_another_order(data: InterventionSet, tmp_path: Path) -> None:
    from icltool.components.learners.interventions.activations import ActivationExtraction

    learner = FunctionVector(FunctionVectorOptions(**SMALL, corrupted="shuffled", corrupted_shots=6, effect_size=3))
    making = ActivationExtraction(data, "function-vector", learner.options, tmp_path, 3, RecordingProgress())
    prompts = learner._uninformative(making)
    pool, _ = drawn(data)
    for position, prompt in zip(range(5, 8), prompts, strict=True):
        [true] = pool.prompts([position], 6)
        assert prompt.images == true.images
        assert prompt.target == true.target
        assert prompt.text != true.text
        assert sorted(prompt.text.split()) == sorted(true.text.split())


def test_heads_go_through_the_projection_without_its_bias() -> None:
    from icltool.contracts import AttentionHeads

    projection = torch.nn.Linear(12, 5)
    part = AttentionHeads(3, 4, None, None, projection)
    mean = torch.randn(12, dtype=torch.float64)
    actual = summed_heads([part, part], [mean, 2 * mean], [(0, 2), (1, 0), (0, 1)])
    weight = projection.weight.detach().double()
    expected = weight[:, 4:] @ mean[4:] + weight[:, :4] @ (2 * mean[:4])
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


def test_in_context_vectors_are_principal_directions_of_the_differences(data: InterventionSet, tmp_path: Path) -> None:
    outcome = learn(data, "icv-pca", tmp_path, strengths="0.05,0.2")
    modules = data.model.shifted_modules()  # type: ignore[attr-defined]
    pool, _ = drawn(data)
    differences = ends(data, pool.prompts(range(5), 2), modules) - ends(data, pool.plain_prompts(range(5)), modules)
    stored = read_intervention(outcome.checkpoints["last"])
    for layer in range(len(modules)):
        rows = differences[:, layer].numpy()
        direction = np.linalg.eigh(rows.T @ rows)[1][:, -1]  # by another way than the singular vectors
        direction *= np.sign(rows.mean(0) @ direction)
        expected = direction * np.linalg.norm(rows, axis=1).mean()
        np.testing.assert_allclose(stored.tensors["vectors"][layer].numpy(), expected, atol=1e-4, rtol=1e-3)
    best = outcome.history[-1]
    assert sorted(record["strength"] for record in outcome.history) == [0.05, 0.2]
    assert best["log_prob"] == max(record["log_prob"] for record in outcome.history)
    assert torch.equal(stored.tensors["alphas"], torch.full((len(modules),), best["strength"]))
    applied = ShiftVectors(StoredOptions(method="icv-pca", file=outcome.checkpoints["last"]))
    assert best["log_prob"] == pytest.approx(development_log_prob(data, applied), abs=1e-4)


def test_the_shift_points_where_the_mean_points_and_is_not_centred() -> None:
    rng = np.random.default_rng(0)
    rows = np.array([-3.0, 0.0, 0.0]) + rng.normal(size=(40, 3)) * [0.05, 0.8, 0.05]
    shift, share = principal_shift(torch.tensor(rows))
    assert shift[0] < -2.9
    assert abs(float(shift[1])) < 0.5  # the first centred direction is the second axis
    assert float(shift.norm()) == pytest.approx(np.linalg.norm(rows, axis=1).mean())
    assert 0.9 < share < 1
    zero, none = principal_shift(torch.zeros(4, 3, dtype=torch.float64))
    assert not zero.any()
    assert none == 0


@pytest.mark.parametrize("method", list(LEARNERS))
def test_the_result_does_not_depend_on_the_batch_size_and_the_model_is_as_before(
    data: InterventionSet, method: str, tmp_path: Path
) -> None:
    prompts = drawn(data)[0].plain_prompts(range(3))
    features = data.features(list(dict.fromkeys(path for p in prompts for path in p.images)))
    before = data.model.score(prompts, 3, features)
    first = learn(data, method, tmp_path / "a")
    same = learn(data, method, tmp_path / "b")
    single = learn(replace(data, batch_size=1), method, tmp_path / "c")
    assert data.model.score(prompts, 3, features) == before
    paths = [outcome.checkpoints["last"] for outcome in (first, same, single)]
    assert read_intervention(paths[0]).about == read_intervention(paths[1]).about
    for name, tensor in read_intervention(paths[0]).tensors.items():
        assert torch.equal(read_intervention(paths[1]).tensors[name], tensor)
        torch.testing.assert_close(read_intervention(paths[2]).tensors[name], tensor, atol=1e-4, rtol=1e-3)
    for one, other in zip(first.history, single.history, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    about = read_intervention(paths[0]).about
    assert (about["shots"], about["seed"], about["dataset"]) == (2, 3, "made here")
    assert about["options"] == component("learners", method, **FEW.get(method, SMALL)).identity()
    text = (tmp_path / "a" / card.CARD).read_text()
    assert f"--method {method}" in text
    assert "log_prob without" in text


def test_another_seed_reads_other_prompts(data: InterventionSet, tmp_path: Path) -> None:
    one, other = (learn(data, "task-vector", tmp_path / str(seed), seed).checkpoints["last"] for seed in (3, 4))
    assert not torch.equal(read_intervention(one).tensors["vector"], read_intervention(other).tensors["vector"])


def test_it_is_said_when_nothing_helps(data: InterventionSet, tmp_path: Path) -> None:
    progress = RecordingProgress()
    IcvPca(IcvPcaOptions(**SMALL, strengths=(500.0,))).learn_intervention(data, tmp_path, 3, progress)
    assert any("less probable than no intervention" in text for text in progress.said)
    assert progress.done == sum(total for _, total in progress.tasks)


@pytest.mark.parametrize("method", list(LEARNERS))
def test_wrong_options_are_named(method: str) -> None:
    with pytest.raises(ConfigError, match=f"'{method}' has no option 'dev_sise'") as caught:
        component("learners", method, dev_sise=3)
    assert "did you mean 'dev_size'" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="shots must be a positive integer, got '0'"):
        component("learners", method, shots="0")
    assert component("learners", method, shots="4").identity()["shots"] == 4


def test_what_cannot_be_made_leaves_what_was_made(data: InterventionSet, tmp_path: Path) -> None:
    learn(data, "task-vector", tmp_path)
    content = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(DataError, match="shots=40"):
        learn(data, "task-vector", tmp_path, shots=40)
    with pytest.raises(ConfigError, match="does not support decoder hooks"):
        learn(replace(data, model=_Plain(data.model)), "task-vector", tmp_path)
    assert (tmp_path / "last.safetensors").read_bytes() == content


class _Plain:
    """The model without hooks."""

    def __init__(self, model: Any) -> None:
        self.name, self.prompt = model.name, model.prompt


def test_heads_that_cannot_be_told_apart_are_an_error(data: InterventionSet, tmp_path: Path) -> None:
    model = TextModel(RemoteCodeOptions(name="gpt2", path=tiny.gpt2(tmp_path / "model"), device="cpu"))
    with pytest.raises(ConfigError, match="separate projections for each head"):
        learn(replace(data, model=model), "function-vector", tmp_path)


def test_learners_are_found_by_name() -> None:

    for method, kind in LEARNERS.items():
        assert isinstance(component("learners", method, shots=3), kind)
