"""Candidates from signal strengths: the n places of a look-up table that fit a report best.

Section 2.1 of the landmark paper: the squared differences between what a device measured and what the table says are summed over the
best-serving antennas, and not only the best place is kept but n of them, a fixed number or one driven by the sensibility map.

With measured M_j, table entries E_ij and antenna masks w_j in {0, 1} the sum over all places i is two matrix products,
Σ w M² − 2 (w M) Eᵀ + w (E²)ᵀ. What a device reads too much or too little at all antennas alike, its offset, is estimated per device or
removed by RSS differences: Σ w d² − (Σ w d)² / Σ w with d = M − E is what the best offset of each place leaves, which is the same as
comparing all differences between antennas.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from ..chunks import run_chunks
from ..errors import InputError
from ..progress import Progress, no_progress, span
from ..trajectory.measurements import MOST_CELLS, Measurements
from .candidates import Candidates
from .lookup import LookupTable
from .reports import Reports, gather_reports

#: What may be done about a device's offset.
NONE, ESTIMATE, DIFFERENCES = OFFSETS = ("none", "estimate", "differences")
#: Powers are counted from here [dBm], so that single precision keeps their squares.
_MIDDLE_DBM = -85.0
#: Bytes of one array of instants by places.
_CHUNK_BYTES = 24_000_000
#: Offsets tried [dB], first on a coarse step and then on a fine one around the best; instants and places looked at.
_MOST_OFFSET_DB, _COARSE_DB, _FINE_DB, _MOST_LOOKED_AT, _MOST_PLACES = 30.0, 3.0, 0.5, 60, 20_000
#: Offsets are told apart by instants with so many antennas.
_LEAST_ANTENNAS = 3


@dataclass(frozen=True)
class CandidateSettings:
    """How candidates are chosen.

    Parameters
    ----------
    number
        Candidates per instant; where a sensibility map drives the number, the least.
    most
        The most candidates per instant where a sensibility map drives the number.
    antennas
        How many of the strongest antennas of a report are compared.
    offset
        What is done about a device's offset: "none"; "estimate": one offset per device, that with which its reports fit the table best;
        "differences": every place gets the offset that suits it, so only differences between antennas count.
    average_s
        RSS is averaged over a window of so many seconds around an instant [s]; 0 takes every record as it is.
    separation_m
        Candidates of one instant are at least so far apart [m]; 0 lets them be neighbours.
    unheard_weight
        Weight of antennas that the table expects although the device does not name them then (but some record does): their squared
        excess over the weakest report of a full list, or over the noise floor where the list is not full. 0 does not look at them. RSS
        differences do not tell how weak an unheard antenna is, so it is not used with them.

    Raises
    ------
    InputError
        When a number makes no sense.
    """

    number: int = 20
    most: int | None = None
    antennas: int = 6
    offset: str = NONE
    average_s: float = 0.0
    separation_m: float = 0.0
    unheard_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.offset not in OFFSETS:
            raise InputError(f"The offset is one of {', '.join(OFFSETS)}, not '{self.offset}'.")
        if self.number < 1 or self.antennas < 1:
            raise InputError(
                f"At least one candidate and one antenna are needed, not {self.number} and {self.antennas}."
            )
        if self.most is not None and self.most < self.number:
            raise InputError(f"The most candidates ({self.most}) must not be fewer than the least ({self.number}).")
        for name, value in (
            ("averaging window", self.average_s),
            ("separation", self.separation_m),
            ("weight of unheard antennas", self.unheard_weight),
        ):
            if not (value >= 0 and np.isfinite(value)):
                raise InputError(f"The {name} must be zero or more, not {value}.")

    @property
    def looks_at_unheard(self) -> bool:
        """Whether antennas that are not named count."""
        return self.unheard_weight > 0 and self.offset != DIFFERENCES

    @property
    def largest(self) -> int:
        """The most candidates an instant can have."""
        return self.number if self.most is None else self.most


@dataclass(frozen=True)
class Matched:
    """Candidates, and what they rest on.

    Parameters
    ----------
    candidates
        One instant per record.
    antennas
        Antennas compared at each instant, shape (n,).
    offset_db
        What the device reads too much, estimated or, with differences, as suits the best place; shape (n,), 0 where none is looked for.
    unknown
        Reports of cells that the table does not have.
    reports
        Reports in all.
    """

    candidates: Candidates
    antennas: np.ndarray
    offset_db: np.ndarray
    unknown: int
    reports: int


def signal_candidates(
    records: Measurements,
    table: LookupTable,
    settings: CandidateSettings | None = None,
    sensibility: np.ndarray | None = None,
    *,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Candidates:
    """Return the candidates of every record; see `match_signals`."""
    return match_signals(records, table, settings, sensibility, threads=threads, progress=progress).candidates


def match_signals(
    records: Measurements,
    table: LookupTable,
    settings: CandidateSettings | None = None,
    sensibility: np.ndarray | None = None,
    *,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Matched:
    """Find the places of the table that fit each record best.

    A record none of whose cells is in the table has no candidate; with RSS differences one antenna alone says nothing either.

    Parameters
    ----------
    sensibility
        Sensibility in [0, 1] on the table's grid, shape (height, width), NaN where unknown: the number of candidates of an instant grows
        linearly from `settings.number` to `settings.most` with its mean over the instant's first `number` candidates, and is `most`
        where it is unknown.

    Raises
    ------
    InputError
        When the table has none of the records' cells, or the sensibility map is of another shape or comes without `settings.most`.
    """
    settings = settings or CandidateSettings()
    if sensibility is not None and sensibility.shape != table.grid.shape:
        raise InputError(f"The sensibility map has shape {sensibility.shape}, the look-up table {table.grid.shape}.")
    if sensibility is not None and settings.most is None:
        raise InputError("A sensibility map drives the number of candidates, but their largest number is not given.")
    named = (records.cell >= 0) & np.isfinite(records.rss_dbm)
    heard = {records.cells[code] for code in np.unique(records.cell[named]).tolist()}
    if heard.isdisjoint(table.cells) and len(records):
        raise InputError(
            f"None of the {len(heard):,} cells that the measurements name with an RSS is among the {len(table.cells):,} of the look-up "
            f"table: theirs are such as {_examples(heard)}, the table's such as {_examples(table.cells)}. Use a table and measurements of "
            "one network that name cells alike."
        )
    table = table.only(heard) if heard else table
    known = records.recoded(table.cells)
    in_table = (known.cell >= 0) & np.isfinite(known.rss_dbm)
    reports = gather_reports(known, table.noise_floor_dbm, settings.antennas, settings.average_s)
    progress(0.05)
    offset = np.zeros(len(records))
    floored = table.floored_dbm
    if settings.offset == ESTIMATE:
        every = gather_reports(known, table.noise_floor_dbm, MOST_CELLS, settings.average_s)
        for device in range(len(records.devices)):
            rows = np.flatnonzero(records.device == device)
            ends = span(progress, 0.05 + 0.25 * device / len(records.devices), 0.3)
            offset[rows] = estimate_offset(every.take(rows), floored, settings, ends)
    place, error, own_offset = best_places(
        reports, table, settings, offset, floored=floored, threads=threads, progress=span(progress, 0.3, 1.0)
    )
    count = (place >= 0).sum(axis=1)
    if sensibility is not None:
        count = _driven(sensibility.ravel()[table.places], place, count, settings)
    kept = np.arange(place.shape[1]) < count[:, None]
    candidates = Candidates(
        records.devices,
        records.device,
        records.trajectories,
        records.trajectory,
        records.time_s,
        np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        table.grid.centres(table.places[place[kept]]),
        error[kept],
        records.row,
    )
    used = own_offset if settings.offset == DIFFERENCES else offset
    return Matched(candidates, reports.n_antennas, used, int(named.sum()) - int(in_table.sum()), int(named.sum()))


def _examples(names: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names)[:3])


def _driven(sensibility: np.ndarray, place: np.ndarray, count: np.ndarray, settings: CandidateSettings) -> np.ndarray:
    """How many candidates each instant keeps, shape (n,): linear in the sensibility at its best places."""
    first = place[:, : settings.number]
    values = np.where(first >= 0, sensibility[first], np.nan)
    known = np.isfinite(values)
    mean = np.where(known.any(axis=1), np.where(known, values, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1), 1.0)
    wanted = settings.number + np.clip(mean, 0, 1) * (settings.largest - settings.number)
    return np.minimum(count, np.rint(wanted).astype(np.int64))


def estimate_offset(
    reports: Reports, floored: np.ndarray, settings: CandidateSettings, progress: Progress = no_progress
) -> float:
    """Return what a device reads too much [dB]: the offset with which its reports fit their best places best; 0 when none tells.

    The mean over instants of the root mean squared difference at the best place is searched for its smallest value. That is the
    likelihood with positions maximised out, with heavy tails against single bad instants. Reports name the strongest antennas only, so
    antennas that are expected and not named count here whatever `settings` say: without them the estimate is several decibels too high,
    because a place where the named antennas are weak and others strong would fit as well.

    Parameters
    ----------
    reports
        All antennas that are named.
    floored
        `LookupTable.floored_dbm`.
    """
    enough = np.flatnonzero(reports.n_antennas >= _LEAST_ANTENNAS)
    if not len(enough):
        return 0.0
    chosen = enough[np.unique(np.linspace(0, len(enough) - 1, min(len(enough), _MOST_LOOKED_AT)).astype(int))]
    looked = reports.take(chosen)
    places = np.unique(np.linspace(0, floored.shape[1] - 1, min(floored.shape[1], _MOST_PLACES)).astype(int))
    table = floored[:, places]
    judged = replace(settings, offset=NONE, unheard_weight=1.0)

    def misfit(offset_db: float) -> float:
        progress(0.0)
        least = _misfit(looked, table, np.full(len(looked), offset_db), judged).min(axis=1)
        return float(np.sqrt(np.maximum(least, 0) / looked.n_antennas).mean())

    coarse = np.arange(-_MOST_OFFSET_DB, _MOST_OFFSET_DB + _COARSE_DB / 2, _COARSE_DB)
    best = coarse[np.argmin([misfit(offset) for offset in coarse.tolist()])]
    fine = best + np.arange(-_COARSE_DB, _COARSE_DB + _FINE_DB / 2, _FINE_DB)
    return float(fine[np.argmin([misfit(offset) for offset in fine.tolist()])])


def best_places(
    reports: Reports,
    table: LookupTable,
    settings: CandidateSettings,
    offset_db: np.ndarray | None = None,
    *,
    floored: np.ndarray | None = None,
    threads: int = 1,
    progress: Progress = no_progress,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places of each report, best first.

    Parameters
    ----------
    offset_db
        What is taken from the RSS of each report [dB], shape (n,).
    floored
        `table.floored_dbm`, when it is there already.

    Returns
    -------
    tuple
        Row of the place in the table, shape (n, largest), int64, −1 for none; root mean squared difference [dB], unheard antennas
        included where they count, same shape, NaN for none; and the mean difference to the best place [dB], shape (n,), 0 for none.
    """
    floored = table.floored_dbm if floored is None else floored
    shift = np.zeros(len(reports)) if offset_db is None else offset_db
    apart = _Apart(table, settings.separation_m) if settings.separation_m > 0 else None
    usable = reports.n_antennas >= (2 if settings.offset == DIFFERENCES else 1)
    n_places = len(table.places)

    def work(start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = np.arange(start, stop)
        place = np.full((len(rows), settings.largest), -1, dtype=np.int64)
        error = np.full(place.shape, np.nan)
        own = np.zeros(len(rows))
        there = np.flatnonzero(usable[start:stop])
        if not len(there):
            return place, error, own
        part = reports.take(rows[there])
        misfit = _misfit(part, floored, shift[rows[there]], settings)
        chosen = _smallest(misfit, settings.largest) if apart is None else apart.choose(misfit, settings.largest)
        exact, difference = _exact(part, chosen, floored, shift[rows[there]], settings)
        order = np.argsort(exact, axis=1, kind="stable")
        found = chosen.shape[1]
        place[there, :found] = np.take_along_axis(chosen, order, axis=1)
        error[there, :found] = np.take_along_axis(exact, order, axis=1)
        own[there] = difference[np.arange(len(there)), order[:, 0]]
        return place, error, own

    size = max(1, min(512, _CHUNK_BYTES // (4 * n_places)))
    parts = run_chunks(work, len(reports), size, threads, progress)
    if not parts:
        return np.empty((0, settings.largest), dtype=np.int64), np.empty((0, settings.largest)), np.empty(0)
    return tuple(np.concatenate([part[index] for part in parts]) for index in range(3))


def _sums(part: Reports, floored: np.ndarray, shift_db: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Σ d² [dB²] and Σ d [dB] over the antennas of each report at each place, d = measured − table; shape (n, n_places), float32."""
    columns, slot = np.unique(part.column, return_inverse=True)
    slot = slot.reshape(part.column.shape)
    there = part.column >= 0
    row = np.nonzero(there)[0]
    weight = np.zeros((len(part), len(columns)), dtype=np.float32)
    measured = np.zeros_like(weight)
    weight[row, slot[there]] = 1.0
    measured[row, slot[there]] = (part.rss_dbm - shift_db - _MIDDLE_DBM)[there]
    table = floored[columns] - np.float32(_MIDDLE_DBM)
    squares = measured @ table
    squares *= -2.0
    squares += weight @ (table * table)
    squares += (measured * measured).sum(axis=1)[:, None]
    sums = weight @ table
    np.subtract(measured.sum(axis=1)[:, None], sums, out=sums)
    return squares, sums


def _misfit(part: Reports, floored: np.ndarray, shift_db: np.ndarray, settings: CandidateSettings) -> np.ndarray:
    """What a place has to be small in [dB²], shape (n, n_places), float32."""
    squares, sums = _sums(part, floored, shift_db[:, None])
    if settings.offset == DIFFERENCES:
        sums *= sums
        sums /= part.n_antennas[:, None].astype(np.float32)
        squares -= sums
    if settings.looks_at_unheard:
        # Reports are grouped by their limit, in whole decibels upwards, so that the excess of the table over it is computed once a group.
        limit = _limit(part, shift_db)
        silent = np.ones((len(part), len(floored)), dtype=np.float32)
        there = part.heard >= 0
        silent[np.nonzero(there)[0], part.heard[there]] = 0.0
        for one in np.unique(limit).tolist():
            rows = np.flatnonzero(limit == one)
            excess = np.maximum(floored - np.float32(one), 0)
            squares[rows] += np.float32(settings.unheard_weight) * (silent[rows] @ (excess * excess))
    return squares


def _limit(part: Reports, shift_db: np.ndarray) -> np.ndarray:
    return np.ceil(part.limit_dbm - shift_db)


def _exact(
    part: Reports, place: np.ndarray, floored: np.ndarray, shift_db: np.ndarray, settings: CandidateSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squared difference at some places in double precision, and the mean difference [dB], both of the shape of `place`."""
    entries = floored[part.column[:, None, :], place[:, :, None]].astype(float)
    there = (part.column >= 0)[:, None, :]
    difference = np.where(there, (part.rss_dbm - shift_db[:, None])[:, None, :] - entries, 0.0)
    number = part.n_antennas[:, None]
    mean = difference.sum(axis=2) / number
    total = (difference**2).sum(axis=2)
    if settings.offset == DIFFERENCES:
        total -= number * mean**2
    if settings.looks_at_unheard:
        for row in range(len(part)):
            silent = np.ones(len(floored), dtype=bool)
            silent[part.heard[row][part.heard[row] >= 0]] = False
            excess = np.maximum(floored[silent][:, place[row]] - _limit(part, shift_db)[row], 0)
            total[row] += settings.unheard_weight * (excess**2).sum(axis=0)
    error = np.where(place >= 0, np.sqrt(np.maximum(total, 0) / number), np.nan)
    return error, mean


def _smallest(misfit: np.ndarray, number: int) -> np.ndarray:
    """Columns of the smallest values of each row, in any order, shape (n, at most number)."""
    if number >= misfit.shape[1]:
        return np.broadcast_to(np.arange(misfit.shape[1]), misfit.shape).copy()
    return np.argpartition(misfit, number - 1, axis=1)[:, :number]


class _Apart:
    """Chooses the best places that are some metres apart, one after the other: the best of what is left each time."""

    def __init__(self, table: LookupTable, separation_m: float) -> None:
        grid = table.grid
        reach = int(np.ceil(separation_m / grid.cell_size_m)) - 1  # strictly nearer than the separation
        reach = min(max(reach, 0), max(grid.shape))
        steps = np.arange(-reach, reach + 1)
        down, right = np.meshgrid(steps, steps, indexing="ij")
        near = np.hypot(down, right) * grid.cell_size_m < separation_m * (1 - 1e-9)
        width = grid.width + 2 * reach
        rows, columns = np.divmod(table.places, grid.width)
        self._at = (rows + reach) * width + columns + reach
        self._around = (down * width + right)[near]
        # One more column than there are places takes what is no place.
        self._place_of = np.full((grid.height + 2 * reach) * width, len(table.places), dtype=np.int64)
        self._place_of[self._at] = np.arange(len(table.places))

    def choose(self, misfit: np.ndarray, number: int) -> np.ndarray:
        """Columns of each row, best first, −1 where none is left; shape (n, number)."""
        chosen = np.full((len(misfit), number), -1, dtype=np.int64)
        left = np.empty(misfit.shape[1] + 1, dtype=misfit.dtype)
        for row, values in enumerate(misfit):
            left[:-1], left[-1] = values, np.inf
            for rank in range(number):
                best = int(np.argmin(left))
                if not np.isfinite(left[best]):
                    break
                chosen[row, rank] = best
                left[self._place_of[self._at[best] + self._around]] = np.inf
        return chosen
