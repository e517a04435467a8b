"""How our outputs look: QML made from their values, so that maps open with classes and legends that fit."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from datetime import datetime

import numpy as np
from osgeo import gdal
from qgis.core import (
    Qgis,
    QgsCategorizedSymbolRenderer,
    QgsColorRampShader,
    QgsDateTimeRange,
    QgsFeatureRequest,
    QgsFillSymbol,
    QgsGraduatedSymbolRenderer,
    QgsMapLayer,
    QgsMarkerSymbol,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProperty,
    QgsRasterLayer,
    QgsRasterShader,
    QgsRendererCategory,
    QgsRendererRange,
    QgsSimpleMarkerSymbolLayer,
    QgsSingleBandPseudoColorRenderer,
    QgsSymbolLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QDateTime, Qt
from qgis.PyQt.QtGui import QColor, QPainter
from qgis.PyQt.QtXml import QDomDocument

#: Light to dark: reads as "more" on a pale map, in print, and for colour-blind eyes (lightness falls monotonically).
SEQUENTIAL = ("#fff3d6", "#fddc9e", "#fcbb78", "#f6935f", "#e66b5b", "#c74764", "#982d6c", "#611f63")
#: Limits of classes of errors and radii [m], and most of them within one layer.
_ROUND_M = tuple(float(step * 10**power) for power in range(7) for step in (1, 1.5, 2, 3, 5, 7.5))
_MOST_LIMITS = 6
#: Dark to pale: what is sure stands out, what is not fades.
CERTAINTY = ("#1d3f57", "#2f7f8c", "#72b5ab", "#bfdcc4", "#f6efd2")
#: While steps of at most so many minutes are played, there is room for the circles of uncertainty.
CIRCLES_UP_TO_MINUTES = 10
#: Muted neighbours for areas; any two can lie side by side.
AREAS = ("#8dbcd1", "#f0c987", "#a9cba0", "#e0a29a", "#b9aed3", "#d9d38c", "#93c7bd", "#d3b59a", "#c3c8cf")
#: Printed over the map below like ink, so that streets and names stay readable.
OVERLAY = QPainter.CompositionMode.CompositionMode_Multiply
#: A legend with more classes than this opens folded.
LONG_LEGEND = 12


class StyleOnLoad(QgsProcessingLayerPostProcessorInterface):
    """Apply a QML text to a result once QGIS has loaded it (a side-car .qml alone leaves temporal settings inactive)."""

    @classmethod
    def create(cls, qml: str) -> StyleOnLoad:
        """Return a post-processor for `qml`; the caller keeps a reference to it."""
        processor = cls()
        processor.qml = qml
        return processor

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        document = QDomDocument()
        document.setContent(self.qml)
        done, message = layer.importNamedStyle(document)
        if not done:
            feedback.pushWarning(f"The style of '{layer.name()}' could not be applied: {message}")
        layer.triggerRepaint()
        project = context.project()
        node = project.layerTreeRoot().findLayer(layer.id()) if project is not None else None
        if node is not None and isinstance(layer, QgsRasterLayer) and len(layer.legendSymbologyItems()) > LONG_LEGEND:
            node.setExpanded(False)


def probability_qml(band: int, largest: float) -> str:
    """Style of a geolocation stack that shows `band`: half-decade classes of probability below `largest`."""
    top = math.ceil(2 * math.log10(max(largest, 1e-30)))
    limits = [_half_decade(top - step) for step in range(len(SEQUENTIAL), 0, -1)]
    limits = limits[1:]  # the lowest class holds all the rest
    return classes_qml(band, limits, lambda value: f"{_significant(100 * value)} %")


def _half_decade(step: int) -> float:
    return float(f"{10 ** (step / 2):.0e}") if step % 2 else 10.0 ** (step // 2)


def classes_qml(
    band: int,
    limits: Sequence[float],
    label: object = None,
    unit: str = "",
    times: Sequence[tuple[datetime, datetime]] | None = None,
) -> str:
    """Style of a raster in classes split at rising `limits`, animated where `times` holds a range per band."""
    write = label if callable(label) else lambda value: _significant(value)
    layer = _stand_in()
    picked = np.linspace(0, len(SEQUENTIAL) - 1, len(limits) + 1).round().astype(int)
    suffix = f" {unit}" if unit else ""
    items = []
    for index, colour in enumerate(picked):
        low = write(limits[index - 1]) if index else ""
        high = write(limits[index]) if index < len(limits) else ""
        text = f"under {high}" if not low else f"over {low}" if not high else f"{low} – {high}"
        upper = limits[index] if index < len(limits) else math.inf
        items.append(QgsColorRampShader.ColorRampItem(upper, QColor(SEQUENTIAL[colour]), text + suffix))
    ramp = QgsColorRampShader(0.0, float(limits[-1]), None, Qgis.ShaderInterpolationMethod.Discrete)
    ramp.setColorRampItemList(items)
    shader = QgsRasterShader()
    shader.setRasterShaderFunction(ramp)
    renderer = QgsSingleBandPseudoColorRenderer(None, band, shader)
    renderer.setClassificationMin(0.0)
    renderer.setClassificationMax(float(limits[-1]))
    layer.setRenderer(renderer)
    layer.setBlendMode(OVERLAY)
    if times:
        temporal = layer.temporalProperties()
        temporal.setMode(Qgis.RasterTemporalMode.FixedRangePerBand)
        temporal.setFixedRangePerBand(
            {index: QgsDateTimeRange(_qt(begin), _qt(end), True, False) for index, (begin, end) in enumerate(times, 1)}
        )
        temporal.setIsActive(True)
    return _exported(layer)


def signal_qml(band: int, edges: Sequence[float], unit: str, falling: bool = False) -> str:
    """Style of a raster of decibels in classes split at rising `edges`, darker where the signal is stronger, in steps of the same unit.

    What lies below the first edge (with `falling`, for losses: above the last) is too weak to be received and is not drawn.
    """
    layer = _stand_in()
    picked = np.linspace(0, len(SEQUENTIAL) - 1, len(edges)).round().astype(int)
    colours = [QColor(0, 0, 0, 0), *(QColor(SEQUENTIAL[colour]) for colour in picked)]
    limits = [*edges, math.inf]
    names = [f"under {edges[0]:g} {unit}"]
    names += [f"{low:g} to {high:g} {unit}" for low, high in zip(edges[:-1], edges[1:])]
    names.append(f"over {edges[-1]:g} {unit}")
    names[-1 if falling else 0] += " (not received)"
    items = [
        QgsColorRampShader.ColorRampItem(limit, colour, name)
        for limit, colour, name in zip(limits, reversed(colours) if falling else colours, names)
    ]
    ramp = QgsColorRampShader(float(edges[0]), float(edges[-1]), None, Qgis.ShaderInterpolationMethod.Discrete)
    ramp.setColorRampItemList(items)
    shader = QgsRasterShader()
    shader.setRasterShaderFunction(ramp)
    renderer = QgsSingleBandPseudoColorRenderer(None, band, shader)
    renderer.setClassificationMin(float(edges[0]))
    renderer.setClassificationMax(float(edges[-1]))
    layer.setRenderer(renderer)
    layer.setBlendMode(OVERLAY)
    return _exported(layer)


def area_rgb(colours: np.ndarray) -> dict[str, np.ndarray]:
    """Columns red, green and blue of an attribute table whose rows have these colours of `AREAS`."""
    return {
        name: np.array([int(AREAS[colour][start : start + 2], 16) for colour in colours])
        for name, start in (("red", 1), ("green", 3), ("blue", 5))
    }


def best_server_qml(names: Sequence[str], colours: np.ndarray) -> str:
    """Style of a best-server raster: one muted colour per base station, different from its neighbours'."""
    layer = _stand_in()
    classes = [
        QgsPalettedRasterRenderer.Class(index, QColor(AREAS[colour]), name)
        for index, (name, colour) in enumerate(zip(names, colours))
    ]
    layer.setRenderer(QgsPalettedRasterRenderer(None, 1, classes))
    layer.setBlendMode(OVERLAY)
    return _exported(layer)


