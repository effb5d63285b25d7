"""LIVE trained for models of other families, and used: adapters whose layers, prompts and images differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icltool.components.interventions.shift import ShiftVectors
from icltool.components.interventions.stored import StoredOptions
from icltool.components.learners.live.learner import Live
from icltool.components.learners.live.options import LiveOptions
from icltool.components.models.idefics.idefics2 import Idefics2Model
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.contracts import GenerationOptions
from icltool.testing import QuietProgress
from tests.components.interventions.cases import case_of
from tests.components.learners.interventions.sets import intervention_set
from tests.components.models import tiny
from tests.conftest import Scenery


@pytest.mark.parametrize("family", ["idefics2", "idefics2 live", "qwen2.5-vl", "gemma3"])
def test_live_is_trained_and_used(
    family: str, scenery: Scenery, tmp_path: Path, request: pytest.FixtureRequest, tmp_path_factory: Any
) -> None:
    if family.startswith("idefics2"):
        template = "live" if family.endswith("live") else "lever-lm"
        model: Any = Idefics2Model(
            IdeficsOptions(name="idefics2", path=tiny.idefics2(tmp_path / "model"), device="cpu", template=template)
        )
    else:
        model = case_of(family, request, tmp_path_factory)[0]
    data = intervention_set(model, scenery.mixed(8, seed=21), cached=hasattr(model, "image_features"))
    options = {
        "shots": 1,
        "max_train_size": 6,
        "epochs": 5,
        "batch_size": 3,
        "accumulate": 1,
        "lr": 0.1,
        "alpha_lr": 1.0,
    }
    outcome = Live(LiveOptions(**options, grad_checkpointing=family == "gemma3", teacher_draws=1)).learn_intervention(
        data, tmp_path, 0, QuietProgress()
    )
    vectors = ShiftVectors(StoredOptions(method="live", file=outcome.checkpoints["last"]))
    base = model.base_model()
    assert vectors.parameters == base.sites * (base.width + 1)
    prompts = [model.prompt("caption", (), example) for example in data.examples.rows(range(4))]
    before = model.score(prompts, 4)
    options_of_search = GenerationOptions(max_new_tokens=4, num_beams=2)
    with vectors.applied(model):
        steered = model.score(prompts, 4)
        assert model.generate(prompts, options_of_search, 4) == [
            model.generate([p], options_of_search, 1)[0] for p in prompts
        ]
    assert sum(s.log_prob for s in steered) > sum(s.log_prob for s in before)
    assert model.score(prompts, 4) == before
