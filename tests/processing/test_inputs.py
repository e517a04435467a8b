"""Every form in which users bring base stations, boundaries, extents and KPIs."""

import csv
import re
import shutil

import numpy as np
import pytest
from processing_helpers import SAMPLE, bands_of, layer_of
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsRectangle,
    QgsReferencedRectangle,
    QgsVectorLayer,
)

STATIONS = f"{SAMPLE}|layername=base_stations"
BOUNDARY = f"{SAMPLE}|layername=boundary"
ZONES = f"{SAMPLE}|layername=zones"
FOUR = [("Point (0 0)", "a"), ("Point (1000 0)", "b"), ("Point (0 1000)", "c"), ("Point (1000 1000)", "d")]


@pytest.fixture
def geolocate(run, tmp_path):
    def call(layer, **parameters):
        output = str(tmp_path / "stack.tif")
        return run("geolocatebasestations", **{"INPUT": layer, "ID_FIELD": "id", "OUTPUT": output, **parameters})

    return call


@pytest.fixture
def in_project():
    """Add a layer to the project for the time of a test, as where "selected features only" needs it."""
    project = QgsProject.instance()
    yield project.addMapLayer
    project.removeAllMapLayers()


@pytest.fixture(scope="session")
def reprojected(qgis_app, tmp_path_factory):
    """`reprojected("boundary", "EPSG:3857")`: a layer of the sample city in another CRS."""
    import processing

    folder = tmp_path_factory.mktemp("reprojected")

    def call(layer, crs):
        path = str(folder / f"{layer}_{re.sub('[^0-9]', '', crs)}.gpkg")
        processing.run(
            "native:reprojectlayer", {"INPUT": f"{SAMPLE}|layername={layer}", "TARGET_CRS": crs, "OUTPUT": path}
        )
        return path

    return call


# Base stations


def test_memory_layer(geolocate):
    ran = geolocate(layer_of(FOUR))
    assert ran["BS_COUNT"] == 4
    assert ran.warnings == []
    assert list(bands_of(ran["OUTPUT"])[0]) == ["a", "b", "c", "d"]


def test_without_an_id_field_bands_are_feature_ids(geolocate):
    ran = geolocate(layer_of(FOUR), ID_FIELD=None)
    assert list(bands_of(ran["OUTPUT"])[0]) == ["1", "2", "3", "4"]


def test_whole_numbers_as_ids_read_without_a_point(geolocate):
    ran = geolocate(layer_of([(wkt, 7.0 + row) for row, (wkt, _) in enumerate(FOUR)], fields="id:double"))
    assert list(bands_of(ran["OUTPUT"])[0]) == ["7", "8", "9", "10"]


def test_ids_with_any_letters(geolocate):
    names = ["Σ β/ℓ", "a;b", "<x> & 'y' \"z\"", "基站 1"]
    ran = geolocate(layer_of([(wkt, name) for (wkt, _), name in zip(FOUR, names)]), BEST_SERVER="TEMPORARY_OUTPUT")
    assert list(bands_of(ran["OUTPUT"])[0]) == names


@pytest.mark.parametrize("geometry", ["MultiPoint", "PointZ", "PointM", "MultiPointZ"])
def test_kinds_of_points(geolocate, geometry):
    expected, _ = bands_of(geolocate(layer_of(FOUR), CELL_SIZE=50)["OUTPUT"])
    ran = geolocate(layer_of(FOUR, geometry=geometry), CELL_SIZE=50)
    bands, _ = bands_of(ran["OUTPUT"])
    assert list(bands) == list(expected)
    for name, band in bands.items():
        np.testing.assert_array_equal(band, expected[name])


def test_rows_without_a_usable_place_are_listed_and_the_rest_is_used(geolocate):
    rows = [*FOUR, (None, "null"), ("MultiPoint ((5 5), (6 6))", "two"), ("Point (7 7)", None), ("Point (8 8)", "  ")]
    ran = geolocate(layer_of(rows, geometry="MultiPoint"))
    assert ran["BS_COUNT"] == 4
    assert ran.warnings == [
        "4 of 8 rows cannot be used: feature 5: no geometry; feature 6: 2 points in one feature; "
        "feature 7: id is empty; feature 8: id is empty."
    ]


