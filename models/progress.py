"""One tiny protocol for long work: a callable that takes the fraction done and may raise `Cancelled`."""

from __future__ import annotations

from typing import Callable

#: Called with the fraction done in [0, 1]; raises `telcoloc.models.errors.Cancelled` when the user wants to stop.
Progress = Callable[[float], None]


def no_progress(fraction: float) -> None:
    """Report to nobody and never cancel."""


def span(progress: Progress, start: float, end: float) -> Progress:
    """Return a progress callable whose [0, 1] is [start, end] of `progress`."""
    return lambda fraction: progress(start + (end - start) * fraction)
