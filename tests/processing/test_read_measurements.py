"""Layers in the normal form and layers of cells, in every form a user can hand them over."""

import re

import numpy as np
import pytest
from processing_helpers import Ran, collecting_feedback, layer_of

FIELDS = (
    "device:string,trajectory:string,time:datetime,time_s:double,n_cells:int,cell_1:string,cell_2:string,"
    "rss_dbm_1:double,rss_dbm_2:double,rsrq_db_1:double,rsrq_db_2:double,truth_lon:double,truth_lat:double,source_row:int"
)
ROWS = [
    ("Point (10 50)", "a", "a 1", None, 1000.25, 2, "6188-1", "6188-2", -57.0, -80.0, -9.0, None, 10.0, 50.0, 3),
    (None, "a", "a 1", None, 1001.5, 1, "6188-1", None, -58.0, None, None, None, None, None, 4),
    ("Point (10.1 50.1)", "b", "b 1", None, 900.0, 1, "6188-3", None, None, None, None, None, 10.1, 50.1, 1),
]


@pytest.fixture
def read(qgis_app):
    """`read(layer)`: (Measurements, Ran); `read(layer, cells=…)`: CellSites."""
    from qgis.core import (
        QgsProcessing,
        QgsProcessingContext,
        QgsProcessingException,
        QgsProcessingParameterFeatureSource,
    )
    from telcoloc.telcoloc_qgis.algorithm import TelcoLocAlgorithm
    from telcoloc.telcoloc_qgis.measurements import read_cell_sites, read_measurements

    def call(layer, sites=False, **options):
        found = {}

        class Reader(TelcoLocAlgorithm):
            NAME = "reader"

            def define(self):
                kind = QgsProcessing.SourceType.TypeVector
                self.add(QgsProcessingParameterFeatureSource("INPUT", "in", [kind]), "in")

            def work(self, run):
                source = run.parameters.source("INPUT")
                function = read_cell_sites if sites else read_measurements
                found["value"] = function(run, source, parameter="INPUT", **options)
                return {}

        ran = Ran()
        algorithm = Reader().create()
        try:
            _, good = algorithm.run({"INPUT": layer}, QgsProcessingContext(), collecting_feedback(ran), {}, False)
        except QgsProcessingException as error:
            good, ran.errors = False, [str(error)]
        if not good:
            return ran.errors[-1], ran
        return found["value"], ran

    return call


def saved(layer, path, **options):
    import processing

    if path.suffix == ".csv":
        options = {"LAYER_OPTIONS": "GEOMETRY=AS_XY", **options}
    return processing.run("native:savefeatures", {"INPUT": layer, "OUTPUT": str(path), **options})["OUTPUT"]


@pytest.mark.parametrize("form", ["memory", "gpkg", "csv", "geojson", "shp-like utm gpkg", "selection"])
def test_the_same_records_from_every_form(read, tmp_path, form):
    import processing
    from qgis.core import QgsProcessingFeatureSourceDefinition, QgsProject

    layer = layer_of(ROWS, "EPSG:4326", FIELDS, name="mrs")
    if form in ("gpkg", "csv", "geojson"):
        layer = saved(layer, tmp_path / f"mrs.{form}")
    elif form.startswith("shp"):
        layer = processing.run(
            "native:reprojectlayer",
            {"INPUT": layer, "TARGET_CRS": "EPSG:32632", "OUTPUT": str(tmp_path / "utm.gpkg")},
        )["OUTPUT"]
    elif form == "selection":
        more = [*ROWS, ("Point (0 0)", "c", "c", None, 5.0, 1, "x", None, -70.0, None, None, None, None, None, 9)]
        keep = layer_of(more, "EPSG:4326", FIELDS, name="mrs")
        keep.selectByExpression("\"device\" <> 'c'")
        QgsProject.instance().addMapLayer(keep, False)
        layer = QgsProcessingFeatureSourceDefinition(keep.id(), True)
    data, _ = read(layer) if form != "selection" else _in_project(read, layer)
    assert not isinstance(data, str), data
    assert data.devices == ("a", "b")
    assert data.trajectories == ("a 1", "b 1")
    assert data.cells == ("6188-1", "6188-2", "6188-3")
    np.testing.assert_array_equal(data.cell[:, :2], [[0, 1], [0, -1], [2, -1]])
    np.testing.assert_allclose(data.time_s, [1000.25, 1001.5, 900.0])
    np.testing.assert_allclose(data.rss_dbm[:, 0], [-57, -58, np.nan])
    np.testing.assert_allclose(data.signals["rsrq_db"][:, 0], [-9, np.nan, np.nan])
    np.testing.assert_allclose(data.lon, [10, np.nan, 10.1], atol=1e-9)
    np.testing.assert_allclose(data.lat, [50, np.nan, 50.1], atol=1e-9)
    np.testing.assert_array_equal(data.row, [3, 4, 1])


