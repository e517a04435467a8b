"""Ways around buildings: distances over the free cells of a grid.

Two cells that see each other are as far apart as the straight line between them. Others are searched on a graph in which each free
cell leads to 32 around it (moves up to three cells long), which is at most 1.4 % longer than the shortest way in the open,
and whose bends are a fraction of a cell off the corners.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from ..errors import InputError
from ..grid import Grid
from ..radio.buildings import Buildings
from .map_distance import KnownLengths, Spots, straight_m

#: Moves (rows, columns) in one half plane; the other half are the same, turned.
_MOVES = tuple(
    (rows, columns)
    for rows in range(4)
    for columns in range(-3, 4)
    if math.gcd(rows, abs(columns)) == 1 and (rows > 0 or columns > 0)
)
#: Cells on a side of the tiles that are searched together.
_TILE = 32
#: Distances held at once.
_MOST_DISTANCES = 2_000_000


class FreeSpace:
    """Distances around buildings.

    Parameters
    ----------
    grid
        The cells.
    free
        Where one can be, shape (height, width), bool.
    snap_m
        A point in a cell that is not free is put on the nearest free cell up to this far away [m].

    Raises
    ------
    InputError
        When shapes differ or no cell is free.
    """

    def __init__(self, grid: Grid, free: np.ndarray, snap_m: float = 10.0) -> None:
        if free.shape != grid.shape:
            raise InputError(f"A map of free cells needs the grid's shape {grid.shape}, not {free.shape}.")
        if not free.any():
            raise InputError(
                f"No cell of the map is free: {grid.describe()}. Check the buildings, or use smaller cells."
            )
        self.grid, self.free, self.snap_m = grid, np.asarray(free, dtype=bool), snap_m
        away, (rows, columns) = distance_transform_edt(~self.free, return_indices=True)
        nearest = rows.astype(np.int64) * grid.width + columns
        self._free_cell = np.where(away * grid.cell_size_m <= snap_m, nearest, -1).ravel()
        self._nearest_cell = nearest.ravel()
        self.known = KnownLengths(self._searched)

    @classmethod
    def around(cls, buildings: Buildings, grid: Grid, snap_m: float = 10.0) -> FreeSpace:
        """Return the free space around buildings: cells whose centre lies in none."""
        return cls(grid, buildings.heights_on(grid) == 0, snap_m)

    def spots(self, xy_m: np.ndarray) -> Spots:
        """See `MapDistance`; a point has one spot, or none where it is off the grid or deep inside a building."""
        xy_m = np.asarray(xy_m, dtype=float).reshape(-1, 2)
        inside = self.grid.cells_of(xy_m)
        cell = np.where(inside >= 0, self._free_cell[inside], -1)
        owner = np.flatnonzero(cell >= 0)
        moved = cell[owner] != inside[owner]
        where = xy_m[owner].copy()
        where[moved] = self.grid.centres(cell[owner[moved]])
        return Spots(owner, where, cell[owner], np.zeros(len(owner)), np.hypot(*(where - xy_m[owner]).T))

    def lengths_m(self, spots: Spots, start: np.ndarray, end: np.ndarray, limit_m: np.ndarray) -> np.ndarray:
        """See `MapDistance`."""
        limit = np.broadcast_to(limit_m, start.shape)
        straight = straight_m(spots.xy_m, start, end)
        near = np.flatnonzero(straight <= limit)
        one, other = spots.place[start[near]], spots.place[end[near]]
        key = np.minimum(one, other) * self.grid.size + np.maximum(one, other)
        around = self.known.of(key, limit[near])
        length = np.full(len(start), np.inf)
        length[near] = np.maximum(around, straight[near])  # 0 around means in sight
        length[length > limit] = np.inf
        return length

    def route(self, spots: Spots, start: int, end: int, limit_m: float) -> np.ndarray:
        """See `MapDistance`; the bends are where the next one comes in sight."""
        one, other = int(spots.place[start]), int(spots.place[end])
        ends = spots.xy_m[[start, end]]
        if self._in_sight(np.array([one]), np.array([other]))[0]:
            return ends
        block, graph = self._graph(np.array([one, other]), limit_m)
        local = block.local(np.array([one, other]))
        _, before = dijkstra(graph, indices=local[0], limit=limit_m * 1.01, return_predecessors=True)
        cells = [int(local[1])]
        while before[cells[-1]] >= 0:
            cells.append(int(before[cells[-1]]))
        path = block.cells(np.array(cells[::-1]))
        bends = [0]
        while bends[-1] < len(path) - 1:
            ahead = np.arange(len(path) - 1, bends[-1], -1)
            seen = self._in_sight(np.full(len(ahead), path[bends[-1]]), path[ahead])
            bends.append(int(ahead[np.argmax(seen)]))  # the next cell is always in sight
        return np.concatenate([ends[:1], self.grid.centres(path[bends[1:-1]]), ends[1:]])

    def nearest(self, xy_m: np.ndarray) -> np.ndarray:
        """See `MapDistance`; points off the grid stay."""
        result = np.asarray(xy_m, dtype=float).copy()
        inside = self.grid.cells_of(result)
        blocked = np.flatnonzero((inside >= 0) & ~self.free.ravel()[inside])
        result[blocked] = self.grid.centres(self._nearest_cell[inside[blocked]])
        return result

    def _searched(self, key: np.ndarray, limit_m: np.ndarray) -> np.ndarray:
        """Metres between pairs of cells: 0 for those in sight, inf beyond `limit_m`."""
        one, other = np.divmod(key, self.grid.size)
        metres = np.full(len(key), np.inf)
        metres[self._in_sight(one, other)] = 0.0
        hidden = np.flatnonzero(metres > 0)
        one, other, limit = one[hidden], other[hidden], limit_m[hidden]
        if not len(hidden):
            return metres
        # Of a pair, search from the cell that has more pairs.
        cells, count = np.unique(np.concatenate([one, other]), return_counts=True)
        swap = count[np.searchsorted(cells, other)] > count[np.searchsorted(cells, one)]
        one, other = np.where(swap, other, one), np.where(swap, one, other)
        row, column = np.divmod(one, self.grid.width)
        tile = (row // _TILE) * self.grid.width + column // _TILE
        order = np.argsort(tile, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(tile[order])) + 1):
            metres[hidden[part]] = self._around(one[part], other[part], float(limit[part].max()))
        return metres

    def _around(self, start: np.ndarray, end: np.ndarray, limit_m: float) -> np.ndarray:
        """Metres on the graph of cells between pairs that begin in one tile, inf beyond `limit_m`."""
        block, graph = self._graph(start, limit_m)
        sources, which = np.unique(block.local(start), return_inverse=True)
        target = block.local(end)
        metres = np.empty(len(start))
        batch = max(1, _MOST_DISTANCES // graph.shape[0])
        for first in range(0, len(sources), batch):
            found = dijkstra(graph, indices=sources[first : first + batch], limit=limit_m)
            mine = (which >= first) & (which < first + batch)
            metres[mine] = found[which[mine] - first, target[mine]]
        return metres

    def _graph(self, cells: np.ndarray, reach_m: float) -> tuple[_Block, csr_matrix]:
        """The cells within `reach_m` of some cells, and how each leads to its neighbours [m]."""
        margin = math.ceil(reach_m / self.grid.cell_size_m) + 1
        row, column = np.divmod(cells, self.grid.width)
        top, left = max(int(row.min()) - margin, 0), max(int(column.min()) - margin, 0)
        free = self.free[top : int(row.max()) + margin + 1, left : int(column.max()) + margin + 1]
        block = _Block(top, left, free.shape[1], self.grid.width)
        height, width = free.shape
        index = np.arange(free.size, dtype=np.int32).reshape(free.shape)
        start, end, length = [], [], []
        for rows, columns in _MOVES:
            low, high = max(0, -columns), width - max(0, columns)
            if rows >= height or low >= high:
                continue

            def at(r: int, c: int, height: int = height - rows, low: int = low, high: int = high) -> np.ndarray:
                return free[r : r + height, low + c : high + c]

            crossed, corners = _crossing(rows, columns)
            open_ = at(0, 0) & at(rows, columns)
            for r, c in crossed:
                open_ = open_ & at(r, c)
            for (r1, c1), (r2, c2) in corners:
                open_ = open_ & (at(r1, c1) | at(r2, c2))
            here = index[: height - rows, low:high][open_]
            there = here + rows * width + columns
            start += [here, there]
            end += [there, here]
            length.append(np.full(2 * len(here), math.hypot(rows, columns) * self.grid.cell_size_m))
        arcs = (np.concatenate(length), (np.concatenate(start), np.concatenate(end)))
        return block, csr_matrix(arcs, shape=(free.size, free.size))

    def _in_sight(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether the straight line between centres of free cells crosses free cells only, shape (k,).

        A line through a corner needs one of the two cells beside it.
        """
        width = self.grid.width
        free = self.free.ravel()
        row, column = np.divmod(one, width)
        rows, columns = other // width - row, other % width - column
        turned = rows < 0
        begin = np.where(turned, other, one)
        rows, columns = np.where(turned, -rows, rows), np.where(turned, -columns, columns)
        offset = rows * (2 * width) + columns + width
        order = np.argsort(offset, kind="stable")
        seen = np.ones(len(one), bool)
        for part in np.split(order, np.flatnonzero(np.diff(offset[order])) + 1):
            if not len(part):
                continue
            crossed, corners = _crossing(int(rows[part[0]]), int(columns[part[0]]))
            cells = begin[part]
            clear = np.ones(len(part), bool)
            if crossed:
                steps = np.array([r * width + c for r, c in crossed])
                clear = free[cells[:, None] + steps].all(axis=1)
            if corners:
                beside = np.array([[r1 * width + c1, r2 * width + c2] for (r1, c1), (r2, c2) in corners])
                clear &= (free[cells[:, None] + beside[:, 0]] | free[cells[:, None] + beside[:, 1]]).all(axis=1)
            seen[part] = clear
        return seen


