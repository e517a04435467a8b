"""Base-station (BS) layouts of whole regions: a city, its suburbs, towns and the land between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shadowing import correlated_field


@dataclass(frozen=True)
class LayoutSettings:
    """How BSs are strewn over a square region; ranges are drawn from uniformly (lengths in log scale).

    The ranges are those of the French 4G operators' networks (ANFR open data): median nearest-neighbour distance 0.6 km (Lyon) to
    3.3 km (Orleans) over the metropolitan area, mean distance to the six nearest about 1.7 times as much.

    Parameters
    ----------
    side_m
        Side of the square [m].
    core_spacing_m, rural_spacing_m
        Mean spacing (1/√density) of the city's centre and of the open land [m].
    core_radius_m
        Distance over which the city's density falls to 1/e [m].
    towns
        Number of towns around the city.
    town_spacing_m, town_radius_m
        The same for towns [m].
    roughness, roughness_m
        Standard deviation of the log density's random part, and its correlation distance [m].
    repulsion
        No two BSs are nearer than this share of the local spacing.
    """

    side_m: float = 60_000.0
    core_spacing_m: tuple[float, float] = (320.0, 700.0)
    core_radius_m: tuple[float, float] = (2_000.0, 5_000.0)
    rural_spacing_m: tuple[float, float] = (3_800.0, 6_000.0)
    towns: tuple[int, int] = (6, 18)
    town_spacing_m: tuple[float, float] = (700.0, 1_800.0)
    town_radius_m: tuple[float, float] = (500.0, 1_600.0)
    roughness: float = 0.6
    roughness_m: float = 1_500.0
    repulsion: float = 0.3


def random_layout(settings: LayoutSettings, rng: np.random.Generator) -> np.ndarray:
    """Draw a layout around the origin, shape (n_bs, 2) [m].

    An inhomogeneous point process with a hard core: candidates come in random order and stay where no earlier one is too near.
    """
    half = settings.side_m / 2
    step_m = 250.0
    n = int(settings.side_m / step_m)
    centres = (np.arange(n) + 0.5) * step_m - half
    x_m, y_m = np.meshgrid(centres, centres)

    def log_uniform(limits: tuple[float, float], count: int) -> np.ndarray:
        return np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]), count))

    n_towns = int(rng.integers(settings.towns[0], settings.towns[1] + 1))
    places = np.vstack([rng.uniform(-0.1, 0.1, (1, 2)), rng.uniform(-0.5, 0.5, (n_towns, 2))]) * settings.side_m
    spacing = np.concatenate([log_uniform(settings.core_spacing_m, 1), log_uniform(settings.town_spacing_m, n_towns)])
    radius = np.concatenate([log_uniform(settings.core_radius_m, 1), log_uniform(settings.town_radius_m, n_towns)])
    density = np.full((n, n), 1 / log_uniform(settings.rural_spacing_m, 1)[0] ** 2)
    for (x, y), apart, wide in zip(places, spacing, radius):
        density += np.exp(-np.hypot(x_m - x, y_m - y) / wide) / apart**2
    rough = correlated_field((n, n), step_m, settings.roughness_m, rng)
    density *= np.exp(settings.roughness * rough - settings.roughness**2 / 2)

    expected = density * step_m**2
    wanted = int(rng.poisson(expected.sum()))
    cells = rng.choice(n * n, size=4 * wanted, p=expected.ravel() / expected.sum())
    offsets = rng.uniform(-0.5, 0.5, (len(cells), 2)) * step_m
    points = np.column_stack([centres[cells % n], centres[cells // n]]) + offsets
    core_m = settings.repulsion / np.sqrt(density.ravel()[cells])
    kept = np.empty((wanted, 2))
    count = 0
    for point, nearest_m in zip(points, core_m):
        if count == wanted:
            break
        if count == 0 or ((kept[:count] - point) ** 2).sum(axis=1).min() > nearest_m**2:
            kept[count] = point
            count += 1
    return kept[:count]
