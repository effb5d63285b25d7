"""How methods are named: labels, options, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from icltool.commands.evaluate.specs import Spec, method_names, read_specs
from icltool.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("mmr", Spec("mmr", "mmr")),
        ("mmr:pool=10", Spec("mmr", "mmr:pool=10", {"pool": 10})),
        ("mmr:pool=10:trade-off=0.5", Spec("mmr", "mmr:pool=10:trade_off=0.5", {"pool": 10, "trade_off": 0.5})),
        ("A=lever-lm", Spec("lever-lm", "A")),
        ("A=lever-lm:checkpoint=a/b-c", Spec("lever-lm", "A", {"checkpoint": "a/b-c"})),
        ("lever-lm:checkpoint=a/b-c/", Spec("lever-lm", "lever-lm:checkpoint=b-c", {"checkpoint": "a/b-c/"})),
        ("lever-lm:checkpoint=C:/a/b", Spec("lever-lm", "lever-lm:checkpoint=b", {"checkpoint": "C:/a/b"})),
        ("near first=i2i:reversed_order=false", Spec("i2i", "near first", {"reversed_order": False})),
        ("i2i+mmr", Spec("i2i+mmr", "i2i+mmr")),
        ("i2i > mmr+ random", Spec("i2i+mmr+random", "i2i+mmr+random")),
        (
            "i2i+mmr:mmr.pool=9:i2i.x-y=1",
            Spec("i2i+mmr", "i2i+mmr:mmr.pool=9:i2i.x_y=1", {"mmr.pool": 9, "i2i.x_y": 1}),
        ),
        ("A=i2i>mmr:mmr.pool=9", Spec("i2i+mmr", "A", {"mmr.pool": 9})),
        ("i2i@siglip2", Spec("i2i", "i2i@siglip2", {}, ("siglip2",))),
        ("near=i2i@siglip2:pool=9", Spec("i2i", "near", {"pool": 9}, ("siglip2",))),
        (
            "i2i@a-1.5 > t2t+mmr@b:mmr.pool=9",
            Spec("i2i+t2t+mmr", "i2i@a-1.5+t2t+mmr@b:mmr.pool=9", {"mmr.pool": 9}, ("a-1.5", "", "b")),
        ),
        ("i2i+my-1.5:my-1.5.a=C:/b", Spec("i2i+my-1.5", "i2i+my-1.5:my-1.5.a=b", {"my-1.5.a": "C:/b"})),
    ],
)
def test_a_method_is_read_as_it_is_meant(text: str, spec: Spec) -> None:
    assert read_specs([text]) == [spec]
    assert method_names([text]) == spec.name.split("+") == list(spec.names)


def test_options_are_those_of_the_part_that_they_name() -> None:
    [spec] = read_specs(["i2i+mmr:mmr.pool=9:i2i.index=hnsw"])
    assert spec.options_of("mmr") == {"pool": 9}
    assert spec.options_of("i2i") == {"index": "hnsw"}
    [twice] = read_specs(["i2i@a+i2i@b-1.5:i2i@b-1.5.pool=9:i2i.index=hnsw"])
    assert twice.options_of("i2i", "a") == {"index": "hnsw"}
    assert twice.options_of("i2i", "b-1.5") == {"pool": 9, "index": "hnsw"}
    [plain] = read_specs(["mmr:pool=9"])
    assert plain.options_of("mmr") == {"pool": 9}
    for text, fault in (
        ("i2i+mmr:pool=9", "pool does not name its method"),
        ("i2i+mmr:dpp.pool=9", "dpp.pool belongs to none of its methods"),
    ):
        [wrong] = read_specs([text])
        with pytest.raises(ConfigError, match=fault) as caught:
            wrong.options_of("i2i")
        assert caught.value.hint == "for example mmr.pool=9"


def test_each_is_read_once() -> None:
    assert [spec.label for spec in read_specs(["i2i", "random", "i2i"])] == ["i2i", "random"]
    assert method_names(["mmr:pool=1", "mmr:pool=2"]) == ["mmr"]
    assert [spec.label for spec in read_specs(["i2i+mmr", "i2i>mmr"])] == ["i2i+mmr"]
    assert method_names(["i2i+mmr", "t2t+mmr"]) == ["i2i", "mmr", "t2t"]


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        (["A=i2i", "A=t2t"], "two methods have the label 'A'"),
        (["mmr=i2i", "mmr"], "two methods have the label 'mmr'"),
        (["mmr:10"], "NAME:OPTION=VALUE"),
        ([":pool=10"], "NAME:OPTION=VALUE"),
        (["i2i+"], "NAME:OPTION=VALUE"),
        (["+mmr"], "NAME:OPTION=VALUE"),
        (["a/b=mmr"], "cannot be a label"),
        (["=mmr"], "cannot be a label"),
        (["mmr:pool=1:pool=2"], "pool is given twice"),
        (["i2i@"], "'' is not the name of an encoder"),
        (["i2i+t2t@owner/name"], "'owner/name' is not the name of an encoder"),
        (["@dinov2"], "NAME:OPTION=VALUE"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts: list[str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        read_specs(texts)


@given(st.text(max_size=20))
def test_any_text_is_a_method_or_refused(text: str) -> None:
    try:
        [spec] = read_specs([text])
    except ConfigError:
        return
    assert spec.name
    assert "/" not in spec.label
    assert "\0" not in spec.label
