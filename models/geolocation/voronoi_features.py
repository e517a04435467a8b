"""What VoronoiBoost knows of a base station (BS): 14 figures of the Voronoi cells around it, for all BSs at once.

A *level* k of a BS holds the BSs exactly k hops away on the graph that joins BSs whose cells share a corner. The graph is connected,
so a level is empty only when all BSs are nearer; the last level that holds one takes its place.

The authors' program hands (latitude, longitude) to a distance that expects them the other way round, and measures areas in square
degrees, so its figures depend on the compass. Ours are metres, and turning a layout changes nothing. Its two lengths, of 14 figures,
become ratios to the mean distance of the neighbours: a scale is a ratio, and so are then all figures that it is learned from, and a
network twice as wide has the same scales. On cities held out of the published scales this errs slightly less than metres do; on
held-out simulated networks the maps are equally good.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from .convex_hulls import convex_hulls, smallest_rectangles
from .voronoi_cells import ConvexPolygons, hop_levels, neighbours

#: In the order of the published model; `_k` is level k, or all BSs within k hops for areas, hulls and barycentres.
FEATURES = (
    "mean_d_neighbors_6/_1",  # mean distance of the BS to those at exactly k hops
    "mean_d_neighbors_8/_1",
    "mean_d_neighbors_10/_1",
    "mean_distance_6/_1",  # mean distance between two BSs at exactly k hops
    "mean_distance_8/_1",
    "mean_distance_10/_1",
    "min_d_neighbors_8",  # distance to the nearest BS at exactly 8 hops
    "convex_hull_width_8/_1",  # short side of the smallest rectangle around the BSs within k hops
    "mean_area_neighbors_4/_1",  # mean area of the cells within k hops
    "mean_area_neighbors_6/_1",
    "mean_area_neighbors_8/_1",
    "mean_d_t_barc_v_10/_1",  # mean distance of the BSs within k hops to their mean position
    "d_v_max",  # distance of the BS to the farthest corner of its cell
    "v_diameter/v_width",  # long by short side of the smallest rectangle around the cell
)
_LENGTHS = tuple(place for place, name in enumerate(FEATURES) if "/" not in name)
_MOST_HOPS = 10
#: Pairs of BSs worked on at a time: 8 MiB per array.
_PAIRS = 1 << 20


def features(cells: ConvexPolygons, sites_m: np.ndarray, dimensionless: bool = True) -> np.ndarray:
    """`FEATURES` of every BS, shape (n_bs, 14), finite.

    Where there is nothing to compare (a BS alone, one neighbour, all BSs on a line) a ratio is 1.

    Parameters
    ----------
    cells
        Clipped Voronoi cells.
    sites_m
        Positions [m], shape (n_bs, 2).
    dimensionless
        Whether the two lengths are divided by the mean distance of the neighbours, or stay metres as published.
    """
    sites_m = np.asarray(sites_m, dtype=float)
    levels = hop_levels(neighbours(cells), _MOST_HOPS)
    exactly = _never_empty(levels)
    within = _within(levels)
    areas = cells.areas_m2
    mean_d = {hops: _row_means(exactly[hops], _distances(exactly[hops], sites_m)) for hops in (1, 6, 8, 10)}
    mean_distance = {hops: _mean_pair_distances(exactly[hops], sites_m) for hops in (1, 6, 8, 10)}
    width = {
        hops: smallest_rectangles(convex_hulls(sites_m[within[hops].indices], within[hops].indptr))[1]
        for hops in (1, 8)
    }
    mean_area = {hops: _row_means(within[hops], areas[within[hops].indices]) for hops in (1, 4, 6, 8)}
    to_middle = {hops: _mean_distances_to_middle(within[hops], sites_m) for hops in (1, 10)}
    nearest = np.minimum.reduceat(_distances(exactly[8], sites_m), exactly[8].indptr[:-1])
    arms = cells.corners_m - sites_m[cells.owners]
    reach = np.zeros(len(sites_m))
    np.maximum.at(reach, cells.owners, np.hypot(arms[:, 0], arms[:, 1]))
    diameter, thickness = smallest_rectangles(cells)
    table = np.column_stack(
        [
            *(_ratio(mean_d[hops], mean_d[1]) for hops in (6, 8, 10)),
            *(_ratio(mean_distance[hops], mean_distance[1]) for hops in (6, 8, 10)),
            nearest,
            _ratio(width[8], width[1]),
            *(_ratio(mean_area[hops], mean_area[1]) for hops in (4, 6, 8)),
            _ratio(to_middle[10], to_middle[1]),
            reach,
            _ratio(diameter, thickness),
        ]
    )
    if dimensionless:
        for place in _LENGTHS:
            table[:, place] = _ratio(table[:, place], mean_d[1])
    return table


def _ratio(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Divide; 1 where `lower` is nothing."""
    return np.divide(upper, lower, out=np.ones_like(upper), where=lower > 0)


