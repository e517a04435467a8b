"""Make styles and project of the sample city: `/usr/bin/python3 resources/sample_city/make_project.py`.

Run it after make.py. With --picture PATH it also renders the map, with --extent only a part of it.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
os.environ["QT_HASH_SEED"] = "0"  # attributes of the XML in the same order each time

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsCategorizedSymbolRenderer,
    QgsCoordinateReferenceSystem,
    QgsFillSymbol,
    QgsGraduatedSymbolRenderer,
    QgsLineSymbol,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsMarkerSymbol,
    QgsPalLayerSettings,
    QgsProject,
    QgsProperty,
    QgsRectangle,
    QgsReferencedRectangle,
    QgsRendererCategory,
    QgsRendererRange,
    QgsRuleBasedRenderer,
    QgsSingleSymbolRenderer,
    QgsSymbol,
    QgsSymbolLayer,
    QgsTextBufferSettings,
    QgsTextFormat,
    QgsVectorLayer,
    QgsVectorLayerSimpleLabeling,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor, QFont

HERE = Path(__file__).resolve().parent
GPKG = HERE / "sample_city.gpkg"
ORDER = ["base_stations", "cells", "zones", "streets", "buildings", "water", "boundary"]  # top first
GROUPS = {  # off
    "Landmarks": ["landmarks", "landmark_queries"],
    "Measurements": ["walks_truth", "measurements", "measurements_unlabelled"],
}
TABLES = {  # beside the GeoPackage: query of QGIS's delimited text
    "measurements": "type=csv&detectTypes=yes&xField=Longitude&yField=Latitude&crs=EPSG:4326&spatialIndex=no&watchFile=no",
    "measurements_unlabelled": "type=csv&detectTypes=yes&geomType=none&watchFile=no",
}
TITLES = {
    "measurements": "Measurement reports",
    "measurements_unlabelled": "Measurement reports without positions",
    "walks_truth": "Where the latter really were",
    "landmarks": "Landmarks",
    "landmark_queries": "Photos that devices took",
    "base_stations": "Base stations",
    "cells": "Cells",
    "zones": "Districts",
    "streets": "Streets",
    "buildings": "Buildings",
    "water": "Water",
    "boundary": "Municipality",
}
EXTENT = QgsRectangle(488300, 4992600, 511700, 5007800)
HINTERLAND, LAND, WATER = "#f6f5f2", "#efece5", "#bdd5e3"


def fill(colour: str, edge: str = "", width: float = 0.1) -> QgsSymbol:
    """Return a plain fill."""
    style = "solid" if edge else "no"
    return QgsFillSymbol.createSimple(
        {
            "color": colour,
            "outline_style": style,
            "outline_color": edge or colour,
            "outline_width": str(width),
            "joinstyle": "round",
        }
    )


def road(colour: str, casing: str, metres: float, least: float, most: float, level: int) -> QgsSymbol:
    """Return a cased line, its width in metres on the ground between two widths [mm]. Casings lie below all fills."""
    symbol = QgsLineSymbol.createSimple({"color": casing, "capstyle": "round", "joinstyle": "round"})
    inner = QgsLineSymbol.createSimple({"color": colour, "capstyle": "round", "joinstyle": "round"})  # owns its layer
    symbol.appendSymbolLayer(inner.symbolLayer(0).clone())
    for k in range(2):
        layer = symbol.symbolLayer(k)
        extra = 0.22 if k == 0 else 0.0
        layer.setWidth(metres * (1.3 if k == 0 else 1.0))
        layer.setWidthUnit(Qgis.RenderUnit.MetersInMapUnits)
        scale = layer.widthMapUnitScale()
        scale.minSizeMMEnabled = scale.maxSizeMMEnabled = True
        scale.minSizeMM, scale.maxSizeMM = least + extra, most + extra
        layer.setWidthMapUnitScale(scale)
        layer.setRenderingPass(level if k == 0 else level + 4)
    return symbol


def streets_style(layer: QgsVectorLayer) -> None:
    """Draw streets by class, small ones from 1:60 000 on only."""
    root = QgsRuleBasedRenderer.Rule(None)
    looks = [
        ("residential", "Residential", road("#ffffff", "#d6d1c8", 8, 0.12, 2.2, 0), 70000),
        ("secondary", "Secondary", road("#ffffff", "#c2bcb1", 12, 0.30, 2.8, 1), 0),
        ("primary", "Primary", road("#fdf3dc", "#b5ab98", 17, 0.48, 3.4, 2), 0),
        ("motorway", "Motorway", road("#f3d9a8", "#b39a6c", 17, 0.42, 3.4, 3), 0),
    ]
    for kind, label, symbol, smallest in looks:
        rule = QgsRuleBasedRenderer.Rule(symbol, 0, smallest, f"\"class\" = '{kind}'", label)
        root.appendChild(rule)
    far = QgsLineSymbol.createSimple({"color": "#dcd7ce", "width": "0.1", "capstyle": "round"})
    root.appendChild(QgsRuleBasedRenderer.Rule(far, 70000, 0, "\"class\" = 'residential'", "Residential, from afar"))
    renderer = QgsRuleBasedRenderer(root)
    renderer.setUsingSymbolLevels(True)
    layer.setRenderer(renderer)
    text = _text(6.5, "#6b655b", "#ffffff", 0.6)
    label = QgsPalLayerSettings()
    label.fieldName, label.placement = "name", Qgis.LabelPlacement.Curved
    label.setFormat(text)
    label.scaleVisibility, label.minimumScale, label.maximumScale = True, 12000, 0
    lines = label.lineSettings()
    lines.setPlacementFlags(Qgis.LabelLinePlacementFlag.OnLine)
    lines.setMergeLines(True)
    label.setLineSettings(lines)
    layer.setLabeling(QgsVectorLayerSimpleLabeling(label))
    layer.setLabelsEnabled(True)


def _text(size: float, colour: str, halo: str, halo_mm: float, bold: bool = False) -> QgsTextFormat:
    font = QFont("Sans Serif")
    font.setBold(bold)
    text = QgsTextFormat()
    text.setFont(font)
    text.setSize(size)
    text.setColor(QColor(colour))
    buffer = QgsTextBufferSettings()
    buffer.setEnabled(True)
    buffer.setSize(halo_mm)
    buffer.setColor(QColor(halo))
    buffer.setOpacity(0.85)
    text.setBuffer(buffer)
    return text


def base_stations_style(layer: QgsVectorLayer) -> None:
    """Draw small dots with a white halo, coloured by urbanisation."""
    colours = {"urban": "#8c2d3f", "suburban": "#2f5d73", "rural": "#4c6b3c"}
    categories = []
    for kind, colour in colours.items():
        dot = QgsMarkerSymbol.createSimple(
            {"name": "circle", "color": colour, "size": "1.8", "outline_color": "#ffffff", "outline_width": "0.35"}
        )
        categories.append(QgsRendererCategory(kind, dot, kind.capitalize()))
    layer.setRenderer(QgsCategorizedSymbolRenderer("urbanisation", categories))
    layer.setDisplayExpression('"bs_id" || \' \' || "name"')
    label = QgsPalLayerSettings()
    label.fieldName, label.placement, label.dist = "bs_id", Qgis.LabelPlacement.OrderedPositionsAroundPoint, 0.6
    label.setFormat(_text(6.5, "#333333", "#ffffff", 0.7))
    label.scaleVisibility, label.minimumScale, label.maximumScale = True, 25000, 0
    layer.setLabeling(QgsVectorLayerSimpleLabeling(label))
    layer.setLabelsEnabled(True)


def cells_style(layer: QgsVectorLayer) -> None:
    """Draw a small arrow from the site into each sector's direction."""
    arrow = QgsMarkerSymbol.createSimple(
        {
            "name": "filled_arrowhead",
            "color": "#5a5a66",
            "size": "2.4",
            "outline_style": "no",
            "horizontal_anchor_point": "2",
            "offset": "3.4,0",
        }
    )
    turn = QgsProperty.fromExpression('"azimuth_deg" - 90')
    arrow.symbolLayer(0).setDataDefinedProperty(QgsSymbolLayer.Property.Angle, turn)
    layer.setRenderer(QgsSingleSymbolRenderer(arrow))
    layer.setDisplayExpression('"cell_id"')


