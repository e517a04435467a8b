"""What path loss maps are made of: cells with the fields that people have, and footprints as they come."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from processing_helpers import bands_of, layer_of
from qgis.core import QgsCoordinateReferenceSystem
from telcoloc.telcoloc_qgis.buildings import height_of

UTM = "EPSG:32633"
X, Y = 500_000.0, 5_800_000.0
EXTENT = f"{X},{X + 200},{Y},{Y + 200} [{UTM}]"
NODATA = -9999
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def cells(fields, *rows, crs=UTM):
    """Cells 10 m apart from the south-west corner of the map on."""
    return layer_of([(f"Point ({X + 10 * i} {Y})", *row) for i, row in enumerate(rows)], crs, fields, name="cells")


def box(west, south, east, north):
    corners = ((west, south), (east, south), (east, north), (west, north), (west, south))
    return "(" + ", ".join(f"{X + x} {Y + y}" for x, y in corners) + ")"


def footprints(*rows, fields="height_m:double"):
    return layer_of(rows, UTM, fields, "MultiPolygon", "buildings")


def without_crs(layer):
    layer.setCrs(QgsCoordinateReferenceSystem())
    return layer


ONE = f"Polygon ({box(50, 50, 90, 90)})"
TWO = f"Polygon ({box(120, 50, 160, 90)})"
THREE = f"Polygon ({box(50, 120, 90, 160)})"


@pytest.fixture
def read(run, tmp_path):
    """`read(layer, …)`: (ran, {id: what its band says of it})."""

    def call(layer, **parameters):
        path = str(tmp_path / "maps.tif")
        defaults = {"INPUT": layer, "EXTENT": EXTENT, "CELL_SIZE": 50, "RADIO_MAPS": path, "MODEL": "hata"}
        ran = run("pathlossmaps", **{**defaults, **parameters})
        dataset = bands_of(ran["RADIO_MAPS"])[1]
        bands = [dataset.GetRasterBand(index + 1) for index in range(dataset.RasterCount)]
        told = {band.GetDescription(): json.loads(band.GetMetadataItem("TELCOLOC_TRANSMITTER")) for band in bands}
        return ran, told

    return call


@pytest.fixture
def built(run, tmp_path):
    """`built(buildings, …)`: (ran, whether each cell of 10 m is inside a building, southmost row first)."""

    def call(buildings, **parameters):
        path = str(tmp_path / "maps.tif")
        one = cells("cell_id:string", ("a",))
        defaults = {"INPUT": one, "EXTENT": EXTENT, "CELL_SIZE": 10, "RADIO_MAPS": path, "BUILDINGS": buildings}
        ran = run("pathlossmaps", **{**defaults, **parameters})
        return ran, bands_of(ran["RADIO_MAPS"])[0]["a"][::-1] == NODATA

    return call


@pytest.fixture
def not_read(refused, tmp_path):
    def call(sentence, layer=None, **parameters):
        layer = cells("cell_id:string", ("a",)) if layer is None else layer
        outputs = {"RADIO_MAPS": str(tmp_path / "maps.tif"), "EXTENT": EXTENT, "CELL_SIZE": 10}
        refused("pathlossmaps", sentence, **{"INPUT": layer, **outputs, **parameters})
        assert list(tmp_path.glob("*.tif")) == []

    return call


def inside(*boxes):
    """Cells of 10 m whose centres lie in any of the boxes, southmost row first."""
    mask = np.zeros((20, 20), bool)
    for west, south, east, north in boxes:
        mask[south // 10 : north // 10, west // 10 : east // 10] = True
    return mask


# Cells


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        (
            "cell_id:string,height_m:double,azimuth_deg:integer,tilt_deg:integer,beamwidth_deg:integer,freq_mhz:integer,eirp_dbm:double",
            ("a", 22.5, 120, 6, 90, 2100, 59.5),
        ),
        (
            "Cell:string,Antenna_Height:string,Direction:string,Downtilt:string,Beam_H:string,Frequency:string,EIRP:string",
            ("a", "22,5", "120", "6.0", "90", "2100", "59.5"),
        ),
        (
            "ECGI:double,antenna_height_m:double,azimuth:double,downtilt_deg:double,hpbw:double,freq:double,power_dbm:double",
            (1234.0, 22.5, -240, 6, 90, 2100, 59.5),
        ),
    ],
)
def test_fields_are_recognised(read, fields, row):
    ran, told = read(cells(fields, row))
    name = "1234" if "ECGI" in fields else "a"
    equipment = {
        "height_m": 22.5,
        "azimuth_deg": 120,
        "tilt_deg": 6,
        "beam_width_deg": 90,
        "freq_mhz": 2100,
        "eirp_dbm": 59.5,
    }
    assert told == {name: {**equipment, "x_m": X, "y_m": Y}}
    doubts = [text for text in ran.warnings if "is taken for the power radiated" in text]
    assert len(doubts) == ("power_dbm" in fields)
    assert not [text for text in ran.warnings if "outside" not in text and text not in doubts]


def test_fields_that_are_given_go_before_those_recognised(read):
    layer = cells(
        "cell_id:string,height_m:double,mast:double,sector:string", ("a", 20.0, 33.0, "s"), ("b", 20.0, 34.0, "t")
    )
    _, told = read(layer, ID_FIELD=["sector", "cell_id"], ANTENNA_HEIGHT_FIELD="mast")
    assert {name: each["height_m"] for name, each in told.items()} == {"s-a": 33, "t-b": 34}


def test_without_fields_numbers_count_for_all(read):
    ran, told = read(cells("note:string", ("x",), ("y",)), ANTENNA_HEIGHT=31, TILT=3, FREQUENCY=900, EIRP=50)
    assert list(told) == ["1", "2"]
    for each in told.values():
        assert [each[name] for name in ("height_m", "tilt_deg", "freq_mhz", "eirp_dbm")] == [31, 3, 900, 50]
        assert each["azimuth_deg"] is None
        assert each["beam_width_deg"] == 360
    assert "feature ids do" in ran.text
    assert "Azimuth [°]: no field has it; no direction for all." in ran.infos


def test_what_is_empty_or_cannot_be_is_replaced_and_said(read):
    layer = cells(
        "cell_id:string,height_m:string,azimuth_deg:double,freq_mhz:double",
        ("a", "20", 90, 800),
        ("b", None, None, 0.8),
        ("c", "high", 500, -999),
        ("d", "0", 10, None),
    )
    ran, told = read(layer, ANTENNA_HEIGHT=28, FREQUENCY=1500)
    assert [each["height_m"] for each in told.values()] == [20, 28, 28, 28]
    assert [each["freq_mhz"] for each in told.values()] == [800, 1500, 1500, 1500]
    assert [each["azimuth_deg"] for each in told.values()] == [90, None, None, 10]
    assert (
        "Antenna height [m]: 2 values of 'height_m' are no number from 0.5 to 1000 and do not count; 28 m (ANTENNA_HEIGHT) is used: "
        "'c' has 'high'; 'd' has '0'." in ran.warnings
    )
    assert any(text.startswith("Frequency [MHz]: 1 values") and "'b' has '0.8'" in text for text in ran.warnings)
    assert any(
        text.startswith("Azimuth [°]: 1 values") and "no direction is used: 'c' has" in text for text in ran.warnings
    )
    assert "Antenna height [m]: 'height_m' is empty for 1 of 4 cells; 28 m (ANTENNA_HEIGHT) is used." in ran.infos
    assert "Frequency [MHz]: 'freq_mhz' is empty for 2 of 4 cells; 1500 MHz (FREQUENCY) is used." in ran.infos


def test_rows_without_place_or_name_are_left_out_and_said(read):
    rows = [(f"Point ({X} {Y})", "a"), (None, "b"), (f"Point ({X + 5} {Y})", ""), (f"Point ({X + 9} {Y})", "d")]
    ran, told = read(layer_of(rows, UTM, "cell_id:string", name="cells"))
    assert list(told) == ["a", "d"]
    assert "INPUT: 2 of 4 rows cannot be used: feature 2: not one point; feature 3: no id." in ran.warnings


@pytest.mark.parametrize(
    ("sentence", "layer", "parameters"),
    [
        (
            r"INPUT: features 1 and 3 are both called 'a'; every cell needs an id of its own\. .*",
            lambda: cells("cell_id:string", ("a",), ("b",), ("a",)),
            {"ID_FIELD": ["cell_id"]},
        ),
        (
            r"EIRP_FIELD: no value of 'Power' is a number from -50 to 100 dBm \('a' has '152(\.0)?'; 'b' has '182(\.0)?'\)\. Convert .*",
            lambda: cells("cell_id:string,Power:double", ("a", 152.0), ("b", 182.0)),
            {"EIRP_FIELD": "Power"},
        ),
        (
            r"INPUT: none of the 1 rows of layer 'cells' can be used \(feature 1: not one point\)\.",
            lambda: layer_of([(None, "a")], UTM, "cell_id:string", name="cells"),
            {},
        ),
        (
            r"INPUT: layer 'cells' holds Polygon, not points\. .*",
            lambda: layer_of([], UTM, geometry="Polygon", name="cells"),
            {},
        ),
        (r"INPUT: layer 'cells' has no features .*", lambda: layer_of([], UTM, name="cells"), {}),
        (
            r"INPUT: layer 'cells' has no known CRS\. .*",
            lambda: without_crs(cells("cell_id:string", ("a",))),
            {},
        ),
        (
            r"TILT_FIELD: layer 'cells' has no field 'tlt'\. Did you mean 'tilt'\?",
            lambda: cells("tilt:double", (1.0,)),
            {"TILT_FIELD": "tlt"},
        ),
    ],
)
def test_cells_that_cannot_be_used(not_read, sentence, layer, parameters):
    not_read(sentence, layer(), **parameters)


def test_power_in_tenths_of_a_decibel_is_not_believed(read):
    """Reference signal power as huawei4g has it: 152 means 15.2 dBm."""
    ran, told = read(cells("cell_id:string,Power:double", ("a", 152.0)))
    assert told["a"]["eirp_dbm"] == 61
    assert any("'a' has '152" in text for text in ran.warnings)


def test_a_published_cell_plan(read, run, tmp_path):
    """mobloc's, as its CSV is: names cell, height, direction, tilt, beam_h; 16 small cells have none of the angles."""
    path = DATA / "mobloc_zl" / "ZL_cellplan.csv"
    if not path.exists():
        pytest.skip("needs ../shared/data")
    with path.open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    layer = run(
        "native:createpointslayerfromtable",
        INPUT=str(path), XFIELD="lon", YFIELD="lat", TARGET_CRS="EPSG:4326", OUTPUT=str(tmp_path / "plan.gpkg"),
    )["OUTPUT"]  # fmt: skip
    ran, told = read(layer, EXTENT="5.83,5.84,50.93,50.94 [EPSG:4326]", CELL_SIZE=200)
    assert set(told) == {row["cell"] for row in rows}
    for row in rows:
        each = told[row["cell"]]
        assert each["height_m"] == pytest.approx(float(row["height"]), abs=1e-3)
        expected = float(row["direction"]) % 360 if row["direction"] else None
        assert each["azimuth_deg"] == expected
        assert each["tilt_deg"] == (float(row["tilt"]) if row["tilt"] else None)
    assert "Cells without a direction, which send alike all round: 16 of 631." in ran.infos


