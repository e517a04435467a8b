"""The methods of geolocatebasestations: what each makes of the sample city, how β is chosen, and which weights are used."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from processing_helpers import SAMPLE, bands_of, layer_of, needs_weights
from qgis.core import NULL, QgsVectorLayer
from telcoloc.models.geolocation.engine import METHODS
from telcoloc.models.weights_file import Weights, shipped, write_weights

STATIONS = f"{SAMPLE}|layername=base_stations"
BOUNDARY = f"{SAMPLE}|layername=boundary"
LEARNED = ("voronoiboost", "direct", "deepmend", "deepmend_beta")
FOUR = [("Point (0 0)", "a"), ("Point (1000 0)", "b"), ("Point (0 1000)", "c"), ("Point (1000 1000)", "d")]


@pytest.fixture
def geolocate(run, tmp_path):
    def call(**parameters):
        given = {"INPUT": STATIONS, "ID_FIELD": "bs_id", "CELL_SIZE": 200, "OUTPUT": str(tmp_path / "stack.tif")}
        ran = run("geolocatebasestations", **{**given, **parameters})
        return ran, *bands_of(ran["OUTPUT"])

    return call


@pytest.fixture
def no_geolocation(refused, tmp_path):
    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        defaults = {"INPUT": layer_of(FOUR), "ID_FIELD": "id", "CELL_SIZE": 100, "OUTPUT": str(folder / "stack.tif")}
        refused("geolocatebasestations", sentence, **{**defaults, **parameters})
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


# All methods


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_valid_stack(geolocate, method):
    needs_weights(method)
    ran, bands, dataset = geolocate(METHOD=method, BOUNDARY=BOUNDARY)
    assert list(bands) == [feature["bs_id"] for feature in QgsVectorLayer(STATIONS, "s", "ogr").getFeatures()]
    sums = np.array([band.sum(dtype=float) for band in bands.values()])
    assert (sums > 0).sum() == 105 - ran["SKIPPED"]
    assert abs(sums[sums > 0] - 1).max() < 1e-4
    assert min(band.min() for band in bands.values()) >= 0
    assert dataset.GetMetadataItem("TELCOLOC_METHOD") == method
    assert ran["DEVICE_USED"] in ("cpu", "cuda")
    if method in LEARNED:
        content = shipped(method).read_bytes()
        said = f"{method}.safetensors sha256:{hashlib.sha256(content).hexdigest()[:12]}"
        assert dataset.GetMetadataItem("TELCOLOC_WEIGHTS") == said
        assert f"Weights: {said}." in ran.infos
    else:
        assert dataset.GetMetadataItem("TELCOLOC_WEIGHTS") is None
    window = "adaptive" if method in ("direct", "deepmend") else None
    assert dataset.GetMetadataItem("TELCOLOC_WINDOW") == window


@pytest.mark.parametrize("method", METHODS)
def test_one_base_station_alone_serves_all_cells_alike(geolocate, method):
    needs_weights(method)
    ran, bands, _ = geolocate(
        INPUT=layer_of(FOUR[:1]), ID_FIELD="id", METHOD=method, CELL_SIZE=100, EXTENT="-500,500,-500,500"
    )
    np.testing.assert_allclose(bands["a"], 0.01, rtol=1e-6)
    assert ran["MASS_CUT_MAX"] is None


def test_the_default_method_needs_no_torch(provider):
    assert provider.algorithm("geolocatebasestations").parameterDefinition("METHOD").defaultValue() == "deepmend_beta"


@pytest.mark.qgis_process
def test_without_torch_the_students_say_so_before_any_work(qgis_process, tmp_path):
    """The Python of qgis_process has none here; the layer does not even have points."""
    if "torch is not installed" not in qgis_process("run", "telcoloc:checkenvironment").stdout:
        pytest.skip("this QGIS has torch")
    zones = f"{SAMPLE}|layername=zones"
    done, _ = qgis_process.run(
        "geolocatebasestations", {"INPUT": zones, "METHOD": "deepmend", "OUTPUT": str(tmp_path / "s.tif")}
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "DeepMEND's student needs torch, which is not installed in this Python. Install torch into" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


# β of spdi


def with_beta(values, kind="double"):
    return layer_of([(*row, value) for row, value in zip(FOUR, values)], fields=f"id:string,beta:{kind}")


def test_the_same_beta_for_all_is_a_fixed_beta(geolocate, tmp_path):
    given = {"INPUT": with_beta([3.0] * 4), "ID_FIELD": "id", "CELL_SIZE": 50, "METHOD": "spdi"}
    _, fixed, tags = geolocate(**given, BETA=3)
    _, by_field, of_field = geolocate(**given, BETA_BY="field", BETA_FIELD="beta", OUTPUT=str(tmp_path / "field.tif"))
    for name, band in fixed.items():
        np.testing.assert_allclose(by_field[name], band, atol=2e-6)
    assert (tags.GetMetadataItem("TELCOLOC_BETA_BY"), tags.GetMetadataItem("TELCOLOC_BETA")) == ("fixed", "3")
    assert of_field.GetMetadataItem("TELCOLOC_BETA") == "field 'beta'"


def test_each_base_stations_own_beta(geolocate, tmp_path):
    """The paper's soft label: the map of a BS is that of a world in which all have its β."""
    given = {"INPUT": with_beta([2.0, 5.0, 2.0, 5.0]), "ID_FIELD": "id", "CELL_SIZE": 50, "METHOD": "spdi"}
    _, own, _ = geolocate(**given, BETA_BY="field", BETA_FIELD="beta")
    for beta, names in ((2, "ac"), (5, "bd")):
        _, world, _ = geolocate(**given, BETA=beta, OUTPUT=str(tmp_path / f"{beta}.tif"))
        for name in names:
            np.testing.assert_allclose(own[name], world[name], atol=2e-6)


