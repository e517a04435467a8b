"""Candidates from radio maps and fingerprints: what the layer holds, how it is read back, and what bad input is told."""

from types import SimpleNamespace

import numpy as np
import pytest
from dcm_city import UTM, X, Y, cancelled, grid, measured, rss_dbm, streets, walk, with_rows, write_maps, xy_of
from processing_helpers import Ran, collecting_feedback, layer_of
from qgis.core import QgsCoordinateReferenceSystem, QgsProcessingContext, QgsVectorLayer
from telcoloc.models.errors import InputError
from telcoloc.processing_algorithms.signal_candidates import SignalCandidates
from telcoloc.telcoloc_qgis import rasters
from telcoloc.telcoloc_qgis.algorithm import Run
from telcoloc.telcoloc_qgis.candidates import read_candidates


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    return write_maps(tmp_path_factory.mktemp("maps") / "radio_maps.tif")


@pytest.fixture
def candidates(run, maps):
    """`candidates(INPUT=…)`: (what it said, features of CANDIDATES)."""

    def call(**parameters):
        table = {} if {"FINGERPRINTS", "TRAINING"} & set(parameters) else {"RADIO_MAPS": maps}
        ran = run("signalcandidates", **{"INPUT": measured(), "CANDIDATES": "memory:", **table, **parameters})
        return ran, list(ran["CANDIDATES"].getFeatures())

    return call


def read(layer, **options):
    """What `read_candidates` makes of a layer, and what it said."""
    ran = Ran()
    algorithm = SignalCandidates().create()
    context = QgsProcessingContext()
    assert algorithm.prepare({"INPUT": layer}, context, collecting_feedback(ran))
    job = Run(algorithm, {"INPUT": layer}, context, collecting_feedback(ran))
    found, crs = read_candidates(job, job.parameters.source("INPUT"), "INPUT", **options)
    return SimpleNamespace(found=found, crs=crs, ran=ran)


def truth_of(features):
    """True position of each feature's record."""
    return walk()[[feature["row"] - 100 for feature in features]]


# What it gives


def test_each_record_has_its_best_places_in_order(candidates):
    ran, rows = candidates(NUMBER=12, SEPARATION=25, OFFSET="none")
    assert (ran["INSTANT_COUNT"], ran["CANDIDATE_COUNT"], ran["WITHOUT_CANDIDATES"]) == (40, 480, 0)
    assert [row["rank"] for row in rows] == list(range(1, 13)) * 40
    assert [row["instant"] for row in rows] == np.repeat(np.arange(40), 12).tolist()
    error = np.array([row["error_db"] for row in rows]).reshape(40, 12)
    assert (np.diff(error, axis=1) >= 0).all()
    xy = xy_of(ran["CANDIDATES"]).reshape(40, 12, 2)
    apart = np.hypot(*(xy[:, :, None] - xy[:, None]).transpose(3, 0, 1, 2))
    assert apart[:, ~np.eye(12, dtype=bool)].min() >= 25
    away = np.hypot(*(xy.reshape(-1, 2) - truth_of(rows)).T)
    np.testing.assert_allclose([row["truth_error_m"] for row in rows], away, atol=0.02)
    assert ran["MEAN_BEST_ERROR"] == pytest.approx(away.reshape(40, 12)[:, 0].mean(), abs=0.01)
    assert ran["MEAN_NEAREST_ERROR"] == pytest.approx(away.reshape(40, 12).min(axis=1).mean(), abs=0.01)
    assert ran["MEAN_NEAREST_ERROR"] < 15 < ran["MEAN_BEST_ERROR"]
    assert {(row["device"], row["trajectory"], row["antennas"], row["offset_db"]) for row in rows} == {
        ("phone", "phone", 6, 0)
    }
    first = rows[12]
    assert first["time"].toMSecsSinceEpoch() == 1000 * first["time_s"] == 1.7e12 + 5000
    assert ran["CANDIDATES"].crs().authid() == UTM


def test_a_record_without_noise_finds_its_place_first(candidates):
    ran, rows = candidates(INPUT=measured(noise_db=0.0), NUMBER=1, OFFSET="none")
    here = grid().centres(grid().cells_of(walk()))
    np.testing.assert_allclose(xy_of(ran["CANDIDATES"]), here, atol=1e-6)
    assert max(row["error_db"] for row in rows) < 0.01


