"""How near walls are along ways around buildings: what wave guiding in the dominant path model asks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from ..grid import Grid
from .buildings import Buildings
from .corners import Corners
from .free_space import FreeSpace
from .shortest_paths import SEEN, Places, Ways

#: Cells of the raster of distances are at most so many, and at least so large [m].
_MOST_CELLS, _LEAST_CELL_M = 4_000_000, 1.0
#: Places on a leg at which the distance to the nearest wall is looked up.
_SAMPLES = 16


@dataclass(frozen=True)
class WallDistance:
    """Distance to the nearest building [m] on a grid, shape (height, width)."""

    grid: Grid
    distance_m: np.ndarray

    def at(self, xy_m: np.ndarray) -> np.ndarray:
        """Distance [m] at points, shape (n,); beyond the grid that of its border."""
        grid = self.grid
        column = np.clip((xy_m[:, 0] - grid.x_min) / grid.cell_size_m, 0, grid.width - 1).astype(np.int64)
        row = np.clip((grid.y_max - xy_m[:, 1]) / grid.cell_size_m, 0, grid.height - 1).astype(np.int64)
        return self.distance_m[row, column]


def wall_distance(buildings: Buildings, space: FreeSpace) -> WallDistance:
    """Distances all over free space, on cells of 1 m or, where these were too many, larger."""
    (x_min, y_min), (x_max, y_max) = space.metres(np.stack([space.points.min(axis=0), space.points.max(axis=0)]))
    cell_m = max(_LEAST_CELL_M, float(np.sqrt((x_max - x_min) * (y_max - y_min) / _MOST_CELLS)))
    grid = Grid.covering((x_min, y_min, x_max, y_max), cell_m, snap=False)
    free = buildings.heights_on(grid) <= 0
    if free.all():
        return WallDistance(grid, np.full(grid.shape, np.inf, dtype=np.float32))
    return WallDistance(grid, (distance_transform_edt(free) * cell_m).astype(np.float32))


def nearness_of_ways(
    walls: WallDistance, space: FreeSpace, corners: Corners, places: Places, ways: Ways, reach_m: float
) -> np.ndarray:
    """Mean along the way to each place of 1 − distance of the nearest wall / reach, 0 at least; 0 without a way. Shape (n,)."""

    def along(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Mean over straight legs between points [units]."""
        total = np.zeros(len(start))
        for share in (np.arange(_SAMPLES) + 0.5) / _SAMPLES:
            distance_m = walls.at(space.metres(start + share * (end - start)))
            total += np.maximum(1 - distance_m / reach_m, 0)
        return total / _SAMPLES

    # integral of the nearness up to each corner
    summed = np.zeros(len(corners))
    corner = ways.order
    previous = corners.xy[corner] - ways.arriving[corner]
    leg = np.zeros(len(corners))
    from_m = np.where(ways.before[corner] == SEEN, 0.0, ways.corner_m[ways.before[corner]])
    leg[corner] = along(previous, corners.xy[corner]) * (ways.corner_m[corner] - from_m)
    straight = corner[ways.before[corner] == SEEN]
    summed[straight] = leg[straight]
    for rows in ways.levels():
        summed[rows] = summed[ways.before[rows]] + leg[rows]
    found = np.flatnonzero(ways.last >= SEEN)
    last = ways.last[found]
    bent = last >= 0
    start = np.where(bent[:, None], corners.xy[last], ways.origin)
    before_m = np.where(bent, ways.corner_m[last], 0.0)
    total = np.where(bent, summed[last], 0.0)
    total += along(start, places.xy[found]) * (ways.length_m[found] - before_m)
    result = np.zeros(len(places))
    result[found] = total / np.maximum(ways.length_m[found], 1e-9)
    return np.clip(result, 0, 1)
