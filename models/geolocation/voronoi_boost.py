"""VoronoiBoost (Martínez-Durive et al., SECON 2022): Voronoi cells scaled so that they hold given shares of the devices."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..grid import Grid
from .voronoi_cells import voronoi_cells

#: Probabilities τ whose scales VoronoiBoost learns.
TAUS = (0.25, 0.5, 0.75, 0.85, 0.95)


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
    middles = cells.box_centres_m
    scales = np.full((len(rows), len(TAUS)), np.nan)
    x_m, y_m = grid.x_m, grid.y_m
    for place, row in enumerate(rows):
        span = slice(maps_csr.indptr[row], maps_csr.indptr[row + 1])
        mass = maps_csr.data[span].astype(float)
        if cells.counts[row] == 0 or not mass.sum() > 0:
            continue
        north, east = np.divmod(maps_csr.indices[span], grid.width)
        along_x, along_y = x_m[east] - middles[row, 0], y_m[north] - middles[row, 1]
        gauge = np.full(len(mass), -np.inf)
        for across, up in cells.half_planes(int(row)):
            np.maximum(gauge, across * along_x + up * along_y, out=gauge)
        order = np.argsort(gauge)
        held = np.cumsum(mass[order])
        found = np.searchsorted(held, np.array(TAUS) * held[-1] * (1 - 1e-12))
        scales[place] = gauge[order[np.minimum(found, len(order) - 1)]]
    return scales
