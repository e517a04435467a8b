"""The area as an image: base stations become pixels of a sparse 3D tensor, truths become grid cells (DeepLoc, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..measurements import Measurements
from .records import Scales

#: Margin around the truths, as a share of their bounding box on each side, and at least so wide [m].
MARGIN, LEAST_MARGIN_M = 0.02, 25.0
#: Records before a record count in its tensor when they are at most so much older [s].
LONGEST_BACK_S = 60.0


@dataclass(frozen=True)
class PixelGrid:
    """M × N cells over the bounding box of the training truths; row 0 is north.

    Parameters
    ----------
    rows, columns
        M and N.
    left_m, top_m
        North-west corner [m].
    width_m, height_m
        Of one cell, the paper's cw × ch [m].
    """

    rows: int
    columns: int
    left_m: float
    top_m: float
    width_m: float
    height_m: float

    @classmethod
    def over(cls, scales: Scales, rows: int, columns: int) -> PixelGrid:
        """Return the grid over the truths."""
        margin = np.maximum(MARGIN * (scales.high - scales.low), LEAST_MARGIN_M)
        low, high = scales.low - margin, scales.high + margin
        width, height = (high - low) / (columns, rows)
        return cls(rows, columns, float(low[0]), float(high[1]), float(width), float(height))

    def pixel_of(self, xy_m: np.ndarray) -> np.ndarray:
        """Flat pixel of positions [m], shape (n, 2): the nearest one of the border for those outside, -1 where unknown."""
        known = np.isfinite(xy_m).all(axis=1)
        xy = np.where(known[:, None], xy_m, 0.0)
        column = np.clip(np.floor((xy[:, 0] - self.left_m) / self.width_m), 0, self.columns - 1)
        row = np.clip(np.floor((self.top_m - xy[:, 1]) / self.height_m), 0, self.rows - 1)
        return np.where(known, row * self.columns + column, -1).astype(np.int64)

    def centre_m(self, pixel: np.ndarray) -> np.ndarray:
        """Centres [m] of flat pixels, shape (n, 2)."""
        row, column = np.divmod(pixel, self.columns)
        return np.column_stack([self.left_m + (column + 0.5) * self.width_m, self.top_m - (row + 0.5) * self.height_m])


@dataclass(frozen=True)
class SparseTensors:
    """3D feature tensors of records, as the pixels that are not empty.

    Parameters
    ----------
    first
        First entry of each record and the end, shape (n + 1,).
    pixel
        Flat pixel, shape (n_entries,).
    value
        Features by equation (1), shape (n_entries, F), float32.
    """

    first: np.ndarray
    pixel: np.ndarray
    value: np.ndarray

    def dense(self, rows: np.ndarray, n_pixels: int) -> np.ndarray:
        """The tensors of some records with all pixels, shape (len(rows), n_pixels, F)."""
        entry, owner = entries_of(self.first, rows)
        full = np.zeros((len(rows), n_pixels, self.value.shape[1]), dtype=np.float32)
        full[owner, self.pixel[entry]] = self.value[entry]
        return full


def sparse_tensors(data: Measurements, scales: Scales, cell_pixel: np.ndarray, preceding: int) -> SparseTensors:
    """Build the 3D tensors of records from themselves and up to `preceding` records before (k + 1 MRs), by equation (1).

    I[m, n, f] is the mean of feature f over the B(m, n) heard base stations in pixel (m, n); a base station heard in several of the k + 1
    records counts as often. A feature that is nowhere known in a pixel is 0, as in an empty one.

    Parameters
    ----------
    cell_pixel
        Flat pixel of each cell, shape (n_cells,), -1 for none.
    """
    n = len(data)
    features = scales.features(data)
    pixel = np.append(cell_pixel, -1)[data.cell]
    starts = data.starts
    begin = np.repeat(starts[:-1], np.diff(starts)) if n else np.empty(0, dtype=np.int64)
    owner, source = [np.arange(n)], [np.arange(n)]
    for back in range(1, preceding + 1):
        late = np.arange(back, n)
        early = late - back
        near = (early >= begin[late]) & (data.time_s[late] - data.time_s[early] <= LONGEST_BACK_S)
        owner.append(late[near])
        source.append(early[near])
    record, from_row = np.concatenate(owner), np.concatenate(source)
    pixels = pixel[from_row]
    used = pixels >= 0
    values = features[from_row][used]
    size = int(cell_pixel.max(initial=0)) + 1
    key = (record[:, None] * size + pixels)[used]
    found, inverse = np.unique(key, return_inverse=True)
    value = np.zeros((len(found), features.shape[2]), dtype=np.float32)
    for f in range(features.shape[2]):
        known = np.isfinite(values[:, f])
        count = np.bincount(inverse[known], minlength=len(found))
        total = np.bincount(inverse[known], weights=values[known, f], minlength=len(found))
        value[:, f] = total / np.maximum(count, 1)
    first = np.searchsorted(found, np.arange(n + 1) * size)
    return SparseTensors(first, found % size, value)


def entries_of(first: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entries of some records, and the position in `rows` of the record each belongs to."""
    count = first[rows + 1] - first[rows]
    owner = np.repeat(np.arange(len(rows)), count)
    return np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count) + first[rows][owner], owner


def occupied(xy_m: np.ndarray, grid: PixelGrid, most: int) -> tuple[np.ndarray, PixelGrid]:
    """Grid cells that hold training truths, ascending: the classes of equation (2) and the hidden units of the prediction layer.

    Cells that hold none could only be learned as impossible. Where more than `most` hold some, cells are joined, 2 × 2, 3 × 3 …

    Returns
    -------
    tuple
        Flat pixels, shape (n_classes,), and the grid they belong to.
    """
    factor = 1
    while True:
        rows, columns = -(-grid.rows // factor), -(-grid.columns // factor)
        joined = PixelGrid(rows, columns, grid.left_m, grid.top_m, grid.width_m * factor, grid.height_m * factor)
        found = np.unique(joined.pixel_of(xy_m))
        if len(found) <= most or rows * columns == 1:
            return found, joined
        factor += 1
