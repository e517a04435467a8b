"""The sensibility map: where several candidates do not suffice to find the true position.

Equation (2) of the landmark paper: the sensibility of a place is the distance from the true position to the nearest candidate over the
largest error D_Max; 0 where a candidate is right, 1 where the network is blind. It comes from measurements with truth, or from a
simulation where there are none: the table's powers with an error as large as the model's are matched with the table again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..grid import Grid
from ..progress import Progress, no_progress, span
from ..radio.shadowing import correlated_field
from ..trajectory.measurements import MOST_CELLS
from .candidates import Candidates
from .lookup import LookupTable
from .reports import Reports, strongest
from .signal_candidates import CandidateSettings, best_places

#: D_Max, where it is not given, is this quantile of the distances, so that one stray place does not dim the whole map.
LARGEST_QUANTILE = 0.99
#: Most samples that a cell's value is interpolated from, and cells interpolated at a time.
_NEIGHBOURS, _CELLS_AT_ONCE = 16, 50_000


@dataclass(frozen=True)
class Sensibility:
    """Equation (2) on a grid.

    Parameters
    ----------
    grid
        The cells.
    values
        Sensibility in [0, 1], shape (height, width), float32, NaN where unknown.
    d_max_m
        D_Max, the distance that is 1 and that larger ones count as [m].
    samples
        Number of places with a known truth it rests on.
    mean_m
        Mean distance from the truth to the nearest candidate [m].
    """

    grid: Grid
    values: np.ndarray
    d_max_m: float
    samples: int
    mean_m: float


def nearest_candidate_m(candidates: Candidates, true_xy_m: np.ndarray) -> np.ndarray:
    """Return the distance from the truth to the nearest candidate [m], shape (n,).

    Parameters
    ----------
    true_xy_m
        Of each instant [m], shape (n, 2), NaN where unknown.

    Returns
    -------
    np.ndarray
        NaN where the truth is unknown, infinite where it is known and there is no candidate.
    """
    count = np.diff(candidates.first)
    distance = np.hypot(*(candidates.xy_m - np.repeat(true_xy_m, count, axis=0)).T)
    nearest = np.full(len(candidates), np.inf)
    np.minimum.at(nearest, np.repeat(np.arange(len(candidates)), count), distance)
    nearest[~np.isfinite(true_xy_m).all(axis=1)] = np.nan
    return nearest


def measured_sensibility(
    candidates: Candidates,
    true_xy_m: np.ndarray,
    grid: Grid,
    radius_m: float,
    d_max_m: float | None = None,
    progress: Progress = no_progress,
) -> Sensibility:
    """Return the sensibility that measurements with truth show.

    Parameters
    ----------
    true_xy_m
        Of each instant [m], shape (n, 2), NaN where unknown. An instant without a candidate counts as D_Max.
    grid
        What the map is wanted on.
    radius_m
        Cells farther than this from every true position stay unknown [m]; nearer ones get a mean weighted with the inverse squared
        distance.
    d_max_m
        D_Max [m]; when not given, the 99 % quantile of the distances.

    Raises
    ------
    InputError
        When no instant has a truth on the grid, or D_Max or the radius is not positive.
    """
    distance = nearest_candidate_m(candidates, true_xy_m)
    known = np.flatnonzero(~np.isnan(distance))
    known = known[grid.cells_of(true_xy_m[known]) >= 0]
    if not len(known):
        raise InputError(
            "No record with a true position lies on the map, so nothing tells its sensibility. Simulate it instead."
        )
    if not np.isfinite(distance[known]).any() and d_max_m is None:
        raise InputError(
            "No record with a true position has a candidate, so there is no largest distance; give D_Max, or check the look-up table."
        )
    cells = np.arange(grid.size)
    return _of_samples(true_xy_m[known], distance[known], grid, cells, radius_m, d_max_m, progress)


def simulated_sensibility(
    table: LookupTable,
    settings: CandidateSettings,
    error_db: float,
    *,
    correlation_m: float = 50.0,
    spacing_m: float = 20.0,
    repeats: int = 3,
    d_max_m: float | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Sensibility:
    """Return the sensibility of places where the real powers are the table's plus an error that is correlated over space.

    A device names the seven strongest cells above the noise floor, without an offset of its own.

    Parameters
    ----------
    settings
        How candidates are chosen; `average_s` does not matter, and `most` is used as the number where it is given.
    error_db
        Standard deviation between table and reality [dB].
    correlation_m
        Distance at which the error's correlation has fallen to 1/e [m].
    spacing_m
        One place in each square of this side is tried in every repeat [m].
    repeats
        Fields of errors that are drawn.
    d_max_m
        D_Max [m]; when not given, the 99 % quantile of the distances.
    seed
        Of the errors and places.

    Raises
    ------
    InputError
        When a number makes no sense.
    """
    if not (error_db >= 0 and correlation_m > 0 and spacing_m > 0 and repeats >= 1):
        raise InputError(
            "A simulation needs an error of 0 dB or more, a correlation and a spacing above 0 m and one repeat, not "
            f"{error_db:g} dB, {correlation_m:g} m, {spacing_m:g} m and {repeats}."
        )
    rng = np.random.default_rng(seed)
    comparison = settings.comparison(table)
    tried, distance = [], []
    for turn in range(repeats):
        place = _one_per_square(table, spacing_m, rng)
        rss = table.rss_dbm[place].astype(float)
        part = span(progress, 0.95 * turn / repeats, 0.95 * (turn + 1) / repeats)
        for column in range(len(table.cells)):
            part(0.5 * column / len(table.cells))
            field = correlated_field(table.grid.shape, table.grid.cell_size_m, correlation_m, rng)
            rss[:, column] += error_db * field.ravel()[table.places[place]]
        found, _, _ = best_places(
            _named(rss, table.noise_floor_dbm, settings.antennas),
            table,
            settings,
            comparison=comparison,
            threads=threads,
            progress=span(part, 0.5, 1.0),
        )
        true, candidate = table.grid.centres(table.places[place]), table.xy_m[found]
        gap = np.hypot(candidate[..., 0] - true[:, :1], candidate[..., 1] - true[:, 1:])
        tried.append(true)
        distance.append(np.where(found >= 0, gap, np.inf).min(axis=1))
    xy_m, gaps = np.concatenate(tried), np.concatenate(distance)
    if not np.isfinite(gaps).any() and d_max_m is None:
        raise InputError(
            "Nothing of the radio maps reaches the noise floor, so there is no candidate anywhere; check both."
        )
    return _of_samples(
        xy_m, gaps, table.grid, table.places, 2 * spacing_m + table.grid.cell_size_m, d_max_m, span(progress, 0.95, 1.0)
    )


def _one_per_square(table: LookupTable, spacing_m: float, rng: np.random.Generator) -> np.ndarray:
    """A place of each square of the given side that has one, drawn at random."""
    rows, columns = np.divmod(table.places, table.grid.width)
    side = max(1, round(spacing_m / table.grid.cell_size_m))
    square = rows // side * (table.grid.width // side + 1) + columns // side
    mixed = rng.permutation(len(square))
    _, first = np.unique(square[mixed], return_index=True)
    return np.sort(mixed[first])


def _named(rss_dbm: np.ndarray, floor_dbm: float, antennas: int) -> Reports:
    """What a device names of powers of shape (n, n_cells): the seven strongest above the noise floor."""
    received = np.where(rss_dbm >= floor_dbm, rss_dbm, -np.inf)  # nor what is NaN
    most = min(MOST_CELLS, rss_dbm.shape[1])
    column = np.argsort(-received, axis=1, kind="stable")[:, :most]
    rss = np.take_along_axis(received, column, axis=1)
    there = np.isfinite(rss)
    full = there.all(axis=1) & (most == MOST_CELLS)
    limit = np.where(full, rss.min(axis=1), floor_dbm)
    return strongest(np.where(there, column, -1), np.where(there, rss, np.nan), limit, antennas)


def _of_samples(
    xy_m: np.ndarray,
    distance_m: np.ndarray,
    grid: Grid,
    cells: np.ndarray,
    radius_m: float,
    d_max_m: float | None,
    progress: Progress,
) -> Sensibility:
    """Sensibility of some cells from samples at (n, 2) positions."""
    finite = distance_m[np.isfinite(distance_m)]
    largest = float(np.quantile(finite, LARGEST_QUANTILE)) if d_max_m is None else d_max_m
    if d_max_m is None:  # all candidates are right
        largest = largest or 1.0
    if not (largest > 0 and radius_m > 0 and np.isfinite(largest)):
        raise InputError(f"D_Max and the radius must be above 0 m, not {largest:g} m and {radius_m:g} m.")
    share = np.minimum(distance_m / largest, 1.0)
    values = np.full(grid.size, np.nan, dtype=np.float32)
    values[cells] = interpolated(xy_m, share, grid.centres(cells), radius_m, grid.cell_size_m / 2, progress)
    return Sensibility(
        grid, values.reshape(grid.shape), largest, len(distance_m), float(np.minimum(distance_m, largest).mean())
    )


def interpolated(
    xy_m: np.ndarray,
    values: np.ndarray,
    at_m: np.ndarray,
    radius_m: float,
    near_m: float,
    progress: Progress = no_progress,
) -> np.ndarray:
    """Return means of `values`, known at `xy_m`, at other positions: weighted with 1 / (distance² + `near_m`²), NaN beyond `radius_m`."""
    tree = cKDTree(xy_m)
    result = np.full(len(at_m), np.nan)
    number = min(_NEIGHBOURS, len(xy_m))
    for start in range(0, len(at_m), _CELLS_AT_ONCE):
        progress(start / len(at_m))
        rows = slice(start, start + _CELLS_AT_ONCE)
        distance, which = tree.query(at_m[rows], k=[*range(1, number + 1)], distance_upper_bound=radius_m)
        there = np.isfinite(distance)
        weight = np.where(there, 1 / (np.where(there, distance, 0.0) ** 2 + near_m**2), 0.0)
        total = weight.sum(axis=1)
        mean = (weight * np.append(values, 0.0)[which]).sum(axis=1) / np.where(total > 0, total, 1)
        result[rows] = np.where(total > 0, mean, np.nan)
    return result


def on_grid(sensibility: Sensibility, grid: Grid) -> np.ndarray:
    """Return the values at the centres of another grid's cells, of the same CRS, shape (height, width); NaN outside."""
    cells = sensibility.grid.cells_of(grid.centres(np.arange(grid.size)))
    values = np.append(sensibility.values.ravel(), np.float32(np.nan))
    return values[cells].reshape(grid.shape)
