"""What each cell is like at each place people were seen: how often it is heard there, and how strongly.

Places are the squares of a grid within reach of true positions, so streets are learned without a street layer. The level of a cell is
a path-loss line over the distance to its antenna plus a Gaussian process; how often it is heard is counted, smoothed over space and,
where nobody was, taken from a logistic curve over the distance. Cells that a record does *not* name speak too: of those that are at
times named together with its serving cell, so that other networks and frequencies stay out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from scipy.linalg import solve_triangular

from ..errors import InputError
from ..progress import Progress, no_progress

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
#: Decay of path loss with the logarithm of distance [dB per decade] before a cell tells, and how much it may differ.
_DECAY_DB, _DECAY_SPREAD_DB = 28.0, 8.0
#: How far a record speaks for how often cells are heard around it [m]; records that the logistic curve counts for.
_HEARD_M, _CURVE_RECORDS = 40.0, 1.0
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

    @property
    def xy_m(self) -> np.ndarray:
        """Centres [m], shape (m, 2)."""
        return self.index * self.square_m[0] + self.origin_m

    @property
    def shape(self) -> tuple[int, int]:
        """Columns and rows of the rectangle around the places."""
        columns, rows = self.index.max(axis=0) + 2
        return int(columns), int(rows)

    @property
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
        antennas = _antennas(sites_m[mapped], table, places.xy_m)
        level, sureness = _levels(places, table, antennas, progress)
        heard, silent_of_row, silent = _heard(places, table, antennas)
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
        n, m = len(cell), self.silent.shape[1]
        total = np.zeros((n, m), dtype=np.float32)
        serving = np.where(cell[:, 0] >= 0, self.silent_of[cell[:, 0]], -1)
        total[serving >= 0] = self.silent[serving[serving >= 0]]
        weight, first, second = (np.zeros((n, m), dtype=np.float32) for _ in range(3))
        for slot in range(cell.shape[1]):
            code = cell[:, slot]
            new = (code >= 0) & ~(cell[:, :slot] == code[:, None]).any(axis=1)
            rows = np.flatnonzero(new & (self.row_of[code] >= 0))
            total[rows] += self.heard[self.row_of[code[rows]]]
            rows = rows[np.isfinite(rss_dbm[rows, slot])]
            maps = self.row_of[code[rows]]
            sure = self.sureness[maps].astype(np.float32)
            off = rss_dbm[rows, slot, None] - self.level_dbm[maps].astype(np.float32)
            weight[rows] += sure
            first[rows] += off * sure
            second[rows] += off * off * sure
            total[rows] += 0.5 * np.log(sure)
        device = np.float32(_DEVICE_DB**2)
        total -= 0.5 * (second - first**2 / (1 / device + weight)) + 0.5 * np.log1p(device * weight)
        return total


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


def _antennas(sites_m: np.ndarray, table: _Table, xy_m: np.ndarray) -> np.ndarray:
    """Where the antennas stand or, where unknown, the middle of what heard them, weighted by field strength; shape (n_maps, 2)."""
    dbm = np.where(np.isfinite(table.rss_dbm), table.rss_dbm, -110.0)
    strongest = np.full(table.n_maps, -np.inf)
    np.maximum.at(strongest, table.code, dbm)
    weight = 10 ** ((dbm - strongest[table.code]) / 20)
    at = xy_m[table.place[table.row]]
    total = np.maximum(np.bincount(table.code, weight, minlength=table.n_maps), 1e-9)
    middle = np.column_stack(
        [np.bincount(table.code, weight * column, minlength=table.n_maps) / total for column in at.T]
    )
    return np.where(np.isfinite(sites_m), sites_m, middle)


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
        noise = 1.0 / 30.0  # [1/dB²]: deviations from the line are correlated, so they count for little
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


def _heard(places: Places, table: _Table, antennas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    curve = _curves(places.xy_m, antennas, times, chances)
    kernel = places.blur(_HEARD_M)
    often = (places.blurred(times, kernel) + _CURVE_RECORDS * curve) / (
        places.blurred(chances, kernel) + _CURVE_RECORDS
    )
    often = np.clip(often, _RAREST, 1 - _RAREST)
    rows = np.full(n_maps, -1, dtype=np.int32)
    rows[served] = np.arange(len(served))
    return np.log(often) - np.log1p(-often), rows, (together @ np.log1p(-often)).astype(np.float32)


def _curves(xy_m: np.ndarray, antennas: np.ndarray, times: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """How often each cell is heard by distance: logistic in its logarithm, by Newton's method with a prior; shape (n_maps, m)."""
    away = np.stack([np.hypot(*(xy_m - antenna).T) for antenna in antennas]) if len(antennas) else np.empty(times.shape)
    decades = (np.log10(np.maximum(away, _NEAR_M)) - 2.5).astype(np.float32)
    prior, weight = np.array([-2.0, 3.0]), 0.25
    found = np.tile(prior, (len(times), 1))
    for _ in range(12):
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
