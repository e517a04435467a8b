"""What runs leave behind: complete, typed, described, conserving, or nothing at all."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal, ogr
from processing_helpers import SAMPLE, bands_of, layer_of, leftovers, needs_weights
from qgis.core import QgsProcessingException, QgsVectorLayer
from telcoloc.models.geolocation.engine import METHODS

STATIONS = f"{SAMPLE}|layername=base_stations"
BOUNDARY = f"{SAMPLE}|layername=boundary"
ZONES = f"{SAMPLE}|layername=zones"
FIELDS = ["h08", "h12", "h20"]
NODATA = -9999.0  # where no base station reaches


def ids_of_the_sample():
    return [feature["bs_id"] for feature in QgsVectorLayer(STATIONS, "s", "ogr").getFeatures()]


@pytest.fixture(scope="module")
def density(run, stack, tmp_path_factory):
    return run(
        "mapmetadata",
        GEOLOCATION=stack["OUTPUT"],
        INPUT=STATIONS,
        ID_FIELD="bs_id",
        FIELDS=FIELDS,
        ZONES=ZONES,
        OUTPUT=str(tmp_path_factory.mktemp("density") / "new" / "folder" / "density.tif"),
        ZONE_TOTALS=str(tmp_path_factory.mktemp("zones") / "new" / "folder" / "totals.gpkg"),
    )


@pytest.fixture(scope="module")
def comparison(run, stack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "new"
    voronoi = str(folder / "voronoi.tif")
    run(
        "geolocatebasestations",
        INPUT=STATIONS,
        ID_FIELD="bs_id",
        METHOD="voronoi",
        BOUNDARY=BOUNDARY,
        CELL_SIZE=200,
        OUTPUT=voronoi,
    )
    return run(
        "comparegeolocations",
        REFERENCE=stack["OUTPUT"],
        COMPARED=[voronoi, stack["OUTPUT"]],
        OUTPUT=str(folder / "comparison.csv"),
        OUTPUT_HTML=str(folder / "deeper" / "report.html"),
    )


# All outputs, with values any caller understands


@pytest.mark.parametrize(
    ("name", "fixture"),
    [
        ("geolocatebasestations", "stack"),
        ("mapmetadata", "density"),
        ("comparegeolocations", "comparison"),
    ],
)
def test_all_declared_outputs_are_there_as_plain_python(provider, request, name, fixture):
    results = request.getfixturevalue(fixture).results
    assert set(results) == {each.name() for each in provider.algorithm(name).outputDefinitions()}
    assert all(type(value) in (int, float, str, bool) for value in results.values()), results
    assert all(math.isfinite(value) for value in results.values() if isinstance(value, float))
    json.dumps(results)


def test_all_outputs_of_check_environment(provider, run, tmp_path):
    ran = run("checkenvironment", OUTPUT_HTML=str(tmp_path / "a" / "environment.html"))
    assert set(ran.results) == {each.name() for each in provider.algorithm("checkenvironment").outputDefinitions()}
    assert all(type(value) in (int, float, str, bool) for value in ran.results.values())
    assert "<html" in Path(ran["OUTPUT_HTML"]).read_text(encoding="utf-8").lower()


@pytest.mark.parametrize("fixture", ["stack", "density", "comparison"])
def test_folders_hold_what_was_asked_for_and_styles(request, fixture):
    results = request.getfixturevalue(fixture).results
    for path in (Path(value) for value in results.values() if isinstance(value, str) and Path(value).is_file()):
        assert leftovers(path.parent) == []
        assert path.stat().st_size
        if path.suffix in (".tif", ".gpkg"):
            assert path.with_suffix(".qml").stat().st_size


def test_styles_beside_rasters_and_layers_load(stack, density):
    from qgis.core import QgsRasterLayer

    for path in (stack["OUTPUT"], stack["BEST_SERVER"], density["OUTPUT"]):
        layer = QgsRasterLayer(path, "x")
        assert layer.isValid()
        assert layer.loadNamedStyle(str(Path(path).with_suffix(".qml")))[1]
    for path in (stack["COVERAGE"], density["ZONE_TOTALS"]):
        layer = QgsVectorLayer(path, "x", "ogr")
        assert layer.loadNamedStyle(str(Path(path).with_suffix(".qml")))[1]


# The stack


def test_the_stack_is_described(stack):
    bands, dataset = bands_of(stack["OUTPUT"])
    assert list(bands) == ids_of_the_sample()
    band = dataset.GetRasterBand(1)
    assert band.DataType == gdal.GDT_Float32
    assert band.GetNoDataValue() == 0
    assert "32628" in dataset.GetProjection()
    assert dataset.GetMetadataItem("INTERLEAVE", "IMAGE_STRUCTURE") == "BAND"
    assert dataset.GetMetadataItem("TELCOLOC_METHOD") == "spdi"
    assert dataset.GetMetadataItem("TELCOLOC_FORM") == "location_given_bs"
    assert "sums to 1" in dataset.GetMetadataItem("TELCOLOC_CONTENT")
    assert dataset.GetGeoTransform()[1::4] == (200, -200)


def test_bands_sum_to_one(stack):
    bands, _ = bands_of(stack["OUTPUT"])
    sums = np.array([band.sum(dtype=float) for band in bands.values()])
    assert abs(sums - 1).max() < 1e-5
    assert min(band.min() for band in bands.values()) >= 0


@pytest.mark.parametrize("method", METHODS)
def test_cells_sum_to_one_in_the_other_form(run, stack, tmp_path, method):
    """Methods that draw each base station's map by itself may leave far cells to nobody."""
    needs_weights(method)
    ran = run(
        "geolocatebasestations",
        INPUT=STATIONS,
        ID_FIELD="bs_id",
        METHOD=method,
        BOUNDARY=BOUNDARY,
        CELL_SIZE=200,
        CONDITIONAL="bs_given_location",
        OUTPUT=str(tmp_path / "cells.tiff"),
        BEST_SERVER=str(tmp_path / "best.tif"),
    )
    bands, dataset = bands_of(ran["OUTPUT"])
    share = np.stack(list(bands.values()))
    total = share.sum(axis=0, dtype=float)
    land = sum(bands_of(stack["OUTPUT"])[0].values()) > 0
    assert not (total > 0)[~land].any()
    if method in ("voronoi", "spdi", "deepmend_beta"):
        np.testing.assert_array_equal(total > 0, land)
    land = total > 0
    assert abs(total[land] - 1).max() < 1e-5
    assert dataset.GetMetadataItem("TELCOLOC_FORM") == "bs_given_location"
    best, _ = bands_of(ran["BEST_SERVER"])
    best = list(best.values())
    np.testing.assert_allclose(best[1][land], share.max(axis=0)[land], rtol=1e-6)
    chosen = np.take_along_axis(share, np.maximum(best[0], 0).astype(int)[None], axis=0)[0]
    np.testing.assert_allclose(chosen[land], share.max(axis=0)[land], rtol=1e-6)
    entropy = -np.where(share > 0, share * np.log2(np.where(share > 0, share, 1)), 0).sum(axis=0)
    np.testing.assert_allclose(best[2][land], entropy[land], atol=1e-4)
    assert (best[0][~land] == -1).all()


