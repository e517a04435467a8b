"""Path loss maps: the values are the engine's, files say what they hold and can be read back, and the map shows what is received."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from processing_helpers import SAMPLE, bands_of, collecting_feedback, layer_of, leftovers
from processing_helpers import Ran as Said
from qgis.core import QgsApplication, QgsProcessingContext, QgsRasterLayer
from qgis.PyQt.QtXml import QDomDocument
from telcoloc.models.errors import InputError
from telcoloc.models.grid import Grid
from telcoloc.models.radio.buildings import Buildings
from telcoloc.models.radio.maps import RadioMapJob, radio_maps
from telcoloc.models.radio.transmitters import Transmitters
from telcoloc.telcoloc_qgis.radio_maps import class_edges, read_radio_maps

UTM = "EPSG:32633"
X, Y = 500_000.0, 5_800_000.0
FIELDS = "cell_id:string,height_m:double,azimuth_deg:double,tilt_deg:double,beamwidth_deg:double,freq_mhz:double,eirp_dbm:double"
#: (east, north of X, Y, id, height, azimuth, tilt, beam width, frequency, EIRP): two sectors of one mast, and one all round.
CELLS = (
    (20, 20, "a1", 30.0, 45.0, 4.0, 65.0, 1800.0, 58.0),
    (20, 20, "a2", 30.0, 165.0, 4.0, 65.0, 1800.0, 58.0),
    (250, 180, "b", 40.0, None, 0.0, None, 900.0, 55.0),
)
#: West, south, east, north of X, Y, and height.
BLOCKS = ((60, 60, 100, 120, 15.0), (140, 40, 200, 80, 20.0), (120, 140, 160, 190, 12.0))
EXTENT = f"{X},{X + 300},{Y},{Y + 200} [{UTM}]"
NODATA = -9999


def cells(rows=CELLS, crs=UTM, fields=FIELDS):
    return layer_of([(f"Point ({X + x} {Y + y})", *rest) for x, y, *rest in rows], crs, fields, name="cells")


def box(west, south, east, north):
    corners = ((west, south), (east, south), (east, north), (west, north), (west, south))
    return "((" + ", ".join(f"{X + x} {Y + y}" for x, y in corners) + "))"


def footprints(blocks=BLOCKS, crs=UTM, fields="height_m:double"):
    return layer_of([(f"Polygon {box(*block[:4])}", block[4]) for block in blocks], crs, fields, "Polygon", "buildings")


def transmitters():
    x, y, ids, height, azimuth, tilt, beam, freq, eirp = zip(*CELLS)
    return Transmitters(
        ids,
        np.column_stack([np.add(X, x), np.add(Y, y)]),
        np.array(height),
        np.array(azimuth, dtype=float),
        np.array(tilt),
        np.array([360.0 if width is None else width for width in beam]),
        np.array(freq),
        np.array(eirp),
    )


def buildings():
    """The footprints' vertices, counter-clockwise from the south-west."""
    rings = [[(w, s), (e, s), (e, n), (w, n)] for w, s, e, n, _ in BLOCKS]
    heights = np.array([block[4] for block in BLOCKS])
    return Buildings(np.add(np.concatenate(rings), (X, Y)), np.arange(0, 13, 4), np.arange(3), heights)


def grid(cell_size=10.0):
    return Grid(round(200 / cell_size), round(300 / cell_size), X, Y + 200, cell_size)


@pytest.fixture
def maps(run, tmp_path):
    """`maps(MODEL=…)`: (ran, {id: values with NaN for nodata}, dataset)."""

    def call(name="radio_maps.tif", **parameters):
        defaults = {"INPUT": cells(), "EXTENT": EXTENT, "CELL_SIZE": 10, "RADIO_MAPS": str(tmp_path / name)}
        ran = run("pathlossmaps", **{**defaults, **parameters})
        bands, dataset = bands_of(ran["RADIO_MAPS"])
        return ran, {key: np.where(band == NODATA, np.nan, band) for key, band in bands.items()}, dataset

    return call


@pytest.fixture
def no_maps(refused, tmp_path):
    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        outputs = {"RADIO_MAPS": str(folder / "maps.tif"), "BEST_SERVER": str(folder / "best.tif")}
        refused(
            "pathlossmaps", sentence, **{"INPUT": cells(), "EXTENT": EXTENT, "CELL_SIZE": 10, **outputs, **parameters}
        )
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


