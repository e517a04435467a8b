"""Voronoi cells in metres, clipped to a rectangle, and who borders on whom: numpy and scipy, without a geometry library."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import Voronoi, cKDTree

from ..errors import InputError

#: Corners of cells this close are one corner, as a share of the diagonal of all that is looked at: 1 mm in 100 km. Computed corners
#: of co-circular sites (a lattice) differ by 1e-7 m there.
SAME_CORNER = 1e-8
#: Far sites stand so many diagonals from the middle: more than twice as far from any point as its own BS, so they take nothing.
_FAR = 4.0


@dataclass(frozen=True)
class ConvexPolygons:
    """Many convex polygons in one array.

    Parameters
    ----------
    corners_m
        Corners (x, y) [m], counter-clockwise, polygon after polygon, shape (n_corners, 2).
    starts
        First corner of each polygon and the end of the last one, shape (n + 1,). An empty polygon has no corner.
    """

    corners_m: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> np.ndarray:
        """Number of corners of each polygon, shape (n,)."""
        return np.diff(self.starts)

    @property
    def owners(self) -> np.ndarray:
        """Polygon of each corner, shape (n_corners,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def following(self) -> np.ndarray:
        """Index of the corner that follows each corner around its polygon, shape (n_corners,)."""
        following = np.arange(1, len(self.corners_m) + 1)
        filled = self.counts > 0
        following[self.starts[1:][filled] - 1] = self.starts[:-1][filled]
        return following

    @property
    def boxes_m(self) -> np.ndarray:
        """Bounding boxes (x_min, y_min, x_max, y_max) [m], NaN for empty polygons, shape (n, 4)."""
        boxes = np.full((len(self), 4), np.nan)
        filled = np.flatnonzero(self.counts)
        if filled.size:
            boxes[filled, :2] = np.minimum.reduceat(self.corners_m, self.starts[filled])
            boxes[filled, 2:] = np.maximum.reduceat(self.corners_m, self.starts[filled])
        return boxes

    @property
    def box_centres_m(self) -> np.ndarray:
        """Centres (x, y) of the bounding boxes [m], shape (n, 2); that of a convex polygon is never outside it."""
        boxes = self.boxes_m
        return (boxes[:, :2] + boxes[:, 2:]) / 2

    @property
    def areas_m2(self) -> np.ndarray:
        """Areas [m²], 0 for empty polygons, shape (n,)."""
        owners = self.owners
        middle = self.box_centres_m[owners]
        here, there = self.corners_m - middle, self.corners_m[self.following] - middle
        twice = here[:, 0] * there[:, 1] - here[:, 1] * there[:, 0]
        return np.maximum(np.bincount(owners, twice, len(self)) / 2, 0.0)

    def scaled(self, factors: np.ndarray) -> ConvexPolygons:
        """Scale each polygon by its factor, shape (n,), about the centre of its bounding box."""
        owners = self.owners
        middle = self.box_centres_m[owners]
        return ConvexPolygons(middle + (self.corners_m - middle) * factors[owners, None], self.starts)

    def clipped(self, bounds: tuple[float, float, float, float]) -> ConvexPolygons:
        """Return the parts inside the rectangle (x_min, y_min, x_max, y_max) [m] (Sutherland and Hodgman, all polygons at once)."""
        part = self
        x_min, y_min, x_max, y_max = bounds
        for axis, sign, limit in ((0, 1.0, x_min), (1, 1.0, y_min), (0, -1.0, -x_max), (1, -1.0, -y_max)):
            part = part._cut(axis, sign, limit)
        return part

    def _cut(self, axis: int, sign: float, limit: float) -> ConvexPolygons:
        """Keep the side where sign · coordinate ≥ limit."""
        depth = sign * self.corners_m[:, axis] - limit
        following = self.following
        inside = depth >= 0
        crosses = inside != inside[following]
        share = np.divide(depth, depth - depth[following], out=np.zeros_like(depth), where=crosses)
        crossing = self.corners_m + share[:, None] * (self.corners_m[following] - self.corners_m)
        crossing[:, axis] = sign * limit
        kept = np.column_stack([inside, crosses])
        corners = np.stack([self.corners_m, crossing], axis=1)[kept]
        counts = np.bincount(self.owners, kept.sum(axis=1), len(self)).astype(np.int64)
        return ConvexPolygons(corners, np.concatenate([[0], np.cumsum(counts)]))

    def tidied(self, tolerance_m: float) -> ConvexPolygons:
        """Drop corners within `tolerance_m` of the next one, and polygons that have no area left."""
        step = self.corners_m[self.following] - self.corners_m
        kept = np.hypot(step[:, 0], step[:, 1]) > tolerance_m
        owners = self.owners
        counts = np.bincount(owners, kept, len(self)).astype(np.int64)
        kept &= counts[owners] >= 3
        counts[counts < 3] = 0
        return ConvexPolygons(self.corners_m[kept], np.concatenate([[0], np.cumsum(counts)]))

    def gauge(self, polygon: int, x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
        """Smallest scale, about the centre of its bounding box, at which a polygon holds each point (its Minkowski functional).

        `x_m` and `y_m` are broadcast against each other. Where an edge goes through the centre itself, as that of a right-angled
        triangle in the corner of a rectangle does, no scale ever reaches what is behind it, and the gauge is above 1e8.
        """
        corners = self.corners_m[self.starts[polygon] : self.starts[polygon + 1]]
        low, high = corners.min(axis=0), corners.max(axis=0)
        middle = (low + high) / 2
        edges = np.roll(corners, -1, axis=0) - corners
        normals = np.column_stack([edges[:, 1], -edges[:, 0]]) / np.hypot(edges[:, 0], edges[:, 1])[:, None]
        nearest = 1e-9 * float(np.hypot(*(high - low)))
        steep = normals / np.maximum((normals * (corners - middle)).sum(axis=1), nearest)[:, None]
        x, y = x_m - middle[0], y_m - middle[1]
        gauge = steep[0, 0] * x + steep[0, 1] * y
        for across, up in steep[1:]:
            np.maximum(gauge, across * x + up * y, out=gauge)
        return np.asarray(gauge)


def voronoi_cells(sites_m: np.ndarray, bounds: tuple[float, float, float, float]) -> ConvexPolygons:
    """Voronoi cells of all sites, clipped to a rectangle; a site far outside may have an empty one.

    Four far sites close the outer cells. They stand more than twice as far from every point of the rectangle as the BSs do, so the
    clipped cells are exact, for one site, two, or many on a line too.

    Parameters
    ----------
    sites_m
        Positions (x, y) [m], all different, shape (n, 2).
    bounds
        Rectangle (x_min, y_min, x_max, y_max) [m].

    Raises
    ------
    InputError
        When the rectangle is empty, or sites are not finite or stand at one place.
    """
    sites_m = np.asarray(sites_m, dtype=float).reshape(-1, 2)
    x_min, y_min, x_max, y_max = (float(value) for value in bounds)
    if not (x_min < x_max and y_min < y_max and np.isfinite([x_min, y_min, x_max, y_max]).all()):
        raise InputError(f"The extent {bounds} is empty or not finite.")
    if not len(sites_m):
        raise InputError("There is no base station, so there are no Voronoi cells.")
    if not np.isfinite(sites_m).all():
        raise InputError("A base station has coordinates that are not finite; remove it.")
    low = np.minimum(sites_m.min(axis=0), (x_min, y_min))
    high = np.maximum(sites_m.max(axis=0), (x_max, y_max))
    middle, diagonal = (low + high) / 2, float(np.hypot(*(high - low)))
    far = _FAR * diagonal * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    diagram = Voronoi(np.concatenate([sites_m - middle, far]))
    region_of = diagram.point_region[: len(sites_m)]
    _, first, sharing = np.unique(region_of, return_index=True, return_counts=True)
    if len(first) < len(sites_m):
        double = sites_m[first[sharing > 1][0]].tolist()
        raise InputError(f"Two base stations stand at one place, {double}; merge them first.")
    regions = [diagram.regions[region] for region in region_of]
    counts = np.array([len(region) for region in regions])
    corners = diagram.vertices[np.fromiter(chain.from_iterable(regions), np.int64, int(counts.sum()))]
    owners = np.repeat(np.arange(len(sites_m)), counts)
    arms = corners - (sites_m - middle)[owners]
    corners = corners[np.lexsort((np.arctan2(arms[:, 1], arms[:, 0]), owners))] + middle
    cells = ConvexPolygons(corners, np.concatenate([[0], np.cumsum(counts)]))
    return cells.clipped((x_min, y_min, x_max, y_max)).tidied(SAME_CORNER * diagonal)


def neighbours(cells: ConvexPolygons) -> sparse.csr_matrix:
    """Which cells share a corner, shape (n, n), bool, symmetric, without the diagonal.

    Cells share it as they are after clipping: two that would meet beyond the rectangle do not.
    """
    n = len(cells)
    if not len(cells.corners_m):
        return sparse.csr_matrix((n, n), dtype=bool)
    boxes = cells.boxes_m
    extent = np.nanmax(boxes[:, 2:], axis=0) - np.nanmin(boxes[:, :2], axis=0)
    pairs = cKDTree(cells.corners_m).query_pairs(2 * SAME_CORNER * float(np.hypot(*extent)), output_type="ndarray")
    joined = sparse.coo_matrix((np.ones(len(pairs), bool), pairs.T), shape=(len(cells.corners_m),) * 2)
    n_places, place = csgraph.connected_components(joined, directed=False)
    ones = np.ones(len(place), np.int32)
    touches = sparse.csr_matrix((ones, (cells.owners, place)), shape=(n, n_places))
    shared = (touches @ touches.T).tocoo()
    apart = shared.row != shared.col
    return sparse.csr_matrix((np.ones(apart.sum(), bool), (shared.row[apart], shared.col[apart])), shape=(n, n))


def hop_levels(graph: sparse.csr_matrix, most_hops: int) -> list[sparse.csr_matrix]:
    """Nodes at exactly 0, 1, …, `most_hops` hops of every node: bool matrices of shape (n, n), by products of sparse frontiers."""
    n = graph.shape[0]
    step = graph.astype(np.int32)
    levels = [sparse.identity(n, dtype=np.int32, format="csr")]
    before = sparse.csr_matrix((n, n), dtype=np.int32)
    for _ in range(most_hops):
        reached = levels[-1] @ step
        reached.data[:] = 1
        inner = levels[-1] + before  # a step leads at most one level back
        fresh = reached - reached.multiply(inner)
        fresh.eliminate_zeros()
        before = levels[-1]
        levels.append(fresh.tocsr())
    return [level.astype(bool) for level in levels]