def test_empty_points(geolocate):
    ran = geolocate(layer_of([*FOUR, ("", "empty")]))
    assert ran["BS_COUNT"] == 4
    assert ran.warnings == ["1 of 5 rows cannot be used: feature 5: no geometry."]


def test_sectors_at_one_place_are_one_base_station(geolocate):
    ran = geolocate(layer_of([*FOUR, ("Point (0 0)", "a2"), ("Point (0 0.001)", "a3"), ("Point (1000 0)", "b")]))
    assert (ran["BS_COUNT"], ran["MERGED"]) == (4, 3)
    assert any("3 sectors were merged" in text and "2 ids are kept as members" in text for text in ran.infos)


def test_selected_features_only(geolocate, in_project):
    layer = layer_of(FOUR)
    in_project(layer)
    layer.selectByIds([1, 2, 4])
    ran = geolocate(QgsProcessingFeatureSourceDefinition(layer.id(), True))
    assert list(bands_of(ran["OUTPUT"])[0]) == ["a", "b", "d"]


def test_filtered_layer(geolocate, tmp_path):
    # A file of its own: QGIS 3.40 gives other layers of a GeoPackage no CRS while one of them is filtered and open twice.
    file = shutil.copy(SAMPLE, tmp_path)
    layer = QgsVectorLayer(f"{file}|layername=base_stations", "filtered", "ogr")
    assert layer.setSubsetString("\"urbanisation\" = 'urban'")
    ran = geolocate(layer, ID_FIELD="bs_id", CELL_SIZE=200)
    assert 0 < ran["BS_COUNT"] == sum(1 for _ in layer.getFeatures()) < 105


def test_extent_of_a_csv_with_text_only(run, tmp_path):
    import processing

    table = tmp_path / "sites.csv"
    table.write_text("site,lon,lat\nA,-15.15,45.10\nB,-15.12,45.10\nC,-15.15,45.13\n", encoding="utf-8")
    points = processing.run(
        "native:createpointslayerfromtable",
        {
            "INPUT": str(table),
            "XFIELD": "lon",
            "YFIELD": "lat",
            "TARGET_CRS": "EPSG:4326",
            "OUTPUT": "TEMPORARY_OUTPUT",
        },
    )["OUTPUT"]
    ran = run("geolocatebasestations", INPUT=points, ID_FIELD="site", OUTPUT=str(tmp_path / "stack.tif"))
    assert ran["BS_COUNT"] == 3
    assert ran["CRS"].startswith("EPSG:32628")


# Coordinate reference systems


@pytest.mark.parametrize(
    ("crs", "point", "step", "expected"),
    [
        ("EPSG:32628", (500_000, 5_000_000), 1000, "EPSG:32628"),
        ("EPSG:4326", (-15.1, 45.1), 0.01, "EPSG:32628"),
        ("EPSG:4326", (151.2, -33.9), 0.01, "EPSG:32756"),
        ("EPSG:3857", (-1_680_000, 5_640_000), 1400, "EPSG:32628"),
        ("EPSG:2263", (1_000_000, 200_000), 3300, "EPSG:32618"),  # New York, US survey feet
        ("EPSG:3035", (4_321_000, 3_210_000), 1000, "EPSG:3035"),
        ("EPSG:4326", (10.0, 85.0), 0.01, "+proj=laea"),  # beyond UTM
    ],
)
def test_distances_are_in_metres_in_any_crs(geolocate, crs, point, step, expected):
    x, y = point
    rows = [
        (f"Point ({x + step * column} {y + step * row})", f"{row}{column}") for row in range(3) for column in range(3)
    ]
    ran = geolocate(layer_of(rows, crs=crs), COVERAGE="TEMPORARY_OUTPUT", CELL_SIZE=200)
    assert ran["CRS"].startswith(expected)
    _, dataset = bands_of(ran["OUTPUT"])
    written = QgsCoordinateReferenceSystem.fromWkt(dataset.GetProjection())
    assert written.isValid()
    assert written.authid() == (expected if expected.startswith("EPSG") else "")
    assert ran["COVERAGE"].crs().isValid()
    _, width, _, _, _, height = dataset.GetGeoTransform()
    assert (width, height) == (200, -200)
    assert any(ran["CRS"].split(" (")[0] in text for text in ran.infos)