# What comes out


@pytest.mark.parametrize("model", ["logdistance", "hata", "3gpp", "cost231wi", "dominantpath"])
@pytest.mark.parametrize("built", [False, True])
def test_values_are_the_engines(maps, model, built):
    if model == "dominantpath" and not built:
        pytest.skip("needs buildings")
    given = {"BUILDINGS": footprints()} if built else {}
    ran, bands, _ = maps(MODEL=model, **given)
    job = RadioMapJob(transmitters(), grid(), model, buildings=buildings() if built else None)
    expected = radio_maps(job).loss_db
    assert list(bands) == ["a1", "a2", "b"]
    np.testing.assert_allclose(np.stack(list(bands.values())), expected, atol=1e-4)
    assert np.isnan(bands["b"]).any() == built
    assert ran["MODEL_USED"] == model
    assert ran["CELL_COUNT"] == 3
    assert ran["BUILDING_COUNT"] == (3 if built else 0)
    assert ran["DEVICE_USED"] in ("cpu", "cuda")


def test_auto_takes_walfisch_ikegami_where_there_are_buildings(maps):
    assert maps()[0]["MODEL_USED"] == "3gpp"
    assert maps(BUILDINGS=footprints())[0]["MODEL_USED"] == "cost231wi"


def test_walls_of_streets_guide_and_roofs_let_pass(maps):
    """Guiding gains where there are walls and nowhere loses; without a way over the roofs nothing gains."""
    given = {"BUILDINGS": footprints(), "MODEL": "dominantpath"}
    plain, guided, around = (
        np.stack(list(maps(f"{index}.tif", **given, **more)[1].values()))
        for index, more in enumerate(({}, {"WAVE_GUIDING": True}, {"OVER_ROOFS": False}))
    )
    outside = np.isfinite(plain)
    assert (guided[outside] <= plain[outside] + 1e-3).all()
    assert (guided[outside] < plain[outside] - 0.1).any()
    assert (around[outside] >= plain[outside] - 1e-3).all()
    assert (around[outside] > plain[outside] + 1).any()


def test_free_space_by_its_formula(maps):
    """An exponent of 2 from 1 m is free space: 32.45 + 20 log10(km) + 20 log10(MHz)."""
    _, bands, _ = maps(MODEL="logdistance", EXPONENT=2, PATTERN="omni")
    x, y = np.meshgrid(grid().x_m - X, grid().y_m - Y)
    for east, north, name, height, _, _, _, freq, _ in CELLS:
        distance_km = np.sqrt((x - east) ** 2 + (y - north) ** 2 + (height - 1.5) ** 2) / 1000
        expected = 32.447 + 20 * np.log10(distance_km) + 20 * math.log10(freq)
        np.testing.assert_allclose(bands[name], expected, atol=0.01)


def test_power_is_eirp_less_loss(maps):
    _, loss, first = maps("loss.tif", BUILDINGS=footprints())
    _, power, second = maps("power.tif", BUILDINGS=footprints(), QUANTITY="rss")
    for name, eirp in (("a1", 58), ("a2", 58), ("b", 55)):
        np.testing.assert_allclose(power[name], eirp - loss[name], atol=1e-4)
    assert first.GetMetadataItem("TELCOLOC_QUANTITY") == "path_loss_db"
    assert second.GetMetadataItem("TELCOLOC_QUANTITY") == "rss_dbm"


def test_the_file_says_what_it_holds(maps):
    _, _, dataset = maps(NOISE_FLOOR=-110, MODEL="hata", PATTERN="gaussian")
    assert dataset.GetMetadataItem("TELCOLOC_MODEL") == "hata"
    assert dataset.GetMetadataItem("TELCOLOC_NOISE_FLOOR_DBM") == "-110"
    assert dataset.GetMetadataItem("TELCOLOC_PATTERN") == "gaussian"
    assert dataset.GetGeoTransform() == (X, 10, 0, Y + 200, 0, -10)
    assert "UTM zone 33N" in dataset.GetProjection()
    bands = [dataset.GetRasterBand(index) for index in (1, 2, 3)]
    assert [band.GetNoDataValue() for band in bands] == [NODATA] * 3
    told = [json.loads(band.GetMetadataItem("TELCOLOC_TRANSMITTER")) for band in bands]
    assert told[1] == {
        "height_m": 30,
        "azimuth_deg": 165,
        "tilt_deg": 4,
        "beam_width_deg": 65,
        "freq_mhz": 1800,
        "eirp_dbm": 58,
        "x_m": X + 20,
        "y_m": Y + 20,
    }
    assert told[2]["azimuth_deg"] is None
    assert told[2]["beam_width_deg"] == 360


