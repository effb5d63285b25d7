"""Ages and sizes as people type them."""

from __future__ import annotations

import math
import re

_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)\s*\Z", re.ASCII)
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "m": 30 * 86400, "y": 365 * 86400}
_AGE_NAMES = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("w", "week", "weeks"), "w"),
    **dict.fromkeys(("mo", "month", "months"), "m"),
    **dict.fromkeys(("y", "year", "years"), "y"),
}
_BYTES = {
    "": 1, "b": 1, "byte": 1, "bytes": 1,
    **{name: 1000**power for power, letter in enumerate("kmgt", 1) for name in (letter, f"{letter}b")},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}  # fmt: skip


def parse_age(text: str) -> float:
    """Seconds: "30d", "12h", "90 min", "2w", "6mo" (of 30 days), "1y" (of 365 days). ValueError for anything else.

    A number needs its unit; "m" is refused because it may mean minutes or months.
    """
    match = _AMOUNT.match(text)
    unit = _AGE_NAMES.get(match[2].lower()) if match is not None else None
    if match is None or unit is None:
        raise ValueError(f"must be an age such as 30d, 12h, 2w or 6mo, got {text!r}")
    return _finite(float(match[1]) * _SECONDS[unit], text)


def parse_size(text: str) -> float:
    """Bytes: "500MB", "1.5 GB", "2GiB", "1000". ValueError for anything else."""
    match = _AMOUNT.match(text)
    factor = _BYTES.get(match[2].lower()) if match is not None else None
    if match is None or factor is None:
        raise ValueError(f"must be a size such as 500MB, 1.5GB or 2GiB, got {text!r}")
    return _finite(float(match[1]) * factor, text)


def age_text(seconds: float) -> str:
    """An age in its largest whole unit: "45 s", "12 min", "3 h", "5 days"."""
    whole = max(0, int(seconds))
    for size, unit in ((86400, "day"), (3600, "h"), (60, "min")):
        if whole >= size:
            count = whole // size
            return f"{count} {unit}{'s' * (unit == 'day' and count != 1)}"
    return f"{whole} s"


def size_text(count: float) -> str:
    """Bytes for people: "12.3 GB" (powers of 1000)."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def _finite(amount: float, text: str) -> float:
    if not math.isfinite(amount):
        raise ValueError(f"{text!r} is too large")
    return amount
