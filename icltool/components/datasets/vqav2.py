"""VQAv2, from its official files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from icltool.components.datasets.vqa import VqaReader, most_frequent
from icltool.contracts import Source, SourceFile

__all__ = ["VQAv2Reader", "most_frequent"]


class VQAv2Reader(VqaReader):
    """Reads `vqav2/v2_{OpenEnded_mscoco,mscoco}_{train,val}2014_{questions,annotations}.json` below `root` or VQAV2_PATH,
    or v2_{Questions,Annotations}_{Train,Val}_mscoco.zip; ten answers a question.

    Images are those of COCO 2014, in `mscoco/mscoco2014` or `mscoco2014` below `root` or beside it, or below COCO_PATH.
    Zip archives are read without unpacking. The label is the most frequent answer, all answers are the references.
    """

    name = "vqav2"
    source = Source(
        "visualqa.org (questions) and cocodataset.org (images)",
        "annotations: CC BY 4.0; images: the terms of Flickr",
        (
            SourceFile("v2_{Questions,Annotations}_{Train,Val}_mscoco.zip", "", "658,111 questions and their answers"),
            SourceFile("train2014.zip", "13 GB", "82,783 images"),
            SourceFile("val2014.zip", "6 GB", "40,504 images"),
        ),
    )
    title = "VQAv2"
    site = "visualqa.org"
    folder = "vqav2"
    variables = ("VQAV2_PATH",)
    questions = "v2_OpenEnded_mscoco_{part}2014_questions.json"
    answers = "v2_mscoco_{part}2014_annotations.json"
    archives = ("v2_Questions_{Part}_mscoco.zip", "v2_Annotations_{Part}_mscoco.zip")
    official: ClassVar[Mapping[str, int]] = {"train": 443_757, "validation": 214_354}
