"""Figures that others reported for the same model and data set, to print beside a reproduction."""

from __future__ import annotations

from collections.abc import Collection

SOURCE = "MimIC, Hyper-ICL; re-runs by third parties"

#: Data sets whose figures the columns are: VQA accuracy, VQA accuracy and CIDEr, all times 100.
_COLUMNS = {"vqav2": 0, "vqav2-hub": 0, "vqav2-sub": 0, "okvqa": 1, "coco2017": 2}
_TASKS = ("vqa", "vqa", "caption")
_METRICS = ("vqa-accuracy", "okvqa-accuracy", "cider")

_FIGURES: dict[str, dict[tuple[str, int], tuple[float, float, float]]] = {
    "idefics-9b": {
        ("zero-shot", 0): (29.25, 30.54, 63.06),
        ("random", 32): (56.18, 48.48, 105.89),
        ("i2i", 32): (58.07, 51.11, 110.64),
        ("lora", 0): (55.60, 47.06, 97.75),
        ("live", 0): (53.71, 46.05, 112.76),
    },
    "idefics2-8b-base": {
        ("zero-shot", 0): (55.39, 43.08, 40.00),
        ("random", 8): (66.20, 57.68, 122.51),
        ("live", 0): (67.60, 54.86, 126.04),
    },
}

#: Fine-tuned captioners, whose figures are of several metrics: (model, data set) -> what was reported.
_CAPTIONERS = {
    (
        "blip2-opt-2.7b",
        "coco-karpathy",
    ): "finetuned on 8 devices, 5 epochs: BLEU-4 43.8, CIDEr 146.1, SPICE 25.2 (BLIP-2); "
    "BLEU-4 42.3, CIDEr 143.9 (a re-run by a third party)",
}


def published(model: str, dataset: str, task: str) -> dict[tuple[str, int], float]:
    """{(method, shots): figure} in the metric's usual scale; {} where none are known."""
    column = _COLUMNS.get(dataset)
    if column is None or _TASKS[column] != task:
        return {}
    return {setting: figures[column] for setting, figures in _FIGURES.get(model, {}).items()}


def published_remark(model: str, dataset: str, task: str, metrics: Collection[str] = (), queries: int = 0) -> str:
    """All of them in a line; "" where none are known. It says where they are of another metric than `metrics`, and of more
    queries than so many."""
    if task == "caption" and (captioner := _CAPTIONERS.get((model, dataset))):
        return f"reported in the literature: {captioner}"
    figures = published(model, dataset, task)
    texts = (f"{method}{f' {shots}-shot' if shots else ''} {figure:.2f}" for (method, shots), figure in figures.items())
    if not figures:
        return ""
    metric = _METRICS[_COLUMNS[dataset]]
    other = f", by {metric}, which is not among the metrics here" if metrics and metric not in metrics else ""
    part = f", of the whole split ({queries:,} queries here)" if queries else ""
    return f"reported in the literature ({SOURCE}{other}{part}): {', '.join(texts)}"
