"""What cannot work says so in one sentence: what is wrong, with the value, layer or row, and what to do."""

import re
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal
from processing_helpers import SAMPLE, bands_of, layer_of
from qgis.core import QgsCoordinateReferenceSystem

STATIONS = f"{SAMPLE}|layername=base_stations"
BOUNDARY = f"{SAMPLE}|layername=boundary"
FOUR = [("Point (0 0)", "a"), ("Point (1000 0)", "b"), ("Point (0 1000)", "c"), ("Point (1000 1000)", "d")]
SQUARE = "Polygon (({0} {0}, {1} {0}, {1} {1}, {0} {1}, {0} {0}))"


@pytest.fixture
def no_geolocation(refused, tmp_path):
    """`no_geolocation("sentence", INPUT=…)`: refused, and no file is left."""

    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        defaults = {"INPUT": layer_of(FOUR), "ID_FIELD": "id", "CELL_SIZE": 100, "OUTPUT": str(folder / "stack.tif")}
        defaults["BEST_SERVER"] = str(folder / "best.tif")
        defaults["COVERAGE"] = str(folder / "coverage.gpkg")
        refused("geolocatebasestations", sentence, **{**defaults, **parameters})
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


@pytest.fixture
def no_map(refused, stack, tmp_path):
    def call(sentence, rows=(("PM001", 1.0),), fields="bs:string,users:double", **parameters):
        folder = tmp_path / "outputs"
        defaults = {
            "GEOLOCATION": stack["OUTPUT"],
            "INPUT": layer_of([(None, *row) for row in rows], "", fields, "None", "kpis"),
            "ID_FIELD": "bs",
            "FIELDS": ["users"],
            "OUTPUT": str(folder / "density.tif"),
        }
        refused("mapmetadata", sentence, **{**defaults, **parameters})
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


@pytest.fixture
def no_comparison(refused, stack, tmp_path):
    def call(sentence, compared, **parameters):
        folder = tmp_path / "outputs"
        defaults = {"REFERENCE": stack["OUTPUT"], "COMPARED": [compared], "OUTPUT": str(folder / "table.gpkg")}
        defaults["OUTPUT_HTML"] = str(folder / "report.html")
        refused("comparegeolocations", sentence, **{**defaults, **parameters})
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


# Base stations


def test_no_features(no_geolocation):
    sentence = r"INPUT: layer 'stations' has no features \(check its filter and selection\)\."
    no_geolocation(sentence, INPUT=layer_of([]))


def test_one_base_station(no_geolocation):
    sentence = (
        "There is only one base station, so no spacing can be derived. Give CELL_SIZE and EXTENT or BOUNDARY, or use a layer "
        "with at least two places."
    )
    no_geolocation(re.escape(sentence), INPUT=layer_of(FOUR[:1]), CELL_SIZE=None)
    no_geolocation(re.escape(sentence), INPUT=layer_of(FOUR[:1]))


@pytest.mark.parametrize("method", ["voronoi", "spdi"])
def test_one_base_station_works_with_a_grid(run, tmp_path, method):
    output = str(tmp_path / "stack.tif")
    ran = run(
        "geolocatebasestations",
        INPUT=layer_of(FOUR[:1]),
        ID_FIELD="id",
        METHOD=method,
        CELL_SIZE=100,
        EXTENT="-500,500,-500,500",
        OUTPUT=output,
        BEST_SERVER=str(tmp_path / "best.tif"),
        COVERAGE="memory:",
    )
    bands, _ = bands_of(output)
    np.testing.assert_allclose(bands["a"], 0.01, rtol=1e-6)
    assert ran["MASS_CUT_MAX"] is None


def test_all_at_one_place(no_geolocation):
    rows = [("Point (5 5)", name) for name in "abc"]
    sentence = "All 3 points have the same coordinates, so no spacing can be derived. Give CELL_SIZE and EXTENT or .*"
    no_geolocation(sentence, INPUT=layer_of(rows), CELL_SIZE=None)


def test_no_usable_row(no_geolocation):
    sentence = r"INPUT: none of the 2 rows of layer 'stations' can be used \(feature 1: no geometry; feature 2: no geometry\)\."
    no_geolocation(sentence, INPUT=layer_of([(None, "a"), ("", "b")]))


def test_polygons_instead_of_points(no_geolocation):
    layer = layer_of([(SQUARE.format(0, 9), "a")], geometry="Polygon")
    no_geolocation(
        "INPUT: layer 'stations' holds Polygon, not points. Use 'Centroids' first, or another layer.", INPUT=layer
    )


