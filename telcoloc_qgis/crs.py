"""Distances need metres: choosing a metric coordinate reference system (CRS) for a layer."""

from __future__ import annotations

import math

from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsCsException,
    QgsDistanceArea,
    QgsPointXY,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QCoreApplication, QThread

from ..models.errors import InputError

#: A projected CRS is used as it is when its metres are this close to true ones at the centre of the layer.
LARGEST_SCALE_ERROR = 0.01
_WGS84 = "EPSG:4326"


def metric_crs(
    crs: QgsCoordinateReferenceSystem, extent: QgsRectangle, context: QgsCoordinateTransformContext
) -> tuple[QgsCoordinateReferenceSystem, str]:
    """Return a CRS with true metres over `extent`, and one sentence that says which and why.

    A projected CRS in metres is kept where its scale is true to 1 % in both directions, at the centre and the corners. Otherwise
    it is the UTM zone of the centre or, for layers wider than a zone or near a pole, an equal-area azimuthal projection around
    the centre.
    """
    if not crs.isGeographic() and crs.mapUnits() == Qgis.DistanceUnit.Meters:
        error = max(_scale_error(crs, point, context) for point in _places(extent))
        if error <= LARGEST_SCALE_ERROR:
            return crs, f"Distances are measured in the layer's own CRS, {name_of(crs)}."
        reason = f"{name_of(crs)} is {100 * error:.0f} % off true metres here"
    elif crs.isGeographic():
        reason = f"{name_of(crs)} is in degrees"
    else:
        reason = f"{name_of(crs)} is not in metres"
    to_wgs84 = QgsCoordinateTransform(crs, QgsCoordinateReferenceSystem(_WGS84), context)
    try:
        degrees = to_wgs84.transformBoundingBox(extent)
    except QgsCsException as error_:
        raise InputError(f"The layer's extent cannot be placed on the earth with {name_of(crs)}: {error_}") from error_
    lon, lat = (degrees.center().x() + 180) % 360 - 180, degrees.center().y()
    if not (math.isfinite(lon) and abs(lat) <= 90):
        raise InputError(
            f"The layer's coordinates are not valid in {name_of(crs)}: centre {lon:.6g}, {lat:.6g}. Check its CRS."
        )
    if degrees.width() <= 6 and abs(lat) < 80:
        zone = min(max(int((lon + 180) // 6) + 1, 1), 60)
        chosen = QgsCoordinateReferenceSystem(f"EPSG:{(32600 if lat >= 0 else 32700) + zone}")
    else:
        chosen = QgsCoordinateReferenceSystem()
        chosen.createFromProj(f"+proj=laea +lat_0={lat:.4f} +lon_0={lon:.4f} +datum=WGS84 +units=m +type=crs")
    return chosen, f"{reason}; distances are measured in {name_of(chosen)}, and outputs use it."


def forget_those_of_ended_threads() -> None:
    """In a thread of its own, have QGIS make CRSs anew; call it when the thread's work begins and ends.

    QGIS keeps a CRS with the PROJ object of the thread that first asked for it. Once that thread has ended (QGIS ends idle ones after
    30 s) the kept CRS has no WKT and no bounds, and transforms nothing.
    """
    if QThread.currentThread() != QCoreApplication.instance().thread():
        QgsCoordinateTransform.invalidateCache()
        QgsCoordinateReferenceSystem.invalidateCache()


def name_of(crs: QgsCoordinateReferenceSystem) -> str:
    """The authority's id and name, or the PROJ string of a custom CRS."""
    return f"{crs.authid()} ({crs.description()})" if crs.authid() else crs.toProj()


def _places(extent: QgsRectangle) -> list[QgsPointXY]:
    """Centre and corners."""
    x, y = (extent.xMinimum(), extent.xMaximum()), (extent.yMinimum(), extent.yMaximum())
    return [extent.center(), *(QgsPointXY(a, b) for a in x for b in y)]


def _scale_error(crs: QgsCoordinateReferenceSystem, place: QgsPointXY, context: QgsCoordinateTransformContext) -> float:
    """How far a kilometre on the map is from a kilometre on the earth, in its worse direction, as a share."""
    measure = QgsDistanceArea()
    measure.setSourceCrs(crs, context)
    measure.setEllipsoid(crs.ellipsoidAcronym() or "EPSG:7030")
    ends = (QgsPointXY(place.x() + 1000, place.y()), QgsPointXY(place.x(), place.y() + 1000))
    try:
        return max(abs(measure.measureLine(place, end) / 1000 - 1) for end in ends)
    except QgsCsException:
        return math.inf
