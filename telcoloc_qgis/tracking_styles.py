"""How landmark-assisted tracking looks: candidates, the edges of the graph, the chosen path, landmarks and the truth.

The manner of Figures 2 and 7 of the paper: what was possible is thin and grey, what was chosen is red, landmarks are squares. All
layers have times, so that they play together in the Temporal Controller.
"""

from __future__ import annotations

import numpy as np
from qgis.core import (
    Qgis,
    QgsCategorizedSymbolRenderer,
    QgsFeatureRequest,
    QgsFillSymbol,
    QgsGraduatedSymbolRenderer,
    QgsLineSymbol,
    QgsMarkerSymbol,
    QgsPalLayerSettings,
    QgsRendererCategory,
    QgsRendererRange,
    QgsSingleSymbolRenderer,
    QgsTextBufferSettings,
    QgsTextFormat,
    QgsVectorLayer,
    QgsVectorLayerSimpleLabeling,
)
from qgis.PyQt.QtGui import QColor, QFont

from .styles import CERTAINTY, classes_qml
from .temporal import exported, timed_qml

#: What was chosen, what was possible, what is true, what is written.
CHOSEN, POSSIBLE, TRUE, INK = "#c8232c", "#858b90", "#1f5fbf", "#2b2b2b"
#: Width of the motion chosen, more than that of the whole path, so that it shows while the graph plays [mm].
CHOSEN_MM = 0.9
#: Labels of errors appear from this scale on.
LABELS_FROM_SCALE = 2000
#: What an instant of the path can be.
PATH_KINDS = ("landmark", "candidate", "filled", "predicted")
#: Limits of the classes of sensibility, which goes from 0 to 1.
_SENSIBILITY = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75)


def candidates_qml(error_db: np.ndarray, seconds: float = 1.0, size_mm: float = 1.3) -> str:
    """Style of the CANDIDATES layer: small points by `error_db`, the better the darker, larger and further up.

    Parameters
    ----------
    error_db
        Values of the field of that name [dB], shape (n,); NaN count as the worst.
    seconds
        How long an instant is shown [s]: the usual time between two.
    """
    layer = QgsVectorLayer("Point?field=error_db:double", "style", "memory")
    edges = _error_edges(np.asarray(error_db, dtype=float))
    picked = np.linspace(0, len(CERTAINTY) - 1, len(edges) - 1).round().astype(int)
    ranges = []
    for rank, (low, high, colour) in enumerate(zip(edges[:-1], edges[1:], picked)):
        symbol = _dot(CERTAINTY[colour], size_mm * (1.25 - 0.5 * rank / max(len(edges) - 2, 1)), "#5d7078", 0.08)
        ranges.append(QgsRendererRange(low, high, symbol, f"{low:.3g} – {high:.3g} dB"))
    renderer = QgsGraduatedSymbolRenderer(f'coalesce("error_db", {edges[-1]})', ranges)
    _ordered(renderer, "error_db", ascending=False)
    layer.setRenderer(renderer)
    return timed_qml(exported(layer), "Point", "time", seconds=seconds)


def _error_edges(error_db: np.ndarray) -> list[float]:
    """Rising class limits [dB] from the least to the greatest error, an equal share of the candidates in each."""
    known = error_db[np.isfinite(error_db)]
    if not known.size:
        return [0.0, 1.0]
    inner = [float(f"{value:.2g}") for value in np.quantile(known, np.linspace(0, 1, len(CERTAINTY) + 1)[1:-1])]
    low, high = float(np.floor(10 * known.min()) / 10), float(np.ceil(10 * known.max()) / 10)
    return [low, *sorted({limit for limit in inner if low < limit < high}), max(high, low + 0.1)]


def edges_qml(width_mm: float = 0.14, opacity: float = 0.7) -> str:
    """Style of the EDGES layer: solid between instants that follow each other, dashed over skipped ones, the chosen ones red."""
    layer = QgsVectorLayer("LineString?field=forwarding:integer&field=chosen:integer", "style", "memory")
    looks = (
        (0, POSSIBLE, width_mm, False, "Possible motion"),
        (1, POSSIBLE, width_mm, True, "Possible motion over skipped instants"),
        (2, CHOSEN, CHOSEN_MM, False, "Chosen motion"),
        (3, CHOSEN, CHOSEN_MM, True, "Chosen motion over skipped instants"),
    )
    categories = []
    for code, colour, width, dashed, label in looks:
        symbol = _line(colour, width, dashed)
        symbol.setOpacity(1.0 if colour == CHOSEN else opacity)
        categories.append(QgsRendererCategory(code, symbol, label))
    renderer = QgsCategorizedSymbolRenderer('2 * coalesce("chosen", 0) + coalesce("forwarding", 0)', categories)
    _ordered(renderer, "chosen", ascending=True)
    layer.setRenderer(renderer)
    return timed_qml(exported(layer), "LineString", "time", "time_to")


