"""Where devices really were at some times, from known positions at others."""

from __future__ import annotations

import numpy as np

#: Between known positions farther apart than this nothing is known [s].
LONGEST_GAP_S = 60.0
#: Times in layers are kept to the millisecond [s].
_TICK_S = 1.5e-3


def positions_at(
    key: np.ndarray,
    time_s: np.ndarray,
    known_key: np.ndarray,
    known_time_s: np.ndarray,
    known_xy_m: np.ndarray,
    longest_gap_s: float = LONGEST_GAP_S,
) -> np.ndarray:
    """Return the positions on the straight lines between known ones, shape (n, 2), NaN where there are none around.

    Parameters
    ----------
    key, time_s
        Device, a whole number, and time [s] of what is asked, shape (n,).
    known_key, known_time_s, known_xy_m
        The same of known positions [m], shapes (k,), (k,) and (k, 2), in any order.
    longest_gap_s
        Between known positions farther apart in time than this nothing is known [s].
    """
    result = np.full((len(key), 2), np.nan)
    for device in np.unique(key).tolist():
        rows, known = np.flatnonzero(key == device), np.flatnonzero(known_key == device)
        if not len(known):
            continue
        known = known[np.argsort(known_time_s[known], kind="stable")]
        times, wanted = known_time_s[known], time_s[rows]
        after = np.clip(np.searchsorted(times, wanted - _TICK_S), 0, len(times) - 1)
        before = np.where(np.abs(times[after] - wanted) <= _TICK_S, after, np.maximum(after - 1, 0))
        inside = (wanted >= times[before] - _TICK_S) & (wanted <= times[after] + _TICK_S)
        inside &= times[after] - times[before] <= longest_gap_s
        for axis in range(2):
            between = np.interp(wanted, times, known_xy_m[known, axis])
            result[rows, axis] = np.where(inside, between, np.nan)
    return result
