"""Layers that play in QGIS's Temporal Controller: styles with temporal settings, and times as QGIS keeps them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from qgis.core import (
    Qgis,
    QgsLineSymbol,
    QgsSingleSymbolRenderer,
    QgsUnitTypes,
    QgsVariantUtils,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QDate, QDateTime, Qt, QTime
from qgis.PyQt.QtXml import QDomDocument


def seconds_of(values: Sequence[object]) -> np.ndarray:
    """Seconds since 1970-01-01 UTC of the attributes of a time field, shape (n,); NaN where one is no time.

    Dates and date-times of QGIS, and numbers and texts as `models.trajectory.dialects.times` reads them. What names no time zone is in
    UTC, so that a layer means the same on every computer.
    """
    from ..models.trajectory.dialects import times

    seconds = np.full(len(values), np.nan)
    rows, texts = [], []
    for row, value in enumerate(values):
        if QgsVariantUtils.isNull(value) or isinstance(value, bool):
            continue
        moment = QDateTime(value, QTime(0, 0), Qt.TimeSpec.UTC) if isinstance(value, QDate) else value
        if not isinstance(moment, QDateTime):
            rows.append(row)
            texts.append(str(value).strip())
        elif moment.isValid():
            if moment.timeSpec() == Qt.TimeSpec.LocalTime:
                moment = QDateTime(moment.date(), moment.time(), Qt.TimeSpec.UTC)
            seconds[row] = moment.toMSecsSinceEpoch() / 1000
    if rows:
        seconds[rows] = times(np.array(texts))[0]
    return seconds


def date_time(time_s: float) -> QDateTime:
    """Return the QDateTime, in UTC, of seconds since 1970; a null one for NaN."""
    return (
        QDateTime.fromMSecsSinceEpoch(round(time_s * 1000), Qt.TimeSpec.UTC) if math.isfinite(time_s) else QDateTime()
    )


def utc(time_s: float) -> str:
    """A moment as text, to the second and without its zone: 2024-03-07 17:50:28."""
    return date_time(float(time_s)).toString("yyyy-MM-dd HH:mm:ss")


def timed_qml(
    qml: str,
    geometry: str,
    begin: str,
    end: str | None = None,
    *,
    seconds: float = 1.0,
    accumulate: bool = False,
) -> str:
    """Return the style `qml` of a vector layer with temporal settings, so that the layer plays as it opens.

    Parameters
    ----------
    geometry
        Of the layer: "Point", "LineStringM", …
    begin, end
        Fields of date-times that a feature is there from and until. Without `end` it is there for `seconds` from `begin`, or for good
        when `accumulate` is set.
    """
    columns = "&".join(f"field={name}:datetime" for name in (begin, end) if name)
    layer = QgsVectorLayer(f"{geometry}?{columns}", "style", "memory")
    document = QDomDocument()
    document.setContent(qml)
    layer.importNamedStyle(document)
    temporal = layer.temporalProperties()
    temporal.setStartField(begin)
    if end:
        temporal.setMode(Qgis.VectorTemporalMode.FeatureDateTimeStartAndEndFromFields)
        temporal.setEndField(end)
        temporal.setLimitMode(Qgis.VectorTemporalLimitMode.IncludeBeginIncludeEnd)
    else:
        temporal.setMode(Qgis.VectorTemporalMode.FeatureDateTimeInstantFromField)
        temporal.setDurationUnits(QgsUnitTypes.TemporalUnit.TemporalSeconds)
        temporal.setFixedDuration(seconds)
        temporal.setAccumulateFeatures(accumulate)
    temporal.setIsActive(True)
    return exported(layer)


def lines_qml(colour: str = "#982d6c", width_mm: float = 0.5) -> str:
    """Style of trajectories: one thin line with round ends, half transparent where many run over each other."""
    layer = QgsVectorLayer("LineStringM", "style", "memory")
    symbol = QgsLineSymbol.createSimple(
        {
            "line_color": colour,
            "line_width": str(width_mm),
            "capstyle": "round",
            "joinstyle": "round",
        }
    )
    symbol.setOpacity(0.7)
    layer.setRenderer(QgsSingleSymbolRenderer(symbol))
    return exported(layer)


def exported(layer: QgsVectorLayer) -> str:
    """The style of a layer as text."""
    document = QDomDocument()
    layer.exportNamedStyle(document)
    return document.toString(1)