def path_qml(with_truth: bool = False, seconds: float = 1.0, size_mm: float = 1.6) -> str:
    """Style of the PATH layer: red points, red squares where a landmark was crossed, hollow where nothing was heard.

    Parameters
    ----------
    with_truth
        Whether there is a field `truth_error_m`; it is written beside the points from 1:2,000 on.
    seconds
        How long an instant is shown [s].
    """
    layer = QgsVectorLayer("Point?field=kind:string&field=truth_error_m:double", "style", "memory")
    hollow = QgsMarkerSymbol.createSimple(
        {
            "name": "circle",
            "size": f"{0.8 * size_mm}",
            "color": "#ffffff",
            "outline_color": CHOSEN,
            "outline_width": "0.2",
        }
    )
    looks = (
        ("landmark", _square(CHOSEN, "#ffffff", 1.9 * size_mm), "Landmark on the path"),
        ("candidate", _dot(CHOSEN, size_mm, "#ffffff", 0.18), "Candidate on the path"),
        ("filled", hollow, "Filled in between"),
        ("predicted", hollow.clone(), "Predicted"),
    )
    renderer = QgsCategorizedSymbolRenderer("kind", [QgsRendererCategory(*look) for look in looks])
    _ordered(renderer, "CASE WHEN \"kind\" = 'landmark' THEN 2 WHEN \"kind\" = 'candidate' THEN 1 ELSE 0 END", True)
    layer.setRenderer(renderer)
    if with_truth:
        label_points(
            layer, 'CASE WHEN "truth_error_m" IS NOT NULL THEN round("truth_error_m") || \' m\' END', CHOSEN, 6.5
        )
        labels = layer.labeling().settings()
        labels.scaleVisibility, labels.minimumScale, labels.maximumScale = True, LABELS_FROM_SCALE, 0
        layer.setLabeling(QgsVectorLayerSimpleLabeling(labels))
    return timed_qml(exported(layer), "Point", "time", seconds=seconds)


def path_lines_qml(width_mm: float = 0.45, edge: bool = False) -> str:
    """Style of the LINES layer: the whole path in red; with a pale edge it keeps apart from the map below, but hides edges chosen."""
    layer = QgsVectorLayer("LineStringM", "style", "memory")
    layer.setRenderer(QgsSingleSymbolRenderer(_cased(CHOSEN, width_mm) if edge else _line(CHOSEN, width_mm)))
    return timed_qml(exported(layer), "LineStringM", "begin", "end")


def landmarks_qml(id_field: str = "id", kind_field: str = "", labels: bool = True, size_mm: float = 2.6) -> str:
    """Style of a LANDMARKS layer: squares, filled for location-oriented ones, outlined for service-oriented ones.

    Parameters
    ----------
    id_field
        What is written beside them.
    kind_field
        Field with "location" or "service"; without one all are location-oriented.
    """
    layer = QgsVectorLayer("Point", "style", "memory")
    filled, outlined = _square(INK, "#ffffff", size_mm), _square("#ffffff", INK, 0.85 * size_mm, 0.35)
    if kind_field:
        service = f"lower(coalesce(\"{kind_field}\", '')) LIKE 'service%'"
        categories = [
            QgsRendererCategory(0, filled, "Location-oriented landmark"),
            QgsRendererCategory(1, outlined, "Service-oriented landmark"),
        ]
        layer.setRenderer(QgsCategorizedSymbolRenderer(service, categories))
    else:
        layer.setRenderer(QgsSingleSymbolRenderer(filled))
    if labels:
        label_points(layer, f'"{id_field}"', INK, 7.5)
    return exported(layer)


def matches_qml(seconds: float = 1.0, size_mm: float = 4.6) -> str:
    """Style of the MATCHES layer: a red square outline around the landmark recognised; thin where it may not fix the path."""
    layer = QgsVectorLayer("Point?field=fiducial:integer", "style", "memory")
    sure, unsure = (_square("#00ffffff", CHOSEN, size_mm, width) for width in (0.45, 0.2))
    categories = [
        QgsRendererCategory(1, sure, "Landmark recognised"),
        QgsRendererCategory(0, unsure, "Landmark recognised, as one more candidate"),
    ]
    layer.setRenderer(QgsCategorizedSymbolRenderer('to_int(coalesce("fiducial", 1))', categories))
    return timed_qml(exported(layer), "Point", "time", seconds=seconds)


