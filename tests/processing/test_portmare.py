"""The measurement reports of the sample city go the whole way, as a user takes it."""

import shutil

import numpy as np
import pytest
from processing_helpers import ROOT, SAMPLE

CITY = ROOT / "resources" / "sample_city"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Copies of both tables: with positions, and without."""
    folder = tmp_path_factory.mktemp("portmare")
    names = ("measurements.csv", "measurements_unlabelled.csv")
    return [shutil.copy(CITY / name, folder / name) for name in names]


def attributes(layer, *names):
    return [[feature[name] for name in names] for feature in layer.getFeatures()]


def test_reports_and_cells_match_out_of_the_box(run, tables, tmp_path):
    """`RNCID_i` is empty, so `CellID_i` alone is the id; and the points of `cells` are all of one length."""
    from qgis.core import QgsVectorLayer

    ran = run(
        "importmeasurements",
        INPUT=str(tables[0]),
        BASE_STATIONS=f"{SAMPLE}|layername=cells",
        OUTPUT=str(tmp_path / "measurements.gpkg"),
        CELLS=str(tmp_path / "cells.gpkg"),
    )
    assert ran["PRESET_USED"] == "tongji2g"
    assert (ran["RECORDS"], ran["REJECTED_COUNT"], ran["DEVICES"], ran["TRAJECTORIES"]) == (5264, 0, 8, 24)
    assert ran["CELLS_UNKNOWN"] == 0
    given = {
        row["cell_id"]: row.geometry().asPoint() for row in QgsVectorLayer(f"{SAMPLE}|layername=cells").getFeatures()
    }
    for cell in QgsVectorLayer(ran["CELLS"]).getFeatures():
        assert cell["cell_id"] in given
        assert -15.3 < cell.geometry().asPoint().x() < -14.9
    rss = np.array(attributes(QgsVectorLayer(ran["OUTPUT"]), "rss_dbm_1"), float)
    assert (rss < 0).all()
    assert -100 < np.median(rss) < -70


def test_a_table_without_positions_has_none(run, tables, tmp_path):
    from qgis.core import QgsVectorLayer

    ran = run("importmeasurements", INPUT=str(tables[1]), OUTPUT=str(tmp_path / "measurements.gpkg"))
    assert (ran["RECORDS"], ran["DEVICES"], ran["CELLS_KNOWN"]) == (1021, 5, 0)
    assert all(feature.geometry().isEmpty() for feature in QgsVectorLayer(ran["OUTPUT"]).getFeatures())
