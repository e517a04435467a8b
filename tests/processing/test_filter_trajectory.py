"""Filtering trajectories: points of any CRS and of our own layers become smooth paths; what cannot be used is said, nothing crashes."""

import numpy as np
import pytest
from processing_helpers import SAMPLE, layer_of
from qgis.core import Qgis, QgsCoordinateReferenceSystem, QgsCoordinateTransform, QgsPointXY, QgsProject, QgsVectorLayer
from qgis.PyQt.QtCore import QDateTime, Qt
from qgis.PyQt.QtXml import QDomDocument

UTM = "EPSG:32633"
DAY = QDateTime.fromString("2024-05-01T08:00:00Z", Qt.DateFormat.ISODate)
FIELDS = "device:string,time:datetime,uncertainty_m:double,note:string"


def drive(count=40, north=0.0, device="phone", noise_m=25.0, seed=0, seconds=2):
    """Rows of points of a drive to the east at 10 m/s, with errors."""
    errors = np.random.default_rng(seed).normal(0, noise_m, (count, 2))
    return [
        (
            f"Point ({500000 + 10 * seconds * i + dx} {5800000 + north + dy})",
            device,
            DAY.addSecs(seconds * i),
            1.18 * noise_m,
            f"n{i}",
        )
        for i, (dx, dy) in enumerate(errors.tolist())
    ]


def points(rows=None, crs=UTM, fields=FIELDS):
    return layer_of(drive() if rows is None else rows, crs, fields, "Point", "fixes")


def xy(feature):
    point = feature.geometry().asPoint()
    return np.array([point.x(), point.y()])


def errors_of(features, seconds=2):
    """Distance of points from where the device was."""
    here = np.array([xy(feature) for feature in features])
    late = np.array([int(feature["note"][1:]) * seconds for feature in features])
    return np.hypot(here[:, 0] - 500000 - 10 * late, here[:, 1] - 5800000)


@pytest.fixture
def smooth(run):
    """`smooth(INPUT=…)`: (result, features of POINTS, features of TRAJECTORIES)."""

    def call(**parameters):
        defaults = {"INPUT": points(), "POINTS": "memory:", "TRAJECTORIES": "memory:"}
        ran = run("filtertrajectory", **{**defaults, **parameters})
        return ran, list(ran["POINTS"].getFeatures()), list(ran["TRAJECTORIES"].getFeatures())

    return call


@pytest.fixture
def no_path(refused, tmp_path):
    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        defaults = {
            "INPUT": points(),
            "POINTS": str(folder / "points.gpkg"),
            "TRAJECTORIES": str(folder / "paths.gpkg"),
        }
        refused("filtertrajectory", sentence, **{**defaults, **parameters})
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


# What it gives


@pytest.mark.parametrize("method", ["kalman", "particle"])
def test_points_come_nearer_and_keep_what_they_have(smooth, method):
    before = list(points().getFeatures())
    ran, after, paths = smooth(METHOD=method)
    assert np.median(errors_of(after)) < 0.8 * np.median(errors_of(before))
    assert [feature["note"] for feature in after] == [feature["note"] for feature in before]
    assert [feature["time"] for feature in after] == [feature["time"] for feature in before]
    for old, new in zip(before, after):
        assert new["moved_m"] == pytest.approx(np.hypot(*(xy(new) - xy(old))), abs=0.02)
        assert 0 < new["uncertainty_m"] < old["uncertainty_m"]
    assert (ran["POINT_COUNT"], ran["TRAJECTORY_COUNT"], ran["REJECTED"]) == (40, 1, 0)
    assert ran["MEDIAN_MOVED"] == pytest.approx(np.median([feature["moved_m"] for feature in after]), abs=0.02)
    (path,) = paths
    assert (path["device"], path["points"], path["begin"]) == ("phone", 40, DAY)
    vertices = list(path.geometry().vertices())
    assert vertices[0].m() == DAY.toMSecsSinceEpoch() / 1000
    assert vertices[-1].m() == vertices[0].m() + 78
    assert [round(vertices[3].x(), 3), round(vertices[3].y(), 3)] == xy(after[3]).round(3).tolist()


