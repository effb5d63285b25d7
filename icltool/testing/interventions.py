"""The conformance suite of interventions."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from icltool.components.interventions.files import read_intervention
from icltool.components.interventions.hooks import changed_outputs
from icltool.contracts import (
    Example,
    GenerationOptions,
    Intervention,
    Model,
    ModelIdentity,
    Prompt,
    SupportsDecoderHooks,
    SupportsPrefixCache,
    TargetScore,
)
from icltool.errors import ConfigError, IclError, StoreError
from icltool.testing.alone import PromptsAlone
from icltool.testing.expectations import expect, expect_equal, expect_error
from icltool.testing.prefixes import check_prefixes

if TYPE_CHECKING:
    from torch import Tensor

    from icltool.components.interventions.files import Stored

_BEAMS = GenerationOptions(max_new_tokens=6, num_beams=3)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OF_HOOKS = frozenset(name for name in vars(SupportsDecoderHooks) if not name.startswith("_"))


def check_intervention(
    intervention: Intervention,
    model: Model,
    examples: Sequence[Example],
    *,
    task: str = "caption",
    tolerance: float = 1e-4,
) -> None:
    """Checks an intervention against `icltool.Intervention`, on the model for which it was trained; raises AssertionError with
    a description of the fault.

    `examples` are at least four, as for `check_model`. Checks its attributes, and that its file agrees with them; that a model
    without hooks, or with another width, number of layers or weights, is refused; that it changes scores; that under it a
    batch of n equals n single runs, for scores and answers, also after a failed forward pass, and when it is applied again;
    that afterwards, also after exceptions, scores, hooks, methods and `requires_grad` of weights are as before, bit for bit;
    and, if it has `everywhere`, that prompts computed from shared keys and values score as whole ones. `tolerance` is in nats.
    """
    _check_attributes(intervention)
    untouched = traces(model)
    _check_refusals(intervention, model)
    intervention.check(model)
    prompts = [model.prompt(task, examples[1 : 1 + shots], examples[0]) for shots in (0, 0, 1, 2)]
    prompts[1] = model.prompt(task, (), examples[3])
    before, plain = model.score(prompts, len(prompts)), _log_probs(model, prompts)
    with intervention.applied(model):
        single = _log_probs(model, prompts)
        expect(not any(map(math.isnan, single)), f"under it a score is not a number: {single}")
        under = PromptsAlone(model)
        answers = under.answers(prompts, _BEAMS)
        for size in (2, len(prompts)):
            actual = [score.log_prob for score in model.score(prompts, size)]
            expect_equal(actual, single, f"under it, scores in batches of {size}", tolerance)
            batch = model.generate(prompts, _BEAMS, size)
            expect(batch == answers, f"under it, answers depend on the batch size: {batch} against {answers}")
    expect(any(a != b for a, b in zip(plain, single, strict=True)), "scores under it are those of the model without it")
    _check_undone(intervention, model, prompts, before, untouched)
    with intervention.applied(model):
        expect_equal(_log_probs(model, prompts), single, "applied again, scores are not those of the first time")
    _check_failures(intervention, model, prompts, single, tolerance)
    expect_untouched(model, untouched, "after a failed forward pass")
    expect(model.score(prompts, len(prompts)) == before, "after a failed forward pass scores must be as before")
    if intervention.everywhere:
        _check_shared(intervention, model, under, [prompts[3], prompts[1]], tolerance)


class Unhooked:
    """A model without its decoder hooks, but with every other ability."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        if name in _OF_HOOKS or name == "_model":
            raise AttributeError(name)
        return getattr(self._model, name)


def traces(model: Model) -> dict[str, object]:
    """What a change could leave behind: replaced methods of the model, and for all modules in its layers hooks, replaced
    `forward` methods, and the weights with their `requires_grad`."""
    hooked, own = cast(SupportsDecoderHooks, model), getattr(model, "__dict__", {})
    actual: dict[str, object] = {
        "methods of the model": {name: v for name, v in own.items() if callable(getattr(type(model), name, None))}
    }
    tops = list({id(part): part for part in (*hooked.decoder_layers(), *hooked.shifted_modules())}.values())
    for place, top in enumerate(tops):
        for name, part in top.named_modules(prefix=f"{type(top).__name__} {place}"):
            actual[f"hooks of {name}"] = [list(getattr(part, kind).items()) for kind in _HOOKS]
            actual[f"`forward` of {name}"] = vars(part).get("forward")
            actual[f"weights of {name}"] = [(n, w.requires_grad) for n, w in part.named_parameters(recurse=False)]
    return actual


def expect_untouched(model: Model, before: dict[str, object], when: str) -> None:
    """Checks that the model's `traces` are unchanged."""
    after, nothing = traces(model), object()
    for key in {**before, **after}:
        expect(before.get(key, nothing) == after.get(key, nothing), f"{when}, {key} must be as before")


def stored_in(path: Path) -> Stored:
    """The content of an intervention's file, which `icltool.save_intervention` must have written."""
    try:
        return read_intervention(path)
    except StoreError as error:
        raise AssertionError(f"`file` is one that `save_intervention` writes: {error}") from error


