"""The look-up table of the database correlation method (DCM): how strongly each cell is received at each place.

Section 2.1 of the landmark paper: every row of the table is a point, every column a base station. Its entries come from radio maps, or
from fingerprints: measurements whose true position is known.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from ..errors import InputError
from ..grid import Grid
from ..progress import Progress, no_progress
from ..radio.maps import RadioMaps
from ..trajectory.measurements import Measurements
from ..weights_file import Weights, read_weights, write_weights

#: What a file of fingerprints calls itself.
KIND = "fingerprints"
#: Most entries of a table (2 GB), and of the part of it that is learned at a time.
MOST_ENTRIES, _ENTRIES_AT_ONCE = 500_000_000, 4_000_000
#: A cell that was never heard at a place counts as this much weaker than the weakest report of all [dB].
BELOW_WEAKEST_DB = 3.0
#: Kernel weights reach so many standard deviations.
_REACH_SIGMAS = 3.0


@dataclass(frozen=True)
class LookupTable:
    """Received power of n_cells cells at n_places places.

    Parameters
    ----------
    grid
        Where the places are.
    cells
        Ids as measurements name them, all different.
    places
        Flat indices of the grid's cells that are places, ascending, shape (n_places,), int64.
    rss_dbm
        Received power [dBm], shape (n_places, n_cells), float32, NaN where a cell is not received.
    noise_floor_dbm
        What NaN counts as, and what nothing is weaker than, when places are compared with a report [dBm].
    learned
        Whether entries are means of what was reported: such a mean is of the times when a cell was named, so it says little about the
        times when it is not.

    Raises
    ------
    InputError
        When there is no place, or shapes differ.
    """

    grid: Grid
    cells: tuple[str, ...]
    places: np.ndarray
    rss_dbm: np.ndarray
    noise_floor_dbm: float
    learned: bool = False

    def __post_init__(self) -> None:
        if self.rss_dbm.shape != (len(self.places), len(self.cells)):
            raise InputError(
                f"A look-up table of {len(self.places)} places and {len(self.cells)} cells cannot have entries of shape "
                f"{self.rss_dbm.shape}."
            )
        if not self.rss_dbm.size:
            raise InputError("The look-up table has no place at which a cell is received.")

    @property
    def xy_m(self) -> np.ndarray:
        """Positions of the places [m], shape (n_places, 2)."""
        return self.grid.centres(self.places)

    @property
    def floored_dbm(self) -> np.ndarray:
        """What a report is compared with [dBm], shape (n_cells, n_places), float32: nothing is below the noise floor."""
        return np.ascontiguousarray(np.fmax(self.rss_dbm.T, np.float32(self.noise_floor_dbm)))

    def only(self, cells: Collection[str]) -> LookupTable:
        """Return the table of those of `cells` it has; there must be one."""
        columns = [column for column, name in enumerate(self.cells) if name in cells]
        if len(columns) == len(self.cells):
            return self
        return replace(self, cells=tuple(self.cells[column] for column in columns), rss_dbm=self.rss_dbm[:, columns])

    @classmethod
    def from_radio_maps(cls, maps: RadioMaps, places: np.ndarray | None = None) -> LookupTable:
        """Return the table of some radio maps.

        Parameters
        ----------
        places
            Cells that may be places, shape (height, width), bool; all when not given. Cells where no map knows anything, such as the
            insides of buildings, are left out.

        Raises
        ------
        InputError
            When `places` has another shape, or nothing is left.
        """
        rss = maps.rss_dbm.reshape(len(maps.transmitters), -1)
        allowed = np.isfinite(rss).any(axis=0)
        if places is not None:
            if places.shape != maps.grid.shape:
                raise InputError(f"The mask of places has shape {places.shape}, the radio maps have {maps.grid.shape}.")
            allowed &= places.ravel()
        chosen = np.flatnonzero(allowed)
        if not len(chosen):
            raise InputError("The radio maps know of no cell that may be a place; check the mask and the maps.")
        floor = maps.noise_floor_dbm
        if not np.isfinite(floor):  # maps that do not tell: everything they predict is received
            floor = np.floor(np.nanmin(rss[:, chosen])) - BELOW_WEAKEST_DB
        return cls(maps.grid, maps.transmitters.ids, chosen, rss[:, chosen].T, float(floor))


def learn_fingerprints(
    records: Measurements,
    xy_m: np.ndarray,
    grid: Grid,
    *,
    smooth_m: float | None = None,
    reach_m: float | None = None,
    least_share: float = 0.05,
    progress: Progress = no_progress,
) -> LookupTable:
    """Learn a look-up table from records whose true position is known.

    The level of a cell at a place is the mean of its reports around, weighted with a Gaussian kernel over the distance from the centre of
    the square they were made in; so a square counts by its number of reports. A cell is received at a place when it is named by a
    share of the records around. What may be learned from what is the caller's duty: judge on other trajectories.

    Parameters
    ----------
    xy_m
        True positions in the grid's CRS [m], shape (n, 2), NaN where unknown (such records are left out).
    grid
        Squares that reports are collected in; those with their centre within `reach_m` of such a square are places.
    smooth_m
        Standard deviation of the kernel [m]; half a square when not given.
    reach_m
        How far from where somebody was a place may be [m]; one and a half squares when not given.
    least_share
        Share of the records around, by weight, that must name a cell for it to be received there.

    Raises
    ------
    InputError
        When no record has a position on the grid and an RSS, or the table would be too large.
    """
    smooth = 0.5 * grid.cell_size_m if smooth_m is None else smooth_m
    reach = 1.5 * grid.cell_size_m if reach_m is None else reach_m
    if not (smooth > 0 and reach >= 0):
        raise InputError(f"Smoothing needs a width above 0 m and a reach of 0 m or more, not {smooth:g} and {reach:g}.")
    square = np.full(len(records), -1, dtype=np.int64)
    known = np.isfinite(xy_m).all(axis=1)
    square[known] = grid.cells_of(xy_m[known])
    heard = (records.cell >= 0) & np.isfinite(records.rss_dbm)
    use = np.flatnonzero((square >= 0) & heard.any(axis=1))
    if not len(use):
        raise InputError(
            "No record has both a true position within the extent and an RSS, so there is nothing to learn fingerprints from."
        )
    progress(0.1)
    squares, of_square = np.unique(square[use], return_inverse=True)
    slot_row, slot = np.nonzero(heard[use])
    codes, column = np.unique(records.cell[use][slot_row, slot], return_inverse=True)
    rss = records.rss_dbm[use][slot_row, slot].astype(float)
    places = _places_near(grid, squares, reach)
    if len(places) * len(codes) > MOST_ENTRIES:
        raise InputError(
            f"A look-up table of {len(places):,} places and {len(codes):,} cells is too large for the memory; use larger squares than "
            f"{grid.cell_size_m:g} m."
        )
    progress(0.2)
    shape = (len(squares), len(codes))
    at = (of_square[slot_row], column)
    counts = csr_matrix((np.ones(len(rss)), at), shape)
    sums = csr_matrix((rss, at), shape)
    near = _kernel(grid, places, squares, smooth, reach)
    progress(0.4)
    least = least_share * (near @ np.bincount(of_square, minlength=len(squares)))
    level = np.empty((len(places), len(codes)), np.float32)
    step = max(1, _ENTRIES_AT_ONCE // len(codes))
    for start in range(0, len(places), step):
        progress(0.4 + 0.6 * start / len(places))
        some = slice(start, start + step)
        named, total = (near[some] @ counts).toarray(), (near[some] @ sums).toarray()
        received = (named > 0) & (named >= least[some, None])
        level[some] = np.where(received, total / np.where(received, named, 1.0), np.nan)
    progress(1.0)
    return LookupTable(
        grid,
        tuple(records.cells[code] for code in codes.tolist()),
        places,
        level,
        float(np.floor(rss.min()) - BELOW_WEAKEST_DB),
        learned=True,
    )


def _places_near(grid: Grid, squares: np.ndarray, reach_m: float) -> np.ndarray:
    """Flat indices of the cells within `reach_m` of those of `squares`, ascending."""
    steps = int(reach_m // grid.cell_size_m)
    rows, columns = np.divmod(squares, grid.width)
    found = [squares]
    for down in range(-steps, steps + 1):
        for right in range(-steps, steps + 1):
            if np.hypot(down, right) * grid.cell_size_m <= reach_m:
                row, column = rows + down, columns + right
                inside = (row >= 0) & (row < grid.height) & (column >= 0) & (column < grid.width)
                found.append(np.unique((row * grid.width + column)[inside]))
    return np.unique(np.concatenate(found))


def _kernel(grid: Grid, places: np.ndarray, squares: np.ndarray, smooth_m: float, reach_m: float) -> csr_matrix:
    """Gaussian weights of squares at places, shape (n_places, n_squares)."""
    radius = max(_REACH_SIGMAS * smooth_m, reach_m + 1e-6 * grid.cell_size_m)
    pairs = cKDTree(grid.centres(places)).sparse_distance_matrix(
        cKDTree(grid.centres(squares)), radius, output_type="coo_matrix"
    )
    weights = np.exp(-0.5 * (pairs.data / smooth_m) ** 2)
    # A square on a place has distance 0, which some versions of scipy leave out of the sparse matrix.
    on_place = np.searchsorted(places, squares)
    apart = pairs.data > 0
    row = np.concatenate([pairs.row[apart], on_place])
    column = np.concatenate([pairs.col[apart], np.arange(len(squares))])
    return csr_matrix((np.concatenate([weights[apart], np.ones(len(squares))]), (row, column)), pairs.shape)


def save_fingerprints(path: str | os.PathLike[str], table: LookupTable, origin: str = "") -> None:
    """Write a learned table as a safetensors file.

    Parameters
    ----------
    origin
        What it was learned from, for its card.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    grid = table.grid
    card = {
        "height": grid.height,
        "width": grid.width,
        "x_min": grid.x_min,
        "y_max": grid.y_max,
        "cell_size_m": grid.cell_size_m,
        "crs_wkt": grid.crs_wkt,
        "cells": list(table.cells),
        "noise_floor_dbm": table.noise_floor_dbm,
        "origin": origin,
    }
    tensors: dict[str, np.ndarray] = {
        "places": table.places.astype(np.int64),
        "rss_dbm": table.rss_dbm.astype(np.float32),
    }
    write_weights(path, Weights(KIND, tensors, card))


def load_fingerprints(path: str | os.PathLike[str]) -> LookupTable:
    """Read a file that `save_fingerprints` wrote.

    Raises
    ------
    InputError
        When it is missing, damaged, or no file of fingerprints.
    """
    weights = read_weights(path, KIND, finite=False)
    try:
        card = weights.card
        grid = Grid(
            int(card["height"]),
            int(card["width"]),
            float(card["x_min"]),
            float(card["y_max"]),
            float(card["cell_size_m"]),
            str(card["crs_wkt"]),
        )
        cells = tuple(map(str, card["cells"]))
        table = LookupTable(
            grid, cells, weights.tensors["places"], weights.tensors["rss_dbm"], float(card["noise_floor_dbm"]), True
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"The file of fingerprints {path} is damaged ({error}); learn it again.") from error
    if table.places.min() < 0 or table.places.max() >= grid.size:
        raise InputError(f"The file of fingerprints {path} is damaged: a place lies outside its grid; learn it again.")
    return table