# Best server and coverage


def test_the_attribute_table_of_the_best_server(stack):
    _, dataset = bands_of(stack["BEST_SERVER"])
    assert dataset.RasterCount == 3
    assert dataset.GetRasterBand(1).GetNoDataValue() == -1
    table = dataset.GetRasterBand(1).GetDefaultRAT()
    columns = {table.GetNameOfCol(column): column for column in range(table.GetColumnCount())}
    assert {"value", "bs_id", "x_m", "y_m", "sectors", "best_server_cells", "mass_cut", "red"} <= set(columns)
    stations = list(QgsVectorLayer(STATIONS, "s", "ogr").getFeatures())
    assert table.GetRowCount() == len(stations)
    cells = dataset.GetRasterBand(1).ReadAsArray()
    for row, station in enumerate(stations):
        assert table.GetValueAsInt(row, columns["value"]) == row
        assert table.GetValueAsString(row, columns["bs_id"]) == station["bs_id"]
        assert table.GetValueAsDouble(row, columns["x_m"]) == pytest.approx(station.geometry().asPoint().x())
        assert table.GetValueAsInt(row, columns["best_server_cells"]) == (cells == row).sum()


def test_coverage_areas_hold_their_share(stack):
    bands, dataset = bands_of(stack["OUTPUT"])
    layer = QgsVectorLayer(stack["COVERAGE"], "coverage", "ogr")
    assert layer.crs().authid() == "EPSG:32628"
    assert layer.featureCount() == 3 * len(bands)
    areas = {}
    vector = ogr.Open(stack["COVERAGE"])
    for feature in vector.GetLayer(0):
        target = gdal.GetDriverByName("MEM").Create("", dataset.RasterXSize, dataset.RasterYSize, 1, gdal.GDT_Byte)
        target.SetGeoTransform(dataset.GetGeoTransform())
        memory = ogr.GetDriverByName("Memory").CreateDataSource("")
        memory_layer = memory.CreateLayer("one")
        memory_layer.CreateFeature(feature.Clone())
        gdal.RasterizeLayer(target, [1], memory_layer, burn_values=[1])
        inside = target.ReadAsArray().astype(bool)
        band = bands[feature["bs_id"]]
        held = band[inside].sum(dtype=float)
        assert held == pytest.approx(feature["mass"], abs=1e-5)
        assert held >= feature["level"] / 100 - 1e-5
        assert held - band[inside].min() < feature["level"] / 100 + 1e-5, "one cell less would not do"
        assert feature["area_km2"] == pytest.approx(inside.sum() * 0.04)
        assert feature.GetGeometryRef().Area() / 1e6 == pytest.approx(feature["area_km2"])
        areas.setdefault(feature["bs_id"], {})[feature["level"]] = feature["area_km2"]
    assert all(each[50] <= each[75] <= each[95] for each in areas.values())


