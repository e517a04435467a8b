"""Ways around buildings: distances over the free cells of a grid.

Two cells that see each other are as far apart as the straight line between them. Others are searched on the graph of `cell_graph`.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.sparse.csgraph import dijkstra

from ..errors import InputError
from ..grid import Grid
from ..radio.buildings import Buildings
from .cell_graph import CellGraph, conditions
from .map_distance import KnownLengths, Spots, straight_m

#: Cells on a side of the tiles that are searched together.
_TILE = 32
#: Graphs reach beyond their tile by a multiple of so many cells, so that searches of about one length share them.
_MARGIN = 8
#: Arcs of graphs kept for the next search.
_MOST_ARCS = 20_000_000
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
        self._graphs: OrderedDict[tuple[int, int, int, int], CellGraph] = OrderedDict()

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
        """See `MapDistance`."""
        cells, ends = spots.place[[start, end]], spots.xy_m[[start, end]]
        if self._in_sight(cells[:1], cells[1:])[0]:
            return ends
        graph = self._graph(cells, limit_m)
        first, last = self._nodes(graph, cells).tolist()
        reach = limit_m / self.grid.cell_size_m * 1.001
        _, before = dijkstra(graph.arcs, indices=first, limit=reach, return_predecessors=True)
        path = [last]
        while before[path[-1]] >= 0:
            path.append(int(before[path[-1]]))
        between = graph.places(np.array(path[-2:0:-1], dtype=np.int64))
        corner = np.array([self.grid.x_min, self.grid.y_max])
        return np.concatenate(
            [ends[:1], corner + between[:, ::-1] * (self.grid.cell_size_m, -self.grid.cell_size_m), ends[1:]]
        )

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
        """Metres on the graph between pairs of cells that begin in one tile, inf beyond `limit_m`."""
        graph = self._graph(start, limit_m)
        sources, which = np.unique(self._nodes(graph, start), return_inverse=True)
        target = self._nodes(graph, end)
        metres = np.empty(len(start))
        batch = max(1, _MOST_DISTANCES // graph.arcs.shape[0])
        for first in range(0, len(sources), batch):
            chosen = sources[first : first + batch]
            found = dijkstra(graph.arcs, indices=chosen, limit=limit_m / self.grid.cell_size_m)
            mine = (which >= first) & (which < first + batch)
            metres[mine] = found[which[mine] - first, target[mine]]
        return metres * self.grid.cell_size_m

    def _graph(self, cells: np.ndarray, reach_m: float) -> CellGraph:
        """The graph of all cells within `reach_m` of the tiles of some cells."""
        margin = _MARGIN * math.ceil((reach_m / self.grid.cell_size_m + 1) / _MARGIN)
        row, column = np.divmod(cells, self.grid.width)
        top, left = (max(int(each.min()) // _TILE * _TILE - margin, 0) for each in (row, column))
        bottom, right = ((int(each.max()) // _TILE + 1) * _TILE + margin for each in (row, column))
        key = (top, bottom, left, right)
        if key not in self._graphs:
            self._graphs[key] = CellGraph(self.free[top:bottom, left:right], top, left)
            while len(self._graphs) > 1 and sum(graph.arcs.nnz for graph in self._graphs.values()) > _MOST_ARCS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _nodes(self, graph: CellGraph, cells: np.ndarray) -> np.ndarray:
        return graph.nodes(*np.divmod(cells, self.grid.width))

    def _in_sight(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether the straight lines between centres of free cells are clear, shape (k,)."""
        width = self.grid.width
        free = self.free.ravel()
        rows, columns = other // width - one // width, other % width - one % width
        turned = rows < 0
        begin = np.where(turned, other, one)
        rows, columns = np.where(turned, -rows, rows), np.where(turned, -columns, columns)
        offset = rows * (2 * width) + columns + width
        order = np.argsort(offset, kind="stable")
        seen = np.ones(len(one), bool)
        for part in np.split(order, np.flatnonzero(np.diff(offset[order])) + 1):
            if not len(part):
                continue
            cells, pairs = conditions(True, 2 * int(rows[part[0]]), 2 * int(columns[part[0]]))
            here = begin[part, None]
            clear = free[here + np.array([r * width + c for r, c in cells])].all(axis=1)
            if pairs:
                beside = np.array([(a * width + b, c * width + d) for a, b, c, d in pairs])
                clear &= (free[here + beside[:, 0]] | free[here + beside[:, 1]]).all(axis=1)
            seen[part] = clear
        return seen
