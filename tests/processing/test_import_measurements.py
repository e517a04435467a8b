"""Import measurements in QGIS: every form of input, what is written, what is said, and what is refused."""

import csv
import io
import re
import zipfile

import numpy as np
import pytest
from processing_helpers import layer_of
from qgis.core import (
    NULL,
    QgsCoordinateReferenceSystem,
    QgsFeatureRequest,
    QgsProcessingContext,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsVectorLayer,
)

COLUMNS = (
    "TrajID,RNCID_1,CellID_1,AsuLevel_1,Dbm_1,SignalLevel_1,RNCID_2,CellID_2,AsuLevel_2,Dbm_2,SignalLevel_2,MRTime,"
    "Lon,Lat,Lon2,Lat2,Longitude,Latitude"
)
ROWS = [
    "1,6188,26051,28,-57,4,6182.0,44757.0,12.0,-89.0,4.0,1507727275740,121.21,31.28,121.22,31.29,121.2102,31.2886",
    "1,6188,26051,27,-59,4,-999.0,-999.0,-999.0,-999.0,-999.0,1507727272856,121.21,31.28,-999.0,-999.0,121.2101,31.2887",
    "2,6182,44757,10,-93,3,0.0,0.0,-1.0,-1.0,0.0,1507727272856,121.22,31.29,0.0,0.0,,",
    "2,6182,,10,-93,3,0.0,0.0,-1.0,-1.0,0.0,1507727272857,121.22,31.29,0.0,0.0,,",
]
NORMAL = [
    "device", "trajectory", "time", "time_s", "n_cells", *(f"cell_{slot}" for slot in range(1, 8)),
    *(f"rss_dbm_{slot}" for slot in range(1, 8)), "asu_1", "asu_2", "level_1", "level_2", "truth_lon", "truth_lat", "source_row",
]  # fmt: skip


