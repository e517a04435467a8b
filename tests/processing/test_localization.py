"""trainlocalizer, localizemeasurements and evaluatelocalization, each by itself and one after the other."""

import re
from pathlib import Path

import numpy as np
import pytest
from generated_measurements import FRAME, SIDE_M, sites, walks
from processing_helpers import SAMPLE, layer_of, leftovers
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsVectorLayer,
    QgsWkbTypes,
)
from telcoloc.models.environment import cuda_state
from telcoloc.models.trajectory.measurements import LocalFrame
from telcoloc.models.trajectory.model_file import load_localizer
from telcoloc.models.weights_file import read_weights, write_weights

pytest.importorskip("sklearn", reason="scikit-learn is not installed; no forest can be learned")
QUICK = {"METHOD": "raf", "OPTIONS": "trees=10", "DEVICE": "cpu"}
K = 6
FIELDS = ",".join(
    [
        *("device:string", "trajectory:string", "time:datetime", "time_s:double"),
        *(f"cell_{i}:string" for i in range(1, K + 1)),
        *(f"rss_dbm_{i}:double" for i in range(1, K + 1)),
        *("truth_lon:double", "truth_lat:double", "source_row:int"),
    ]
)


def rows_of(data, truth=True):
    """The rows of a layer in the normal form, as lists that a test may change."""
    rows = []
    for n in range(len(data)):
        lon, lat = float(data.lon[n]), float(data.lat[n])
        cells = [data.cells[code] if code >= 0 else None for code in data.cell[n, :K]]
        rss = [None if np.isnan(value) else float(value) for value in data.rss_dbm[n, :K]]
        names = data.devices[data.device[n]], data.trajectories[data.trajectory[n]]
        known = truth and np.isfinite(lon)
        rows.append(
            [
                *(f"Point ({lon} {lat})" if known else None, *names, None, float(data.time_s[n]), *cells, *rss),
                *(lon if known else None, lat if known else None, int(data.row[n])),
            ]
        )
    return rows


def measured(rows, crs="EPSG:4326"):
    return layer_of(rows, crs, FIELDS, name="measurements")


def cells_layer(prefix=""):
    where = sites()
    rows = [(f"Point ({lon} {lat})", prefix + name) for name, lon, lat in zip(where.ids, where.lon, where.lat)]
    return layer_of(rows, "EPSG:4326", "cell_id:string", name="cells")


def streets_layer(crs="EPSG:4326", away=0.0):
    at = np.arange(0.0, SIDE_M + 1, 200.0)
    lines = [[(x, y) for y in at] for x in at] + [[(x, y) for x in at] for y in at]
    rows = []
    for line in lines:
        lon, lat = FRAME.to_lonlat(*np.array(line).T)
        rows.append(("LineString (" + ", ".join(f"{x + away} {y}" for x, y in zip(lon, lat)) + ")", "no"))
    return layer_of(rows, crs, "oneway:string", "LineString", "streets")


def features_of(path):
    layer = QgsVectorLayer(str(path), "x", "ogr")
    assert layer.isValid()
    return layer, list(layer.getFeatures())


@pytest.fixture(scope="module")
def data():
    return walks()