def test_a_layer_is_added_to_an_existing_geopackage(run, tmp_path):
    import processing

    path = tmp_path / "all.gpkg"
    processing.run("native:savefeatures", {"INPUT": ZONES, "OUTPUT": str(path), "LAYER_NAME": "zones"})
    run(
        "geolocatebasestations",
        INPUT=STATIONS,
        CELL_SIZE=500,
        OUTPUT=str(tmp_path / "stack.tif"),
        COVERAGE=f"ogr:dbname='{path}' table=\"coverage\" (geom)",
    )
    names = {layer.GetName() for layer in ogr.Open(str(path))}
    assert names == {"zones", "coverage"}


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".fgb", ".csv"])
def test_vector_outputs_in_any_format_and_written_over(run, tmp_path, suffix):
    path = tmp_path / "new" / f"coverage{suffix}"
    for _ in range(2):
        ran = run(
            "geolocatebasestations",
            INPUT=STATIONS,
            CELL_SIZE=1000,
            METHOD="voronoi",
            OUTPUT=str(tmp_path / "stack.tif"),
            COVERAGE=str(path),
        )
        layer = QgsVectorLayer(str(path), "coverage", "ogr")
        assert layer.featureCount() == 3 * (105 - ran["SKIPPED"])
        assert leftovers(tmp_path) == []


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_points_keep_their_position_where_a_format_has_no_geometry(run, tmp_path, suffix):
    city = f"{SAMPLE.parent / 'sample_city.gpkg'}|layername=walks_truth"
    path = tmp_path / f"errors{suffix}"
    run("evaluatelocalization", PREDICTED=city, TRUTH=city, ERRORS=str(path))
    rows = list(QgsVectorLayer(str(path), "errors", "ogr").getFeatures())
    assert len(rows) == 1021
    for row in rows[:20]:
        assert float(row["lon"]) == pytest.approx(float(row["true_lon"]), abs=1e-6)
        assert float(row["lat"]) == pytest.approx(float(row["true_lat"]), abs=1e-6)


def test_temporary_outputs(run):
    ran = run("geolocatebasestations", INPUT=STATIONS, CELL_SIZE=1000, OUTPUT="TEMPORARY_OUTPUT", COVERAGE="memory:")
    assert Path(ran["OUTPUT"]).is_file()
    assert ran["COVERAGE"].featureCount() > 0


# KPIs


