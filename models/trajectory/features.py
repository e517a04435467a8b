"""Numbers that say what a record heard, shared by the methods: the RSS vector, and where the cells stand that it heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from ..errors import InputError
from .measurements import MOST_CELLS, CellSites, LocalFrame, Measurements

#: What stands for the RSS of cells that were not heard [dBm]; lower where a device hears cells weaker than this.
FLOOR_DBM = -120.0
#: So much weaker than the weakest ever heard is "not heard" at least [dB].
_BELOW_WEAKEST_DB = 5.0
#: Records with truth that must have heard a cell for their middle to stand for its position.
_LEAST_RECORDS = 20
#: Cells with a known position this far around the truths [m] are known to a model though no record with truth heard them.
_MARGIN_M = 3_000.0
#: Neighbours, by RSS, whose positions are features of their own.
_NEIGHBOURS = 3
#: Most cells with a column of their own in the RSS vector: the most often heard.
MOST_COLUMNS = 2_000


def known_cells(data: Measurements, rows: np.ndarray, sites: CellSites, frame: LocalFrame) -> tuple[str, ...]:
    """Ids of the cells that a model can know: those that `rows` heard, in the order of `data`, then those with a position near them."""
    names = data.heard_in(rows)
    x, y = frame.to_xy(sites.lon, sites.lat)
    true_x, true_y = frame.to_xy(data.lon[rows], data.lat[rows])
    near = (np.abs(x - (true_x.min() + true_x.max()) / 2) <= np.ptp(true_x) / 2 + _MARGIN_M) & (
        np.abs(y - (true_y.min() + true_y.max()) / 2) <= np.ptp(true_y) / 2 + _MARGIN_M
    )
    known = set(names)
    return (*names, *(sites.ids[row] for row in np.flatnonzero(near) if sites.ids[row] not in known))


@dataclass(frozen=True)
class CellTable:
    """What a model knows of its cells.

    Parameters
    ----------
    x_m, y_m
        Where their antennas stand or, where the operator does not tell, the middle of the records with truth that heard them, shape
        (n_cells,), float32; the middle of all records for a cell heard too rarely to know.
    azimuth_deg, height_m
        Of the antenna, shape (n_cells,), float32, NaN where unknown.
    typical_dbm
        Median RSS, shape (n_cells,), float32, for cells heard without one.
    column
        Column of the RSS vector, shape (n_cells,), int32; -1 for those without.
    floor_dbm
        What stands for cells that were not heard, shape (1,), float32.
    """

    x_m: np.ndarray
    y_m: np.ndarray
    azimuth_deg: np.ndarray
    height_m: np.ndarray
    typical_dbm: np.ndarray
    column: np.ndarray
    floor_dbm: np.ndarray

    @classmethod
    def of(cls, data: Measurements, sites: CellSites, frame: LocalFrame, rows: np.ndarray) -> CellTable:
        """Learn from the records `rows`, which have a truth; `data` counts cells as the model does (`recoded`)."""
        n_cells = len(data.cells)
        cell, rss = data.cell[rows], data.rss_dbm[rows]
        x, y = frame.to_xy(data.lon[rows], data.lat[rows])
        heard = cell >= 0
        code = cell[heard]
        count = np.bincount(code, minlength=n_cells)
        cell_x, cell_y = frame.to_xy(*sites.positions_of(data.cells))
        for known, values in ((cell_x, x), (cell_y, y)):
            sums = np.bincount(code, np.broadcast_to(values[:, None], cell.shape)[heard], minlength=n_cells)
            middle = np.where(count >= _LEAST_RECORDS, sums / np.maximum(count, 1), values.mean())
            known[:] = np.where(np.isfinite(known), known, middle)
        columns = np.full(n_cells, -1, dtype=np.int32)
        often = np.sort(np.argsort(-count, kind="stable")[:MOST_COLUMNS])
        often = often[count[often] > 0]
        columns[often] = np.arange(len(often))
        typical = _medians(code, rss[heard], n_cells)
        weakest = float(np.nanmin(rss, initial=np.inf)) if np.isfinite(rss).any() else np.inf
        floor = min(FLOOR_DBM, weakest - _BELOW_WEAKEST_DB)
        row_of = {name: row for row, name in enumerate(sites.ids)}
        places = np.array([row_of.get(name, -1) for name in data.cells], dtype=int)

        def told(values: np.ndarray | None) -> np.ndarray:
            if values is None or not len(values):
                return np.full(n_cells, np.nan, dtype=np.float32)
            return np.where(places >= 0, np.asarray(values, dtype=float)[places], np.nan).astype(np.float32)

        return cls(
            cell_x.astype(np.float32),
            cell_y.astype(np.float32),
            told(sites.azimuth_deg),
            told(sites.height_m),
            typical,
            columns,
            np.array([floor], dtype=np.float32),
        )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], prefix: str = "cell_table.") -> CellTable:
        """Build from arrays named `prefix` + field.

        Raises
        ------
        InputError
            When one is missing.
        """
        names = [field.name for field in fields(cls)]
        for name in names:
            if prefix + name not in tensors:
                raise InputError(f"The model cannot be used: array '{prefix}{name}' is missing.")
        return cls(**{name: np.asarray(tensors[prefix + name]) for name in names})

    def tensors(self, prefix: str = "cell_table.") -> dict[str, np.ndarray]:
        """Arrays named `prefix` + field, for `from_tensors`."""
        return {prefix + field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def n_columns(self) -> int:
        """Length of the RSS vector."""
        return int(self.column.max(initial=-1)) + 1

    @property
    def n_features(self) -> int:
        """Number of columns of `record_features`."""
        return self.n_columns + 13 + 3 * _NEIGHBOURS


def _medians(code: np.ndarray, rss: np.ndarray, n_cells: int) -> np.ndarray:
    """Median RSS of each cell, shape (n_cells,), float32; that of all where none is known."""
    known = np.isfinite(rss)
    code, rss = code[known], rss[known]
    overall = float(np.median(rss)) if len(rss) else FLOOR_DBM / 2
    order = np.lexsort((rss, code))
    starts = np.searchsorted(code[order], np.arange(n_cells + 1))
    middle = np.minimum((starts[:-1] + starts[1:]) // 2, max(len(rss) - 1, 0))
    found = rss[order][middle] if len(rss) else np.full(n_cells, overall)
    return np.where(np.diff(starts) > 0, found, overall).astype(np.float32)


def heard_dbm(cell: np.ndarray, rss_dbm: np.ndarray, table: CellTable) -> np.ndarray:
    """RSS [dBm] of the cells heard, shape (n, 7), float32: typical where unknown, the floor where no cell stands."""
    typical = np.append(table.typical_dbm, table.floor_dbm)[cell]  # -1 looks up the last one
    return np.where((cell >= 0) & np.isfinite(rss_dbm), rss_dbm, typical).astype(np.float32)


def rss_vectors(cell: np.ndarray, rss_dbm: np.ndarray, table: CellTable) -> np.ndarray:
    """RSS [dBm] of every cell with a column, shape (n, n_columns), float32; the floor for cells not heard, the larger if heard twice.

    Parameters
    ----------
    cell, rss_dbm
        Of some records, shape (n, 7), as in `Measurements`.
    """
    n_columns = table.n_columns
    wide = np.full((len(cell), n_columns + 1), table.floor_dbm[0], dtype=np.float32)
    column = np.append(table.column, -1)[cell]
    column = np.where(column >= 0, column, n_columns)
    rss = heard_dbm(cell, rss_dbm, table)
    row = np.arange(len(cell))
    for slot in range(cell.shape[1]):
        wide[row, column[:, slot]] = np.maximum(wide[row, column[:, slot]], rss[:, slot])
    return wide[:, :n_columns]


def record_features(cell: np.ndarray, rss_dbm: np.ndarray, table: CellTable) -> np.ndarray:
    """Everything a single record says, shape (n, table.n_features), float32, all finite.

    The RSS vector; of the serving cell position (2), RSS, azimuth (sine and cosine, 0 where unknown), height; the number of cells;
    middle of the cells heard, plain (2) and weighted by power (2), and how far apart they stand (2); position and RSS of the three
    strongest neighbours.
    """
    n = len(cell)
    rss = heard_dbm(cell, rss_dbm, table)
    heard = cell >= 0
    none = not len(table.x_m)
    x, y = (np.zeros(cell.shape) if none else np.where(heard, values[cell], 0.0) for values in (table.x_m, table.y_m))
    count = heard.sum(axis=1)
    weight = np.where(heard, 10.0 ** (rss / 20.0), 0.0)  # amplitude: power alone would see the strongest only
    some = np.maximum(count, 1)
    total = np.maximum(weight.sum(axis=1), 1e-30)
    middle_x, middle_y = x.sum(axis=1) / some, y.sum(axis=1) / some
    strong_x, strong_y = (x * weight).sum(axis=1) / total, (y * weight).sum(axis=1) / total
    apart = [
        np.sqrt(np.where(heard, (values - middle[:, None]) ** 2, 0.0).sum(axis=1) / some)
        for values, middle in ((x, middle_x), (y, middle_y))
    ]
    serving = cell[:, 0]
    angle = np.zeros(n) if none else np.radians(table.azimuth_deg[serving])
    height = np.zeros(n) if none else np.nan_to_num(table.height_m[serving])
    known = heard[:, 0]
    columns = [
        np.where(known, x[:, 0], middle_x),
        np.where(known, y[:, 0], middle_y),
        rss[:, 0],
        np.where(known, np.nan_to_num(np.sin(angle)), 0.0),
        np.where(known, np.nan_to_num(np.cos(angle)), 0.0),
        np.where(known, height, 0.0),
        count,
        middle_x,
        middle_y,
        strong_x,
        strong_y,
        *apart,
    ]
    order = np.argsort(-np.where(heard[:, 1:], rss[:, 1:], -np.inf), axis=1, kind="stable")[:, :_NEIGHBOURS] + 1
    row = np.arange(n)
    for rank in range(min(_NEIGHBOURS, MOST_CELLS - 1)):
        slot = order[:, rank]
        there = heard[row, slot]
        columns += [np.where(there, x[row, slot], middle_x), np.where(there, y[row, slot], middle_y), rss[row, slot]]
    return np.column_stack([rss_vectors(cell, rss_dbm, table), *(column.astype(np.float32) for column in columns)])
