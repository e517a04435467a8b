"""Many records in pieces of bounded memory, a thread each."""

from __future__ import annotations

from typing import Callable

import numpy as np

from ..chunks import run_chunks
from ..progress import Progress, stoppable
from .measurements import Measurements

#: Records located in one piece.
CHUNK = 4096


def in_pieces(
    data: Measurements,
    overlap: int,
    threads: int,
    progress: Progress,
    work: Callable[[Measurements, Progress], np.ndarray],
    size: int | None = None,
) -> np.ndarray:
    """Call `work` for pieces of `data` in several threads and put the results together.

    Each thread should compute with one thread of its own: on small tensors two threads that share each operation wait for one another
    most of the time.

    Parameters
    ----------
    overlap
        Records of a trajectory that is cut which a piece also gets, on both sides.
    work
        Given records and something to call often, which stops it when the work is cancelled; returns x, y and spread [m], shape
        (3, n_piece).
    size
        Records of a piece, about `CHUNK` when not given.

    Returns
    -------
    np.ndarray
        Shape (3, n).
    """
    parts = pieces(data.starts, size or CHUNK, overlap)
    told, alive = stoppable(progress)

    def one(number: int, _: int) -> np.ndarray:
        begin, end, first, last = parts[number]
        return work(data.take(slice(first, last)), alive)[:, begin - first : end - first]

    return np.concatenate([np.empty((3, 0)), *run_chunks(one, len(parts), 1, threads, told)], axis=1)


def pieces(starts: np.ndarray, size: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Pieces of about `size` rows: begin and end, and the first and last row to read, `overlap` farther in a trajectory that is cut."""
    found, begin, n = [], 0, int(starts[-1])
    while begin < n:
        end = min(begin + size, n)
        whole = int(starts[np.searchsorted(starts, end, side="right") - 1])
        if whole > begin:
            end = whole
        left, right = (int(np.searchsorted(starts, row, side="right")) - 1 for row in (begin, end - 1))
        found.append((begin, end, max(int(starts[left]), begin - overlap), min(int(starts[right + 1]), end + overlap)))
        begin = end
    return found
