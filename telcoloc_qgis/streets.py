"""Reading a street layer: lines in any CRS become a network in metres, and what cannot be used is counted and said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsFeatureRequest,
    QgsGeometry,
    QgsProcessingFeatureSource,
    QgsRectangle,
    QgsVariantUtils,
    QgsWkbTypes,
)

from ..models.errors import InputError
from .columns import checked_layer, recognised
from .crs import name_of
from .sites import id_text, listed

if TYPE_CHECKING:
    from ..models.progress import Progress
    from ..models.trajectory.streets import Streets
    from .algorithm import Run

#: Names that a one-way field is recognised by when none is given; upper and lower case are alike.
ONEWAY_NAMES = ("oneway", "one_way", "dir_travel")
#: Of layers with more features, only those near the points are read, and those without geometry are not counted.
READ_WHOLE = 200_000


@dataclass(frozen=True)
class StreetLayer:
    """A street network and the feature behind each of its input lines."""

    streets: Streets
    feature_ids: np.ndarray
    name: str


def read_streets(
    run: Run,
    parameter: str,
    crs: QgsCoordinateReferenceSystem,
    around: QgsRectangle,
    oneway: str | None,
    progress: Progress,
) -> StreetLayer:
    """Read the streets in or near the box `around`, in `crs`, which is metric.

    Parameters
    ----------
    oneway
        Parameter that names the one-way field; None to treat all streets as open both ways.

    Raises
    ------
    InputError
        No features, no lines, unknown CRS, no usable street.
    """
    from ..models.trajectory.streets import BOTH, build_streets, oneway_of

    source = run.parameters.source(parameter)
    layer = checked_layer(parameter, source, QgsWkbTypes.GeometryType.LineGeometry, "lines; give a layer of streets")
    column = _oneway_field(run, source, oneway)
    if oneway:
        run.info(f"One-way field of '{layer}': {column or 'none; all streets are open both ways'}.")
    transform = QgsCoordinateTransform(source.sourceCrs(), crs, run.context.transformContext())
    request = QgsFeatureRequest()
    request.setSubsetOfAttributes([column] if column else [], source.fields())
    count = source.featureCount()
    if count > READ_WHOLE:
        try:
            request.setFilterRect(transform.transformBoundingBox(around, Qgis.TransformDirection.Reverse))
        except QgsCsException:
            run.info(f"{parameter}: all of '{layer}' is read, because its CRS does not reach the points.")
    lines: list[np.ndarray] = []
    ids: list[int] = []
    travel: list[int] = []
    missing: list[str] = []
    empty: list[str] = []
    unknown: list[str] = []
    taken_apart = far = 0
    unchecked = (
        QgsProcessingFeatureSource.Flag.FlagSkipGeometryValidityChecks
    )  # a line without length must not end the run
    for done, feature in enumerate(source.getFeatures(request, unchecked)):
        if done % 256 == 0:
            progress(0.9 * min(done / max(count, 1), 1.0))
        geometry = feature.geometry()
        if geometry.isNull() or geometry.isEmpty():
            missing.append(f"feature {feature.id()}")
            continue
        try:
            geometry.transform(transform)
        except QgsCsException:
            missing.append(f"feature {feature.id()}: outside {crs.authid()}")
            continue
        if not geometry.boundingBox().intersects(around):
            far += 1
            continue
        parts = [
            part for part in map(_vertices, geometry.coerceToType(QgsWkbTypes.Type.LineString)) if part is not None
        ]
        if not parts:
            empty.append(f"feature {feature.id()}")
            continue
        direction = BOTH
        if column:
            value = feature[column]
            read = oneway_of(None if QgsVariantUtils.isNull(value) else value)
            if read is None:
                unknown.append(f"feature {feature.id()}: '{id_text(value)}'")
            direction = BOTH if read is None else read
        taken_apart += len(parts) > 1
        lines += parts
        ids += [feature.id()] * len(parts)
        travel += [direction] * len(parts)
    if taken_apart:
        run.info(f"{parameter}: {taken_apart:,} features of several lines were taken apart.")
    for what, rows in (("have no geometry", missing), ("have no length", empty)):
        if rows:
            run.warn(f"{parameter}: {len(rows):,} features {what} and were left out: {listed(rows)}.")
    if unknown:
        run.warn(
            f"{parameter}: {len(unknown):,} streets have a mark in '{column}' that is not known and count as open both ways: "
            f"{listed(unknown)}."
        )
    if not lines:
        if not far and (missing or empty):
            raise InputError(
                f"{parameter}: none of the {len(missing) + len(empty):,} features of layer '{layer}' is a line with a length."
            )
        which = f"none of the {far:,} streets" if far else "no street"
        raise InputError(f"{parameter}: {which} of layer '{layer}' is near the points. {_what_to_check(source)}")
    first = np.concatenate([[0], np.cumsum([len(line) for line in lines])])
    streets = build_streets(
        np.concatenate(lines), first, np.array(travel), progress=lambda fraction: progress(0.9 + fraction / 10)
    )
    run.info(
        f"{len(lines):,} streets near the points make a network of {len(streets):,} edges and {len(streets.node_xy_m):,} nodes."
    )
    return StreetLayer(streets, np.array(ids, dtype=np.int64), layer)


def _what_to_check(source: QgsProcessingFeatureSource) -> str:
    """What may be wrong with the CRS of a layer that lies elsewhere."""
    crs, extent = source.sourceCrs(), source.sourceExtent()
    if not crs.isGeographic() and QgsRectangle(-180, -90, 180, 90).contains(extent):
        return (
            f"Its coordinates, such as {extent.xMinimum():.4f}, {extent.yMinimum():.4f}, look like degrees, but its CRS is {name_of(crs)}: "
            "set the right one with Layer > Set CRS of Layer."
        )
    return "Check the CRS of both layers."


def _oneway_field(run: Run, source: QgsProcessingFeatureSource, parameter: str | None) -> str | None:
    """The field given, or the first one recognised by its name."""
    if parameter is None:
        return None
    given = run.parameters.field(parameter, source)
    return given or recognised(source, ONEWAY_NAMES)


def _vertices(line: QgsGeometry) -> np.ndarray | None:
    """Vertices of a plain line, shape (n, 2), None when it has no length or coordinates that are no numbers."""
    vertices = np.frombuffer(bytes(line.asWkb()), dtype="<f8", offset=9).reshape(-1, 2)
    if len(vertices) < 2 or not np.isfinite(vertices).all() or math.isclose(line.length(), 0.0, abs_tol=1e-3):
        return None
    return vertices