def test_a_table_says_where_the_points_are_also_beside_a_truth(run, smooth, tmp_path):
    measured = points([(*row, 15.0, 52.3) for row in drive()], fields=f"{FIELDS},truth_lon:double,truth_lat:double")
    _, after, _ = smooth(INPUT=measured)
    run("filtertrajectory", INPUT=measured, POINTS=str(tmp_path / "points.csv"))
    rows = list(QgsVectorLayer(str(tmp_path / "points.csv"), "points", "ogr").getFeatures())
    assert len(rows) == len(after)
    for point, row in zip(after, rows):
        assert (float(row["x"]), float(row["y"])) == pytest.approx(tuple(xy(point)), abs=1e-3)


def test_the_particles_seed_counts_and_the_smoother_has_none(smooth):
    def place(**parameters):
        return [xy(feature).tolist() for feature in smooth(**parameters)[1]]

    assert place(METHOD="particle", SEED=1) == place(METHOD="particle", SEED=1)
    assert place(METHOD="particle", SEED=1) != place(METHOD="particle", SEED=2)
    assert place(SEED=1) == place(SEED=2)


def test_less_acceleration_is_smoother_and_less_error_moves_less(smooth):
    plain = points([row[:3] + row[4:] for row in drive()], fields="device:string,time:datetime,note:string")
    bends = []
    for acceleration in (0.01, 5.0):
        here = np.array([xy(feature) for feature in smooth(INPUT=plain, ACCELERATION=acceleration)[1]])
        bends.append(np.abs(np.diff(here, 2, axis=0)).mean())
    assert bends[0] < 0.3 * bends[1]
    moved = [smooth(INPUT=plain, METHOD="particle", SPEED=10, SIGMA=sigma)[0]["MEDIAN_MOVED"] for sigma in (1, 30)]
    assert moved[0] < 0.3 * moved[1]


def test_outliers_lose_their_weight(smooth):
    rows = drive()
    rows[20] = ("Point (500400 5801500)", *rows[20][1:])
    _, after, _ = smooth(INPUT=points(rows))
    assert errors_of(after)[20] < 60


def test_a_layer_in_degrees_stays_in_degrees(smooth):
    there = QgsCoordinateTransform(
        QgsCoordinateReferenceSystem(UTM), QgsCoordinateReferenceSystem("EPSG:4326"), QgsProject.instance()
    )
    rows = []
    for wkt, *rest in drive():
        x, y = map(float, wkt[7:-1].split())
        point = there.transform(QgsPointXY(x, y))
        rows.append((f"Point ({point.x():.12f} {point.y():.12f})", *rest))
    ran, after, paths = smooth(INPUT=points(rows, "EPSG:4326"))
    assert ran["POINTS"].crs().authid() == ran["TRAJECTORIES"].crs().authid() == "EPSG:4326"
    _, metric, lines = smooth()
    for one, other in zip(after, metric):
        back = there.transform(QgsPointXY(*xy(other)))
        np.testing.assert_allclose(xy(one), [back.x(), back.y()], atol=1e-6)
    assert paths[0]["length_m"] == pytest.approx(lines[0]["length_m"], abs=0.5)


def test_devices_and_long_gaps_are_trajectories_of_their_own(smooth):
    rows = drive(10) + drive(10, 500, "other") + drive(1, 900, "third")
    rows[5:10] = [(row[0], row[1], row[2].addSecs(1000), *row[3:]) for row in rows[5:10]]
    ran, _, paths = smooth(INPUT=points(rows))
    assert ran["TRAJECTORY_COUNT"] == 4
    assert {(path["device"], path["trajectory"], path["points"]) for path in paths} == {
        ("phone", "phone #1", 5),
        ("phone", "phone #2", 5),
        ("other", "other", 10),
    }
    assert "1 trajectory has one point only, which makes no line." in ran.text
    assert smooth(INPUT=points(rows), MAX_GAP=2000)[0]["TRAJECTORY_COUNT"] == 3


@pytest.mark.parametrize(
    "stamp",
    [
        lambda moment: ("time:string", moment.toString(Qt.DateFormat.ISODate)),
        lambda moment: ("MRTime:long", moment.toMSecsSinceEpoch()),
        lambda moment: ("timestamp:double", moment.toMSecsSinceEpoch() / 1000),
    ],
)
def test_times_of_other_kinds_become_moments_that_play(smooth, stamp):
    field = stamp(DAY)[0]
    rows = [(wkt, device, stamp(moment)[1], note) for wkt, device, moment, _, note in drive()]
    _, after, _ = smooth(INPUT=points(rows, fields=f"device:string,{field},note:string"))
    assert [feature["time_utc"] for feature in after] == [row[2] for row in drive()]
    assert after[3][field.split(":")[0]] == rows[3][2]
    assert np.median(errors_of(after)) < 20


