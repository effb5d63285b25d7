"""OK-VQA, from its official files."""

from __future__ import annotations

from typing import ClassVar

from icltool.datasets.vqa import VqaFiles, VqaReader

FILES = VqaFiles(
    title="OK-VQA",
    site="okvqa.allenai.org",
    folder="okvqa",
    variables=("OKVQA_PATH",),
    questions="OpenEnded_mscoco_{part}2014_questions.json",
    answers="mscoco_{part}2014_annotations.json",
    archives=("OpenEnded_mscoco_{part}2014_questions.json.zip", "mscoco_{part}2014_annotations.json.zip"),
    official={"train": 9_009, "validation": 5_046},
)


class OKVQAReader(VqaReader):
    """Reads `okvqa/{OpenEnded_mscoco,mscoco}_{train,val}2014_{questions,annotations}.json` below `root` or OKVQA_PATH,
    or those files zipped one by one. See VqaReader.

    Of each answer the field `answer` is kept, which the official evaluation compares, not `raw_answer`, which is what
    the annotator typed. Question types are the official ones, "one" to "ten" and "other". The first release of VQA has
    files of the same names: the remark on the number of questions tells the two apart.
    """

    name = "okvqa"
    source: ClassVar[VqaFiles] = FILES
