"""What the options of a method may be: each `Localizer` says it of its own, and what users give is held against that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import InputError


class Kind(Protocol):
    """What an option may be; as text it ends the sentence "… must be"."""

    def accepts(self, value: Any) -> bool:  # noqa: ANN401 - whatever users write
        """Whether the value is of this kind."""


@dataclass(frozen=True)
class Number:
    """A number from `least` to `most`, or above `least` where that itself makes no sense."""

    least: float
    most: float
    above: bool = False

    def accepts(self, value: Any) -> bool:  # noqa: ANN401 - whatever users write
        """Whether the value is such a number."""
        if not isinstance(value, (int, float)):
            return False
        return (self.least < value if self.above else self.least <= value) and value <= self.most

    def __str__(self) -> str:
        if self.above:
            return f"a number above {self.least:,g}, {self.most:,g} at most"
        return f"a number from {self.least:,g} to {self.most:,g}"


@dataclass(frozen=True)
class Count:
    """A whole number from `least` to `most`."""

    least: int
    most: int

    def accepts(self, value: Any) -> bool:  # noqa: ANN401 - whatever users write
        """Whether the value is such a number."""
        return isinstance(value, (int, float)) and self.least <= value <= self.most and value == int(value)

    def __str__(self) -> str:
        return f"a whole number from {self.least:,} to {self.most:,}"


@dataclass(frozen=True)
class Switch:
    """Yes or no."""

    def accepts(self, value: Any) -> bool:  # noqa: ANN401 - whatever users write
        """Whether the value is one of both."""
        return value in (0, 1)

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Word:
    """One of some words."""

    choices: tuple[str, ...]

    def accepts(self, value: Any) -> bool:  # noqa: ANN401 - whatever users write
        """Whether the value is one of the words."""
        return value in self.choices

    def __str__(self) -> str:
        return f"one of: {', '.join(self.choices)}"


#: Parts of the whole, of which there must be some.
SHARE = Number(0, 1, above=True)
#: At least one; more than the most is a slip of the finger.
MANY = Count(1, 100_000)


def check_values(kinds: Mapping[str, Kind], options: Mapping[str, Any]) -> None:
    """Hold options against their kinds; those of other methods are not looked at.

    Raises
    ------
    InputError
        With the first option of another kind, and what it must be.
    """
    for name, kind in kinds.items():
        if name in options and not kind.accepts(options[name]):
            raise InputError(f"Option '{name}' is {_said(options[name])}, but must be {kind}.")


def _said(value: Any) -> str:  # noqa: ANN401 - whatever users write
    return f"{value:,g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else f"'{value}'"
