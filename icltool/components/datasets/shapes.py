"""The embedded world: generated, then read by the readers of COCO 2017 (caption), VQAv2 (vqa), PersonalityCaptions
(style) and Sherlock (inference)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from icltool.components.datasets.coco2017 import Coco2017Reader
from icltool.components.datasets.personality_captions import PersonalityCaptionsOptions, PersonalityCaptionsReader
from icltool.components.datasets.reader import FileReader
from icltool.components.datasets.sherlock import SherlockOptions, SherlockReader
from icltool.components.datasets.vqav2 import VQAv2Reader
from icltool.contracts import Options, PreparedSplit, Progress, ReadReport
from icltool.errors import DataError
from icltool.world.writer import INDEX_IMAGES, VALIDATION_IMAGES, WorldOptions, write_world


class ShapesOptions(Options):
    """Which world."""

    seed: int = Field(0, ge=0, description="random seed of lexicon, scenes and images")
    index_images: int = Field(INDEX_IMAGES, ge=1, description="number of images of the index set")
    validation_images: int = Field(VALIDATION_IMAGES, ge=1, description="number of images of the queries")
    renderings: int = Field(
        0,
        ge=0,
        description="random seed of the renderings: other values draw other images of the same scenes, with the same words",
    )


class ShapesReader(FileReader):
    """Reads the embedded world with the reader of the data set whose format it uses for each task."""

    name = "shapes"
    tasks: tuple[str, ...] = ("caption", "vqa", "style", "inference")

    options_model = ShapesOptions

    def __init__(self, options: ShapesOptions) -> None:
        self.options = WorldOptions(**options.model_dump())
        self._readers: dict[str, FileReader] = {
            "caption": Coco2017Reader(),
            "vqa": VQAv2Reader(),
            "style": PersonalityCaptionsReader(PersonalityCaptionsOptions()),
            "inference": SherlockReader(SherlockOptions()),
        }

    def make(self, workspace: Path, progress: Progress) -> Path:
        """Writes the world's files unless they exist, and returns their root: `datasets/shapes/source`."""
        root = workspace / "datasets" / self.name / "source"
        if not write_world(root, self.options, progress):
            progress.detail(f"{root} is up to date")
        return root

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        """Checks the files below `root`, the result of `make`; without `root` there is nothing to check yet."""
        if root is None:
            return ReadReport(())
        try:
            return ReadReport(self._readers[task].look(root, task, verify, progress).files)
        except DataError as error:
            again = f"remove {root} and run `icltool prepare shapes` again, which generates the files again"
            raise DataError(error.message, again) from error

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader; without `root` the files are generated first."""
        source = self.make(workspace, progress) if root is None else root
        yield from self._readers[task].read(source, task, workspace, progress)
