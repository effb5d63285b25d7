"""`icltool caption`."""

from __future__ import annotations

from icltool.cli.stage import stage_command
from icltool.config.caption import CaptionConfig

HELP = """Write captions of pictures that a JSON file lists, or of random evaluation examples.

The file is a list of {style, image | image_hash, reference?, question? | clue?}. Writes a JSON file with model_name,
model_revision (model.fingerprint(): a hash of weights, precision and prompt format) and results, in the order of the input.
What is finished outlives an interruption: the same command goes on from there.

    icltool caption --input pictures.json --model blip2-opt-2.7b --model-path checkpoints/captioner-...

    icltool caption --samples 20 --dataset personality-captions --model ofa-base

Any model can be asked; one that learns from demonstrations gets some from a prepared data set:

    icltool caption --input pictures.json --model idefics-9b --dataset coco2017 --shots 8
"""

command = stage_command("caption", CaptionConfig, HELP)