class _Block:
    """A rectangle of the grid with cell numbers of its own."""

    def __init__(self, top: int, left: int, width: int, grid_width: int) -> None:
        self.top, self.left, self.width, self.grid_width = top, left, width, grid_width

    def local(self, cell: np.ndarray) -> np.ndarray:
        row, column = np.divmod(cell, self.grid_width)
        return np.asarray((row - self.top) * self.width + column - self.left)

    def cells(self, local: np.ndarray) -> np.ndarray:
        row, column = np.divmod(local, self.width)
        return np.asarray((row + self.top) * self.grid_width + column + self.left)


_Cell = tuple[int, int]


@lru_cache(maxsize=65_536)
def _crossing(rows: int, columns: int) -> tuple[tuple[_Cell, ...], tuple[tuple[_Cell, _Cell], ...]]:
    """Cells between (0, 0) and (rows, columns) that the line of centres crosses, and pairs of cells beside corners it runs through."""
    down, across = abs(rows), abs(columns)
    step_r, step_c = (1 if rows >= 0 else -1), (1 if columns >= 0 else -1)
    r = c = i = j = 0
    crossed: list[_Cell] = []
    corners: list[tuple[_Cell, _Cell]] = []
    while i < down or j < across:
        side = (1 + 2 * i) * across - (1 + 2 * j) * down
        if side == 0:
            corners.append(((r + step_r, c), (r, c + step_c)))
        if side <= 0:
            r, i = r + step_r, i + 1
        if side >= 0:
            c, j = c + step_c, j + 1
        crossed.append((r, c))
    return tuple(crossed[:-1]), tuple(corners)
