"""What the tree looks like, in figures: `python -m tests.structure [CHECKOUT …]` has a column for each, by default this one."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What may be imported within a function: it takes seconds, or need not be installed.
HEAVY = ("torch", "transformers", "lightning", "ray", "gradio", "matplotlib")


@dataclass
class House:
    """A checkout's package, as its files say.

    `lines` and `arrows` are by room (a folder of the package, or a file of its first level); `back` are the arrows that are
    part of a circle of rooms, `circles` the files that import each other in a circle. `lazy` counts imports within functions
    but those of HEAVY, `any` mentions of Any, `tuples` public functions that return an anonymous tuple of more than two,
    `asked` getattr and hasattr with a name that is written down.
    """

    lines: Counter[str] = field(default_factory=Counter)
    arrows: set[tuple[str, str]] = field(default_factory=set)
    back: set[tuple[str, str]] = field(default_factory=set)
    circles: list[list[str]] = field(default_factory=list)
    lazy: int = 0
    any: int = 0
    tuples: int = 0
    lookups: int = 0


def measure(root: Path) -> House:
    """The package `icltool` of the checkout `root`."""
    house = House()
    files = {_module(root, path): path for path in sorted((root / "icltool").rglob("*.py"))}
    imports: dict[str, set[str]] = {}
    for name, path in files.items():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        house.lines[room(name)] += text.count("\n")
        imports[name] = {target for target in _imported(tree, files) if target != name}
        house.lazy += sum(_is_lazy(node) for node in _within_functions(tree))
        house.any += sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))
        house.tuples += sum(_returns_many(node) for node in ast.walk(tree))
        house.lookups += sum(_asks(node) for node in ast.walk(tree))
    house.arrows = {(room(a), room(b)) for a, targets in imports.items() for b in targets} - {
        (r, r) for r in house.lines
    }
    rooms: dict[str, set[str]] = {name: set() for name in house.lines}
    for a, b in house.arrows:
        rooms[a].add(b)
    house.back = {(a, b) for circle in _circles(rooms) for a, b in house.arrows if a in circle and b in circle}
    house.circles = _circles(imports)
    return house


def room(module: str) -> str:
    """The folder, or file, of the package's first level that a module is in."""
    return module.split(".")[1] if "." in module else module


def _module(root: Path, path: Path) -> str:
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    return name.removesuffix(".__init__")


def _imported(tree: ast.Module, files: Mapping[str, Path]) -> Iterator[str]:
    """The modules of ours that a file imports when it runs: not what type checkers alone read."""
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in files or node.module in files:
                    yield full if full in files else node.module


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _running(child)


def _within_functions(tree: ast.Module) -> Iterator[ast.AST]:
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    yield from {id(inner): inner for function in functions for inner in ast.walk(function)}.values()


def _is_lazy(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] not in HEAVY for alias in node.names)
    return isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] not in HEAVY


def _returns_many(node: ast.AST) -> bool:
    if (
        not isinstance(node, ast.FunctionDef)
        or node.name.startswith("_")
        or not isinstance(node.returns, ast.Subscript)
    ):
        return False
    of, parts = node.returns.value, node.returns.slice
    named = isinstance(of, ast.Name) and of.id == "tuple"
    if not named or not isinstance(parts, ast.Tuple) or len(parts.elts) < 3:
        return False
    return not any(isinstance(part, ast.Constant) and part.value is Ellipsis for part in parts.elts)


def _asks(node: ast.AST) -> bool:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")
    return called and len(node.args) > 1 and isinstance(node.args[1], ast.Constant)


def _circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected parts of more than one (Tarjan 1972), sorted."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    waiting: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        numbers[name] = lowest[name] = len(numbers)
        waiting.append(name)
        for target in sorted(arrows.get(name, ())):
            if target not in numbers:
                visit(target)
            if target in waiting:
                lowest[name] = min(lowest[name], lowest[target])
        if lowest[name] == numbers[name]:
            part = waiting[waiting.index(name) :]
            del waiting[waiting.index(name) :]
            circles.extend([sorted(part)] if len(part) > 1 else [])

    for name in sorted(arrows):
        if name not in numbers:
            visit(name)
    return sorted(circles)


def table(houses: Mapping[str, House]) -> list[list[str]]:
    """Rows of texts: what is counted, then a figure for each house."""
    counts = {
        "lines": lambda h: sum(h.lines.values()),
        "rooms": lambda h: len(h.lines),
        "arrows between rooms": lambda h: len(h.arrows),
        "of these in a circle of rooms": lambda h: len(h.back),
        "circles of files": lambda h: len(h.circles),
        "imports within functions": lambda h: h.lazy,
        "mentions of Any": lambda h: h.any,
        "returns of three and more": lambda h: h.tuples,
        "getattr, hasattr of a name": lambda h: h.lookups,
    }
    rows = [["", *houses]]
    rows += [[name, *(f"{count(house):,}" for house in houses.values())] for name, count in counts.items()]
    rooms = sorted({name for house in houses.values() for name in house.lines})
    rows += [[f"  {name}", *(f"{house.lines[name]:,}" for house in houses.values())] for name in rooms]
    return rows


def main() -> None:
    """See the module's text."""
    sys.setrecursionlimit(10_000)
    places = [Path(argument) for argument in sys.argv[1:]] or [ROOT]
    rows = table({place.resolve().name: measure(place) for place in places})
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        )


if __name__ == "__main__":
    main()
