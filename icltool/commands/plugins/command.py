"""`icltool plugins list` and `icltool plugins show`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Optional

import typer

from icltool.cli.completion import complete_kinds
from icltool.cli.help import HelpfulCommand, HelpfulGroup
from icltool.cli.libraries import library_output
from icltool.cli.output import print_json, print_line, print_rows
from icltool.commands.plugins.components import describe, kind_named, listing

command = typer.Typer(
    cls=HelpfulGroup,
    add_completion=False,
    rich_markup_mode=None,
    help="""List and describe components: models, data sets, encoders, samplers, scorers, retrieval methods, metrics,
    learners, executors. Packages add to them through the entry-point group `icltool`.""",
)

_Json = Annotated[bool, typer.Option("--json", help="print the result as JSON, and nothing else")]


@command.command("list", cls=HelpfulCommand)
def list_(
    kind: Annotated[
        Optional[str],  # noqa: UP045 (Typer reads it)
        typer.Option(
            "--kind", metavar="KIND", autocompletion=complete_kinds, help="only this kind (models, datasets, …)"
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """List all components with the package they come from, and plugins that are broken."""
    with library_output():  # of broken plugins, say
        rows = listing(None if kind is None else kind_named(kind))
    if as_json:
        print_json(rows)
    else:
        print_rows("components", rows)


@command.command("show", cls=HelpfulCommand)
def show(
    kind: Annotated[str, typer.Argument(metavar="KIND", autocompletion=complete_kinds, help="models, datasets, …")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="the component's name")],
    as_json: _Json = False,
) -> None:
    """Show where a component comes from, the options it takes, and its documentation."""
    with library_output():
        found = asdict(describe(kind_named(kind), name))
    if as_json:
        print_json(found)
        return
    options, documentation = found.pop("options"), found.pop("documentation")
    print_rows(f"{found['kind']}: {name}", [{"": key, "value": value} for key, value in found.items()])
    if options:
        print_rows("options", options)
    print_line(documentation)
