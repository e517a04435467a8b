"""One tiny protocol for long work: a callable that takes the fraction done and may raise `Cancelled`."""

from __future__ import annotations

from threading import Event
from typing import Callable

from .errors import Cancelled

#: Called with the fraction done in [0, 1]; raises `telcoloc.models.errors.Cancelled` when the user wants to stop.
Progress = Callable[[float], None]


def no_progress(fraction: float) -> None:
    """Report to nobody and never cancel."""


def stoppable(progress: Progress) -> tuple[Progress, Progress]:
    """Return `progress`, watched, and what work in other threads may call: it raises `Cancelled` once the former has raised anything.

    `run_chunks` waits for chunks that have begun; those that call the latter end at once.
    """
    stopped = Event()

    def watched(fraction: float) -> None:
        try:
            progress(fraction)
        except BaseException:
            stopped.set()
            raise

    def check(_fraction: float) -> None:
        if stopped.is_set():
            raise Cancelled("Cancelled.")

    return watched, check


def span(progress: Progress, start: float, end: float) -> Progress:
    """Return a progress callable whose [0, 1] is [start, end] of `progress`."""
    return lambda fraction: progress(start + (end - start) * fraction)