def test_path_loss_and_received_power_are_the_same_table(candidates, tmp_path):
    _, one = candidates()
    _, other = candidates(RADIO_MAPS=write_maps(tmp_path / "loss.tif", "path_loss_db"))
    assert [row.geometry().asWkt(3) for row in one] == [row.geometry().asWkt(3) for row in other]


def test_an_offset_is_estimated_and_said(candidates):
    plain, _ = candidates(OFFSET="none", NUMBER=5)
    worse, _ = candidates(INPUT=measured(offset_db=9.0), OFFSET="none", NUMBER=5)
    better, rows = candidates(INPUT=measured(offset_db=9.0), NUMBER=5)
    assert better["MEAN_NEAREST_ERROR"] < 1.4 * plain["MEAN_NEAREST_ERROR"] < worse["MEAN_NEAREST_ERROR"]
    (offset,) = {row["offset_db"] for row in rows}
    assert offset == pytest.approx(9, abs=2)
    assert "Offsets of devices: phone +" in better.text


def test_quick_records_are_averaged_unless_said_otherwise(candidates):
    xy = np.repeat(walk(8), 10, axis=0)
    quick = measured(xy, noise_db=6.0, step_s=0.5)
    single, _ = candidates(INPUT=quick, AVERAGE=0, NUMBER=1)
    mean, _ = candidates(INPUT=quick, NUMBER=1)
    assert "Records follow each other within 0.5 s, so RSS is averaged over 5 s." in mean.text
    assert "averaged" not in single.text
    assert mean["MEAN_BEST_ERROR"] < 0.8 * single["MEAN_BEST_ERROR"]


def test_streets_hold_the_candidates(candidates):
    ran, _ = candidates(STREETS=streets(), STREETS_WITHIN=12)
    away = np.abs(xy_of(ran["CANDIDATES"]) - [X + 105, Y + 105]).min(axis=1)
    assert away.max() <= 12
    assert "places are within 12 m of a street" in ran.text


def test_sensibility_drives_the_number(candidates, tmp_path):
    half = np.zeros(grid().shape, np.float32)
    half[:, 25:] = 1.0
    rasters.write_bands(tmp_path / "s.tif", grid(), [half], ["Sensibility"], {}, -9999.0)
    ran, rows = candidates(
        SENSIBILITY=str(tmp_path / "s.tif"), NUMBER=4, MAX_NUMBER=14, INPUT=measured(noise_db=0.5), OFFSET="none"
    )
    count = np.bincount([row["instant"] for row in rows])
    best = {}
    for row in rows:
        best.setdefault(row["instant"], []).append(row.geometry().asPoint().x() > X + 250)
    assert count.tolist() == [round(4 + 10 * np.mean(best[instant][:4])) for instant in range(40)]
    assert set(count) > {4, 14}
    assert ran["CANDIDATE_COUNT"] == count.sum()


def test_fingerprints_are_learned_written_and_used_again(candidates, tmp_path):
    training = measured(np.concatenate([walk(200, seed) for seed in (2, 3)]), seed=7)
    path = str(tmp_path / "f.safetensors")
    ran, learned = candidates(TRAINING=training, CELL_SIZE=15, FINGERPRINTS_OUT=path, NUMBER=10)
    assert "learned from 400 records of 'reports'" in ran.text
    assert ran["MEAN_NEAREST_ERROR"] < 20
    _, again = candidates(FINGERPRINTS=path, NUMBER=10)
    assert [row.geometry().asWkt(3) for row in learned] == [row.geometry().asWkt(3) for row in again]


