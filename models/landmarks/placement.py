"""Where location-oriented landmarks help most: in the worst areas of a sensibility map (section 4.1 of the landmark paper)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve

from ..errors import InputError
from ..grid import Grid
from ..progress import Progress, no_progress

#: Gains and differences of gains below this share of the first one are noise of the Fourier transform.
_NOTHING = 1e-9


@dataclass(frozen=True)
class Placement:
    """Places for n landmarks, the most useful first.

    Parameters
    ----------
    xy_m
        Centres of their cells [m], shape (n, 2).
    sensibility
        At each place, shape (n,).
    share
        Of the whole mass, what a landmark covers first, shape (n,).
    covered
        Of the whole mass, what the landmarks up to this one cover, shape (n,).
    """

    xy_m: np.ndarray
    sensibility: np.ndarray
    share: np.ndarray
    covered: np.ndarray

    def __len__(self) -> int:
        return len(self.share)


def place_landmarks(
    grid: Grid,
    sensibility: np.ndarray,
    number: int,
    radius_m: float,
    spacing_m: float = 0.0,
    weight: np.ndarray | None = None,
    progress: Progress = no_progress,
) -> Placement:
    """Choose places one after the other, each where it covers most sensibility that no earlier one does.

    A landmark covers the cells within a radius. The mass of a cell is its sensibility times its weight. Where several places cover
    alike, the most sensible of them is taken. This greedy choice covers at
    least 1 − 1/e of what the best possible choice would (without a spacing).

    Parameters
    ----------
    sensibility
        In [0, 1], shape (height, width), NaN where unknown: such cells have no mass and get no landmark.
    number
        Landmarks wanted; fewer come back where nothing is left to cover.
    radius_m
        How far from a landmark it still helps [m].
    spacing_m
        Least distance between two landmarks [m].
    weight
        How much people travel in each cell, shape (height, width), 0 or more; cells of weight 0 get no landmark. All alike when not
        given.

    Raises
    ------
    InputError
        When shapes differ, a number makes no sense, or no cell has a mass.
    """
    if number < 1 or not (radius_m >= 0 and spacing_m >= 0):
        raise InputError(
            f"Placing needs one landmark or more, and a radius and a spacing of 0 m or more, not {number}, {radius_m:g} m and "
            f"{spacing_m:g} m."
        )
    weight = np.ones(grid.shape) if weight is None else weight
    if sensibility.shape != grid.shape or weight.shape != grid.shape:
        raise InputError(
            f"The sensibility map has shape {sensibility.shape}, its weights {weight.shape}, the grid {grid.shape}."
        )
    known = np.isfinite(sensibility) & (weight > 0)
    mass = np.where(known, np.nan_to_num(sensibility) * weight, 0.0)
    whole = float(mass.sum())
    if not whole > 0:
        raise InputError("The sensibility is 0 or unknown everywhere landmarks may stand, so no landmark would help.")
    reach = int(radius_m / grid.cell_size_m)
    apart = int(spacing_m / grid.cell_size_m) + 1
    disc = _disc(reach, radius_m / grid.cell_size_m)
    gain = fftconvolve(mass, disc, mode="same")
    allowed = known.copy()
    cells, shares = [], []
    first = gain[allowed].max()
    for rank in range(number):
        progress(rank / number)
        most = gain.max(where=allowed, initial=0.0)
        if most <= _NOTHING * first:
            break
        alike = allowed & (gain >= most - _NOTHING * first)
        best = int(np.argmax(np.where(alike, sensibility, -1.0)))
        row, column = divmod(best, grid.width)
        near, within = _window(grid.shape, row, column, reach)
        taken = np.where(disc[within], mass[near], 0.0)
        mass[near] -= taken
        cells.append(best)
        shares.append(taken.sum() / whole)
        # Gains change within two radii only.
        changed, _ = _window(grid.shape, row, column, 2 * reach)
        around, _ = _window(grid.shape, row, column, 3 * reach)
        inner = tuple(slice(c.start - a.start, c.stop - a.start) for c, a in zip(changed, around))
        gain[changed] = fftconvolve(mass[around], disc, mode="same")[inner] if reach else mass[changed]
        close, inside = _window(grid.shape, row, column, apart)
        allowed[close] &= ~_disc(apart, spacing_m / grid.cell_size_m, strictly=True)[inside]
        allowed[row, column] = False
    chosen = np.array(cells, dtype=np.int64)
    share = np.array(shares)
    return Placement(grid.centres(chosen), sensibility.ravel()[chosen].astype(float), share, np.cumsum(share))


def _disc(reach: int, radius: float, strictly: bool = False) -> np.ndarray:
    """Cells within `radius` cells of the middle, shape (2 reach + 1, 2 reach + 1), bool."""
    steps = np.arange(-reach, reach + 1)
    distance = np.hypot(steps[:, None], steps)
    return distance < radius - 1e-9 if strictly else distance <= radius + 1e-9


def _window(
    shape: tuple[int, int], row: int, column: int, reach: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of an array within `reach` of a cell, and the part of a square of that reach that lies on the array."""
    on_array, on_square = [], []
    for at, size in zip((row, column), shape):
        low, high = max(at - reach, 0), min(at + reach + 1, size)
        on_array.append(slice(low, high))
        on_square.append(slice(low - at + reach, high - at + reach))
    return (on_array[0], on_array[1]), (on_square[0], on_square[1])
