"""Comparing reports with all places of a look-up table at once.

With measured M_j, table entries E_ij and antenna masks w_j in {0, 1} the sum of squared errors over all places i is two matrix products,
Σ w M² − 2 (w M) Eᵀ + w (E²)ᵀ. With d = M − E, Σ w d² − (Σ w d)² / Σ w is what the offset that suits each place best leaves, which is
the same as comparing all differences between antennas. Antennas that the table expects and the device does not name add the square of
what they are expected above the weakest report.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..progress import Progress, no_progress
from .reports import Reports

#: Powers are counted from here [dBm], so that single precision keeps their squares.
_MIDDLE_DBM = np.float32(-85.0)
#: Offsets tried [dB], first on a coarse step and then on a fine one around the best; instants and places looked at.
_MOST_OFFSET_DB, _COARSE_DB, _FINE_DB, _MOST_LOOKED_AT, _MOST_PLACES = 60.0, 3.0, 0.5, 60, 20_000
#: Offsets are told apart by instants with so many antennas.
_LEAST_ANTENNAS = 3


@dataclass(frozen=True)
class Comparison:
    """How reports are compared with a table.

    Parameters
    ----------
    floored_dbm
        `LookupTable.floored_dbm`, shape (n_cells, n_places), float32.
    differences
        Whether only differences between antennas count.
    silence
        Weight of antennas that are expected and not named; 0 with differences.
    """

    floored_dbm: np.ndarray
    differences: bool
    silence: float

    def misfit(self, reports: Reports, shift_db: np.ndarray, progress: Progress = no_progress) -> np.ndarray:
        """Return the sum of squares [dB²] of each report at each place, shape (n, n_places), float32.

        Parameters
        ----------
        shift_db
            What is taken from the RSS of each report [dB], shape (n,).
        progress
            Called now and then, to cancel by.
        """
        columns, slot = np.unique(reports.column, return_inverse=True)
        slot = slot.reshape(reports.column.shape)
        there = reports.column >= 0
        row = np.nonzero(there)[0]
        weight = np.zeros((len(reports), len(columns)), dtype=np.float32)
        measured = np.zeros_like(weight)
        weight[row, slot[there]] = 1.0
        measured[row, slot[there]] = (reports.rss_dbm - shift_db[:, None] - _MIDDLE_DBM)[there]
        table = self.floored_dbm[columns] - _MIDDLE_DBM
        squares = measured @ table
        squares *= -2.0
        squares += weight @ (table * table)
        squares += (measured * measured).sum(axis=1)[:, None]
        if self.differences:
            sums = weight @ table
            np.subtract(measured.sum(axis=1)[:, None], sums, out=sums)
            sums *= sums
            sums /= reports.n_antennas[:, None].astype(np.float32)
            squares -= sums
        if self.silence:
            # Reports are grouped by their limit, so that the excess of the table over it is computed once a group.
            limit = _whole_limit(reports, shift_db)
            silent = self._silent(reports)
            for one in np.unique(limit).tolist():
                progress(0.0)
                rows = np.flatnonzero(limit == one)
                excess = np.maximum(self.floored_dbm - np.float32(one), 0)
                squares[rows] += np.float32(self.silence) * (silent[rows] @ (excess * excess))
        return squares

    def errors_at(self, reports: Reports, place: np.ndarray, shift_db: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return root mean squares over the antennas compared [dB], in double precision, and mean differences [dB] at some places.

        Parameters
        ----------
        place
            Columns of the table, shape (n, m), −1 for none.

        Returns
        -------
        tuple
            Both of shape (n, m), the first one NaN for none.
        """
        entries = self.floored_dbm[reports.column[:, None, :], place[:, :, None]].astype(float)
        there = (reports.column >= 0)[:, None, :]
        difference = np.where(there, (reports.rss_dbm - shift_db[:, None])[:, None, :] - entries, 0.0)
        number = reports.n_antennas[:, None]
        mean = difference.sum(axis=2) / number
        total = (difference**2).sum(axis=2)
        if self.differences:
            total -= number * mean**2
        if self.silence:
            limit, silent = _whole_limit(reports, shift_db), self._silent(reports)
            for row in range(len(reports)):
                excess = np.maximum(self.floored_dbm[:, place[row]] - limit[row], 0)
                total[row] += self.silence * (silent[row] @ excess**2)
        return np.where(place >= 0, np.sqrt(np.maximum(total, 0) / number), np.nan), mean

    def _silent(self, reports: Reports) -> np.ndarray:
        """1 for cells that a report does not name, shape (n, n_cells), float32."""
        silent = np.ones((len(reports), len(self.floored_dbm)), dtype=np.float32)
        there = reports.heard >= 0
        silent[np.nonzero(there)[0], reports.heard[there]] = 0.0
        return silent


def _whole_limit(reports: Reports, shift_db: np.ndarray) -> np.ndarray:
    """What an antenna that is not named is weaker than, in whole decibels upwards [dBm], shape (n,)."""
    return np.ceil(reports.limit_dbm - shift_db)


def estimate_offset(reports: Reports, comparison: Comparison, progress: Progress = no_progress) -> float:
    """Return what a device reads too much [dB]: the offset with which its reports fit their best places best; 0 when none tells.

    The mean over instants of the root mean square at the best place is searched for its smallest value. That is the likelihood with
    positions maximised out, with heavy tails against single bad instants. Reports name the strongest antennas only, so antennas that are
    expected and not named count here in any case: without them the estimate is several decibels too high, because a place where the named
    antennas are weak and others strong would fit as well.

    Parameters
    ----------
    reports
        All antennas that are named.
    """
    enough = np.flatnonzero(reports.n_antennas >= _LEAST_ANTENNAS)
    if not len(enough):
        return 0.0
    chosen = enough[np.unique(np.linspace(0, len(enough) - 1, min(len(enough), _MOST_LOOKED_AT)).astype(int))]
    looked = reports.take(chosen)
    n_places = comparison.floored_dbm.shape[1]
    places = np.unique(np.linspace(0, n_places - 1, min(n_places, _MOST_PLACES)).astype(int))
    judge = replace(comparison, floored_dbm=comparison.floored_dbm[:, places], differences=False, silence=1.0)

    def misfit(offset_db: float) -> float:
        progress(0.0)
        least = judge.misfit(looked, np.full(len(looked), offset_db)).min(axis=1)
        return float(np.sqrt(np.maximum(least, 0) / looked.n_antennas).mean())

    coarse = np.arange(-_MOST_OFFSET_DB, _MOST_OFFSET_DB + _COARSE_DB / 2, _COARSE_DB)
    best = coarse[np.argmin([misfit(offset) for offset in coarse.tolist()])]
    fine = best + np.arange(-_COARSE_DB, _COARSE_DB + _FINE_DB / 2, _FINE_DB)
    return float(fine[np.argmin([misfit(offset) for offset in fine.tolist()])])