def zones_style(layer: QgsVectorLayer) -> None:
    """Draw a thin dashed outline without fill, and small names."""
    symbol = QgsFillSymbol.createSimple(
        {"style": "no", "outline_style": "dash", "outline_color": "#c9bfb1", "outline_width": "0.16"}
    )
    layer.setRenderer(QgsSingleSymbolRenderer(symbol))
    label = QgsPalLayerSettings()
    label.fieldName, label.placement = "name", Qgis.LabelPlacement.Horizontal
    label.setFormat(_text(7.5, "#7a7266", LAND, 0.7))
    label.centroidInside = True
    layer.setLabeling(QgsVectorLayerSimpleLabeling(label))
    layer.setLabelsEnabled(True)


def buildings_style(layer: QgsVectorLayer) -> None:
    """Draw buildings in light grey-brown, landmarks darker and with their name."""
    looks = [
        ("landmark", "#b89a7a", "#8d7357"),
        ("industrial", "#d3cfd0", "#bdb8b8"),
        ("office", "#d2c6b6", "#b9ab97"),
        ("residential", "#dcd3c7", "#c5baab"),
    ]
    layer.setRenderer(
        QgsCategorizedSymbolRenderer(
            "use", [QgsRendererCategory(use, fill(colour, edge, 0.08), use.capitalize()) for use, colour, edge in looks]
        )
    )
    layer.setScaleBasedVisibility(True)
    layer.setMinimumScale(90000)
    layer.setDisplayExpression('coalesce("name", "use" || \', \' || "height_m" || \' m\')')
    label = QgsPalLayerSettings()
    label.fieldName, label.placement = "name", Qgis.LabelPlacement.AroundPoint
    label.setFormat(_text(7, "#6d4f33", "#ffffff", 0.7))
    label.scaleVisibility, label.minimumScale, label.maximumScale = True, 30000, 0
    layer.setLabeling(QgsVectorLayerSimpleLabeling(label))
    layer.setLabelsEnabled(True)


