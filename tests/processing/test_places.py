"""Where on the earth things are: extents without a CRS, distorted projections, the antimeridian, a place that is a mistake."""

import numpy as np
import pytest
from processing_helpers import SAMPLE, bands_of, layer_of
from qgis.core import QgsCoordinateReferenceSystem, QgsCoordinateTransform, QgsProject, QgsVectorLayer

STATIONS = f"{SAMPLE}|layername=base_stations"


@pytest.fixture
def in_degrees(run):
    return run("native:reprojectlayer", INPUT=STATIONS, TARGET_CRS="EPSG:4326", OUTPUT="memory:")["OUTPUT"]


def test_an_extent_without_a_crs_is_in_that_of_the_stations(run, in_degrees, tmp_path):
    box = in_degrees.extent()
    text = f"{box.xMinimum()},{box.xMaximum()},{box.yMinimum()},{box.yMaximum()}"
    outputs = [str(tmp_path / name) for name in ("bare.tif", "named.tif")]
    for extent, output in zip((text, f"{text} [EPSG:4326]"), outputs):
        run("geolocatebasestations", INPUT=in_degrees, ID_FIELD="bs_id", CELL_SIZE=500, EXTENT=extent, OUTPUT=output)
    (bare, dataset), (named, other) = (bands_of(output) for output in outputs)
    assert dataset.GetGeoTransform() == other.GetGeoTransform()
    for name, band in bare.items():
        np.testing.assert_array_equal(band, named[name])
    assert dataset.RasterXSize > 40


def test_an_extent_elsewhere_is_refused(refused, tmp_path):
    refused(
        "geolocatebasestations",
        r"EXTENT lies wholly outside the base stations and their margin of [\d,]+ m\. Check its coordinates and CRS\.",
        INPUT=STATIONS,
        CELL_SIZE=500,
        EXTENT="0,1000,0,1000 [EPSG:32628]",
        OUTPUT=str(tmp_path / "stack.tif"),
    )


def test_a_projection_that_stretches_one_way_and_squeezes_the_other_is_not_metric(run, tmp_path):
    """EPSG:6933 keeps areas, so at 38° N its errors in x and y cancel in the mean."""
    transform = QgsCoordinateTransform(
        QgsCoordinateReferenceSystem("EPSG:4326"), QgsCoordinateReferenceSystem("EPSG:6933"), QgsProject.instance()
    )
    athens = transform.transform(23.7, 38.0)
    layer = layer_of(
        [(f"Point ({athens.x() + dx} {athens.y() + dy})", f"{dx}_{dy}") for dx in (0, 1000) for dy in (0, 1000)],
        crs="EPSG:6933",
    )
    ran = run("geolocatebasestations", INPUT=layer, ID_FIELD="id", CELL_SIZE=100, OUTPUT=str(tmp_path / "stack.tif"))
    assert ran["CRS"].startswith("EPSG:32634")


def test_stations_on_both_sides_of_the_antimeridian_stay_neighbours(run, tmp_path):
    longitudes = (179.95, 179.98, -179.99, -179.96)
    layer = layer_of([(f"Point ({lon} -17.0)", str(lon)) for lon in longitudes], crs="EPSG:4326")
    ran = run("geolocatebasestations", INPUT=layer, ID_FIELD="id", OUTPUT=str(tmp_path / "stack.tif"))
    _, dataset = bands_of(ran["OUTPUT"])
    width_km = dataset.RasterXSize * dataset.GetGeoTransform()[1] / 1000
    assert 9 < width_km < 25  # 0.09 degrees are 9.6 km, and the margin


def test_a_station_at_zero_zero_is_named(run, tmp_path):
    stations = QgsVectorLayer(STATIONS, "stations", "ogr")
    rows = [(feature.geometry().asWkt(), feature["bs_id"]) for feature in stations.getFeatures()]
    layer = layer_of([*rows, ("Point (0 0)", "typo")], crs="EPSG:32628")
    ran = run("geolocatebasestations", INPUT=layer, ID_FIELD="id", OUTPUT=str(tmp_path / "stack.tif"))
    assert any("instead of" in text and "'typo'" in text for text in ran.warnings), ran.text


@pytest.mark.parametrize("margin", [0, 10])
def test_a_tight_margin_cuts_more_not_nothing(run, tmp_path, margin):
    """The narrower the margin, the more mass lies beyond it: the ring it is measured in must not vanish with it."""
    share = {}
    for width in (margin, 3000):
        ran = run(
            "geolocatebasestations", INPUT=STATIONS, CELL_SIZE=200, MARGIN=width, OUTPUT=str(tmp_path / f"{width}.tif")
        )
        share[width] = ran["MASS_CUT_MAX"]
    assert share[margin] > 0.1
    assert share[3000] > 0.1


# Styles beside outputs


def test_outputs_of_one_name_share_a_style_file_without_losing_it(run, tmp_path):
    run(
        "geolocatebasestations",
        INPUT=STATIONS,
        CELL_SIZE=500,
        OUTPUT=str(tmp_path / "city.tif"),
        COVERAGE=str(tmp_path / "city.gpkg"),
    )
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".xml") == [
        "city.gpkg",
        "city.qml",
        "city.tif",
    ]
    assert "singlebandpseudocolor" in (tmp_path / "city.qml").read_text(encoding="utf-8")


def test_a_style_of_the_users_own_stays_and_ours_is_renewed(run, tmp_path):
    style = tmp_path / "city.qml"
    style.write_text("<!-- mine -->", encoding="utf-8")
    for _ in range(2):
        run("geolocatebasestations", INPUT=STATIONS, CELL_SIZE=500, OUTPUT=str(tmp_path / "city.tif"))
        assert style.read_text(encoding="utf-8") == "<!-- mine -->"
    style.unlink()
    for method in ("voronoi", "spdi"):
        run("geolocatebasestations", INPUT=STATIONS, CELL_SIZE=500, METHOD=method, OUTPUT=str(tmp_path / "city.tif"))
        assert "singlebandpseudocolor" in style.read_text(encoding="utf-8")


def test_destinations_are_checked_before_the_work(refused, tmp_path):
    (tmp_path / "file").write_text("")
    refused(
        "geolocatebasestations",
        r"COVERAGE cannot be written to '.*/file/coverage\.gpkg': .+\.",
        INPUT=f"{SAMPLE}|layername=cells",  # ids twice would be the next complaint
        ID_FIELD="bs_id",
        CELL_SIZE=0.5,
        OUTPUT=str(tmp_path / "stack.tif"),
        COVERAGE=str(tmp_path / "file" / "coverage.gpkg"),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