def _in_project(read, definition):
    """QGIS finds a layer by its id in the project of the context only."""
    from qgis.core import QgsProcessingContext, QgsProject

    original = QgsProcessingContext.__init__

    def with_project(self, *arguments):
        original(self, *arguments)
        self.setProject(QgsProject.instance())

    QgsProcessingContext.__init__ = with_project
    try:
        return read(definition)
    finally:
        QgsProcessingContext.__init__ = original
        QgsProject.instance().clear()


def test_a_layer_that_is_no_normal_form(read):
    said, _ = read(layer_of([(None, 1)], "", "cell:int", "None", "cells"))
    assert said == (
        "INPUT: layer 'cells' is not in the normal form of measurements (it has no device, no cell_1, no rss_dbm_1, no time_s). "
        "Run 'Import measurements' on it first."
    )


def changed(row=0, **values):
    names = [field.split(":")[0] for field in FIELDS.split(",")]
    rows = [list(one) for one in ROWS]
    for name, value in values.items():
        rows[row][names.index(name) + 1] = value
    return layer_of(rows, "EPSG:4326", FIELDS, name="mrs")


def test_rows_that_cannot_be_used_are_counted(read):
    data, ran = read(changed(0, device=None))
    assert len(data) == 2
    assert ran.warnings == ["INPUT: 1 of 3 rows cannot be used: 1 without a device."]
    data, ran = read(changed(1, cell_1=""))
    assert ran.warnings == ["INPUT: 1 of 3 rows cannot be used: 1 without a cell."]
    data, ran = read(changed(1, time_s=None))
    assert ran.warnings == ["INPUT: 1 of 3 rows cannot be used: 1 without a time that can be read."]


def test_no_usable_row(read):
    layer = layer_of([[*row[:1], None, *row[2:]] for row in ROWS], "EPSG:4326", FIELDS, name="mrs")
    said, _ = read(layer)
    assert said == "INPUT: none of the 3 rows of layer 'mrs' can be used (3 without a device)."
    said, _ = read(layer_of([], "EPSG:4326", FIELDS, name="mrs"))
    assert said == "INPUT: layer 'mrs' has no features (check its filter and selection)."


@pytest.mark.parametrize("value", [57.0, -400.0])
def test_absurd_rss(read, value):
    said, _ = read(changed(1, rss_dbm_1=value))
    assert re.fullmatch(
        rf"INPUT: rss_dbm_1 of feature 2 of 'mrs' is {value:g} dBm, but a phone measures -150 to -20 dBm\. Correct it, .*",
        said,
    )


def test_truth_in_metres(read):
    said, _ = read(changed(1, truth_lon=421_000.0, truth_lat=5e6))
    assert "truth_lon, truth_lat of feature 2 of 'mrs' are 421000, 5000000, but must be degrees" in said