def test_a_record_without_a_known_cell_is_a_row_without_a_point(candidates):
    layer = with_rows(
        measured(),
        (None, {"device": "phone", "time_s": 1.7e9 + 2.5, "cell_1": "alien", "rss_dbm_1": -70.0, "source_row": 7}),
    )
    ran, rows = candidates(INPUT=layer, NUMBER=3)
    (empty,) = (row for row in rows if row.geometry().isNull())
    assert (empty["row"], empty["instant"], empty["antennas"]) == (7, 1, 0)
    assert (ran["WITHOUT_CANDIDATES"], ran["UNKNOWN_REPORTS"]) == (1, 1)
    assert (
        "1 of 41 records have no candidate (none of its cells is in the look-up table): source_row 7 of phone."
        in ran.text
    )
    assert "1 of 241 reports are of cells that the look-up table does not have, and are left out: alien." in ran.text
    back = read(ran["CANDIDATES"]).found
    assert len(back) == 41
    assert np.diff(back.first)[:3].tolist() == [3, 0, 3]


def test_the_style_plays_and_lies_beside_the_file(run, maps, tmp_path):
    run("signalcandidates", INPUT=measured(), RADIO_MAPS=maps, CANDIDATES=str(tmp_path / "c.gpkg"))
    layer = QgsVectorLayer(str(tmp_path / "c.gpkg"), "c", "ogr")
    assert layer.renderer().type() == "graduatedSymbol"
    assert 'startField="time"' in (tmp_path / "c.qml").read_text()


# Reading them back


@pytest.mark.parametrize("target", ["memory:", "c.gpkg", "c.geojson"])
def test_what_was_written_is_read_back(run, maps, tmp_path, target):
    target = target if target == "memory:" else str(tmp_path / target)
    ran = run("signalcandidates", INPUT=measured(), RADIO_MAPS=maps, NUMBER=7, CANDIDATES=target)
    layer = ran["CANDIDATES"] if target == "memory:" else QgsVectorLayer(target, "c", "ogr")
    back = read(layer, crs=QgsCoordinateReferenceSystem(UTM))
    found = back.found
    assert (found.devices, found.trajectories) == (("phone",), ("phone",))
    np.testing.assert_allclose(found.time_s, 1.7e9 + 5 * np.arange(40))
    assert (np.diff(found.first) == 7).all()
    assert found.row.tolist() == list(range(100, 140))
    assert (np.diff(found.error_db.reshape(40, 7), axis=1) >= 0).all()
    assert back.crs.authid() == UTM
    away = np.hypot(*(found.xy_m.reshape(40, 7, 2) - walk()[:, None]).transpose(2, 0, 1))
    assert away[:, 0].mean() == pytest.approx(ran["MEAN_BEST_ERROR"], abs=0.05)


def test_candidates_of_any_program_are_read(qgis_app):
    rows = [
        (f"Point ({15 + 0.001 * k} {50 + 0.001 * i})", "car", f"2024-05-01T08:00:0{i}Z", 5.0 - k)
        for i in range(3)
        for k in range(2)
    ]
    rows += [("Point (15 50)", "car", None, 1.0)]
    back = read(layer_of(rows, "EPSG:4326", "user:string,timestamp:string,error_db:double", "Point", "theirs"))
    assert back.found.time_s.tolist() == [1714550400.0, 1714550401.0, 1714550402.0]
    assert np.diff(back.found.first).tolist() == [2, 2, 2]
    assert back.found.error_db.tolist() == [4.0, 5.0] * 3
    assert back.crs.mapUnits().name == "Meters"
    gap = np.hypot(*(back.found.xy_m[0] - back.found.xy_m[1]))
    assert gap == pytest.approx(71.7, abs=0.5)  # 0.001° of longitude at 50° N
    assert "rows without a time that can be read, which are left out: 1 of 7." in back.ran.text


def nowhere(layer):
    layer.setCrs(QgsCoordinateReferenceSystem())
    return layer


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (lambda: streets(), r"layer 'streets' holds LineString, not points; give a layer of candidates\."),
        (lambda: layer_of([("Point (1 1)", "x")], UTM), r"no field of times \(such as time\)"),
        (
            lambda: layer_of([("Point (1 1)", "x")], UTM, "time:string"),
            r"none of the 1 rows of layer 'stations' has a time",
        ),
        (
            lambda: layer_of([(None, 5.0)], UTM, "time_s:double"),
            r"none of the 1 rows of layer 'stations' has a point\.",
        ),
        (lambda: layer_of([], UTM, "time_s:double"), "has no features"),
        (lambda: nowhere(layer_of([("Point (1 1)", 5.0)], UTM, "time_s:double")), "has no known CRS"),
    ],
)
def test_layers_that_hold_no_candidates_are_refused(qgis_app, layer, sentence):
    with pytest.raises(InputError, match=sentence):
        read(layer())


