"""The hooks: which components there are. Nothing is imported here but icltool, so that listing them costs nothing."""

from __future__ import annotations

from icltool import Registration, hookimpl


@hookimpl
def icltool_samplers() -> list[Registration]:
    return [Registration("farthest", "icltool_example.farthest:FarthestSampler", "the least similar by image")]


@hookimpl
def icltool_scorers() -> list[Registration]:
    summary = "share of the label's words that the demonstrations show; needs no LVLM"
    return [Registration("word-overlap", "icltool_example.word_overlap:WordOverlapScorer", summary)]


@hookimpl
def icltool_datasets() -> list[Registration]:
    return [Registration("jsonl", "icltool_example.jsonl:JsonlReader", "images with captions in JSONL files")]
