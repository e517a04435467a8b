"""VoronoiBoost (Martínez-Durive et al., SECON 2022): Voronoi cells scaled so that they hold given shares of the devices.

Per base station (BS) one gradient-boosted regressor tells from [τ, 14 figures of the surrounding cells] the scale at which its Voronoi
cell holds the share τ of its devices; the rings between the scaled cells are the map. Learned from (log) scales in
`telcoloc.models.training.voronoi_boost`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from ..errors import InputError
from ..grid import Grid
from ..progress import Progress, no_progress
from ..trees import TreeEnsemble
from ..weights_file import Weights, read_weights, write_weights
from . import sites
from .voronoi_cells import voronoi_cells
from .voronoi_features import FEATURES, features
from .voronoi_rings import TAUS

if TYPE_CHECKING:
    from ..training.truth import TruthNetwork

KIND = "voronoiboost"
#: Margin around a BS that is alone [m].
_LONE_MARGIN_M = 1000.0


@dataclass(frozen=True)
class VoronoiBoost:
    """Tells the scales of Voronoi cells; use `fit`, `load`, or weights that ship.

    Parameters
    ----------
    trees
        The regressor of log(scale); None before `fit`.
    card
        Where it comes from: data, seed, metrics.
    """

    trees: TreeEnsemble | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, networks: Sequence[TruthNetwork], seed: int = 0, progress: Progress = no_progress) -> VoronoiBoost:
        """Return a fitted copy; see `telcoloc.models.training.voronoi_boost.fit`, which needs scikit-learn."""
        from ..training import voronoi_boost

        return voronoi_boost.fit(networks, seed, progress)

    def predict_scales(self, sites_m: np.ndarray, bounds: tuple[float, float, float, float]) -> np.ndarray:
        """Scales for every BS, one column per τ of `TAUS`, shape (n_bs, 5), positive; `voronoi_rings.ring_edges` puts them in order.

        Parameters
        ----------
        sites_m
            Positions of all BSs [m], all different, shape (n_bs, 2).
        bounds
            Rectangle (x_min, y_min, x_max, y_max) [m] that cells are clipped to; `cell_bounds` is what it is learned with.

        Raises
        ------
        InputError
            When nothing was fitted or the positions cannot be used.
        """
        if self.trees is None:
            raise InputError("This VoronoiBoost has learned nothing yet; fit it or load weights.")
        table = features(voronoi_cells(sites_m, bounds), sites_m)
        return np.asarray(np.exp(self.trees.predict(inputs(table))).reshape(len(table), len(TAUS)))

    def weights(self) -> Weights:
        """What was learned, as a weights file holds it.

        Raises
        ------
        InputError
            When nothing was fitted.
        """
        if self.trees is None:
            raise InputError("This VoronoiBoost has learned nothing yet; fit it before saving.")
        return Weights(KIND, self.trees.tensors(), self.card)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the weights file.

        Raises
        ------
        InputError
            When nothing was fitted.
        OutputError
            When the file cannot be written.
        """
        write_weights(path, self.weights())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VoronoiBoost:
        """Read a weights file.

        Raises
        ------
        InputError
            When it is missing, damaged, of another kind, or its trees look at other figures than we have.
        """
        weights = read_weights(path, KIND)
        trees = TreeEnsemble.from_tensors(weights.tensors)
        if trees.n_features > 1 + len(FEATURES):
            raise InputError(
                f"The weights file {path} does not fit this version of '{KIND}': its trees look at {trees.n_features} figures, "
                f"we have {1 + len(FEATURES)}."
            )
        return cls(trees, weights.card)


def cell_bounds(sites_m: np.ndarray) -> tuple[float, float, float, float]:
    """Rectangle around all BSs that VoronoiBoost clips cells to, whatever grid is asked for: `sites.default_margin_m` wider.

    Outer cells end there. A rectangle that followed the grid would change their shapes, and the scales, with the margin.
    """
    margin_m = sites.default_margin_m(sites_m) if len(sites_m) > 1 else _LONE_MARGIN_M
    low, high = np.min(sites_m, axis=0) - margin_m, np.max(sites_m, axis=0) + margin_m
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def inputs(table: np.ndarray) -> np.ndarray:
    """Rows [τ, 14 features] for every BS and τ, BS after BS, shape (5 n_bs, 15), float32: learned from and predicted alike."""
    return np.column_stack([np.tile(TAUS, len(table)), np.repeat(table, len(TAUS), axis=0)]).astype(np.float32)


def true_scales(
    sites_m: np.ndarray,
    bounds: tuple[float, float, float, float],
    maps_csr: sparse.csr_matrix,
    grid: Grid,
    rows: np.ndarray,
) -> np.ndarray:
    """Scales at which a BS's clipped Voronoi cell holds τ of its true mass: what VoronoiBoost learns.

    The cell is scaled about the centre of its bounding box. A grid cell is inside where its centre is, so its scale is the polygon's
    gauge there, and the sought scales are quantiles of the gauge weighted by mass.

    Parameters
    ----------
    sites_m
        Positions of all BSs [m], shape (n_bs, 2).
    bounds
        Rectangle (x_min, y_min, x_max, y_max) [m] that Voronoi cells are clipped to.
    maps_csr
        True P(ℓ|i), shape (n_bs, n_cells).
    grid
        The cells.
    rows
        Indices of the BSs asked for, shape (n_rows,).

    Returns
    -------
    np.ndarray
        Scales, shape (n_rows, 5), one column per τ of `TAUS`; NaN for an empty map or an empty Voronoi cell.
    """
    cells = voronoi_cells(sites_m, bounds)
    counts = cells.counts
    scales = np.full((len(rows), len(TAUS)), np.nan)
    x_m, y_m = grid.x_m, grid.y_m
    for place, row in enumerate(rows):
        span = slice(maps_csr.indptr[row], maps_csr.indptr[row + 1])
        mass = maps_csr.data[span].astype(float)
        if counts[row] == 0 or not mass.sum() > 0:
            continue
        north, east = np.divmod(maps_csr.indices[span], grid.width)
        gauge = cells.gauge(int(row), x_m[east], y_m[north])
        order = np.argsort(gauge)
        held = np.cumsum(mass[order])
        reached = np.searchsorted(held, np.array(TAUS) * held[-1] * (1 - 1e-12))
        scales[place] = gauge[order[np.minimum(reached, len(order) - 1)]]
    return scales