def test_a_table_instead_of_points(no_geolocation):
    layer = layer_of([(None, "a")], geometry="None", crs="")
    no_geolocation("INPUT: layer 'stations' holds NoGeometry, not points.*", INPUT=layer)


def test_a_missing_layer(no_geolocation, tmp_path):
    no_geolocation(
        "INPUT is '.*nothing.gpkg', which does not exist or is of the wrong kind.", INPUT=str(tmp_path / "nothing.gpkg")
    )


def test_missing_fields(no_geolocation):
    no_geolocation("ID_FIELD: layer 'stations' has no field 'ids'. Did you mean 'id'\\?", ID_FIELD="ids")
    layer = layer_of(FOUR, fields="cgi:string")
    no_geolocation("ID_FIELD: layer 'stations' has no field 'name'. Its fields: cgi.", ID_FIELD="name", INPUT=layer)


def test_one_id_at_two_places(no_geolocation):
    sentence = (
        "Field 'id' holds 'a' at two places 2,000 m apart; an id must name one site. Choose a field with unique ids, or leave "
        "ID_FIELD empty."
    )
    no_geolocation(re.escape(sentence), INPUT=layer_of([*FOUR, ("Point (0 2000)", "a")]))


def test_unknown_crs(no_geolocation):
    layer = layer_of(FOUR, crs="")
    layer.setCrs(QgsCoordinateReferenceSystem())
    sentence = "INPUT: layer 'stations' has no known CRS. Set it with Layer > Set CRS of Layer."
    no_geolocation(sentence, INPUT=layer)


def test_coordinates_in_metres_declared_as_degrees(no_geolocation):
    rows = [("Point (500000 5000000)", "a"), ("Point (501000 5000000)", "b")]
    no_geolocation(
        ".*EPSG:4326.*[Cc]heck (its|the layer's) CRS.*", INPUT=layer_of(rows, crs="EPSG:4326"), CELL_SIZE=None
    )


# Boundary, extent, cells and memory


def test_a_boundary_without_area(no_geolocation):
    boundary = layer_of([("Polygon ((0 0, 1 1, 0 0))", 1)], fields="n:int", geometry="Polygon", name="line")
    no_geolocation(r"BOUNDARY: layer 'line' has no polygon with an area \(feature 1: no area\)\.", BOUNDARY=boundary)


def test_a_boundary_without_features(no_geolocation):
    boundary = layer_of([], fields="n:int", geometry="Polygon", name="nothing")
    no_geolocation("BOUNDARY: layer 'nothing' has no polygon with an area.", BOUNDARY=boundary)


def test_a_boundary_elsewhere(no_geolocation):
    boundary = layer_of([(SQUARE.format(900_000, 900_900), 1)], fields="n:int", geometry="Polygon")
    sentence = (
        "BOUNDARY lies wholly outside the base stations and their margin, so no cell can hold mass. Check its CRS, use another "
        "boundary, or leave it empty."
    )
    no_geolocation(re.escape(sentence), BOUNDARY=boundary)


def test_a_boundary_between_cell_centres(no_geolocation):
    boundary = layer_of([(SQUARE.format(1, 9), 1)], fields="n:int", geometry="Polygon")
    sentence = "BOUNDARY holds the centre of no cell of the grid. Use a smaller CELL_SIZE, or another boundary."
    no_geolocation(sentence, BOUNDARY=boundary)


def test_a_boundary_of_points(no_geolocation):
    no_geolocation("BOUNDARY.*no polygon.*", BOUNDARY=layer_of(FOUR))


def test_an_extent_without_area(no_geolocation):
    no_geolocation("EXTENT '5,5,7,7' is empty or cannot be placed in EPSG:32628.", EXTENT="5,5,7,7")


def test_more_cells_than_memory(no_geolocation):
    sentence = (
        r"CELL_SIZE 0\.05 m makes [\d,]+ cells, which need [\d,]+ MB; 4,096 MB are allowed\. Use CELL_SIZE 0?\.?[\d.]+ or more, or a "
        r"smaller EXTENT\."
    )
    no_geolocation(sentence, CELL_SIZE=0.05)


def test_more_values_than_memory(no_geolocation):
    sentence = r"\d+ x \d+ cells of 25 m .* need [\d,]+ MB; 64 MB are allowed\. Use CELL_SIZE [\d.]+ or more, .*"
    no_geolocation(sentence, INPUT=STATIONS, ID_FIELD="bs_id", CELL_SIZE=25, BETA=1, MAX_MEMORY_MB=64)