@pytest.mark.parametrize("quantity", ["path_loss", "rss"])
def test_read_back(maps, quantity):
    ran, _, _ = maps(BUILDINGS=footprints(), QUANTITY=quantity, NOISE_FLOOR=-100)
    back = read_radio_maps(ran["RADIO_MAPS"], "radio_maps")
    expected = radio_maps(RadioMapJob(transmitters(), grid(), "cost231wi", buildings=buildings()))
    np.testing.assert_allclose(back.loss_db, expected.loss_db, atol=1e-4)
    assert back.loss_db.dtype == np.float32
    assert back.noise_floor_dbm == -100
    assert back.model == "cost231wi"
    assert back.grid.bounds == grid().bounds
    ours = transmitters()
    assert back.transmitters.ids == ours.ids
    for name in ("xy_m", "height_m", "azimuth_deg", "tilt_deg", "beam_width_deg", "freq_mhz", "eirp_dbm"):
        np.testing.assert_allclose(getattr(back.transmitters, name), getattr(ours, name))


def test_other_rasters_are_no_radio_maps(maps, stack, tmp_path):
    ran, _, dataset = maps()
    with pytest.raises(
        InputError, match="'stack' is no radio map: it does not say that it holds path loss or received power; make"
    ):
        read_radio_maps(stack["OUTPUT"], "stack")
    with pytest.raises(InputError, match=r"Radio map 'gone' cannot be read"):
        read_radio_maps(str(tmp_path / "gone.tif"), "gone")
    from osgeo import gdal

    damaged = str(tmp_path / "damaged.tif")
    copy = gdal.GetDriverByName("GTiff").CreateCopy(damaged, dataset)
    copy.GetRasterBand(2).SetMetadataItem("TELCOLOC_TRANSMITTER", "{}")
    copy = None
    with pytest.raises(
        InputError, match="'damaged' is no radio map: band 2 does not tell its transmitter's place and equipment; make"
    ):
        read_radio_maps(damaged, "damaged")
    del ran


def test_best_server(maps, tmp_path):
    """Against a look at every cell; what does not reach the floor is empty."""
    _, power, _ = maps("power.tif", BUILDINGS=footprints(), MODEL="3gpp", QUANTITY="rss")
    floor = round(float(np.nanmedian(np.max(np.stack(list(power.values())), axis=0))))
    ran, loss, _ = maps(BUILDINGS=footprints(), MODEL="3gpp", NOISE_FLOOR=floor, BEST_SERVER=str(tmp_path / "best.tif"))
    bands, dataset = bands_of(tmp_path / "best.tif")
    best, power, lead = bands.values()
    eirp = {"a1": 58, "a2": 58, "b": 55}
    shape = best.shape
    heard = outside = 0
    for cell in np.ndindex(shape):
        received = sorted(((eirp[name] - loss[name][cell], index) for index, name in enumerate(eirp)), reverse=True)
        if math.isnan(received[0][0]):
            assert best[cell] == power[cell] == lead[cell] == NODATA
            continue
        outside += 1
        if received[0][0] < floor:
            assert best[cell] == power[cell] == lead[cell] == NODATA
            continue
        heard += 1
        assert best[cell] == received[0][1]
        assert power[cell] == pytest.approx(received[0][0], abs=1e-3)
        assert lead[cell] == pytest.approx(received[0][0] - received[1][0], abs=1e-3)
    assert 0 < heard < outside < best.size
    assert ran["COVERED"] == pytest.approx(heard / outside)
    table = dataset.GetRasterBand(1).GetDefaultRAT()
    assert [table.GetValueAsString(row, 1) for row in range(3)] == ["a1", "a2", "b"]
    assert [table.GetNameOfCol(column) for column in range(5)] == [
        "value",
        "cell_id",
        "x_m",
        "y_m",
        "best_server_cells",
    ]
    assert sum(table.GetValueAsInt(row, 4) for row in range(3)) == heard