def truth_qml(line: bool = False, begin: str = "", end: str | None = None, size_mm: float = 1.0) -> str:
    """Style of the true positions: small blue dots, or a blue line with a pale edge.

    Parameters
    ----------
    begin, end
        Fields of date-times; without them the layer is always there.
    """
    geometry = "LineString" if line else "Point"
    layer = QgsVectorLayer(geometry, "style", "memory")
    symbol = _cased(TRUE, 0.55) if line else _dot(TRUE, size_mm, "#ffffff", 0.12)
    layer.setRenderer(QgsSingleSymbolRenderer(symbol))
    qml = exported(layer)
    return timed_qml(qml, geometry, begin, end) if begin else qml


def error_lines_qml() -> str:
    """Style of lines from a position to the true one: thin, dark, dotted."""
    layer = QgsVectorLayer("LineString", "style", "memory")
    layer.setRenderer(QgsSingleSymbolRenderer(_line(TRUE, 0.25, True)))
    return exported(layer)


def circles_qml(line: bool = False) -> str:
    """Style of circles around candidates: their thin outlines, or the area that they cover together."""
    layer = QgsVectorLayer("LineString" if line else "Polygon", "style", "memory")
    if line:
        symbol = _line("#2f7f8c", 0.2)
        symbol.setOpacity(0.7)
    else:
        symbol = QgsFillSymbol.createSimple({"outline_width": "0.2"})
        symbol.symbolLayer(0).setFillColor(QColor(47, 127, 140, 28))
        symbol.symbolLayer(0).setStrokeColor(QColor(47, 127, 140, 180))
    layer.setRenderer(QgsSingleSymbolRenderer(symbol))
    return exported(layer)


def sensibility_qml(band: int = 1) -> str:
    """Style of a sensibility raster, equation (2) of the paper, from 0 (places are told apart) to 1 (the network is blind)."""
    return classes_qml(band, _SENSIBILITY)


def _dot(colour: str, size_mm: float, outline: str, outline_mm: float) -> QgsMarkerSymbol:
    return QgsMarkerSymbol.createSimple(
        {
            "name": "circle",
            "size": f"{size_mm:.3g}",
            "color": colour,
            "outline_color": outline,
            "outline_width": str(outline_mm),
        }
    )


def _square(colour: str, outline: str, size_mm: float, outline_mm: float = 0.25) -> QgsMarkerSymbol:
    symbol = QgsMarkerSymbol.createSimple({"name": "square", "size": f"{size_mm:.3g}", "joinstyle": "miter"})
    inside = symbol.symbolLayer(0)
    inside.setFillColor(QColor(colour))
    inside.setStrokeColor(QColor(outline))
    inside.setStrokeWidth(outline_mm)
    return symbol


def _line(colour: str, width_mm: float, dashed: bool = False) -> QgsLineSymbol:
    symbol = QgsLineSymbol.createSimple(
        {"line_color": colour, "line_width": f"{width_mm:.3g}", "capstyle": "round", "joinstyle": "round"}
    )
    if dashed:
        inside = symbol.symbolLayer(0)
        inside.setUseCustomDashPattern(True)
        inside.setCustomDashPatternUnit(Qgis.RenderUnit.Millimeters)
        inside.setCustomDashVector([max(1.0, 2.6 * width_mm), max(0.7, 2.2 * width_mm)])
    return symbol


def _cased(colour: str, width_mm: float) -> QgsLineSymbol:
    symbol = _line("#ffffff", width_mm + 0.5)
    symbol.symbolLayer(0).setColor(QColor(255, 255, 255, 190))
    inner = _line(colour, width_mm)  # owns its layer
    symbol.appendSymbolLayer(inner.symbolLayer(0).clone())
    return symbol


def label_points(layer: QgsVectorLayer, expression: str, colour: str, size: float) -> None:
    """Write `expression` beside the points of a layer, with a white halo, where there is room."""
    text = QgsTextFormat()
    text.setFont(QFont("Sans Serif"))
    text.setSize(size)
    text.setColor(QColor(colour))
    halo = QgsTextBufferSettings()
    halo.setEnabled(True)
    halo.setSize(0.7)
    halo.setColor(QColor("#ffffff"))
    text.setBuffer(halo)
    settings = QgsPalLayerSettings()
    settings.fieldName, settings.isExpression = expression, True
    settings.placement, settings.dist = Qgis.LabelPlacement.OrderedPositionsAroundPoint, 0.4
    settings.offsetType = Qgis.LabelOffsetType.FromSymbolBounds
    settings.setFormat(text)
    layer.setLabeling(QgsVectorLayerSimpleLabeling(settings))
    layer.setLabelsEnabled(True)


def _ordered(
    renderer: QgsGraduatedSymbolRenderer | QgsCategorizedSymbolRenderer, expression: str, ascending: bool
) -> None:
    """Draw features in this order, the last ones on top."""
    clause = QgsFeatureRequest.OrderByClause(expression, ascending)
    renderer.setOrderBy(QgsFeatureRequest.OrderBy([clause]))
    renderer.setOrderByEnabled(True)
