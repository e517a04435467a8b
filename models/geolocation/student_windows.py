"""What the student sees and says: windows around base stations (BSs), input channels, the target's transformation; numpy only.

The paper's window is 600 × 600 cells of 100 m. Ours can also follow the BS's surroundings: 64 × 64 cells whose size is a fifth of
the local spacing. The channels are ratios of distances, so a layout and its enlargement look alike and give the same map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from . import sites

#: Filters of the encoding layers, side of their kernels, input channels (DeepMEND section IV-B).
FILTERS = (32, 16, 8, 4, 2, 1)
KERNEL = 5
CHANNELS = 3
#: Six poolings of 2: sides must be multiples of this, and are padded to be.
POOLED = 2 ** len(FILTERS)
WINDOW_KINDS = ("adaptive", "fixed")
#: Added to all distances [window cells]: no division by zero at the BS. For the fixed window it is the reference code's 1 m.
NEAR = 0.01
#: Probabilities of a cell are clipped here before the logarithm; the lower limit is that of the reference code.
LEAST, MOST = 1e-9, 0.5


@dataclass(frozen=True)
class StudentWindow:
    """Which window a student was trained for.

    Parameters
    ----------
    kind
        "adaptive" (cells follow the local spacing) or "fixed" (the paper's).
    side
        Cells along a side; 64 by default, 600 in the paper.
    cells_per_spacing
        Local spacing of a BS / cell size, of an adaptive window.
    cell_size_m
        Of a fixed window [m].
    """

    kind: str = "adaptive"
    side: int = 64
    cells_per_spacing: float = 5.0
    cell_size_m: float = 100.0

    def __post_init__(self) -> None:
        if self.kind not in WINDOW_KINDS:
            raise InputError(f"Unknown window '{self.kind}'. Windows: {', '.join(WINDOW_KINDS)}.")
        if not (self.side >= 2 and self.cells_per_spacing > 0 and self.cell_size_m > 0):
            raise InputError(
                f"A student's window needs a positive size, not {self.side} cells, {self.cells_per_spacing:g} per spacing, "
                f"of {self.cell_size_m:g} m."
            )

    @classmethod
    def paper(cls) -> StudentWindow:
        """Return the paper's window: 600 × 600 cells of 100 m."""
        return cls("fixed", 600)

    def card(self) -> dict[str, Any]:
        """Return what the card of a weights file says of it."""
        return asdict(self)

    @classmethod
    def of_card(cls, card: Mapping[str, Any], path: object) -> StudentWindow:
        """Read what `card` wrote.

        Raises
        ------
        InputError
            When it is missing or makes no sense.
        """
        try:
            written = card["window"]
            return cls(
                str(written["kind"]),
                int(written["side"]),
                float(written["cells_per_spacing"]),
                float(written["cell_size_m"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"The weights file {path} does not say in its card which window it was trained for ({error}). Train it again."
            ) from error

    def cell_sizes_m(self, sites_m: np.ndarray) -> np.ndarray:
        """Side of a window cell of each BS [m], shape (n_bs,).

        Raises
        ------
        InputError
            When the window is adaptive and there is only one BS.
        """
        if self.kind == "fixed":
            return np.full(len(sites_m), self.cell_size_m)
        return sites.local_spacing_m(sites_m) / self.cells_per_spacing


def offsets(side: int) -> np.ndarray:
    """Cell centres of a window from its middle [cells], shape (side,), rising."""
    return np.arange(side) - (side - 1) / 2


def channels(
    tree: cKDTree, bs_m: np.ndarray, x_m: np.ndarray, y_m: np.ndarray, cell_size_m: np.ndarray, threads: int = 1
) -> np.ndarray:
    """Return 1 − exp(−d_k/d_i) for the k = 1st, 2nd and 3rd nearest BS of each cell, i being the window's own BS.

    These are the paper's three; the reference code takes the mean of the five nearest as the third. Where there are fewer than
    three BSs, d_k is infinite.

    Parameters
    ----------
    tree
        Positions of all BSs [m].
    bs_m
        Position (x, y) of each window's BS [m], shape (n, 2).
    x_m, y_m
        Cell centres [m], shape (n, side) each, y falling.
    cell_size_m
        Shape (n,).
    threads
        For the search of the nearest.

    Returns
    -------
    numpy.ndarray
        Shape (n, 3, side, side), float32, in (0, 1].
    """
    n, side = x_m.shape
    places = np.empty((n, side, side, 2))
    places[..., 0] = x_m[:, None, :]
    places[..., 1] = y_m[:, :, None]
    nearest, _ = tree.query(places.reshape(-1, 2), k=CHANNELS, workers=threads)
    near = (NEAR * np.asarray(cell_size_m, float))[:, None, None]
    own = np.hypot(x_m[:, None, :] - bs_m[:, 0, None, None], y_m[:, :, None] - bs_m[:, 1, None, None]) + near
    ratio = (nearest.reshape(n, side, side, CHANNELS) + near[..., None]) / own[..., None]
    return np.ascontiguousarray(np.moveaxis(-np.expm1(-ratio), 3, 1), np.float32)


def to_target(probability: np.ndarray) -> np.ndarray:
    """y′ = −1 / log10 y of probabilities per window cell, y clipped to [`LEAST`, `MOST`]."""
    return -1 / np.log10(np.clip(probability, LEAST, MOST))


def from_target(target: np.ndarray) -> np.ndarray:
    """Undo `to_target` and scale each map of shape (…, side, side) to sum to one."""
    limits = -1 / math.log10(LEAST), -1 / math.log10(MOST)
    probability = 10 ** (-1 / np.clip(np.asarray(target, float), *limits))
    return np.asarray(probability / probability.sum(axis=(-2, -1), keepdims=True))
