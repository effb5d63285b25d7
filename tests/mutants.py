"""Whether the default suite notices small faults: `python -m tests.mutants --coverage FILE --count 60 [--quick FILE]`.

Each mutant changes one operator, constant or condition of a line that computes something. The tests that ran the line, by a
coverage file with contexts (`python -m pytest --cov=icltool --cov-context=test --cov-report=`), run against it until one fails.
With a list of tests (`pytest --collect-only` of an earlier suite, say) half of the mutants lie in lines that none of them ran.
Survivors are listed at the end.
"""

from __future__ import annotations

import argparse
import ast
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("engine", "store", "metrics", "retrieval", "config", "models")
#: Of the folder of models, what writes prompts.
FORMATS = ("prompt_format.py", "chat_format.py", "captioner_format.py", "tokens.py")
_COMPARED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
_COMPUTED = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*"}


@dataclass(frozen=True)
class Mutant:
    """A file, the line and columns (of its UTF-8 bytes) that change, and what stands there then."""

    file: Path
    line: int
    begin: int
    end: int
    text: str

    def source(self) -> str:
        lines = self.file.read_bytes().split(b"\n")
        line = lines[self.line - 1]
        lines[self.line - 1] = line[: self.begin] + self.text.encode() + line[self.end :]
        return b"\n".join(lines).decode()

    def __str__(self) -> str:
        line = self.file.read_bytes().split(b"\n")[self.line - 1]
        changed = line[: self.begin] + self.text.encode() + line[self.end :]
        place = self.file.relative_to(ROOT)
        return f"{place}:{self.line}: {line.decode().strip()}  ->  {changed.decode().strip()}"


def mutants(file: Path) -> Iterator[Mutant]:
    """All mutants of a file's functions, each once. What messages say, and what only guards against faults of ours (assertions,
    `zip(strict=True)`), is left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped = {
        id(n)
        for f in ast.walk(tree)
        if isinstance(f, ast.JoinedStr | ast.Raise | ast.Assert) or (isinstance(f, ast.keyword) and f.arg == "strict")
        for n in ast.walk(f)
    }
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nodes = {id(n): n for f in functions for statement in f.body for n in ast.walk(statement) if id(n) not in skipped}
    for node in nodes.values():
        yield from _changes(file, node)


def _changes(file: Path, node: ast.AST) -> Iterator[Mutant]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from _between(file, node.left, node.comparators[0], _COMPARED.get(type(node.ops[0])))
    elif isinstance(node, ast.BinOp):
        yield from _between(file, node.left, node.right, _COMPUTED.get(type(node.op)))
    elif isinstance(node, ast.BoolOp):
        yield from _between(file, node.values[0], node.values[1], "or" if isinstance(node.op, ast.And) else "and")
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.lineno == node.end_lineno:
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield Mutant(file, node.lineno, node.col_offset, node.end_col_offset or 0, repr(value))
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        test = node.test
        if test.lineno == test.end_lineno and not isinstance(test, ast.Constant):
            text = file.read_bytes().split(b"\n")[test.lineno - 1][test.col_offset : test.end_col_offset].decode()
            yield Mutant(file, test.lineno, test.col_offset, test.end_col_offset or 0, f"(not ({text}))")


def _between(file: Path, left: ast.expr, right: ast.expr, text: str | None) -> Iterator[Mutant]:
    """The operator between two operands of one line is replaced; parentheses around them stay."""
    if text is None or left.end_lineno != right.lineno or left.end_col_offset is None:
        return
    between = file.read_bytes().split(b"\n")[right.lineno - 1][left.end_col_offset : right.col_offset].decode()
    operator = between.strip("() ")
    begin = left.end_col_offset + between.index(operator) if operator else 0
    if operator:
        yield Mutant(file, right.lineno, begin, begin + len(operator), text)


def covered(file: Path) -> dict[tuple[Path, int], set[str]]:
    """Of a coverage file: for each line of the package, the tests that ran it (none without contexts)."""
    from coverage import CoverageData

    data = CoverageData(str(file))
    data.read()
    lines: dict[tuple[Path, int], set[str]] = {}
    for name in data.measured_files():
        place = ROOT / "icltool" / name.rpartition("/icltool/")[2]
        for line, contexts in data.contexts_by_lineno(name).items():
            tests = {context.rpartition("|")[0] for context in contexts if context}  # "TEST|PHASE"
            lines.setdefault((place, line), set()).update(tests)
    return lines


def draw(
    tests: dict[tuple[Path, int], set[str]], before: set[tuple[Path, int]] | None, count: int, seed: int
) -> list[Mutant]:
    """`count` mutants of covered lines, as many of each folder as can be; half of them outside of `before`."""
    rng, chosen = random.Random(seed), []
    halves = [True, False] if before is not None else [True]
    for new in halves:
        pools = []
        for folder in FOLDERS:
            files = sorted((ROOT / "icltool" / folder).rglob("*.py"))
            files = [f for f in files if folder != "models" or f.name in FORMATS]
            pool = [m for f in files for m in mutants(f) if tests.get((f, m.line))]
            if before is not None:
                pool = [m for m in pool if ((m.file, m.line) not in before) == new]
            rng.shuffle(pool)
            pools.append(pool)
        size = count // len(halves)
        while size and any(pools):
            for pool in filter(None, pools):
                if size:
                    chosen.append(pool.pop())
                    size -= 1
    return chosen


def killed(mutant: Mutant, tests: set[str], most: int) -> bool:
    """Whether one of the tests fails, or hangs, with the mutant in place; `most` of them run, spread over their files."""
    own = mutant.file.read_bytes()
    by_file: dict[str, list[str]] = {}
    for test in sorted(tests):
        by_file.setdefault(test.partition("::")[0], []).append(test)
    near = mutant.file.stem
    order = sorted(by_file, key=lambda f: (near not in f, mutant.file.parent.name not in f, f))
    picked = [test for file in order for test in by_file[file]][:most]
    run = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-q", "--timeout", "120", "-p", "no:cacheprovider", *picked]
    try:
        mutant.file.write_text(mutant.source(), encoding="utf-8")
        done = subprocess.run(run, cwd=ROOT, capture_output=True, check=False, timeout=900, text=True)
    except subprocess.TimeoutExpired:
        return True
    finally:
        mutant.file.write_bytes(own)
    if done.returncode not in (0, 1, 2):
        raise RuntimeError(
            f"pytest ended with {done.returncode}: is the coverage of other tests?\n{done.stdout}{done.stderr}"
        )
    return done.returncode != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--coverage", type=Path, required=True, help="of the default suite, with contexts")
    parser.add_argument("--quick", type=Path, help="tests that do not run half of the mutants' lines, one on each line")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=400, help="tests per mutant, the nearest first")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the file is restored
    tests = covered(options.coverage)
    before = None
    if options.quick is not None:
        quick = set(options.quick.read_text(encoding="utf-8").split("\n"))
        before = {place for place, known in tests.items() if known & quick}
    chosen = draw(tests, before, options.count, options.seed)
    survivors = []
    for k, mutant in enumerate(chosen, 1):
        dead = killed(mutant, tests[mutant.file, mutant.line], options.most)
        print(f"{k} of {len(chosen)}: {'killed  ' if dead else 'SURVIVED'} {mutant}", flush=True)
        survivors += [] if dead else [mutant]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