# Buildings


def test_heights_by_field_storeys_and_default(built):
    """Equal heights from three sources make equal maps."""
    plain, mask = built(footprints((ONE, 12.0), (TWO, 12.0), (THREE, 12.0)))
    expected = bands_of(plain["RADIO_MAPS"])[0]["a"]
    assert plain.warnings == []
    fields = "building_height:string,levels:string"
    mixed = footprints((ONE, "12 m", None), (TWO, None, "4"), (THREE, "tall", ""), fields=fields)
    ran, again = built(mixed, BUILDING_HEIGHT=12)
    np.testing.assert_array_equal(mask, again)
    np.testing.assert_allclose(bands_of(ran["RADIO_MAPS"])[0]["a"], expected)
    assert (
        "BUILDINGS: 3 buildings of 'buildings' on the map; heights from 'building_height'; 1 from their storeys."
        in ran.infos
    )
    assert (
        "BUILDINGS: 1 heights in 'building_height' are no number of metres above 0 and do not count: feature 3: 'tall'."
        in ran.warnings
    )
    assert (
        "BUILDINGS: 1 of 3 buildings have no height; 12 m (BUILDING_HEIGHT) is used for them: feature 3."
        in ran.warnings
    )


def test_buildings_without_heights(built):
    ran, _ = built(footprints((ONE, "x"), (TWO, "y"), fields="name:string"))
    assert (
        "BUILDINGS: all 2 buildings have no height; 12 m (BUILDING_HEIGHT) is used for them: feature 1; feature 2."
        in ran.warnings
    )


