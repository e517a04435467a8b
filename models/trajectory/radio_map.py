"""What each cell is like at each place people were seen: how often it is heard there, and how strongly.

Places are the squares of a grid within reach of true positions, so streets are learned without a street layer. The level of a cell is
a path-loss line over the distance to its antenna plus a Gaussian process; how often it is heard is counted, smoothed over space and,
where nobody was, taken from a logistic curve over the distance. Cells that a record does *not* name speak too: of those that are at
times named together with its serving cell, so that other networks and frequencies stay out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from scipy.linalg import solve_triangular
from scipy.sparse import csr_matrix

from ..errors import InputError
from ..progress import Progress, no_progress, span

#: Width of a square [m]; wider where there would be too many.
SQUARE_M = 30.0
#: Squares this near to a true position are places [m].
REACH_M = 60.0
#: Most places, and most squares of the rectangle around them.
MOST_PLACES, MOST_SQUARES = 4_000, 20_000
#: Most cells with a map: the most often heard; and records that a cell needs.
MOST_CELLS_MAPPED, LEAST_RECORDS = 2_000, 3
#: Most squares a cell's level is learned from.
_MOST_OBSERVED = 300
#: Nearer to an antenna than this, distance says nothing [m].
_NEAR_M = 40.0
#: Standard deviation [dB] and length [m] of what a cell's level deviates from its path loss: from street to street, and by quarter.
_STREET_DB, _STREET_M, _QUARTER_DB, _QUARTER_M = 5.0, 50.0, 6.0, 300.0
#: Standard deviation of the mean of one pass of a square, and of one reading around the level [dB].
_PASS_DB, _READING_DB = 5.0, 5.0
#: Standard deviation of what a device reads more or less than others [dB].
_DEVICE_DB = 4.0
#: What levels are counted from in sums of squares [dBm].
_MIDDLE_DBM = -80.0
#: Decay of path loss with the logarithm of distance [dB per decade] before a cell tells, and how much it may differ.
_DECAY_DB, _DECAY_SPREAD_DB = 28.0, 8.0
#: Variance of a square's level around the path loss line [dB²], and how many squares are independent at most.
_LINE_DB2, _INDEPENDENT = 60.0, 30
#: Where antennas are looked for: this far around the places, on a grid of this step [m] and so many positions at most.
_SEARCH_M, _SEARCH_STEP_M, _MOST_SITES = 1_000.0, 80.0, 2_500
#: Squares an antenna is looked for with; how much likelier a stated position is than any other, as a logarithm.
_MOST_FITTED, _STATED = 80, 3.0
#: How far a record speaks for how often cells are heard around it [m]; records that the logistic curve counts for.
_HEARD_M, _CURVE_RECORDS = 40.0, 1.0
#: Turns of Newton's method.
_TURNS = 12
#: Records of one trajectory in one square count at most this much.
_MOST_PER_PASS = 3.0
#: Nothing is rarer, and nothing surer, than this.
_RAREST = 0.004


@dataclass(frozen=True)
class Places:
    """Squares of a grid.

    Parameters
    ----------
    origin_m
        Centre of the square in row 0 and column 0, x and y, shape (2,), float64.
    square_m
        Width, shape (1,), float64.
    index
        Column and row of each place, shape (m, 2), int32; sorted.
    """

    origin_m: np.ndarray
    square_m: np.ndarray
    index: np.ndarray

    @classmethod
    def around(cls, xy_m: np.ndarray) -> Places:
        """Return the squares within reach of positions of shape (n, 2) [m]."""
        square_m = SQUARE_M
        while True:
            origin = xy_m.min(axis=0) - REACH_M - square_m
            shape = np.ceil((xy_m.max(axis=0) - origin + REACH_M) / square_m) + 2
            if shape.prod() <= MOST_SQUARES:
                seen = np.unique(np.rint((xy_m - origin) / square_m).astype(np.int64), axis=0)
                reach = int(REACH_M // square_m)
                steps = np.array([(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1)])
                steps = steps[np.hypot(*steps.T) * square_m <= REACH_M]
                index = np.unique((seen[:, None] + steps).reshape(-1, 2), axis=0)
                if len(index) <= MOST_PLACES:
                    return cls(origin, np.array([square_m]), index.astype(np.int32))
            square_m *= 1.25

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def xy_m(self) -> np.ndarray:
        """Centres [m], shape (m, 2)."""
        return self.index * self.square_m[0] + self.origin_m

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Columns and rows of the rectangle around the places."""
        columns, rows = self.index.max(axis=0) + 2
        return int(columns), int(rows)

    @cached_property
    def flat(self) -> np.ndarray:
        """Where the places are in the rectangle laid out column by column, shape (m,)."""
        return self.index[:, 0].astype(np.int64) * self.shape[1] + self.index[:, 1]

    def nearest(self, xy_m: np.ndarray) -> np.ndarray:
        """Place of positions of shape (n, 2) that lie in one, shape (n,)."""
        columns, rows = self.shape
        square = np.rint((xy_m - self.origin_m) / self.square_m[0]).astype(np.int64)
        square = np.clip(square, 0, [columns - 1, rows - 1])
        return np.minimum(np.searchsorted(self.flat, square[:, 0] * rows + square[:, 1]), len(self) - 1)

    def blur(self, sigma_m: float) -> tuple[np.ndarray, np.ndarray]:
        """Gaussian weights between columns and between rows, symmetric, shape (columns, columns) and (rows, rows), float32."""
        return tuple(
            np.exp(-0.5 * ((np.arange(n)[:, None] - np.arange(n)) * (self.square_m[0] / sigma_m)) ** 2).astype(
                np.float32
            )
            for n in self.shape
        )

    def blurred(self, values: np.ndarray, kernel: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Weighted sums over places of values of shape (n, m), float32."""
        columns, rows = self.shape
        flat = self.flat
        grid = np.zeros((len(values), columns * rows), dtype=np.float32)
        grid[:, flat] = values
        grid = (grid.reshape(-1, rows) @ kernel[1]).reshape(-1, columns, rows)
        return np.matmul(kernel[0], grid).reshape(len(values), -1)[:, flat]


@dataclass(frozen=True)
class RadioMap:
    """What cells are like at places.

    Parameters
    ----------
    row_of
        Row of each of the model's cells in the maps, shape (n_cells,), int32; -1 for cells heard too rarely.
    level_dbm
        Expected RSS, shape (n_maps, m), float16.
    sureness
        1 / variance of one reading around it [1/dB²], shape (n_maps, m), float16.
    heard
        log(h / (1 - h)) of how often it is heard, shape (n_maps, m), float16.
    silent_of
        Row in `silent` of each of the model's cells, shape (n_cells,), int32; -1 for cells that never served.
    silent
        Σ log(1 - h) over the cells that are named together with a serving cell, shape (n_serving, m), float32.
    """

    row_of: np.ndarray
    level_dbm: np.ndarray
    sureness: np.ndarray
    heard: np.ndarray
    silent_of: np.ndarray
    silent: np.ndarray

    @classmethod
    def learn(
        cls,
        places: Places,
        xy_m: np.ndarray,
        trajectory: np.ndarray,
        cell: np.ndarray,
        rss_dbm: np.ndarray,
        sites_m: np.ndarray,
        progress: Progress = no_progress,
    ) -> RadioMap:
        """Learn from records with truth.

        Parameters
        ----------
        xy_m, trajectory
            True positions [m], shape (n, 2), and codes of trajectories, shape (n,).
        cell, rss_dbm
            Shape (n, 7), as in `Measurements`.
        sites_m
            Positions of antennas [m], shape (n_cells, 2), NaN where unknown.
        """
        place = places.nearest(xy_m)
        slot_row, slot = np.nonzero(cell >= 0)
        count = np.bincount(cell[slot_row, slot], minlength=len(sites_m))
        often = np.argsort(-count, kind="stable")[:MOST_CELLS_MAPPED]
        mapped = np.sort(often[count[often] >= min(LEAST_RECORDS, max(1, count.max(initial=0)))])
        row_of = np.full(len(sites_m), -1, dtype=np.int32)
        row_of[mapped] = np.arange(len(mapped))
        table = _Table(place, trajectory, np.where(cell >= 0, row_of[cell], -1), rss_dbm, len(mapped))
        antennas = _antennas(sites_m[mapped], table, places.xy_m, span(progress, 0.0, 0.3))
        level, sureness = _levels(places, table, antennas, span(progress, 0.3, 0.8))
        heard, silent_of_row, silent = _heard(places, table, antennas, span(progress, 0.8, 1.0))
        silent_of = np.full(len(sites_m), -1, dtype=np.int32)
        silent_of[mapped] = silent_of_row
        half = np.float16
        return cls(row_of, level.astype(half), sureness.astype(half), heard.astype(half), silent_of, silent)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], prefix: str = "radio.") -> RadioMap:
        """Build from arrays named `prefix` + field.

        Raises
        ------
        InputError
            When one is missing.
        """
        return cls(**taken(tensors, prefix, [field.name for field in fields(cls)]))

    def tensors(self, prefix: str = "radio.") -> dict[str, np.ndarray]:
        """Arrays named `prefix` + field, for `from_tensors`."""
        return {prefix + field.name: getattr(self, field.name) for field in fields(self)}

    def likelihood(self, cell: np.ndarray, rss_dbm: np.ndarray) -> np.ndarray:
        """Logarithm of how likely what records heard is at each place, up to a constant of the record.

        What a device reads more or less than others is integrated out, a Gaussian of `_DEVICE_DB`.

        Parameters
        ----------
        cell, rss_dbm
            Shape (n, 7), as in `Measurements`.

        Returns
        -------
        numpy.ndarray
            Shape (n, m), float32.
        """
        level, sure, constant, heard = self._tables
        n, slots = cell.shape
        repeated = np.zeros(cell.shape, dtype=bool)
        for slot in range(1, slots):
            repeated[:, slot] = (cell[:, :slot] == cell[:, slot, None]).any(axis=1)
        maps = np.where((cell >= 0) & ~repeated, self.row_of[cell], -1)
        named = maps >= 0
        reading = rss_dbm - np.float32(_MIDDLE_DBM)
        read = named & np.isfinite(reading)

        def chosen(which: np.ndarray, values: np.ndarray) -> csr_matrix:
            ends = np.concatenate([[0], np.cumsum(which.sum(axis=1))])
            return csr_matrix((values[which].astype(np.float32), maps[which], ends), shape=(n, len(level)))

        ones = np.ones(cell.shape, dtype=np.float32)
        once, times = chosen(read, ones), chosen(read, reading)
        total = chosen(named, ones) @ heard
        total += once @ constant
        total += times @ level
        total -= chosen(read, reading**2 / 2) @ sure
        serving = np.where(cell[:, 0] >= 0, self.silent_of[cell[:, 0]], -1)
        total[serving >= 0] += self.silent[serving[serving >= 0]]
        weight = once @ sure
        off = times @ sure
        off -= once @ level
        device = np.float32(_DEVICE_DB**2)
        off *= off
        weight *= device
        weight += 1  # Σ s² / (1/d + Σ w) = d Σ s² / (1 + d Σ w)
        off *= device / 2
        off /= weight
        total += off
        total -= np.log(weight) / 2
        return total

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Level · sureness, sureness, what the logarithm of a Gaussian has without the reading, and log-odds, float32.

        Levels count from `_MIDDLE_DBM`, so that float32 holds their squares.
        """
        level, sure = self.level_dbm.astype(np.float32) - np.float32(_MIDDLE_DBM), self.sureness.astype(np.float32)
        return level * sure, sure, (np.log(sure) - sure * level**2) / 2, self.heard.astype(np.float32)


def taken(tensors: Mapping[str, np.ndarray], prefix: str, names: list[str]) -> dict[str, np.ndarray]:
    """Arrays by name without prefix.

    Raises
    ------
    InputError
        When one is missing.
    """
    for name in names:
        if prefix + name not in tensors:
            raise InputError(f"The model cannot be used: array '{prefix}{name}' is missing.")
    return {name: np.asarray(tensors[prefix + name]) for name in names}


class _Table:
    """Records by place: what the maps are counted from. Cells are rows of the maps, -1 for none."""

    def __init__(
        self, place: np.ndarray, trajectory: np.ndarray, cell: np.ndarray, rss_dbm: np.ndarray, n_maps: int
    ) -> None:
        self.place, self.cell, self.n_maps = place, cell, n_maps
        self.row, slot = np.nonzero(cell >= 0)
        self.code = cell[self.row, slot]
        self.rss_dbm = rss_dbm[self.row, slot].astype(float)
        self.trajectory = np.unique(trajectory, return_inverse=True)[1]
        _, inverse, count = np.unique(
            self.trajectory * (place.max() + 1) + place, return_inverse=True, return_counts=True
        )
        self.weight = (np.minimum(count, _MOST_PER_PASS) / count)[inverse]

    def passes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Cell, place, number of trajectories, and mean RSS over these [dBm] freed of what each device reads more than others."""
        read = np.isfinite(self.rss_dbm)
        code, place, trajectory = self.code[read], self.place[self.row[read]], self.trajectory[self.row[read]]
        n_places, n_trajectories = int(self.place.max()) + 1, int(self.trajectory.max()) + 1
        key = (code.astype(np.int64) * n_places + place) * n_trajectories + trajectory
        unique, inverse = np.unique(key, return_inverse=True)
        mean = np.bincount(inverse, self.rss_dbm[read]) / np.maximum(np.bincount(inverse), 1)
        square, square_of = np.unique(unique // n_trajectories, return_inverse=True)
        who = unique % n_trajectories
        passes = np.bincount(square_of, minlength=len(square))
        shared = passes[square_of] > 1
        more = np.zeros(n_trajectories)
        level = np.zeros(len(square))
        for _ in range(3):
            level = np.bincount(square_of, mean - more[who], minlength=len(square)) / np.maximum(passes, 1)
            sums = np.bincount(who[shared], (mean - level[square_of])[shared], minlength=n_trajectories)
            more = sums / (np.bincount(who[shared], minlength=n_trajectories) + 10.0)
        return square // n_places, square % n_places, passes, level


def _antennas(sites_m: np.ndarray, table: _Table, xy_m: np.ndarray, progress: Progress) -> np.ndarray:
    """Where the antennas are taken to stand, shape (n_maps, 2): where path loss fits best, which a stated position must only nearly do.

    Operators' tables are at times wrong by a kilometre, and some people have none.
    """
    code, place, _, mean = table.passes()
    low, high = xy_m.min(axis=0) - _SEARCH_M, xy_m.max(axis=0) + _SEARCH_M
    step = max(_SEARCH_STEP_M, float(np.sqrt(np.prod(high - low) / _MOST_SITES)))
    columns, rows = (np.arange(start, stop, step) for start, stop in zip(low, high))
    grid = np.stack(np.meshgrid(columns, rows, indexing="ij"), axis=-1).reshape(-1, 2)
    rng = np.random.default_rng(1)
    found = np.where(np.isfinite(sites_m), sites_m, xy_m.mean(axis=0))
    bounds = np.searchsorted(code, np.arange(table.n_maps + 1))
    for row in range(table.n_maps):
        progress(row / table.n_maps)
        some = np.arange(bounds[row], bounds[row + 1])
        if not len(some):
            continue
        if len(some) > _MOST_FITTED:
            some = np.sort(rng.choice(some, _MOST_FITTED, replace=False))
        stated = bool(np.isfinite(sites_m[row, 0]))
        sites = np.vstack([sites_m[row], grid]) if stated else grid
        at, level = xy_m[place[some]], mean[some] - mean[some].mean()
        away = np.hypot(sites[:, None, 0] - at[:, 0], sites[:, None, 1] - at[:, 1])
        decades = np.log10(np.maximum(away, _NEAR_M))
        decades -= decades.mean(axis=1, keepdims=True)
        weight = min(len(some), _INDEPENDENT) / len(some) / _LINE_DB2
        prior = 1 / _DECAY_SPREAD_DB**2
        decay = (prior * _DECAY_DB - weight * (decades @ level)) / (prior + weight * (decades**2).sum(axis=1))
        misfit = weight * ((level + decay[:, None] * decades) ** 2).sum(axis=1) + prior * (decay - _DECAY_DB) ** 2
        if stated:
            misfit[0] -= 2 * _STATED
        found[row] = sites[np.argmin(misfit)]
    return found


def _levels(places: Places, table: _Table, antennas: np.ndarray, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """`level_dbm` and `sureness`: path loss by regularised least squares, and the Gaussian process of what it leaves (kriging)."""
    xy_m = places.xy_m
    code, place, passes, mean = table.passes()
    overall = float(mean.mean()) if len(mean) else -90.0
    level = np.full((table.n_maps, len(places)), overall, dtype=np.float32)
    variance = np.full((table.n_maps, len(places)), _STREET_DB**2 + 2 * _QUARTER_DB**2, dtype=np.float32)
    rng = np.random.default_rng(0)
    bounds = np.searchsorted(code, np.arange(table.n_maps + 1))
    for row in range(table.n_maps):
        progress(row / table.n_maps)
        rows = np.arange(bounds[row], bounds[row + 1])
        if not len(rows):
            continue
        if len(rows) > _MOST_OBSERVED:
            rows = np.sort(rng.choice(rows, _MOST_OBSERVED, replace=False))
        at = place[rows]
        decades = np.log10(np.maximum(np.hypot(*(xy_m - antennas[row]).T), _NEAR_M))
        design = np.column_stack([np.ones(len(rows)), -decades[at]])
        noise = 1 / _LINE_DB2
        ridge = np.diag([1e-6, 1 / _DECAY_SPREAD_DB**2])
        line = np.linalg.solve(
            design.T @ design * noise + ridge, design.T @ mean[rows] * noise + [0.0, ridge[1, 1] * _DECAY_DB]
        )
        covariance = _covariance(xy_m[at], xy_m[at])
        covariance[np.diag_indices(len(rows))] += _PASS_DB**2 / passes[rows]
        factor = np.linalg.cholesky(covariance)
        across = solve_triangular(factor, _covariance(xy_m[at], xy_m), lower=True, check_finite=False)
        left = solve_triangular(factor, mean[rows] - design @ line, lower=True, check_finite=False)
        level[row] = line[0] - line[1] * decades + left @ across
        variance[row] = np.maximum(_STREET_DB**2 + _QUARTER_DB**2 - (across**2).sum(axis=0), 0.0)
    return level, 1 / (variance + np.float32(_READING_DB**2))


def _covariance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    away = np.hypot(one[:, None, 0] - other[:, 0], one[:, None, 1] - other[:, 1]).astype(np.float32)
    return _STREET_DB**2 * np.exp(-away / _STREET_M) + _QUARTER_DB**2 * np.exp(-away / _QUARTER_M)


def _heard(
    places: Places, table: _Table, antennas: np.ndarray, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`heard`, the row in `silent` of each map, and `silent`."""
    n_maps, m = table.n_maps, len(places)
    serving = table.cell[:, 0]
    known = serving >= 0
    served, serving_code = np.unique(serving[known], return_inverse=True)
    together = np.zeros((len(served), n_maps), dtype=np.float32)
    serving_of = np.full(len(serving), -1)
    serving_of[known] = serving_code
    both = serving_of[table.row] >= 0
    together[serving_of[table.row[both]], table.code[both]] = 1
    together[np.arange(len(served)), served] = 1
    times = np.zeros((n_maps, m), dtype=np.float32)
    np.add.at(times, (table.code, table.place[table.row]), table.weight[table.row])
    service = np.zeros((len(served), m), dtype=np.float32)
    np.add.at(service, (serving_code, table.place[known]), table.weight[known])
    chances = together.T @ service
    times = np.minimum(times, np.maximum(chances, times))
    chances = np.maximum(chances, times)
    curve = _curves(places.xy_m, antennas, times, chances, progress)
    kernel = places.blur(_HEARD_M)
    often = (places.blurred(times, kernel) + _CURVE_RECORDS * curve) / (
        places.blurred(chances, kernel) + _CURVE_RECORDS
    )
    often = np.clip(often, _RAREST, 1 - _RAREST)
    rows = np.full(n_maps, -1, dtype=np.int32)
    rows[served] = np.arange(len(served))
    return np.log(often) - np.log1p(-often), rows, (together @ np.log1p(-often)).astype(np.float32)


def _curves(
    xy_m: np.ndarray, antennas: np.ndarray, times: np.ndarray, chances: np.ndarray, progress: Progress
) -> np.ndarray:
    """How often each cell is heard by distance: logistic in its logarithm, by Newton's method with a prior; shape (n_maps, m)."""
    away = np.stack([np.hypot(*(xy_m - antenna).T) for antenna in antennas]) if len(antennas) else np.empty(times.shape)
    decades = (np.log10(np.maximum(away, _NEAR_M)) - 2.5).astype(np.float32)
    prior, weight = np.array([-2.0, 3.0]), 0.25
    found = np.tile(prior, (len(times), 1))
    for turn in range(_TURNS):
        progress(turn / _TURNS)
        share = _logistic(found[:, :1] - found[:, 1:] * decades)
        left = times - chances * share
        push_0 = left.sum(axis=1) - weight * (found[:, 0] - prior[0])
        push_1 = -(left * decades).sum(axis=1) - weight * (found[:, 1] - prior[1])
        bend = chances * share * (1 - share)
        a, b = bend.sum(axis=1) + weight, -(bend * decades).sum(axis=1)
        c = (bend * decades**2).sum(axis=1) + weight
        det = a * c - b * b
        found += np.clip(np.column_stack([c * push_0 - b * push_1, a * push_1 - b * push_0]) / det[:, None], -2, 2)
    return _logistic(found[:, :1] - found[:, 1:] * decades)


def _logistic(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))