@pytest.fixture
def table(tmp_path):
    """`table()`: a CSV as the paper's; `table(["h1,h2", "1,2"])`: any."""

    def make(lines=(COLUMNS, *ROWS), name="reports.csv"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    return make


@pytest.fixture
def bring(run, tmp_path):
    """`bring(INPUT=…)`: (ran, the rows of OUTPUT as dicts)."""

    def call(**parameters):
        parameters = {"OUTPUT": str(tmp_path / "measurements.gpkg"), **parameters}
        ran = run("importmeasurements", **parameters)
        return ran, rows_of(ran["OUTPUT"])

    return call


@pytest.fixture
def no_import(refused, tmp_path):
    def call(sentence, **parameters):
        folder = tmp_path / "outputs"
        refused("importmeasurements", sentence, OUTPUT=str(folder / "m.gpkg"), **parameters)
        assert not folder.exists() or list(folder.iterdir()) == []

    return call


def rows_of(path):
    layer = path if isinstance(path, QgsVectorLayer) else QgsVectorLayer(str(path), "rows", "ogr")
    assert layer.isValid()
    names = layer.fields().names()
    rows = []
    for feature in layer.getFeatures(QgsFeatureRequest()):
        row = {name: None if value == NULL else value for name, value in zip(names, feature.attributes())}
        geometry = feature.geometry()
        row["point"] = None if geometry.isEmpty() else (geometry.asPoint().x(), geometry.asPoint().y())
        rows.append(row)
    return rows


def assert_papers(rows, first_row=1):
    assert [row["cell_1"] for row in rows] == ["6188-26051", "6188-26051", "6182-44757"]
    assert [row["cell_2"] for row in rows] == [None, "6182-44757", None]
    assert [row["rss_dbm_1"] for row in rows] == [-59, -57, -93]
    assert [row["source_row"] - first_row for row in rows] == [1, 0, 2]
    assert [row["trajectory"] for row in rows] == ["1", "1", "2"]


def test_the_normal_form_on_disk(bring, table, tmp_path):
    ran, rows = bring(INPUT=table(), CELLS=str(tmp_path / "cells.gpkg"), REJECTED=str(tmp_path / "rejected.csv"))
    assert_papers(rows)
    layer = QgsVectorLayer(ran["OUTPUT"], "m", "ogr")
    assert [name for name in layer.fields().names() if name != "fid"] == NORMAL
    assert layer.crs().authid() == "EPSG:4326"
    types = {field.name(): field.typeName() for field in layer.fields()}
    assert types["time"] == "DateTime"
    assert types["device"] == types["cell_7"] == "String"
    assert types["rss_dbm_1"] == types["time_s"] == types["asu_2"] == "Real"
    assert types["n_cells"] == "Integer"
    assert types["source_row"] == "Integer64"
    first = rows[0]
    assert first["time"].toUTC().toString("yyyy-MM-ddTHH:mm:ss.zzz") == "2017-10-11T13:07:52.856"
    assert first["time_s"] == pytest.approx(1507727272.856, abs=1e-4)
    assert first["point"] == pytest.approx((121.2101, 31.2887))
    assert (first["truth_lon"], first["truth_lat"]) == pytest.approx((121.2101, 31.2887))
    assert rows[2]["point"] is None
    assert rows[2]["truth_lon"] is None
    assert [row["n_cells"] for row in rows] == [1, 2, 1]
    results = {
        name: value
        for name, value in ran.results.items()
        if name.isupper() and name not in ("OUTPUT", "CELLS", "REJECTED")
    }
    results.pop("SECONDS")
    assert results == {
        "ROWS_READ": 4, "RECORDS": 3, "REJECTED_COUNT": 1, "DEVICES": 2, "TRAJECTORIES": 2, "CELLS_KNOWN": 2, "CELLS_UNKNOWN": 0,
        "FIRST_TIME": "2017-10-11T13:07:52Z", "LAST_TIME": "2017-10-11T13:07:55Z", "PRESET_USED": "tongji2g",
    }  # fmt: skip
    assert ran.warnings == ["Rejected 1 of 4 rows: no usable cell: 1 (first: row 4)."]
    assert (
        "Kind of table: tongji2g (wide tables as in the DeepLoc paper), recognised by MRTime, RNCID_1, CellID_1."
        in ran.infos
    )
    with open(ran["REJECTED"], encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{"source_row": "4", "reason": "no usable cell", "value": ""}]
    cells = {row["cell_id"]: row for row in rows_of(ran["CELLS"])}
    assert cells["6188-26051"]["records"] == 2
    assert cells["6188-26051"]["mean_rss_dbm"] == -58
    assert cells["6188-26051"]["source"] == "table"
    assert cells["6188-26051"]["known"] is True
    assert cells["6182-44757"]["point"] == pytest.approx((121.22, 31.29))


def typed(path):
    return QgsVectorLayer(f"file://{path}?delimiter=,&detectTypes=yes", "reports", "delimitedtext")


@pytest.mark.parametrize("form", ["all text", "typed", "memory", "gpkg", "selection", "semicolons", "in the editor"])
def test_the_same_from_every_form(bring, table, tmp_path, form):
    import processing

    source = table()
    context = None
    if form == "typed":
        source = typed(source)
    elif form in ("memory", "gpkg", "in the editor"):
        target = "TEMPORARY_OUTPUT" if form == "memory" else str(tmp_path / "reports.gpkg")
        source = processing.run("native:savefeatures", {"INPUT": typed(source), "OUTPUT": target})["OUTPUT"]
        if form == "in the editor":
            source = QgsVectorLayer(source, "reports", "ogr")
            assert source.startEditing()
            extra = source.getFeature(1)
            extra["CellID_1"] = 99
            extra["MRTime"] = "soon" if source.fields().field("MRTime").typeName() == "String" else NULL
            assert source.addFeature(extra)
    elif form == "selection":
        layer = QgsVectorLayer(table([COLUMNS, *ROWS, ROWS[0].replace("26051", "5")]), "reports", "ogr")
        layer.selectByIds([1, 2, 3, 4])
        context = QgsProcessingContext()
        project = QgsProject()
        project.addMapLayer(layer)
        context.setProject(project)
        source = QgsProcessingFeatureSourceDefinition(layer.id(), True)
    elif form == "semicolons":
        lines = [line.replace(",", ";").replace(".", ",") for line in (COLUMNS, *ROWS)]
        source = table(lines)
    ran, rows = bring(INPUT=source, **({"context": context} if context else {}))
    assert_papers(rows, 2 if form == "typed" else 1)  # delimited text counts the line of the header
    assert rows[0]["point"] == pytest.approx((121.2101, 31.2887))
    assert ran["ROWS_READ"] == (5 if form == "in the editor" else 4)
    if form == "in the editor":
        source.rollBack()


def test_reading_what_was_written_changes_nothing(bring, table, tmp_path):
    first, rows = bring(INPUT=table())
    for name in ("again.gpkg", "again.csv"):
        ran, again = bring(INPUT=first["OUTPUT"], OUTPUT=str(tmp_path / name))
        assert ran["PRESET_USED"] == "normal"
        assert "lon" not in again[0]  # truth_lon says it already
        third, more = bring(INPUT=ran["OUTPUT"], OUTPUT=str(tmp_path / f"third_{name}.gpkg"))
        assert third["RECORDS"] == 3
        for one, other in zip(rows, more):
            assert (one["point"] is None) == (other.pop("point") is None)
            assert one["time"].toUTC() == other.pop("time").toUTC()
            assert {
                name: value for name, value in one.items() if name not in ("time", "point", "fid")
            } == pytest.approx({name: value for name, value in other.items() if name != "fid"})
        assert len(again) == 3


def test_points_whose_geometry_is_the_truth(bring):
    rows = [
        ("Point (500000 5540000)", "x", "2020-01-01T00:00:00Z", "c", -80.0),
        (None, "x", "2020-01-01T00:00:01Z", "c", -81.0),
    ]
    layer = layer_of(rows, "EPSG:32632", "device:string,time:string,cell_id:string,rsrp:double", name="reports")
    ran, found = bring(INPUT=layer)
    assert found[0]["point"] == pytest.approx((9, 50.0123), abs=1e-4)
    assert found[1]["point"] is None
    assert "True positions: the points of 'reports', in EPSG:32632." in ran.infos


def test_fields_given_override_the_preset(bring, table):
    path = table(["who,when,c1,c2,p1,p2,x,y", 'a,2018/4/23 17:20,1.0,2,"-60,5",-70,500000,5540000'])
    ran, rows = bring(
        INPUT=path, DEVICE_FIELD="who", TIME_FIELD="when", CELL_FIELDS=["c1", "c2"], RSS_FIELDS=["p1", "p2"], LON_FIELD="x", LAT_FIELD="y",
        TRUTH_CRS="EPSG:32632", TIME_ZONE="Asia/Shanghai",
    )  # fmt: skip
    assert ran["PRESET_USED"] == "fields"
    assert ran["FIRST_TIME"] == "2018-04-23T09:20:00Z"
    assert [rows[0][name] for name in ("device", "cell_1", "cell_2", "rss_dbm_1", "rss_dbm_2")] == [
        "a",
        "1",
        "2",
        -60.5,
        -70,
    ]
    assert rows[0]["point"] == pytest.approx((9, 50.0123), abs=1e-4)


def test_one_row_per_cell_by_a_serving_field(bring, table):
    lines = ["t,ci,rsrp,main", "1000000000,7,-90,0", "1000000000,8,-95,1", "1000000001,7,-91,1"]
    ran, rows = bring(INPUT=table(lines), SERVING_FIELD="main", CELL_FIELDS=["ci"])
    assert [(row["cell_1"], row["cell_2"]) for row in rows] == [("8", "7"), ("7", None)]
    assert ran["ROWS_READ"] == 3


def test_date_and_time_in_typed_fields_of_their_own(bring):
    from qgis.PyQt.QtCore import QDate, QTime

    layer = layer_of(
        [(None, QDate(2018, 4, 23), QTime(9, 20, 11), "c", -80.0)],
        "",
        "date:date,time:time,cell_id:string,rsrp:double",
        "None",
        "reports",
    )
    ran, rows = bring(INPUT=layer)
    assert ran["FIRST_TIME"] == "2018-04-23T09:20:11Z"
    assert rows[0]["device"] == "reports"
    assert "No column names devices: 'reports' counts as one." in ran.infos


def test_base_stations(bring, table, tmp_path):
    stations = layer_of(
        [("Point (121.3 31.3)", 6188, 26051, 90.0), ("Point (121 31)", 1, 1, 5.0)],
        "EPSG:4326",
        "RNCID:int,CellID:int,azimuth:double",
    )
    ran, _ = bring(INPUT=table(), BASE_STATIONS=stations, CELLS=str(tmp_path / "cells.gpkg"))
    cells = {row["cell_id"]: row for row in rows_of(ran["CELLS"])}
    assert cells["6188-26051"]["source"] == "base stations"
    assert cells["6188-26051"]["point"] == pytest.approx((121.3, 31.3))
    assert cells["6188-26051"]["azimuth_deg"] == 90
    assert cells["6182-44757"]["source"] == "table"
    assert "Cells heard: 2; with a position: 2 (1 from the base stations, 1 from the table); without: 0." in ran.infos


def test_cells_without_a_position(bring, table, tmp_path):
    lines = ["device,time,cell_id,rsrp", "a,1000000000,x,-80"]
    ran, _ = bring(INPUT=table(lines), CELLS=str(tmp_path / "cells.gpkg"))
    (cell,) = rows_of(ran["CELLS"])
    assert (cell["known"], cell["source"], cell["point"]) == (False, None, None)
    assert (ran["CELLS_KNOWN"], ran["CELLS_UNKNOWN"]) == (0, 1)
    assert "without: 1, such as x." in ran.text


def test_the_style_beside_a_file(bring, table):
    ran, _ = bring(INPUT=table())
    layer = QgsVectorLayer(ran["OUTPUT"], "m", "ogr")
    _, fine = layer.loadNamedStyle(ran["OUTPUT"].replace(".gpkg", ".qml"))
    assert fine
    temporal = layer.temporalProperties()
    assert temporal.isActive()
    assert temporal.startField() == "time"
    assert layer.renderer().classAttribute() == '"rss_dbm_1"'


# What is refused


def test_an_unknown_table(no_import, table):
    sentence = (
        r"INPUT: no known kind of table has the columns of layer 'reports' \(its columns: a, b\)\. Say what they mean with TIME_FIELD, "
        r"CELL_FIELDS and RSS_FIELDS, and DEVICE_FIELD, LON_FIELD and LAT_FIELD where there are such\."
    )
    no_import(sentence, INPUT=table(["a,b", "1,2"]))


def test_a_table_that_lacks_what_its_preset_needs(no_import, table):
    sentence = (
        r"INPUT: nothing says which column of layer 'reports' \(its columns: a, MRTime\) is meant by CELL_FIELDS, which tongji2g needs\. "
        r"Give it, or take another PRESET\."
    )
    no_import(sentence, INPUT=table(["a,MRTime", "1,2"]), PRESET="tongji2g")


def test_no_rows(no_import, table):
    no_import(r"INPUT: layer 'reports' has no features \(check its filter and selection\)\.", INPUT=table([COLUMNS]))


def test_no_usable_row(no_import, table):
    sentence = r"INPUT: layer 'reports': None of the 1 rows can be used \(no usable cell: 1\)\."
    no_import(sentence, INPUT=table([COLUMNS, ROWS[3]]))


def test_when_no_row_is_usable_the_reasons_stay(refused, table, tmp_path):
    folder = tmp_path / "outputs"
    refused(
        "importmeasurements",
        r"INPUT: layer 'reports': None of the 1 rows can be used .*",
        INPUT=table([COLUMNS, ROWS[3]]),
        OUTPUT=str(folder / "m.gpkg"),
        REJECTED=str(folder / "rejected.csv"),
    )
    assert [path.name for path in folder.iterdir()] == ["rejected.csv"]
    with (folder / "rejected.csv").open(encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{"source_row": "1", "reason": "no usable cell", "value": ""}]


def test_positive_rss(no_import, table):
    sentence = (
        r"INPUT: layer 'reports': None of the 1 rows can be used \(RSS that no phone measures: 1, such as '28'\)\. If these are ASU, give "
        r"RADIO\."
    )
    lines = ["device,time,cell_id,rssi", "a,1000000000,x,28"]
    no_import(sentence, INPUT=table(lines))


def test_given_a_radio_positive_rss_is_asu(bring, table):
    _, rows = bring(INPUT=table(["device,time,cell_id,rssi", "a,1000000000,x,28"]), RADIO="gsm")
    assert rows[0]["rss_dbm_1"] == -57


def test_devices_that_are_missing(no_import, table):
    sentence = r"INPUT: layer 'reports': None of the 2 rows can be used \(no device: 2\)\."
    no_import(sentence, INPUT=table(["device,time,cell_id,rssi", ",1000000000,x,-80", "NULL,1000000001,x,-80"]))


def test_truth_in_another_crs(no_import, bring, table):
    lines = ["device,time,cell_id,rssi,lon,lat", "a,1000000000,x,-80,500000,5540000"]
    sentence = (
        r"INPUT: layer 'reports': None of the 1 true positions lies on the earth \(±180°, ±90°\): they are in another coordinate system\. "
        r"Give its TRUTH_CRS\."
    )
    no_import(sentence, INPUT=table(lines))
    _, rows = bring(INPUT=table(lines), TRUTH_CRS="EPSG:32632")
    assert rows[0]["point"] == pytest.approx((9, 50.0123), abs=1e-4)


def test_base_stations_of_another_network(no_import, table):
    stations = layer_of([("Point (1 1)", "A1")], "EPSG:4326", "cell_id:string", name="plan")
    sentence = (
        r"BASE_STATIONS: layer 'plan' has none of the 2 cells of the measurements: its ids \(cell_id\) are such as 'A1', theirs such as "
        r"'6182-44757'\. Choose another layer or BS_ID_FIELD\."
    )
    no_import(sentence, INPUT=table(), BASE_STATIONS=stations)


def test_an_unknown_time_zone(no_import, table):
    sentence = (
        r"TIME_ZONE 'Mars/Base' is not known\. Give UTC, an offset such as \+08:00, or a name such as Europe/Madrid\."
    )
    no_import(sentence, INPUT=table(), TIME_ZONE="Mars/Base")


def test_half_a_position(no_import, table):
    no_import("LON_FIELD and LAT_FIELD belong together; give both or neither.", INPUT=table(), LON_FIELD="Lon")


def test_a_field_that_is_not_there(no_import, table):
    sentence = "DEVICE_FIELD: layer 'reports' has no field 'TrajId'. Did you mean 'TrajID'\\?"
    no_import(sentence, INPUT=table(), DEVICE_FIELD="TrajId")


def test_an_unknown_preset(no_import, table):
    no_import("PRESET is '2g'; choose one of: auto, normal, .*, fields.", INPUT=table(), PRESET="2g")


def test_points_without_a_crs(no_import):
    layer = layer_of(
        [("Point (1 1)", "x", "1e9", "c", -80.0)],
        "",
        "device:string,time:string,cell_id:string,rsrp:double",
        name="raw",
    )
    layer.setCrs(QgsCoordinateReferenceSystem())
    no_import("INPUT: layer 'raw' has no known CRS. Set it with Layer > Set CRS of Layer.", INPUT=layer)


def test_cancelled_while_reading_leaves_nothing(table, tmp_path):
    import processing
    from qgis.core import QgsProcessingException, QgsProcessingFeedback

    feedback = QgsProcessingFeedback(False)
    feedback.setProgressText = lambda text: feedback.cancel()
    output = tmp_path / "outputs" / "m.gpkg"
    with pytest.raises(QgsProcessingException):
        processing.run("telcoloc:importmeasurements", {"INPUT": table(), "OUTPUT": str(output)}, feedback=feedback)
    assert not output.parent.exists() or list(output.parent.iterdir()) == []


@pytest.mark.qgis_process
def test_in_the_real_qgis_process(qgis_process, table, tmp_path):
    done = qgis_process(
        "run", "telcoloc:importmeasurements", f"--INPUT={table()}", f"--OUTPUT={tmp_path / 'm.gpkg'}", f"--REJECTED={tmp_path / 'r.csv'}"
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Rejected 1 of 4 rows: no usable cell: 1 (first: row 4)." in done.stdout + done.stderr
    assert_papers(rows_of(tmp_path / "m.gpkg"))


# Real tables, compared with what pandas reads


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


@pytest.mark.real_data
def test_jiading(bring, shared_data, pandas):
    path = shared_data / "tongji_mr" / "jiading2g_mr.csv"
    ran, rows = bring(INPUT=str(path), BASE_STATIONS=str(shared_data / "tongji_mr" / "jiading2g_bs.csv"))
    table = pandas.read_csv(path)
    assert ran["PRESET_USED"] == "tongji2g"
    assert ran["RECORDS"] == ran["ROWS_READ"] == len(table)
    assert ran["TRAJECTORIES"] == table["TrajID"].nunique()
    assert ran["CELLS_UNKNOWN"] == 0
    for row in rows[::97]:
        told = table.iloc[row["source_row"] - 1]
        assert row["cell_1"] == f"{told['RNCID_1']:.0f}-{told['CellID_1']:.0f}"
        assert row["rss_dbm_1"] == told["Dbm_1"]
        assert row["time_s"] == pytest.approx(told["MRTime"] / 1000, abs=2e-4)
        assert row["point"] == pytest.approx((told["Longitude"], told["Latitude"]), abs=1e-9)


@pytest.mark.real_data
def test_huawei(bring, shared_data, pandas, tmp_path):
    table = pandas.read_parquet(shared_data / "tongji_mr" / "huawei4g_mr.parquet").iloc[:4000]
    table.to_csv(tmp_path / "huawei.csv", index=False)
    ran, rows = bring(INPUT=str(tmp_path / "huawei.csv"), CELLS=str(tmp_path / "cells.gpkg"))
    assert ran["PRESET_USED"] == "huawei4g"
    assert ran["RECORDS"] + ran["REJECTED_COUNT"] == len(table)
    assert ran["TRAJECTORIES"] == table.groupby(["area", "TrajID_1"]).ngroups
    assert ran["CELLS_UNKNOWN"] == 0
    told = table.iloc[rows[7]["source_row"] - 1]
    assert rows[7]["cell_1"] == f"{told['ECGI_1']:.0f}"
    assert rows[7]["trajectory"] == f"{told['area']}-{told['TrajID_1']:.0f}"
    powers = {row["power_dbm"] for row in rows_of(ran["CELLS"])}
    assert powers <= {12.2, 15.2, 18.2, None}


@pytest.mark.real_data
def test_la(bring, shared_data, pandas, tmp_path):
    table = pandas.read_parquet(shared_data / "la_lte" / "C1_att_1hz.parquet")
    table = table[table["drive"].isin(table["drive"].unique()[:2])]
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "la.csv", index=False)
    ran, rows = bring(INPUT=str(tmp_path / "la.csv"))
    assert ran["PRESET_USED"] == "cell_rows"
    assert ran["REJECTED_COUNT"] == 0
    seconds = table.groupby(["drive", "t"], observed=True)
    assert ran["RECORDS"] == seconds.ngroups
    for row in rows[::53]:
        group = seconds.get_group((row["trajectory"], int(row["time_s"])))
        order = group.assign(first=group["n_pcell"] == group["n_pcell"].max()).sort_values("rsrp", ascending=False)
        first = order[order["first"]].iloc[0]
        others = order[order.index != first.name][:6]
        assert row["cell_1"] == f"{first['freq']}-{first['cid']}"
        heard = [row[f"rss_dbm_{slot}"] for slot in range(1, row["n_cells"] + 1)]
        assert heard == pytest.approx(
            [first["rsrp"], *others["rsrp"]], abs=1e-4
        )  # equally strong cells come in any order


@pytest.mark.real_data
def test_opencellid_exports(bring, shared_data):
    logs = shared_data / "drive_logs"
    for path in [logs / "ambato" / "vehicular_day1_H.csv", *sorted((logs / "opencellid").glob("*.csv"))[:2]]:
        ran, rows = bring(INPUT=str(path))
        assert ran["PRESET_USED"] == "opencellid"
        assert ran["RECORDS"] > 0.5 * ran["ROWS_READ"]
        assert all(re.fullmatch(r"\d+-\d+-\d+-\d+", row["cell_1"]) for row in rows)
        assert all(-150 <= row["rss_dbm_1"] <= -20 for row in rows)


@pytest.mark.real_data
def test_gnettrack_logs(bring, shared_data, tmp_path):
    with zipfile.ZipFile(shared_data / "drive_logs" / "gnettrack_cork_5g.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".csv") and "MACOSX" not in name]
        for name in names[::30]:
            text = archive.read(name).decode()
            (tmp_path / "log.csv").write_text(text, encoding="utf-8")
            ran, rows = bring(INPUT=str(tmp_path / "log.csv"))
            assert ran["PRESET_USED"] == "gnettrack"
            told = list(csv.DictReader(io.StringIO(text)))
            assert ran["ROWS_READ"] == len(told)
            assert {row["cell_1"] for row in rows} == {row["RAWCELLID"] for row in told} - {"0", "-", "-1"}
            assert np.isfinite([row["time_s"] for row in rows]).all()