@pytest.mark.parametrize(
    ("name", "value", "range_"),
    [
        ("CELL_SIZE", 0, "a finite number, 0.01 or more"),
        ("CELL_SIZE", -5, "a finite number, 0.01 or more"),
        ("CELL_SIZE", float("inf"), "a finite number, 0.01 or more"),
        ("CELL_SIZE", "many", "a number"),
        ("CELL_SIZE", "nan", "a finite number, 0.01 or more"),
        ("BETA", 0, "a number from 0.01 to 20"),
        ("BETA", "-1", "a number from 0.01 to 20"),
        ("BETA", 21, "a number from 0.01 to 20"),
        ("BETA", float("nan"), "a number from 0.01 to 20"),
        ("BETA", "high", "a number"),
        ("NEIGHBOURS", 1, "a finite number, 2 or more"),
        ("MARGIN", -1, "a finite number, 0 or more"),
        ("MAX_MEMORY_MB", 1, "a finite number, 64 or more"),
    ],
)
def test_numbers_out_of_range(no_geolocation, name, value, range_):
    no_geolocation(f"{name} is '{value}'; it must be {range_}\\.", **{name: value})


def test_missing_parameters(no_geolocation):
    no_geolocation(r"INPUT \(Base stations\) is missing\.", INPUT=None)
    no_geolocation(r"OUTPUT \(Geolocation stack\) is missing\.", OUTPUT="")


def test_a_whole_number_with_decimals(no_geolocation):
    no_geolocation("NEIGHBOURS is 4.5; it must be a whole number.", NEIGHBOURS=4.5)


def test_an_unknown_method(no_geolocation):
    methods = "voronoi, voronoiboost, spdi, direct, deepmend, deepmend_beta"
    no_geolocation(f"METHOD is 'voronoy'; choose one of: {methods}.", METHOD="voronoy")
    no_geolocation(f"METHOD is '1'; choose one of: {methods}.", METHOD=1)
    no_geolocation("DEVICE is 'gpu'; choose one of: auto, cpu, cuda.", DEVICE="gpu")


def test_cuda_without_a_gpu(no_geolocation, monkeypatch):
    from telcoloc.models import environment

    if environment.collect({}).cuda.available:
        pytest.skip("there is a GPU here")
    no_geolocation("The device cuda cannot be used because .*", DEVICE="cuda")


def test_a_misspelt_parameter(no_geolocation):
    no_geolocation("telcoloc:geolocatebasestations has no parameter 'CELLSIZE'. Did you mean CELL_SIZE\\?", CELLSIZE=5)
    no_geolocation("telcoloc:geolocatebasestations has no parameter 'beta_'. Did you mean BETA\\?", beta_=5)
    no_geolocation("telcoloc:geolocatebasestations has no parameter 'XYZ'. It knows: INPUT, .*", XYZ=5)


# KPIs


def test_kpis_without_features(no_map):
    no_map(r"INPUT: layer 'kpis' has no features \(check its filter and selection\)\.", rows=())


def test_a_kpi_that_is_no_number(no_map):
    sentence = "Field 'users' of 'PM001' is 'many', which is not a number. Choose numeric FIELDS."
    no_map(sentence, rows=[("PM001", "many")], fields="bs:string,users:string")


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_an_infinite_kpi(no_map, value):
    no_map("Field 'users' of 'PM001' is infinite. Correct it, or choose other FIELDS.", rows=[("PM001", value)])


def test_empty_kpis_count_as_zero_and_are_listed(run, stack, tmp_path):
    rows = [(None, "PM001", None), (None, "PM002", float("nan")), (None, "PM003", 3.0)]
    table = layer_of(rows, "", "bs:string,users:double", "None", "kpis")
    ran = run(
        "mapmetadata",
        GEOLOCATION=stack["OUTPUT"],
        INPUT=table,
        ID_FIELD="bs",
        FIELDS=["users"],
        OUTPUT=str(tmp_path / "density.tif"),
    )
    assert ran["TOTAL_MAPPED"] == pytest.approx(3, rel=1e-6)
    assert ran.warnings == [
        "2 rows hold empty or NaN values, which count as 0: 'PM001': users empty or NaN; 'PM002': users empty or NaN."
    ]


