"""The hooks: which models there are. Nothing is imported here but icltool, so that listing them costs nothing."""

from __future__ import annotations

from icltool import Registration, hookimpl

_TARGET = "icltool_ofa.model:OFAModel"
_SIZES = {"tiny": "33.5M", "medium": "92.9M", "base": "182M", "large": "473M", "huge": "930M"}
_DISTILLED = "damo/ofa_image-caption_coco_distilled_en"


@hookimpl
def icltool_models() -> list[Registration]:
    """The published sizes (Wang et al. 2022, arXiv:2202.03052), a captioner distilled from one, and a toy."""
    published = [
        Registration(
            f"ofa-{size}",
            _TARGET,
            f"OFA {size}, {count} parameters: captions, also in styles, and VQA",
            {"name": f"ofa-{size}", "hub_id": f"OFA-Sys/ofa-{size}"},
            model_types=("ofa",) if size == "base" else (),
        )
        for size, count in _SIZES.items()
    ]
    distilled = {"name": "ofa-distilled", "hub_id": _DISTILLED, "on_hub": False}
    toy = {"name": "tiny-ofa", "packaged": "tiny"}
    return [
        *published,
        Registration("ofa-distilled", _TARGET, "OFA distilled, trained on COCO captions; by folder", distilled),
        Registration("tiny-ofa", _TARGET, "an OFA of toy size that has learned nothing, to be fine-tuned", toy),
    ]