def test_totals_are_conserved(density):
    table = QgsVectorLayer(STATIONS, "s", "ogr")
    given = sum(feature[field] for feature in table.getFeatures() for field in FIELDS)
    assert density["TOTAL_INPUT"] == pytest.approx(given, rel=1e-12)
    assert density["TOTAL_MAPPED"] + density["TOTAL_UNMAPPED"] == pytest.approx(given, rel=1e-6)
    bands, dataset = bands_of(density["OUTPUT"])
    km2 = abs(dataset.GetGeoTransform()[1] * dataset.GetGeoTransform()[5]) / 1e6
    raster = sum(band[band != NODATA].sum(dtype=float) for band in bands.values()) * km2
    assert raster == pytest.approx(density["TOTAL_MAPPED"], rel=1e-6)
    zones = QgsVectorLayer(density["ZONE_TOTALS"], "zones", "ogr")
    assert zones.featureCount() == 37
    inside = sum(feature[field] for feature in zones.getFeatures() for field in FIELDS)
    assert inside + density["TOTAL_OUTSIDE_ZONES"] == pytest.approx(density["TOTAL_MAPPED"], rel=1e-6)
    assert density["TOTAL_OUTSIDE_ZONES"] < 0.05 * density["TOTAL_MAPPED"]  # the zones are the boundary


def test_zones_smaller_than_half_a_cell_get_their_share(run, stack, density, tmp_path):
    bands, dataset = bands_of(density["OUTPUT"])
    amount = np.where(bands["h12"] == NODATA, 0, bands["h12"]) * 0.04
    left, size, _, top, _, _ = dataset.GetGeoTransform()
    rows, columns = (int(each) for each in np.unravel_index(amount.argmax(), amount.shape))
    expected, squares = [], []
    for step in (-10, 0, 10):  # squares of 60 m in the middle of cells of 200 m
        x, y = left + (columns + step + 0.5) * size, top - (rows + 0.5) * size
        expected.append(amount[rows, columns + step] * 0.09)
        squares.append(
            f"Polygon (({x - 30} {y - 30}, {x + 30} {y - 30}, {x + 30} {y + 30}, {x - 30} {y + 30}, {x - 30} {y - 30}))"
        )
    x, y = left + (columns - 2) * size, top - (rows + 4) * size
    large = f"Polygon (({x} {y}, {x + 4 * size} {y}, {x + 4 * size} {y - 3 * size}, {x} {y - 3 * size}, {x} {y}))"
    zones = layer_of([(wkt,) for wkt in (*squares, large)], geometry="Polygon", fields="n:int")
    ran = run(
        "mapmetadata",
        GEOLOCATION=stack["OUTPUT"],
        INPUT=STATIONS,
        ID_FIELD="bs_id",
        FIELDS=["h12"],
        ZONES=zones,
        ZONE_TOTALS="TEMPORARY_OUTPUT",
        OUTPUT=str(tmp_path / "density.tif"),
    )
    totals = [feature["h12"] for feature in ran["ZONE_TOTALS"].getFeatures()]
    assert min(expected) > 0
    np.testing.assert_allclose(totals[:3], expected, rtol=1e-5)
    block = amount[rows + 4 : rows + 7, columns - 2 : columns + 2]
    assert totals[3] == pytest.approx(block.sum(), rel=1e-5)
    assert sum(totals) + ran["TOTAL_OUTSIDE_ZONES"] == pytest.approx(ran["TOTAL_MAPPED"], rel=1e-6)
    assert ran.warnings == []


def test_zones_with_a_spike_keep_their_area(run, stack, tmp_path):
    """Mending makes a polygon and a line of them, which no layer of polygons takes."""
    spike = "Polygon ((495000 4999000, 497000 4999000, 497000 5001000, 497000 5003000, 497000 5001000, 495000 5001000, 495000 4999000))"
    area = layer_of([(spike,)], geometry="Polygon", fields="n:int")
    for output in ("TEMPORARY_OUTPUT", str(tmp_path / "totals.gpkg")):
        ran = run(
            "mapmetadata",
            GEOLOCATION=stack["OUTPUT"],
            INPUT=STATIONS,
            ID_FIELD="bs_id",
            FIELDS=["h12"],
            ZONES=area,
            ZONE_TOTALS=output,
            OUTPUT=str(tmp_path / "density.tif"),
        )
        layer = ran["ZONE_TOTALS"]
        layer = QgsVectorLayer(layer, "z", "ogr") if isinstance(layer, str) else layer
        (zone,) = layer.getFeatures()
        assert zone.geometry().area() == pytest.approx(4e6)
        assert zone["h12"] > 0
    path = str(tmp_path / "stack.tif")
    run("geolocatebasestations", INPUT=STATIONS, ID_FIELD="bs_id", BOUNDARY=area, CELL_SIZE=200, OUTPUT=path)
    assert (sum(bands_of(path)[0].values()) > 0).sum() == 100


