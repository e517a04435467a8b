"""KS2: how far apart two probability maps are, from 0 (identical) to 1 (they share nothing).

The statistic of the two-dimensional Kolmogorov–Smirnov test of Fasano & Franceschini (1987), as DeepMEND (section
III-B) uses it: the largest |P(Q) − R(Q)| over the quadrants Q in all four orientations at every cell. Whether a
quadrant holds its own cell does not matter: the quadrants of all cells are the same sets of cells either way.
"""

from __future__ import annotations

from time import perf_counter
from typing import Callable

import numpy as np
import scipy.sparse

from ..errors import InputError
from ..grid import Grid
from ..progress import Progress, no_progress

#: A map is accepted when its sum is this close to one; float32 rasters and truncated tails stay well below it.
SUM_TOLERANCE = 1e-3

STRIP_CELLS = 65_536  # cells of a summed-area table worked on at a time: 0.5 MiB stays in the cache
PULSE_S = 0.1  # time between two calls of `progress` [s]


def ks2(reference: np.ndarray, compared: np.ndarray) -> float:
    """Return the KS2 of two maps of one grid, shape (H, W), each summing to one.

    Raises
    ------
    InputError
        When the maps differ in shape, hold NaN or negative values, or do not sum to one.
    """
    reference, compared = _checked_pair(reference, compared)
    return _largest_quadrant(reference - compared)


def mass_overlap(reference: np.ndarray, compared: np.ndarray) -> float:
    """Return the probability mass two maps of one grid share: the sum of the smaller value of each cell, in [0, 1].

    Raises
    ------
    InputError
        As `ks2`.
    """
    reference, compared = _checked_pair(reference, compared)
    return float(min(np.minimum(reference, compared).sum(), 1.0))


