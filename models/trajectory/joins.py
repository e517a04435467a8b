"""Which record of one table belongs to which of another: by names, by a row number, by the nearest time.

Whatever has to be equal (device, trajectory, row) becomes one whole number a record, its key; records with other keys never meet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Names and their codes, shape (n,), -1 for none.
Named = tuple[Sequence[str], np.ndarray]
#: Times in layers are kept to the millisecond, so two of the same moment may be this far apart [s].
_TICK_S = 1.5e-3


def common_codes(named: Named, other: Named) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n,) and (m,) of the names of two tables in one list; -1 stays -1."""
    code_of = {name: code for code, name in enumerate(named[0])}
    new = np.array([code_of.setdefault(name, len(code_of)) for name in other[0]] + [-1], dtype=np.int64)
    return named[1].astype(np.int64), new[other[1]]


def joint_keys(
    key: np.ndarray, value: np.ndarray, other_key: np.ndarray, other_value: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keys (n,) and (m,) that are equal where both the keys and the values given, whole numbers, are."""
    values, code = np.unique(np.concatenate([value, other_value]), return_inverse=True)
    both = np.concatenate([key, other_key]) * len(values) + code
    return both[: len(key)], both[len(key) :]


def same_row(
    key: np.ndarray,
    row: np.ndarray,
    time_s: np.ndarray,
    other_key: np.ndarray,
    other_row: np.ndarray,
    other_time_s: np.ndarray,
    tolerance_s: float,
) -> np.ndarray:
    """Index of the other record with the same key and row number, where there is one alone and the times agree.

    Parameters
    ----------
    key, row, time_s
        Whole numbers, row numbers with -1 for none, and times [s], shape (n,); those of the others, shape (m,).
    tolerance_s
        Most seconds apart, and the millisecond to which layers keep times.

    Returns
    -------
    np.ndarray
        Shape (n,), -1 for none.
    """
    order = np.lexsort((other_row, other_key))
    order = order[other_row[order] >= 0]
    if not len(order):
        return np.full(len(key), -1, dtype=np.int64)
    pairs, other_pairs = joint_keys(key, row, other_key[order], other_row[order])
    found = np.minimum(np.searchsorted(other_pairs, pairs), len(order) - 1)
    again = other_pairs[1:] == other_pairs[:-1]
    alone = ~(np.append(again, False) | np.append(False, again))
    candidate = order[found]
    near = np.abs(other_time_s[candidate] - time_s) <= tolerance_s + _TICK_S
    return np.where((other_pairs[found] == pairs) & (row >= 0) & alone[found] & near, candidate, -1)


def nearest_in_time(
    key: np.ndarray, time_s: np.ndarray, other_key: np.ndarray, other_time_s: np.ndarray, tolerance_s: float
) -> np.ndarray:
    """Index of the other record with the same key, e.g. the device, that is nearest in time; of two as near the earlier one.

    Parameters
    ----------
    key, time_s
        Whole numbers and times [s] in any order, shape (n,); those of the others, shape (m,).
    tolerance_s
        Most seconds apart, and the millisecond to which layers keep times.

    Returns
    -------
    np.ndarray
        Shape (n,), -1 for none.
    """
    n_other = len(other_key)
    best, least = np.full(len(key), -1, dtype=np.int64), np.full(len(key), np.inf)
    if not n_other:
        return best
    order = np.lexsort((np.concatenate([other_time_s, time_s]), np.concatenate([other_key, key])))
    is_other, place = order < n_other, np.arange(len(order))
    before = np.maximum.accumulate(np.where(is_other, place, 0))
    after = np.minimum.accumulate(np.where(is_other, place, len(order) - 1)[::-1])[::-1]
    mine = order[~is_other] - n_other
    for neighbour in (before, after):
        row = order[neighbour[~is_other]]
        usable = row < n_other  # at either end there may be none
        row = np.where(usable, row, 0)
        away_s = np.abs(other_time_s[row] - time_s[mine])
        closer = usable & (other_key[row] == key[mine]) & (away_s < least[mine]) & (away_s <= tolerance_s + _TICK_S)
        best[mine[closer]], least[mine[closer]] = row[closer], away_s[closer]
    return best