def _never_empty(levels: list[sparse.csr_matrix]) -> list[sparse.csr_matrix]:
    """Levels whose empty rows are those of the level before; level 0 holds the BS itself."""
    filled = [levels[0]]
    for level in levels[1:]:
        empty = sparse.diags((np.diff(level.indptr) == 0).astype(np.int8), format="csr")
        filled.append((level.astype(np.int8) + empty @ filled[-1].astype(np.int8)).astype(bool).tocsr())
        filled[-1].eliminate_zeros()
    return filled


def _within(levels: list[sparse.csr_matrix]) -> list[sparse.csr_matrix]:
    """BSs within 0, 1, … hops, the BS itself among them."""
    inside = [levels[0]]
    for level in levels[1:]:
        inside.append(inside[-1] + level)
    return inside


def _rows(members: sparse.csr_matrix) -> np.ndarray:
    return np.repeat(np.arange(members.shape[0]), np.diff(members.indptr))


def _row_means(members: sparse.csr_matrix, values: np.ndarray) -> np.ndarray:
    """Mean of one value per member over each row; no row is empty."""
    return np.bincount(_rows(members), values, members.shape[0]) / np.diff(members.indptr)


def _distances(members: sparse.csr_matrix, sites_m: np.ndarray) -> np.ndarray:
    """Distance of each member to the BS of its row [m]."""
    arms = sites_m[members.indices] - sites_m[_rows(members)]
    return np.hypot(arms[:, 0], arms[:, 1])


def _mean_distances_to_middle(members: sparse.csr_matrix, sites_m: np.ndarray) -> np.ndarray:
    """Mean distance of each row's members to their mean position [m]."""
    places = sites_m[members.indices]
    middle = np.column_stack([_row_means(members, places[:, 0]), _row_means(members, places[:, 1])])
    arms = places - middle[_rows(members)]
    return _row_means(members, np.hypot(arms[:, 0], arms[:, 1]))


def _mean_pair_distances(members: sparse.csr_matrix, sites_m: np.ndarray) -> np.ndarray:
    """Mean distance between two members of each row [m], 0 where there is one."""
    counts = np.diff(members.indptr)
    means = np.zeros(len(counts))
    by_count = np.argsort(counts, kind="stable")
    by_count = by_count[counts[by_count] > 1]
    start = 0
    while start < len(by_count):
        most = counts[by_count[start:]]
        sizes = np.arange(1, len(most) + 1) * most.astype(float) ** 2
        stop = start + max(1, int(np.searchsorted(sizes, _PAIRS)))
        rows = by_count[start:stop]
        slots = np.arange(counts[rows].max())
        real = slots < counts[rows][:, None]
        taken = members.indices[members.indptr[rows][:, None] + np.where(real, slots, 0)]
        x, y = sites_m[taken, 0], sites_m[taken, 1]
        squares = (x[:, :, None] - x[:, None, :]) ** 2
        squares += (y[:, :, None] - y[:, None, :]) ** 2
        np.sqrt(squares, out=squares)
        weight = real.astype(float)
        sums = np.einsum("rj,rj->r", (squares @ weight[:, :, None])[:, :, 0], weight)
        means[rows] = sums / (counts[rows] * (counts[rows] - 1.0))
        start = stop
    return means
