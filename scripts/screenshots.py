"""Takes the pictures of the docs in a real QGIS window: `make screenshots`, which runs `qgis --code` on this file under Xvfb."""

import os
import sys
import traceback
from pathlib import Path

import processing
from qgis.core import QgsCoordinateTransform, QgsDateTimeRange, QgsProject, QgsRectangle
from qgis.PyQt.QtCore import QDate, QDateTime, QEventLoop, Qt, QTime, QTimer
from qgis.utils import iface

ROOT = Path(os.environ["TELCOLOC_ROOT"])
IMAGES = ROOT / "docs" / "images"
WORK = ROOT / "build" / "screenshots"
CITY = ROOT / "resources" / "sample_city" / "sample_city.gpkg"
CENTRE = QgsRectangle(496500, 4997500, 505500, 5003500)


def wait(milliseconds: int) -> None:
    """Let the window work."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def rendered() -> None:
    """Wait until the map is drawn."""
    canvas = iface.mapCanvas()
    canvas.refresh()
    wait(300)
    while canvas.isDrawing():
        wait(50)
    wait(200)


def picture(name: str, layers: list, extent: QgsRectangle | None = None) -> None:
    """Show only `layers` above the city and grab the window."""
    root = QgsProject.instance().layerTreeRoot()
    for node in root.findLayers():
        if node.layer().customProperty("telcoloc_result"):
            node.setItemVisibilityChecked(node.layer() in layers)
            node.setExpanded(node.layer() in layers and name != "best_server")
    if extent is not None:
        iface.mapCanvas().setExtent(extent)
    iface.messageBar().clearWidgets()
    rendered()
    iface.mainWindow().grab().save(str(IMAGES / f"{name}.png"))
    iface.mapCanvas().grab().save(str(WORK / f"{name}_map.png"))


def run(algorithm: str, **parameters: object) -> dict:
    """Run an algorithm and load its layers as the toolbox does."""
    before = set(QgsProject.instance().mapLayers())
    result = processing.runAndLoadResults(f"telcoloc:{algorithm}", parameters)
    layers = QgsProject.instance().mapLayers()
    for key in set(layers) - before:
        layers[key].setCustomProperty("telcoloc_result", True)
        layers[key].setName(layers[key].name().replace("_", " ").capitalize())
    return result


def layer_named(name: str) -> object:
    """Return the loaded layer of this name."""
    names = [layer.name() for layer in QgsProject.instance().mapLayers().values()]
    if name not in names:
        raise KeyError(f"no layer '{name}' among {sorted(names)}")
    return QgsProject.instance().mapLayersByName(name)[0]


def trajectories() -> None:
    """A day of measurement reports: localised, on the streets, and while it plays."""
    table = CITY.with_name("measurements.csv")
    city = f"{CITY}|layername="
    for name, source in (("learned", table), ("day", CITY.with_name("measurements_unlabelled.csv"))):
        processing.run(
            "telcoloc:importmeasurements",
            {"INPUT": str(source), "BASE_STATIONS": f"{city}cells", "OUTPUT": str(WORK / f"{name}.gpkg")},
        )
    processing.run(
        "telcoloc:trainlocalizer",
        {
            "INPUT": str(WORK / "learned.gpkg"),
            "BASE_STATIONS": f"{city}cells",
            "TEST_SHARE": 0,
            "MODEL": str(WORK / "portmare.safetensors"),
        },
    )
    run(
        "localizemeasurements",
        INPUT=str(WORK / "day.gpkg"),
        MODEL=str(WORK / "portmare.safetensors"),
        POINTS=str(WORK / "points.gpkg"),
        TRAJECTORIES=str(WORK / "trajectories.gpkg"),
    )
    points, paths = layer_named("Points"), layer_named("Trajectories")
    around = QgsCoordinateTransform(points.crs(), QgsProject.instance().crs(), QgsProject.instance())
    extent = around.transformBoundingBox(points.extent())
    extent.scale(1.1)
    iface.mapCanvas().setTemporalRange(QgsDateTimeRange(QDateTime(), QDateTime()))
    picture("trajectories", [points, paths], extent)
    begin = min(row["time"] for row in points.getFeatures())
    iface.mapCanvas().setTemporalRange(QgsDateTimeRange(begin.addSecs(120), begin.addSecs(150)))
    picture("trajectories_playing", [points], extent)
    iface.mapCanvas().setTemporalRange(QgsDateTimeRange(QDateTime(), QDateTime()))
    run(
        "evaluatelocalization",
        PREDICTED=str(WORK / "points.gpkg"),
        TRUTH=f"{city}walks_truth",
        ERRORS=str(WORK / "errors.gpkg"),
        REPORT=str(WORK / "errors.html"),
    )
    picture("localization_errors", [layer_named("Errors")], extent)


def tracking() -> None:
    """The group of a landmark-assisted track while it plays; `landmark_pictures.py` ran before."""
    city, made = f"{CITY}|layername=", WORK / "landmarks"
    run(
        "tracklandmarks",
        INPUT=str(made / "candidates.gpkg"),
        STREETS=f"{city}streets",
        LANDMARKS=f"{city}landmarks",
        MATCHES=str(made / "matches.gpkg"),
        TRUTH=f"{city}walks_truth",
        ERROR_WEIGHT=0.3,
        **{name: str(WORK / f"{name.lower()}.gpkg") for name in ("PATH", "LINES", "CANDIDATES", "EDGES")},
    )
    layers = [layer_named(name) for name in ("Path", "Lines", "Candidates", "Edges")]
    begin = QDateTime(QDate(2025, 3, 7), QTime(10, 39, 14), Qt.TimeSpec.UTC)
    iface.mapCanvas().setTemporalRange(QgsDateTimeRange(begin, begin.addSecs(8)))
    picture("tracking_playing", layers, QgsRectangle(500560, 4998310, 500990, 4998590))
    iface.mapCanvas().setTemporalRange(QgsDateTimeRange(QDateTime(), QDateTime()))


def main() -> None:
    """Make all pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    iface.mainWindow().resize(1500, 950)
    iface.addProject(str(ROOT / "resources" / "sample_city" / "sample_city.qgz"))
    for name in ("Browser", "LayerOrder", "Overview", "UserInputDockWidget"):
        dock = iface.mainWindow().findChild(type(iface.mainWindow().findChild(object, "Layers")), name)
        if dock is not None:
            dock.hide()
    whole = iface.mapCanvas().extent()
    stations = f"{CITY}|layername=base_stations"
    run(
        "geolocatebasestations",
        INPUT=stations,
        ID_FIELD="bs_id",
        BOUNDARY=f"{CITY}|layername=boundary",
        OUTPUT=str(WORK / "stack.tif"),
        BEST_SERVER=str(WORK / "best_server.tif"),
        COVERAGE=str(WORK / "coverage.gpkg"),
    )
    root = QgsProject.instance().layerTreeRoot()
    for node in root.findLayers():
        if not node.layer().customProperty("telcoloc_result"):
            node.setExpanded(False)
    picture("geolocation_stack", [layer_named("Stack")], CENTRE)
    picture("best_server", [layer_named("Best server")], whole)
    picture("coverage", [layer_named("Coverage")], CENTRE)
    run(
        "mapmetadata",
        GEOLOCATION=str(WORK / "stack.tif"),
        INPUT=stations,
        ID_FIELD="bs_id",
        FIELDS=[f"h{hour:02d}" for hour in range(24)],
        ZONES=f"{CITY}|layername=zones",
        OUTPUT=str(WORK / "density.tif"),
        ZONE_TOTALS=str(WORK / "zone_totals.gpkg"),
    )
    iface.mapCanvas().setTemporalRange(
        QgsDateTimeRange(
            QDateTime(QDate(2024, 1, 1), QTime(12, 0)), QDateTime(QDate(2024, 1, 1), QTime(13, 0)), True, False
        )
    )
    picture("density_noon", [layer_named("Density")], whole)
    picture("zone_totals", [layer_named("Zone totals")], whole)
    trajectories()
    tracking()
    dialog = processing.createAlgorithmDialog(
        "telcoloc:geolocatebasestations", {"INPUT": stations, "ID_FIELD": "bs_id", "METHOD": "spdi"}
    )
    dialog.resize(1100, 800)
    dialog.show()
    wait(800)
    dialog.grab().save(str(IMAGES / "dialog.png"))
    dialog.close()


def guarded() -> None:
    """Run, report and leave: leaving through QgsApplication.exit crashed QGIS 3.40."""
    code = 0
    try:
        main()
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


QTimer.singleShot(3000, guarded)
