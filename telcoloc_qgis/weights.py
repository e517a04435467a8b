"""Which weights file a method uses, checked before any work."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..models.errors import InputError

if TYPE_CHECKING:
    from .algorithm import Run

#: Methods that learned something.
LEARNED = ("voronoiboost", "direct", "deepmend", "deepmend_beta")
#: Those of them whose maps are drawn in a window, which a U-Net fills.
STUDENTS = ("direct", "deepmend")
WINDOWS = ("adaptive", "fixed")


def weights_of(run: Run, method: str) -> Path:
    """Return the file that WEIGHTS names, or the one that ships, for `method` and WINDOW.

    Raises
    ------
    InputError
        When there is none, or it cannot be read, is damaged, or is for something else.
    """
    from ..models.weights_file import read_weights, shipped

    window = run.parameters.choice("WINDOW") if method in STUDENTS else WINDOWS[0]
    kinds = {name: method if name == WINDOWS[0] else f"{method}_{name}" for name in WINDOWS}
    given = run.parameters.file("WEIGHTS")
    path = given or shipped(kinds[window])
    if given is None and not path.exists():
        of_window = f" with the window '{window}'" if method in STUDENTS else ""
        raise InputError(
            f"No weights for '{method}'{of_window} ship with this version. Give WEIGHTS that 'Train DeepMEND' made, or choose another "
            "method or window."
        )
    kind = read_weights(path, tuple(kinds.values()) if method in STUDENTS else method).kind
    if kind != kinds[window]:
        other = next(name for name, text in kinds.items() if text == kind)
        raise InputError(
            f"WEIGHTS '{path.name}' is for the window '{other}', but WINDOW is '{window}'. Choose the other window, or another file."
        )
    return path


def describe(path: Path) -> str:
    """Name of a weights file and the first twelve digits of its SHA-256, by which copies can be told apart."""
    return f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
