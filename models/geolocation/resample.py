"""From a square window of cells of any size onto a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..grid import Grid


@dataclass(frozen=True)
class Kept:
    """What a window leaves on a grid.

    Parameters
    ----------
    cells
        Flat cell indices, rising, shape (n,), int32.
    probability
        Summing to one, or empty, shape (n,), float32.
    mass_cut
        Share of the window's mass beyond the grid's rectangle.
    """

    cells: np.ndarray
    probability: np.ndarray
    mass_cut: float


def onto_grid(
    masses: np.ndarray, xy_m: np.ndarray, cell_size_m: float, grid: Grid, mask: np.ndarray | None, keep_mass: float
) -> Kept:
    """Move a window's map onto a grid.

    Cells of the grid that are finer than the window's get the density interpolated (bilinear in its logarithm) at their centres;
    coarser ones what they cover, each window cell's mass being spread evenly over it. Both are then scaled to sum to one.

    Parameters
    ----------
    masses
        Mass of each window cell, shape (side, side), row 0 north, all positive, summing to one.
    xy_m
        Middle of the window [m].
    cell_size_m
        Side of a window cell [m].
    mask
        Cells that may hold mass, shape (height, width), bool; None for all.
    keep_mass
        Share of the mass to keep at least; smaller probabilities are dropped.
    """
    side = len(masses)
    left, top = float(xy_m[0]) - side / 2 * cell_size_m, float(xy_m[1]) + side / 2 * cell_size_m
    # Positions in window cells from its north-west corner, rightwards and downwards.
    x0, y0 = (grid.x_min - left) / cell_size_m, (top - grid.y_max) / cell_size_m
    step = grid.cell_size_m / cell_size_m
    covered = _covered(y0, y0 + grid.height * step, side) @ masses @ _covered(x0, x0 + grid.width * step, side)
    mass_cut = float(min(max(1 - covered / masses.sum(), 0), 1))

    row_first, row_stop = _cells(y0, step, side, grid.height)
    col_first, col_stop = _cells(x0, step, side, grid.width)
    nothing = Kept(np.zeros(0, np.int32), np.zeros(0, np.float32), mass_cut)
    if row_first >= row_stop or col_first >= col_stop:
        return nothing
    rows, columns = np.arange(row_first, row_stop), np.arange(col_first, col_stop)
    if step < 1:
        across = _between(np.log(masses), x0 + (columns + 0.5) * step)
        values = _between(across.T, y0 + (rows + 0.5) * step).T
        np.exp(values, out=values)
    else:
        values = _overlap(y0 + rows * step, step, side) @ masses @ _overlap(x0 + columns * step, step, side).T
    if mask is not None:
        values *= mask[row_first:row_stop, col_first:col_stop]
    total = values.sum()
    if not total > 0:
        return nothing
    # Halving the limit from well above what is safe needs no sorting and a few passes.
    limit = values.max()
    while values[values >= limit].sum() < keep_mass * total:
        limit /= 2
    down, right = np.nonzero(values >= limit)
    probability = values[down, right]
    cells = (down + row_first) * grid.width + right + col_first
    return Kept(cells.astype(np.int32), (probability / probability.sum()).astype(np.float32), mass_cut)


def reachable_cells(xy_m: np.ndarray, width_m: float, grid: Grid) -> int:
    """Return about how many cells of the grid a window of this width holds, at most."""
    sides = []
    for low, high, centre in zip(grid.bounds[:2], grid.bounds[2:], xy_m):
        overlap = min(high, centre + width_m / 2) - max(low, centre - width_m / 2)
        sides.append(max(overlap, 0.0) / grid.cell_size_m + 1)
    return int(sides[0] * sides[1])


def _cells(origin: float, step: float, side: int, n: int) -> tuple[int, int]:
    """First of `n` grid cells, the first of which begins at `origin`, that can hold some of [0, side), and one past the last."""
    if step < 1:  # those whose centres lie inside
        first, stop = np.ceil(-origin / step - 0.5), np.ceil((side - origin) / step - 0.5)
    else:  # those that overlap
        first, stop = np.floor(-origin / step), np.ceil((side - origin) / step)
    return int(np.clip(first, 0, n)), int(np.clip(stop, 0, n))


def _covered(low: float, high: float, side: int) -> np.ndarray:
    """Share of each of `side` unit intervals that lies in [low, high], shape (side,)."""
    edges = np.arange(side)
    return np.clip(np.minimum(edges + 1, high) - np.maximum(edges, low), 0, 1)


def _overlap(low: np.ndarray, step: float, side: int) -> np.ndarray:
    """Share of each of `side` unit intervals in [low, low + step], shape (n, side)."""
    edges = np.arange(side)
    return np.clip(np.minimum(edges + 1, low[:, None] + step) - np.maximum(edges, low[:, None]), 0, 1)


def _between(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Interpolate each row of `values` linearly between the middles of unit intervals, constant beyond them; shape (n_rows, n)."""
    place = np.clip(place - 0.5, 0, values.shape[1] - 1)
    first = np.minimum(place.astype(int), values.shape[1] - 2)
    before, after = values[:, first], values[:, first + 1]
    return np.asarray(before + (after - before) * (place - first))
