"""What of a measurement record is compared with a look-up table: its strongest antennas, averaged over time where that is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..trajectory.measurements import Measurements

#: An antenna counts for a window when so many of its records name it.
_SHARE_OF_WINDOW = 0.5
#: Records that are averaged at a time: each takes some numbers for every antenna that any of them names.
_RECORDS_AT_ONCE = 5_000


@dataclass(frozen=True)
class Reports:
    """What is compared with the table: the strongest antennas of n instants.

    Parameters
    ----------
    column
        Column of the table, shape (n, k), int32, −1 for none.
    rss_dbm
        Shape (n, k), NaN for none.
    heard
        All columns that the instant's records name, shape (n, l), int32, −1 for none.
    limit_dbm
        What an antenna that is not named is weaker than, shape (n,).
    """

    column: np.ndarray
    rss_dbm: np.ndarray
    heard: np.ndarray
    limit_dbm: np.ndarray

    def __len__(self) -> int:
        return len(self.column)

    @property
    def n_antennas(self) -> np.ndarray:
        """Antennas that are compared, shape (n,)."""
        return (self.column >= 0).sum(axis=1)

    def take(self, rows: np.ndarray | slice) -> Reports:
        """Return those of some instants."""
        return Reports(self.column[rows], self.rss_dbm[rows], self.heard[rows], self.limit_dbm[rows])


def gather_reports(known: Measurements, noise_floor_dbm: float, antennas: int, average_s: float = 0.0) -> Reports:
    """Return the strongest antennas of every record, or of the mean over a window around it.

    Fast fluctuation averages out over a window; an antenna counts for it when half of its records name the antenna, or, where none is
    named so often, when the record itself names it.

    Parameters
    ----------
    known
        Records in terms of a table's cells.
    noise_floor_dbm
        Of the table: nothing below is received.
    antennas
        Most antennas of a report.
    average_s
        Length of the window [s], centred on the record; 0 takes every record as it is.
    """
    rss = np.where(known.cell >= 0, known.rss_dbm, np.nan).astype(float)
    column = np.where(np.isfinite(rss), known.cell, -1)
    limit = _limits(known, rss, noise_floor_dbm)
    if not average_s or not len(known):
        return strongest(column, rss, limit, antennas)
    parts = []
    for start, stop in zip(known.starts[:-1].tolist(), known.starts[1:].tolist()):
        time_s = known.time_s[start:stop]
        for first in range(0, len(time_s), _RECORDS_AT_ONCE):
            end = min(first + _RECORDS_AT_ONCE, len(time_s))
            low, high = np.searchsorted(time_s, (time_s[first] - average_s, time_s[end - 1] + average_s)).tolist()
            rows = slice(start + low, start + high)
            part = _averaged(time_s[low:high], column[rows], rss[rows], limit[rows], antennas, average_s)
            parts.append(part.take(slice(first - low, end - low)))
    width = max(part.heard.shape[1] for part in parts)
    heard = np.concatenate(
        [np.pad(part.heard, ((0, 0), (0, width - part.heard.shape[1])), constant_values=-1) for part in parts]
    )
    return Reports(
        np.concatenate([part.column for part in parts]),
        np.concatenate([part.rss_dbm for part in parts]),
        heard,
        np.concatenate([part.limit_dbm for part in parts]),
    )


def _limits(known: Measurements, rss: np.ndarray, floor_dbm: float) -> np.ndarray:
    """What an antenna that a record does not name is weaker than [dBm], shape (n,): its weakest where its device's list is full."""
    number = np.isfinite(rss).sum(axis=1)
    longest = np.zeros(len(known.devices), dtype=np.int64)
    np.maximum.at(longest, known.device, number)
    weakest = np.where(np.isfinite(rss), rss, np.inf).min(axis=1, initial=np.inf)
    full = (number > 0) & (number == longest[known.device])
    return np.where(full, np.maximum(weakest, floor_dbm), floor_dbm)


def strongest(column: np.ndarray, rss: np.ndarray, limit: np.ndarray, most: int) -> Reports:
    """The strongest antennas first, at most `most`."""
    order = np.argsort(np.where(column >= 0, -rss, np.inf), axis=1, kind="stable")[:, :most]
    best = np.full((len(column), most), -1, dtype=np.int32)
    value = np.full(best.shape, np.nan)
    best[:, : order.shape[1]] = np.take_along_axis(column, order, axis=1)
    value[:, : order.shape[1]] = np.take_along_axis(rss, order, axis=1)
    return Reports(best, value, column.astype(np.int32), limit)


def _averaged(
    time_s: np.ndarray, column: np.ndarray, rss: np.ndarray, limit: np.ndarray, most: int, average_s: float
) -> Reports:
    """Reports of one trajectory with every RSS the mean of its antenna over a window around the instant."""
    codes = np.unique(column[column >= 0])
    shape = (len(time_s), len(codes))
    row, slot = np.nonzero(column >= 0)
    at = row, np.searchsorted(codes, column[row, slot])
    named, total = np.zeros(shape), np.zeros(shape)
    named[at] = 1.0
    total[at] = rss[row, slot]
    start = np.searchsorted(time_s, time_s - average_s / 2 - 1e-9, side="left")
    stop = np.searchsorted(time_s, time_s + average_s / 2 + 1e-9, side="right")

    def window(values: np.ndarray) -> np.ndarray:
        running = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
        return running[stop] - running[start]

    times = window(named)
    often = times >= np.maximum(_SHARE_OF_WINDOW * (stop - start), 1)[:, None]
    alone = ~often.any(axis=1)  # nothing is named often enough: the record itself speaks
    often[alone] = named[alone] > 0
    mean = np.where(often, window(total) / np.maximum(times, 1), np.nan)
    heard = np.where(often, codes, -1)
    return strongest(heard, mean, window(limit) / (stop - start), most)
