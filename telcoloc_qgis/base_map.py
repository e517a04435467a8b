"""Layers of the user under a map of ours: copies that another thread may draw, calm where nobody has chosen a style."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qgis.core import (
    Qgis,
    QgsFillSymbol,
    QgsLineSymbol,
    QgsMapLayer,
    QgsMarkerSymbol,
    QgsProject,
    QgsRasterLayer,
    QgsSingleBandPseudoColorRenderer,
    QgsSingleSymbolRenderer,
    QgsSymbol,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QThread
from qgis.PyQt.QtGui import QColor

from .map_sheet import Key

#: Paper of the map, and what lies on it where the user's layers have no style of their own.
PAPER, LAND, LAND_EDGE, BUILT, BUILT_EDGE, WATER = "#f6f4f0", "#f1eee8", "#d5cfc4", "#e0dad0", "#cfc7ba", "#c9dce6"
STREET, STREET_EDGE, POINT = "#ffffff", "#d8d2c8", "#9b968e"
#: Words in the name of a layer of areas, or in that of its fields, that tell water and buildings; other areas are land.
_WATER_WORDS = {"water", "waters", "river", "rivers", "lake", "lakes", "sea", "ocean"}
_BUILDING_WORDS = {"building", "buildings", "footprint", "footprints", "house", "houses", "height", "levels"}
#: A raster with more classes than this has no room in the key.
_MOST_CLASSES = 8


def copies(layers: Sequence[QgsMapLayer], project: QgsProject | None) -> list[QgsMapLayer]:
    """Copies of layers that belong to no thread yet; call it in the layers' own thread, then `adopt` where they are drawn.

    Layers that are not of `project` were opened for this, without the style that lies beside their file; the copies get it.
    """
    result = []
    for layer in layers:
        copy = layer.clone()
        if project is None or project.mapLayer(layer.id()) is None:
            copy.loadDefaultStyle()
        copy.moveToThread(None)
        result.append(copy)
    return result


def adopt(layers: Sequence[QgsMapLayer], muted: str) -> None:
    """Take `copies` into this thread; mute "all", "unstyled" or "none" of them."""
    for layer in layers:
        layer.moveToThread(QThread.currentThread())
        if isinstance(layer, QgsVectorLayer) and (muted == "all" or (muted == "unstyled" and is_unstyled(layer))):
            mute(layer)


def raster_keys(layers: Sequence[QgsMapLayer]) -> list[Key]:
    """A line of the key for each raster that is drawn in a few classes: their upper limits."""
    keys = []
    for layer in layers:
        renderer = layer.renderer() if isinstance(layer, QgsRasterLayer) else None
        if not isinstance(renderer, QgsSingleBandPseudoColorRenderer):
            continue
        classes = renderer.legendSymbologyItems()
        if 2 <= len(classes) <= _MOST_CLASSES:
            symbols = [_patch(colour) for _, colour in classes]
            limits = [text.replace("under ", "").replace("over ", ">").split(" – ")[-1] for text, _ in classes]
            keys.append(Key(symbols, f"{layer.name().replace('_', ' ').capitalize()}, up to", limits))
    return keys


def is_unstyled(layer: QgsVectorLayer) -> bool:
    """Whether a layer looks as QGIS draws it when nobody chose how: one default symbol in a colour drawn by chance."""
    renderer = layer.renderer()
    if not isinstance(renderer, QgsSingleSymbolRenderer) or layer.labelsEnabled() or layer.opacity() < 1:
        return False
    symbol = renderer.symbol()
    if symbol is None or symbol.symbolLayerCount() != 1 or symbol.opacity() < 1:
        return False
    default = QgsSymbol.defaultSymbol(layer.geometryType())
    return _form(symbol) == _form(default)


def _form(symbol: QgsSymbol) -> dict[str, str]:
    """Properties of the only layer of a symbol but its colour, which QGIS draws by chance."""
    return {
        key: value for key, value in symbol.symbolLayer(0).properties().items() if key not in ("color", "line_color")
    }


def mute(layer: QgsVectorLayer) -> None:
    """Draw a vector layer as the quiet part of a city map: white streets, pale buildings, soft water, small grey points."""
    kind = layer.geometryType()
    if kind == Qgis.GeometryType.Polygon:
        table = layer.source().partition("layername=")[2].partition("|")[0]
        words, columns = _words(layer.name(), table), _words(*layer.fields().names())
        if words & _WATER_WORDS:
            symbol = _area(WATER)
        elif (words | columns) & _BUILDING_WORDS:
            symbol = _area(BUILT, BUILT_EDGE)
        else:
            symbol = _area(LAND, LAND_EDGE)
    elif kind == Qgis.GeometryType.Line:
        symbol = _street()
    elif kind == Qgis.GeometryType.Point:
        symbol = QgsMarkerSymbol.createSimple(
            {"name": "circle", "size": "0.9", "color": POINT, "outline_color": "#ffffff", "outline_width": "0.1"}
        )
    else:
        return
    renderer = QgsSingleSymbolRenderer(symbol)
    renderer.setUsingSymbolLevels(kind == Qgis.GeometryType.Line)
    layer.setRenderer(renderer)
    layer.setLabelsEnabled(False)


def _patch(colour: QColor) -> QgsSymbol:
    """A square of a raster's colour."""
    symbol = QgsMarkerSymbol.createSimple({"name": "square", "size": "2.6", "outline_style": "no"})
    symbol.setColor(colour)
    return symbol


def _words(*texts: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", " ".join(texts).lower()))


def _area(colour: str, edge: str = "") -> QgsSymbol:
    style = {"outline_color": edge, "outline_width": "0.1"} if edge else {"outline_style": "no"}
    return QgsFillSymbol.createSimple({"color": colour, "joinstyle": "round", **style})


def _street() -> QgsSymbol:
    """A white line with a thin edge, 8 m wide on the ground, between 0.2 and 2 mm on paper; edges lie below all fills."""
    symbol = QgsLineSymbol.createSimple({"color": STREET_EDGE, "capstyle": "round", "joinstyle": "round"})
    inner = QgsLineSymbol.createSimple({"color": STREET, "capstyle": "round", "joinstyle": "round"})  # owns its layer
    symbol.appendSymbolLayer(inner.symbolLayer(0).clone())
    for level, (metres, extra_mm) in enumerate(((9.5, 0.2), (8.0, 0.0))):
        line = symbol.symbolLayer(level)
        line.setWidth(metres)
        line.setWidthUnit(Qgis.RenderUnit.MetersInMapUnits)
        scale = line.widthMapUnitScale()
        scale.minSizeMMEnabled = scale.maxSizeMMEnabled = True
        scale.minSizeMM, scale.maxSizeMM = 0.2 + extra_mm, 2.0 + extra_mm
        line.setWidthMapUnitScale(scale)
        line.setRenderingPass(level)
    return symbol
