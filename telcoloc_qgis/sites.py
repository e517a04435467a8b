"""Reading a base-station (BS) layer: points in any CRS become metric sites, and what cannot be used is counted and listed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import (
    NULL,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsFeature,
    QgsFeatureRequest,
    QgsPointXY,
    QgsProcessingFeatureSource,
    QgsRectangle,
    QgsWkbTypes,
)

from ..models.errors import InputError
from .columns import checked_layer
from .crs import metric_crs

if TYPE_CHECKING:
    from ..models.geolocation.sites import Sites
    from .algorithm import Run

#: So many rejected rows are named in a message; all are counted.
NAMED_ROWS = 8


def listed(rows: list[str]) -> str:
    """The first few of `rows` and how many more there are."""
    more = len(rows) - NAMED_ROWS
    return "; ".join(rows[:NAMED_ROWS]) + (f"; and {more:,} more" if more > 0 else "")


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun, and what else depends on there being one; `many` is `one` and an s unless given."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def id_text(value: object) -> str:
    """How an attribute value reads as an id: whole numbers without a decimal point, None for NULL and blanks."""
    if value is None or value == NULL:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def point_of(feature: QgsFeature) -> QgsPointXY | str:
    """Return where a feature is, or what is wrong with its geometry."""
    geometry = feature.geometry()
    if geometry.isNull() or geometry.isEmpty():
        return "no geometry"
    if geometry.isMultipart() and geometry.constGet().numGeometries() > 1:
        return f"{geometry.constGet().numGeometries()} points in one feature"
    point = geometry.asMultiPoint()[0] if geometry.isMultipart() else geometry.asPoint()
    if not (math.isfinite(point.x()) and math.isfinite(point.y())):
        return f"coordinates {point.x()}, {point.y()}"
    return point


def checked_points(source: QgsProcessingFeatureSource, parameter: str) -> str:
    """The name of a usable point layer.

    Raises
    ------
    InputError
        No points, no features, unknown CRS.
    """
    points = QgsWkbTypes.GeometryType.PointGeometry
    return checked_layer(parameter, source, points, "points. Use 'Centroids' first, or another layer")


def projected(
    run: Run,
    source: QgsProcessingFeatureSource,
    points: list[QgsPointXY],
    ids: list[str],
    parameter: str,
    crs: QgsCoordinateReferenceSystem | None = None,
) -> tuple[np.ndarray, QgsCoordinateReferenceSystem]:
    """Positions [m] of named points, shape (n, 2), and the metric CRS they are in: `crs`, or one chosen for them.

    Raises
    ------
    InputError
        When a point has no place in that CRS.
    """
    if crs is None:
        crs, why = metric_crs(source.sourceCrs(), _extent(source, points), run.context.transformContext())
        run.info(why)
    transform = QgsCoordinateTransform(source.sourceCrs(), crs, run.context.transformContext())
    xy = np.empty((len(points), 2))
    for row, point in enumerate(points):
        try:
            there = transform.transform(point)
        except QgsCsException as error:
            raise InputError(
                f"{parameter}: '{ids[row]}' at {point.x():.6g}, {point.y():.6g} cannot be placed in {crs.authid()}. "
                "Check the layer's CRS and coordinates."
            ) from error
        xy[row] = there.x(), there.y()
    if not np.isfinite(xy).all():
        row = int(np.flatnonzero(~np.isfinite(xy).all(axis=1))[0])
        raise InputError(
            f"{parameter}: '{ids[row]}' cannot be placed in {crs.authid()}. Check the layer's CRS and coordinates."
        )
    return xy, crs


def read_sites(
    run: Run,
    source: QgsProcessingFeatureSource,
    id_field: str | None,
    parameter: str = "INPUT",
    crs: QgsCoordinateReferenceSystem | None = None,
) -> tuple[Sites, QgsCoordinateReferenceSystem]:
    """Read, project and merge the sites of a BS layer.

    Parameters
    ----------
    crs
        A CRS in metres that positions are wanted in; None to choose one.

    Returns
    -------
    (Sites, QgsCoordinateReferenceSystem)
        The sites, and the metric CRS of their positions.

    Raises
    ------
    InputError
        No features, no points, unknown CRS, no usable row, an id at two places.
    """
    from ..models.geolocation.sites import merge_sites

    layer = checked_points(source, parameter)
    request = QgsFeatureRequest()
    request.setSubsetOfAttributes([id_field] if id_field else [], source.fields())
    ids, points, rejected = [], [], []
    order = []
    for count, feature in enumerate(source.getFeatures(request)):
        if count % 1000 == 0:
            run.progress(0.0)
        point = point_of(feature)
        if isinstance(point, str):
            rejected.append(f"feature {feature.id()}: {point}")
            continue
        name = id_text(feature[id_field]) if id_field else str(feature.id())
        if not name:
            rejected.append(f"feature {feature.id()}: {id_field} is empty")
            continue
        order.append(feature.id())
        ids.append(name)
        points.append(point)
    if rejected:
        run.warn(f"{len(rejected):,} of {len(rejected) + len(ids):,} rows cannot be used: {listed(rejected)}.")
    if not ids:
        raise InputError(
            f"{parameter}: none of the {len(rejected):,} rows of layer '{layer}' can be used ({listed(rejected)})."
        )
    by_id = sorted(range(len(order)), key=order.__getitem__)  # selected features come in any order
    ids, points = [ids[row] for row in by_id], [points[row] for row in by_id]
    xy, crs = projected(run, source, points, ids, parameter, crs)
    sites = merge_sites(ids, xy, f"'{id_field}'" if id_field else "id")
    if sites.merged:
        text = f"{len(ids):,} rows stand at {len(sites):,} different places: {sites.merged:,} sectors were merged into their sites."
        if sites.renamed:
            text += f" {sites.renamed:,} ids are kept as members of the first id of their site."
        run.info(text)
    return sites, crs


def only(sites: Sites, rows: np.ndarray) -> Sites:
    """Return some of the sites, by their indices."""
    return replace(
        sites,
        ids=tuple(sites.ids[row] for row in rows),
        xy_m=sites.xy_m[rows],
        members=tuple(sites.members[row] for row in rows),
        sectors=sites.sectors[rows],
    )


def _extent(source: QgsProcessingFeatureSource, points: list[QgsPointXY]) -> QgsRectangle:
    extent = QgsRectangle()
    for point in points:
        extent.combineExtentWith(point)
    if source.sourceCrs().isGeographic() and extent.width() > 180:  # on both sides of the antimeridian
        extent = QgsRectangle()
        for point in points:
            extent.combineExtentWith(QgsPointXY(point.x() % 360, point.y()))
    return extent


def read_positive(
    run: Run,
    source: QgsProcessingFeatureSource,
    id_field: str | None,
    sites: Sites,
    field: str,
    largest: float,
    parameter: str,
) -> np.ndarray:
    """Read a number in (0, `largest`] of each site from a field, shape (n,): that of its first sector.

    Raises
    ------
    InputError
        When a row of a site has no number, or one out of range.
    """
    site_of = {name: index for index, names in enumerate(sites.members) for name in names}
    request = QgsFeatureRequest().setFlags(QgsFeatureRequest.Flag.NoGeometry)
    request.setSubsetOfAttributes([field, *([id_field] if id_field else [])], source.fields())
    values = np.full(len(sites), np.nan)
    differing: dict[int, None] = {}
    for feature in sorted(source.getFeatures(request), key=lambda one: int(one.id())):
        name = id_text(feature[id_field]) if id_field else str(feature.id())
        index = site_of.get(name)
        if index is None:  # a row that `read_sites` could not use
            continue
        where = f"feature {feature.id()}" + (f" ('{name}')" if id_field else "")
        text = id_text(feature[field])
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= largest:
            found = f"is '{text}'" if text else "is empty"
            raise InputError(
                f"{parameter}: '{field}' of {where} {found}; every base station needs a number above 0 and at most {largest:g}. "
                "Correct it, or choose another field."
            )
        if math.isnan(values[index]):
            values[index] = value
        elif values[index] != value:
            differing[index] = None
    if differing:
        names = listed([sites.ids[index] for index in differing])
        run.warn(
            f"{parameter}: the sectors of {len(differing):,} sites differ in '{field}'; the first one's counts: {names}."
        )
    return values