def test_layers_play_as_they_open(smooth, tmp_path):
    smooth_to = {"POINTS": str(tmp_path / "points.gpkg"), "TRAJECTORIES": str(tmp_path / "paths.gpkg")}
    import processing

    processing.run("telcoloc:filtertrajectory", {"INPUT": points(), **smooth_to})
    for name, mode in (
        ("points", Qgis.VectorTemporalMode.FeatureDateTimeInstantFromField),
        ("paths", Qgis.VectorTemporalMode.FeatureDateTimeStartAndEndFromFields),
    ):
        layer = QgsVectorLayer(str(tmp_path / f"{name}.gpkg"), name, "ogr")
        document = QDomDocument()
        document.setContent((tmp_path / f"{name}.qml").read_text(encoding="utf-8"))
        assert layer.importNamedStyle(document)[0]
        temporal = layer.temporalProperties()
        assert temporal.isActive()
        assert temporal.mode() == mode
        assert temporal.startField() in layer.fields().names()
        assert next(layer.getFeatures())[temporal.startField()].toUTC() == DAY


def test_our_own_second_radius_follows(smooth):
    rows = [(*row, 60.0) for row in drive()]
    _, after, _ = smooth(INPUT=points(rows, fields=f"{FIELDS},uncertainty_90_m:double"))
    ratio = after[9]["uncertainty_90_m"] / after[9]["uncertainty_m"]
    assert ratio == pytest.approx(np.sqrt(np.log(10) / np.log(2)), rel=0.01)


@pytest.mark.qgis_process
def test_walks_of_the_sample_city_in_the_real_qgis_process(qgis_process, tmp_path):
    done, answer = qgis_process.run(
        "filtertrajectory",
        {
            "INPUT": f"{SAMPLE}|layername=walks_truth",
            "METHOD": "particle",
            "PARTICLES": 100,
            "POINTS": str(tmp_path / "points.gpkg"),
            "TRAJECTORIES": str(tmp_path / "paths.gpkg"),
        },
    )
    assert done.returncode == 0, done.stderr
    assert answer["results"]["POINT_COUNT"] > 0
    assert QgsVectorLayer(str(tmp_path / "paths.gpkg"), "paths", "ogr").featureCount() > 0


# What cannot be used, or only in part


def test_rows_without_a_place_or_a_time_are_counted_and_listed(smooth):
    rows = drive(10)
    rows[2], rows[4] = (None, *rows[2][1:]), ("", *rows[4][1:])
    rows[6] = (rows[6][0], "phone", None, *rows[6][3:])
    ran, after, _ = smooth(INPUT=points(rows))
    assert (ran["POINT_COUNT"], ran["REJECTED"], len(after)) == (7, 3, 7)
    assert (
        "3 of 10 points cannot be used: feature 3: no geometry; feature 5: no geometry; feature 7: time is empty."
        in ran.warnings
    )


def test_a_time_that_cannot_be_read_names_its_row(smooth):
    rows = [(wkt, "a", f"2024-05-01T08:00:{i:02d}Z") for i, (wkt, *_) in enumerate(drive(5))]
    rows[3] = (rows[3][0], "a", "noon")
    ran, _, _ = smooth(INPUT=points(rows, fields="device:string,time:string"))
    assert "1 of 5 points cannot be used: feature 4: time 'noon' is no time." in ran.warnings


def test_times_out_of_order_are_sorted_and_said_and_those_twice_too(smooth):
    rows = drive(12)
    swapped = [*rows[:3], rows[4], rows[3], *rows[5:]]
    ran, after, _ = smooth(INPUT=points(swapped))
    assert "1 point is earlier than the one before in the layer; all were sorted by time." in ran.infos
    straight = {feature["note"]: xy(feature) for feature in smooth(INPUT=points(rows))[1]}
    for feature in after:
        np.testing.assert_allclose(xy(feature), straight[feature["note"]], atol=1e-6)
    ran, after, paths = smooth(INPUT=points(rows + rows[5:6]))
    assert any("1 point has the same device and time as another" in text for text in ran.warnings)
    assert len(after) == 13
    assert np.isfinite([xy(feature) for feature in after]).all()
    assert paths[0]["points"] == 13