@pytest.mark.parametrize(
    ("text", "height"),
    [
        ("12", 12),
        ("12.5", 12.5),
        ("12,5", 12.5),
        ("9 m", 9),
        ("9m", 9),
        ("0", None),
        ("-3", None),
        ("30'", None),
        ("", None),
        ("2e9", None),
    ],
)
def test_how_heights_are_spelt(text, height):
    assert height_of(text) == height


def test_self_crossing_footprints_are_mended_and_said(built):
    """A bow tie is two triangles."""
    bow = (
        f"Polygon (({X + 50} {Y + 50}, {X + 150} {Y + 150}, {X + 150} {Y + 50}, {X + 50} {Y + 150}, {X + 50} {Y + 50}))"
    )
    ran, mask = built(footprints((bow, 10.0), (THREE, 10.0)))
    x, y = np.meshgrid(np.arange(20) * 10 + 5.0, np.arange(20) * 10 + 5.0)
    triangles = (np.abs(y - 100) < np.abs(x - 100)) & (np.abs(x - 100) < 50)
    sure = np.abs(np.abs(y - 100) - np.abs(x - 100)) > 5  # not cells whose centres lie on a wall
    expected = triangles | inside((50, 120, 90, 160))
    np.testing.assert_array_equal(mask[sure], expected[sure])
    assert "BUILDINGS: 1 footprints that cross themselves were mended: feature 1." in ran.warnings