def test_the_style_shows_what_is_received(maps):
    """Opens on the cell nearest to the middle; classes are round decibels, stronger is darker, noise is not drawn."""
    for quantity, unit in (("path_loss", "dB"), ("rss", "dBm")):
        ran, bands, _ = maps(f"{quantity}.tif", QUANTITY=quantity, NOISE_FLOOR=-30)
        layer = QgsRasterLayer(ran["RADIO_MAPS"], "styled")
        document = QDomDocument()
        document.setContent(Path(ran["RADIO_MAPS"]).with_suffix(".qml").read_text(encoding="utf-8"))
        assert layer.importNamedStyle(document)[0]
        renderer = layer.renderer()
        assert renderer.inputBand() == 3
        items = renderer.shader().rasterShaderFunction().colorRampItemList()
        assert len(items) > 3
        assert all(f" {unit}" in item.label for item in items)
        silent, strongest = (items[-1], items[0]) if quantity == "path_loss" else (items[0], items[-1])
        assert silent.color.alpha() == 0
        assert silent.label.endswith("(not received)")
        shown = [item for item in items if item is not silent]
        darkness = [item.color.lightnessF() for item in shown]
        assert min(darkness) == strongest.color.lightnessF()
        edge = items[-2].value if quantity == "path_loss" else items[0].value
        assert edge == (55 + 30 if quantity == "path_loss" else -30)
        assert np.isfinite(bands["b"]).all()  # noise is kept in the file


@pytest.mark.parametrize(
    ("values", "weakest", "falling", "edges"),
    [
        ([-120, -55], -95, False, [-95, -90, -85, -80, -75, -70, -65, -60]),
        ([-120, -15], -95, False, [-95, -90, -80, -70, -60, -50, -40, -30, -20]),
        ([-120, -110], -95, False, [-95]),
        ([math.nan], -95, False, [-95]),
        ([70, 180], 150, True, [80, 90, 100, 110, 120, 130, 140, 150]),
        ([160, 180], 150, True, [150]),
    ],
)
def test_classes(values, weakest, falling, edges):
    assert class_edges(np.array(values, float), weakest, falling) == edges


# The grid


def test_default_grid(maps):
    """500 m around the masts, which are closer than that; 20 m without buildings and 5 m with."""
    ran, _, dataset = maps(EXTENT=None, CELL_SIZE=None)
    west, size, _, north, _, _ = dataset.GetGeoTransform()
    assert size == 20
    assert west == X + 20 - 500
    assert north == Y + 180 + 500
    assert "CELL_SIZE" in ran.text
    assert maps(CELL_SIZE=None, BUILDINGS=footprints())[2].GetGeoTransform()[1] == 5


def test_a_lone_cell_has_a_kilometre_around_it(maps):
    _, bands, _ = maps(INPUT=cells(CELLS[:1]), EXTENT=None, CELL_SIZE=50)
    assert bands["a1"].shape == (41, 41)  # 40, and one more because corners fall on multiples of 50 m


def test_large_grids_are_coarser_or_refused(maps, no_maps):
    far = (*CELLS, (80_000, 80_000, "c", 30.0, 0.0, 0.0, 65.0, 800.0, 60.0))
    ran, _, dataset = maps(INPUT=cells(far), EXTENT=None, CELL_SIZE=None, MARGIN=0)
    assert dataset.GetGeoTransform()[1] == 50
    assert "Grid of 50 m instead of 20 m" in ran.text
    no_maps(
        r"CELL_SIZE 0\.1 m makes 6,000,000 cells of 3 maps, which need [\d,]+ MB; 64 MB are allowed\. Use CELL_SIZE 0\.\d+ or more, .*",
        CELL_SIZE=0.1,
        MAX_MEMORY_MB=64,
    )