# What cannot be used


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (
            {"RADIO_MAPS": None},
            r"The look-up table comes from one of RADIO_MAPS, FINGERPRINTS and TRAINING, but none is given\.",
        ),
        (
            {"TRAINING": "reports"},
            r"The look-up table comes from one of RADIO_MAPS, FINGERPRINTS and TRAINING, but RADIO_MAPS and TRAINING are given\.",
        ),
        (
            {"FINGERPRINTS_OUT": "x.safetensors"},
            r"FINGERPRINTS_OUT needs TRAINING: .*",
        ),
        (
            {"INPUT": "other network"},
            r"None of the 9 cells that the measurements name with an RSS is among the 9 of the look-up table: theirs are such as "
            r"'460-0', '460-1', '460-2', the table's such as '262-0', '262-1', '262-2'\. .*",
        ),
        (
            {"STREETS": "far"},
            r"STREETS: .* is near the points\. Its coordinates, .* look like degrees, but its CRS is EPSG:32633 .*",
        ),
        (
            {"SENSIBILITY": "decibels"},
            r"SENSIBILITY: raster 'wrong' holds -?\d.* to .*, but a sensibility is from 0 to 1; make it with .*",
        ),
        (
            {"SENSIBILITY": "far"},
            r"SENSIBILITY: raster 'far' has no value where the look-up table has places\. Check its CRS and extent\.",
        ),
        (
            {"SENSIBILITY": "fine", "NUMBER": 70},
            r"The most candidates \(60\) must not be fewer than the least \(70\)\.",
        ),
    ],
)
def test_input_that_cannot_be_used_is_refused_with_a_sentence(refused, maps, tmp_path, parameters, sentence):
    folder = tmp_path / "outputs"
    values = {"INPUT": measured(), "RADIO_MAPS": maps, "CANDIDATES": str(folder / "c.gpkg"), **parameters}
    if values["INPUT"] == "other network":
        values["INPUT"] = measured(cells=tuple(f"460-{index}" for index in range(9)))
    if "TRAINING" in values:
        values["TRAINING"] = measured()
    if "FINGERPRINTS_OUT" in values:
        values["FINGERPRINTS_OUT"] = str(folder / values["FINGERPRINTS_OUT"])
    if "STREETS" in values:
        values["STREETS"] = layer_of([("LineString (1 1, 2 2)", "a")], UTM, "name:string", "LineString")
    if "SENSIBILITY" in values:
        kind = values["SENSIBILITY"]
        place = grid()
        where = type(place)(4, 4, 0.0, 100.0, 10.0, place.crs_wkt) if kind == "far" else place
        level = rss_dbm()[0] if kind == "decibels" else np.zeros(where.shape)
        path = tmp_path / {"decibels": "wrong.tif"}.get(kind, f"{kind}.tif")
        rasters.write_bands(path, where, [level], ["s"], {}, -9999.0)
        values["SENSIBILITY"] = str(path)
    refused("signalcandidates", sentence, **{name: value for name, value in values.items() if value is not None})
    assert not folder.exists() or list(folder.iterdir()) == []


def test_training_without_truth_is_refused(refused, tmp_path):
    refused(
        "signalcandidates",
        r"TRAINING: none of the 40 records of 'reports' has a true position to learn from\.",
        INPUT=measured(),
        TRAINING=measured(truth=False),
        CANDIDATES=str(tmp_path / "c.gpkg"),
    )


@pytest.mark.parametrize("percent", [1, 36, 60, 85])
def test_cancelled_soon_and_without_a_trace(qgis_app, maps, tmp_path, percent):
    values = {
        "INPUT": measured(walk(6000), step_s=0.5),
        "RADIO_MAPS": maps,
        "NUMBER": 40,
        "CANDIDATES": str(tmp_path / "c.gpkg"),
    }
    assert cancelled("signalcandidates", values, percent) < 1.5
    assert list(tmp_path.iterdir()) == []
