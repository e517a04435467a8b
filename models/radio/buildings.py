"""Building footprints as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..grid import Grid

#: An antenna this near to a building's wall is mounted on it [m]: positions are seldom better.
_AT_WALL_M = 0.1
#: So many pairs of a wall and a row or point are looked at at once.
_PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Buildings:
    """Footprints with heights, in a metric CRS.

    Parameters
    ----------
    xy_m
        Vertices of all rings, one ring after the other, without the closing vertex [m], shape (v, 2). The inside lies to the left:
        outer rings run counter-clockwise, courtyards clockwise.
    first
        Index of each ring's first vertex, and v at the end, shape (r + 1,).
    building
        The building each ring belongs to, shape (r,), ascending.
    height_m
        Height of each building [m], shape (n,).
    """

    xy_m: np.ndarray
    first: np.ndarray
    building: np.ndarray
    height_m: np.ndarray

    def __post_init__(self) -> None:
        if len(self.first) != len(self.building) + 1 or self.first[-1] != len(self.xy_m):
            raise InputError("The rings of the buildings do not fit their vertices.")

    def __len__(self) -> int:
        return len(self.height_m)

    @property
    def walls_m(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends of all walls [m], shape (v, 2) each; wall i starts at vertex i."""
        following = np.arange(1, len(self.xy_m) + 1)
        following[self.first[1:] - 1] = self.first[:-1]
        return self.xy_m, self.xy_m[following]

    @property
    def building_of_vertex(self) -> np.ndarray:
        """The building each vertex, and the wall that starts there, belongs to, shape (v,)."""
        return np.repeat(self.building, np.diff(self.first))

    def take(self, rows: np.ndarray) -> Buildings:
        """Return some of the buildings, by a mask or indices in rising order."""
        chosen = np.arange(len(self))[rows]
        rings = np.flatnonzero(np.isin(self.building, chosen))
        sizes = np.diff(self.first)[rings]
        first = np.concatenate([[0], np.cumsum(sizes)])
        vertex = np.arange(first[-1]) + np.repeat(self.first[rings] - first[:-1], sizes)
        number = np.searchsorted(chosen, self.building[rings])
        return Buildings(self.xy_m[vertex], first, number, self.height_m[chosen])

    def heights_on(self, grid: Grid) -> np.ndarray:
        """Height of the highest building at each cell's centre [m], 0 outside, shape (height, width), float32.

        Even-odd rule along the lines through the centres of the rows.
        """
        # Rows and columns count as positions: cell (r, c) has its centre at (r, c).
        column = (self.xy_m[:, 0] - grid.x_min) / grid.cell_size_m - 0.5
        row = (grid.y_max - self.xy_m[:, 1]) / grid.cell_size_m - 0.5
        following = np.arange(1, len(row) + 1)
        following[self.first[1:] - 1] = self.first[:-1]
        top = np.clip(np.ceil(np.minimum(row, row[following])), 0, grid.height).astype(np.int64)
        bottom = np.clip(np.ceil(np.maximum(row, row[following])), 0, grid.height).astype(np.int64)
        result = np.zeros(grid.shape, np.float32)
        wall, line = _expand(top, bottom)
        slope = (column[following] - column)[wall] / np.where(top < bottom, row[following] - row, 1.0)[wall]
        at = column[wall] + (line - row[wall]) * slope
        building = self.building_of_vertex[wall]
        order = np.lexsort([at, building, line])
        begin = np.clip(np.ceil(at[order[0::2]]), 0, grid.width).astype(np.int64)
        end = np.clip(np.ceil(at[order[1::2]]), 0, grid.width).astype(np.int64)
        height = self.height_m[building[order[0::2]]]
        by_height = np.argsort(height, kind="stable")  # the highest is written last
        begin, end, line, height = begin[by_height], end[by_height], line[order[0::2]][by_height], height[by_height]
        span, across = _expand(begin, end)
        result[line[span], across] = height[span]
        return result

    def containing(self, xy_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which buildings hold which points, by the even-odd rule: indices of points and of buildings, one pair each."""
        start, end = self.walls_m
        building = self.building_of_vertex
        hits = []
        for wall, point in self._beside(xy_m[:, 1], 0.0):
            share = (xy_m[point, 1] - start[wall, 1]) / (end[wall, 1] - start[wall, 1])
            right = start[wall, 0] + share * (end[wall, 0] - start[wall, 0]) > xy_m[point, 0]
            hits.append(point[right] * len(self) + building[wall[right]])
        pair, count = np.unique(np.concatenate([np.zeros(0, np.int64), *hits]), return_counts=True)
        point, held_by = np.divmod(pair[count % 2 == 1], max(len(self), 1))
        return point, held_by

    def bearing(self, xy_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which buildings antennas stand in, on, or at a wall of: indices of points and of buildings, one pair each.

        An antenna's own building is no obstacle for it, as if the antenna stood at the edge of the roof: operators avoid that a roof is in
        the beam's way, and positions are seldom good enough to tell edge from middle, or one side of a wall from the other.
        """
        start, end = self.walls_m
        building = self.building_of_vertex
        point, held_by = self.containing(xy_m)
        pairs = [point * len(self) + held_by]
        for wall, at in self._beside(xy_m[:, 1], _AT_WALL_M):
            along, way = end[wall] - start[wall], xy_m[at] - start[wall]
            share = np.clip((way * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-12), 0, 1)
            near = np.hypot(*(way - share[:, None] * along).T) <= _AT_WALL_M
            pairs.append(at[near] * len(self) + building[wall[near]])
        point, held_by = np.divmod(np.unique(np.concatenate(pairs)), max(len(self), 1))
        return point, held_by

    def _beside(self, y_m: np.ndarray, reach_m: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield pairs of walls and points whose y lies between the wall's ends, or up to `reach_m` beyond: not too many at once."""
        order = np.argsort(y_m, kind="stable")
        start, end = self.walls_m
        low = np.searchsorted(y_m[order], np.minimum(start[:, 1], end[:, 1]) - reach_m)
        high = np.searchsorted(y_m[order], np.maximum(start[:, 1], end[:, 1]) + reach_m)
        splits = np.searchsorted(np.cumsum(high - low), np.arange(_PAIRS_AT_ONCE, (high - low).sum(), _PAIRS_AT_ONCE))
        for walls in np.split(np.arange(len(low)), splits):
            wall, point = _expand(low[walls], high[walls])
            yield walls[wall], order[point]

    def inside(self, xy_m: np.ndarray) -> np.ndarray:
        """Whether points are inside a building, shape (n,)."""
        result = np.zeros(len(xy_m), bool)
        result[self.containing(xy_m)[0]] = True
        return result


def buildings_of_polygons(
    polygons: Sequence[Sequence[np.ndarray]], heights_m: Sequence[float] | np.ndarray
) -> Buildings:
    """Return buildings from polygons, with rings turned so that the inside lies to the left.

    Parameters
    ----------
    polygons
        Rings of each building, the outer one first, then its courtyards: vertices (x, y) [m], shape (v, 2), closed or not.
    heights_m
        Height of each building [m].
    """
    rings, building = [], []
    for number, polygon in enumerate(polygons):
        for hole, points in enumerate(polygon):
            ring = np.asarray(points, float)
            if len(ring) > 1 and (ring[0] == ring[-1]).all():
                ring = ring[:-1]
            if len(ring) < 3:
                continue
            x, y = (ring - ring[0]).T
            anticlockwise = x @ np.roll(y, -1) - y @ np.roll(x, -1) > 0
            rings.append(ring if anticlockwise == (hole == 0) else ring[::-1])
            building.append(number)
    first = np.concatenate([[0], np.cumsum([len(ring) for ring in rings])]).astype(np.int64)
    xy_m = np.concatenate([np.zeros((0, 2)), *rings])
    return Buildings(xy_m, first, np.array(building, np.int64), np.asarray(heights_m, float))


def _expand(first: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs (i, j) with first[i] ≤ j < end[i]."""
    count = np.maximum(end - first, 0)
    row = np.repeat(np.arange(len(count)), count)
    return row, np.arange(len(row)) + np.repeat(first - np.cumsum(count) + count, count)