def test_footprints_with_too_many_corners_are_refused(no_maps):
    angle = np.linspace(0, 2 * np.pi, 50_001)
    ring = ", ".join(f"{X + 150 + 40 * c:.5f} {Y + 150 + 40 * s:.5f}" for c, s in zip(np.cos(angle), np.sin(angle)))
    round_house = layer_of([(f"Polygon (({ring}))", 20.0)], UTM, "height_m:double", "Polygon", "buildings")
    no_maps(
        r"BUILDINGS has 50,0\d\d corners on the map, with which dominantpath needs 7\d MB; 64 MB are allowed\. Use simpler footprints, .*",
        BUILDINGS=round_house,
        MODEL="dominantpath",
        MAX_MEMORY_MB=64,
    )


def test_reach_leaves_far_cells_out(maps, no_maps):
    far = (*CELLS, (900, 100, "c", 30.0, 0.0, 0.0, 65.0, 800.0, 60.0))  # 600 m east of the map
    assert list(maps(INPUT=cells(far))[1]) == ["a1", "a2", "b", "c"]
    assert list(maps(INPUT=cells(far), REACH=600)[1]) == ["a1", "a2", "b", "c"]
    ran, bands, _ = maps(INPUT=cells(far), REACH=599)
    assert list(bands) == ["a1", "a2", "b"]
    assert "Cells farther than 599 m from the map, which are left out: 1 of 4." in ran.infos
    no_maps(
        r"No cell stands within REACH 599 m of EXTENT; the nearest, 'c', is 600 m away\. Use a larger REACH, or leave it empty\.",
        INPUT=cells(far[3:]),
        REACH=599,
    )


# What is said


def test_what_lies_outside_the_models_range_is_said(maps):
    ran, _, _ = maps(MODEL="hata")
    assert any("'a1' (30 m)" not in text and "distance" in text for text in ran.warnings)
    odd = [(*row[:7], 6000.0, row[8]) for row in CELLS[:2]]
    ran, _, _ = maps(INPUT=cells(odd), MODEL="cost231wi", BUILDINGS=footprints())
    assert ran["WARNINGS"] == len(ran.warnings) >= 1
    assert any("frequency" in text and "'a1' (6000 MHz) and 1 more" in text for text in ran.warnings)


def test_a_cell_inside_a_building_is_named(maps):
    inside = [(80, 90, "inside", 10.0, 0.0, 0.0, 65.0, 1800.0, 50.0), CELLS[2]]
    ran, _, _ = maps(INPUT=cells(inside), BUILDINGS=footprints(), MODEL="cost231wi")
    assert any("In or at a building higher than the antenna: 'inside'; " in text for text in ran.warnings)


@pytest.mark.parametrize(
    ("sentence", "parameters"),
    [
        (r"MODEL is 'dominantpath', which needs BUILDINGS\. .*", {"MODEL": "dominantpath"}),
        (r"PATTERN is 'file', but PATTERN_FILE is empty\. .*", {"PATTERN": "file"}),
        (r"EXTENT lies [\d,]+ km from the nearest cell, 'a1'\. .*", {"EXTENT": f"0,1000,0,1000 [{UTM}]"}),
        (r"FREQUENCY is '5'; it must be a number from 100 to 300000\.", {"FREQUENCY": 5}),
        (r"MODEL is 'itm'; choose one of: auto, .*", {"MODEL": "itm"}),
    ],
)
def test_bad_parameters(no_maps, sentence, parameters):
    no_maps(sentence, **parameters)


def test_a_pattern_file(maps, tmp_path):
    """Straight ahead nothing is lost, to the left and right 10 dB, behind 25 dB; upwards and downwards alike."""
    table = {0: 0.0, 90: 10.0, 180: 25.0, 270: 10.0}
    around = [np.interp(angle, [*table, 360], [*table.values(), 0.0]) for angle in range(360)]
    rows = "\n".join(f"{angle} {loss:.3f}" for angle, loss in enumerate(around))
    flat = "\n".join(f"{angle} 0" for angle in range(360))
    path = tmp_path / "panel.msi"
    path.write_text(f"NAME panel 65\nGAIN 15.0 dBd\nHORIZONTAL 360\n{rows}\nVERTICAL 360\n{flat}\n", encoding="utf-8")
    mast = [(150, 100, "a", 30.0, 90.0, 0.0, 65.0, 1800.0, 58.0)]  # to the east, from the corner of four cells
    ran, with_it, dataset = maps("with.tif", INPUT=cells(mast), PATTERN="file", PATTERN_FILE=str(path), MODEL="hata")
    _, without, _ = maps("without.tif", INPUT=cells(mast), PATTERN="omni", MODEL="hata")
    lost = with_it["a"] - without["a"]
    bearing = np.rad2deg(np.arctan2(grid().x_m - X - 150, (grid().y_m - Y - 100)[:, None]))
    np.testing.assert_allclose(lost, np.interp((bearing - 90) % 360, range(360), around, period=360), atol=0.01)
    assert dataset.GetMetadataItem("TELCOLOC_PATTERN") == "panel 65"
    assert "'panel 65' of panel.msi" in ran.text