def test_the_density_is_described(density):
    bands, dataset = bands_of(density["OUTPUT"])
    assert list(bands) == FIELDS
    assert dataset.GetRasterBand(1).GetNoDataValue() == NODATA
    assert dataset.GetMetadataItem("TELCOLOC_UNIT") == "per_km2"
    assert density["TIME_RANGE"] == "2024-01-01T08:00:00+00:00/2024-01-01T21:00:00+00:00"


def test_zone_totals_keep_the_zones(density):
    before = {each["zone_id"]: each for each in QgsVectorLayer(ZONES, "z", "ogr").getFeatures()}
    for after in QgsVectorLayer(density["ZONE_TOTALS"], "z", "ogr").getFeatures():
        zone = before[after["zone_id"]]
        assert after["population"] == zone["population"]
        assert after.geometry().area() == pytest.approx(zone.geometry().area())


def test_per_cell_times_cells_is_per_km2_times_area(run, stack, density, tmp_path):
    ran = run(
        "mapmetadata",
        GEOLOCATION=stack["OUTPUT"],
        INPUT=STATIONS,
        ID_FIELD="bs_id",
        FIELDS=FIELDS[:1],
        UNIT="per_cell",
        OUTPUT=str(tmp_path / "cells.tif"),
    )
    per_km2 = bands_of(density["OUTPUT"])[0]["h08"]
    np.testing.assert_allclose(
        bands_of(ran["OUTPUT"])[0]["h08"], np.where(per_km2 == NODATA, NODATA, per_km2 * 0.04), rtol=1e-6
    )
    assert ran["TOTAL_OUTSIDE_ZONES"] is None


def test_members_of_merged_sites_are_found(run, tmp_path):
    """The stack keeps every sector's id, so KPIs per sector map although a band has the first sector's name."""
    output = str(tmp_path / "stack.tif")
    cells = f"{SAMPLE}|layername=cells"
    ran = run("geolocatebasestations", INPUT=cells, ID_FIELD="cell_id", CELL_SIZE=500, OUTPUT=output)
    assert (ran["BS_COUNT"], ran["MERGED"]) == (105, 312 - 105)
    ran = run(
        "mapmetadata",
        GEOLOCATION=output,
        INPUT=cells,
        ID_FIELD="cell_id",
        FIELDS=["height_m"],
        OUTPUT=str(tmp_path / "density.tif"),
    )
    assert (ran["MATCHED"], ran["UNMATCHED"]) == (312, 0)
    assert ran["TOTAL_MAPPED"] == pytest.approx(ran["TOTAL_INPUT"], rel=1e-6)


# Comparison


def test_comparison_with_itself_and_with_another(comparison):
    medians = json.loads(comparison["MEDIANS"])
    assert medians["stack"] == pytest.approx(0, abs=1e-6)
    assert 0 < medians["voronoi"] == pytest.approx(comparison["MEDIAN_KS2"], abs=1e-6)
    assert comparison["BEST"] == "stack"
    assert 0 < comparison["MEDIAN_OVERLAP"] < 1
    rows = list(QgsVectorLayer(comparison["OUTPUT"], "c", "ogr").getFeatures())
    assert len(rows) == 2 * 105
    html = Path(comparison["OUTPUT_HTML"]).read_text(encoding="utf-8")
    assert "<svg" in html
    assert "voronoi" in html