def compare_maps(
    reference: scipy.sparse.csr_matrix,
    compared: scipy.sparse.csr_matrix,
    grid: Grid,
    progress: Progress = no_progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the KS2 and the mass overlap of each row of two sets of maps, both of shape (n_bs,).

    Parameters
    ----------
    reference, compared
        One map per base station, in the same order, shape (n_bs, n_cells). A row sums to one or is empty.
    grid
        The grid whose flat cells the columns are.
    progress
        Called about ten times a second, also within a large map.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]
        KS2 and mass overlap; both NaN where either map is empty.

    Raises
    ------
    InputError
        When the shapes do not fit each other or the grid, or a row is no probability map.
    """
    for name, maps in (("reference", reference), ("compared", compared)):
        if maps.shape[1] != grid.size:
            raise InputError(
                f"The {name} maps have {maps.shape[1]} cells, the grid has {grid.size}: {grid.describe()}."
            )
    if reference.shape != compared.shape:
        raise InputError(f"There are {reference.shape[0]} reference maps but {compared.shape[0]} compared maps.")
    reference, compared = _without_duplicates(reference), _without_duplicates(compared)

    n_bs = reference.shape[0]
    distances, overlaps = np.full(n_bs, np.nan), np.full(n_bs, np.nan)
    row, called_at = 0, -np.inf

    def pulse() -> None:
        nonlocal called_at
        if perf_counter() - called_at >= PULSE_S:
            progress(row / n_bs)
            called_at = perf_counter()

    for row in range(n_bs):
        pulse()
        cells_r, mass_r = _row(reference, row, "reference")
        cells_c, mass_c = _row(compared, row, "compared")
        if cells_r.size and cells_c.size:
            distances[row], overlaps[row] = _compare_cells(cells_r, mass_r, cells_c, mass_c, grid, pulse)
    progress(1.0)
    return distances, overlaps


def _compare_cells(
    cells_r: np.ndarray,
    mass_r: np.ndarray,
    cells_c: np.ndarray,
    mass_c: np.ndarray,
    grid: Grid,
    pulse: Callable[[], None],
) -> tuple[float, float]:
    """KS2 and overlap of two maps given by their cells and masses, on the window that holds the cells of both."""
    top = int(min(cells_r[0], cells_c[0])) // grid.width  # the cells of a row are sorted
    bottom = int(max(cells_r[-1], cells_c[-1])) // grid.width
    columns_r, columns_c = cells_r % grid.width, cells_c % grid.width
    left = int(min(columns_r.min(), columns_c.min()))
    width = int(max(columns_r.max(), columns_c.max())) - left + 1

    window = np.zeros((bottom - top + 1, width))
    flat = window.reshape(-1)
    places_r = (cells_r // grid.width - top) * width + (columns_r - left)
    places_c = (cells_c // grid.width - top) * width + (columns_c - left)
    flat[places_r] = mass_r
    there = flat[places_c]
    overlap = float(min(np.minimum(there, mass_c).sum(), 1.0))
    flat[places_c] = there - mass_c
    return _largest_quadrant(window, pulse), overlap


def _largest_quadrant(difference: np.ndarray, pulse: Callable[[], None] | None = None) -> float:
    """Largest |sum| of `difference` over all quadrants, at most 1. Overwrites `difference`, a C-ordered float64 array.

    With S the summed-area table, S_r its value at the end of row r, S^c at the foot of column c and T its last value,
    the quadrants that meet at the south-east corner of cell (r, c) hold S, S_r − S, S^c − S and T − S_r − S^c + S. The
    first two need only each row's largest and smallest S, the last two those of S − S^c.
    """
    height, width = difference.shape
    foot = np.cumsum(difference.sum(axis=0))
    north = np.zeros(width)
    largest = 0.0
    step = max(1, STRIP_CELLS // width)
    for first in range(0, height, step):
        if pulse is not None:
            pulse()
        table = difference[first : first + step]
        table[0] += north
        np.cumsum(table, axis=0, out=table)
        north = table[-1].copy()
        np.cumsum(table, axis=1, out=table)
        end = table[:, -1].copy()
        rest = foot[-1] - end
        high, low = table.max(axis=1), table.min(axis=1)
        table -= foot
        high_s, low_s = table.max(axis=1), table.min(axis=1)
        candidates = (high, -low, high - end, end - low, high_s, -low_s, high_s + rest, -low_s - rest)
        largest = max(largest, *(float(values.max()) for values in candidates))
    return min(largest, 1.0)


def _checked_pair(reference: np.ndarray, compared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both maps as float64, after the checks `ks2` promises."""
    reference, compared = np.asarray(reference, dtype=float), np.asarray(compared, dtype=float)
    if reference.shape != compared.shape:
        raise InputError(f"The two maps differ in shape: {reference.shape} and {compared.shape}.")
    if reference.ndim != 2 or reference.size == 0:
        raise InputError(f"A map needs the shape (height, width) with at least one cell, not {reference.shape}.")
    _check_masses(reference, "The reference map")
    _check_masses(compared, "The compared map")
    return reference, compared


def _check_masses(masses: np.ndarray, name: str) -> None:
    """Refuse what is no probability map: NaN, negative values, a sum that is not one."""
    smallest = float(masses.min())  # NaN if any value is
    if np.isnan(smallest):
        raise InputError(f"{name} holds NaN in {int(np.isnan(masses).sum())} of {masses.size} cells; set them to 0.")
    if smallest < 0:
        raise InputError(f"{name} holds a negative probability, {smallest:g}.")
    total = float(masses.sum())
    if not abs(total - 1.0) <= SUM_TOLERANCE:
        raise InputError(f"{name} sums to {total:.6g}, not 1; divide it by its sum.")


def _without_duplicates(maps: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """Return `maps` with sorted, unique columns in each row; a copy only where that takes work."""
    if not maps.has_canonical_format:
        maps = maps.copy()
        maps.sum_duplicates()
    return maps


def _row(maps: scipy.sparse.csr_matrix, row: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Cells and float64 masses of a row; no cells when it is empty or holds only zeros."""
    part = slice(maps.indptr[row], maps.indptr[row + 1])
    cells, masses = maps.indices[part], maps.data[part].astype(np.float64)
    if not masses.any():
        return cells[:0], masses[:0]
    _check_masses(masses, f"Row {row} of the {name} maps")
    return cells, masses