def test_uncertainties_that_are_none_count_as_unknown(smooth):
    rows = drive(6)
    for index, value in ((1, -5.0), (2, 0.0), (3, None)):
        rows[index] = (*rows[index][:3], value, rows[index][4])
    ran, _, _ = smooth(INPUT=points(rows))
    (text,) = (text for text in ran.warnings if "uncertainty" in text)
    assert text.startswith("2 points have an uncertainty in 'uncertainty_m' that is no number above 0;")
    assert "feature 2: '-5'; feature 3: '0'" in text


def test_points_without_a_device_are_those_of_one(smooth):
    rows = [(wkt, None if i % 2 else "a", *rest) for i, (wkt, _, *rest) in enumerate(drive(8))]
    ran, _, _ = smooth(INPUT=points(rows))
    assert ran["TRAJECTORY_COUNT"] == 2
    assert "4 points have nothing in 'device'; all such count as those of one device." in ran.warnings


def test_without_a_time_field_one_sentence(no_path):
    no_path(
        r"INPUT: layer 'fixes' has no field that is known to be a time; give TIME_FIELD one of its fields: note\.",
        INPUT=points([(row[0], "x") for row in drive()], fields="note:string"),
    )


def test_no_usable_row_one_sentence(no_path):
    no_path(
        r"INPUT: none of the 2 rows of layer 'fixes' can be used \(feature 1: time is empty; feature 2: no geometry\)\.",
        INPUT=points([("Point (500000 5800000)", "a", None, 1, ""), (None, "a", DAY, 1, "")]),
    )


def test_an_empty_layer_one_sentence(no_path):
    no_path(r"INPUT: layer 'fixes' has no features \(check its filter and selection\)\.", INPUT=points([]))


def test_lines_are_no_points(no_path):
    no_path(
        r"INPUT is '.*', which does not exist or is of the wrong kind\.|INPUT: layer 'x' holds LineString, not points.*\.",
        INPUT=layer_of([("LineString (0 0, 1 1)", "a")], UTM, "device:string", "LineString", "x"),
    )


def test_a_layer_without_a_crs_one_sentence(no_path):
    layer = points(crs="")
    layer.setCrs(QgsCoordinateReferenceSystem())
    no_path(r"INPUT: layer 'fixes' has no known CRS\. Set it with Layer > Set CRS of Layer\.", INPUT=layer)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"PARTICLES": 3}, r"PARTICLES is '3'; it must be a number from 10 to 100000\."),
        ({"SPEED": 0}, r"SPEED is '0'; it must be a number from 0\.01 to 1000\."),
        ({"ACCELERATION": -1}, r"ACCELERATION is '-1'; it must be a number from 0\.001 to 100\."),
        ({"METHOD": "average"}, r"METHOD is 'average'; choose one of: particle, kalman\."),
        (
            {"TIME_FIELD": "tima"},
            r"TIME_FIELD: layer 'fixes' has no field 'tima'\. Did you mean 'time'\?|TIME_FIELD is 'tima'.*\.",
        ),
    ],
)
def test_values_that_make_no_sense(no_path, parameters, sentence):
    no_path(sentence, **parameters)


# Cancel


@pytest.mark.parametrize("percent", [5, 35, 70])
def test_cancel_leaves_nothing(tmp_path, percent):
    import processing
    from processing_helpers import Ran, collecting_feedback
    from qgis.core import QgsProcessingException

    rows = [row for device in range(12) for row in drive(250, 1000.0 * device, f"d{device}")]
    ran = Ran()
    feedback = collecting_feedback(ran)
    feedback.progressChanged.connect(lambda value: value >= percent and feedback.cancel())
    folder = tmp_path / "outputs"
    folder.mkdir()
    with pytest.raises(QgsProcessingException, match="Cancelled by the user; no output was written"):
        processing.run(
            "telcoloc:filtertrajectory",
            {
                "INPUT": points(rows),
                "METHOD": "particle",
                "POINTS": str(folder / "p.gpkg"),
                "TRAJECTORIES": str(folder / "t.gpkg"),
            },
            feedback=feedback,
        )
    assert list(folder.iterdir()) == []