def _log_probs(model: Model, prompts: Sequence[Prompt]) -> list[float]:
    """One prompt at a time."""
    return [model.score([prompt], 1)[0].log_prob for prompt in prompts]


def _check_attributes(intervention: Intervention) -> None:
    expect(isinstance(intervention, Intervention), f"{type(intervention).__name__} lacks parts of `Intervention`")
    expect(isinstance(intervention.method, str) and intervention.method, "`method` is a name")
    expect(isinstance(intervention.everywhere, bool), "`everywhere` is true or false")
    expect(Path(intervention.file).is_file(), f"`file` is the file that was read, not {intervention.file}")
    expect(isinstance(intervention.parameters, int) and intervention.parameters > 0, "`parameters` counts its numbers")
    json.dumps(dict(intervention.about))
    expect(json.dumps(intervention.identity()) == json.dumps(intervention.identity()), "`identity` does not change")
    stored = stored_in(Path(intervention.file))
    expect(stored.method == intervention.method, f"`method` is the file's, {stored.method!r}")
    expect(
        stored.numbers == intervention.parameters, f"`parameters` is how many numbers the file holds, {stored.numbers}"
    )
    expect(stored.about == dict(intervention.about), f"`about` is what the file records, {stored.about}")


def _check_refusals(intervention: Intervention, model: Model) -> None:
    base = cast(SupportsDecoderHooks, model).base_model()
    others: dict[str, Any] = {"a model without hooks": Unhooked(model)}
    for what, other in (
        ("width", replace(base, width=base.width + 1)),
        ("number of layers", replace(base, sites=base.sites + 1)),
        ("weights", replace(base, weights=base.weights[::-1] + "0")),
    ):
        others[f"a model of another {what}"] = _named(model, other)
    for name, stranger in others.items():
        for method, refusing in (("check", intervention.check), ("applied", partial(_enter, intervention))):
            expect_error(ConfigError, partial(refusing, stranger), f"`{method}` refuses {name}")


def _named(model: Any, base: ModelIdentity) -> Any:
    """The model, under another identity."""
    other = copy.copy(model)
    other.base_model = lambda: base
    return other


def _enter(intervention: Intervention, model: Model) -> None:
    with intervention.applied(model):
        pass


def _check_undone(
    intervention: Intervention,
    model: Model,
    prompts: Sequence[Prompt],
    before: list[TargetScore],
    untouched: dict[str, object],
) -> None:
    expect(model.score(prompts, len(prompts)) == before, "afterwards scores must be as before, bit for bit")
    expect_untouched(model, untouched, "afterwards")

    def failing() -> None:
        with intervention.applied(model):
            model.score(prompts[:1], 1)
            raise KeyError("in the middle")

    expect_error(KeyError, failing, "an exception within `applied` goes to the caller")
    expect(model.score(prompts, len(prompts)) == before, "after an exception scores must be as before, bit for bit")
    expect_untouched(model, untouched, "after an exception")


def _check_failures(
    intervention: Intervention, model: Model, prompts: Sequence[Prompt], single: Sequence[float], tolerance: float
) -> None:
    """Forward passes that fail, caught under it and outside: a hook that raises, and an image that does not exist."""
    layers = cast(SupportsDecoderHooks, model).decoder_layers()
    missing = replace(prompts[-1], images=("/no/such/image.png",) * len(prompts[-1].images))

    def failing(states: Tensor) -> Tensor:
        raise _FailureError

    def broken(read: Callable[[], object]) -> None:
        with changed_outputs([layers[len(layers) // 2]], [failing]):
            read()

    actions: list[tuple[type[Exception], Callable[[], object]]] = [
        (_FailureError, lambda: broken(lambda: model.score(prompts, len(prompts)))),
        (_FailureError, lambda: broken(lambda: model.generate(prompts, _BEAMS, len(prompts)))),
    ]
    if missing.images:
        actions.append((IclError, lambda: model.score([missing], 1)))
    for kind, action in actions:
        with intervention.applied(model):
            expect_error(kind, action, "what a forward pass raises goes to the caller")
            expect_equal(_log_probs(model, prompts), single, "under it, scores after a failed forward pass", tolerance)
        expect_error(kind, partial(_within, intervention, model, action), "what a forward pass raises leaves `applied`")


def _within(intervention: Intervention, model: Model, action: Callable[[], object]) -> None:
    with intervention.applied(model):
        action()


class _FailureError(Exception):
    """Raised within a hook."""


def _check_shared(
    intervention: Intervention, model: Model, under: PromptsAlone, prompts: Sequence[Prompt], tolerance: float
) -> None:
    """`under` knows scores and answers under it."""
    if not isinstance(model, SupportsPrefixCache):
        return
    with intervention.applied(model):
        try:
            check_prefixes(model, prompts, None, tolerance, under)
        except AssertionError as error:
            raise AssertionError(f"under it, prompts computed in parts, as where they share some: {error}") from error
