"""Measurement reports (MRs) in their one normal form, as arrays.

A record says which cells a device heard how strongly at one time, the serving cell first. Records stand sorted by trajectory and time;
a trajectory is what is localised as one path. Readers of the formats people have are in `readers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import InputError

#: Most cells one record holds.
MOST_CELLS = 7
#: Semi-axes of the WGS84 ellipsoid [m].
_A_M, _B_M = 6_378_137.0, 6_356_752.314245
_E2 = 1 - (_B_M / _A_M) ** 2


def metres_per_degree(lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Metres in a degree of longitude and of latitude at latitudes [°] on the WGS84 ellipsoid, of their shape."""
    root = np.sqrt(1 - _E2 * np.sin(np.radians(lat)) ** 2)
    east = np.radians(1.0) * _A_M / root * np.cos(np.radians(lat))
    north = np.radians(1.0) * _A_M * (1 - _E2) / root**3
    return east, north


@dataclass(frozen=True)
class LocalFrame:
    """Metres east and north of a point, on the plane that touches the WGS84 ellipsoid there; true to 1e-3 within 50 km.

    Parameters
    ----------
    lon, lat
        The origin [°].
    """

    lon: float
    lat: float

    @classmethod
    def around(cls, lon: np.ndarray, lat: np.ndarray) -> LocalFrame:
        """Return the frame at the median of some positions (n,) [°]; those not finite are left out.

        Raises
        ------
        InputError
            When there is none, or they span more than 4° of latitude.
        """
        known = np.isfinite(lon) & np.isfinite(lat)
        if not known.any():
            raise InputError("No record has a known position, and no cell either; nothing says where on earth this is.")
        east = lon[known]
        if np.ptp(east) > 180:  # on both sides of the antimeridian
            east = east % 360
        middle = float(np.median(east))
        return cls(middle - 360 if middle > 180 else middle, float(np.median(lat[known])))

    @property
    def metres_per_degree(self) -> tuple[float, float]:
        """Metres in a degree of longitude and of latitude at the origin."""
        east, north = metres_per_degree(np.array(self.lat))
        return float(east), float(north)

    def to_xy(self, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Metres east and north of positions [°]; NaN stays NaN."""
        east, north = self.metres_per_degree
        away = (np.asarray(lon, dtype=float) - self.lon + 180) % 360 - 180
        return away * east, (np.asarray(lat, dtype=float) - self.lat) * north

    def to_lonlat(self, x_m: np.ndarray, y_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude [°] of metres east and north."""
        east, north = self.metres_per_degree
        lon = self.lon + np.asarray(x_m, dtype=float) / east
        return (lon + 180) % 360 - 180, self.lat + np.asarray(y_m, dtype=float) / north


@dataclass(frozen=True)
class CellSites:
    """What is known of the cells: where their antennas stand, and more where the operator tells.

    Parameters
    ----------
    ids
        Cell ids, as the records name them.
    lon, lat
        Position [°], shape (n,), NaN where unknown.
    azimuth_deg, height_m, power_dbm
        Of the antenna, shape (n,) with NaN where unknown, or None.
    """

    ids: tuple[str, ...]
    lon: np.ndarray
    lat: np.ndarray
    azimuth_deg: np.ndarray | None = None
    height_m: np.ndarray | None = None
    power_dbm: np.ndarray | None = None

    @classmethod
    def none(cls) -> CellSites:
        """No cell is known."""
        return cls((), np.empty(0), np.empty(0))

    def positions_of(self, cells: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude [°] of `cells`, shape (n_cells,), NaN where unknown."""
        row_of = {name: row for row, name in enumerate(self.ids)}
        rows = np.array([row_of.get(name, -1) for name in cells], dtype=int)
        lon, lat = np.full(len(cells), np.nan), np.full(len(cells), np.nan)
        lon[rows >= 0], lat[rows >= 0] = self.lon[rows[rows >= 0]], self.lat[rows[rows >= 0]]
        return lon, lat


@dataclass(frozen=True)
class Measurements:
    """Measurement records, sorted by trajectory and time. Build it with `measurements`, which sorts and checks.

    Parameters
    ----------
    devices, device
        Names of the devices, and which one made a record, shape (n,), int32.
    trajectories, trajectory
        Names of the trajectories, and which one a record belongs to, shape (n,), int32; equal ones stand together.
    time_s
        Seconds since 1970-01-01 UTC, shape (n,), ascending within a trajectory.
    cells, cell
        Ids of all cells, and which ones a record heard, shape (n, 7), int32, -1 for none; column 0 is the serving cell.
    rss_dbm
        Received signal strength [dBm], shape (n, 7), float32, NaN where unknown.
    signals
        Further features of each cell heard by name, e.g. "rsrq_db", shape (n, 7), float32, NaN where unknown.
    lon, lat
        True position [°], shape (n,), NaN where unknown.
    row
        Where a record came from (feature id or row number), shape (n,), int64.
    """

    devices: tuple[str, ...]
    device: np.ndarray
    trajectories: tuple[str, ...]
    trajectory: np.ndarray
    time_s: np.ndarray
    cells: tuple[str, ...]
    cell: np.ndarray
    rss_dbm: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    row: np.ndarray
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def has_truth(self) -> np.ndarray:
        """Whether a record's true position is known, shape (n,)."""
        return np.isfinite(self.lon) & np.isfinite(self.lat)

    @property
    def n_heard(self) -> np.ndarray:
        """Number of cells in each record, shape (n,)."""
        return (self.cell >= 0).sum(axis=1)

    def heard_in(self, rows: np.ndarray | slice) -> tuple[str, ...]:
        """Ids of the cells that some records heard, in the order of `cells`."""
        codes = np.unique(self.cell[rows])
        return tuple(self.cells[code] for code in codes[codes >= 0])

    @property
    def starts(self) -> np.ndarray:
        """First row of each trajectory and the number of rows at the end, shape (n_trajectories present + 1,)."""
        if not len(self):
            return np.zeros(1, dtype=np.int64)
        changes = np.flatnonzero(np.diff(self.trajectory)) + 1
        return np.concatenate([[0], changes, [len(self)]]).astype(np.int64)

    def take(self, rows: np.ndarray | slice) -> Measurements:
        """Return some records, by a mask, ascending indices or a slice; names of devices, trajectories and cells stay."""
        return replace(
            self,
            device=self.device[rows],
            trajectory=self.trajectory[rows],
            time_s=self.time_s[rows],
            cell=self.cell[rows],
            rss_dbm=self.rss_dbm[rows],
            lon=self.lon[rows],
            lat=self.lat[rows],
            row=self.row[rows],
            signals={name: values[rows] for name, values in self.signals.items()},
        )

    def without_truth(self, rows: np.ndarray) -> Measurements:
        """Return the same records with the true positions of `rows` (a mask) hidden."""
        return replace(self, lon=np.where(rows, np.nan, self.lon), lat=np.where(rows, np.nan, self.lat))

    def recoded(self, cells: tuple[str, ...]) -> Measurements:
        """Return the same records in terms of a model's `cells`; a cell that is not among them becomes -1 and loses its signals."""
        if cells == self.cells:
            return self
        code_of = {name: code for code, name in enumerate(cells)}
        codes = np.array([code_of.get(name, -1) for name in self.cells] + [-1], dtype=np.int32)
        cell = codes[self.cell]  # -1 looks up the last one
        known = cell >= 0
        return replace(
            self,
            cells=cells,
            cell=cell,
            rss_dbm=np.where(known, self.rss_dbm, np.float32(np.nan)),
            signals={name: np.where(known, values, np.float32(np.nan)) for name, values in self.signals.items()},
        )


def measurements(
    device: np.ndarray,
    time_s: np.ndarray,
    cell: np.ndarray,
    rss_dbm: np.ndarray,
    *,
    trajectory: np.ndarray | None = None,
    lon: np.ndarray | None = None,
    lat: np.ndarray | None = None,
    row: np.ndarray | None = None,
    signals: Mapping[str, np.ndarray] | None = None,
    max_gap_s: float = 600.0,
) -> Measurements:
    """Build measurements from columns in any order.

    Parameters
    ----------
    device
        Names, shape (n,), of strings or numbers.
    time_s
        Seconds since 1970-01-01 UTC, shape (n,).
    cell
        Cell ids as strings, shape (n, k ≤ 7), "" for none; column 0 is the serving cell.
    rss_dbm
        Shape (n, k), NaN where unknown.
    trajectory
        Names, shape (n,); without them a device's records are one trajectory until a gap longer than `max_gap_s` [s].
    lon, lat, row, signals
        As in `Measurements`.

    Raises
    ------
    InputError
        When shapes differ or a time is not finite.
    """
    n = len(time_s)
    time_s = np.asarray(time_s, dtype=float)
    cell = np.asarray(cell)
    if (
        cell.ndim != 2
        or cell.shape[1] > MOST_CELLS
        or len(cell) != n
        or rss_dbm.shape != cell.shape
        or len(device) != n
    ):
        raise InputError(
            f"Measurements need (n, up to {MOST_CELLS}) cells and RSS and n times and devices, but have {cell.shape}, "
            f"{rss_dbm.shape}, {n} and {len(device)}."
        )
    if not np.isfinite(time_s).all():
        raise InputError(f"Record {int(np.flatnonzero(~np.isfinite(time_s))[0])} has no time.")
    devices, device_code = np.unique(np.asarray(device).astype(str), return_inverse=True)
    names, codes = np.unique(cell.astype(str), return_inverse=True)
    codes = codes.reshape(cell.shape)
    if len(names) and names[0] == "":
        names, codes = names[1:], codes - 1
    given = None
    if trajectory is not None:
        texts, trajectory_code = np.unique(np.asarray(trajectory).astype(str), return_inverse=True)
        given = texts.tolist(), trajectory_code
    return measurements_of_codes(
        (devices.tolist(), device_code),
        time_s,
        (names.tolist(), codes),
        rss_dbm,
        trajectory=given,
        lon=lon,
        lat=lat,
        row=row,
        signals=signals,
        max_gap_s=max_gap_s,
    )


def measurements_of_codes(
    device: tuple[Sequence[str], np.ndarray],
    time_s: np.ndarray,
    cell: tuple[Sequence[str], np.ndarray],
    rss_dbm: np.ndarray,
    *,
    trajectory: tuple[Sequence[str], np.ndarray] | None = None,
    lon: np.ndarray | None = None,
    lat: np.ndarray | None = None,
    row: np.ndarray | None = None,
    signals: Mapping[str, np.ndarray] | None = None,
    max_gap_s: float = 600.0,
) -> Measurements:
    """Build measurements as `measurements` does, from names that are codes already: what millions of rows need.

    Parameters
    ----------
    device, cell, trajectory
        Different names, and which of them each row has: shape (n,), for cells (n, k ≤ 7) with -1 for none.
    time_s
        Finite.
    """
    n = len(time_s)
    devices, device_code = _in_order(*device)
    cells, cell_code = _in_order(*cell)
    if trajectory is None:
        trajectories, code = _by_gaps(np.array(devices, dtype=str), device_code, time_s, max_gap_s)
    else:
        trajectories, code = _in_order(*trajectory)
    order = np.lexsort((np.arange(n), time_s, code))
    wide = np.full((n, MOST_CELLS), -1, dtype=np.int32)
    wide[:, : cell_code.shape[1]] = cell_code
    nan = np.full(n, np.nan)
    return Measurements(
        devices,
        device_code[order].astype(np.int32),
        trajectories,
        code[order].astype(np.int32),
        np.asarray(time_s, dtype=float)[order],
        cells,
        wide[order],
        _wide(rss_dbm)[order],
        np.asarray(nan if lon is None else lon, dtype=float)[order],
        np.asarray(nan if lat is None else lat, dtype=float)[order],
        np.asarray(np.arange(n) if row is None else row, dtype=np.int64)[order],
        {name: _wide(values)[order] for name, values in (signals or {}).items()},
    )


def _in_order(names: Sequence[str], codes: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The names that occur, sorted, and their codes; -1 stays -1."""
    occur = np.zeros(len(names) + 1, dtype=bool)
    occur[codes] = True  # -1 is the last one
    present = sorted(np.flatnonzero(occur[:-1]).tolist(), key=names.__getitem__)
    new = np.full(len(names) + 1, -1, dtype=np.int64)
    new[present] = np.arange(len(present))
    return tuple(names[one] for one in present), new[codes]


def _wide(values: np.ndarray) -> np.ndarray:
    wide = np.full((len(values), MOST_CELLS), np.nan, dtype=np.float32)
    wide[:, : values.shape[1]] = values
    return wide


def _by_gaps(
    devices: np.ndarray, device: np.ndarray, time_s: np.ndarray, max_gap_s: float
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and codes of trajectories: a device's records until a long gap."""
    order = np.lexsort((time_s, device))
    new_device = np.diff(device[order], prepend=-1) != 0
    new = new_device | (np.diff(time_s[order], prepend=-np.inf) > max_gap_s)
    code_sorted = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    first_of_device = (
        code_sorted[np.maximum.accumulate(np.where(new_device, np.arange(len(order)), 0))[first]]
        if len(order)
        else first
    )
    count = np.bincount(device[order][first], minlength=len(devices))
    trajectories = tuple(
        str(devices[device[order][row]]) + (f" #{part - start + 1}" if count[device[order][row]] > 1 else "")
        for part, (row, start) in enumerate(zip(first, first_of_device))
    )
    code = np.empty(len(order), dtype=np.int64)
    code[order] = code_sorted
    return trajectories, code
