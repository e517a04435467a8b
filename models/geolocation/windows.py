"""`Window`: a square cut-out of a grid around one base station (BS), of blocks of cells, so that one size suits every network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..grid import Grid


@dataclass(frozen=True)
class Window:
    """`side` × `side` blocks of `stride` × `stride` grid cells. It may reach beyond the grid, where there is no mass.

    Arrays on a window have shape (side, side), row 0 north, as those on a grid.

    Parameters
    ----------
    row0, col0
        Grid row and column of the north-west block's north-west cell; may be negative or beyond the grid.
    stride
        Side of a block [cells].
    side
        Side of the window [blocks].
    """

    row0: int
    col0: int
    stride: int
    side: int

    def __post_init__(self) -> None:
        if self.stride < 1 or self.side < 1:
            raise InputError(f"A window needs at least one block of one cell, not {self.side} of {self.stride}.")

    def centres(self, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Eastings of the block columns and northings (falling) of the block rows [m], shape (side,) each."""
        middle = (np.arange(self.side) + 0.5) * self.stride
        x_m = grid.x_min + (self.col0 + middle) * grid.cell_size_m
        y_m = grid.y_max - (self.row0 + middle) * grid.cell_size_m
        return x_m, y_m

    def gather(self, cells: np.ndarray, values: np.ndarray, grid: Grid) -> np.ndarray:
        """Sum the values of a sparse map (a CSR row's `indices` and `data`, in any order) over each block.

        Returns
        -------
        numpy.ndarray
            Shape (side, side), float64; what lies beyond the window is left out, what lies beyond the grid is 0.
        """
        block, inside = self._blocks(cells, grid)
        sums = np.bincount(block[inside], np.asarray(values)[inside], minlength=self.side**2)
        return sums.reshape(self.side, self.side)

    def valid_cells(self, grid: Grid, mask: np.ndarray | None = None) -> np.ndarray:
        """Number of cells of each block that the grid (and its `mask`, shape (height, width), if given) holds.

        Returns
        -------
        numpy.ndarray
            Shape (side, side), int64, from 0 (the block lies outside) to stride².
        """
        cells = self.cells(grid)
        if mask is not None:
            cells = cells[mask.ravel()[cells]]
        block, _ = self._blocks(cells, grid)
        return np.bincount(block, minlength=self.side**2).reshape(self.side, self.side)

    def cells(self, grid: Grid) -> np.ndarray:
        """Flat indices of the grid cells inside the window, rising, shape (n,)."""
        span = self.side * self.stride
        rows = np.arange(max(self.row0, 0), min(self.row0 + span, grid.height))
        columns = np.arange(max(self.col0, 0), min(self.col0 + span, grid.width))
        return (rows[:, None] * grid.width + columns).ravel()

    def spread(self, values: np.ndarray, grid: Grid, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Undo `gather`: share each block's value out equally to the cells the grid (and its mask) holds of it.

        Returns
        -------
        tuple[numpy.ndarray, numpy.ndarray]
            Flat cell indices (rising) and values (float64), shape (n,) each; blocks without a valid cell lose theirs.
        """
        cells = self.cells(grid)
        if mask is not None:
            cells = cells[mask.ravel()[cells]]
        block, _ = self._blocks(cells, grid)
        counts = np.bincount(block, minlength=self.side**2)
        return cells, (np.asarray(values, float).ravel() / np.maximum(counts, 1))[block]

    def _blocks(self, cells: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Flat block index of each grid cell, and whether the window holds the cell at all."""
        rows, columns = np.divmod(np.asarray(cells, np.int64), grid.width)
        rows, columns = (rows - self.row0) // self.stride, (columns - self.col0) // self.stride
        inside = (rows >= 0) & (rows < self.side) & (columns >= 0) & (columns < self.side)
        return rows * self.side + columns, inside


def window_of(grid: Grid, xy_m: np.ndarray, half_width_m: float, side: int) -> Window:
    """Return the window of `side` × `side` blocks around a BS, with the smallest stride that reaches far enough.

    The BS's cell is the middle one (of an even stride: the first south-east of the middle) of block (side // 2, side // 2).

    Parameters
    ----------
    xy_m
        The BS's position [m], shape (2,); it may lie outside the grid.
    half_width_m
        Half the side of the window [m], at least; `side * stride * cell_size_m / 2` is at least that.
    """
    stride = max(1, math.ceil(2 * half_width_m / (side * grid.cell_size_m) - 1e-9))
    row = math.floor((grid.y_max - float(xy_m[1])) / grid.cell_size_m)
    column = math.floor((float(xy_m[0]) - grid.x_min) / grid.cell_size_m)
    before = (side // 2) * stride + stride // 2
    return Window(row - before, column - before, stride, side)