def test_bad_patterns(no_maps, tmp_path):
    odd = tmp_path / "odd.msi"
    odd.write_text("NAME odd\nthis is no pattern\n", encoding="utf-8")
    no_maps(r"PATTERN_FILE is given, but PATTERN is '3gpp'\. .*", PATTERN_FILE=str(odd))
    no_maps(r"odd\.msi has no line 'HORIZONTAL 360' with a table .*", PATTERN="file", PATTERN_FILE=str(odd))
    gone = str(tmp_path / "gone.msi")
    no_maps(r"The antenna pattern .*gone\.msi can't be read: No such file.*", PATTERN="file", PATTERN_FILE=gone)


# Places


def test_layers_in_degrees_make_the_same_map(run, maps):
    """As far as a millimetre of rounding in the corners of buildings goes."""
    ran, ours, _ = maps(BUILDINGS=footprints())
    degrees = {
        name: run("native:reprojectlayer", INPUT=layer, TARGET_CRS="EPSG:4326", OUTPUT="memory:")["OUTPUT"]
        for name, layer in (("INPUT", cells()), ("BUILDINGS", footprints()))
    }
    again, theirs, _ = maps("degrees.tif", **degrees)
    assert again["CRS"] == ran["CRS"]
    for name, band in ours.items():
        different = ~np.isclose(band, theirs[name], atol=0.1, equal_nan=True)
        assert different.mean() < 0.01


def test_the_sample_city(maps, tmp_path):
    """A square kilometre of it with all its cells, quick enough to try."""
    ran, bands, _ = maps(
        INPUT=f"{SAMPLE}|layername=cells",
        BUILDINGS=f"{SAMPLE}|layername=buildings",
        EXTENT="499000,500000,4998000,4999000 [EPSG:32628]",
        CELL_SIZE=50,
        BEST_SERVER=str(tmp_path / "best.tif"),
    )
    assert len(bands) == ran["CELL_COUNT"] == 312
    assert ran["BUILDING_COUNT"] > 100
    assert ran["COVERED"] > 0.9
    assert "'cell_id'" in ran.text or "cell_id" in ran.text
    losses = np.stack(list(bands.values()))
    assert np.nanmin(losses) > 40
    assert leftovers(tmp_path) == []


# Cancel


@pytest.mark.parametrize("percent", [1, 10, 50, 80])
def test_cancelled_soon_and_without_a_trace(qgis_app, tmp_path, percent):
    rng = np.random.default_rng(0)
    rows = [(*rng.uniform(0, 2000, 2), f"c{index}", 30.0, 60.0 * index, 4.0, 65.0, 1800.0, 58.0) for index in range(12)]
    blocks = [
        (60 * i, 60 * j, 60 * i + 40, 60 * j + 40, float(rng.uniform(8, 25))) for i in range(33) for j in range(33)
    ]
    said = collecting_feedback(Said())
    asked = []

    def stop(progress):
        if progress >= percent and not asked:
            asked.append(time.monotonic())
            said.cancel()

    said.progressChanged.connect(stop)
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("telcoloc:pathlossmaps")
    values = {
        "INPUT": cells(rows),
        "BUILDINGS": footprints(blocks),
        "CELL_SIZE": 8,
        "RADIO_MAPS": str(tmp_path / "maps.tif"),
        "BEST_SERVER": str(tmp_path / "best.tif"),
    }
    _, fine = algorithm.run(values, QgsProcessingContext(), said)
    assert not fine
    assert asked
    assert time.monotonic() - asked[0] < 1.5
    assert list(tmp_path.iterdir()) == []