def zones_qml(field: str, values: np.ndarray) -> str:
    """Style of zones in classes of `field`, with a thin pale outline."""
    layer = QgsVectorLayer(f"MultiPolygon?field={field}:double", "style", "memory")
    largest = float(np.max(values, initial=0.0))
    limits = [limit for limit in class_limits(values, 6) if limit < largest]
    edges = [0.0, *limits, largest]
    picked = np.linspace(0, len(SEQUENTIAL) - 2, len(edges) - 1).round().astype(int)
    ranges = [
        QgsRendererRange(
            low, high, _fill(SEQUENTIAL[colour], "#ffffff", 0.3), f"{_significant(low)} – {_significant(high)}"
        )
        for low, high, colour in zip(edges[:-1], edges[1:], picked)
    ]
    layer.setRenderer(QgsGraduatedSymbolRenderer(f'"{field}"', ranges))
    layer.setBlendMode(OVERLAY)
    return _exported(layer)


def coverage_qml() -> str:
    """Style of coverage areas: nested translucent fills of one hue, the inner the darker; the outer one a thin outline."""
    layer = QgsVectorLayer("MultiPolygon?field=level:integer", "style", "memory")
    looks = (
        (50, "#2b6c8f59", "#2b6c8fcc", 0.3),
        (75, "#5b9fbf33", "#5b9fbf99", 0.2),
        (95, "#9cc7da1f", "#6f9fb599", 0.15),
    )
    categories = [
        QgsRendererCategory(level, _fill(_argb(fill), _argb(line), width), f"{level} % of its devices")
        for level, fill, line, width in looks
    ]
    renderer = QgsCategorizedSymbolRenderer("level", categories)
    renderer.setOrderBy(QgsFeatureRequest.OrderBy([QgsFeatureRequest.OrderByClause("level", False)]))
    renderer.setOrderByEnabled(True)
    layer.setRenderer(renderer)
    return _exported(layer)


