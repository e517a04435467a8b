"""Candidates from signal strengths: the n places of a look-up table that fit a report best.

Section 2.1 of the landmark paper: the squared differences between what a device measured and what the table says are summed over the
best-serving antennas, and not only the best place is kept but n of them, a fixed number or one driven by the sensibility map.

What a device reads too much or too little at all antennas alike, its offset, is estimated per device or removed by RSS differences. How
places are compared is in `comparison`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from ..chunks import run_chunks
from ..errors import InputError
from ..progress import Progress, no_progress, span, stoppable
from ..trajectory.measurements import MOST_CELLS, Measurements
from .candidates import Candidates
from .comparison import Comparison, estimate_offset
from .lookup import LookupTable
from .reports import Reports, gather_reports

#: What may be done about a device's offset.
NONE, ESTIMATE, DIFFERENCES = OFFSETS = ("none", "estimate", "differences")
#: Bytes of one array of instants by places.
_CHUNK_BYTES = 24_000_000


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
        excess over the weakest report of a full list, or over the noise floor where the list is not full. 0 does not look at them. When
        not given it is 1 for tables of radio maps and 0 for learned ones. RSS differences do not tell how weak an unheard antenna is, so
        it is not used with them.

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
    unheard_weight: float | None = None

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
            ("weight of unheard antennas", self.unheard_weight or 0.0),
        ):
            if not (value >= 0 and np.isfinite(value)):
                raise InputError(f"The {name} must be zero or more, not {value}.")

    def comparison(self, table: LookupTable) -> Comparison:
        """How reports are compared with a table."""
        differences = self.offset == DIFFERENCES
        weight = float(not table.learned) if self.unheard_weight is None else self.unheard_weight
        return Comparison(table.floored_dbm, differences, 0.0 if differences else weight)

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

    Reports below the table's noise floor lower it to the weakest of them. A record none of whose cells is in the table has no candidate;
    with RSS differences one antenna alone says nothing either.

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
    weakest = float(known.rss_dbm.min(where=in_table, initial=np.inf))
    if weakest < table.noise_floor_dbm:  # evidently that can be received
        table = replace(table, noise_floor_dbm=weakest)
    reports = gather_reports(known, table.noise_floor_dbm, settings.antennas, settings.average_s)
    progress(0.05)
    offset = np.zeros(len(records))
    comparison = settings.comparison(table)
    if settings.offset == ESTIMATE:
        every = gather_reports(known, table.noise_floor_dbm, MOST_CELLS, settings.average_s)
        for device in range(len(records.devices)):
            rows = np.flatnonzero(records.device == device)
            ends = span(progress, 0.05 + 0.25 * device / len(records.devices), 0.3)
            offset[rows] = estimate_offset(every.take(rows), comparison, ends)
    place, error, own_offset = best_places(
        reports, table, settings, offset, comparison=comparison, threads=threads, progress=span(progress, 0.3, 1.0)
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


def best_places(
    reports: Reports,
    table: LookupTable,
    settings: CandidateSettings,
    offset_db: np.ndarray | None = None,
    *,
    comparison: Comparison | None = None,
    threads: int = 1,
    progress: Progress = no_progress,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places of each report, best first.

    Parameters
    ----------
    offset_db
        What is taken from the RSS of each report [dB], shape (n,).
    comparison
        `settings.comparison(table)`, when it is there already.

    Returns
    -------
    tuple
        Row of the place in the table, shape (n, largest), int64, −1 for none; root mean squared difference [dB], unheard antennas
        included where they count, same shape, NaN for none; and the mean difference to the best place [dB], shape (n,), 0 for none.
    """
    compared = settings.comparison(table) if comparison is None else comparison
    shift = np.zeros(len(reports)) if offset_db is None else offset_db
    apart = _Apart(table, settings.separation_m) if settings.separation_m > 0 else None
    usable = reports.n_antennas >= (2 if settings.offset == DIFFERENCES else 1)
    n_places = len(table.places)
    watched, check = stoppable(progress)

    def work(start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = np.arange(start, stop)
        place = np.full((len(rows), settings.largest), -1, dtype=np.int64)
        error = np.full(place.shape, np.nan)
        own = np.zeros(len(rows))
        there = np.flatnonzero(usable[start:stop])
        if not len(there):
            return place, error, own
        part = reports.take(rows[there])
        misfit = compared.misfit(part, shift[rows[there]], check)
        chosen = _smallest(misfit, settings.largest) if apart is None else apart.choose(misfit, settings.largest)
        exact, difference = compared.errors_at(part, chosen, shift[rows[there]])
        order = np.argsort(exact, axis=1, kind="stable")
        found = chosen.shape[1]
        place[there, :found] = np.take_along_axis(chosen, order, axis=1)
        error[there, :found] = np.take_along_axis(exact, order, axis=1)
        own[there] = difference[np.arange(len(there)), order[:, 0]]
        return place, error, own

    size = max(1, min(512, _CHUNK_BYTES // (4 * n_places)))
    parts = run_chunks(work, len(reports), size, threads, watched)
    if not parts:
        return np.empty((0, settings.largest), dtype=np.int64), np.empty((0, settings.largest)), np.empty(0)
    return tuple(np.concatenate([part[index] for part in parts]) for index in range(3))


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