def test_a_layer_over_several_utm_zones(geolocate):
    rows = [(f"Point ({lon} {lat})", f"{lon}_{lat}") for lon in range(-20, 21, 5) for lat in (40, 45, 50)]
    ran = geolocate(layer_of(rows, crs="EPSG:4326"), METHOD="voronoi", CELL_SIZE=20_000, COVERAGE="TEMPORARY_OUTPUT")
    assert "+proj=laea" in ran["CRS"]
    bands, _ = bands_of(ran["OUTPUT"])
    assert len(bands) == 27
    assert all(band.sum() == pytest.approx(1, abs=1e-5) for band in bands.values())


def test_a_layer_across_the_antimeridian_stays_together(geolocate):
    rows = [
        (f"Point ({lon} {lat})", f"{lon}_{lat}") for lon in (179.9, 179.95, -179.95, -179.9) for lat in (-17.0, -16.95)
    ]
    ran = geolocate(layer_of(rows, crs="EPSG:4326"), CELL_SIZE=500)
    _, dataset = bands_of(ran["OUTPUT"])
    assert dataset.RasterXSize < 200  # 21 km and margins, not once around the earth


def test_boundary_and_extent_in_other_crs_than_the_base_stations(geolocate, reprojected):
    expected = geolocate(
        STATIONS, ID_FIELD="bs_id", CELL_SIZE=400, BOUNDARY=BOUNDARY, EXTENT="490000,506000,4994000,5006000"
    )
    filled, dataset = bands_of(expected["OUTPUT"])
    inside = sum(filled.values()) > 0
    there = QgsCoordinateReferenceSystem("EPSG:4326")
    here = QgsCoordinateReferenceSystem("EPSG:32628")
    box = QgsCoordinateTransform(here, there, QgsProject.instance()).transformBoundingBox(
        QgsRectangle(490_000, 4_994_000, 506_000, 5_006_000)
    )
    for extent in (
        QgsReferencedRectangle(box, there),
        f"{box.xMinimum()},{box.xMaximum()},{box.yMinimum()},{box.yMaximum()} [EPSG:4326]",
    ):
        ran = geolocate(
            reprojected("base_stations", "EPSG:4326"),
            ID_FIELD="bs_id",
            CELL_SIZE=400,
            BOUNDARY=reprojected("boundary", "EPSG:3857"),
            EXTENT=extent,
        )
        bands, other = bands_of(ran["OUTPUT"])
        rows = round((other.GetGeoTransform()[3] - dataset.GetGeoTransform()[3]) / 400)
        columns = round((dataset.GetGeoTransform()[0] - other.GetGeoTransform()[0]) / 400)
        window = np.s_[rows : rows + inside.shape[0], columns : columns + inside.shape[1]]
        again = (sum(bands.values()) > 0)[window]
        assert (again != inside).mean() < 0.002
        assert (sum(bands.values()) > 0).sum() <= inside.sum() * 1.12  # the extent is the box of a turned box


def test_an_extent_given_as_a_layer(geolocate):
    ran = geolocate(STATIONS, ID_FIELD="bs_id", CELL_SIZE=400, EXTENT=ZONES)
    _, dataset = bands_of(ran["OUTPUT"])
    assert dataset.GetGeoTransform()[0] == pytest.approx(488_350, abs=400)


# Boundaries


def test_boundary_with_broken_rings_is_mended_and_useless_parts_are_listed(geolocate):
    bow_tie = "Polygon ((-500 -500, 1500 1500, 1500 -500, -500 1500, -500 -500))"
    boundary = layer_of([(bow_tie,), (None,), ("Polygon ((0 0, 1 1, 0 0))",)], geometry="Polygon", fields="n:int")
    ran = geolocate(layer_of(FOUR), BOUNDARY=boundary)
    assert ran.warnings == ["BOUNDARY: 2 polygons cannot be used: feature 2: no geometry; feature 3: no area."]


