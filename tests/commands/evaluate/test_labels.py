"""What an evaluation draws by label: the index set of --index-per-label, and the shots of a method that takes all classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.settings import Settings
from icltool.errors import ConfigError


def inputs(workspace: Path, **options: Any) -> Inputs:
    return Inputs(EvaluateConfig(workspace=workspace, task="vqa", model="tiny-idefics", test_size=4, **options))


def test_as_many_examples_of_each_label(workspace: Path) -> None:
    whole = inputs(workspace)
    one, two = inputs(workspace, index_per_label=1), inputs(workspace, index_per_label=2)
    labels = Counter(whole.index_labels)
    assert Counter(one.index_labels) == dict.fromkeys(labels, 1)
    assert Counter(two.index_labels) == {label: min(2, count) for label, count in labels.items()}
    assert set(one.index_rows) < set(two.index_rows)
    assert (np.diff(two.index_rows) > 0).all()
    assert "index_per_label" not in whole.identity(), "evaluations without the option are those of before"
    assert two.identity() == {**whole.identity(), "index_per_label": 2}


def test_balanced_takes_all_classes_unless_shots_are_given(workspace: Path) -> None:
    some = inputs(workspace, index_per_label=2, methods=("balanced:per_class=2",))
    labels = Counter(some.index_labels)
    total = sum(min(2, count) for count in labels.values())
    settings = Settings(some)
    ((setting,),) = settings.groups
    assert setting.shots == total
    rows = settings.demonstrations(setting)
    assert rows.shape == (4, total)
    single = sum(count < 2 for count in labels.values())
    assert any("fewer than 2 examples" in remark for remark in settings.remarks) == bool(single)
    other = Settings(inputs(workspace, methods=("balanced",), shots=(len(labels) + 1,)))
    with pytest.raises(ConfigError, match="balanced takes"):
        other.demonstrations(other.groups[0][0])
