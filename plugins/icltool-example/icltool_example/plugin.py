"""The hooks, which register the components. Only icltool is imported here, so that listing components is fast."""

from __future__ import annotations

from icltool import Registration, hookimpl


@hookimpl
def icltool_samplers() -> list[Registration]:
    return [Registration("farthest", "icltool_example.farthest:FarthestSampler", "the least similar by image")]


@hookimpl
def icltool_scorers() -> list[Registration]:
    summary = "share of the label's words that occur in the demonstrations; needs no LVLM"
    return [Registration("word-overlap", "icltool_example.word_overlap:WordOverlapScorer", summary)]


@hookimpl
def icltool_retrievers() -> list[Registration]:
    summary = "every other row of another method: --method i2i+every-other"
    return [Registration("every-other", "icltool_example.every_other:EveryOther", summary)]


@hookimpl
def icltool_datasets() -> list[Registration]:
    return [Registration("jsonl", "icltool_example.jsonl:JsonlReader", "images with captions in JSONL files")]


@hookimpl
def icltool_tasks() -> list[Registration]:
    place = {"package": "icltool_example", "file": "counting.toml"}
    return [Registration("counting", "icltool:packaged_task", "how many of something there are", place)]


@hookimpl
def icltool_learners() -> list[Registration]:
    summary = "the mean change that demonstrations cause in the states of each layer"
    return [Registration("mean-shift", "icltool_example.mean_shift:MeanShift", summary)]


@hookimpl
def icltool_interventions() -> list[Registration]:
    return [Registration("mean-shift", "icltool_example.mean_shift:MeanShiftVectors", "adds it to every token's state")]


@hookimpl
def icltool_commands() -> list[Registration]:
    target = "icltool_example.command:check_jsonl"
    return [Registration("check-jsonl", target, "Check a folder for `icltool prepare jsonl`.")]
