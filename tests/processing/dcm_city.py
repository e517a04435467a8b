"""A small city with radio maps as a raster and walks through it, for the algorithms of database correlation."""

import json
import time

import numpy as np
from processing_helpers import Ran, collecting_feedback, layer_of
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsProcessingContext,
    QgsVectorLayer,
)
from telcoloc.models.grid import Grid
from telcoloc.telcoloc_qgis import rasters

UTM = "EPSG:32633"
X, Y = 500_000.0, 5_540_000.0
CELLS = tuple(f"262-{index}" for index in range(9))
FLOOR_DBM = -118.0
EIRP_DBM = 25.0


def grid():
    return Grid(40, 50, X, Y + 400, 10.0, QgsCoordinateReferenceSystem(UTM).toWkt())


def rss_dbm(seed=0):
    """Received power of each cell, shape (9, 40, 50), NaN in a building."""
    rng = np.random.default_rng(seed)
    place = grid()
    x, y = np.meshgrid(place.x_m, place.y_m)
    sites = np.column_stack([X + rng.uniform(0, 500, 9), Y + rng.uniform(0, 400, 9)])
    distance = np.hypot(x - sites[:, 0, None, None], y - sites[:, 1, None, None])
    values = EIRP_DBM - 30 - 38 * np.log10(np.maximum(distance, 8)) + rng.normal(0, 3, distance.shape)
    values[:, 12:20, 20:30] = np.nan
    return values.astype(np.float32)


def write_maps(path, quantity="rss_dbm", names=CELLS, values=None):
    values = rss_dbm() if values is None else values
    facts = {"height_m": 25.0, "azimuth_deg": None, "tilt_deg": 0.0, "beam_width_deg": 360.0, "freq_mhz": 1800.0}
    told = json.dumps({**facts, "eirp_dbm": EIRP_DBM, "x_m": X, "y_m": Y})
    rasters.write_bands(
        path,
        grid(),
        list(values if quantity == "rss_dbm" else EIRP_DBM - values),
        names,
        {"TELCOLOC_QUANTITY": quantity, "TELCOLOC_MODEL": "test", "TELCOLOC_NOISE_FLOOR_DBM": f"{FLOOR_DBM:g}"},
        -9999.0,
        facts=[{"TELCOLOC_TRANSMITTER": told}] * len(names),
    )
    return str(path)


def walk(n=40, seed=1):
    """Positions of a walk around the building, shape (n, 2)."""
    turn = np.linspace(0, 2 * np.pi, n, endpoint=False) + seed
    return np.column_stack([X + 250 + 170 * np.cos(turn), Y + 240 + 130 * np.sin(turn)])


def measured(xy=None, noise_db=3.0, seed=1, offset_db=0.0, step_s=5.0, device="phone", cells=CELLS, truth=True):
    """A memory layer in the normal form; its points are the true positions."""
    xy = walk(seed=seed) if xy is None else xy
    rng = np.random.default_rng(seed)
    at = grid().cells_of(xy)
    rss = rss_dbm().reshape(9, -1)[:, at].T + offset_db + rng.normal(0, 1, (len(xy), 9)) * noise_db
    order = np.argsort(-rss, axis=1)[:, :6]
    rows = [
        (
            f"Point ({xy[row, 0]} {xy[row, 1]})" if truth else None,
            device,
            1.7e9 + step_s * row,
            *(cells[cell] for cell in order[row]),
            *(float(rss[row, cell]) for cell in order[row]),
            100 + row,
        )
        for row in range(len(xy))
    ]
    fields = ["device:string", "time_s:double"]
    fields += [f"cell_{index}:string" for index in range(1, 7)] + [f"rss_dbm_{index}:double" for index in range(1, 7)]
    return layer_of(rows, UTM, ",".join([*fields, "source_row:integer"]), "Point", "reports")


def streets(crs=UTM):
    """Two crossing streets."""
    return layer_of(
        [
            (f"LineString ({X} {Y + 105}, {X + 500} {Y + 105})", "a"),
            (f"LineString ({X + 105} {Y}, {X + 105} {Y + 400})", "b"),
        ],
        crs,
        "name:string",
        "LineString",
        "streets",
    )


def xy_of(layer):
    """Positions of the features that have one, shape (n, 2)."""
    points = [feature.geometry().asPoint() for feature in layer.getFeatures() if not feature.geometry().isNull()]
    return np.array([(point.x(), point.y()) for point in points])


def with_rows(layer, *rows):
    """The layer with more rows of (WKT or None, values by name)."""
    assert isinstance(layer, QgsVectorLayer)
    for wkt, values in rows:
        feature = QgsFeature(layer.fields())
        for name, value in values.items():
            feature[name] = value
        if wkt is not None:
            feature.setGeometry(QgsGeometry.fromPointXY(QgsPointXY(*wkt)))
        assert layer.dataProvider().addFeatures([feature])[0]
    return layer


def cancelled(name, values, percent):
    """Run an algorithm, cancel it at `percent`; seconds it took to end after that, None when it was never so far."""
    ran = Ran()
    said = collecting_feedback(ran)
    asked = []

    def stop(progress):
        if progress >= percent and not asked:
            asked.append(time.monotonic())
            said.cancel()

    said.progressChanged.connect(stop)
    algorithm = QgsApplication.processingRegistry().createAlgorithmById(f"telcoloc:{name}")
    _, fine = algorithm.run(values, QgsProcessingContext(), said)
    assert not fine
    return time.monotonic() - asked[0] if asked else None
