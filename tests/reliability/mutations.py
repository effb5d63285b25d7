"""Damaged and hostile forms of files: other bytes, other values in JSON, other cells, and what a path may lead to."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUMBERS = [2**31, 2**63 - 1, 2**64, 10**30, -(2**63), -1, 0, 1.5, 1e308]
TEXTS = ["", " ", "\0", "../../../../etc/passwd", "/etc/passwd", "..", "~", "\ud800", "\u202e", "\ufeff", "a\nb", "x" * 5000,
         "NaN", "1e999", "%s%n", "{0}", "$(touch /tmp/icltool_canary)", "{{7*7}}", "</script><script>", "javascript:alert(1)",
         "file:///etc/passwd", "http://127.0.0.1:9/x", "<image>", "</s>", "[bold]x[/bold]", "\x1b[31mred"]  # fmt: skip
_SPECIAL = [0, 0xFF, 0x80, ord('"'), ord("{"), ord("]"), ord(","), 10]


def mutate(path: Path, rng: random.Random) -> str:
    """Damages the file in one of many ways; what was done."""
    ways: list[Callable[[Path, random.Random], str]] = [_bytes, _bytes, _cut, _odd]
    if path.suffix == ".json":
        ways += [_values] * 5
    if path.suffix in (".jsonl", ".csv", ".toml", ".txt", ".jinja", ".env") or path.name == ".env":
        ways += [_cells] * 4
    way = rng.choice(ways)
    return f"{path.name}: {way.__name__.strip('_')} {way(path, rng)}"


def _bytes(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    count = rng.choice([1, 1, 3, 20])
    for _ in range(count if data else 0):
        place = rng.randrange(len(data))
        kind = rng.randrange(3)
        if kind == 0:
            data[place] = rng.choice([*_SPECIAL, rng.randrange(256)])
        elif kind == 1:
            del data[place : place + rng.choice([1, 4, 64])]
        else:
            data[place:place] = bytes(rng.choice(_SPECIAL) for _ in range(rng.choice([1, 8, 200])))
        if not data:
            break
    path.write_bytes(data)
    return str(count)


def _cut(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    size = rng.choice([0, 1, len(data) // 2, max(0, len(data) - 1), rng.randrange(len(data) + 1)])
    path.write_bytes(data[:size])
    return str(size)


def _odd(path: Path, rng: random.Random) -> str:
    """Something else than a file of that kind."""
    kind = rng.choice(["gone", "folder", "link", "loop", "pipe", "deep", "zeros", "device", "sparse", "eps"])
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "deep":
        path.write_text("[" * 100_000 if rng.random() < 0.5 else '{"a":' * 50_000)
    elif kind == "zeros":
        path.write_bytes(bytes(100_000))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 36)
    elif kind == "eps":
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch /tmp/icltool_canary) system\n")
    return kind


def _values(path: Path, rng: random.Random) -> str:
    """Another value, or none, or a key twice, somewhere in a JSON file."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return _bytes(path, rng)
    places = list(_places(content))
    for _ in range(rng.choice([1, 1, 2, 6])):
        if not places:
            break
        holder, key = rng.choice(places)
        kind = rng.randrange(5)
        try:
            if kind == 0:
                del holder[key]
            elif kind == 1 and isinstance(holder, dict):
                holder[rng.choice(TEXTS)] = holder[key]
            elif kind == 2:
                holder[key] = [holder[key]] * rng.choice([2, 3000])
            else:
                holder[key] = rng.choice([None, True, [], {}, rng.choice(NUMBERS), rng.choice(TEXTS)])
        except (KeyError, IndexError):  # it went with what held it
            continue
    path.write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")
    return "values"


def _places(value: Any, depth: int = 0) -> Any:
    """(holder, key) of values, of long lists the first and last."""
    if depth > 6:
        return
    if isinstance(value, dict):
        items: list[Any] = list(value.items())
    elif isinstance(value, list):
        items = [(i, value[i]) for i in sorted({*range(min(3, len(value))), len(value) - 1}) if i >= 0]
    else:
        return
    for key, inner in items:
        yield value, key
        yield from _places(inner, depth + 1)


def _cells(path: Path, rng: random.Random) -> str:
    """Another word in a line, a line twice, or the lines in another order."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    kind = rng.randrange(4)
    place = rng.randrange(len(lines))
    if kind == 0:
        lines.insert(place, lines[place])
    elif kind == 1:
        rng.shuffle(lines)
    else:
        words = lines[place].split("," if path.suffix == ".csv" else '"' if rng.random() < 0.5 else "=")
        words[rng.randrange(len(words))] = str(rng.choice([*TEXTS, *NUMBERS]))
        lines[place] = ("," if path.suffix == ".csv" else '"').join(words)
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    return str(kind)
