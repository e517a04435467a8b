"""simulatenetwork, deepmendteacher and traindeepmend, each by itself and one after the other."""

import json
import re
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal
from processing_helpers import SAMPLE, bands_of, layer_of, leftovers
from qgis.core import QgsVectorLayer
from telcoloc.models.weights_file import Weights, read_weights, write_weights

STATIONS = f"{SAMPLE}|layername=base_stations"
BOUNDARY = f"{SAMPLE}|layername=boundary"
#: Wide enough around the lattice that no BS is near the edge.
AREA = "-5000,10000,-5000,10000 [EPSG:32628]"


def lattice(name="stations"):
    """36 BSs about a kilometre apart."""
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), -1).reshape(-1, 2) * 1000
    places += rng.uniform(-300, 300, places.shape)
    return layer_of([(f"Point ({x} {y})", f"L{row:02d}") for row, (x, y) in enumerate(places)], name=name)


def rows_of(path):
    layer = QgsVectorLayer(path, "x", "ogr")
    return [dict(zip(layer.fields().names(), feature.attributes())) for feature in layer.getFeatures()]


@pytest.fixture(scope="module")
def simulated(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "new"
    return run(
        "simulatenetwork",
        INPUT=lattice(),
        ID_FIELD="id",
        EXTENT=AREA,
        OUTPUT=str(folder / "truth.tif"),
        STATIONS=str(folder / "stations.gpkg"),
    )


@pytest.fixture(scope="module")
def taught(run, simulated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught") / "new"
    return run(
        "deepmendteacher",
        INPUT=simulated["STATIONS"],
        ID_FIELD="bs_id",
        TRUTH=simulated["OUTPUT"],
        BETA_STEP=0.5,
        OUTPUT=str(folder / "beta.gpkg"),
        SOFT_LABELS=str(folder / "soft.tif"),
    )


@pytest.fixture(scope="module")
def trained(run, simulated, tmp_path_factory):
    pytest.importorskip("torch", reason="torch is not installed; nothing can be trained")
    folder = tmp_path_factory.mktemp("trained") / "new"
    return run(
        "traindeepmend",
        INPUT=simulated["STATIONS"],
        ID_FIELD="bs_id",
        TRUTH=[simulated["OUTPUT"]],
        EPOCHS=2,
        OUTPUT=str(folder / "mine.safetensors"),
        LOSS_CURVE=str(folder / "training.html"),
    )


@pytest.mark.parametrize(
    ("name", "fixture"), [("simulatenetwork", "simulated"), ("deepmendteacher", "taught"), ("traindeepmend", "trained")]
)
def test_all_declared_outputs_are_there_as_plain_python(provider, request, name, fixture):
    ran = request.getfixturevalue(fixture)
    assert set(ran.results) == {each.name() for each in provider.algorithm(name).outputDefinitions()}
    assert all(type(value) in (int, float, str, bool) for value in ran.results.values()), ran.results
    json.dumps(ran.results)
    for path in (Path(value) for value in ran.results.values() if isinstance(value, str) and Path(value).is_file()):
        assert leftovers(path.parent) == []
        assert path.stat().st_size
        if path.suffix in (".tif", ".gpkg"):
            assert path.with_suffix(".qml").stat().st_size
    assert ran.warnings == []


# Simulated networks


def test_a_simulated_truth_is_a_geolocation_stack(simulated):
    bands, dataset = bands_of(simulated["OUTPUT"])
    assert list(bands) == [f"L{row:02d}" for row in range(36)]
    np.testing.assert_allclose([band.sum(dtype=float) for band in bands.values()], 1, atol=1e-5)
    assert dataset.GetMetadataItem("TELCOLOC_FORM") == "location_given_bs"
    assert dataset.GetMetadataItem("TELCOLOC_METHOD") == "simulated"
    assert dataset.GetGeoTransform()[:2] == (-5000.0, 100.0)
    assert simulated["BS_COUNT"] == 36


def test_stations_say_what_stands_there(simulated):
    rows = rows_of(simulated["STATIONS"])
    assert [row["bs_id"] for row in rows] == [f"L{row:02d}" for row in range(36)]
    for row in rows:
        assert row["urbanisation"] in ("urban", "suburban", "rural")
        assert 500 < row["spacing_m"] < 2500
        assert 10 <= row["height_m"] <= 90
        azimuths = [float(text) for text in row["azimuths_deg"].split(",")] if row["azimuths_deg"] else []
        assert row["sectors"] == max(len(azimuths), 1)
        assert all(0 <= azimuth <= 360 for azimuth in azimuths)
        assert set(row["carriers"].split(", ")) <= {"2600", "1800", "800"}
    assert len({row["height_m"] for row in rows}) > 20


def test_equal_seeds_make_equal_networks(run, tmp_path):
    stacks = []
    for number, seed in enumerate((1, 1, 2)):
        ran = run(
            "simulatenetwork",
            SIDE=3000,
            SEED=seed,
            OUTPUT=str(tmp_path / f"{number}.tif"),
            STATIONS=str(tmp_path / f"{number}.gpkg"),
        )
        stacks.append(bands_of(ran["OUTPUT"])[0])
        assert ran["CRS_USED"].startswith("EPSG:3035")
    assert list(stacks[0]) == list(stacks[1])
    for name, band in stacks[0].items():
        np.testing.assert_array_equal(band, stacks[1][name])
    assert len(stacks[0]) != len(stacks[2]) or any((stacks[0][name] != stacks[2][name]).any() for name in stacks[0])


@pytest.mark.parametrize(
    ("crs", "used"), [("EPSG:4326", "EPSG:32631"), ("EPSG:3857", "EPSG:3857"), ("EPSG:32628", "EPSG:32628")]
)
def test_a_random_layout_stands_in_true_metres(run, tmp_path, crs, used):
    ran = run("simulatenetwork", SIDE=3000, CRS=crs, OUTPUT=str(tmp_path / "t.tif"), STATIONS=str(tmp_path / "s.gpkg"))
    assert ran["CRS_USED"].startswith(used)
    _, dataset = bands_of(ran["OUTPUT"])
    assert (dataset.RasterXSize, dataset.RasterYSize) == (30, 30)


def test_a_random_layout_in_an_extent_on_land(run, tmp_path):
    """No BS and no mass at sea."""
    ran = run(
        "simulatenetwork",
        CRS="EPSG:32628",
        EXTENT=layer_extent(STATIONS),
        LAND=BOUNDARY,
        CELL_SIZE=250,
        OUTPUT=str(tmp_path / "t.tif"),
        STATIONS=str(tmp_path / "s.gpkg"),
    )
    land = next(QgsVectorLayer(BOUNDARY, "b", "ogr").getFeatures()).geometry().buffer(250, 8)
    points = list(QgsVectorLayer(ran["STATIONS"], "s", "ogr").getFeatures())
    assert len(points) == ran["BS_COUNT"] > 10
    assert all(land.contains(point.geometry()) for point in points)


def layer_extent(source):
    box = QgsVectorLayer(source, "x", "ogr").extent()
    return f"{box.xMinimum()},{box.xMaximum()},{box.yMinimum()},{box.yMaximum()} [EPSG:32628]"


@pytest.fixture
def no_simulation(refused, tmp_path):
    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        given = {"OUTPUT": str(folder / "t.tif"), "STATIONS": str(folder / "s.gpkg"), "SIDE": 3000}
        refused("simulatenetwork", sentence, **{**given, **parameters})
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


def test_networks_that_cannot_be_simulated(no_simulation, tmp_path):
    no_simulation(
        "A network needs at least two base stations, not 1.", INPUT=layer_of([("Point (0 0)", "a")]), EXTENT=AREA
    )
    no_simulation("SIDE is '10'; it must be a number from 2000 to 300000.", SIDE=10)
    no_simulation("SEED is '-1'; it must be a finite number, 0 or more.", SEED=-1)
    no_simulation("SEED is '3000000000'; it must be a number from 0 to 2147483647.", SEED=3_000_000_000)
    no_simulation("CALIBRATION is 'mine'; choose one of: default, paper_errors.", CALIBRATION="mine")
    no_simulation(
        r"CELL_SIZE 1 m makes [\d,]+ cells; at most 100,000,000 can be simulated\. Use a larger CELL_SIZE or a smaller area\.",
        CELL_SIZE=1,
        SIDE=20_000,
    )
    no_simulation(
        r"Simulating [\d,]+ base stations on .* needs about [\d,]+ MB; 64 MB are allowed\. Use CELL_SIZE [\d.]+ or more, .*",
        SIDE=20_000,
        MAX_MEMORY_MB=64,
    )
    elsewhere = layer_of([("Polygon ((0 0, 9 0, 9 9, 0 0))", 1)], fields="n:int", geometry="Polygon")
    no_simulation(
        "LAND holds the centre of no cell of the grid. Check its CRS and place, or give EXTENT.", LAND=elsewhere
    )
    no_simulation(
        "CRS is 'EPSG:0', which does not exist or is of the wrong kind.|CRS 'EPSG:0' is not known. .*", CRS="EPSG:0"
    )


# The teacher


def test_the_teachers_beta_is_the_best_of_those_it_may_choose(run, simulated, taught, tmp_path):
    """Oracle: spdi of every β on its own, compared with the truth."""
    rows = {row["bs_id"]: row for row in rows_of(taught["OUTPUT"])}
    assert list(rows) == [f"L{row:02d}" for row in range(36)]
    given = {"INPUT": simulated["STATIONS"], "ID_FIELD": "bs_id", "EXTENT": AREA, "CELL_SIZE": 100}
    stacks = []
    for beta in (1.1, 2.1, 4.1):
        stacks.append(str(tmp_path / f"{beta}.tif"))
        run("geolocatebasestations", **given, BETA=beta, OUTPUT=stacks[-1])
    table = str(tmp_path / "c.csv")
    run("comparegeolocations", REFERENCE=simulated["OUTPUT"], COMPARED=stacks, OUTPUT=table)
    others = {}
    for row in rows_of(table):
        others.setdefault(row["bs_id"], []).append(float(row["ks2"]))
    excess = np.array([rows[name]["ks2"] - min(ks2) for name, ks2 in others.items()])
    assert np.median(excess) < 0.01
    assert excess.max() < 0.08  # the teacher looks at blocks of cells in a window
    assert taught["KS2_MEDIAN"] == pytest.approx(np.median([row["ks2"] for row in rows.values()]))
    assert all(
        abs((row["beta"] - 0.1) % 0.5) < 1e-6 or abs((row["beta"] - 0.1) % 0.5 - 0.5) < 1e-6 for row in rows.values()
    )


def test_soft_labels_are_the_maps_of_the_teachers_beta(run, simulated, taught, tmp_path):
    """The points of the teacher go straight into geolocatebasestations."""
    ran = run(
        "geolocatebasestations",
        INPUT=taught["OUTPUT"],
        ID_FIELD="bs_id",
        BETA_BY="field",
        BETA_FIELD="beta",
        EXTENT=AREA,
        CELL_SIZE=100,
        OUTPUT=str(tmp_path / "own.tif"),
    )
    own, soft = bands_of(ran["OUTPUT"])[0], bands_of(taught["SOFT_LABELS"])[0]
    assert list(own) == list(soft)
    for name, band in own.items():
        np.testing.assert_allclose(band, soft[name], atol=1e-5)
    ran = run("comparegeolocations", REFERENCE=simulated["OUTPUT"], COMPARED=[ran["OUTPUT"]], OUTPUT="memory:")
    assert ran["MEDIAN_KS2"] == pytest.approx(taught["KS2_MEDIAN"], abs=0.03)


def test_what_does_not_match_is_counted_listed_and_gets_the_median(run, simulated, tmp_path):
    rows = rows_of_lattice()
    rows[0] = (rows[0][0], "unknown")
    ran = run(
        "deepmendteacher",
        INPUT=layer_of(rows),
        ID_FIELD="id",
        TRUTH=simulated["OUTPUT"],
        BETA_STEP=2.0,
        OUTPUT=str(tmp_path / "b.gpkg"),
    )
    assert ran.warnings == [
        "1 base stations have no band in TRUTH: unknown.",
        "1 bands of 'truth' have no base station: L00.",
    ]
    assert (ran["BS_COUNT"], ran["SKIPPED"]) == (35, 2)
    first, *others = rows_of(ran["OUTPUT"])
    assert first["bs_id"] == "unknown"
    assert not isinstance(first["ks2"], float)
    same = [row["beta"] for row in others if row["urbanisation"] == first["urbanisation"]]
    assert first["beta"] == pytest.approx(np.median(same))


def rows_of_lattice():
    return [(feature.geometry().asWkt(), feature["id"]) for feature in lattice().getFeatures()]


def test_a_truth_in_the_other_form_teaches_the_same(run, simulated, taught, tmp_path):
    """P(BS | location): the truth times each BS's mass, scaled to one at each cell, is P(location | BS) again once scaled per band."""
    bands, dataset = bands_of(simulated["OUTPUT"])
    share = np.stack(list(bands.values())).astype(float)
    total = share.sum(axis=0)
    other = [band / np.where(total > 0, total, 1) for band in share]
    path = write_bands(tmp_path / "other.tif", dataset, dict(zip(bands, other)))
    same = [band / band.sum() for band in other]
    twin = write_bands(tmp_path / "same.tif", dataset, dict(zip(bands, same)))
    found = []
    for name in (path, twin):
        ran = run(
            "deepmendteacher",
            INPUT=simulated["STATIONS"],
            ID_FIELD="bs_id",
            TRUTH=name,
            BETA_STEP=2.0,
            OUTPUT=f"{name}.gpkg",
        )
        found.append([row["beta"] for row in rows_of(ran["OUTPUT"])])
    assert found[0] == found[1]


def write_bands(path, like, bands, crs=None):
    """Write a stack of plain bands, as another program might."""
    dataset = gdal.GetDriverByName("GTiff").Create(
        str(path), like.RasterXSize, like.RasterYSize, len(bands), gdal.GDT_Float32
    )
    dataset.SetGeoTransform(like.GetGeoTransform())
    dataset.SetProjection(like.GetProjection() if crs is None else crs)
    for index, (name, values) in enumerate(bands.items(), 1):
        dataset.GetRasterBand(index).SetDescription(name)
        dataset.GetRasterBand(index).WriteArray(np.asarray(values, np.float32))
    dataset.FlushCache()
    return str(path)


@pytest.fixture
def no_teaching(refused, simulated, tmp_path):
    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        given = {"INPUT": simulated["STATIONS"], "ID_FIELD": "bs_id", "TRUTH": simulated["OUTPUT"]}
        given.update(OUTPUT=str(folder / "b.gpkg"), SOFT_LABELS=str(folder / "soft.tif"))
        refused("deepmendteacher", sentence, **{**given, **parameters})
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


def test_beta_to_choose_from(no_teaching):
    no_teaching("BETA_MIN is 3, above BETA_MAX 2. Exchange them.", BETA_MIN=3, BETA_MAX=2)
    no_teaching(
        "BETA_STEP 0.01 makes 1,991 β to try; at most 1,000 make sense. Use a larger step.", BETA_STEP=0.01, BETA_MAX=20
    )
    no_teaching("BETA_MAX is '21'; it must be a number from 0.01 to 20.", BETA_MAX=21)


@pytest.fixture
def no_training(refused, simulated, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed; nothing can be trained")

    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        given = {"INPUT": simulated["STATIONS"], "ID_FIELD": "bs_id", "TRUTH": [simulated["OUTPUT"]], "EPOCHS": 1}
        given.update(OUTPUT=str(folder / "w.safetensors"), LOSS_CURVE=str(folder / "w.html"))
        refused("traindeepmend", sentence, **{**given, **parameters})
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


def test_truths_that_are_none(no_teaching, no_training, simulated, tmp_path):
    bands, dataset = bands_of(simulated["OUTPUT"])

    def no(sentence, path):
        no_teaching(sentence, TRUTH=path)
        no_training(sentence, TRUTH=[path])

    path = write_bands(tmp_path / "twice.tif", dataset, {name: 2 * band for name, band in bands.items()})
    sentence = (
        r"TRUTH 'twice' holds no probabilities: band 'L00' sums to 2\. Every band must sum to 1 over cells \(P\(location \| BS\)\), or all "
        r"bands to 1 at each cell \(P\(BS \| location\)\)\."
    )
    no(sentence, path)
    path = write_bands(tmp_path / "others.tif", dataset, {f"X{name}": band for name, band in bands.items()})
    sentence = (
        r"No band of TRUTH 'others' is named like a base station of INPUT \(bands such as 'XL00'; ids such as 'L00'\)\. Choose the "
        r"ID_FIELD it was made with\."
    )
    no(sentence, path)
    path = write_bands(tmp_path / "bare.tif", dataset, bands, crs="")
    no("TRUTH 'bare' has no known CRS. Set it with 'Assign projection'.", path)
    path = write_bands(tmp_path / "zero.tif", dataset, {name: 0 * band for name, band in bands.items()})
    no("TRUTH 'zero' holds no mass in any band.", path)
    whole = Path(simulated["OUTPUT"]).read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: int(len(whole) * 0.6)])
    no(r"Stack 'cut' (is damaged|cannot be read) \(.*\); make it again\.|TRUTH.*", str(cut))


# Training


def test_the_weights_have_a_card(trained, simulated):
    weights = read_weights(trained["OUTPUT"], "deepmend_beta")
    assert weights.card["epochs"] == trained["EPOCHS_DONE"] == 2
    assert weights.card["networks"] == ["truth"]
    assert sum(weights.card["base_stations"].values()) == trained["BS_COUNT"] == 29
    assert weights.card["validation_base_stations"] == trained["VALIDATION_COUNT"] == 7
    assert weights.card["validation_median_ks2"]["all"] == pytest.approx(trained["VALIDATION_KS2"])
    assert 0 < trained["VALIDATION_KS2"] < 1
    assert weights.card["seed"] == 0
    assert "one side" in weights.card["validation"] or "beyond a line" in weights.card["validation"]
    assert any("beyond a line through the network" in text for text in trained.infos)


def test_the_report_shows_the_curves(trained):
    page = Path(trained["LOSS_CURVE"]).read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "beyond a line through the network" in page


def test_fine_tuning_goes_on_from_a_file_and_equal_seeds_make_equal_files(run, trained, simulated, tmp_path):
    pytest.importorskip("torch")
    given = {
        "INPUT": simulated["STATIONS"],
        "ID_FIELD": "bs_id",
        "TRUTH": [simulated["OUTPUT"]],
        "EPOCHS": 1,
        "LEARNING_RATE": 1e-6,
        "DEVICE": "cpu",
    }
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for path in paths:
        run("traindeepmend", **given, START="file", WEIGHTS=trained["OUTPUT"], OUTPUT=str(path))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    before, after = read_weights(trained["OUTPUT"]).tensors, read_weights(paths[0]).tensors
    assert any((before[name] != after[name]).any() for name in before)
    assert all(np.abs(before[name] - after[name]).max() < 1e-3 for name in before)


@pytest.mark.parametrize("method", ["deepmend", "direct"])
def test_students_are_trained_and_used(run, simulated, tmp_path, method):
    pytest.importorskip("torch", reason="torch is not installed; nothing can be trained")
    path = str(tmp_path / "w.safetensors")
    ran = run(
        "traindeepmend",
        INPUT=simulated["STATIONS"],
        ID_FIELD="bs_id",
        TRUTH=[simulated["OUTPUT"]],
        METHOD=method,
        EPOCHS=1,
        OUTPUT=path,
    )
    assert read_weights(path).kind == method
    assert "LOSS_CURVE" not in ran.results
    ran = run(
        "geolocatebasestations",
        INPUT=simulated["STATIONS"],
        ID_FIELD="bs_id",
        METHOD=method,
        WEIGHTS=path,
        CELL_SIZE=200,
        OUTPUT=str(tmp_path / "s.tif"),
    )
    bands, dataset = bands_of(ran["OUTPUT"])
    np.testing.assert_allclose([band.sum(dtype=float) for band in bands.values()], 1, atol=1e-4)
    assert dataset.GetMetadataItem("TELCOLOC_WEIGHTS").startswith("w.safetensors sha256:")


def test_of_several_truths_whole_ones_are_held_out(run, simulated, tmp_path):
    """One layer with two cities, a stack for each."""
    pytest.importorskip("torch", reason="torch is not installed; nothing can be trained")
    second = run(
        "simulatenetwork",
        INPUT=moved(lattice(), 100_000),
        ID_FIELD="id",
        EXTENT="95000,110000,-5000,10000 [EPSG:32628]",
        SEED=1,
        OUTPUT=str(tmp_path / "second.tif"),
        STATIONS=str(tmp_path / "second.gpkg"),
    )
    rows = [
        (feature.geometry().asWkt(), feature["bs_id"])
        for path in (simulated["STATIONS"], second["STATIONS"])
        for feature in QgsVectorLayer(path, "x", "ogr").getFeatures()
    ]
    ran = run(
        "traindeepmend",
        INPUT=layer_of(rows),
        ID_FIELD="id",
        TRUTH=[simulated["OUTPUT"], second["OUTPUT"]],
        EPOCHS=1,
        OUTPUT=str(tmp_path / "w.safetensors"),
    )
    assert (ran["BS_COUNT"], ran["VALIDATION_COUNT"], ran["SKIPPED"]) == (36, 36, 0)
    assert ran.warnings == []
    card = read_weights(ran["OUTPUT"]).card
    assert re.fullmatch("held out as a whole: '(truth|second)'", card["validation"])
    assert card["networks"][0] not in card["validation"]


def moved(layer, east):
    rows = []
    for feature in layer.getFeatures():
        point = feature.geometry().asPoint()
        rows.append((f"Point ({point.x() + east} {point.y()})", f"M{feature['id']}"))
    return layer_of(rows)


def test_trainings_that_cannot_be(no_training, trained, tmp_path):
    no_training(
        r"Only \d base stations are left to learn from, after \d+ near the edge of their truth and \d to judge by were set aside; 10 are "
        r"needed\. Give a TRUTH of more base stations, or a smaller VALIDATION_SHARE\.",
        INPUT=layer_of(rows_of_lattice()[:8]),
        ID_FIELD="id",
    )
    no_training("VALIDATION_SHARE is '0.9'; it must be a number from 0 to 0.5.", VALIDATION_SHARE=0.9)
    no_training("EPOCHS is '0'; it must be a number from 1 to 10000.", EPOCHS=0)
    no_training("METHOD is 'spdi'; choose one of: deepmend_beta, deepmend, direct.", METHOD="spdi")
    no_training("START is 'file', but WEIGHTS is empty. Choose the weights file to start from.", START="file")
    no_training(
        "WEIGHTS is given, but START is 'scratch'. Choose START 'file', or leave WEIGHTS empty.",
        WEIGHTS=trained["OUTPUT"],
    )
    no_training(
        r"The weights file .*nothing\.safetensors cannot be read: No such file or directory\.",
        START="file",
        WEIGHTS=str(tmp_path / "nothing.safetensors"),
    )
    path = tmp_path / "other.safetensors"
    write_weights(path, Weights("voronoiboost", {"x": np.zeros(3, np.float32)}))
    no_training(
        r".* holds weights for 'voronoiboost', but 'deepmend_beta' is asked for\. .*", START="file", WEIGHTS=str(path)
    )
    no_training(r"OUTPUT 'w\.bin' must end in \.safetensors\.", OUTPUT=str(tmp_path / "outputs" / "w.bin"))


def test_the_weights_to_start_from_are_not_written_over(refused, trained, simulated):
    path = trained["OUTPUT"]
    before = Path(path).read_bytes()
    refused(
        "traindeepmend",
        f"OUTPUT and WEIGHTS are the same file, '{path}'; give OUTPUT another one.",
        INPUT=simulated["STATIONS"],
        ID_FIELD="bs_id",
        TRUTH=[simulated["OUTPUT"]],
        START="file",
        WEIGHTS=path,
        OUTPUT=path,
    )
    assert Path(path).read_bytes() == before


@pytest.mark.qgis_process
def test_without_torch_training_says_so(qgis_process, simulated, tmp_path):
    if "torch is not installed" not in qgis_process("run", "telcoloc:checkenvironment").stdout:
        pytest.skip("this QGIS has torch")
    parameters = {
        "INPUT": simulated["STATIONS"],
        "TRUTH": simulated["OUTPUT"],
        "OUTPUT": str(tmp_path / "w.safetensors"),
    }
    done, _ = qgis_process.run("traindeepmend", parameters)
    assert done.returncode == 1
    assert "Training needs torch, which is not installed in this Python." in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


# The whole chain


@pytest.mark.qgis_process
def test_from_a_simulated_truth_to_maps_of_ones_own_weights(qgis_process, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed; nothing can be trained")
    packages = sysconfig.get_path("purelib")

    def process(name, **parameters):
        done, answer = qgis_process.run(name, parameters, before=f"export PYTHONPATH={packages}")
        assert done.returncode == 0, done.stdout + done.stderr
        return answer["results"]

    truth, stations, beta = (str(tmp_path / name) for name in ("truth.tif", "stations.gpkg", "beta.gpkg"))
    bs = {"ID_FIELD": "bs_id"}
    process("simulatenetwork", SIDE=5000, SEED=3, OUTPUT=truth, STATIONS=stations)
    process("deepmendteacher", **bs, INPUT=stations, TRUTH=truth, BETA_STEP=1, OUTPUT=beta)
    weights = str(tmp_path / "mine.safetensors")
    process("traindeepmend", **bs, INPUT=stations, TRUTH=[truth], EPOCHS=2, OUTPUT=weights)
    maps = str(tmp_path / "maps.tif")
    process("geolocatebasestations", **bs, INPUT=beta, WEIGHTS=weights, CELL_SIZE=100, OUTPUT=maps)
    compared = process("comparegeolocations", REFERENCE=truth, COMPARED=[maps], OUTPUT=str(tmp_path / "c.csv"))
    assert compared["MEDIAN_KS2"] < 0.45
