"""Figure 10 of the DeepLoc paper: one way as four methods and `auto` see it, on the map of the sample city.

Traces of real people are not published; Portmare's devices are made up. `docs/images/figure10.png` is what this draws.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import kit

TITLE = "Measurement reports: Figure 10, on the sample city"
PICTURE = kit.ROOT / "docs" / "images" / "figure10.png"
CITY = kit.ROOT / "resources" / "sample_city"
#: The panels, and what stands above them.
METHODS = {"nbl": "NBL", "hmm": "HMM", "ccr": "CCR", "deeploc": "DeepLoc", "auto": "auto"}
#: Way of the day without positions that is drawn.
WAY = "walk-1"
_PANEL_PX, _MARGIN_PX, _TITLE_PX = 620, 14, 46


def run(quick: bool) -> kit.Report:
    """Learn from three days, localise and match the fourth, judge it and draw one way."""
    os.environ["PYTHONPATH"] = sysconfig.get_path("purelib")  # qgis_process finds torch there, as in `make run`
    report = kit.Report(
        TITLE,
        "Learned from the 5,264 reports of `measurements.csv`, judged on the 1,021 of the next day against `walks_truth`: median / mean / "
        "90 % [m]. Matched: with `matchtostreets`, its defaults. The sample city is easier than real sets: one operator, one simulator.",
        ("method", "as localised", "matched to streets"),
    )
    city = f"{CITY / 'sample_city.gpkg'}|layername="
    with kit.scratch() as folder:

        def algorithm(name: str, **parameters: object) -> kit.ProcessRun:
            return kit.qgis_process(
                "run", f"telcoloc:{name}", *(f"--{key}={value}" for key, value in parameters.items()), folder=folder
            )

        learned, day = folder / "learned.gpkg", folder / "day.gpkg"
        cells = folder / "cells.gpkg"
        stations = f"{city}cells"
        known = CITY / "measurements.csv"
        algorithm("importmeasurements", INPUT=known, BASE_STATIONS=stations, OUTPUT=learned, CELLS=cells)
        algorithm("importmeasurements", INPUT=CITY / "measurements_unlabelled.csv", OUTPUT=day)
        for method in ("nbl",) if quick else METHODS:
            model, points = folder / f"{method}.safetensors", folder / f"{method}.gpkg"
            matched = folder / f"{method}_m.gpkg"
            algorithm("trainlocalizer", INPUT=learned, BASE_STATIONS=cells, METHOD=method, TEST_SHARE=0, MODEL=model)
            algorithm("localizemeasurements", INPUT=day, MODEL=model, POINTS=points)
            algorithm(
                "matchtostreets",
                INPUT=points,
                STREETS=f"{city}streets",
                POINTS=folder / f"{method}_points.gpkg",
                TRAJECTORIES=matched,
            )
            row = [METHODS[method]]
            for found in (points, folder / f"{method}_points.gpkg"):
                judged = algorithm("evaluatelocalization", PREDICTED=found, TRUTH=f"{city}walks_truth")
                figures = (judged.line(f"{name}_ERROR:") for name in ("MEDIAN", "MEAN", "P90"))
                row.append(" / ".join(f"{float(value):.0f}" for value in figures))
            report.rows.append(row)
        if not quick:
            shutil.copytree(CITY, folder / "city")  # an open GeoPackage changes
            subprocess.run([sys.executable, __file__, str(folder)], check=True)
            report.notes.append(
                f"![One way as five methods see it](images/{PICTURE.name})\n\nThe way of `{WAY}`: dark, the truth; red, as localised, with "
                "its points; blue, matched to streets."
            )
    return report


def draw(folder: Path) -> None:
    """Draw the panels from the layers in `folder`."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from qgis.core import (
        QgsApplication,
        QgsCoordinateReferenceSystem,
        QgsCoordinateTransform,
        QgsFeature,
        QgsGeometry,
        QgsLineSymbol,
        QgsMapRendererParallelJob,
        QgsMapSettings,
        QgsMarkerSymbol,
        QgsProject,
        QgsSingleSymbolRenderer,
        QgsVectorLayer,
    )
    from qgis.PyQt.QtCore import QRectF, QSize, Qt
    from qgis.PyQt.QtGui import QColor, QFont, QImage, QPainter

    application = QgsApplication([], True)
    application.initQgis()
    project = QgsProject.instance()
    project.read(str(folder / "city" / "sample_city.qgz"))
    base = [project.mapLayersByName(name)[0] for name in ("Streets", "Buildings", "Water", "Municipality")]
    metric = QgsCoordinateReferenceSystem("EPSG:32628")

    def points_of(path: str) -> QgsVectorLayer:
        layer = QgsVectorLayer(path, "points", "ogr")
        layer.setSubsetString(f"device = '{WAY}'")
        symbol = QgsMarkerSymbol.createSimple(
            {"name": "circle", "size": "1.1", "color": "#d7301f", "outline_style": "no"}
        )
        layer.setRenderer(QgsSingleSymbolRenderer(symbol))
        return layer

    def line_through(layer: QgsVectorLayer, colour: str, width: str) -> QgsVectorLayer:
        rows = sorted(layer.getFeatures(), key=lambda row: row["time"].toMSecsSinceEpoch())
        path = QgsVectorLayer("LineString?crs=" + layer.crs().authid(), "path", "memory")
        feature = QgsFeature()
        feature.setGeometry(QgsGeometry.fromPolylineXY([row.geometry().asPoint() for row in rows]))
        path.dataProvider().addFeature(feature)
        return styled(path, colour, width)

    def styled(layer: QgsVectorLayer, colour: str, width: str) -> QgsVectorLayer:
        symbol = QgsLineSymbol.createSimple(
            {"line_color": colour, "line_width": width, "capstyle": "round", "joinstyle": "round"}
        )
        layer.setRenderer(QgsSingleSymbolRenderer(symbol))
        return layer

    truth = line_through(points_of(f"{folder / 'city' / 'sample_city.gpkg'}|layername=walks_truth"), "#1a1a1a", "1.5")
    extent = QgsCoordinateTransform(truth.crs(), metric, project).transformBoundingBox(truth.extent())
    side = max(extent.width(), extent.height()) * 1.25
    centre = extent.center()
    extent.set(centre.x() - side / 2, centre.y() - side / 2, centre.x() + side / 2, centre.y() + side / 2)
    columns, rows = 3, 2
    step = _PANEL_PX + _MARGIN_PX
    sheet = QImage(
        columns * step + _MARGIN_PX, rows * (step + _TITLE_PX) + _MARGIN_PX, QImage.Format.Format_ARGB32_Premultiplied
    )
    sheet.fill(QColor("white"))
    painter = QPainter(sheet)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    for number, (method, name) in enumerate([*METHODS.items(), ("", "Ground truth")]):
        layers = [truth, *base]
        if method:
            points = points_of(str(folder / f"{method}.gpkg"))
            matched = QgsVectorLayer(str(folder / f"{method}_m.gpkg"), "matched", "ogr")
            matched.setSubsetString(f"device = '{WAY}'")
            layers = [points, line_through(points, "#d7301f", "0.35"), styled(matched, "#2b6cb0", "0.7"), *layers]
        settings = QgsMapSettings()
        settings.setLayers(layers)
        settings.setDestinationCrs(metric)
        settings.setExtent(extent)
        settings.setOutputSize(QSize(_PANEL_PX, _PANEL_PX))
        settings.setBackgroundColor(QColor("#f5f3ef"))
        settings.setTransformContext(project.transformContext())
        job = QgsMapRendererParallelJob(settings)
        job.start()
        job.waitForFinished()
        left = _MARGIN_PX + (number % columns) * step
        top = _MARGIN_PX + (number // columns) * (step + _TITLE_PX)
        painter.setFont(QFont("DejaVu Sans", 17))
        painter.setPen(QColor("#1d2125"))
        painter.drawText(QRectF(left, top, _PANEL_PX, _TITLE_PX), int(Qt.AlignmentFlag.AlignVCenter), name)
        painter.drawImage(left, top + _TITLE_PX, job.renderedImage())
    painter.end()
    sheet.save(str(PICTURE))
    os._exit(0)  # leaving through QgsApplication.exit crashed QGIS 3.40


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
