"""Matching to streets: layers people have, in any CRS; what cannot be used is said; outputs play and are whole."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from processing_helpers import SAMPLE, Ran, collecting_feedback, layer_of, leftovers
from qgis.core import (
    Qgis,
    QgsCategorizedSymbolRenderer,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QDateTime, Qt
from qgis.PyQt.QtXml import QDomDocument

UTM = "EPSG:32633"
#: A street east, a street north from its middle, and a parallel 200 m north of the first one.
ROADS = [
    ("LineString (500000 5800000, 500400 5800000)", "a", None),
    ("LineString (500400 5800000, 500800 5800000)", "b", None),
    ("LineString (500400 5800000, 500400 5800200)", "c", None),
    ("LineString (500000 5800200, 500400 5800200, 500800 5800200)", "d", None),
]
DAY = QDateTime.fromString("2024-05-01T08:00:00Z", Qt.DateFormat.ISODate)


def roads(rows=ROADS, crs=UTM, fields="name:string,oneway:string", geometry="LineString"):
    return layer_of(rows, crs, fields, geometry, "roads")


def walk(count=20, step=20.0, start=10.0, north=4.0, seconds=5):
    """Rows of points along the first street, some metres beside it."""
    return [
        (f"Point ({500000 + start + step * i} {5800000 + north * (-1) ** i})", "phone", DAY.addSecs(seconds * i))
        for i in range(count)
    ]


def points(rows=None, crs=UTM, fields="device:string,time:datetime"):
    return layer_of(walk() if rows is None else rows, crs, fields, "Point", "fixes")


@pytest.fixture
def match(run):
    """`match(INPUT=…)`: (result, features of POINTS, features of TRAJECTORIES)."""

    def call(**parameters):
        defaults = {"INPUT": points(), "STREETS": roads(), "POINTS": "memory:", "TRAJECTORIES": "memory:"}
        ran = run("matchtostreets", **{**defaults, **parameters})
        return ran, list(ran["POINTS"].getFeatures()), list(ran["TRAJECTORIES"].getFeatures())

    return call


@pytest.fixture
def no_match(refused, tmp_path):
    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        defaults = {
            "INPUT": points(),
            "STREETS": roads(),
            "POINTS": str(folder / "points.gpkg"),
            "TRAJECTORIES": str(folder / "paths.gpkg"),
        }
        refused("matchtostreets", sentence, **{**defaults, **parameters})
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


def styled(path):
    """The layer of a file with the style beside it, as it looks once QGIS has loaded it."""
    layer = QgsVectorLayer(path, "styled", "ogr")
    document = QDomDocument()
    document.setContent(Path(path).with_suffix(".qml").read_text(encoding="utf-8"))
    assert layer.importNamedStyle(document)[0]
    return layer


def xy(feature):
    point = feature.geometry().asPoint()
    return point.x(), point.y()


# What comes out


def test_points_are_put_on_their_streets(match):
    ran, moved, paths = match()
    assert ran["MATCHED"] == len(moved) == 20
    assert ran["OFF_ROAD"] == ran["REJECTED"] == 0
    assert ran["STRETCHES"] == len(paths) == 1
    assert [feature["matched"] for feature in moved] == [True] * 20
    assert {feature["street_id"] for feature in moved} == {1}
    assert [feature["device"] for feature in moved] == ["phone"] * 20
    assert moved[3]["time"] == DAY.addSecs(15)
    for feature in moved:
        assert xy(feature)[1] == pytest.approx(5800000, abs=1e-6)
        assert feature["offset_m"] == pytest.approx(4, abs=0.5)
        assert feature["stretch"] == 1
        assert 0.5 < feature["confidence"] <= 1
    assert ran["LENGTH"] == pytest.approx(380, abs=5)
    assert ran["MEDIAN_OFFSET"] == pytest.approx(4, abs=0.5)
    assert ran["POINTS_PER_SECOND"] > 0


def test_paths_are_lines_with_times_that_play(match):
    ran, _, paths = match()
    layer = ran["TRAJECTORIES"]
    assert layer.wkbType() == QgsWkbTypes.Type.LineStringM
    vertices = list(paths[0].geometry().vertices())
    times = [vertex.m() for vertex in vertices]
    assert times == sorted(times)
    assert times[0] == DAY.toSecsSinceEpoch()
    assert times[-1] == DAY.toSecsSinceEpoch() + 95
    assert paths[0]["begin"] == DAY
    assert paths[0]["end"] == DAY.addSecs(95)
    assert paths[0]["points"] == 20
    assert paths[0]["device"] == "phone"


def test_styles_are_temporal_and_off_road_points_hollow(run, tmp_path):
    rows = [*walk(), ("Point (500100 5801500)", "phone", DAY.addSecs(300))]
    ran = run(
        "matchtostreets",
        INPUT=points(rows),
        STREETS=roads(),
        POINTS=str(tmp_path / "points.gpkg"),
        TRAJECTORIES=str(tmp_path / "paths.gpkg"),
    )
    loaded = styled(ran["POINTS"])
    assert loaded.temporalProperties().isActive()
    assert loaded.temporalProperties().startField() == "time"
    renderer = loaded.renderer()
    assert isinstance(renderer, QgsCategorizedSymbolRenderer)
    alphas = [category.symbol().symbolLayer(0).fillColor().alpha() for category in renderer.categories()]
    assert alphas == [255, 0]
    paths = styled(ran["TRAJECTORIES"])
    assert paths.temporalProperties().isActive()
    assert paths.temporalProperties().mode() == Qgis.VectorTemporalMode.FeatureDateTimeStartAndEndFromFields
    assert leftovers(tmp_path) == []


def test_times_as_numbers_give_the_points_a_moment(match, run, tmp_path):
    rows = [(wkt, device, float(moment.toSecsSinceEpoch())) for wkt, device, moment in walk()]
    _, moved, paths = match(INPUT=points(rows, fields="device:string,time:double"))
    assert moved[2]["time_utc"] == DAY.addSecs(10)
    assert paths[0]["end"] == DAY.addSecs(95)


def test_outputs_have_the_crs_of_the_points_and_streets_may_have_another(match):
    degrees = QgsCoordinateReferenceSystem("EPSG:4326")
    transform = QgsCoordinateTransform(QgsCoordinateReferenceSystem(UTM), degrees, QgsProject.instance())

    def moved(rows):
        result = []
        for wkt, *attributes in rows:
            geometry = QgsGeometry.fromWkt(wkt)
            geometry.transform(transform)
            result.append((geometry.asWkt(12), *attributes))
        return result

    _, expected, lines = match()
    for layers in (
        {"STREETS": roads(moved(ROADS), "EPSG:4326")},
        {"INPUT": points(moved(walk()), "EPSG:4326")},
        {"INPUT": points(moved(walk()), "EPSG:4326"), "STREETS": roads(moved(ROADS), "EPSG:4326")},
    ):
        ran, found, _ = match(**layers)
        crs = layers.get("INPUT", points()).crs()
        assert ran["POINTS"].crs() == ran["TRAJECTORIES"].crs() == crs
        assert ran["LENGTH"] == pytest.approx(lines[0]["length_m"], abs=0.2)
        back = QgsCoordinateTransform(crs, QgsCoordinateReferenceSystem(UTM), QgsProject.instance())
        for one, other in zip(found, expected):
            place = back.transform(QgsPointXY(*xy(one)))
            assert (place.x(), place.y()) == pytest.approx(xy(other), abs=0.01)


def test_one_way_streets_are_kept(match):
    """Two carriageways 16 m apart, one each way: the one in the direction of travel is taken, also from beyond its middle."""
    for east_first in (True, False):
        pair = [
            ("LineString (500000 5800000, 500800 5800000)", "south", "yes"),
            ("LineString (500000 5800016, 500800 5800016)", "north", "-1"),
        ]
        rows = walk(north=0)
        rows = [(wkt.replace("5800000.0", "5800009"), *rest) for wkt, *rest in rows]
        if not east_first:
            rows = [(a[0], *b[1:]) for a, b in zip(rows[::-1], rows)]
        _, moved, _ = match(INPUT=points(rows), STREETS=roads(pair), ONEWAY_FIELD="oneway")
        assert {feature["street_id"] for feature in moved} == ({1} if east_first else {2})


def test_off_road_points_stay_and_the_path_goes_on(match):
    rows = walk()
    rows[9] = ("Point (500190 5800090)", "phone", rows[9][2])
    ran, moved, paths = match(INPUT=points(rows), RADIUS=40)
    assert ran["OFF_ROAD"] == 1
    assert xy(moved[9]) == pytest.approx((500190, 5800090), abs=1e-6)
    assert not moved[9]["matched"]
    assert all(not moved[9][name] for name in ("street_id", "offset_m", "stretch", "confidence"))
    assert len(paths) == 1


def test_gaps_split_paths_and_devices_are_told_apart(match):
    rows = walk()
    late = [(wkt, device, moment.addSecs(3600)) for wkt, device, moment in rows[10:]]
    other = [(wkt, "tablet", moment) for wkt, _, moment in rows]
    ran, moved, paths = match(INPUT=points([*rows[:10], *late, *other]))
    assert ran["STRETCHES"] == 3
    assert sorted((path["device"], path["points"]) for path in paths) == [("phone", 10), ("phone", 10), ("tablet", 20)]
    assert len({feature["stretch"] for feature in moved}) == 3


def test_without_times_the_order_of_the_layer_counts(match):
    rows = [(wkt,) for wkt, *_ in walk()]
    ran, moved, paths = match(INPUT=points(rows, fields="note:string"))
    assert ran["STRETCHES"] == 1
    assert [round(vertex.m()) for vertex in paths[0].geometry().vertices()][-1] == 19
    assert not paths[0]["begin"]
    assert len(moved) == 20


def test_uncertainties_count_point_by_point(match):
    """A point far off but coarse does not pull the path to a wrong street; one said to be exact does."""
    rows = [(*row, 5.0) for row in walk(north=0)]
    for metres, off in ((150.0, 0.0), (2.0, 200.0)):
        rows[10] = ("Point (500210 5800195)", "phone", rows[10][2], metres)
        _, moved, _ = match(
            INPUT=points(rows, fields="device:string,time:datetime,uncertainty_m:double"), RADIUS=30, MAX_SPEED=400
        )
        assert xy(moved[10])[1] - 5800000 == pytest.approx(off, abs=1)


def test_close_points_may_be_skipped(match):
    rows = walk(60, step=6.0)
    _, all_, _ = match(INPUT=points(rows))
    ran, moved, _ = match(INPUT=points(rows), SKIP_CLOSE=True)
    assert ran["MATCHED"] == 60
    assert any(not feature["confidence"] for feature in moved)
    assert [feature["street_id"] for feature in moved] == [feature["street_id"] for feature in all_]


def test_only_the_numbers(run):
    ran = run("matchtostreets", INPUT=points(), STREETS=roads())
    assert ran["STRETCHES"] == 1
    assert ran["LENGTH"] == pytest.approx(380, abs=5)


def test_sample_city(run):
    """Walks of the sample city along its streets: every path lies on them."""
    names = {
        layer.split("|layername=")[1] for layer in (f"{SAMPLE}|layername=walks_truth", f"{SAMPLE}|layername=streets")
    }
    assert names == {"walks_truth", "streets"}
    ran = run(
        "matchtostreets",
        INPUT=f"{SAMPLE}|layername=walks_truth",
        STREETS=f"{SAMPLE}|layername=streets",
        SIGMA=5,
        POINTS="memory:",
        TRAJECTORIES="memory:",
    )
    assert ran["MATCHED"] > 0.9 * (ran["MATCHED"] + ran["OFF_ROAD"])
    assert ran["MEDIAN_OFFSET"] < 5


@pytest.mark.qgis_process
def test_the_real_qgis_process(qgis_process, tmp_path):
    done, answer = qgis_process.run(
        "matchtostreets",
        {
            "INPUT": f"{SAMPLE}|layername=walks_truth",
            "STREETS": f"{SAMPLE}|layername=streets",
            "POINTS": str(tmp_path / "points.gpkg"),
            "TRAJECTORIES": str(tmp_path / "paths.gpkg"),
        },
    )
    assert done.returncode == 0, done.stderr
    assert answer["results"]["MATCHED"] > 0
    assert QgsVectorLayer(str(tmp_path / "paths.gpkg"), "paths", "ogr").featureCount() > 0


@pytest.mark.real_data
def test_trips_of_stockholm(run, shared_data, tmp_path):
    folder = shared_data / "streets" / "stockholm_osm"
    rows = []
    for line in (folder / "trips.csv").read_text().splitlines()[1:]:
        trip, _, wkt = line.partition(";")
        for vertex in QgsGeometry.fromWkt(wkt).vertices():
            rows.append((f"Point ({vertex.x()} {vertex.y()})", trip))
    ran = run(
        "matchtostreets",
        INPUT=layer_of(rows, "EPSG:4326", "trajectory:string", "Point", "trips"),
        STREETS=str(folder / "edges.shp"),
        RADIUS=100,
        POINTS="memory:",
        TRAJECTORIES="memory:",
    )
    assert ran["MATCHED"] == 14
    assert ran["STRETCHES"] == 2
    # The same ways as the program fmm found for these trips.
    metres = QgsCoordinateTransform(
        QgsCoordinateReferenceSystem("EPSG:4326"), QgsCoordinateReferenceSystem(UTM), QgsProject.instance()
    )
    theirs = {}
    for line in (folder / "mr.txt").read_text().splitlines()[1:]:
        theirs[line.split(";")[0]] = QgsGeometry.fromWkt(line.split(";")[-1])
    for path in ran["TRAJECTORIES"].getFeatures():
        ours, other = path.geometry(), theirs[path["trajectory"]]
        ours.transform(metres)
        other.transform(metres)
        assert ours.hausdorffDistanceDensify(other, 0.01) < 10  # they project in degrees


# What cannot be used


def test_multi_null_and_zero_length_streets_are_handled_and_said(match):
    rows = [
        ("MultiLineString ((500000 5800000, 500400 5800000), (500400 5800000, 500800 5800000))", "a", None),
        (None, "nowhere", None),
        ("MultiLineString ((500100 5800100, 500100 5800100))", "a dot", None),
        ("MultiLineString ((500400 5800000, 500400 5800200))", "c", None),
    ]
    ran, moved, _ = match(STREETS=roads(rows, geometry="MultiLineString"))
    assert {feature["street_id"] for feature in moved} == {1}
    assert "STREETS: 1 features of several lines were taken apart." in ran.infos
    assert "STREETS: 1 features have no geometry and were left out: feature 2." in ran.warnings
    assert "STREETS: 1 features have no length and were left out: feature 3." in ran.warnings


@pytest.mark.parametrize(
    ("geometry", "wkt"),
    [
        ("LineStringZ", "LineStringZ (500000 5800000 3, 500800 5800000 9)"),
        ("LineStringM", "LineStringM (500000 5800000 3, 500800 5800000 9)"),
        ("CompoundCurve", "CompoundCurve ((500000 5800000, 500400 5800000), (500400 5800000, 500800 5800000))"),
        ("MultiLineStringZM", "MultiLineStringZM ((500000 5800000 3 1, 500800 5800000 9 2))"),
    ],
)
def test_streets_with_heights_measures_and_curves(match, geometry, wkt):
    ran, _, _ = match(STREETS=roads([(wkt, "a", None)], geometry=geometry))
    assert ran["MATCHED"] == 20
    assert ran["MEDIAN_OFFSET"] == pytest.approx(4, abs=0.1)


def test_a_layer_without_any_usable_street(no_match):
    rows = [(None, "nowhere", None), ("LineString (500100 5800100, 500100 5800100)", "a dot", None)]
    no_match(
        r"STREETS: none of the 2 features of layer 'roads' is a line with a length\.",
        STREETS=roads(rows),
    )
    no_match(r"STREETS: layer 'roads' has no features \(check its filter and selection\)\.", STREETS=roads([]))


def test_streets_that_are_no_lines_or_have_no_crs(no_match):
    no_match(
        r"STREETS.*(holds Point, not lines; give a layer of streets|does not exist or is of the wrong kind)\.",
        STREETS=layer_of(walk(), UTM, "device:string,time:datetime", "Point", "roads"),
    )
    unknown = roads(crs="")
    unknown.setCrs(QgsCoordinateReferenceSystem())
    no_match(r"STREETS: layer 'roads' has no known CRS\. Set it with Layer > Set CRS of Layer\.", STREETS=unknown)


def test_no_street_near_the_points(no_match):
    near = [("LineString (500000 5801000, 500400 5801000)", "a", None)]
    no_match(
        r"No street of layer 'roads' is within 50 m of any of the 20 points; the nearest is about (99|1,00)\d m away\. "
        r"Check the CRS of both layers, or give a larger RADIUS\.",
        STREETS=roads(near),
    )
    far = [("LineString (400000 5801000, 400400 5801000)", "a", None)]
    no_match(
        r"STREETS: none of the 1 streets of layer 'roads' is near the points\. Check the CRS of both layers\.",
        STREETS=roads(far),
    )


def test_one_way_marks_that_are_none_count_as_both_ways(match):
    rows = [(wkt, name, mark) for (wkt, name, _), mark in zip(ROADS, ("perhaps", "YES", "no", ""))]
    ran, moved, _ = match(STREETS=roads(rows))
    assert len(moved) == 20
    assert (
        "STREETS: 1 streets have a mark in 'oneway' that is not known and count as open both ways: feature 1: 'perhaps'."
        in ran.warnings
    )


@pytest.mark.parametrize(
    ("value", "direction"),
    [
        *((mark, 1) for mark in ("yes", "True", "true", "1", 1, 1.0, True, "F", "FT")),
        *((mark, -1) for mark in ("-1", "reverse", -1, "T", "TF")),
        *((mark, 0) for mark in ("no", "False", "0", 0, False, "B", "", None, "alternating")),
        *((mark, None) for mark in ("maybe", 7, 0.5, "oui")),
    ],
)
def test_one_way_marks(value, direction):
    from telcoloc.models.trajectory.streets import oneway_of

    assert oneway_of(value) == direction


def test_points_without_a_position_are_counted_and_listed(match):
    ran, moved, _ = match(INPUT=points([*walk(), (None, "phone", DAY), ("", "phone", DAY)]))
    assert len(moved) == 20
    assert ran["REJECTED"] == 2
    assert "2 of 22 points cannot be used: feature 21: no geometry; feature 22: no geometry." in ran.warnings


def test_times_out_of_order_or_twice_are_sorted_and_said(match):
    rows = walk()
    _, expected, _ = match()
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(20)]
    ran, moved, paths = match(INPUT=points([*shuffled, shuffled[3]]))
    assert re.search(r"\d+ points are earlier than the one before in the layer; all were sorted by time\.", ran.text)
    assert "1 point has the same device and time as another; all were kept, in the order of the layer." in ran.warnings
    assert len(paths) == 1
    by_time = {feature["time"].toSecsSinceEpoch(): xy(feature) for feature in expected}
    for feature in moved:
        assert xy(feature) == pytest.approx(by_time[feature["time"].toSecsSinceEpoch()], abs=10)


def test_times_that_are_none_are_said_with_their_row(match, no_match):
    rows = [(wkt, device, moment.toString(Qt.DateFormat.ISODate)) for wkt, device, moment in walk()]
    rows[4] = (rows[4][0], "phone", "noon")
    fields = "device:string,time:string"
    ran, moved, _ = match(INPUT=points(rows, fields=fields))
    assert len(moved) == 19
    assert "1 of 20 points cannot be used: feature 5: time 'noon' is no time." in ran.warnings
    no_match(
        r"INPUT: none of the 2 rows of layer 'fixes' can be used \(feature 1: time 'noon' is no time; feature 2: .*\)\.",
        INPUT=points([(row[0], "phone", "noon") for row in rows[:2]], fields=fields),
    )


def test_wrong_parameters(no_match):
    no_match(r"SIGMA is '0'; it must be a number from 1 to 5000\.", SIGMA=0)
    no_match(r"ONEWAY_FIELD: layer 'roads' has no field 'onway'\. Did you mean 'oneway'\?", ONEWAY_FIELD="onway")
    no_match(r"INPUT: layer 'fixes' has no features \(check its filter and selection\)\.", INPUT=points([]))


# Cancel


def test_cancelled_soon_and_without_a_trace(qgis_app, tmp_path):
    """Many points on a grid of 5,000 streets."""
    from qgis.core import QgsApplication

    rng = np.random.default_rng(0)
    side = 50
    rows = [
        (
            f"LineString ({500000 + 100 * i} {5800000 + 100 * j}, {500000 + 100 * i + dx} {5800000 + 100 * j + dy})",
            "",
            "",
        )
        for i in range(side)
        for j in range(side)
        for dx, dy in ((100, 0), (0, 100))
    ]
    where = np.cumsum(rng.normal(0, 20, (30_000, 2)), axis=0) % 4900
    fixes = layer_of(
        [(f"Point ({500000 + x} {5800000 + y})", i) for i, (x, y) in enumerate(where)],
        UTM,
        "time:integer",
        name="fixes",
    )
    streets = roads(rows)

    for share in (5, 35, 60, 85):

        class Stops(QgsProcessingFeedback):
            asked = 0.0

        feedback = Stops(False)
        ran = Ran()
        said = collecting_feedback(ran)

        def stop(percent, feedback=said, share=share, state=feedback):
            if percent >= share and not state.asked:
                state.asked = time.monotonic()
                feedback.cancel()

        said.progressChanged.connect(stop)
        algorithm = QgsApplication.processingRegistry().createAlgorithmById("telcoloc:matchtostreets")
        outputs = {"POINTS": str(tmp_path / "points.gpkg"), "TRAJECTORIES": str(tmp_path / "paths.gpkg")}
        _, fine = algorithm.run({"INPUT": fixes, "STREETS": streets, **outputs}, QgsProcessingContext(), said)
        assert not fine
        assert feedback.asked
        assert time.monotonic() - feedback.asked < 1.5
        assert list(tmp_path.iterdir()) == []


def test_selected_features_only(run):
    from qgis.core import QgsProcessingFeatureSourceDefinition

    layer = points()
    layer.selectByIds([3, 4, 5, 6])
    QgsProject.instance().addMapLayer(layer)
    try:
        ran = run(
            "matchtostreets",
            INPUT=QgsProcessingFeatureSourceDefinition(layer.id(), selectedFeaturesOnly=True),
            STREETS=roads(),
            POINTS="memory:",
        )
    finally:
        QgsProject.instance().removeMapLayer(layer)
    assert ran["MATCHED"] == 4
    assert isinstance(next(ran["POINTS"].getFeatures()), QgsFeature)


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_of_a_large_layer_only_the_streets_around_are_read(match, monkeypatch, crs):
    from telcoloc.telcoloc_qgis import streets

    monkeypatch.setattr(streets, "READ_WHOLE", 1)
    moved = QgsCoordinateTransform(QgsCoordinateReferenceSystem(UTM), QgsCoordinateReferenceSystem(crs), QgsProject())
    rows = []
    for wkt, *rest in (*ROADS, ("LineString (900000 5800000, 900400 5800000)", "far", None)):
        geometry = QgsGeometry.fromWkt(wkt)
        geometry.transform(moved)
        rows.append((geometry.asWkt(9), *rest))
    ran, found, _ = match(STREETS=roads(rows, crs))
    assert ran["MATCHED"] == len(found) == 20
