"""Tables of measurement reports (MRs) become `Measurements`: part by part, as columns, with every row accounted for.

What a row goes through:

1. It needs a device (where the table has such a column), a time, a cell, and a truth that lies on the earth if it has one; else it is
   rejected with the reason.
2. Cells without an id, and a cell's second appearance in one record, are left out; the others move up. A neighbour whose RSS no phone
   measures is left out too. A serving cell with such an RSS stays, without it, as long as another cell has one; else the row is rejected.
3. Where a row is one cell heard, rows of one device at one time become one record: the serving cell first, the others by RSS.
4. A record that equals another one of its device and time in everything is a copy, and rejected.

Nothing is kept per row but numbers: about 100 bytes a record and 28 for each further signal (four times as much while sorting), so ten
million records fit into 8 GB. Names are kept once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timezone, tzinfo
from typing import Callable

import numpy as np

from ..errors import InputError
from . import dialects
from .measurements import MOST_CELLS, CellSites, Measurements, measurements_of_codes
from .normal_form import RSS_RANGE_DBM
from .presets import WITH_ZERO, Layout

#: Why a row is rejected, the first that holds.
NO_DEVICE, NO_TIME, ODD_TIME, NO_CELL, ODD_RSS, ODD_TRUTH, COPY, CELL_TWICE = range(8)
REASONS = (
    "no device",
    "no time",
    "time that cannot be read",
    "no usable cell",
    "RSS that no phone measures",
    "truth off the earth",
    "copy of another record",
    "the cell twice in one record",
)
#: A rejected value is told up to this length [bytes].
_VALUE_BYTES = 48
#: Before this a time is no date of a measurement but a count from the start of something [s since 1970].
_FIRST_DATE_S = 1e8
_DETAILS = ("azimuth_deg", "downtilt_deg", "height_m", "power_dbm")


@dataclass(frozen=True)
class Rejected:
    """Rows that became no record: their numbers (int64), the reasons (indices of `REASONS`), and the values that were wrong, shape (n,)."""

    row: np.ndarray
    reason: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def counts(self) -> dict[str, int]:
        """Number of rows by reason, those that occur."""
        return {
            text: int(count) for text, count in zip(REASONS, np.bincount(self.reason, minlength=len(REASONS))) if count
        }

    def value_of(self, index: int) -> str:
        """What was wrong, as text."""
        return bytes(self.value[index]).decode("utf-8", "ignore")


@dataclass(frozen=True)
class Imported:
    """What became of a table.

    Parameters
    ----------
    notes
        How often something was mended or left out without rejecting a row, by what it was.
    sites
        The cells whose positions the table tells: of each the one it has most often.
    downtilt_deg
        Of `sites`, shape (n,), NaN where unknown.
    """

    records: Measurements
    rejected: Rejected
    rows_read: int
    notes: dict[str, int]
    sites: CellSites
    downtilt_deg: np.ndarray


@dataclass
class _Parts:
    """Columns that grow part by part."""

    columns: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, values: Mapping[str, np.ndarray]) -> None:
        for name, column in values.items():
            self.columns.setdefault(name, []).append(column)

    def take(self) -> dict[str, np.ndarray]:
        """All of them as one, and forget the parts."""
        return {name: np.concatenate(self.columns.pop(name)) for name in list(self.columns)}


class NothingUsableError(InputError):
    """Not one row of a table can be used; `rejected` says why of each."""

    def __init__(self, message: str, rejected: Rejected) -> None:
        super().__init__(message)
        self.rejected = rejected


class Importer:
    """Turns the parts of one table into measurements: `add` each part, then `finish`.

    Parameters
    ----------
    layout
        What the columns mean.
    device
        Name of the device where the table tells none, nor trajectories.
    radio
        Whose ASU the table counts in ("gsm", "umts", "lte", "nr"), "auto" for what the table says; see `dialects.ASU`. When given, an
        RSS of 0 or more is in ASU.
    zone
        Of times that name none.
    max_gap_s
        Where the table has no trajectories, a device's records are one until such a gap [s].
    to_lonlat
        Turns the two columns of the truth into degrees; None where they are degrees.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        device: str = "device",
        radio: str = "auto",
        zone: tzinfo = timezone.utc,
        max_gap_s: float = 600.0,
        to_lonlat: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> None:
        if layout.missing:
            raise InputError(f"The table has no column for: {', '.join(layout.missing)}.")
        self.layout, self.radio, self.zone, self.max_gap_s, self.to_lonlat = layout, radio, zone, max_gap_s, to_lonlat
        self._device = device
        self._names = {name: dialects.Names() for name in ("device", "trajectory", "cell")}
        self._parts, self._rejected = _Parts(), _Parts()
        self._facts: dict[tuple[float, ...], int] = {}
        self._read = self._truths = self._off_earth = 0
        self._areas = False
        self.notes: dict[str, int] = {}

    # One part

    def add(
        self,
        rows: np.ndarray,
        columns: Mapping[str, np.ndarray],
        x: np.ndarray | None = None,
        y: np.ndarray | None = None,
    ) -> None:
        """Read one part of the table.

        Parameters
        ----------
        rows
            Number of each row, shape (n,).
        columns
            `layout.columns`, shape (n,) each, as `dialects` reads them.
        x, y
            The truth, shape (n,), where it is not in columns; NaN for none.
        """
        layout, n = self.layout, len(rows)
        self._read += n
        bad = np.full(n, -1, dtype=np.int8)
        read: dict[str, np.ndarray] = {"row": self._rows(rows, columns)}
        self._device_and_trajectory(columns, n, read, bad)
        time_columns = [columns[name] for name in layout.roles["time"]]
        read["time_s"], odd = dialects.times(_one_text(time_columns), self.zone)
        _mark(bad, np.isnan(read["time_s"]) & ~odd, NO_TIME)
        _mark(bad, odd, ODD_TIME)
        cell = self._cells(columns)
        if len(self.layout.cells["cell"][0]) > 1:
            read["bare"] = np.full(n, not self._areas)
        self._sites(columns, cell)
        rss, absurd, worst = self._rss(columns, cell)
        signals = {name: self._slots(columns, f"signal {name}", cell) for name in layout.signals}
        cell, rss, signals, lost = self._choose(columns, cell, rss, absurd, signals)
        none = (cell < 0).all(axis=1)
        _mark(bad, none & ~lost, NO_CELL)
        _mark(bad, none, ODD_RSS)
        read["lon"], read["lat"], off = self._truth(columns, n, x, y)
        _mark(bad, off, ODD_TRUTH)
        if layout.of_cells:
            read["first"] = self._serving(columns, n)
        read["cell"], read["rss_dbm"] = cell, rss
        read.update({f"signal {name}": values for name, values in signals.items()})
        self._reject(read["row"], bad, time_columns, worst, (read["lon"], read["lat"], x, y))
        good = bad < 0
        for name in ("lon", "lat"):
            read[name] = np.where(off, np.nan, read[name])
        self._parts.add(read if good.all() else {name: values[good] for name, values in read.items()})

    def _rows(self, rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        if "source_row" not in self.layout.roles:
            return np.asarray(rows, dtype=np.int64)
        told = dialects.numbers(columns[self.layout.roles["source_row"][0]])[0]
        return np.where(np.isnan(told), rows, np.nan_to_num(told)).astype(np.int64)

    def _device_and_trajectory(
        self, columns: Mapping[str, np.ndarray], n: int, read: dict[str, np.ndarray], bad: np.ndarray
    ) -> None:
        roles = self.layout.roles
        for role in ("device", "trajectory"):
            if role in roles:
                ids = dialects.joined([dialects.names(columns[name]) for name in roles[role]])
                read[role] = self._names[role].add(*ids)
        if "device" in roles:
            _mark(bad, read["device"] < 0, NO_DEVICE)
        elif "trajectory" in roles:  # nothing tells whose they are: each is a device of its own
            read["device"] = read["trajectory"]
            _mark(bad, read["device"] < 0, NO_DEVICE)
        else:
            read["device"] = self._names["device"].add(np.zeros(n, dtype=np.int64), [self._device])

    def _cells(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Codes of cell ids, shape (n, slots).

        Area codes that no row tells are no part of the ids: the column of RNCs is empty where the cells are those of LTE. When a later
        part tells some, `finish` rejects the rows without, as it would have been in another order.
        """
        slots = []
        for names in self.layout.cells["cell"]:
            marks: tuple[float, ...] = dialects.MISSING_IDS
            if tuple(name.strip().lower() for name in names) in WITH_ZERO:
                marks = (*dialects.MISSING_NUMBERS, -1.0)
            slots.append([dialects.names(columns[name], marks) for name in names])
        self._areas = self._areas or any(texts for parts in slots for _, texts in parts[:-1])
        used = [parts if self._areas else parts[-1:] for parts in slots]
        codes = [self._names["cell"].add(*dialects.joined(parts)) for parts in used]
        return np.stack(codes, axis=1)

    def _slots(
        self,
        columns: Mapping[str, np.ndarray],
        role: str,
        cell: np.ndarray,
        marks: tuple[float, ...] = dialects.MISSING_NUMBERS,
    ) -> np.ndarray:
        """Numbers of each cell, float32 of shape (n, slots), NaN where a slot has no column or no cell."""
        values = np.full(cell.shape, np.nan, dtype=np.float32)
        for index, names in enumerate(self.layout.cells.get(role, ())):
            if names:
                values[:, index], odd = dialects.numbers(columns[names[0]], marks)
                self._note(f"{role.split()[-1]} values that are no numbers", int((odd & (cell[:, index] >= 0)).sum()))
        values[cell < 0] = np.nan
        return values

    def _rss(self, columns: Mapping[str, np.ndarray], cell: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RSS [dBm] of shape (n, slots), whether it was absurd, and one absurd value of each row."""
        layout = self.layout
        in_asu = layout.asu_in_rss or self.radio != "auto"
        marks = tuple(mark for mark in dialects.MISSING_IDS if mark != 0 or not in_asu)
        rss = np.full(cell.shape, np.nan)
        odd = np.zeros(cell.shape, dtype=bool)
        for index, names in enumerate(layout.cells.get("rss", ())):
            if names:
                rss[:, index], odd[:, index] = dialects.numbers(columns[names[0]], marks)
        radio = self._radio(columns, len(cell))
        if in_asu:
            rss = np.where(rss >= 0, self._from_asu(rss, radio), rss)
        if "asu" in layout.cells and (np.isnan(rss) & ~odd & (cell >= 0)).any():
            asu = self._slots(columns, "asu", cell, (*dialects.MISSING_NUMBERS, -1.0)).astype(float)
            rss = np.where(np.isnan(rss) & ~odd, self._from_asu(asu, radio), rss)
        rss[cell < 0] = np.nan
        absurd = (rss < RSS_RANGE_DBM[0]) | (rss > RSS_RANGE_DBM[1])
        worst = np.where(absurd.any(axis=1), rss[np.arange(len(rss)), absurd.argmax(axis=1)], np.nan)
        self._note("RSS values that are no numbers", int((odd & (cell >= 0)).sum()))
        return rss.astype(np.float32), absurd, worst

    def _radio(self, columns: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        """Index into `dialects.RADIOS` of each row, -1 where nothing says which."""
        if self.radio != "auto":
            return np.full(n, dialects.RADIOS.index(self.radio))
        default = dialects.RADIOS.index(self.layout.radio) if self.layout.radio else -1
        if "radio" not in self.layout.roles:
            return np.full(n, default)
        codes, texts = dialects.names(columns[self.layout.roles["radio"][0]])
        known = [dialects.radio_of(text) for text in texts]
        table = np.array([dialects.RADIOS.index(one) if one else default for one in known] + [default])
        return table[codes]

    def _from_asu(self, asu: np.ndarray, radio: np.ndarray) -> np.ndarray:
        """Dbm of ASU, shape (n, slots); NaN where off the scale or of no known radio, unless it is beyond all scales: then as it is."""
        dbm = np.full(asu.shape, np.nan)
        for index, name in enumerate(dialects.RADIOS):
            rows = radio == index
            if rows.any():
                dbm[rows] = dialects.asu_to_dbm(asu[rows], name)
        self._note(
            "ASU values whose radio technology is not told (give RADIO)",
            int((np.isfinite(asu) & (radio < 0)[:, None]).sum()),
        )
        return np.where(np.isnan(dbm) & (asu > 97) & (asu != 99) & (asu != 255), asu, dbm)

    def _choose(
        self,
        columns: Mapping[str, np.ndarray],
        cell: np.ndarray,
        rss: np.ndarray,
        absurd: np.ndarray,
        signals: dict[str, np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], np.ndarray]:
        """Leave out what is no cell, twice or absurd, and let the others move up; the last answer is whether a row had absurd RSS."""
        had = cell >= 0
        rss = np.where(absurd, np.float32(np.nan), rss)
        serving = np.zeros(cell.shape, dtype=bool)
        serving[:, 0] = had[:, 0]
        others = (np.isfinite(rss) & ~serving).any(axis=1)
        drop = absurd & ~serving
        self._note("neighbours left out because of an RSS that no phone measures", int(drop.sum()))
        drop[:, 0] |= absurd[:, 0] & ~others
        self._note("serving cells kept without their RSS, which no phone measures", int((absurd[:, 0] & others).sum()))
        for later in range(1, cell.shape[1]):
            again = (cell[:, later : later + 1] == cell[:, :later]).any(axis=1) & had[:, later]
            self._note("cells left out because they stand twice in one record", int(again.sum()))
            drop[:, later] |= again
        lost = absurd.any(axis=1) & had.any(axis=1)
        cell = np.where(drop, -1, cell)
        first = self._moved_first(columns, cell)
        if not self.layout.of_cells:
            empty = (cell[:, 0] < 0) & (cell >= 0).any(axis=1)
            self._note("records without a serving cell, whose next one takes its place", int(empty.sum()))
        if first is not None or ((cell[:, :-1] < 0) & (cell[:, 1:] >= 0)).any():
            rank = np.where(cell < 0, 2, 1)
            if first is not None:
                rank = np.where(first & (cell >= 0), 0, rank)
            order = np.argsort(rank, axis=1, kind="stable")
            cell, rss = np.take_along_axis(cell, order, 1), np.take_along_axis(rss, order, 1)
            signals = {name: np.take_along_axis(values, order, 1) for name, values in signals.items()}
        gone = cell < 0
        rss[gone] = np.nan
        for values in signals.values():
            values[gone] = np.nan
        return cell.astype(np.int32), rss, signals, lost

    def _moved_first(self, columns: Mapping[str, np.ndarray], cell: np.ndarray) -> np.ndarray | None:
        """Which cell columns of its own name as the serving one, shape (n, slots); None where it is the first one anyway."""
        names = self.layout.roles.get("serving_cell")
        if not names or self.layout.cells["cell"][0] == names:
            return None
        parts = [dialects.names(columns[name], dialects.MISSING_IDS) for name in names]
        serving = self._names["cell"].add(*dialects.joined(parts))
        first = (cell == serving[:, None]) & (serving >= 0)[:, None]
        moved = int(first[:, 1:].sum())
        self._note("records whose serving cell was not the first one, and is now", moved)
        return first if moved else None

    def _truth(
        self, columns: Mapping[str, np.ndarray], n: int, x: np.ndarray | None, y: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Longitude and latitude [°], and whether they are off the earth, shape (n,)."""
        roles = self.layout.roles
        if "lon" in roles and "lat" in roles:
            (lon, odd_lon), (lat, odd_lat) = (dialects.numbers(columns[roles[name][0]]) for name in ("lon", "lat"))
            self._note("truths that are no numbers, which count as unknown", int((odd_lon | odd_lat).sum()))
            zero = (lon == 0) & (lat == 0)
            self._note("truths at 0°, 0°, which count as unknown", int(zero.sum()))
            lon, lat = np.where(zero, np.nan, lon), np.where(zero, np.nan, lat)
        elif x is not None and y is not None:
            lon, lat = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        else:
            return np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, dtype=bool)
        given = np.isfinite(lon) & np.isfinite(lat)
        told = lon, lat
        if self.to_lonlat is not None:
            lon, lat = self.to_lonlat(lon, lat)
        off = given & ~((np.abs(lon) <= 180) & (np.abs(lat) <= 90))
        self._truths += int(given.sum())
        self._off_earth += int(off.sum())
        unknown = ~given
        # what is off the earth keeps the numbers it was told by, for the list of rejected rows
        lon, lat = np.where(off, told[0], lon), np.where(off, told[1], lat)
        return np.where(unknown, np.nan, lon), np.where(unknown, np.nan, lat), off

    def _serving(self, columns: Mapping[str, np.ndarray], n: int) -> np.ndarray:
        """How much a row is the serving cell of its record, shape (n,), float32."""
        roles = self.layout.roles
        for role, sign in (("serving", 1.0), ("neighbour", -1.0)):
            if role in roles:
                column = columns[roles[role][0]]
                values, odd = dialects.numbers(column)
                if odd.any():  # true, yes, no, …
                    codes, texts = dialects.names(column)
                    yes = [float(text.lower() in ("true", "yes", "y", "t", "serving", "primary")) for text in texts]
                    values = np.where(odd, np.array([*yes, 0.0])[codes], values)
                return (sign * np.nan_to_num(values)).astype(np.float32)
        return np.zeros(n, dtype=np.float32)

    def _sites(self, columns: Mapping[str, np.ndarray], cell: np.ndarray) -> None:
        """Count what the table tells of each cell: the different tellings are few."""
        slots = self.layout.cells
        if "cell_lon" not in slots or "cell_lat" not in slots:
            return
        roles = ("cell_lon", "cell_lat", *_DETAILS)
        facts = []
        for index in range(self.layout.slots):
            columns_here = [slots.get(role, ((),) * self.layout.slots)[index] for role in roles]
            if not columns_here[0] or not columns_here[1]:
                continue
            values = [cell[:, index].astype(float)]
            for role, names in zip(roles, columns_here):
                marks = (*dialects.MISSING_NUMBERS, *((0.0,) if role in ("cell_lon", "cell_lat") else (-1.0,)))
                values.append(dialects.numbers(columns[names[0]], marks)[0] if names else np.full(len(cell), np.nan))
            table = np.stack(values, axis=1)
            known = (cell[:, index] >= 0) & (np.abs(table[:, 1]) <= 180) & (np.abs(table[:, 2]) <= 90)
            facts.append(table[known])
        table = np.concatenate(facts) if facts else np.empty((0, 7))
        if not len(table):
            return
        bits = np.ascontiguousarray(np.nan_to_num(table, nan=-1e9)).view(np.uint64)
        hashed = np.zeros(len(table), dtype=np.uint64)
        for column in range(table.shape[1]):
            hashed = (hashed ^ bits[:, column]) * np.uint64(0x9E3779B97F4A7C15)
            hashed ^= hashed >> np.uint64(29)
        _, first, counts = np.unique(hashed, return_index=True, return_counts=True)
        for fact, count in zip(table[first].tolist(), counts.tolist()):
            key = tuple(-1e9 if value != value else value for value in fact)
            self._facts[key] = self._facts.get(key, 0) + count

    def _reject(
        self,
        rows: np.ndarray,
        bad: np.ndarray,
        time_columns: list[np.ndarray],
        worst: np.ndarray,
        truth: tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None],
    ) -> None:
        at = np.flatnonzero(bad >= 0)
        if not len(at):
            return
        values = []
        times = dialects.plain(_one_text([dialects.plain(column)[at] for column in time_columns]))
        for index, row in enumerate(at):
            reason = bad[row]
            text = ""
            if reason == ODD_TIME:
                text = dialects._text(times[index])
            elif reason == ODD_RSS:
                text = f"{worst[row]:g}"
            elif reason == ODD_TRUTH:
                text = f"{truth[0][row]:.10g}, {truth[1][row]:.10g}"
            values.append(text.encode("utf-8")[:_VALUE_BYTES])
        self._rejected.add({"row": rows[at], "reason": bad[at], "value": np.array(values, dtype=f"S{_VALUE_BYTES}")})

    def _note(self, what: str, count: int) -> None:
        if count:
            self.notes[what] = self.notes.get(what, 0) + count

    # All of them

    def finish(self) -> Imported:
        """Return what became of the table.

        Raises
        ------
        NothingUsableError
            When not one row can be used.
        InputError
            When no truth lies on the earth.
        """
        if self._truths and self._off_earth == self._truths:
            raise InputError(
                f"None of the {self._truths:,} true positions lies on the earth (±180°, ±90°): they are in another coordinate system. Give "
                "its TRUTH_CRS."
            )
        table = self._parts.take()
        if table:
            self._drop_late(table)
        if not table or not len(table["time_s"]):
            rejected = self._all_rejected()
            said = "; ".join(f"{reason}: {count:,}" for reason, count in rejected.counts().items())
            odd = [rejected.value_of(int(row)) for row in np.flatnonzero(rejected.value != b"")[:1]]
            example = f", such as '{odd[0]}'" if odd else ""
            advice = ""
            if len(rejected) and np.bincount(rejected.reason).argmax() == ODD_RSS and odd and float(odd[0]) >= 0:
                advice = " If these are ASU, give RADIO."
            sentence = f"None of the {self._read:,} rows can be used ({said or 'it has none'}{example}).{advice}"
            raise NothingUsableError(sentence, rejected)
        if self.layout.of_cells:
            table = self._records(table)
        records = self._measurements(table)
        records = self._without_copies(records)
        sites, downtilt = self._known_sites(records.cells)
        return Imported(records, self._all_rejected(), self._read, dict(self.notes), sites, downtilt)

    def _drop_late(self, table: dict[str, np.ndarray]) -> None:
        """Reject what only the whole table shows to be wrong.

        Times like 0 in a table of dates (where all are like that they count from a start, and stay), and cells without the area code
        that others have.
        """
        early = table["time_s"] < _FIRST_DATE_S
        if early.all():
            self._note("times before 1973, which seem to count from a start", len(early))
        elif early.any():
            self._drop(table, early, ODD_TIME, [f"{value:g}" for value in table["time_s"][early]])
        bare = table.pop("bare", None)
        if bare is not None and self._areas and bare.any():
            self._drop(table, bare, NO_CELL, ["no area code"] * int(bare.sum()))

    def _drop(self, table: dict[str, np.ndarray], rows: np.ndarray, reason: int, told: list[str]) -> None:
        """Reject `rows` (a mask) of what was read."""
        values = np.array([text.encode()[:_VALUE_BYTES] for text in told], dtype=f"S{_VALUE_BYTES}")
        reasons = np.full(len(told), reason, dtype=np.int8)
        self._rejected.add({"row": table["row"][rows], "reason": reasons, "value": values})
        for name in table:
            table[name] = table[name][~rows]

    def _records(self, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Make one record of the rows of one device at one time: the serving cell first, the others by RSS."""
        n = len(table["time_s"])
        trajectory = table.get("trajectory", table["device"])
        within = self.layout.within_s
        when = np.floor(table["time_s"] / within) if within else table["time_s"]
        loudness = -np.nan_to_num(table["rss_dbm"][:, 0], nan=-1e3)
        order = np.lexsort((table["row"], loudness, -table["first"], when, table["device"], trajectory))
        device, trajectory, when, cell = (
            column[order] for column in (table["device"], trajectory, when, table["cell"][:, 0])
        )
        new = np.ones(n, dtype=bool)
        new[1:] = (np.diff(device) != 0) | (np.diff(trajectory) != 0) | (np.diff(when) != 0)
        record = np.cumsum(new) - 1
        key = record.astype(np.int64) * (int(cell.max()) + 1) + cell  # a cell's second row in one record
        again = np.ones(n, dtype=bool)
        again[np.unique(key, return_index=True)[1]] = False
        if again.any():
            rows = table["row"][order[again]]
            names = self._names["cell"].texts
            told = np.array(
                [names[code].encode()[:_VALUE_BYTES] for code in cell[again].tolist()], dtype=f"S{_VALUE_BYTES}"
            )
            self._rejected.add({"row": rows, "reason": np.full(len(rows), CELL_TWICE, dtype=np.int8), "value": told})
        order, record, new = order[~again], record[~again], new[~again]
        starts = np.flatnonzero(np.diff(record, prepend=-1))
        slot = np.arange(len(order)) - starts[record]
        kept = slot < MOST_CELLS
        self._note(f"cells left out because a record holds at most {MOST_CELLS}", int((~kept).sum()))
        at = record[kept], slot[kept]
        source = order[kept]
        made: dict[str, np.ndarray] = {}
        for name in table:
            if name in ("cell", "rss_dbm") or name.startswith("signal "):
                blank = -1 if name == "cell" else np.nan
                wide = np.full((len(starts), MOST_CELLS), blank, dtype=table[name].dtype)
                wide[at] = table[name][source, 0]
                made[name] = wide
            elif name in ("device", "trajectory", "row", "lon", "lat"):
                made[name] = table[name][order[starts]]
        made["time_s"] = np.minimum.reduceat(table["time_s"][order], starts)
        made["row"] = np.minimum.reduceat(table["row"][order], starts)
        lost = np.isnan(made["lon"])
        if lost.any():  # the serving cell's row has no truth: another one's may
            for name in ("lon", "lat"):
                best = np.fmax.reduceat(table[name][order], starts)
                made[name] = np.where(lost, best, made[name])
        return made

    def _measurements(self, table: dict[str, np.ndarray]) -> Measurements:
        devices = self._names["device"].texts if "device" in self.layout.roles else None
        trajectories = self._names["trajectory"].texts
        if devices is None:
            devices = trajectories if "trajectory" in table else self._names["device"].texts
        trajectory = None
        if "trajectory" in table:
            codes, device = table["trajectory"].astype(np.int64), table["device"].astype(np.int64)
            if "device" in self.layout.roles:
                pairs, inverse = np.unique((codes + 1) * len(devices) + device, return_inverse=True)
                owners = np.bincount(pairs // len(devices))
                names = [
                    _trajectory_name(
                        int(pair // len(devices)) - 1, devices[int(pair % len(devices))], trajectories, owners
                    )
                    for pair in pairs
                ]
                trajectory = names, inverse.reshape(-1)
            else:
                trajectory = trajectories, codes
        width = int((table["cell"] >= 0).sum(axis=1).max(initial=1))
        return measurements_of_codes(
            (devices, table["device"]),
            table["time_s"],
            (self._names["cell"].texts, table["cell"][:, :width]),
            table["rss_dbm"][:, :width],
            trajectory=trajectory,
            lon=table["lon"],
            lat=table["lat"],
            row=table["row"],
            signals={name: table[f"signal {name}"][:, :width] for name in self.layout.signals},
            max_gap_s=self.max_gap_s,
        )

    def _without_copies(self, records: Measurements) -> Measurements:
        """Reject records that equal an earlier one of their trajectory and time in everything."""
        same = (np.diff(records.trajectory) == 0) & (np.diff(records.time_s) == 0)
        if not same.any():
            return records
        near = np.zeros(len(records), dtype=bool)
        near[:-1] |= same
        near[1:] |= same
        rows = np.flatnonzero(near)
        group = np.cumsum(~np.concatenate([[False], same]))[rows]
        parts = [group[:, None], records.device[rows, None], records.cell[rows]]
        for values in (records.rss_dbm, *records.signals.values()):
            parts.append(np.nan_to_num(values[rows], nan=-1e9).astype(np.float32).view(np.int32))
        for values in (records.lon, records.lat):
            parts.append(np.nan_to_num(values[rows], nan=-1e9)[:, None].view(np.int64))
        whole = np.ascontiguousarray(np.concatenate([part.astype(np.int64) for part in parts], axis=1))
        keys = whole.view(np.dtype((np.void, whole.dtype.itemsize * whole.shape[1]))).ravel()
        _, first = np.unique(keys, return_index=True)
        copy = np.ones(len(rows), dtype=bool)
        copy[first] = False
        if not copy.any():
            return records
        gone = rows[copy]
        empty = np.zeros(len(gone), dtype=f"S{_VALUE_BYTES}")
        self._rejected.add(
            {"row": records.row[gone], "reason": np.full(len(gone), COPY, dtype=np.int8), "value": empty}
        )
        keep = np.ones(len(records), dtype=bool)
        keep[gone] = False
        return records.take(keep)

    def _all_rejected(self) -> Rejected:
        if self._rejected.columns:
            parts = self._rejected.take()
            order = np.argsort(parts["row"], kind="stable")
            return Rejected(parts["row"][order], parts["reason"][order], parts["value"][order])
        return Rejected(np.empty(0, np.int64), np.empty(0, np.int8), np.empty(0, f"S{_VALUE_BYTES}"))

    def _known_sites(self, cells: tuple[str, ...]) -> tuple[CellSites, np.ndarray]:
        """What the table tells most often of each cell that the records hold."""
        best: dict[int, tuple[int, tuple[float, ...]]] = {}
        for fact, count in self._facts.items():
            code = int(fact[0])
            if code not in best or count > best[code][0]:
                best[code] = count, fact
        texts, wanted = self._names["cell"].texts, set(cells)
        told = sorted((texts[code], fact) for code, (_, fact) in best.items() if texts[code] in wanted)
        values = np.array([fact[1:] for _, fact in told], dtype=float).reshape(-1, 6)
        values[values == -1e9] = np.nan
        details: dict[str, np.ndarray | None] = {}
        for index, name in enumerate(_DETAILS, 2):
            column = values[:, index] * (self.layout.power_scale if name == "power_dbm" else 1)
            details[name] = column if np.isfinite(column).any() else None
        downtilt = details.pop("downtilt_deg")
        sites = CellSites(tuple(name for name, _ in told), values[:, 0], values[:, 1], **details)
        return sites, np.full(len(told), np.nan) if downtilt is None else downtilt


def _mark(bad: np.ndarray, rows: np.ndarray, reason: int) -> None:
    bad[rows & (bad < 0)] = reason


def _one_text(columns: list[np.ndarray]) -> np.ndarray:
    """One column, or the texts of two (date and time) with a space between."""
    if len(columns) == 1:
        return columns[0]
    codes, texts = dialects.joined([dialects.names(column) for column in columns], " ")
    return np.array([*texts, ""])[codes]


def _trajectory_name(code: int, device: str, trajectories: list[str], owners: np.ndarray) -> str:
    """A trajectory's name; with its device's where several devices use it, and the device's where it has none."""
    if code < 0:
        return device
    return f"{device} {trajectories[code]}" if owners[code + 1] > 1 else trajectories[code]