@pytest.fixture(scope="module")
def trained(run, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return run(
        "trainlocalizer",
        INPUT=measured(rows_of(data)),
        BASE_STATIONS=cells_layer(),
        MODEL=str(folder / "model.safetensors"),
        EVALUATION=str(folder / "held_out.gpkg"),
        REPORT=str(folder / "report.html"),
        **QUICK,
    )


@pytest.fixture(scope="module")
def localized(run, data, trained, tmp_path_factory):
    """Another day's walks, without their truth."""
    folder = tmp_path_factory.mktemp("localized")
    return run(
        "localizemeasurements",
        INPUT=measured(rows_of(walks(seed=9), truth=False)),
        MODEL=trained["MODEL"],
        POINTS=str(folder / "points.gpkg"),
        TRAJECTORIES=str(folder / "lines.gpkg"),
    )


@pytest.fixture
def not_trained(refused, data, tmp_path):
    """`not_trained("sentence", …)`: refused, and no file is left."""

    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        given = {"INPUT": measured(rows_of(data)), "MODEL": str(folder / "m.safetensors"), **QUICK, **parameters}
        refused("trainlocalizer", sentence, EVALUATION=str(folder / "e.gpkg"), REPORT=str(folder / "r.html"), **given)
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


@pytest.fixture
def not_localized(refused, data, trained, tmp_path):
    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        given = {"INPUT": measured(rows_of(data)), "MODEL": trained["MODEL"], **parameters}
        refused(
            "localizemeasurements",
            sentence,
            POINTS=str(folder / "p.gpkg"),
            TRAJECTORIES=str(folder / "t.gpkg"),
            **given,
        )
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


@pytest.fixture
def not_evaluated(refused, tmp_path):
    def call(sentence, predicted, truth, **parameters):
        folder = tmp_path / "outputs"
        refused(
            "evaluatelocalization", sentence, PREDICTED=predicted, TRUTH=truth, ERRORS=str(folder / "e.gpkg"), **parameters
        )  # fmt: skip
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


# Training


def test_training_says_how_far_off(trained, data):
    layer, points = features_of(trained["EVALUATION"])
    assert layer.crs().authid() == "EPSG:4326"
    errors = np.array([point["error_m"] for point in points])
    assert len(errors) == trained["TEST_COUNT"] == 80
    assert trained["TRAIN_COUNT"] == len(data) - 80
    assert trained["MEDIAN_ERROR"] == pytest.approx(np.median(errors), abs=0.01)
    assert trained["MEAN_ERROR"] == pytest.approx(errors.mean(), abs=0.01)
    for share in (67, 80, 90, 95):
        assert trained[f"P{share}_ERROR"] == pytest.approx(np.percentile(errors, share), abs=0.01)
    for share, field in ((50, "uncertainty_m"), (90, "uncertainty_90_m")):
        within = np.array([point[f"inside_{share}"] for point in points])
        np.testing.assert_array_equal(within, errors <= np.array([point[field] for point in points]) + 0.005)
        assert trained[f"INSIDE_{share}"] == pytest.approx(within.mean(), abs=0.01)
    assert trained["DEVICE_USED"] == "cpu"
    assert len({point["trajectory"] for point in points}) == 2


def test_held_out_points_are_where_the_model_put_them(trained, data):
    """The error is the distance between the point and true_lon, true_lat, which are those of source_row."""
    _, points = features_of(trained["EVALUATION"])
    row = np.array([point["source_row"] for point in points])
    true_lon = np.array([point["true_lon"] for point in points])
    at = {number: place for place, number in enumerate(data.row.tolist())}
    np.testing.assert_allclose(true_lon, data.lon[[at[one] for one in row]], atol=1e-7)
    for point in points[:5]:
        place = point.geometry().asPoint()
        frame = LocalFrame(point["true_lon"], point["true_lat"])
        assert np.hypot(*frame.to_xy(place.x(), place.y())) == pytest.approx(point["error_m"], abs=0.1)
        assert point["time"].toMSecsSinceEpoch() / 1000 == pytest.approx(data.time_s[at[point["source_row"]]])
        assert point["serving_cell"] == data.cells[data.cell[at[point["source_row"]], 0]]
        assert point["method"] == "raf"


def test_the_model_has_a_card_and_the_report_a_curve(trained):
    model = load_localizer(trained["MODEL"])
    assert model.method == "raf"
    assert model.card["errors"]["median_m"] == pytest.approx(trained["MEDIAN_ERROR"], abs=0.001)
    assert model.card["learned_from_all"]
    page = Path(trained["REPORT"]).read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    for text in ("Held out by", "trajectory, a share of 0.2", "trees=10", "Uncertainty"):
        assert text in page


def test_the_log_tells_the_figures_and_the_base_stations(trained):
    assert re.search(r"Error of held-out trajectories: median \d+\.\d m, .* \(80 records\)\.", trained.text)
    assert "BASE_STATIONS tells where 12 of the 12 cells of the measurements are." in trained.infos
    assert not trained.warnings


def test_without_a_test_there_are_no_figures(run, data, tmp_path):
    ran = run(
        "trainlocalizer",
        INPUT=measured(rows_of(data)),
        TEST_SHARE=0,
        MODEL=str(tmp_path / "m.safetensors"),
        EVALUATION=str(tmp_path / "e.gpkg"),
        REPORT=str(tmp_path / "r.html"),
        **QUICK,
    )
    assert ran["MEDIAN_ERROR"] is ran["P90_ERROR"] is ran["INSIDE_50"] is None
    assert ran["TEST_COUNT"] == 0
    assert ran["TRAIN_COUNT"] == len(data)
    assert features_of(ran["EVALUATION"])[1] == []


@pytest.mark.parametrize("split", ["day", "sample"])
def test_other_splits(run, data, tmp_path, split):
    ran = run(
        "trainlocalizer", INPUT=measured(rows_of(data)), SPLIT=split, MODEL=str(tmp_path / "m.safetensors"), **QUICK
    )
    assert ran["TEST_COUNT"] == 80
    assert "EVALUATION" not in ran.results


def test_streets_go_into_the_model(run, data, tmp_path):
    ran = run(
        "trainlocalizer",
        INPUT=measured(rows_of(data)),
        STREETS=streets_layer(),
        MODEL=str(tmp_path / "m.safetensors"),
        **{**QUICK, "METHOD": "raf_m"},
    )
    streets = load_localizer(ran["MODEL"]).streets
    x_m, y_m = FRAME.to_xy(*streets.lonlat.T)
    off_m = np.minimum(*(np.abs(values - 200 * np.round(values / 200)) for values in (x_m, y_m)))
    assert off_m.max() < 0.01
    assert (streets.direction == 0).all()
    points = run(
        "localizemeasurements", INPUT=measured(rows_of(data)), MODEL=ran["MODEL"], POINTS=str(tmp_path / "p.gpkg")
    )
    assert points["METHOD_USED"] == "raf_m"
    where = np.array([point.geometry().asPoint() for point in features_of(points["POINTS"])[1]])
    x_m, y_m = FRAME.to_xy(*where.T)
    off_m = np.minimum(*(np.abs(values - 200 * np.round(values / 200)) for values in (x_m, y_m)))
    assert (off_m < 0.5).mean() > 0.95


def test_streets_that_are_not_used_are_said(run, data, tmp_path):
    model = str(tmp_path / "m.safetensors")
    ran = run("trainlocalizer", INPUT=measured(rows_of(data)), STREETS=streets_layer(), MODEL=model, **QUICK)
    assert ran.warnings == ["STREETS is not used: method 'raf' does not match to streets, 'raf_m' does."]


def test_training_without_a_true_position(not_trained, data):
    sentence = "None of the 400 records has a true position, so there is nothing to learn from. Import the measurements with their true "
    not_trained(re.escape(sentence + "longitude and latitude."), INPUT=measured(rows_of(data, truth=False)))


def test_training_on_no_usable_row(not_trained, data):
    rows = [[*row[:1], None, *row[2:]] for row in rows_of(data)[:30]]
    sentence = "INPUT: none of the 30 rows of layer 'measurements' can be used (30 without a device)."
    not_trained(re.escape(sentence), INPUT=measured(rows))
    not_trained("INPUT: layer 'measurements' has no features .*", INPUT=measured([]))


def test_training_on_absurd_rss(not_trained, data):
    rows = rows_of(data)
    rows[17][5 + K] = 57.0
    not_trained(
        r"INPUT: rss_dbm_1 of feature 18 of 'measurements' is 57 dBm, but a phone measures .*", INPUT=measured(rows)
    )


def test_training_on_another_table(not_trained):
    sentence = r"INPUT: layer 'sample_city' is not in the normal form of measurements \(it has no .*\)\. Run 'Import measurements' .*"
    not_trained(sentence, INPUT=f"{SAMPLE}|layername=base_stations")


def test_training_on_one_trajectory(not_trained, data):
    sentence = "All records with a true position belong to one trajectory ('d1 2'), so none can be held out by trajectory. Add more, set "
    sentence += "TEST_SHARE to 0 to learn without a test, or use SPLIT=sample."
    not_trained(re.escape(sentence), INPUT=measured(rows_of(data.take(data.trajectory == 2))))


def test_base_stations_of_another_network(not_trained):
    sentence = r"BASE_STATIONS: layer 'cells' has none of the 12 cells of the measurements: its ids .* are such as 'x100-1', theirs such "
    not_trained(sentence + "as .*", BASE_STATIONS=cells_layer("x"))


def test_streets_are_needed_and_must_be_near(not_trained):
    sentence = "Method 'raf_m' matches to streets, but there is no street layer. Choose STREETS, or 'raf'."
    not_trained(re.escape(sentence), METHOD="raf_m")
    sentence = r"STREETS: none of the 14 streets of layer 'streets' is near the points. Check the CRS of both layers\."
    not_trained(sentence, METHOD="raf_m", STREETS=streets_layer(away=1.0))


def test_options(not_trained):
    not_trained(r"OPTIONS has 'trees', but must be name=value with commas between them\.", OPTIONS="min_leaf=2, trees")
    not_trained("OPTIONS names 'trees' twice.", OPTIONS="trees=2; trees=3")
    not_trained(r"Method 'raf' has no option 'tree'\. Did you mean 'trees'\?", OPTIONS="tree=3")


def test_options_are_numbers_truths_and_names():
    from telcoloc.processing_algorithms.train_localizer import options_of

    found = options_of(" a=1, b = 2.5;c=true,\nd=No, e='mean', f=1e-3,")
    assert found == {"a": 1, "b": 2.5, "c": True, "d": False, "e": "mean", "f": 0.001}
    assert type(found["a"]) is int
    assert options_of("") == options_of(None) == {}


def test_neural_methods_without_torch(not_trained, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "torch" else real(name, *more))
    sentence = "Method 'lstm' needs torch, which is not installed in this Python. Install torch into the Python of QGIS (a build for the "
    sentence += "CPU is enough) and restart QGIS, or choose a method that needs none, such as raf."
    not_trained(re.escape(sentence), METHOD="lstm", OPTIONS="")


def test_a_gpu_that_is_asked_for_must_be_there(not_trained):
    if cuda_state().available:
        pytest.skip("there is one")
    not_trained("The device cuda cannot be used because .*", DEVICE="cuda")


def test_forests_without_scikit_learn(not_trained, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    not_trained("Forests are learned with the Python package 'scikit-learn', which is not installed .*", OPTIONS="")


@pytest.mark.parametrize("algorithm", ["trainlocalizer", "localizemeasurements"])
def test_cancel_leaves_nothing(run, data, trained, tmp_path, algorithm):
    class Impatient(QgsProcessingFeedback):
        """Cancelled when the work has begun."""

        def setProgressText(self, text):
            if text.startswith(("Training", "Localising")):
                self.cancel()

    given = {"MODEL": str(tmp_path / "m.safetensors"), **QUICK}
    if algorithm == "localizemeasurements":
        given = {
            "MODEL": trained["MODEL"],
            "POINTS": str(tmp_path / "p.gpkg"),
            "TRAJECTORIES": str(tmp_path / "t.gpkg"),
        }
    with pytest.raises(QgsProcessingException, match="Cancelled by the user"):
        run(algorithm, feedback=Impatient(False), INPUT=measured(rows_of(data)), **given)
    assert list(tmp_path.iterdir()) == []


# Localising


def test_every_record_becomes_a_point(localized, data):
    layer, points = features_of(localized["POINTS"])
    assert localized["POINT_COUNT"] == len(points) == len(data)
    assert localized["NOT_LOCALIZED"] == 0
    assert localized["METHOD_USED"] == "raf"
    assert localized["MRS_PER_SECOND"] > 100
    assert layer.crs().authid() == "EPSG:4326"
    names = [field.name() for field in layer.fields() if field.name() != "fid"]
    assert names == [
        *("device", "trajectory", "time", "uncertainty_m", "uncertainty_90_m"),
        *("method", "serving_cell", "cells_heard", "cells_known", "source_row"),
    ]
    for point in points:
        assert 0 < point["uncertainty_m"] < point["uncertainty_90_m"] < SIDE_M
        assert point["cells_heard"] == point["cells_known"] == K
    assert sorted(point["source_row"] for point in points) == list(range(len(data)))


def test_points_are_near_the_truth_which_was_not_given(localized):
    true = walks(seed=9)
    _, points = features_of(localized["POINTS"])
    where = np.array([point.geometry().asPoint() for point in sorted(points, key=lambda one: one["source_row"])])
    order = np.argsort(true.row)
    x_m, y_m = FRAME.to_xy(*where.T)
    true_x_m, true_y_m = FRAME.to_xy(true.lon[order], true.lat[order])
    assert np.median(np.hypot(x_m - true_x_m, y_m - true_y_m)) < 150


def test_trajectories_are_lines_in_time(localized):
    layer, lines = features_of(localized["TRAJECTORIES"])
    _, points = features_of(localized["POINTS"])
    assert QgsWkbTypes.displayString(layer.wkbType()) == "LineStringM"
    assert localized["TRAJECTORY_COUNT"] == len(lines) == 10
    for line in lines:
        own = sorted((one for one in points if one["trajectory"] == line["trajectory"]), key=lambda one: one["time"])
        vertices = list(line.geometry().vertices())
        assert [vertex.m() for vertex in vertices] == [one["time"].toMSecsSinceEpoch() / 1000 for one in own]
        assert [vertex.x() for vertex in vertices] == pytest.approx([one.geometry().asPoint().x() for one in own])
        assert line["begin"] == own[0]["time"]
        assert line["end"] == own[-1]["time"]
        assert line["points"] == len(own)
        assert line["device"] == own[0]["device"]
        x_m, y_m = FRAME.to_xy(*(np.array([getattr(vertex, name)() for vertex in vertices]) for name in "xy"))
        assert line["length_m"] == pytest.approx(np.hypot(np.diff(x_m), np.diff(y_m)).sum(), rel=2e-3, abs=0.1)
        assert line["median_uncertainty_m"] == pytest.approx(np.median([one["uncertainty_m"] for one in own]), abs=0.01)


@pytest.mark.parametrize(("output", "mode"), [("POINTS", "Instant"), ("TRAJECTORIES", "StartAndEnd")])
def test_layers_play_as_they_open(localized, output, mode):
    layer, _ = features_of(localized[output])
    layer.loadNamedStyle(str(Path(localized[output]).with_suffix(".qml")))
    temporal = layer.temporalProperties()
    assert temporal.isActive()
    wanted = {
        "Instant": Qgis.VectorTemporalMode.FeatureDateTimeInstantFromField,
        "StartAndEnd": Qgis.VectorTemporalMode.FeatureDateTimeStartAndEndFromFields,
    }
    assert temporal.mode() == wanted[mode]


def test_every_point_has_a_class_and_a_circle_of_its_size(localized):
    layer, points = features_of(localized["POINTS"])
    layer.loadNamedStyle(str(Path(localized["POINTS"]).with_suffix(".qml")))
    renderer = layer.renderer()
    assert renderer.classAttribute() == '"uncertainty_m"'
    values = np.array([point["uncertainty_m"] for point in points])
    ranges = renderer.ranges()
    assert 2 <= len(ranges) <= 6
    assert all(any(one.lowerValue() <= value <= one.upperValue() for one in ranges) for value in values)
    circle = ranges[0].symbol().symbolLayer(0)
    assert circle.sizeUnit() == Qgis.RenderUnit.MetersInMapUnits
    assert (
        circle.dataDefinedProperties().property(circle.Property.PropertySize).expressionString()
        == '2 * "uncertainty_m"'
    )


def test_what_runs_is_said_by_device(run, data, trained):
    said = []

    class Listening(QgsProcessingFeedback):
        def setProgressText(self, text):
            said.append(text)

    run(
        "localizemeasurements",
        feedback=Listening(False),
        INPUT=measured(rows_of(data)),
        MODEL=trained["MODEL"],
        POINTS="memory:",
    )
    assert any(re.fullmatch(r"Devices? 1( to \d)? of 5: .*d0 0.*", text) for text in said)


def test_records_that_heard_nothing_known_are_counted_and_listed(run, data, trained, tmp_path):
    """Of one trajectory all, of another every second: those lie between their neighbours."""
    rows = rows_of(data)
    for number, row in enumerate(rows):
        if row[2] == "d0 0" or (row[2] == "d1 2" and number % 2):
            row[5 : 5 + K] = ["strange", *[None] * (K - 1)]
    ran = run("localizemeasurements", INPUT=measured(rows), MODEL=trained["MODEL"], POINTS=str(tmp_path / "p.gpkg"))
    assert ran["NOT_LOCALIZED"] == 40
    assert ran["POINT_COUNT"] == 360
    assert ran["TRAJECTORY_COUNT"] == 9
    assert re.search("40 of 400 records have no position, .*: source_row 0 of d0; .*; and 3. more", ran.text)
    _, points = features_of(ran["POINTS"])
    assert {point["cells_known"] for point in points if point["trajectory"] == "d1 2"} == {0, K}


def test_one_record_is_a_point_without_a_line(run, data, trained, tmp_path):
    rows = [*rows_of(data)[:5], rows_of(data)[100]]
    outputs = {"POINTS": str(tmp_path / "p.gpkg"), "TRAJECTORIES": str(tmp_path / "t.gpkg")}
    ran = run("localizemeasurements", INPUT=measured(rows), MODEL=trained["MODEL"], **outputs)
    assert ran["TRAJECTORY_COUNT"] == 2
    assert len(features_of(ran["TRAJECTORIES"])[1]) == 1
    assert "1 trajectory has one point only, which makes no line." in ran.infos


def test_rows_out_of_order_and_twice_do_not_matter(run, data, trained, tmp_path):
    rows = rows_of(data.take(data.trajectory < 2))
    paths = [str(tmp_path / f"{name}.gpkg") for name in "ab"]
    run("localizemeasurements", INPUT=measured(rows), MODEL=trained["MODEL"], POINTS=paths[0])
    ran = run("localizemeasurements", INPUT=measured([*rows[::-1], rows[3]]), MODEL=trained["MODEL"], POINTS=paths[1])
    first, second = (
        {point["source_row"]: point.geometry().asPoint() for point in features_of(path)[1]} for path in paths
    )
    assert first == second
    assert ran["POINT_COUNT"] == len(rows) + 1
    assert "the time of another one of their device" in ran.text


def test_few_known_cells_are_said(run, data, trained):
    rows = rows_of(data)
    for number, row in enumerate(rows):
        row[5 + 1 : 5 + K] = [f"strange {number % 17}", *[None] * (K - 2)]
    ran = run("localizemeasurements", INPUT=measured(rows), MODEL=trained["MODEL"], POINTS="memory:")
    assert any(
        re.match(r"The model knows \d+ of the \d+ cells of the table, less than half, so ", text)
        for text in ran.warnings
    )


def test_a_model_of_another_area(not_localized, data):
    rows = rows_of(data)
    for row in rows:
        row[5 : 5 + K] = [f"x{cell}" for cell in row[5 : 5 + K]]
    sentence = r"The model knows none of the 12 cells of the table \(e\.g\. 'x100-1'; the model has '100-1'\)\. It was trained around .*"
    not_localized(sentence, INPUT=measured(rows))


def test_models_of_another_kind_version_or_damaged(not_localized, trained, tmp_path):
    path = tmp_path / "m.safetensors"
    weights = read_weights(trained["MODEL"], finite=False)
    from dataclasses import replace

    write_weights(path, replace(weights, card={**weights.card, "format": 99}))
    sentence = f"The model {path} has format 99, but this version of TelcoLoc reads format 1. Train it again with 'Train localizer'."
    not_localized(re.escape(sentence), MODEL=str(path))
    write_weights(path, replace(weights, kind="deepmend"))
    sentence = f"{path} holds weights for 'deepmend', not a localizer. Use a file that 'Train localizer' wrote."
    not_localized(re.escape(sentence), MODEL=str(path))
    path.write_bytes(Path(trained["MODEL"]).read_bytes()[:-1000])
    not_localized(re.escape(f"The weights file {path} is truncated: ") + ".*", MODEL=str(path))
    path.write_bytes(b"not a model")
    not_localized(
        re.escape(f"{path} is no weights file: it does not begin as a .safetensors file does."), MODEL=str(path)
    )
    not_localized(
        re.escape(f"The weights file {tmp_path}/none.safetensors cannot be read: ") + ".*",
        MODEL=f"{tmp_path}/none.safetensors",
    )


# Evaluating


TIMED = "device:string,time:double,uncertainty_m:double,uncertainty_90_m:double,serving_cell:string"


def placed(rows, crs="EPSG:4326", fields=TIMED, name="predicted"):
    """A layer of (east [m], north [m], attribute, …) rows around 10° E 50° N."""
    points = []
    for x_m, y_m, *attributes in rows:
        lon, lat = FRAME.to_lonlat(x_m, y_m)
        points.append((f"Point ({lon} {lat})", *attributes))
    return layer_of(points, crs, fields, name=name)


def test_errors_by_hand(run, tmp_path):
    predicted = placed(
        [
            (0, 0, "a", 1000.0, 20.0, 60.0, "x"),
            (100, 0, "a", 1010.4, 20.0, 60.0, "x"),
            (0, 50, "b", 1010.0, 20.0, 60.0, "y"),
            (0, 0, "b", 5000.0, 20.0, 60.0, "y"),
        ]
    )
    truth = [
        (0, 30, "a", 1000.0),
        (100, 10, "a", 1010.0),
        (100, 500, "a", 1012.0),
        (0, 0, "b", 1010.9),
        (9, 9, "a", 5000.0),
    ]
    truth = placed(truth, fields="imei:string,timestamp:double", name="truth")
    paths = {name: str(tmp_path / f"{name}.gpkg") for name in ("ERRORS", "LINES", "BY_DEVICE", "BY_CELL")}
    report = str(tmp_path / "r.html")
    ran = run("evaluatelocalization", PREDICTED=predicted, TRUTH=truth, REPORT=report, **paths)
    assert ran["COUNT"] == 3
    assert ran["UNMATCHED"] == 1
    assert ran["MEDIAN_ERROR"] == pytest.approx(30, abs=0.05)
    assert ran["MEAN_ERROR"] == pytest.approx(30, abs=0.05)
    assert ran["INSIDE_50"] == pytest.approx(1 / 3, abs=1e-3)
    assert ran["INSIDE_90"] == 1
    assert (
        "1 of 4 predicted points have no true position within 1 s and are not compared: feature 4 of b at 1970-01-01 01:23:20."
        in ran.warnings
    )
    errors = {(point["device"], round(point["error_m"])) for point in features_of(paths["ERRORS"])[1]}
    assert errors == {("a", 30), ("a", 10), ("b", 50)}
    by_device = {row["device"]: row for row in features_of(paths["BY_DEVICE"])[1]}
    assert by_device["a"]["count"] == 2
    assert by_device["a"]["median_m"] == pytest.approx(20, abs=0.05)
    by_cell = {row["serving_cell"]: row for row in features_of(paths["BY_CELL"])[1]}
    assert "TRUTH: of 'truth' these fields are used: imei, timestamp." in ran.infos
    assert by_cell["y"]["mean_m"] == pytest.approx(50, abs=0.05)
    for line in features_of(paths["LINES"])[1]:
        begin, end = (np.array(FRAME.to_xy(vertex.x(), vertex.y())) for vertex in line.geometry().vertices())
        assert np.hypot(*(end - begin)) == pytest.approx(line["error_m"], abs=0.05)
    assert Path(report).read_text(encoding="utf-8").count("<svg") == 1


def test_truth_in_another_crs(run):
    import processing

    rows = [(10.0 * n, 5.0 * n, "a", 1000.0 + n, 5.0, 9.0, "x") for n in range(20)]
    shifted = placed([(x + 3, y + 4, *more) for x, y, *more in rows], name="truth")
    truth = processing.run("native:reprojectlayer", {"INPUT": shifted, "TARGET_CRS": "EPSG:2180", "OUTPUT": "memory:"})[
        "OUTPUT"
    ]
    ran = run("evaluatelocalization", PREDICTED=placed(rows), TRUTH=truth, ERRORS="memory:")
    assert ran["COUNT"] == 20
    assert ran["P95_ERROR"] == pytest.approx(5, abs=0.01)
    assert ran["INSIDE_90"] == 1


def test_the_figures_alone(run):
    rows = [(10.0 * n, 5.0 * n, "a", 1000.0 + n, 5.0, 9.0, "x") for n in range(20)]
    ran = run("evaluatelocalization", PREDICTED=placed(rows), TRUTH=placed(rows, name="truth"))
    assert ran["COUNT"] == 20
    assert ran["MEDIAN_ERROR"] == 0


def test_rows_go_before_times(run):
    """Two records of a device at one time: source_row tells which is which; with other devices it is no partner."""
    fields = "device:string,time:double,source_row:int"
    predicted = placed([(0, 0, "a", 1000.0, 7), (100, 0, "a", 1000.0, 8), (0, 9, "b", 1000.0, 7)], fields=fields)
    truth = placed(
        [(101, 0, "a", 1000.0, 8), (1, 0, "a", 1000.0, 7), (0, 10, "b", 1000.0, 9)], fields=fields, name="truth"
    )
    ran = run("evaluatelocalization", PREDICTED=predicted, TRUTH=truth, ERRORS="memory:")
    assert ran["COUNT"] == 3
    assert ran["P95_ERROR"] == pytest.approx(1, abs=0.01)


def test_devices_that_walk_at_the_same_time_are_told_apart_by_trajectory(run):
    fields = "device:string,trajectory:string,time:double"
    predicted = placed([(0, 0, "a", "1", 1000.0), (500, 0, "a", "2", 1000.0)], fields=fields)
    truth = placed([(2, 0, "a", "1", 1000.0), (502, 0, "a", "2", 1000.0)], fields=fields, name="truth")
    ran = run("evaluatelocalization", PREDICTED=predicted, TRUTH=truth, ERRORS="memory:")
    assert ran["P95_ERROR"] == pytest.approx(2, abs=0.01)


def test_other_times(not_evaluated):
    predicted = placed([(0, 0, "a", 1.6e9, 1.0, 2.0, "x")])
    truth = placed([(0, 0, "a", 1.5e9), (0, 0, "a", 1.5e9 + 60)], fields="device:string,time:double", name="truth")
    sentence = "None of the 1 predicted points has a true position of its device within 1 s: 'predicted' is from 2020-09-13 12:26:40 to "
    sentence += "2020-09-13 12:26:40, 'truth' from 2017-07-14 02:40:00 to 2017-07-14 02:41:00 (UTC)."
    not_evaluated(re.escape(sentence), predicted, truth)


def test_other_devices(not_evaluated):
    predicted = placed([(0, 0, "a", 1000.0, 1.0, 2.0, "x")])
    truth = placed([(0, 0, "b", 1000.0)], fields="device:string,time:double", name="truth")
    not_evaluated(
        r"None of the 1 predicted .* Their devices have different names, such as 'a' and 'b'\.", predicted, truth
    )


def test_layers_that_cannot_be_compared(not_evaluated, data):
    good = placed([(0, 0, "a", 1000.0, 1.0, 2.0, "x")])
    no_crs = placed([(0, 0, "a", 1000.0, 1.0, 2.0, "x")], name="truth")
    no_crs.setCrs(QgsCoordinateReferenceSystem())
    not_evaluated(r"TRUTH: layer 'truth' has no known CRS\. Set it with Layer > Set CRS of Layer\.", good, no_crs)
    no_time = placed([(0, 0, "a")], fields="device:string", name="truth")
    not_evaluated(
        "TRUTH: layer 'truth' has no field that is known to be a time .* but device; rename the one that is.",
        good,
        no_time,
    )
    hidden = measured(rows_of(data, truth=False))
    sentence = (
        "TRUTH: none of the 400 rows of layer 'measurements' has a true position and a time (400 without a position)."
    )
    not_evaluated(re.escape(sentence), good, hidden)
    table = layer_of([(None, "a", 1000.0)], "", "device:string,time:double", "None", "table")
    not_evaluated(
        "TRUTH: layer 'table' has neither points nor truth_lon and truth_lat, so it says no position.", good, table
    )
    not_evaluated(
        r"PREDICTED: layer 'predicted' has no features \(check its filter and selection\)\.", placed([]), good
    )


def test_without_devices_only_times_count(run):
    predicted = placed([(0, 0, 1000.0), (5, 0, 1001.0)], fields="time:double")
    truth = placed([(0, 1, "a", 1000.0), (5, 1, "a", 1001.0)], fields="device:string,time:double", name="truth")
    ran = run("evaluatelocalization", PREDICTED=predicted, TRUTH=truth, ERRORS="memory:")
    assert ran["COUNT"] == 2
    assert ran["INSIDE_50"] is None
    assert "Layer 'predicted' has no field that names the device, so points are compared by time alone." in ran.warnings


# All three


@pytest.mark.qgis_process
def test_the_whole_way_in_qgis_process(qgis_process, data, tmp_path):
    import processing

    tables = {"known": data, "asked": walks(4, 20, seed=9)}
    for name, records in tables.items():
        parameters = {"INPUT": measured(rows_of(records)), "OUTPUT": str(tmp_path / f"{name}.gpkg")}
        processing.run("native:savefeatures", parameters)
    paths = {name: str(tmp_path / name) for name in ("m.safetensors", "p.gpkg", "t.gpkg", "e.gpkg", "r.html")}
    steps = [
        ("trainlocalizer", {"INPUT": str(tmp_path / "known.gpkg"), "MODEL": paths["m.safetensors"], **QUICK}),
        (
            "localizemeasurements",
            {
                "INPUT": str(tmp_path / "asked.gpkg"),
                "MODEL": paths["m.safetensors"],
                "POINTS": paths["p.gpkg"],
                "TRAJECTORIES": paths["t.gpkg"],
            },
        ),
        (
            "evaluatelocalization",
            {
                "PREDICTED": paths["p.gpkg"],
                "TRUTH": str(tmp_path / "asked.gpkg"),
                "ERRORS": paths["e.gpkg"],
                "REPORT": paths["r.html"],
            },
        ),
    ]
    answers = []
    for algorithm, parameters in steps:
        done, answer = qgis_process.run(algorithm, parameters)
        assert done.returncode == 0, done.stderr
        answers.append(answer["results"])
    assert answers[0]["TEST_COUNT"] == 80
    assert answers[1]["POINT_COUNT"] == answers[2]["COUNT"] == 80
    assert answers[2]["UNMATCHED"] == 0
    assert 0 < answers[2]["MEDIAN_ERROR"] < 200
    assert all(Path(path).stat().st_size for path in paths.values())
    assert leftovers(tmp_path) == []
