"""Between polygons and cells, by GDAL: boundary masks, coverage areas, shares of cells in zones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from osgeo import gdal, ogr
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsFeature,
    QgsFeatureRequest,
    QgsGeometry,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsWkbTypes,
)

from ..models.errors import InputError
from ..models.grid import Grid
from .rasters import gdal_errors

#: A zone's share of a cell is counted on this many points along each side of the cell.
POINTS_PER_SIDE = 4
#: And on this many where the zone is too small for that.
POINTS_PER_SIDE_OF_SMALL = 20
#: For reading polygons that `valid_polygon` mends.
MENDED_HERE = QgsProcessingFeatureSource.Flag.FlagSkipGeometryValidityChecks


def polygon_features(
    source: QgsProcessingFeatureSource, crs: QgsCoordinateReferenceSystem, context: QgsProcessingContext, name: str
) -> tuple[list[tuple[QgsFeature, QgsGeometry]], list[str]]:
    """Read polygons in `crs`: (feature, valid geometry) of each usable one, and a text about each that is not.

    Raises
    ------
    InputError
        When none has an area.
    """
    transform = QgsCoordinateTransform(source.sourceCrs(), crs, context.transformContext())
    usable, rejected = [], []
    for feature in source.getFeatures(QgsFeatureRequest(), MENDED_HERE):
        geometry = valid_polygon(feature, transform)
        if isinstance(geometry, str):
            rejected.append(f"feature {feature.id()}: {geometry}")
        else:
            usable.append((feature, geometry))
    if not usable:
        raise InputError(
            f"{name}: layer '{source.sourceName()}' has no polygon with an area"
            + (f" ({'; '.join(rejected[:5])})." if rejected else ".")
        )
    return usable, rejected


def valid_polygon(feature: QgsFeature, transform: QgsCoordinateTransform) -> QgsGeometry | str:
    """The polygons of a feature, transformed and mended where they cross themselves, or what is wrong with them."""
    geometry = QgsGeometry(feature.geometry())
    if geometry.isEmpty():
        return "no geometry"
    try:
        geometry.transform(transform)
    except QgsCsException:
        return "outside its CRS"
    if not geometry.isGeosValid():
        geometry = geometry.makeValid()
    if QgsWkbTypes.flatType(geometry.wkbType()) == QgsWkbTypes.Type.GeometryCollection:  # mended spikes are lines
        geometry.convertGeometryCollectionToSubclass(QgsWkbTypes.GeometryType.PolygonGeometry)
    return geometry if geometry.area() > 0 else "no area"


def inside_mask(geometries: Iterable[QgsGeometry], grid: Grid) -> np.ndarray:
    """Cells whose centre lies in any of the polygons, shape (height, width), bool."""
    dataset = gdal.GetDriverByName("MEM").Create("", grid.width, grid.height, 1, gdal.GDT_Byte)
    dataset.SetGeoTransform(grid.geotransform)
    vector = ogr.GetDriverByName("Memory").CreateDataSource("")
    layer = vector.CreateLayer("polygons", geom_type=ogr.wkbUnknown)
    for geometry in geometries:
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetGeometryDirectly(ogr.CreateGeometryFromWkb(bytes(geometry.asWkb())))
        layer.CreateFeature(feature)
    with gdal_errors("Rasterising polygons"):
        gdal.RasterizeLayer(dataset, [1], layer, burn_values=[1])
    return dataset.ReadAsArray().astype(bool)


def shares_of_cells(
    geometry: QgsGeometry, grid: Grid, points_per_side: int = POINTS_PER_SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """(cells, share of each cell in (0, 1]) that a polygon covers, counted on a regular grid of points.

    Polygons that tile a cell share it without loss: each point lies in exactly one.
    """
    box = geometry.boundingBox()
    size = grid.cell_size_m
    left = max(int(np.floor((box.xMinimum() - grid.x_min) / size)), 0)
    right = min(int(np.ceil((box.xMaximum() - grid.x_min) / size)), grid.width)
    top = max(int(np.floor((grid.y_max - box.yMaximum()) / size)), 0)
    bottom = min(int(np.ceil((grid.y_max - box.yMinimum()) / size)), grid.height)
    if right <= left or bottom <= top:
        return np.zeros(0, np.int64), np.zeros(0)
    n = points_per_side
    fine = Grid((bottom - top) * n, (right - left) * n, grid.x_min + left * size, grid.y_max - top * size, size / n)
    mask = inside_mask([geometry], fine).reshape(bottom - top, n, right - left, n).mean(axis=(1, 3))
    rows, columns = np.nonzero(mask)
    return (rows + top) * grid.width + columns + left, mask[rows, columns]


def areas_of(levels: np.ndarray, cells: np.ndarray, n_levels: int, grid: Grid) -> list[QgsGeometry]:
    """Outlines of nested areas of cells: polygon k covers the cells with level ≤ k.

    Parameters
    ----------
    levels
        Level of each cell, shape (n,); `n_levels` and above are outside.
    cells
        Flat cell indices, shape (n,).
    """
    rows, columns = np.divmod(cells, grid.width)
    inside = levels < n_levels
    if not inside.any():
        return [QgsGeometry() for _ in range(n_levels)]
    top, left = rows[inside].min(), columns[inside].min()
    shape = (rows[inside].max() - top + 1, columns[inside].max() - left + 1)
    window = np.full(shape, n_levels, np.uint8)
    window[rows[inside] - top, columns[inside] - left] = levels[inside]
    local = Grid(
        int(shape[0]),
        int(shape[1]),
        grid.x_min + left * grid.cell_size_m,
        grid.y_max - top * grid.cell_size_m,
        grid.cell_size_m,
    )
    return [_outline(window <= level, local) for level in range(n_levels)]


def _outline(mask: np.ndarray, grid: Grid) -> QgsGeometry:
    """The cells of `mask` as one MultiPolygon."""
    dataset = gdal.GetDriverByName("MEM").Create("", grid.width, grid.height, 1, gdal.GDT_Byte)
    dataset.SetGeoTransform(grid.geotransform)
    band = dataset.GetRasterBand(1)
    band.WriteArray(mask.astype(np.uint8))
    vector = ogr.GetDriverByName("Memory").CreateDataSource("")
    layer = vector.CreateLayer("area", geom_type=ogr.wkbPolygon)
    with gdal_errors("Drawing coverage areas"):
        gdal.Polygonize(band, band, layer, -1)
    parts = ogr.Geometry(ogr.wkbMultiPolygon)
    for feature in layer:
        parts.AddGeometry(feature.GetGeometryRef())
    geometry = QgsGeometry()
    geometry.fromWkb(bytes(parts.ExportToWkb()))
    return geometry
