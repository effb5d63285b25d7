"""The commands of the guide and of the README work: those that need no download are run as they stand, the others parsed.

`tests/guide/blocks.py` says which block is which.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.cli.group import command_line
from icltool.commands.evaluate.specs import method_names
from icltool.config.fields import extras, flag_of
from icltool.plugin.commands import stages
from icltool.plugin.manager import load_registry
from tests.config.test_profiles import PLUGIN_MODELS
from tests.guide.blocks import ELSEWHERE, PAGES, ROOT, Block, blocks, calls, is_plain, statements, syntax_error

RUNNABLE = [page for page in PAGES if any(block.is_run for block in blocks(page))]
SLOW = [page for page in PAGES if any(block.is_slow for block in blocks(page))]
WORDS = {"": None, "sh": {"", "slow", *ELSEWHERE}, "python": {"", "download"}}
#: Variables that point at data and weights of this machine.
VARIABLES = re.compile(r"ICLTOOL_|HF_|\w+_PATH$|MODEL_CPK_DIR$|RESULT_DIR$")


def by_topic(pages: list[Path]) -> list[Any]:
    """Parameters that go to different workers: each topic runs by itself."""
    return [pytest.param(page, id=page.stem, marks=pytest.mark.xdist_group(f"guide-{page.stem}")) for page in pages]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder that a reader begins in."""
    for name in [name for name in os.environ if VARIABLES.match(name) and name != "PYTHONPATH"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Reader:
    """Does what a page says, block by block."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capfd = capfd
        self.names: dict[str, Any] = {"__name__": "guide"}

    def read(self, page: Path, slow: bool = False) -> None:
        for block in blocks(page):
            if block.file:
                write(block)
            elif block.language == "sh" and (block.is_run or (slow and block.is_slow)):
                for statement in statements(block.text):
                    self.shell(statement, block.place)
            elif block.language == "python" and block.is_run:
                exec(compile(block.text, block.place, "exec"), self.names)

    def shell(self, statement: str, place: str) -> None:
        if variable := re.fullmatch(r"export (\w+)=(.*)", statement):
            self.monkeypatch.setenv(variable[1], words(variable[2])[0])
        elif is_plain(statement):
            code = run(words(statement)[1:])
            output = self.capfd.readouterr()
            assert code == 0, f"{place}: {statement}\n{output.out[-3000:]}\n{output.err[-3000:]}"
        else:
            answer = subprocess.run(["bash", "-ec", statement], capture_output=True, text=True, check=False)
            assert answer.returncode == 0, f"{place}: {statement}\n{answer.stdout[-3000:]}\n{answer.stderr[-3000:]}"


def words(text: str) -> list[str]:
    """What the shell makes of a text: variables, patterns and quotes resolved."""
    answer = subprocess.run(["bash", "-c", f"printf '%s\\0' {text}"], capture_output=True, text=True, check=True)
    return answer.stdout.split("\0")[:-1]


def write(block: Block) -> None:
    path = Path(block.file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Reader:
    return Reader(monkeypatch, capfd)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", by_topic(RUNNABLE))
def test_the_blocks_of_a_topic_run(page: Path, reader: Reader) -> None:
    reader.read(page)


@pytest.mark.training
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", by_topic(SLOW))
def test_the_slow_blocks_of_a_topic_run(page: Path, reader: Reader) -> None:
    reader.read(page, slow=True)


def not_run() -> Iterator[tuple[Block, list[str]]]:
    """The calls of icltool in blocks that the default suite does not run."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "sh" and not block.is_run:
                yield from ((block, call) for call in calls(block.text))
            elif block.language == "console":
                typed = re.findall(r"^\$ (.*)", block.text, flags=re.MULTILINE)
                yield from ((block, call) for line in typed for call in calls(line))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("block", "call"), [pytest.param(*pair, id=f"{pair[0].place}: {' '.join(pair[1])}"[:80]) for pair in not_run()]
)
def test_the_command_line_knows_the_commands_that_are_not_run(
    block: Block, call: list[str], check_call: Callable[[list[str]], None]
) -> None:
    for other in blocks(next(page for page in PAGES if page.stem == block.place.partition(",")[0])):
        if other.file:
            write(other)
    check_call(call)


@pytest.fixture
def check_call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[list[str]], None]:
    """Runs a call of a stage up to the point where its options are resolved, and looks up every component that they name;
    parses any other call."""
    configs: list[Any] = []

    def command_module(name: str, part: str) -> Any:
        return SimpleNamespace(run=lambda config, progress: configs.append(config) or [])

    def check(call: list[str]) -> None:
        if call[0] in stages():
            with monkeypatch.context() as patch:
                patch.setattr("icltool.cli.group.command_module", command_module)
                assert run(call) == 0, capfd.readouterr().err
            check_components(configs[-1])
            return
        group: Any = command_line()
        with group.make_context("icltool", list(call)) as context:
            if context.invoked_subcommand is not None or call[:1] != ["--help"]:
                name, command, rest = group.resolve_command(context, list(call))
                command.make_context(name, rest, parent=context)

    return check


def check_components(config: Any) -> None:
    """Each name that a field takes from the registry is there; folders and data sets of one's own are not looked up."""
    registry = load_registry()
    for name, field in type(config).model_fields.items():
        kinds = extras(field).get("complete", "").split(",")
        value = getattr(config, name)
        names = [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)] if value else []
        if kinds == [""] or (kinds == ["datasets"] and not extras(field).get("argument")):
            continue
        known = {known for kind in kinds for known in registry.names(kind)}
        if kinds[0] == "retrievers":
            names, known = method_names(names), known | {"finetuned"}
        if kinds == ["encoders"] and getattr(config, "encoder_path", None) is not None:
            continue  # the user's own name
        if kinds == ["models"]:
            names = [n for n in names if "/" not in n and not n.startswith(PLUGIN_MODELS)]
        assert set(names) <= known | {"all"}, f"{flag_of(name, field)}: {set(names) - known}"


def test_every_block_is_of_a_known_kind() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("```") == 2 * len(blocks(page)), f"{page.name}: a fence that no block begins or ends with"
        for block in blocks(page):
            if not block.file:
                allowed = WORDS.get(block.language, {""})
                assert block.language or page.stem == "reference", f"{block.place}: the block needs a language"
                assert block.word in (allowed or {""}), f"{block.place}: {block.language} {block.word}"


def test_the_shell_and_python_parse_what_is_not_run() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "sh":
                assert syntax_error(block.text) is None, block.place
            elif block.language == "python" or block.file.endswith(".py"):
                compile(block.text, block.place, "exec")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    without_blocks = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", without_blocks, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target