def test_times_out_of_order_and_twice(read):
    data, ran = read(changed(1, time_s=999.0))
    assert "INPUT: records that came after a later one of their trajectory and were sorted by time: 1." in ran.infos
    np.testing.assert_allclose(data.time_s, [999, 1000.25, 900])
    data, ran = read(changed(1, time_s=1000.25))
    assert len(data) == 3
    assert "INPUT: records with the time of another one of their device, all kept: 1." in ran.infos


def test_time_alone_and_no_trajectory(read, tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text(
        "device,time,cell_1,rss_dbm_1\n7,2018-04-23T09:20:00Z,a,-60\n7,2018-04-23T09:20:01.5Z,a,-61\n"
        "7,2018-04-23T10:20:00Z,a,-61\n",
        encoding="utf-8",
    )
    data, _ = read(str(path))
    assert data.devices == ("7",)
    assert data.trajectories == ("7 #1", "7 #2")
    np.testing.assert_allclose(data.time_s, [1524475200, 1524475201.5, 1524478800])


@pytest.mark.parametrize("form", ["gpkg", "geojson"])
def test_a_file_in_which_every_truth_is_known(read, tmp_path, form):
    layer = layer_of([ROWS[0], ROWS[2]], "EPSG:4326", FIELDS, name="mrs")
    data, _ = read(saved(layer, tmp_path / f"mrs.{form}"))
    np.testing.assert_allclose([data.lon, data.lat], [[10, 10.1], [50, 50.1]], atol=1e-9)


# Cells


def test_cells_by_rnc_and_cell_in_any_crs(read):
    layer = layer_of(
        [("Point (500000 5540000)", 6188, 26051, 90.0)], "EPSG:32632", "RNCID:int,CellID:int,Azimuth:double"
    )
    sites, ran = read(layer, sites=True, cells=("6188-26051", "6188-1"))
    assert sites.ids == ("6188-26051",)
    np.testing.assert_allclose([sites.lon[0], sites.lat[0]], [9, 50.0123], atol=1e-4)
    np.testing.assert_allclose(sites.azimuth_deg, [90])
    assert "named by RNCID and CellID" in ran.text


def test_cells_of_a_table(read, tmp_path):
    path = tmp_path / "bs.csv"
    path.write_text(
        "BSID,ECGI,Lon,Lat\n1,9316394.0,121.2,31.2\n2,9316395.0,121.3,31.2\n2,,121.3,31.2\n", encoding="utf-8"
    )
    sites, ran = read(str(path), sites=True, cells=("9316395",))
    assert sites.ids == ("9316394", "9316395")
    np.testing.assert_allclose(sites.lon, [121.2, 121.3])
    assert ran.warnings == ["INPUT: rows that name no cell: 1 of 3."]


def test_cells_of_another_network(read, tmp_path):
    path = tmp_path / "bs.csv"
    path.write_text("ECGI,Lon,Lat\n1,121.2,31.2\n", encoding="utf-8")
    said, _ = read(str(path), sites=True, cells=("6188-26051", "6188-3"))
    assert said == (
        "INPUT: layer 'bs' has none of the 2 cells of the measurements: its ids (ECGI) are such as '1', theirs such as '6188-26051'. "
        "Choose another layer or BS_ID_FIELD."
    )


def test_cells_without_place_or_name(read, tmp_path):
    said, _ = read(layer_of([(None, "a")], "", "cell_id:string", "None", "cells"), sites=True)
    assert said == (
        "INPUT: layer 'cells' has neither points nor fields lon and lat, so nothing says where its cells are."
    )
    said, _ = read(layer_of([("Point (1 1)", "a")], "EPSG:4326", "what:string", name="cells"), sites=True)
    assert said == (
        "INPUT: nothing says which field of layer 'cells' names a cell (its fields: what). Give BS_ID_FIELD."
    )


def test_cells_that_stand_nowhere_are_no_obstacle(read):
    sites, ran = read(layer_of([(None, "a"), (None, "b")], "EPSG:4326", "cell_id:string", "Point", "cells"), sites=True)
    assert sites.ids == ()
    assert any("no row has a position, so where the cells stand is left to what" in text for text in ran.warnings)