def points_qml(field: str, values: np.ndarray, edges: list[float] | None = None) -> str:
    """Style of points in classes of `field`: between `edges` [m], or such that split its values evenly; NaN are left out."""
    layer = QgsVectorLayer(f"Point?field={field}:double", "style", "memory")
    unit = " m" if edges else ""
    edges = edges or _even_edges(np.asarray(values, float)[np.isfinite(values)])
    picked = np.linspace(0, len(SEQUENTIAL) - 1, len(edges) - 1).round().astype(int)
    ranges = [
        QgsRendererRange(low, high, _marker(SEQUENTIAL[colour]), f"{_significant(low)} – {_significant(high)}{unit}")
        for low, high, colour in zip(edges[:-1], edges[1:], picked)
    ]
    layer.setRenderer(QgsGraduatedSymbolRenderer(f'"{field}"', ranges))
    return _exported(layer)


def _even_edges(known: np.ndarray) -> list[float]:
    """Class limits that split `known` evenly, from the least to the greatest."""
    edges = sorted({_round(float(edge), 2) for edge in np.quantile(known, np.linspace(0, 1, 7))}) if known.size else []
    edges = edges if len(edges) > 1 else [0.0, *edges, 1.0][-2:]
    return [
        min(edges[0], float(known.min(initial=edges[0]))),
        *edges[1:-1],
        max(edges[-1], float(known.max(initial=edges[-1]))),
    ]


def metre_edges(values: np.ndarray) -> list[float]:
    """Class limits [m] of errors and radii, from 0: round ones, the same for all layers as far as their values go."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    largest = max(float(known.max(initial=1.0)), 1.0)
    low, high = np.quantile(known, [0.1, 0.95]) if known.size else (0.0, 0.0)
    inner = [limit for limit in _ROUND_M if low < limit < high]
    if len(inner) > _MOST_LIMITS:
        inner = [limit for limit in inner if f"{limit:e}"[0] in "125"]
    top = next((limit for limit in _ROUND_M if limit >= largest), float(math.ceil(largest)))
    return [0.0, *inner[-_MOST_LIMITS:], top]


def uncertain_points_qml(field: str, values: np.ndarray) -> str:
    """Style of points with the radius [m] of a circle in `field`: dark where it is small, pale where it is large.

    The circle itself is drawn under selected points, and under all that are there while the Temporal Controller plays.
    """
    layer = QgsVectorLayer(f"Point?field={field}:double", "style", "memory")
    edges = metre_edges(values)
    last = min(len(CERTAINTY) - 1, 2 * (len(edges) - 2))  # two classes that nearly touch need no black and white
    picked = np.linspace(0, last, len(edges) - 1).round().astype(int)
    ranges = []
    for low, high, colour in zip(edges[:-1], edges[1:], picked):
        name = f"{_significant(low)} – {_significant(high)} m"
        ranges.append(QgsRendererRange(low, high, _circled(CERTAINTY[colour], field), name))
    renderer = QgsGraduatedSymbolRenderer(f'"{field}"', ranges)
    renderer.setOrderBy(QgsFeatureRequest.OrderBy([QgsFeatureRequest.OrderByClause(field, False)]))
    renderer.setOrderByEnabled(True)  # the surest on top
    layer.setRenderer(renderer)
    layer.selectionProperties().setSelectionRenderingMode(Qgis.SelectionRenderingMode.CustomColor)
    layer.selectionProperties().setSelectionColor(QColor(246, 169, 59, 110))  # a circle hides nothing
    return _exported(layer)


def _circled(colour: str, field: str) -> QgsMarkerSymbol:
    """A point, and under it a faint circle with the radius [m] that `field` holds."""
    symbol = _marker(colour, 2.0)
    circle = QgsSimpleMarkerSymbolLayer(Qgis.MarkerShape.Circle)
    circle.setSize(1.0)
    circle.setSizeUnit(Qgis.RenderUnit.MetersInMapUnits)
    circle.setFillColor(QColor(29, 63, 87, 14))
    circle.setStrokeColor(QColor(29, 63, 87, 90))
    circle.setStrokeWidth(0.15)
    property_of = QgsSymbolLayer.Property
    circle.setDataDefinedProperty(property_of.PropertySize, QgsProperty.fromExpression(f'2 * "{field}"'))
    shown = QgsProperty.fromExpression(
        f"is_selected() OR coalesce(minute(@map_interval) <= {CIRCLES_UP_TO_MINUTES}, false)"
    )
    circle.setDataDefinedProperty(property_of.PropertyLayerEnabled, shown)
    symbol.insertSymbolLayer(0, circle)
    return symbol


def categories_qml(field: str, names: Sequence[str]) -> str:
    """Style of points by the names in `field`, in the order given from dark to light."""
    layer = QgsVectorLayer(f"Point?field={field}:string", "style", "memory")
    picked = np.linspace(len(SEQUENTIAL) - 1, 1, len(names)).round().astype(int)
    categories = [QgsRendererCategory(name, _marker(SEQUENTIAL[colour]), name) for name, colour in zip(names, picked)]
    layer.setRenderer(QgsCategorizedSymbolRenderer(field, categories))
    return _exported(layer)


def _marker(colour: str, size_mm: float = 2.4) -> QgsMarkerSymbol:
    return QgsMarkerSymbol.createSimple(
        {"name": "circle", "size": str(size_mm), "color": colour, "outline_color": "#1d3f57", "outline_width": "0.2"}
    )


def _argb(rgba: str) -> str:
    """#rrggbbaa as Qt reads it: #aarrggbb."""
    return f"#{rgba[7:]}{rgba[1:7]}"