def water_style(layer: QgsVectorLayer) -> None:
    """Draw soft blue water with its name in blue."""
    layer.setRenderer(QgsSingleSymbolRenderer(fill(WATER)))
    label = QgsPalLayerSettings()
    label.fieldName, label.placement = "name", Qgis.LabelPlacement.Horizontal
    text = _text(9, "#5b86a0", WATER, 0.5)
    font = text.font()
    font.setItalic(True)
    text.setFont(font)
    label.setFormat(text)
    layer.setLabeling(QgsVectorLayerSimpleLabeling(label))
    layer.setLabelsEnabled(True)


def boundary_style(layer: QgsVectorLayer) -> None:
    """Draw the land in pale warm grey."""
    layer.setRenderer(QgsSingleSymbolRenderer(fill(LAND, "#b9c3c6", 0.2)))


def measurements_style(layer: QgsVectorLayer) -> None:
    """Draw a dot a report, coloured by the power of the serving cell."""
    classes = [
        (-140, -110, "#440154", "weaker than −110 dBm"),
        (-110, -100, "#3b528b", "−110 to −100 dBm"),
        (-100, -90, "#21918c", "−100 to −90 dBm"),
        (-90, -80, "#5ec962", "−90 to −80 dBm"),
        (-80, -44, "#d8c71e", "stronger than −80 dBm"),
    ]
    ranges = [QgsRendererRange(low, high, _dot(colour, 1.3), label) for low, high, colour, label in classes]
    layer.setRenderer(QgsGraduatedSymbolRenderer("Dbm_1", ranges))
    layer.setDisplayExpression("\"IMSI\" || ', ' || \"CellID_1\" || ' ' || \"Dbm_1\" || ' dBm'")


def walks_truth_style(layer: QgsVectorLayer) -> None:
    """Draw a small dark dot a report."""
    layer.setRenderer(QgsSingleSymbolRenderer(_dot("#b3363e", 1.3)))
    layer.setDisplayExpression("\"device\" || ', ' || format_date(\"time\", 'HH:mm:ss')")