def test_courtyards_and_buildings_of_several_parts(built):
    yard = f"Polygon ({box(20, 20, 100, 100)}, {box(40, 40, 80, 80)})"
    parts = f"MultiPolygon (({box(120, 20, 140, 60)}), ({box(150, 20, 180, 60)}, {box(160, 30, 170, 50)}))"
    ran, mask = built(footprints((yard, 15.0), (parts, 10.0)))
    expected = inside((20, 20, 100, 100), (120, 20, 140, 60), (150, 20, 180, 60)) & ~inside(
        (40, 40, 80, 80), (160, 30, 170, 50)
    )
    np.testing.assert_array_equal(mask, expected)
    assert ran["BUILDING_COUNT"] == 2
    assert ran.warnings == []


def test_only_buildings_on_the_map_are_read(built):
    far = f"Polygon ({box(5000, 5000, 5040, 5040)})"
    ran, _ = built(footprints((ONE, 10.0), (far, None)))
    assert ran["BUILDING_COUNT"] == 1
    assert ran.warnings == []


@pytest.mark.parametrize(
    ("sentence", "layer"),
    [
        (
            r"BUILDINGS: layer 'buildings' has no usable footprint on the map\. Check the CRS of both layers, or leave BUILDINGS empty\.",
            lambda: footprints((f"Polygon ({box(5000, 5000, 5040, 5040)})", 10.0)),
        ),
        (
            r"BUILDINGS: layer 'buildings' has no usable footprint on the map \(feature 1: no area\)\. .*",
            lambda: footprints((f"Polygon (({X} {Y}, {X + 50} {Y}, {X + 90} {Y}, {X} {Y}))", 10.0)),
        ),
        (
            r"BUILDINGS: layer 'streets' holds LineString, not polygons; give a layer of footprints\.",
            lambda: layer_of([], UTM, geometry="LineString", name="streets"),
        ),
        (r"BUILDINGS: layer 'buildings' has no features .*", lambda: footprints()),
        (
            r"BUILDINGS: layer 'buildings' has no known CRS\. .*",
            lambda: without_crs(footprints((ONE, 10.0))),
        ),
    ],
)
def test_buildings_that_cannot_be_used(not_read, sentence, layer):
    not_read(sentence, BUILDINGS=layer())


def test_a_map_inside_a_building(not_read):
    not_read(
        r"No part of the map lies outside a building\. .*",
        BUILDINGS=footprints((f"Polygon ({box(-50, -50, 300, 300)})", 10.0)),
    )
