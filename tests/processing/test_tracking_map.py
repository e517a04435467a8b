"""Draw tracking map: what is where in the picture, which instants it shows, what it leaves alone, and the sentences of bad input."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processing_helpers import Ran, collecting_feedback, layer_of, leftovers
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProject,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QCoreApplication, QEventLoop, QThread
from qgis.PyQt.QtGui import QColor
from telcoloc.telcoloc_qgis.base_map import is_unstyled, mute
from telcoloc.telcoloc_qgis.styles import SEQUENTIAL, classes_qml

X, Y = 500_000.0, 5_000_000.0
START = "2024-03-07T12:00:"
EXTENT = f"{X - 100},{X + 100},{Y - 50},{Y + 50} [EPSG:32628]"
#: Without the key the map is all of the picture: 200 × 100 mm at 127 dpi are 1000 × 500 pixels, 5 to a metre.
PLAIN = {"KEY": False, "WIDTH": 200, "HEIGHT": 100, "DPI": 127, "EXTENT": EXTENT}
RED, WHITE, PAPER = (200, 35, 44), (255, 255, 255), (246, 244, 240)


def moment(index):
    return f"{START}{index:02d}Z"


def path_of(places, kinds=None, part=None, crs="EPSG:32628", transform=None, errors=None):
    """PATH as 'Track with landmarks' writes it: one instant a second."""
    rows = []
    for index, (x, y) in enumerate(places):
        rows.append(
            (
                f"POINT({X + x} {Y + y})",
                "a",
                "1",
                moment(index),
                index,
                part[index] if part else 1,
                kinds[index] if kinds else "candidate",
                errors[index] if errors else None,
            )
        )
    fields = "device:string,trajectory:string,time:datetime,time_s:double,part:integer,kind:string,truth_error_m:double"
    layer = layer_of(rows, crs, fields, name="path")
    return layer


def edges_of(rows):
    """(from x, y, to x, y, instant, instant to, forwarding, chosen)."""
    return layer_of(
        [
            (f"LINESTRING({X + a} {Y + b},{X + c} {Y + d})", "a", "1", moment(i), moment(j), 1.0, forwarding, chosen)
            for a, b, c, d, i, j, forwarding, chosen in rows
        ],
        fields="device:string,trajectory:string,time:datetime,time_to:datetime,weight_m:double,forwarding:integer,chosen:integer",
        geometry="LineString",
        name="edges",
    )


def candidates_of(rows):
    """(x, y, instant, rank, error_db)."""
    return layer_of(
        [(f"POINT({X + x} {Y + y})", "a", moment(i), rank, error) for x, y, i, rank, error in rows],
        fields="device:string,time:datetime,rank:integer,error_db:double",
        name="candidates",
    )


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def at(image, x, y):
    """The colour [0, 255] of the place x, y [m] of the extent above, by its own arithmetic."""
    return tuple(image[round(5 * (50 - y)), round(5 * (x + 100))])


def near(colour, other, tolerance=12):
    return all(abs(one - two) <= tolerance for one, two in zip(colour, other))


def wait(until, limit_s=60.0):
    start = time.monotonic()
    while not until():
        QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 5)
        QThread.msleep(2)
        assert time.monotonic() - start < limit_s, "it does not end"


def test_the_chosen_path_is_red_where_it_is_and_a_landmark_is_a_square(run, tmp_path):
    path = path_of([(-60, 0), (0, 0), (0, 30)], ["candidate", "landmark", "candidate"])
    ran = run("trackingmap", PATH=path, MAP=str(tmp_path / "map.png"), **PLAIN)
    image = pixels(ran["MAP"])
    assert image.shape == (500, 1000, 3)
    assert ran["SCALE"] == 1000  # 200 m on 200 mm
    for x, y in ((-30, 0), (-10, 0), (0, 15)):
        assert near(at(image, x, y), RED), (x, y)
    for x, y in ((-30, 8), (60, 20), (-60, 30)):
        assert near(at(image, x, y), PAPER), (x, y)
    for dx in (-1, 1):
        for dy in (-1, 1):  # a circle as wide as a square of 3 mm would not reach its corners
            assert near(at(image, 1.15 * dx, 1.15 * dy), RED), (dx, dy)


def test_parts_of_a_path_are_not_joined(run, tmp_path):
    path = path_of([(-60, 0), (-30, 0), (30, 0), (60, 0)], part=[1, 1, 2, 2])
    image = pixels(run("trackingmap", PATH=path, MAP=str(tmp_path / "map.png"), **PLAIN)["MAP"])
    assert near(at(image, -45, 0), RED)
    assert near(at(image, 45, 0), RED)
    assert near(at(image, 0, 0), PAPER)


def test_edges_forwarding_and_candidates_are_drawn_below_the_path(run, tmp_path):
    path = path_of([(-60, -20), (60, -20)])
    edges = edges_of([(-60, 0, 60, 0, 0, 1, 0, 0), (-60, 20, 60, 20, 0, 1, 1, 0)])
    candidates = candidates_of([(-60, 40, 0, 1, 2.0), (60, 40, 1, 2, 9.0), (0, -20, 1, 3, 5.0)])
    ran = run("trackingmap", PATH=path, EDGES=edges, CANDIDATES=candidates, MAP=str(tmp_path / "map.png"), **PLAIN)
    image = pixels(ran["MAP"])
    solid, dashed = (image[round(5 * (50 - y)), 220:780] for y in (0, 20))
    drawn = [(np.abs(line - PAPER).max(axis=1) > 20) for line in (solid, dashed)]
    assert drawn[0].all()
    assert 0.3 < drawn[1].mean() < 0.9
    assert np.ptp(solid, axis=1).max() < 25, "grey has no hue"
    assert near(at(image, 0, -20), RED), "the path covers candidates"
    best, worst = (sum(at(image, x, 40)) for x in (-60, 60))
    assert best < worst, "the better the darker"


def test_around_shows_so_many_instants_and_says_their_error(run, tmp_path):
    errors = [3.0, 5.0, 7.0, 9.0, 50.0, 60.0]
    path = path_of([(10 * i, 0) for i in range(6)], errors=errors)
    ran = run("trackingmap", PATH=path, AROUND=moment(2), INSTANTS=3, MAP=str(tmp_path / "map.png"))
    assert ran["INSTANT_COUNT"] == 3
    assert ran["MEAN_ERROR"] == pytest.approx(np.mean(errors[1:4]))
    ran = run("trackingmap", PATH=path, FROM=moment(4), MAP=str(tmp_path / "map.png"))
    assert (ran["INSTANT_COUNT"], ran["MEAN_ERROR"]) == (2, 55.0)
    ran = run("trackingmap", PATH=path, AROUND=moment(5), INSTANTS=5, MAP=str(tmp_path / "map.png"))
    assert ran["INSTANT_COUNT"] == 5, "at the end the window moves inwards"


def test_the_error_is_the_distance_to_a_truth_between_whose_points_the_device_moves_straight(run, tmp_path):
    """3-4-5: the path runs 3 m east and 4 m north of a device that is seen every 5 s only, in another CRS."""
    path = path_of([(3 + 2 * i, 4) for i in range(11)])
    to = QgsCoordinateTransform(
        QgsCoordinateReferenceSystem("EPSG:32628"), QgsCoordinateReferenceSystem("EPSG:4326"), QgsProject.instance()
    )
    rows = []
    for index in (0, 5, 10):
        place = to.transform(X + 2 * index, Y)
        rows.append((f"POINT({place.x()!r} {place.y()!r})", "a", moment(index)))
        rows.append((f"POINT({place.x() + 0.01!r} {place.y()!r})", "b", moment(index)))
    truth = layer_of(rows, "EPSG:4326", "device:string,time:datetime", name="truth")
    ran = run("trackingmap", PATH=path, TRUTH=truth, MAP=str(tmp_path / "map.png"))
    assert ran["MEAN_ERROR"] == pytest.approx(5.0, abs=0.01)
    ran = run("trackingmap", PATH=path, MAP=str(tmp_path / "map.png"))
    assert ran["MEAN_ERROR"] is None


def test_a_pdf_keeps_lines_as_lines_and_has_the_size_asked_for(run, tmp_path):
    path = path_of([(-60, 0), (0, 0), (0, 30)])
    streets = layer_of([(f"LINESTRING({X - 90} {Y},{X + 90} {Y})", 1)], geometry="LineString", fields="n:integer")
    ran = run("trackingmap", PATH=path, BASE=[streets], WIDTH=254, HEIGHT=127, MAP=str(tmp_path / "map.pdf"))
    data = Path(ran["MAP"]).read_bytes()
    assert data.startswith(b"%PDF-")
    width, height = map(float, re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", data).groups())
    assert (width, height) == (pytest.approx(720, abs=1), pytest.approx(360, abs=1))  # 10 × 5 inches
    assert b"/Subtype /Image" not in data
    assert b"/FontDescriptor" in data


def test_landmarks_and_those_recognised(run, tmp_path):
    path = path_of([(-60, 0), (60, 0)])
    landmarks = layer_of(
        [(f"POINT({X - 40} {Y + 30})", "mill", "location"), (f"POINT({X + 40} {Y + 30})", "café", "service")],
        fields="landmark_id:string,kind:string",
        name="landmarks",
    )
    matches = layer_of(
        [(None, moment(1), "mill", 1)],
        fields="time:datetime,landmark_id:string,fiducial:integer",
        geometry="None",
        crs="",
        name="matches",
    )
    more = {"LANDMARKS": landmarks, **PLAIN}
    without = pixels(run("trackingmap", PATH=path, MAP=str(tmp_path / "a.png"), **more)["MAP"])
    assert sum(at(without, -40, 30)) < 200, "filled"
    assert near(at(without, 40, 30), WHITE), "outlined"
    beside = pixels(run("trackingmap", PATH=path, MATCHES=matches, MAP=str(tmp_path / "b.png"), **more)["MAP"])
    changed = np.argwhere(np.abs(beside - without).max(axis=2) > 60)
    middle = changed.mean(axis=0)
    assert middle == pytest.approx([5 * 20, 5 * 60], abs=2), "a frame around the one recognised, and nothing else"


def test_layers_below_keep_their_style_unless_nobody_chose_one(run, tmp_path):
    ring = f"POLYGON(({X - 90} {Y - 40},{X + 90} {Y - 40},{X + 90} {Y + 40},{X - 90} {Y + 40},{X - 90} {Y - 40}))"
    base = layer_of([(ring, 9.0)], geometry="Polygon", fields="height_m:double", name="houses")
    assert is_unstyled(base)
    more = {"PATH": path_of([(-60, 0), (60, 0)]), "BASE": [base], "MAP": str(tmp_path / "map.png"), **PLAIN}
    muted = at(pixels(run("trackingmap", **more)["MAP"]), 0, 20)
    assert np.ptp(muted) < 30
    assert not near(muted, PAPER)
    base.renderer().symbol().symbolLayer(0).setStrokeWidth(0.5)
    base.renderer().symbol().symbolLayer(0).setFillColor(QColor(10, 200, 30))
    assert not is_unstyled(base)
    before = base.renderer().symbol().dump()
    assert near(at(pixels(run("trackingmap", **more)["MAP"]), 0, 20), (10, 200, 30))
    assert near(at(pixels(run("trackingmap", MUTED="all", **more)["MAP"]), 0, 20), muted)
    assert base.renderer().symbol().dump() == before, "the user's layer is left alone"


def test_a_raster_file_is_drawn_in_the_style_beside_it(run, tmp_path):
    from osgeo import gdal, osr

    reference = osr.SpatialReference()
    reference.ImportFromEPSG(32628)
    raster = gdal.GetDriverByName("GTiff").Create(str(tmp_path / "blind.tif"), 20, 10, 1, gdal.GDT_Float32)
    raster.SetGeoTransform((X - 100, 10, 0, Y + 50, 0, -10))
    raster.SetProjection(reference.ExportToWkt())
    raster.GetRasterBand(1).Fill(0.9)
    raster = None
    (tmp_path / "blind.qml").write_text(classes_qml(1, [0.1, 0.5]))
    path = path_of([(-60, 0), (60, 0)])
    ran = run("trackingmap", PATH=path, BASE=[str(tmp_path / "blind.tif")], MAP=str(tmp_path / "map.png"), **PLAIN)
    darkest = tuple(int(SEQUENTIAL[-1][digit : digit + 2], 16) for digit in (1, 3, 5))
    multiplied = tuple(one * other // 255 for one, other in zip(darkest, PAPER))
    assert near(at(pixels(ran["MAP"]), 0, 20), multiplied)


@pytest.mark.parametrize("geometry", ["Point", "LineString", "Polygon", "MultiPolygon"])
def test_a_new_layer_is_unstyled_and_a_muted_one_is_not(qgis_app, geometry):
    layer = QgsVectorLayer(f"{geometry}?crs=EPSG:32628", "layer", "memory")
    assert is_unstyled(layer)
    mute(layer)
    assert not is_unstyled(layer)


def test_in_the_background_with_layers_of_the_project_and_the_window_alive(qgis_app, tmp_path):
    project = QgsProject.instance()
    base = layer_of(
        [(f"LINESTRING({X - 90} {Y + k},{X + 90} {Y - k})", k) for k in range(-45, 45)],
        geometry="LineString",
        fields="n:integer",
        name="streets",
    )
    project.addMapLayer(base)
    try:
        ran, ended, ticks = Ran(), [], [time.monotonic()]
        context = QgsProcessingContext()
        context.setProject(project)
        feedback = collecting_feedback(ran)
        algorithm = QgsApplication.processingRegistry().createAlgorithmById("telcoloc:trackingmap")
        parameters = {"PATH": path_of([(-60, 0), (60, 0)]), "BASE": [base], "MAP": str(tmp_path / "map.png"), **PLAIN}
        task = QgsProcessingAlgRunnerTask(algorithm, parameters, context, feedback)
        task.executed.connect(lambda successful, results: ended.append((successful, results)))
        QgsApplication.taskManager().addTask(task)
        pauses = []

        def done():
            pauses.append(time.monotonic() - ticks[-1])
            ticks.append(time.monotonic())
            return bool(ended)

        wait(done)
        assert ended[0][0], ran.text
        assert max(pauses) < 0.3
        image = pixels(tmp_path / "map.png")
        assert near(at(image, 0, 0), RED)
        assert list(project.mapLayers()) == [base.id()]
        assert base.thread() == QCoreApplication.instance().thread()
    finally:
        project.clear()


def test_cancelled_while_it_draws_it_leaves_the_older_map(qgis_app, tmp_path):
    """The feedback cancels as soon as drawing begins."""
    rng = np.random.default_rng(0)
    lines = rng.uniform(-95, 95, (3000, 40, 2)) + np.array([X, Y])
    rows = [("LINESTRING(" + ",".join(f"{x} {y}" for x, y in line) + ")", 1) for line in lines.tolist()]
    base = layer_of(rows, geometry="LineString", fields="n:integer", name="streets")
    (tmp_path / "map.png").write_bytes(b"older")
    ran, ended = Ran(), []
    context = QgsProcessingContext()
    feedback = collecting_feedback(ran)
    feedback.progressChanged.connect(lambda percent: feedback.cancel() if percent >= 40 else None)
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("telcoloc:trackingmap")
    parameters = {"PATH": path_of([(-60, 0), (60, 0)]), "BASE": [base], "MAP": str(tmp_path / "map.png"), **PLAIN}
    task = QgsProcessingAlgRunnerTask(algorithm, parameters, context, feedback)
    task.executed.connect(lambda successful, results: ended.append(successful))
    QgsApplication.taskManager().addTask(task)
    wait(lambda: bool(ended))
    assert ended == [False]
    assert "Cancelled by the user" in ran.text
    assert (tmp_path / "map.png").read_bytes() == b"older"
    assert leftovers(tmp_path) == []


def test_one_device_of_several(run, tmp_path):
    rows = [
        (f"POINT({X + 10 * i} {Y + 200 * k})", device, moment(i)) for k, device in enumerate("ab") for i in range(4)
    ]
    path = layer_of(rows, fields="device:string,time:datetime", name="fixes")
    assert run("trackingmap", PATH=path, MAP=str(tmp_path / "map.png"))["INSTANT_COUNT"] == 8
    ran = run("trackingmap", PATH=path, DEVICE="b", MAP=str(tmp_path / "map.png"), **PLAIN)
    assert ran["INSTANT_COUNT"] == 4


def test_bad_input_is_one_sentence(refused, tmp_path):
    path = path_of([(-60, 0), (0, 0), (60, 0)])
    good = {"PATH": path, "MAP": str(tmp_path / "map.png")}
    nothing = layer_of([], fields="time:datetime", name="nothing")
    timeless = layer_of([(f"POINT({X} {Y})", 1)], fields="n:integer", name="places")
    later = layer_of([(f"POINT({X} {Y})", "2025-01-01T00:00:00Z")], fields="time:datetime", name="later")
    lines = edges_of([(0, 0, 1, 1, 0, 1, 0, 0)])

    def refuse(sentence, **parameters):
        refused("trackingmap", sentence, **{**good, **parameters})

    refuse(r"PATH \(Path\) is missing\.", PATH=None)
    refuse(r"PATH: layer 'nothing' has no features .*\.", PATH=nothing)
    refuse(
        r"PATH: layer 'places' has no field 'time', only n; give one that has it, such as those that 'Track with landmarks' writes\.",
        PATH=timeless,
    )
    refuse(r"PATH.*(edges|LineString).*\.", PATH=lines)
    refuse(r"CANDIDATES: layer 'path' has no field 'error_db', only .*", CANDIDATES=path)
    refuse(r"TRUTH: layer 'later' goes from 2025-01-01 00:00:00 to .* they share no time\.", TRUTH=later)
    refuse(
        r"FROM 2024-03-08 00:00:00 TO .* holds no instant of PATH 'path', which goes from .*\.",
        FROM="2024-03-08T00:00:00",
    )
    refuse(r"AROUND is 2024-03-08 00:00:00 \(UTC\), outside PATH 'path', .*\.", AROUND="2024-03-08T00:00:00")
    refuse(r"AROUND and FROM or TO are given; .*\.", AROUND=moment(1), TO=moment(2))
    refuse(r"MATCHES is given without LANDMARKS; .*\.", MATCHES=later)
    refuse(r"PATH: layer 'path' holds nothing of DEVICE 'z'\.", DEVICE="z")
    refuse(r"MAP 'map\.jpg' must end in \.png or \.pdf\.", MAP=str(tmp_path / "map.jpg"))
    refuse(r"The map would have .* pixels; lower DPI \(1200\), WIDTH or HEIGHT\.", WIDTH=2000, HEIGHT=2000, DPI=1200)
    assert list(tmp_path.iterdir()) == []
