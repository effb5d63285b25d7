"""The hooks: which models there are. Nothing is imported here but icltool, so that listing them costs nothing."""

from __future__ import annotations

from icltool import Registration, hookimpl

_TARGET = "icltool_openflamingo.model:OpenFlamingoModel"


def _registration(name: str, summary: str, checkpoint: str, language_model: str, interval: int) -> Registration:
    options = {
        "name": name,
        "checkpoint": checkpoint,
        "language_model": language_model,
        "clip": "timm/vit_large_patch14_clip_224.openai",
        "cross_attention_interval": interval,
    }
    return Registration(name, _TARGET, summary, options)


@hookimpl
def icltool_models() -> list[Registration]:
    """The published models (Awadalla et al. 2023, arXiv:2308.01390, table 1) and the first-generation 9B."""
    return [
        _registration(
            "openflamingo-3b",
            "OpenFlamingo 3B: CLIP ViT-L/14 and MPT-1B",
            "openflamingo/OpenFlamingo-3B-vitl-mpt1b",
            "anas-awadalla/mpt-1b-redpajama-200b",
            1,
        ),
        _registration(
            "openflamingo-9b",
            "OpenFlamingo 9B: CLIP ViT-L/14 and MPT-7B",
            "openflamingo/OpenFlamingo-9B-vitl-mpt7b",
            "anas-awadalla/mpt-7b",
            4,
        ),
        _registration(
            "openflamingo-9b-v1",
            "OpenFlamingo 9B, first generation: CLIP ViT-L/14 and LLaMA-7B",
            "openflamingo/OpenFlamingo-9B-deprecated",
            "huggyllama/llama-7b",
            4,
        ),
    ]
