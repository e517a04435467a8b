"""Windows over records of one trajectory: how long by the serving base stations, and which rows they hold (DeepLoc, section 4.2.3)."""

from __future__ import annotations

import numpy as np

from ..measurements import Measurements

#: Longest windows: a phone that lies on a desk keeps its serving cell for hours, which says nothing of how people move.
LONGEST_FIRST, LONGEST = 16, 48


def run_lengths(data: Measurements) -> tuple[float, float]:
    """C1_bs and C2_bs: mean length of runs of records that share the serving BS, and that share a neighbour too.

    The paper counts "those MR samples sharing the same serving BS" (27.53 on its Jiading set) and "both the same serving BS and at least
    one neighbouring BS" (8.33). Runs of one serving cell are 25.7 long on our part of that set. Runs with one neighbour common to all
    of their records are 20.1 long there, far from 8.33, for hardly any neighbour comes and goes within seconds; runs with the same
    strongest neighbour are 6.8 long, so that is how we read the second.

    Returns
    -------
    tuple
        C1_bs and C2_bs, numbers of records, at least 1; C2_bs ≤ C1_bs.
    """
    if not len(data):
        return 1.0, 1.0
    neighbour = data.cell[:, 1:]
    strength = np.where(neighbour >= 0, np.nan_to_num(data.rss_dbm[:, 1:], nan=-500.0), -np.inf)
    strongest = neighbour[np.arange(len(data)), strength.argmax(axis=1)]
    new = np.ones(len(data), dtype=bool)
    new[1:] = (np.diff(data.trajectory) != 0) | (np.diff(data.cell[:, 0]) != 0)
    newer = new.copy()
    newer[1:] |= np.diff(strongest) != 0
    return len(data) / float(new.sum()), len(data) / float(newer.sum())


def window_sizes(c1: float, c2: float) -> tuple[int, int]:
    """Window sizes w1 = C2_bs and w2 with w1·w2 = C1_bs, rounded, at least 1, and w1·w2 at most `LONGEST`."""
    first = min(max(1, round(c2)), LONGEST_FIRST)
    return first, min(max(1, round(c1 / first)), LONGEST // first)


def training_windows(starts: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Windows that cover every record at least once and begin anywhere, so that each epoch sees other ones.

    Parameters
    ----------
    starts
        First row of each trajectory and the end, shape (n + 1,).
    length
        Records in a window.

    Returns
    -------
    np.ndarray
        Rows, shape (n_windows, length), -1 behind the end of a short trajectory.
    """
    size = np.diff(starts)
    offset = np.where(size > length, rng.integers(0, length, len(size)), 0)
    count = np.maximum(1, -(-(size + offset) // length))
    part, index = _counted(count)
    first = np.clip(index * length - offset[part], 0, np.maximum(size[part] - length, 0))
    return _rows(starts, part, first, length)


def prediction_windows(starts: np.ndarray, length: int, stride: int) -> np.ndarray:
    """Windows every `stride` records and at the end of each trajectory, rows of shape (n_windows, length), -1 for none."""
    size = np.diff(starts)
    part, index = _counted(1 + np.maximum(0, -(-(size - length) // stride)))
    first = np.minimum(index * stride, np.maximum(size[part] - length, 0))
    return _rows(starts, part, first, length)


def batches(windows: np.ndarray, most_records: int) -> list[np.ndarray]:
    """Put windows together that are about equally long, without the columns that are empty in all of them.

    Returns
    -------
    list
        Rows, each of shape (n_windows, length of the longest), of at most `most_records` (or one window).
    """
    size = (windows >= 0).sum(axis=1)
    order = np.argsort(-size, kind="stable")
    found, begin = [], 0
    while begin < len(order):
        longest = max(1, int(size[order[begin]]))
        end = begin + max(1, most_records // longest)
        found.append(windows[order[begin:end], :longest])
        begin = end
    return found


def _counted(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For `count` things of each part: the part and the number within it of each."""
    part = np.repeat(np.arange(len(count)), count)
    return part, np.arange(len(part)) - np.repeat(np.cumsum(count) - count, count)


def _rows(starts: np.ndarray, part: np.ndarray, first: np.ndarray, length: int) -> np.ndarray:
    rows = (starts[:-1][part] + first)[:, None] + np.arange(length)
    return np.where(rows < starts[1:][part][:, None], rows, -1)