def test_methods_are_judged_by_the_base_stations_of_all(run, stack, tmp_path):
    """`few` has three base stations, one of them without mass; the other stack is the reference itself."""
    bands, dataset = bands_of(stack["OUTPUT"])
    driver = gdal.GetDriverByName("GTiff")
    few = str(tmp_path / "few.tif")
    shape = dataset.RasterXSize, dataset.RasterYSize
    copy = driver.Create(few, *shape, 3, gdal.GDT_Float32)
    copy.SetGeoTransform(dataset.GetGeoTransform())
    copy.SetProjection(dataset.GetProjection())
    for index, (name, values) in enumerate(
        (("PM001", bands["PM002"]), ("PM002", bands["PM002"]), ("PM003", 0 * bands["PM001"])), 1
    ):
        copy.GetRasterBand(index).SetDescription(name)
        copy.GetRasterBand(index).WriteArray(values)
    copy = None
    ran = run(
        "comparegeolocations",
        REFERENCE=stack["OUTPUT"],
        COMPARED=[few, stack["OUTPUT"]],
        OUTPUT=str(tmp_path / "comparison.csv"),
        OUTPUT_HTML=str(tmp_path / "report.html"),
    )
    table = [
        (row["method"], row["bs_id"], row["ks2"]) for row in QgsVectorLayer(ran["OUTPUT"], "c", "ogr").getFeatures()
    ]
    assert len(table) == 3 + 105
    of_few = {bs: value for method, bs, value in table if method == "few"}
    assert ran["BS_COUNT"] == 2
    assert ran["MEDIAN_KS2"] == pytest.approx((float(of_few["PM001"]) + float(of_few["PM002"])) / 2)
    assert json.loads(ran["MEDIANS"])["stack"] == pytest.approx(0, abs=1e-6)
    sentence = "Medians and charts are over the 2 base stations with mass in all stacks; single stacks have up to 105."
    assert sentence in ran.warnings
    html = Path(ran["OUTPUT_HTML"]).read_text(encoding="utf-8")
    assert "Over the base stations with mass in all stacks" in html
    assert ">105<" not in html


# Failed runs


def test_a_failed_run_leaves_older_outputs_as_they_were(run, tmp_path):
    """The last output cannot be written, after the others were."""
    parameters = {"INPUT": STATIONS, "CELL_SIZE": 1000, "METHOD": "voronoi"}
    names = {"OUTPUT": "stack.tif", "BEST_SERVER": "best.tif"}
    paths = {name: str(tmp_path / file) for name, file in names.items()}
    run("geolocatebasestations", **parameters, **paths)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(QgsProcessingException):
        run("geolocatebasestations", **parameters, **paths, BETA=2, COVERAGE=str(tmp_path / "file" / "coverage.gpkg"))
    (tmp_path / "file").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
def test_a_run_that_fails_while_writing_a_layer_brings_the_older_one_back(run, tmp_path, monkeypatch, suffix):
    from telcoloc.telcoloc_qgis.outputs import OutputError, Outputs

    parameters = {
        "INPUT": STATIONS,
        "CELL_SIZE": 1000,
        "METHOD": "voronoi",
        "OUTPUT": str(tmp_path / "stack.tif"),
        "COVERAGE": str(tmp_path / f"coverage{suffix}"),
    }
    run("geolocatebasestations", **parameters)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OutputError("The disk is full.")

    monkeypatch.setattr(Outputs, "_check_written", full)
    with pytest.raises(QgsProcessingException, match="The disk is full"):
        run("geolocatebasestations", **{**parameters, "CELL_SIZE": 2000})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_layer_of_a_failed_run_is_gone(run, tmp_path, monkeypatch):
    from telcoloc.telcoloc_qgis.outputs import OutputError, Outputs

    def full(*_):
        raise OutputError("The disk is full.")

    monkeypatch.setattr(Outputs, "_check_written", full)
    for suffix in (".gpkg", ".shp"):
        with pytest.raises(QgsProcessingException, match="The disk is full"):
            run(
                "geolocatebasestations",
                INPUT=STATIONS,
                CELL_SIZE=1000,
                OUTPUT=str(tmp_path / "stack.tif"),
                COVERAGE=str(tmp_path / f"coverage{suffix}"),
            )
        assert list(tmp_path.iterdir()) == []
