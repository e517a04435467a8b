"""Candidates as rows of a table, one per candidate, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .candidates import Candidates


def in_rows(candidates: Candidates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a row per candidate, and one for each instant that has none.

    Returns
    -------
    tuple
        Instant, rank (1 is best, 0 where there is no candidate) and candidate (−1 where there is none) of each row, shape (n_rows,).
    """
    count = np.diff(candidates.first)
    rows = np.maximum(count, 1)
    instant = np.repeat(np.arange(len(candidates)), rows)
    place = np.arange(len(instant)) - np.repeat(np.cumsum(rows) - rows, rows)
    there = count[instant] > 0
    return instant, np.where(there, place + 1, 0), np.where(there, candidates.first[:-1][instant] + place, -1)


def candidates_of(
    device: tuple[Sequence[str], np.ndarray],
    trajectory: tuple[Sequence[str], np.ndarray],
    time_s: np.ndarray,
    xy_m: np.ndarray,
    *,
    instant: np.ndarray | None = None,
    rank: np.ndarray | None = None,
    error_db: np.ndarray | None = None,
    row: np.ndarray | None = None,
) -> Candidates:
    """Build candidates from rows in any order.

    Parameters
    ----------
    device, trajectory
        Names, and which one each row has, shape (n,); −1 for none.
    time_s
        Finite, shape (n,). Rows of one trajectory, device, time and instant belong together.
    xy_m
        Shape (n, 2), NaN for a row that only says that there was an instant.
    instant
        Number of the instant within its trajectory, which tells two records of one time apart, shape (n,).
    rank, error_db
        Candidates of an instant are ordered by rank, then error [dB], then as they come; shape (n,), NaN for unknown.
    row
        Where an instant came from, shape (n,); that of its first row counts.
    """
    n = len(time_s)
    nothing = np.full(n, np.nan)
    error = nothing if error_db is None else error_db
    number = np.zeros(n) if instant is None else np.where(np.isfinite(instant), instant, -1)
    rows = np.arange(n) if row is None else row
    place = nothing if rank is None else rank
    device_names, device_code = _with_nameless(*device)
    trajectory_names, trajectory_code = _with_nameless(*trajectory)
    order = np.lexsort((np.arange(n), error, place, number, time_s, device_code, trajectory_code))
    keys = np.column_stack([trajectory_code, device_code, time_s, number])[order]
    new = np.concatenate([np.ones(min(n, 1), dtype=bool), (np.diff(keys, axis=0) != 0).any(axis=1)])
    heads = order[new]
    of_row = np.cumsum(new) - 1
    there = np.isfinite(xy_m[order]).all(axis=1)
    count = np.bincount(of_row[there], minlength=len(heads))
    # Devices that share a trajectory's name take turns in time.
    turn = np.lexsort((np.arange(len(heads)), time_s[heads], trajectory_code[heads]))
    first = np.concatenate([[0], np.cumsum(count)])
    kept = order[there]
    picked = np.concatenate([np.empty(0, dtype=np.int64), *(kept[first[one] : first[one + 1]] for one in turn)])
    heads, count = heads[turn], count[turn]
    return Candidates(
        device_names,
        device_code[heads].astype(np.int32),
        trajectory_names,
        trajectory_code[heads].astype(np.int32),
        np.asarray(time_s, dtype=float)[heads],
        np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        np.asarray(xy_m, dtype=float)[picked],
        np.asarray(error, dtype=float)[picked],
        np.asarray(rows)[heads].astype(np.int64),
    )


def _with_nameless(names: Sequence[str], code: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and codes in which −1 is the name ""."""
    code = np.asarray(code)
    if not (code < 0).any():
        return tuple(names), code
    return (*names, ""), np.where(code < 0, len(names), code)
