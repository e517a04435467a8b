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


def test_the_whole_way_is_judged_by_the_walks_kept_back(run, tables, tmp_path):
    def path(name):
        return str(tmp_path / name)

    for table, name in zip(tables, ("known", "unknown")):
        run(
            "importmeasurements",
            INPUT=str(table),
            BASE_STATIONS=f"{SAMPLE}|layername=cells",
            OUTPUT=path(f"{name}.gpkg"),
            CELLS=path(f"cells_{name}.gpkg"),
        )
    trained = run(
        "trainlocalizer",
        INPUT=path("known.gpkg"),
        BASE_STATIONS=path("cells_known.gpkg"),
        METHOD="raf",
        OPTIONS="trees=20",
        MODEL=path("raf.safetensors"),
    )
    run("localizemeasurements", INPUT=path("unknown.gpkg"), MODEL=path("raf.safetensors"), POINTS=path("points.gpkg"))
    judged = run(
        "evaluatelocalization",
        PREDICTED=path("points.gpkg"),
        TRUTH=f"{SAMPLE}|layername=walks_truth",
        ERRORS=path("errors.gpkg"),
    )
    assert (judged["COUNT"], judged["UNMATCHED"]) == (1021, 0)
    assert 15 < judged["MEDIAN_ERROR"] < 90  # sites stand 400 m apart
    assert judged["MEDIAN_ERROR"] < 2.5 * trained["MEDIAN_ERROR"]  # what was held out told what to expect
    assert judged["INSIDE_90"] > 0.75
