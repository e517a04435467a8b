"""The graph on which ways lead around buildings: free cells of a raster, and the corners of what is not free.

A line is *clear* when it crosses free cells only; where it runs along a border one of the cells on both sides must be free, and where it
runs through a corner, houses that only touch there close the way. Cells lead to cells up to three rows and columns away, so that ways in
the open are at most 1.4 % too long; corners are nodes of their own, so that bends cost nothing, and lead on along walls.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_matrix

#: Moves (rows, columns) between cells, and between corners, in one half plane; the other half are the same, turned.
_MOVES = tuple(
    (rows, columns)
    for rows in range(4)
    for columns in range(-3, 4)
    if math.gcd(rows, abs(columns)) == 1 and (rows > 0 or columns > 0)
)
#: Moves from a corner to centres of cells, in half cells.
_FROM_CORNER = tuple(
    (rows, columns)
    for rows in (-5, -3, -1, 1, 3, 5)
    for columns in (-5, -3, -1, 1, 3, 5)
    if math.gcd(rows, columns) == 1
)
#: What is looked at beyond the block's border.
_PAD = 3

Conditions = tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int, int, int], ...]]


@lru_cache(maxsize=65_536)
def conditions(from_centre: bool, rows: int, columns: int) -> Conditions:
    """Return what makes a line clear that leads `rows` down and `columns` right, in half cells.

    Parameters
    ----------
    from_centre
        Whether it begins at the centre of cell (0, 0), else at that cell's north-west corner.

    Returns
    -------
    tuple
        Cells (row, column) that must be free, and pairs of cells (row, column, row, column) of which one must be.
    """
    begin = int(from_centre)
    steps = (rows, columns)
    scale = max(abs(rows), 1) * max(abs(columns), 1)
    marks = {0, scale}  # where the line crosses from row to row or from column to column
    for step in steps:
        marks.update(
            abs(at - begin) * scale // abs(step)
            for at in range(min(begin, begin + step), max(begin, begin + step) + 1)
            if at % 2 == 0 and step
        )
    ordered = sorted(marks)
    cells: dict[tuple[int, int], None] = {}
    pairs: dict[tuple[int, int, int, int], None] = {}
    for low, high in zip(ordered, ordered[1:]):
        row, column = ((2 * scale * begin + step * (low + high)) // (4 * scale) for step in steps)
        if begin == 0 and rows == 0:  # along a border
            pairs[row - 1, column, row, column] = None
        elif begin == 0 and columns == 0:
            pairs[row, column - 1, row, column] = None
        else:
            cells[row, column] = None
    for mark in ordered[1:-1]:
        ends = [scale * begin + step * mark for step in steps]
        if all(end % (2 * scale) == 0 for end in ends):  # through a corner
            row, column = (end // (2 * scale) for end in ends)
            pairs[row - 1, column - 1, row, column] = None
            pairs[row - 1, column, row, column - 1] = None
    return tuple(cells), tuple(pairs)


class CellGraph:
    """The graph of a rectangle of cells.

    Parameters
    ----------
    free
        Where one can be, shape (height, width), bool.
    top, left
        Row and column of its first cell in the whole grid.

    Attributes
    ----------
    arcs
        Lengths [cells] from node to node, CSR; nodes are the cells row by row, then the corners.
    """

    def __init__(self, free: np.ndarray, top: int, left: int) -> None:
        self.top, self.left = top, left
        self.height, self.width = free.shape
        self._free = np.pad(free, _PAD)
        blocked = ~free
        four = blocked[:-1, :-1].astype(np.int8) + blocked[:-1, 1:] + blocked[1:, :-1] + blocked[1:, 1:]
        rows, columns = np.nonzero(four == 1)
        self.corner_row, self.corner_column = rows + 1, columns + 1
        parts = [self._between_cells(), self._from_corners(), self._between_corners(), self._along_walls()]
        start, end, length = (np.concatenate(each) for each in zip(*parts))
        nodes = free.size + len(rows)
        both = (np.concatenate([start, end]), np.concatenate([end, start]))
        self.arcs = csr_matrix((np.concatenate([length, length]), both), shape=(nodes, nodes))

    def nodes(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Nodes of cells of the whole grid, which must lie in the rectangle."""
        return np.asarray((row - self.top) * self.width + column - self.left)

    def places(self, node: np.ndarray) -> np.ndarray:
        """Where nodes are in the whole grid (row, column; cells are unit squares), shape (n, 2)."""
        row, column = np.divmod(node, self.width)
        place = np.column_stack([row + 0.5, column + 0.5])
        corner = node - self.height * self.width
        at = corner >= 0
        place[at] = np.column_stack([self.corner_row, self.corner_column])[corner[at]]
        return np.asarray(place + np.array([self.top, self.left]))

    def _clear(self, row: np.ndarray, column: np.ndarray, needs: Conditions) -> np.ndarray:
        """Whether lines from cells, or from their north-west corners, are clear."""
        flat, width = self._free.ravel(), self._free.shape[1]
        here = (row + _PAD) * width + column + _PAD
        clear = np.ones(len(here), bool)
        for r, c in needs[0]:
            clear &= flat[here + r * width + c]
        for r1, c1, r2, c2 in needs[1]:
            clear &= flat[here + r1 * width + c1] | flat[here + r2 * width + c2]
        return clear

    def _between_cells(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        row, column = np.nonzero(self._free[_PAD:-_PAD, _PAD:-_PAD])
        found: list[tuple[np.ndarray, ...]] = []
        for rows, columns in _MOVES:
            clear = self._clear(row, column, conditions(True, 2 * rows, 2 * columns))
            start = row[clear] * self.width + column[clear]
            found.append((start, start + rows * self.width + columns, np.full(len(start), math.hypot(rows, columns))))
        return _joined(found)

    def _from_corners(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found: list[tuple[np.ndarray, ...]] = []
        for rows, columns in _FROM_CORNER:
            clear = np.flatnonzero(self._clear(self.corner_row, self.corner_column, conditions(False, rows, columns)))
            row, column = self.corner_row[clear] + (rows - 1) // 2, self.corner_column[clear] + (columns - 1) // 2
            length = np.full(len(clear), math.hypot(rows, columns) / 2)
            found.append((self.height * self.width + clear, row * self.width + column, length))
        return _joined(found)

    def _between_corners(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        number = np.full((self.height + 1 + 2 * _PAD, self.width + 1 + 2 * _PAD), -1)
        number[self.corner_row + _PAD, self.corner_column + _PAD] = np.arange(len(self.corner_row))
        found: list[tuple[np.ndarray, ...]] = []
        for rows, columns in _MOVES:
            other = number[self.corner_row + _PAD + rows, self.corner_column + _PAD + columns]
            start = np.flatnonzero(other >= 0)
            needs = conditions(False, 2 * rows, 2 * columns)
            start = start[self._clear(self.corner_row[start], self.corner_column[start], needs)]
            base = self.height * self.width
            found.append((base + start, base + other[start], np.full(len(start), math.hypot(rows, columns))))
        return _joined(found)

    def _along_walls(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Between corners that follow each other on a straight line of borders."""
        found: list[tuple[np.ndarray, ...]] = []
        free = self._free[_PAD - 1 : 1 - _PAD, _PAD - 1 : 1 - _PAD]  # with a border of cells that are not free
        for across in (False, True):
            line, place = (self.corner_column, self.corner_row) if across else (self.corner_row, self.corner_column)
            cells = free.T if across else free
            a, b, c, d = cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1], cells[1:, 1:]
            # The border from corner (i, j) to (i, j + 1) lies between the cells b and d.
            border, corner = ~(b | d), ~((a | d) & (b | c))
            borders, corners = np.cumsum(border, axis=1), np.cumsum(corner, axis=1)
            order = np.lexsort((place, line))
            one, other = order[:-1], order[1:]
            kept = (line[one] == line[other]) & (place[other] - place[one] > 1)  # neighbours are among the moves
            one, other = one[kept], other[kept]
            at, first, last = line[one], place[one], place[other] - 1
            shut = borders[at, last] - borders[at, first] + border[at, first] + corners[at, last] - corners[at, first]
            one, other = one[shut == 0], other[shut == 0]
            base = self.height * self.width
            found.append((base + one, base + other, (place[other] - place[one]).astype(float)))
        return _joined(found)


def _joined(found: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends and lengths of several lists of arcs."""
    start, end, length = (np.concatenate(each) for each in zip(*found))
    return start, end, length
