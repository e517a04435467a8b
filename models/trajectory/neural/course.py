"""Records on their way through a sequence network, in training and afterwards. This file needs torch; import it inside functions only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np
import torch

from ...progress import Progress
from .layers import Batch, Noise, Output
from .pixels import SparseTensors
from .records import RecordArrays
from .windows import batches, prediction_windows

#: Records that are located at once; fewer where tensors are dense.
_RECORDS, _DENSE_RECORDS = 1024, 128


@dataclass(frozen=True)
class Course:
    """Records as a sequence network reads them.

    Parameters
    ----------
    arrays
        Of the records.
    starts
        First row of each trajectory and the end.
    device
        Where the network is.
    scores
        Logarithms of the CNN's scores, shape (n, C), or None.
    pixels, side
        3D tensors and their side, or None and 0.
    """

    arrays: RecordArrays
    starts: np.ndarray
    device: torch.device
    scores: np.ndarray | None = None
    pixels: SparseTensors | None = None
    side: int = 0

    def batch(self, windows: np.ndarray) -> Batch:
        """The records of windows: rows of shape (n_windows, length), -1 for none."""
        there = windows >= 0
        rows = np.where(there, windows, 0)

        def sent(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values).to(self.device)

        scores = None if self.scores is None else sent(self.scores[rows]).float() * sent(there[..., None])
        pixels = None
        if self.pixels is not None:
            dense = self.pixels.dense(rows.ravel(), self.side**2) * there.reshape(-1, 1, 1)
            pixels = sent(dense.astype(np.float32)).view(*rows.shape, self.side, self.side, -1).permute(0, 1, 4, 2, 3)
        return Batch(
            sent(np.where(there[..., None], self.arrays.cell[rows], -1)),
            sent(np.where(there[..., None], self.arrays.level[rows], np.float32(-1))),
            sent(self.arrays.context[rows] * there[..., None]),
            sent(there[..., None].astype(np.float32)),
            scores,
            pixels,
        )


def locate(
    network: Callable[[Batch, Noise | None], Output], course: Course, length: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of all records from windows that overlap by half, averaged with more weight on their middle.

    Returns
    -------
    tuple
        Positions, shape (n, 2), and spread, shape (n,), in standard deviations: what the network expects to be off, and how far apart
        windows put a record.
    """
    n = len(course.arrays.cell)
    total = np.zeros((n, 5))
    most = _RECORDS if course.pixels is None else _DENSE_RECORDS
    todo = batches(prediction_windows(course.starts, length, max(1, length // 2)), most)
    with torch.inference_mode():
        for step, windows in enumerate(todo):
            progress(step / len(todo))
            output = network(course.batch(windows), None)
            there = windows >= 0
            size = there.sum(axis=1, keepdims=True)
            place = np.arange(windows.shape[1])
            weight = np.minimum(place + 1, size - place)[there]
            xy = output.xy.float().cpu().numpy()[there]
            expected = np.exp(np.clip(output.log_spread.float().cpu().numpy()[there], -7, 3))
            columns = (np.ones(len(xy)), xy[:, 0], xy[:, 1], (xy**2).sum(axis=1), expected)
            for column, values in enumerate(columns):
                total[:, column] += np.bincount(windows[there], weights=weight * values, minlength=n)
    mean = total[:, 1:] / total[:, :1]
    apart = np.maximum(mean[:, 2] - (mean[:, :2] ** 2).sum(axis=1), 0)
    return mean[:, :2], np.sqrt(mean[:, 3] ** 2 + apart)