def test_beta_by_urbanisation(geolocate):
    """Two lattices far apart, of 500 m and of 4 km."""
    rows = [(f"Point ({x * 500} {y * 500})", f"u{x}{y}") for x in range(3) for y in range(3)]
    rows += [(f"Point ({100_000 + x * 4000} {y * 4000})", f"r{x}{y}") for x in range(3) for y in range(3)]
    ran, _, dataset = geolocate(
        INPUT=layer_of(rows), ID_FIELD="id", CELL_SIZE=500, METHOD="spdi", BETA_BY="urbanisation"
    )
    assert "β by urbanisation (urban 5, suburban 4, rural 3): 9 urban, 0 suburban, 9 rural base stations." in ran.infos
    assert dataset.GetMetadataItem("TELCOLOC_BETA") == "urban 5, suburban 4, rural 3"


def test_sectors_that_differ_in_beta(geolocate):
    layer = layer_of([*((*row, 3.0) for row in FOUR), ("Point (0 0)", "a2", 4.0)], fields="id:string,beta:double")
    ran, _, _ = geolocate(INPUT=layer, ID_FIELD="id", CELL_SIZE=100, METHOD="spdi", BETA_BY="field", BETA_FIELD="beta")
    assert "BETA_FIELD: the sectors of 1 sites differ in 'beta'; the first one's counts: a." in ran.warnings
    assert any("3 to 3, median 3" in text for text in ran.infos)


@pytest.mark.parametrize(
    ("value", "found"),
    [(None, "is empty"), (0.0, "is '0'"), (-1.0, "is '-1'"), (20.5, "is '20.5'"), (float("nan"), "is 'nan'")],
)
def test_a_beta_that_is_none(no_geolocation, value, found):
    sentence = (
        f"BETA_FIELD: 'beta' of feature 2 ('b') {found}; every base station needs a number above 0 and at most 20. Correct it, or choose "
        "another field."
    )
    layer = with_beta([3.0, value, 3.0, 3.0])
    no_geolocation(re.escape(sentence), INPUT=layer, METHOD="spdi", BETA_BY="field", BETA_FIELD="beta")


def test_beta_fields_and_how_beta_is_chosen_must_agree(no_geolocation):
    layer = with_beta([3.0] * 4)
    no_geolocation(
        "BETA_FIELD is given, but BETA_BY is 'fixed'. Choose BETA_BY 'field', or leave BETA_FIELD empty.",
        INPUT=layer,
        BETA_FIELD="beta",
    )
    no_geolocation(
        "BETA_BY is 'field', but BETA_FIELD is empty. Choose the field that holds each base station's β.",
        INPUT=layer,
        BETA_BY="field",
    )
    no_geolocation(
        "BETA_FIELD: layer 'stations' has no field 'betas'. Did you mean 'beta'\\?",
        INPUT=layer,
        BETA_BY="field",
        BETA_FIELD="betas",
    )