def landmarks_style(layer: QgsVectorLayer) -> None:
    """Draw squares, filled where one locates by them, outlined where they are sights; the photo shows under the mouse."""
    looks = {"location": ("#2b2b2b", "#ffffff", "2.6", "0.25"), "service": ("#ffffff", "#2b2b2b", "2.2", "0.35")}
    labels = {"location": "Location-oriented landmark", "service": "Service-oriented landmark"}
    categories = []
    for kind, (inside, edge, size, width) in looks.items():
        square = QgsMarkerSymbol.createSimple(
            {"name": "square", "color": inside, "size": size, "outline_color": edge, "outline_width": width}
        )
        categories.append(QgsRendererCategory(kind, square, labels[kind]))
    layer.setRenderer(QgsCategorizedSymbolRenderer("kind", categories))
    layer.setDisplayExpression('"landmark_id"')
    address = """'file://' || if(left(@project_folder, 1) = '/', '', '/') || @project_folder || '/' || "photo\""""
    layer.setMapTipTemplate(f'<img src="[% {address} %]" width="320"><br>[% "landmark_id" %]')
    label = QgsPalLayerSettings()
    label.fieldName, label.placement, label.dist = "landmark_id", Qgis.LabelPlacement.OrderedPositionsAroundPoint, 0.6
    label.setFormat(_text(6.5, "#2b2b2b", "#ffffff", 0.7))
    label.scaleVisibility, label.minimumScale, label.maximumScale = True, 25000, 0
    layer.setLabeling(QgsVectorLayerSimpleLabeling(label))
    layer.setLabelsEnabled(True)


def _dot(colour: str, size: float) -> QgsSymbol:
    return QgsMarkerSymbol.createSimple({"name": "circle", "color": colour, "size": str(size), "outline_style": "no"})


STYLES = {
    "measurements": measurements_style,
    "walks_truth": walks_truth_style,
    "landmarks": landmarks_style,
    "base_stations": base_stations_style,
    "cells": cells_style,
    "zones": zones_style,
    "streets": streets_style,
    "buildings": buildings_style,
    "water": water_style,
    "boundary": boundary_style,
}


def open_layer(name: str) -> QgsVectorLayer:
    """Return a layer of the GeoPackage, or a table beside it.

    Raises
    ------
    RuntimeError
        When it is not there.
    """
    if name in TABLES:
        layer = QgsVectorLayer(f"{(HERE / name).as_uri()}.csv?{TABLES[name]}", TITLES[name], "delimitedtext")
    else:
        layer = QgsVectorLayer(f"{GPKG}|layername={name}", TITLES[name], "ogr")
    if not layer.isValid():
        raise RuntimeError(f"{name}: run make.py first")
    return layer


def _play(layer: QgsVectorLayer, start: str, end: str) -> None:
    """Give the Temporal Controller the times of a layer's features, as expressions."""
    times = layer.temporalProperties()
    times.setIsActive(True)
    times.setMode(Qgis.VectorTemporalMode.FeatureDateTimeStartAndEndFromExpressions)
    times.setStartExpression(start)
    times.setEndExpression(end)


def make_styles() -> None:
    """Write styles/*.qml."""
    (HERE / "styles").mkdir(exist_ok=True)
    for name, style in STYLES.items():
        layer = open_layer(name)
        style(layer)
        path = HERE / "styles" / f"{name}.qml"
        parts = (
            QgsVectorLayer.StyleCategory.Symbology
            | QgsVectorLayer.StyleCategory.Labeling
            | QgsVectorLayer.StyleCategory.Rendering
            | QgsVectorLayer.StyleCategory.MapTips
        )
        layer.saveNamedStyle(str(path), parts)
        text = _numbered(path.read_text())
        path.write_text(text)


def _numbered(text: str) -> str:
    """Number in order what QGIS numbers at random (symbol layers, rules), so that equal styles are equal files."""
    seen: dict[str, str] = {}
    return re.sub(
        r"\{[0-9a-f]{8}-[0-9a-f-]{27}\}",
        lambda match: seen.setdefault(match[0], f"{{00000000-0000-0000-0000-{len(seen) + 1:012d}}}"),
        text,
    )


