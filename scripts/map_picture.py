"""Draws build/run/map.png from the outputs of `make run`, with the styles written beside them."""

import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

ROOT = Path(__file__).resolve().parents[1]


def main(folder: Path, stations: str) -> None:
    """Render best server (and, where there is one, the noon density) with the stations on top."""
    application = QgsApplication([], True)
    application.initQgis()
    top = QgsVectorLayer(stations, "Base stations", "ogr")
    sample = "sample_city" in stations
    style = ROOT / "resources" / "sample_city" / "styles" / "base_stations.qml"
    if sample:
        top.loadNamedStyle(str(style))
    else:
        top.renderer().symbol().setSize(1.2)
        top.renderer().symbol().setColor(QColor("#333333"))
    base = []
    if sample:
        QgsProject.instance().read(str(ROOT / "resources" / "sample_city" / "sample_city.qgz"))
        names = ("Streets", "Buildings", "Water", "Municipality")
        base = [QgsProject.instance().mapLayersByName(name)[0] for name in names]
    for name, band in (("best_server", 1), ("density", 13)):
        path = folder / f"{name}.tif"
        if not path.exists():
            continue
        raster = QgsRasterLayer(str(path), name)
        raster.loadNamedStyle(str(path.with_suffix(".qml")))
        if band > 1:
            raster.renderer().setInputBand(band)
            raster.temporalProperties().setIsActive(False)
        settings = QgsMapSettings()
        settings.setLayers([top, raster, *base])
        settings.setDestinationCrs(raster.crs())
        extent = raster.extent()
        extent.scale(1.02)
        settings.setExtent(extent)
        settings.setOutputSize(QSize(1400, int(1400 * extent.height() / extent.width())))
        settings.setBackgroundColor(QColor("#f5f3ef"))
        settings.setTransformContext(QgsProject.instance().transformContext())
        job = QgsMapRendererParallelJob(settings)
        job.start()
        job.waitForFinished()
        picture = folder / f"{'map' if name == 'best_server' else name}.png"
        job.renderedImage().save(str(picture))
    sys.stdout.flush()
    os._exit(0)  # leaving through QgsApplication.exit crashed QGIS 3.40


main(Path(sys.argv[1]), sys.argv[2])
