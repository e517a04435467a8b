"""Networks to learn from: simulated ones, all from their seeds, and real layouts with a simulated truth."""

from __future__ import annotations

import numpy as np

from ..geolocation.result import normalised_rows
from ..geolocation.sites import local_spacing_m
from ..grid import Grid
from ..progress import Progress, no_progress
from ..radio.layouts import LayoutSettings, random_layout
from ..radio.parameters import SimulatorParameters
from ..radio.simulator import simulate
from .truth import TruthNetwork

#: Side of a cell [m], as in the paper (section III-A: 0.01 km²).
CELL_SIZE_M = 100.0
#: BSs nearer to the edge of the grid than this many local spacings are not judged: what lies beyond the edge is unknown.
EDGE_SPACINGS = 2.0


def simulated_network(
    seed: int,
    parameters: SimulatorParameters | None = None,
    layout: LayoutSettings | None = None,
    progress: Progress = no_progress,
) -> TruthNetwork:
    """Draw a layout and simulate its network; equal seeds make equal networks."""
    layout = layout or LayoutSettings()
    sites_m = random_layout(layout, np.random.default_rng([seed, 0]))
    half = layout.side_m / 2
    grid = Grid.covering((-half, -half, half, half), CELL_SIZE_M)
    return network_of_layout(f"simulated {seed}", sites_m, grid, seed, parameters, progress=progress)


def network_of_layout(
    name: str,
    sites_m: np.ndarray,
    grid: Grid,
    seed: int,
    parameters: SimulatorParameters | None = None,
    mask: np.ndarray | None = None,
    progress: Progress = no_progress,
) -> TruthNetwork:
    """Simulate a network on given positions [m], shape (n_bs, 2)."""
    association = simulate(sites_m, grid, parameters or SimulatorParameters(), seed, mask, progress)
    maps = normalised_rows(association)
    maps.sort_indices()
    targets = np.flatnonzero(far_from_edge(sites_m, grid) & (np.diff(maps.indptr) > 0))
    return TruthNetwork(name, sites_m, grid, maps, targets, mask)


def far_from_edge(sites_m: np.ndarray, grid: Grid) -> np.ndarray:
    """Whether each BS stands more than `EDGE_SPACINGS` of its local spacings inside the grid's rectangle, shape (n_bs,), bool."""
    x_min, y_min, x_max, y_max = grid.bounds
    to_edge_m = np.minimum(sites_m - [x_min, y_min], [x_max, y_max] - sites_m).min(axis=1)
    return np.asarray(to_edge_m > EDGE_SPACINGS * local_spacing_m(sites_m))