def test_missing_kpi_fields(no_map):
    no_map("FIELDS: layer 'kpis' has no field 'user'. Did you mean 'users'\\?", FIELDS=["user"])
    no_map(r"FIELDS \(KPI fields\) is missing\.", FIELDS=[])


def test_a_stack_of_other_base_stations(no_map):
    sentence = (
        r"No row of 'kpis' matches a band of stack 'stack' \(ids such as 'X1'; bands such as 'PM001'\)\. Choose the ID_FIELD the "
        r"stack was made with\."
    )
    no_map(sentence, rows=[("X1", 1.0)])


def test_zone_totals_without_zones(no_map, tmp_path):
    no_map(
        "ZONE_TOTALS needs ZONES; choose the polygons to sum over.", ZONE_TOTALS=str(tmp_path / "outputs" / "t.gpkg")
    )


def test_zones_without_area(no_map, tmp_path):
    zones = layer_of([("Polygon ((0 0, 1 1, 0 0))", 1)], fields="n:int", geometry="Polygon", name="flat")
    sentence = r"ZONES: layer 'flat' has no polygon with an area \(feature 1: no area\)\."
    no_map(sentence, ZONES=zones, ZONE_TOTALS=str(tmp_path / "outputs" / "t.gpkg"))


# Stacks


def raster(
    path, ids=("PM001", "PM002"), crs=32628, size=200.0, corner=(480_000.0, 5_010_000.0), height=None, fill=0.25
):
    """Write a GeoTIFF of 2 × 2 cells a band."""
    dataset = gdal.GetDriverByName("GTiff").Create(str(path), 2, 2, len(ids), gdal.GDT_Float32)
    dataset.SetGeoTransform((corner[0], size, 0, corner[1], 0, -(height or size)))
    dataset.SetProjection(QgsCoordinateReferenceSystem(f"EPSG:{crs}").toWkt())
    for index, name in enumerate(ids, 1):
        dataset.GetRasterBand(index).SetDescription(name)
        dataset.GetRasterBand(index).Fill(fill)
    dataset.FlushCache()
    return str(path)


def test_bands_without_description(no_map, no_comparison, tmp_path):
    sentence = "'plain' is no geolocation stack: band 2 has no description, where a base station's id should be."
    path = raster(tmp_path / "plain.tif", ["PM001", ""])
    no_map(re.escape(sentence), GEOLOCATION=path)
    no_comparison(re.escape(sentence), path)


def test_two_bands_of_one_name(no_map, tmp_path):
    sentence = "'twice' is no geolocation stack: two bands are described 'PM001'."
    no_map(sentence, GEOLOCATION=raster(tmp_path / "twice.tif", ["PM001", "PM001"]))


@pytest.mark.parametrize("fill", [-0.5, float("inf"), float("nan")])
def test_values_that_are_no_probabilities(no_map, tmp_path, fill):
    sentence = "Stack 'odd' holds negative or infinite values, which no probability is."
    no_map(sentence, GEOLOCATION=raster(tmp_path / "odd.tif", fill=fill))


def test_a_stack_without_mass(no_map, tmp_path):
    sentence = r"No row of 'kpis' matches a band of stack 'empty' \(bands without mass; .*"
    no_map(sentence, GEOLOCATION=raster(tmp_path / "empty.tif", fill=0.0))


def test_cells_that_are_not_square(no_map, tmp_path):
    sentence = "'oblong' needs square, north-up cells; its cells are 200 x 100."
    no_map(sentence, GEOLOCATION=raster(tmp_path / "oblong.tif", height=100.0))


def test_a_stack_in_degrees(no_map, tmp_path):
    path = raster(tmp_path / "degrees.tif", crs=4326, size=0.01, corner=(-15.0, 45.0))
    no_map(r"'degrees' is in degrees \(WGS 84\), but a stack must be in metres; .*", GEOLOCATION=path)
    path = raster(tmp_path / "feet.tif", crs=2263)
    no_map("'feet' is in US survey foot .* but a stack must be in metres; .*", GEOLOCATION=path)


def test_no_base_station_in_common(no_comparison, tmp_path):
    sentence = (
        "'other' and 'stack' have no base station in common: their bands are named 'X' … and 'PM001' …. Make both with the same "
        "ID_FIELD."
    )
    no_comparison(re.escape(sentence), raster(tmp_path / "other.tif", ["X", "Y"]))


