"""Reads antenna pattern files in the MSI or Planet format (.msi, .pln, .txt).

A file has header lines (``NAME …``, ``GAIN 17.5 dBi``, ``TILT ELECTRICAL``, …) and two tables, ``HORIZONTAL 360`` and ``VERTICAL 360``,
each followed by that many lines of an angle [°] and an attenuation [dB]. Horizontal angles run clockwise from the main direction, vertical
ones downwards from the horizon. A gain without a unit is in dBd, as Planet has it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..errors import InputError
from .patterns import Pattern

#: Gain of a half-wave dipole [dBi].
_DIPOLE_DBI = 2.15
_TABLES = ("HORIZONTAL", "VERTICAL")
#: Fewer rows do not make a cut.
_LEAST_ROWS = 12


def read_pattern_file(path: str | Path) -> Pattern:
    """Read a pattern file.

    Raises
    ------
    InputError
        When the file can't be read or is no pattern file; the sentence names the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"The antenna pattern {path} can't be read: {error.strerror}.") from error
    return parse_pattern(text, path.name)


def parse_pattern(text: str, file_name: str) -> Pattern:
    """Return the pattern that the text of a file describes; `file_name` is for messages."""
    lines = [line.replace(",", ".").split() for line in text.splitlines()]
    name, gain_dbi = Path(file_name).stem, math.nan
    cuts: dict[str, np.ndarray] = {}
    at = 0
    while at < len(lines):
        words = lines[at]
        at += 1
        keyword = words[0].upper() if words else ""
        if keyword in _TABLES:
            n_rows = _row_count(words, at, file_name)
            cuts[keyword] = _cut(lines, at, n_rows, file_name)
            at += n_rows
        elif keyword == "NAME" and len(words) > 1:
            name = " ".join(words[1:])
        elif keyword == "GAIN" and len(words) > 1:
            gain_dbi = _gain_dbi(words, at, file_name)
    for table in _TABLES:
        if table not in cuts:
            raise InputError(
                f"{file_name} has no line '{table} 360' with a table behind it; give an MSI or Planet file."
            )
    return Pattern("file", cuts["HORIZONTAL"], cuts["VERTICAL"], name, gain_dbi)


def _row_count(words: list[str], line: int, file_name: str) -> int:
    """Return how many rows a table says it has; 360 where it does not say."""
    count = _number(words[1]) if len(words) > 1 else 360.0
    if count is None or count != int(count) or count < _LEAST_ROWS:
        raise InputError(
            f"Line {line} of {file_name}, '{' '.join(words)}', must say how many rows follow, {_LEAST_ROWS} or more."
        )
    return int(count)


def _cut(lines: list[list[str]], first: int, n_rows: int, file_name: str) -> np.ndarray:
    """Return the attenuation at 0, 1, …, 360° [dB] from the rows of a table, interpolated where they are coarser."""
    rows = np.empty((n_rows, 2))
    for row in range(n_rows):
        words = lines[first + row] if first + row < len(lines) else []
        numbers = [_number(word) for word in words]
        if len(numbers) != 2 or None in numbers:
            found = f"'{' '.join(words)}'" if words else "missing or empty"
            raise InputError(
                f"Line {first + row + 1} of {file_name} is {found}; row {row + 1} of {n_rows} of its table must be an angle and an "
                "attenuation."
            )
        rows[row] = numbers
    angle, loss_db = rows[np.argsort(rows[:, 0] % 360, kind="stable")].T
    turn = np.unique(angle % 360)
    if np.diff(turn, append=turn[0] + 360).max() > 360 / _LEAST_ROWS:
        raise InputError(f"The table behind line {first} of {file_name} does not go round; it must cover 0 to 359°.")
    if loss_db.max() <= 0:  # some write gains
        loss_db = -loss_db
    return np.interp(np.arange(361), angle % 360, loss_db, period=360)


def _gain_dbi(words: list[str], line: int, file_name: str) -> float:
    """Return the gain of a line such as ``GAIN 15.5 dBd`` [dBi]."""
    text = "".join(words[1:]).lower()
    unit = next((unit for unit in ("dbi", "dbd") if text.endswith(unit)), "")
    number = _number(text[: len(text) - len(unit)])
    if number is None:
        raise InputError(f"Line {line} of {file_name}, '{' '.join(words)}', must hold a gain such as 17.5 dBi.")
    return number if unit == "dbi" else number + _DIPOLE_DBI


def _number(text: str) -> float | None:
    """Return a finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
