"""MPEG-7's Edge Histogram: which edges an image has, and where.

The image is cut into 4 x 4 parts, each part into small blocks; a block's edge is vertical, horizontal, rises (45°), falls (135°), or has no
direction. The description counts the five kinds in each part, in 3 bits. Two images are compared part by part, and also by
columns, rows, quarters and as wholes, which forgives a shift.

References
----------
ISO/IEC 15938-3:2002, clause 7.4, and ISO/IEC TR 15938-8:2002 (extraction, matching); D. K. Park, Y. S. Jeon, C. S. Won, Efficient use of
local edge histogram descriptor, ACM Multimedia Workshops 2000 (semi-global histograms).
"""

from __future__ import annotations

import numpy as np

PARTS, KINDS = 4, 5
#: About so many blocks make an image.
_BLOCKS = 1100
#: A block whose strongest filter answers less than this has no edge.
_LEAST_ANSWER = 11.0
#: Smaller images are enlarged to this many pixels along their shorter side.
_LEAST_SIDE = 70
_ROOT_2 = 2.0**0.5
#: Filters on the four quarters of a block (upper left, upper right, lower left, lower right), in the order of the kinds.
_FILTERS = np.array(
    [[1, -1, 1, -1], [1, 1, -1, -1], [_ROOT_2, 0, 0, -_ROOT_2], [0, _ROOT_2, -_ROOT_2, 0], [2, -2, -2, 2]], dtype=float
)
#: What each of the eight levels stands for, by kind (15938-3, clause 7.4).
LEVELS = np.array(
    [
        [0.010867, 0.057915, 0.099526, 0.144849, 0.195573, 0.260504, 0.358031, 0.530128],
        [0.012266, 0.069934, 0.125879, 0.182307, 0.243396, 0.314563, 0.411728, 0.564319],
        [0.004193, 0.025852, 0.046860, 0.068519, 0.093286, 0.123490, 0.161505, 0.228960],
        [0.004174, 0.025924, 0.046232, 0.067163, 0.089655, 0.115391, 0.151904, 0.217745],
        [0.006778, 0.051667, 0.108650, 0.166257, 0.224226, 0.285691, 0.356375, 0.450972],
    ]
)
#: The quarters, and the middle, that are 2 x 2 parts: their upper left part.
_SQUARES = ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))


def edge_shares(image: np.ndarray) -> np.ndarray:
    """Share of the blocks of each part that have an edge of each kind, shape (4, 4, 5), row by row of parts.

    Parameters
    ----------
    image
        Shape (height, width, 3), uint8.
    """
    grey = image.astype(np.float32).mean(axis=2)
    enlarge = -(-_LEAST_SIDE // min(grey.shape))
    if enlarge > 1:
        grey = grey.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    height, width = grey.shape
    side = max(2, int(np.sqrt(height * width / _BLOCKS) / 2) * 2)
    rows, columns = height // side, width // side
    half = side // 2
    quarters = grey[: rows * side, : columns * side].reshape(rows, 2, half, columns, 2, half).mean(axis=(2, 5))
    quarters = quarters.transpose(0, 2, 1, 3).reshape(rows, columns, 4)
    answers = np.abs(quarters @ _FILTERS.T)
    kind = answers.argmax(axis=2)
    kind[answers.max(axis=2) < _LEAST_ANSWER] = KINDS  # none
    part_row = np.arange(rows) * side * PARTS // height
    part_column = np.arange(columns) * side * PARTS // width
    part = part_row[:, None] * PARTS + part_column[None]
    counts = np.bincount((part * (KINDS + 1) + kind).reshape(-1), minlength=PARTS * PARTS * (KINDS + 1))
    counts = counts.reshape(PARTS, PARTS, KINDS + 1)
    return counts[..., :KINDS] / np.maximum(counts.sum(axis=2, keepdims=True), 1)


def edge_histogram(image: np.ndarray) -> np.ndarray:
    """The 80 bins of an image as levels 0 to 7, shape (80,), float32: kind quickest, then column, then row of the part."""
    between = (LEVELS[:, 1:] + LEVELS[:, :-1]) / 2
    return (edge_shares(image)[..., None] > between).sum(axis=-1).reshape(-1).astype(np.float32)


def with_global(levels: np.ndarray) -> np.ndarray:
    """Local, global (five times) and semi-global histograms, shape (..., 150), of levels (..., 80).

    The semi-global ones are four columns, four rows, the four quarters and the middle.
    """
    local = LEVELS[np.arange(80) % KINDS, levels.astype(np.int64)].reshape(*levels.shape[:-1], PARTS, PARTS, KINDS)
    squares = [local[..., row : row + 2, column : column + 2, :].mean(axis=(-3, -2)) for row, column in _SQUARES]
    pieces = [
        local.reshape(*levels.shape[:-1], -1),
        KINDS * local.mean(axis=(-3, -2)),
        local.mean(axis=-3).reshape(*levels.shape[:-1], -1),
        local.mean(axis=-2).reshape(*levels.shape[:-1], -1),
        *squares,
    ]
    return np.concatenate(pieces, axis=-1)


def edge_histogram_distance(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """L1 between one description and many, with the global and semi-global histograms, shape (n,)."""
    return np.abs(with_global(many) - with_global(one)).sum(axis=1)