def test_different_crs(no_comparison, tmp_path):
    sentence = (
        "'stack' and 'zone29' have different CRSs. Make both with the same EXTENT and CELL_SIZE from one layer, or warp one with "
        "'Warp (reproject)' and resampling 'sum'."
    )
    no_comparison(re.escape(sentence), raster(tmp_path / "zone29.tif", crs=32629))


@pytest.mark.parametrize(("size", "corner"), [(100.0, (480_000.0, 5_010_000.0)), (200.0, (480_050.0, 5_010_000.0))])
def test_grids_that_do_not_align(no_comparison, tmp_path, size, corner):
    sentence = (
        r"'stack' \(.* cells of 200 m .*\) and 'shifted' \(2 x 2 cells of .*\) lie on grids that do not align\. "
        r"Make both with the same CELL_SIZE and EXTENT\."
    )
    no_comparison(sentence, raster(tmp_path / "shifted.tif", size=size, corner=corner))


def test_nothing_in_both(no_comparison, tmp_path):
    sentence = "'empty' and the reference have no base station with mass in both."
    no_comparison(sentence, raster(tmp_path / "empty.tif", fill=0.0))


def test_no_base_station_in_all_stacks(no_comparison, tmp_path):
    sentence = "No base station has mass in the reference and all compared stacks; compare the stacks one by one."
    first, second = (raster(tmp_path / f"{name}.tif", [name]) for name in ("PM001", "PM002"))
    no_comparison(sentence, first, COMPARED=[first, second])


def test_cells_without_data_hold_no_mass_and_other_nan_is_refused(run, stack, no_comparison, tmp_path):
    """A stack made elsewhere: NaN where there is nothing, and declared so."""
    path = raster(tmp_path / "elsewhere.tif")
    dataset = gdal.Open(path, gdal.GA_Update)
    for index in (1, 2):
        dataset.GetRasterBand(index).WriteArray(np.array([[np.nan, 0.5], [0.5, 0.0]]))
        dataset.GetRasterBand(index).SetNoDataValue(float("nan"))
    dataset = None
    output = str(tmp_path / "comparison.gpkg")
    ran = run("comparegeolocations", REFERENCE=stack["OUTPUT"], COMPARED=[path], OUTPUT=output)
    assert ran["BS_COUNT"] == 2
    dataset = gdal.Open(path, gdal.GA_Update)
    dataset.GetRasterBand(1).SetNoDataValue(-1)
    dataset = None
    no_comparison("Stack 'elsewhere' holds negative or infinite values, which no probability is.", path)


def test_a_vector_instead_of_a_stack(no_map, no_comparison):
    no_map("GEOLOCATION is '.*', which does not exist or is of the wrong kind.", GEOLOCATION=STATIONS)
    no_comparison("COMPARED: .* is not a raster file that can be read.", STATIONS)


def test_a_missing_stack(no_map, no_comparison, tmp_path):
    missing = str(tmp_path / "nothing.tif")
    no_map("GEOLOCATION is '.*nothing.tif', which does not exist or is of the wrong kind.", GEOLOCATION=missing)
    no_comparison("COMPARED is '.*nothing.tif', which does not exist or is of the wrong kind.", missing)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_damaged_stack(no_map, stack, tmp_path, share):
    path = tmp_path / "cut.tif"
    whole = Path(stack["OUTPUT"]).read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    sentence = (
        r"Stack 'cut' (is damaged|cannot be read) \(.*\); make it again\.|GEOLOCATION: '.*cut\.tif' is not a raster.*"
    )
    no_map(sentence, GEOLOCATION=str(path))


def test_a_stack_with_flipped_bytes(no_map, stack, tmp_path):
    path = tmp_path / "flipped.tif"
    whole = bytearray(Path(stack["OUTPUT"]).read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 2000] = bytes(255 - value for value in whole[middle : middle + 2000])
    path.write_bytes(bytes(whole))
    no_map(
        r"Stack 'flipped' (is damaged \(.*\); make it again|holds negative or infinite values, which no probability is)\.",
        GEOLOCATION=str(path),
    )


# Outputs that cannot be written


@pytest.mark.parametrize(("name", "file"), [("OUTPUT", "s.tif"), ("BEST_SERVER", "b.tif"), ("COVERAGE", "c.gpkg")])
def test_a_path_below_a_file(no_geolocation, tmp_path, name, file):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    path = str(tmp_path / "file" / file)
    no_geolocation(f"{name} cannot be written to '{path}': (Not a directory|File exists).", **{name: path})


