"""Networks that exist, in the forms in which they are published."""

import numpy as np
import pytest
from processing_helpers import bands_of
from qgis.core import QgsVectorLayer

pytestmark = pytest.mark.real_data


def assert_bands_sum_to_one(ran):
    bands, _ = bands_of(ran["OUTPUT"])
    sums = np.array([band.sum(dtype=float) for band in bands.values()])
    with_mass = sums > 0
    assert len(bands) == ran["BS_COUNT"]
    assert (~with_mass).sum() == ran["SKIPPED"]
    assert abs(sums[with_mass] - 1).max() < 1e-4
    return bands


@pytest.mark.parametrize(("x", "y", "crs"), [("lon", "lat", "EPSG:4326"), ("x_epsg3035", "y_epsg3035", "EPSG:3035")])
def test_zuid_limburg_from_its_table(run, shared_data, tmp_path, x, y, crs):
    """631 sectors in a CSV whose fields are all text; in degrees and in metres they are the same sites."""
    import processing

    points = processing.run(
        "native:createpointslayerfromtable",
        {
            "INPUT": str(shared_data / "mobloc_zl" / "ZL_cellplan.csv"),
            "XFIELD": x,
            "YFIELD": y,
            "TARGET_CRS": crs,
            "OUTPUT": str(tmp_path / "points.gpkg"),
        },
    )["OUTPUT"]
    ran = run("geolocatebasestations", INPUT=points, ID_FIELD="cell", CELL_SIZE=400, OUTPUT=str(tmp_path / "zl.tif"))
    assert ran["BS_COUNT"] + ran["MERGED"] == 631
    assert ran["BS_COUNT"] < 631
    assert ran["CRS"].startswith("EPSG:32631" if crs == "EPSG:4326" else "EPSG:3035")
    assert ran["SECONDS"] < 30
    assert_bands_sum_to_one(ran)


def test_zuid_limburg_as_delimited_text(run, shared_data, tmp_path):
    table = shared_data / "mobloc_zl" / "ZL_cellplan.csv"
    uri = f"{table.as_uri()}?delimiter=,&xField=lon&yField=lat&crs=EPSG:4326&detectTypes=no"
    layer = QgsVectorLayer(uri, "cells", "delimitedtext")
    assert layer.isValid()
    output = str(tmp_path / "zl.tif")
    ran = run("geolocatebasestations", INPUT=layer, ID_FIELD="cell", METHOD="voronoi", CELL_SIZE=400, OUTPUT=output)
    assert_bands_sum_to_one(ran)
    ran = run(
        "mapmetadata",
        GEOLOCATION=output,
        INPUT=layer,
        ID_FIELD="cell",
        FIELDS=["height"],
        OUTPUT=str(tmp_path / "height.tif"),
    )
    assert ran["MATCHED"] + ran["UNMATCHED"] == 631
    assert ran["TOTAL_MAPPED"] + ran["TOTAL_UNMAPPED"] == pytest.approx(ran["TOTAL_INPUT"], rel=1e-6)


def test_orange_in_lyon(run, shared_data, tmp_path):
    source = shared_data / "voronoiboost_fr" / "bs_points.gpkg"
    layer = QgsVectorLayer(f"{source}|layername=base_stations", "lyon", "ogr")
    assert layer.setSubsetString("\"operator\" = 'Orange' AND \"city\" = 'Lyon'")
    stacks = {}
    for method in ("voronoi", "spdi"):
        ran = run(
            "geolocatebasestations",
            INPUT=layer,
            ID_FIELD="bs_id",
            METHOD=method,
            CELL_SIZE=1000,
            BOUNDARY=str(shared_data / "voronoiboost_fr" / "Lyon.geojson"),
            OUTPUT=str(tmp_path / f"{method}.tif"),
        )
        stacks[method] = assert_bands_sum_to_one(ran)
        assert ran["CRS"].startswith("EPSG:32631")
    ran = run(
        "comparegeolocations",
        REFERENCE=str(tmp_path / "voronoi.tif"),
        COMPARED=[str(tmp_path / "spdi.tif")],
        OUTPUT="TEMPORARY_OUTPUT",
    )
    assert 0 < ran["MEDIAN_KS2"] < 0.7
