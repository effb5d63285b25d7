"""OK-VQA, from its official files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from icltool.components.datasets.vqa import VqaReader
from icltool.contracts import Source, SourceFile


class OKVQAReader(VqaReader):
    """Reads `okvqa/{OpenEnded_mscoco,mscoco}_{train,val}2014_{questions,annotations}.json` below `root` or OKVQA_PATH,
    or those files zipped one by one.

    Images are those of COCO 2014, in `mscoco/mscoco2014` or `mscoco2014` below `root` or beside it, or below COCO_PATH.
    Zip archives are read without unpacking.

    The references and the label are the fields `answer`, which are stemmed and which the official evaluation compares.
    The fields `raw_answer`, which the annotators typed, are the raw references; a question with an answer that lacks the
    field has none. The metric is `okvqa-accuracy`, which also stems the model's answers. Question types are the official
    ones, "one" to "ten" and "other". The first release of VQA has files of the same names: the remark on the number of
    questions tells the two apart.
    """

    name = "okvqa"
    source = Source(
        "okvqa.allenai.org (questions) and cocodataset.org (images)",
        "see the pages; images: the terms of Flickr",
        (
            SourceFile(
                "OpenEnded_mscoco_{train,val}2014_questions.json",
                "",
                "and the annotations of both",
            ),
            SourceFile("train2014.zip", "13 GB", "82,783 images"),
            SourceFile("val2014.zip", "6 GB", "40,504 images"),
        ),
    )
    metrics: ClassVar[Mapping[str, str]] = {"vqa": "okvqa-accuracy"}
    title = "OK-VQA"
    site = "okvqa.allenai.org"
    folder = "okvqa"
    variables = ("OKVQA_PATH",)
    questions = "OpenEnded_mscoco_{part}2014_questions.json"
    answers = "mscoco_{part}2014_annotations.json"
    archives = ("OpenEnded_mscoco_{part}2014_questions.json.zip", "mscoco_{part}2014_annotations.json.zip")
    official: ClassVar[Mapping[str, int]] = {"train": 9_009, "validation": 5_046}
