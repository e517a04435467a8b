"""The French base stations with published VoronoiBoost scales: networks per city and operator, and ring calibration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import kit
import numpy as np

if True:  # `kit` puts the package in place
    from telcoloc.models.grid import Grid

FOLDER = kit.SHARED_DATA / "voronoiboost_fr"
TAUS = (0.25, 0.5, 0.75, 0.85, 0.95)
CELL_SIZE_M = 100.0
CRS = "EPSG:2154"


@dataclass(frozen=True)
class FrenchNetwork:
    """One operator in one city.

    Parameters
    ----------
    city, operator
        Names.
    sites_m
        Positions in EPSG:2154 [m], shape (n, 2).
    cells
        Published Voronoi cells, longitude and latitude.
    scales
        Published scale per τ, NaN where it was dropped, shape (n, 5).
    """

    city: str
    operator: str
    sites_m: np.ndarray
    cells: list[object]
    scales: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.operator} {self.city}"

    def grid(self, margin_m: float) -> Grid:
        """Cells of 100 m around all sites."""
        low, high = self.sites_m.min(axis=0) - margin_m, self.sites_m.max(axis=0) + margin_m
        return Grid.covering((*low, *high), CELL_SIZE_M)


def networks() -> list[FrenchNetwork]:
    """All networks of the data set."""
    try:
        import pandas
        import shapely.wkb
    except ImportError as error:
        raise kit.Skipped(f"needs {error.name}") from error
    if not FOLDER.exists():
        raise kit.Skipped(kit.NEEDS_DATA)
    table = pandas.read_parquet(FOLDER / "bs_voronoiboost.parquet")
    found = []
    for (city, operator), rows in table.groupby(["city", "operator"]):
        rows = rows.drop_duplicates(["x", "y"])
        found.append(
            FrenchNetwork(
                str(city),
                str(operator),
                rows[["x", "y"]].to_numpy(float),
                [shapely.wkb.loads(bytes(cell)) for cell in rows["voronoi_wkb"]],
                rows[[f"scale_{tau:g}" for tau in TAUS]].to_numpy(float),
            )
        )
    return found


def one_per_city() -> list[FrenchNetwork]:
    """The network of each city with the most base stations; Orange's, the paper's operator, where there is one."""
    found: dict[str, FrenchNetwork] = {}
    for network in networks():
        other = found.get(network.city)
        if other is None or (network.operator == "Orange", len(network.cells)) > (
            other.operator == "Orange",
            len(other.cells),
        ):
            found[network.city] = network
    return list(found.values())


def ring_membership(network: FrenchNetwork, grid: Grid) -> list[list[tuple[np.ndarray, float]]]:
    """Per BS the flat cells inside its Voronoi cell scaled by each published scale, with the τ they should hold."""
    from shapely.affinity import scale

    found = []
    for cell, scales in zip(network.cells, network.scales):
        rings = []
        for tau, factor in zip(TAUS, scales):
            if np.isfinite(factor):
                rings.append((_cells_inside(_projected(scale(cell, factor, factor, origin="center")), grid), tau))
        found.append(rings)
    return found


def ring_errors(maps: object, rings: list[list[tuple[np.ndarray, float]]]) -> np.ndarray:
    """Mean |mass inside − τ| of each BS over its τ, shape (n,); maps are CSR P(ℓ|i)."""
    errors = np.full(len(rings), np.nan)
    row = np.zeros(maps.shape[1])  # type: ignore[attr-defined]
    for index, one in enumerate(rings):
        cells = maps.indices[maps.indptr[index] : maps.indptr[index + 1]]  # type: ignore[attr-defined]
        row[cells] = maps.data[maps.indptr[index] : maps.indptr[index + 1]]  # type: ignore[attr-defined]
        if len(cells) and one:
            errors[index] = np.mean([abs(row[inside].sum() - tau) for inside, tau in one])
        row[cells] = 0
    return errors


@lru_cache(maxsize=1)
def _to_metres() -> object:
    import pyproj

    return pyproj.Transformer.from_crs(4326, CRS, always_xy=True).transform


def _projected(shape: object) -> object:
    from shapely.ops import transform

    return transform(_to_metres(), shape)


def _cells_inside(shape: object, grid: Grid) -> np.ndarray:
    """Flat indices of the cells whose centres a polygon holds."""
    from rasterio.features import rasterize
    from rasterio.transform import from_origin

    x_min, y_min, x_max, y_max = shape.bounds  # type: ignore[attr-defined]
    columns = np.flatnonzero((grid.x_m >= x_min) & (grid.x_m <= x_max))
    rows = np.flatnonzero((grid.y_m >= y_min) & (grid.y_m <= y_max))
    if not (len(columns) and len(rows)):
        return np.zeros(0, np.int64)
    size = grid.cell_size_m
    corner = from_origin(grid.x_min + columns[0] * size, grid.y_max - rows[0] * size, size, size)
    inside = rasterize([shape], out_shape=(len(rows), len(columns)), transform=corner).astype(bool)
    return (rows[:, None] * grid.width + columns)[inside]