def _fill(colour: str, outline: str, width_mm: float) -> QgsFillSymbol:
    symbol = QgsFillSymbol.createSimple({"outline_width": str(width_mm)})
    symbol.symbolLayer(0).setFillColor(QColor(colour))
    symbol.symbolLayer(0).setStrokeColor(QColor(outline))
    return symbol


def class_limits(values: np.ndarray, n_classes: int = 7) -> list[float]:
    """Rising round class limits, evenly spaced in logarithm from the 10 % to the 99 % quantile of the positive values."""
    positive = np.asarray(values)[np.asarray(values) > 0]
    if not positive.size:
        return [1.0]
    low, high = np.quantile(positive, [0.1, 0.99])
    if high < 1.5 * low:
        return [_round(float(high))]
    limits = np.geomspace(low, high, n_classes - 1)
    return sorted({_round(float(limit), 1 if high > 8 * low else 2) for limit in limits})


def _round(value: float, digits: int = 2) -> float:
    return float(f"{value:.{digits - 1}e}")


def neighbour_colours(labels: np.ndarray, n_labels: int) -> np.ndarray:
    """Colour index per label so that touching areas differ, shape (n_labels,): greedy, largest degree first."""
    pairs = [
        np.stack([a[a != b], b[a != b]])
        for a, b in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:]), (labels[:-1, :-1], labels[1:, 1:]))
    ]
    edges = np.concatenate(pairs, axis=1)
    edges = edges[:, (edges >= 0).all(axis=0)]
    edges = np.unique(np.concatenate([edges, edges[::-1]], axis=1), axis=1)
    starts = np.searchsorted(edges[0], np.arange(n_labels + 1))
    colours = np.full(n_labels, -1)
    for label in np.argsort(-np.diff(starts), kind="stable"):
        taken = np.bincount(colours[edges[1, starts[label] : starts[label + 1]]] + 1, minlength=len(AREAS) + 1)[1:]
        rotated = np.roll(taken, -(int(label) % len(AREAS)))
        colours[label] = (int(np.argmin(rotated)) + int(label)) % len(AREAS)
    return colours


def _stand_in() -> QgsRasterLayer:
    """Return a raster of one cell to build a style on: opening the real one would have QGIS compute its statistics."""
    path = f"/vsimem/telcoloc_{uuid.uuid4().hex}.tif"
    dataset = gdal.GetDriverByName("GTiff").Create(path, 1, 1, 1, gdal.GDT_Float32)
    dataset.SetGeoTransform((0.0, 1.0, 0.0, 1.0, 0.0, -1.0))
    dataset = None
    return QgsRasterLayer(path, "style", "gdal", QgsRasterLayer.LayerOptions(loadDefaultStyle=False))


def _exported(layer: QgsMapLayer) -> str:
    document = QDomDocument()
    layer.exportNamedStyle(document)
    if layer.providerType() == "gdal":
        gdal.GetDriverByName("GTiff").Delete(layer.source())
    return document.toString(1)


def _significant(value: float) -> str:
    """Two significant digits, with thousands separated, without an exponent where that stays short."""
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if not -5 <= power < 9:
        return f"{value:.1e}"
    return (
        f"{round(value, 1 - power):,.{max(0, 1 - power)}f}".rstrip("0").rstrip(".")
        if power < 1
        else f"{round(value, 1 - power):,.0f}"
    )


def _qt(moment: datetime) -> QDateTime:
    return QDateTime.fromMSecsSinceEpoch(int(moment.timestamp() * 1000), Qt.TimeSpec.UTC)
