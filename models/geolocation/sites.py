"""Base-station (BS) sites: merging sectors that share a position, and what their spacing says about a good grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from ..errors import InputError

#: Positions closer than this are one site [m]: below any survey's accuracy, above what reprojecting equal coordinates leaves.
SAME_PLACE_M = 0.01
#: Kinds of surroundings, from dense to sparse networks.
URBANISATIONS = ("urban", "suburban", "rural")
#: Local spacing [m] below which surroundings are urban, and below which they are suburban: between the inter-site distances of
#: 3GPP TR 38.913 table 6.1.4-1 (dense urban 200 m, urban macro 500 m) and 6.1.3-1 (rural 1,732 and 5,000 m), in round numbers.
URBANISATION_LIMITS_M = (1000.0, 2500.0)
#: The local spacing looks at this many nearest BSs: as many as a hexagonal layout has neighbours.
SPACING_NEIGHBOURS = 6
#: A default grid has about this many cells between neighbouring BSs.
CELLS_PER_SPACING = 5
#: A default grid has at most about this many cells.
MOST_CELLS = 1_000_000


@dataclass(frozen=True)
class Sites:
    """The distinct sites of a BS layer.

    Parameters
    ----------
    ids
        One id per site: that of its first feature.
    xy_m
        Positions [m] in a metric CRS, shape (n, 2).
    members
        Per site all distinct ids found there, the site's own first.
    sectors
        Number of features per site, shape (n,).
    """

    ids: tuple[str, ...]
    xy_m: np.ndarray
    members: tuple[tuple[str, ...], ...]
    sectors: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def merged(self) -> int:
        """Number of features that joined the site of an earlier one."""
        return int(self.sectors.sum()) - len(self)

    @property
    def renamed(self) -> int:
        """Number of ids that are known only as members of a site with another id."""
        return sum(len(names) - 1 for names in self.members)


def merge_sites(ids: Sequence[str], xy_m: np.ndarray, id_source: str = "id") -> Sites:
    """Merge features at equal coordinates into one site with several sectors.

    Raises
    ------
    InputError
        When one id stands at two places.
    """
    xy_m = np.asarray(xy_m, dtype=float).reshape(-1, 2)
    pairs = cKDTree(xy_m).query_pairs(SAME_PLACE_M, output_type="ndarray")
    joined = sparse.coo_matrix((np.ones(len(pairs), bool), pairs.T), shape=(len(xy_m), len(xy_m)))
    _, place = csgraph.connected_components(joined, directed=False)
    _, first, site_of = np.unique(place, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    site_of = rank[site_of.ravel()]
    first = first[order]
    members: list[dict[str, None]] = [{} for _ in first]
    site_of_id: dict[str, int] = {}
    for row, (name, site) in enumerate(zip(ids, site_of)):
        other = site_of_id.setdefault(name, int(site))
        if other != site:
            apart = math.dist(xy_m[first[other]], xy_m[row])
            raise InputError(
                f"Field {id_source} holds '{name}' at two places {apart:,.{0 if apart >= 1 else 2}f} m apart; an id must name one site. "
                "Choose a field with unique ids, or leave ID_FIELD empty."
            )
        members[site][name] = None
    names = tuple(tuple(group) for group in members)
    return Sites(tuple(group[0] for group in names), xy_m[first], names, np.bincount(site_of, minlength=len(first)))


def nice_length(value_m: float) -> float:
    """Round to 1, 2 or 5 times a power of ten, downwards [m]."""
    if not (value_m > 0 and math.isfinite(value_m)):
        raise InputError(f"No sensible length can be derived from {value_m} m.")
    power = 10.0 ** math.floor(math.log10(value_m))
    return max(step * power for step in (1, 2, 5) if step * power <= value_m * (1 + 1e-9))


def default_margin_m(xy_m: np.ndarray) -> float:
    """Margin around the BSs [m]: the 95 % quantile of the nearest-neighbour distance, about half a cell of the outer BSs more.

    No margin holds all: beyond the outermost BSs sPDI's shares tend to 1/n for every BS while the area grows without end, so a wide
    margin moves the mass of inner BSs into the void. Where the land ends, a boundary is the better answer.
    """
    distance, _ = cKDTree(xy_m).query(xy_m, k=2)
    return float(np.quantile(distance[:, 1], 0.95))


def local_spacing_m(xy_m: np.ndarray) -> np.ndarray:
    """Mean distance of each BS to its `SPACING_NEIGHBOURS` nearest [m], shape (n,); in a hexagonal layout the inter-site distance.

    Raises
    ------
    InputError
        When there is only one BS.
    """
    if len(xy_m) < 2:
        raise InputError("One base station alone has no spacing; give at least two.")
    distance, _ = cKDTree(xy_m).query(xy_m, k=min(len(xy_m), SPACING_NEIGHBOURS + 1))
    return np.asarray(distance[:, 1:].mean(axis=1))


def urbanisation(spacing_m: np.ndarray) -> np.ndarray:
    """Index into `URBANISATIONS` of each local spacing, shape (n,)."""
    return np.digitize(spacing_m, URBANISATION_LIMITS_M)


def default_cell_size_m(xy_m: np.ndarray, bounds: tuple[float, float, float, float]) -> tuple[float, float]:
    """Cell sizes [m]: the one to use, with about a million cells at most, and the one that suits the local BS spacing.

    The latter has five cells to the lower-quartile nearest neighbour, rounded to 1, 2 or 5 times a power of ten.
    """
    distance, _ = cKDTree(xy_m).query(xy_m, k=2)
    spacing = float(np.quantile(distance[:, 1], 0.25))
    x_min, y_min, x_max, y_max = bounds
    smallest = math.sqrt(max((x_max - x_min) * (y_max - y_min), 1.0) / MOST_CELLS)
    suitable = size = nice_length(max(spacing / CELLS_PER_SPACING, SAME_PLACE_M))
    while size < smallest:
        size = nice_length(size * 2.5)
    return size, suitable


def loneliest(xy_m: np.ndarray) -> int:
    """Index of the BS whose nearest neighbour is farthest away."""
    distance, _ = cKDTree(xy_m).query(xy_m, k=2)
    return int(distance[:, 1].argmax())
