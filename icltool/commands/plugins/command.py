"""`icltool plugins list` and `icltool plugins show`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Optional

import typer

from icltool.cli.completion import complete_kinds
from icltool.cli.help import HelpfulCommand, HelpfulGroup
from icltool.cli.libraries import library_output
from icltool.cli.output import print_json, print_list, print_text
from icltool.commands.plugins.components import describe, kind_named, listing
from icltool.contracts.options import Option

command = typer.Typer(
    cls=HelpfulGroup,
    add_completion=False,
    rich_markup_mode=None,
    help="""List and describe components: models, data sets, tasks, encoders, samplers, scorers, retrievers, metrics, learners,
    interventions, executors and commands. Other packages add components through the entry-point group `icltool`.""",
)

_Json = Annotated[bool, typer.Option("--json", help="print the result as JSON and nothing else")]


@command.command("list", cls=HelpfulCommand)
def list_(
    kind: Annotated[
        Optional[str],  # noqa: UP045 (Typer reads it)
        typer.Option(
            "--kind",
            metavar="KIND",
            autocompletion=complete_kinds,
            help="kind of component: models, datasets, retrievers … (default: all kinds)",
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """List all components, those of other packages with the package's name, and broken plugins."""
    with library_output():  # which broken plugins may print
        rows = listing(None if kind is None else kind_named(kind))
    if as_json:
        print_json(rows)
        return
    for of_kind in dict.fromkeys(row["kind"] for row in rows):
        print_list(of_kind, [(row["name"], _text(row)) for row in rows if row["kind"] == of_kind])


def _text(row: Mapping[str, str]) -> str:
    """The summary, the package of a component that is not icltool's own, and what is wrong with it."""
    package = f"({row['distribution']} {row['version']})" if row["distribution"] != "icltool" else ""
    wrong = row["status"] if row["status"] != "ok" else ""
    return "\n".join(filter(None, [f"{row['summary']} {package}".strip(), wrong]))


@command.command("show", cls=HelpfulCommand)
def show(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", autocompletion=complete_kinds, help="kind of component: models, datasets, retrievers …"
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="name of the component")],
    as_json: _Json = False,
) -> None:
    """Show the package, the options and the documentation of a component."""
    with library_output():
        component = describe(kind_named(kind), name)
    if as_json:
        print_json(asdict(component))
        return
    wrong = [("status", component.status)] if component.status != "ok" else []
    package = ("package", f"{component.distribution} {component.version}")
    print_list(f"{component.kind}: {name}", [("", component.summary), package, ("class", component.target), *wrong])
    if source := component.source:
        files = [(file.name, ", ".join(filter(None, (file.holds, file.size)))) for file in source.files]
        print_list("files", [*files, ("from", source.site), ("licence", source.licence)])
    if component.options:
        print_list("options", [(option.name, _option_text(option)) for option in component.options])
    print_text(component.documentation)


def _option_text(option: Option) -> str:
    """Type and default, then the description, which has the default in words if it is computed."""
    if option.default == "none":
        kind = option.type.removesuffix(" or none")
        return f"{kind}{'' if 'default: ' in option.description else ', optional'}\n{option.description}"
    default = f"; default: {option.default}" if option.default else ""
    return f"{option.type}{default}\n{option.description}"