def test_two_boundary_polygons_and_a_hole(geolocate):
    ring = "Polygon ((-500 -500, 1500 -500, 1500 1500, -500 1500, -500 -500), (400 400, 600 400, 600 600, 400 600, 400 400))"
    far = "Polygon ((1600 1600, 1700 1600, 1700 1700, 1600 1700, 1600 1600))"
    boundary = layer_of([(ring,), (far,)], geometry="Polygon", fields="n:int")
    ran = geolocate(layer_of(FOUR), BOUNDARY=boundary, CELL_SIZE=100)
    filled = sum(bands_of(ran["OUTPUT"])[0].values()) > 0
    assert filled.sum() == 20 * 20 - 4 + 1


# KPIs


@pytest.fixture
def kpi_csv(tmp_path):
    path = tmp_path / "kpis.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerows([["bs", "h00", "h01"], ["PM001", "1,5", "2"], ["PM002", " 3.25 ", "1e2"], ["PM003", "", "4"]])
    return path


def test_a_csv_whose_numbers_are_text(run, stack, kpi_csv, tmp_path):
    ran = run(
        "mapmetadata",
        GEOLOCATION=stack["OUTPUT"],
        INPUT=str(kpi_csv),
        ID_FIELD="bs",
        FIELDS=["h00", "h01"],
        UNIT="per_cell",
        OUTPUT=str(tmp_path / "density.tif"),
    )
    bands, _ = bands_of(ran["OUTPUT"])
    assert bands["h00"][bands["h00"] > 0].sum() == pytest.approx(4.75, rel=1e-5)
    assert bands["h01"][bands["h01"] > 0].sum() == pytest.approx(106, rel=1e-5)
    assert ran["MATCHED"] == 3
    assert any(
        re.search("1 rows hold empty or NaN values, which count as 0: 'PM003': h00", text) for text in ran.warnings
    )


def test_zones_in_another_crs(run, stack, reprojected, tmp_path):
    totals = {}
    for name, zones in (("same", ZONES), ("other", reprojected("zones", "EPSG:4326"))):
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
        layer = ran["ZONE_TOTALS"]
        assert layer.crs().authid() == "EPSG:32628"
        totals[name] = np.array([feature["h12"] for feature in layer.getFeatures()])
    np.testing.assert_allclose(totals["other"], totals["same"], rtol=0.02)


def test_selected_rows_and_zones_only(run, stack, in_project, tmp_path):
    stations, zones = QgsVectorLayer(STATIONS, "stations", "ogr"), QgsVectorLayer(ZONES, "zones", "ogr")
    for layer in (stations, zones):
        in_project(layer)
    stations.selectByExpression("\"bs_id\" in ('PM001', 'PM002')")
    zones.selectByIds([next(zones.getFeatures()).id()])
    ran = run(
        "mapmetadata",
        GEOLOCATION=stack["OUTPUT"],
        INPUT=QgsProcessingFeatureSourceDefinition(stations.id(), True),
        ID_FIELD="bs_id",
        FIELDS=["h12", "h13"],
        ZONES=QgsProcessingFeatureSourceDefinition(zones.id(), True),
        ZONE_TOTALS="TEMPORARY_OUTPUT",
        OUTPUT=str(tmp_path / "density.tif"),
    )
    assert ran["MATCHED"] == 2
    assert ran["ZONE_TOTALS"].featureCount() == 1


def test_a_table_without_geometry_and_rows_that_add_up(run, stack, tmp_path):
    rows = [(None, "PM001", 1.0), (None, "PM001", 2.0), (None, "PM002", 4.0), (None, "elsewhere", 8.0)]
    table = layer_of(rows, geometry="None", crs="", fields="bs:string,users:double")
    ran = run(
        "mapmetadata",
        GEOLOCATION=stack["OUTPUT"],
        INPUT=table,
        ID_FIELD="bs",
        FIELDS=["users"],
        OUTPUT=str(tmp_path / "density.tif"),
    )
    assert (ran["TOTAL_INPUT"], ran["TOTAL_UNMAPPED"], ran["UNMATCHED"]) == (15, 8, 1)
    assert ran["TOTAL_MAPPED"] == pytest.approx(7, rel=1e-6)
    assert ran.warnings == ["1 rows have no band in the stack and are not mapped: 'elsewhere'."]