# Weights


@pytest.fixture
def foreign(tmp_path):
    """A safetensors file of another program."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return path


@pytest.fixture
def of_spdi(tmp_path):
    path = tmp_path / "mine.safetensors"
    write_weights(path, Weights("voronoiboost", {"x": np.zeros(1000, np.float32)}))
    return path


def test_weights_that_cannot_be_used(no_geolocation, tmp_path, foreign, of_spdi):
    def no(sentence, path):
        no_geolocation(sentence, METHOD="deepmend_beta", WEIGHTS=str(path))

    no(
        r"The weights file .*nothing\.safetensors cannot be read: No such file or directory\.",
        tmp_path / "nothing.safetensors",
    )
    no(
        r".*foreign\.safetensors is a \.safetensors file of another program\. Use weights that 'Train DeepMEND' wrote, .*",
        foreign,
    )
    no(
        r".*mine\.safetensors holds weights for 'voronoiboost', but 'deepmend_beta' is asked for\. Choose that .*",
        of_spdi,
    )
    whole = of_spdi.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[:-100])
    no_geolocation(r"The weights file .*cut\.safetensors is truncated: .*", METHOD="voronoiboost", WEIGHTS=str(cut))
    text = tmp_path / "text.safetensors"
    text.write_text("these are no weights", encoding="utf-8")
    no(r".*text\.safetensors is no weights file: it does not begin as a \.safetensors file does\.", text)
    no("WEIGHTS is '.*w.bin', which does not exist or is of the wrong kind.", tmp_path / "w.bin")


def test_weights_of_the_right_kind_with_other_arrays(no_geolocation, tmp_path):
    path = tmp_path / "odd.safetensors"
    write_weights(path, Weights("deepmend_beta", {"x": np.zeros(3, np.float32)}))
    sentence = (
        r"The weights file .*odd\.safetensors does not fit this version of 'deepmend_beta': array .* expected .*\."
    )
    no_geolocation(sentence, METHOD="deepmend_beta", WEIGHTS=str(path))


@pytest.mark.parametrize("method", ["voronoi", "spdi"])
def test_weights_for_a_method_without_any(no_geolocation, of_spdi, method):
    sentence = f"WEIGHTS is given, but {method} has learned nothing. Leave it empty, or choose another METHOD."
    no_geolocation(sentence, METHOD=method, WEIGHTS=str(of_spdi))


@pytest.mark.parametrize("nothing", [None, "", NULL])
def test_an_empty_file_widget_is_nothing(geolocate, nothing):
    """The dialog of QGIS gives a null that is not None."""
    ran, _, _ = geolocate(METHOD="spdi", CELL_SIZE=1000, WEIGHTS=nothing)
    assert ran["BS_COUNT"] == 105


def test_weights_for_another_window(no_geolocation, tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "mine.safetensors"
    write_weights(path, Weights("deepmend", {"x": np.zeros(3, np.float32)}))
    sentence = "WEIGHTS 'mine.safetensors' is for the window 'adaptive', but WINDOW is 'fixed'. Choose the other window, or another file."
    no_geolocation(sentence, METHOD="deepmend", WINDOW="fixed", WEIGHTS=str(path))


def test_weights_that_do_not_ship(no_geolocation, monkeypatch, tmp_path):
    from telcoloc.models import weights_file

    monkeypatch.setattr(weights_file, "SHIPPED", tmp_path / "none")
    sentence = (
        "No weights for 'deepmend_beta' ship with this version. Give WEIGHTS that 'Train DeepMEND' made, or choose another "
        "method or window."
    )
    no_geolocation(re.escape(sentence), METHOD="deepmend_beta")


def test_weights_given_are_used(geolocate, tmp_path):
    needs_weights("deepmend_beta")
    path = shutil.copy(shipped("deepmend_beta"), tmp_path / "copy.safetensors")
    _, own, dataset = geolocate(METHOD="deepmend_beta", WEIGHTS=str(path))
    _, of_plugin, _ = geolocate(METHOD="deepmend_beta", OUTPUT=str(tmp_path / "other.tif"))
    assert dataset.GetMetadataItem("TELCOLOC_WEIGHTS").startswith("copy.safetensors sha256:")
    for name, band in own.items():
        np.testing.assert_array_equal(band, of_plugin[name])
