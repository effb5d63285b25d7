"""`icltool demo`: every stage in turn on the embedded world, with the options of the profile `demo`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from icltool.cli.libraries import library_output
from icltool.cli.output import print_line, print_report, show
from icltool.config.env import load_environment
from icltool.config.resolve import resolve
from icltool.execution.progress import for_terminal
from icltool.plugin.commands import command_module, stage_model
from icltool.results.figures import result_figure

#: The pointer reads the demonstrations' features, which the published selector of the profile does not.
POINTER = {"learner": "pointer", "options": ["variant=query_img_icd_img_text", "dropout=0.3"]}
#: Stage, options beside the profile's, and what happens.
STEPS: tuple[tuple[str, Mapping[str, object], str], ...] = (
    ("prepare", {}, "604 images of coloured shapes with captions in made-up words"),
    ("embed", {}, "vectors of all images and captions, by a small CLIP"),
    ("generate", {}, "for 364 anchors, the demonstrations that help a small IDEFICS most"),
    ("train", {}, "Lever-LM, a small language model that generates such sequences"),
    ("train", POINTER, "a pointer network, which selects examples by their features"),
    ("evaluate", {}, "240 images, each of a colour and shape not demonstrated together"),
)


def command(
    workspace: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="folder of all artefacts (environment variable ICLTOOL_WORKSPACE; default: icl-workspace)",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print only the final table")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show more detail")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON and nothing else")] = False,
) -> None:
    """Run every step on a small embedded data set: some minutes on two CPU cores, without downloads.

    Prints a table of methods and shots, and writes a figure. Rerun it to repeat only what has changed.

        icltool demo
        icltool demo --workspace demo
    """
    load_environment()
    progress, began = for_terminal(quiet, verbose), time.monotonic()
    flags = {} if workspace is None else {"workspace": workspace}
    aside = partial(library_output, progress.detail if verbose and not quiet else None, progress.say, set())
    for number, (stage, more, what) in enumerate(STEPS, 1):
        with aside():
            config = resolve(stage, stage_model(stage), {**flags, **more}, "demo", ())
            progress.say(f"\n{number}/{len(STEPS)} {stage}: {what}")
            report = command_module(stage, "run").run(config, progress)
        if stage != "evaluate" and not (quiet or as_json):
            show(report, verbose=verbose)
    with aside():
        figure = result_figure(report.results, report.path / "demo.png", report.title)
    if as_json:
        print_report({"title": report.title, "path": str(report.path), "figure": str(figure), "rows": report.rows()})
        return
    show(report, quiet=quiet, verbose=verbose)
    print_line(f"figure:  {figure}")
    progress.say(f"the demo took {time.monotonic() - began:.0f} s; run it again and it repeats only what has changed")