def test_a_folder_where_a_file_should_be(no_geolocation, tmp_path):
    for name, file in (("OUTPUT", "s.tif"), ("COVERAGE", "c.gpkg")):
        path = tmp_path / file
        path.mkdir()
        no_geolocation(f"{name} cannot be written to '{path}': .*", **{name: str(path)})
        assert list(path.iterdir()) == []


def test_a_raster_of_another_format(no_geolocation, tmp_path):
    no_geolocation("OUTPUT 's.png' must end in .tif.", OUTPUT=str(tmp_path / "outputs" / "s.png"))


def test_a_layer_of_an_unknown_format(no_geolocation, tmp_path):
    no_geolocation(
        r"COVERAGE 'c\.nope' ends in \.nope, which is no vector format\. Use \.gpkg\.",
        COVERAGE=str(tmp_path / "outputs" / "c.nope"),
    )


def test_an_ending_that_qgis_would_change(no_geolocation, tmp_path):
    no_geolocation(
        r"COVERAGE 'c\.json' ends in \.json, to which QGIS would add \.geojson\. Use \.geojson\.",
        COVERAGE=str(tmp_path / "outputs" / "c.json"),
    )


def test_a_report_below_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    path = str(tmp_path / "file" / "e.html")
    refused("checkenvironment", f"OUTPUT_HTML cannot be written to '{path}': .*", OUTPUT_HTML=path)


def test_two_outputs_at_one_path(no_geolocation, tmp_path):
    path = str(tmp_path / "outputs" / "same.tif")
    no_geolocation(
        f"BEST_SERVER and OUTPUT are the same file, '{path}'; give BEST_SERVER another one.",
        OUTPUT=path,
        BEST_SERVER=path,
    )


def test_the_input_as_output(refused, tmp_path):
    """Writing COVERAGE over the very layer it is made from would destroy it."""
    import processing

    path = tmp_path / "stations.gpkg"
    processing.run("native:savefeatures", {"INPUT": STATIONS, "OUTPUT": str(path)})
    before = path.read_bytes()
    refused(
        "geolocatebasestations",
        f"COVERAGE and INPUT are the same file, '{path}'; give COVERAGE another one.",
        INPUT=str(path),
        CELL_SIZE=1000,
        OUTPUT=str(tmp_path / "stack.tif"),
        COVERAGE=str(path),
    )
    assert len(path.read_bytes()) == len(before)  # the bytes of its change counter differ


# In the real qgis_process


@pytest.mark.qgis_process
def test_qgis_process_fails_with_the_sentence_and_rc_1(qgis_process, tmp_path):
    done = qgis_process("run", "telcoloc:geolocatebasestations", f"--INPUT={STATIONS}", "--ID_FIELD=bsid",
                        "--METHOD=spdi", f"--OUTPUT={tmp_path / 'stack.tif'}")  # fmt: skip
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "ID_FIELD: layer 'sample_city' has no field 'bsid'. Did you mean 'bs_id'?" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.qgis_process
def test_qgis_process_does_not_ignore_a_typo(qgis_process, tmp_path):
    done, _ = qgis_process.run(
        "geolocatebasestations", {"INPUT": STATIONS, "CELSIZE": 500, "OUTPUT": str(tmp_path / "stack.tif")}
    )
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "telcoloc:geolocatebasestations has no parameter 'CELSIZE'. Did you mean CELL_SIZE?" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.qgis_process
def test_a_full_disk(qgis_process, tmp_path):
    """Files may grow to 200 kB, then writing fails as it does when the disk is full."""
    qgis_process("list")  # makes the profile, whose databases are larger
    outputs = {"OUTPUT": "stack.tif", "BEST_SERVER": "best.tif", "COVERAGE": "coverage.gpkg"}
    paths = {name: str(tmp_path / file) for name, file in outputs.items()}
    for name in ("OUTPUT", "COVERAGE"):
        parameters = {"INPUT": STATIONS, "CELL_SIZE": 80, "METHOD": "spdi"}
        parameters.update({"OUTPUT": paths["OUTPUT"], name: paths[name]})
        if name == "COVERAGE":
            parameters["METHOD"] = "voronoi"
        done, answer = qgis_process.run("geolocatebasestations", parameters, before="trap '' XFSZ; ulimit -f 200")
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert answer is None
        assert "Traceback" not in said
        assert "should not have happened" not in said
        assert re.search(rf"{name}|stack\.part", said), said
        assert re.search("File too large|[Ww]rit", said), said
        assert list(tmp_path.iterdir()) == [], said