def make_project() -> QgsProject:
    """Write sample_city.qgz, with relative paths."""
    project = QgsProject.instance()
    project.clear()
    project.setTitle("Portmare, the TelcoLoc sample city")
    project.setCrs(QgsCoordinateReferenceSystem("EPSG:32628"))
    project.setFilePathStorage(Qgis.FilePathType.Relative)
    project.setBackgroundColor(QColor(HINTERLAND))
    project.setFileName(str(HERE / "sample_city.qgz"))
    root = project.layerTreeRoot()
    group_of = {name: group for group, names in GROUPS.items() for name in names}
    for name in [*ORDER, *group_of]:
        layer = open_layer(name)
        if name in STYLES:
            message, ok = layer.loadNamedStyle(str(HERE / "styles" / f"{name}.qml"))
            if not ok:
                raise RuntimeError(message)
        layer.setId(f"portmare_{name}")
        profile = layer.elevationProperties()  # whose colours are drawn by chance
        profile.setProfileLineSymbol(QgsLineSymbol.createSimple({"color": "#5a5a66"}))
        profile.setProfileFillSymbol(fill("#5a5a66"))
        profile.setProfileMarkerSymbol(_dot("#5a5a66", 1.3))
        project.addMapLayer(layer, False)
        if name in group_of:
            if name == "measurements":
                _play(layer, 'datetime_from_epoch("MRTime")', 'datetime_from_epoch("MRTime" + 30000)')
            elif name == "walks_truth":
                _play(layer, '"time"', "\"time\" + to_interval('30 seconds')")
            # below the cells: what is loaded next lands in what stands on top
            group = root.findGroup(group_of[name]) or root.insertGroup(2, group_of[name])
            group.setExpanded(False)
            node = group.addLayer(layer)
        else:
            node = root.addLayer(layer)
        node.setItemVisibilityChecked(name not in ("cells", *group_of))
        node.setExpanded(name == "base_stations")
    view = QgsReferencedRectangle(EXTENT, project.crs())
    project.viewSettings().setDefaultViewExtent(view)
    project.viewSettings().setPresetFullExtent(view)
    if not project.write():
        raise RuntimeError(project.error())
    _calm(HERE / "sample_city.qgz")
    return project


def _calm(path: Path) -> None:
    """Take who saved the project and when out of it, and chance."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".qgs")}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            text = re.sub(r' (saveUser|saveUserFull|saveDateTime)="[^"]*"', "", data.decode())
            text = re.sub(r"<(creation|author)>[^<]*</", r"<\1></", text)
            text = re.sub(r"(Annotations_)[0-9a-f_]{36}", r"\1portmare", _numbered(text))
            text = re.sub(r"attachment:///\w+_styles\.db", "attachment:///portmare_styles.db", text)
            text = re.sub(r'(<date type="Created" value=)"[^"]*"', r'\1"2025-01-01T00:00:00"', text)
            text = re.sub(r"(?: *<layer-setting [^>]*/>\n)+", lambda m: "".join(sorted(m[0].splitlines(True))), text)
            archive.writestr(zipfile.ZipInfo(name, (2025, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)


def render(project: QgsProject, path: Path, extent: QgsRectangle, width: int = 1600) -> None:
    """Draw what the project shows, at 96 dpi times 1.5."""
    settings = QgsMapSettings()
    settings.setLayers(project.layerTreeRoot().checkedLayers())
    settings.setDestinationCrs(project.crs())
    settings.setOutputSize(QSize(width, round(width * extent.height() / extent.width())))
    settings.setOutputDpi(144)
    settings.setExtent(extent)
    settings.setBackgroundColor(project.backgroundColor())
    settings.setFlag(Qgis.MapSettingsFlag.Antialiasing)
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(str(path))


def main() -> None:
    """Make styles, project and, if asked for, a picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, help="render the map to this PNG")
    parser.add_argument("--extent", type=float, nargs=4, metavar=("XMIN", "YMIN", "XMAX", "YMAX"))
    arguments = parser.parse_args()
    QgsApplication.setPrefixPath("/usr", True)
    application = QgsApplication([], True)
    application.initQgis()
    make_styles()
    project = make_project()
    if arguments.picture:
        render(project, arguments.picture, QgsRectangle(*arguments.extent) if arguments.extent else EXTENT)
    project.clear()
    application.exitQgis()


if __name__ == "__main__":
    main()
