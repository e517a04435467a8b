"""Tables people have, small enough to count on fingers: every dialect, every preset, every reason."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from telcoloc.models.errors import InputError
from telcoloc.models.trajectory import dialects, presets, readers

# Dialects


def as_columns(values):
    """The same texts as bytes, as text, and as objects."""
    return [np.array([value.encode() for value in values]), np.array(values), np.array(values, dtype=object)]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("-57", -57), ("-57.5", -57.5), ("-57,5", -57.5), (" -57 ", -57), ("\u221257", -57), ("-57 dBm", -57), ("12 dB", 12),
        ("1.234,5", 1234.5), ("1,234.5", 1234.5), ("1e3", 1000), ("", np.nan), ("-", np.nan), ("null", np.nan), ("NaN", np.nan),
        ("N/A", np.nan), ("-999", np.nan), ("2147483647", np.nan), ("inf", np.nan),
    ],
)  # fmt: skip
def test_numbers(text, number):
    for column in as_columns([text, "3"]):
        values, odd = dialects.numbers(column)
        np.testing.assert_array_equal(values, [number, 3])
        assert not odd.any()


def test_a_text_that_is_no_number_is_told_apart_from_nothing():
    values, odd = dialects.numbers(np.array(["loud", "", "1"]))
    np.testing.assert_array_equal(values, [np.nan, np.nan, 1])
    np.testing.assert_array_equal(odd, [True, False, False])


def test_numbers_under_a_mask_and_of_all_types():
    masked = np.ma.array([1, 2, 3], mask=[False, True, False])
    np.testing.assert_array_equal(dialects.numbers(masked)[0], [1, np.nan, 3])
    np.testing.assert_array_equal(dialects.numbers(np.array([1, -999], dtype=np.int32))[0], [1, np.nan])


@pytest.mark.parametrize(
    ("text", "name"),
    [("6188", "6188"), ("6188.0", "6188"), ("6188,0", "6188"), ("007", "007"), ("12E4", "12E4"), ("cell A", "cell A"), ("'5'", "5"),
     ("-1", ""), ("0", ""), ("0.0", ""), ("-999.0", ""), ("2147483647", ""), ("nan", ""), ("-", ""), ("NULL", "")],
)  # fmt: skip
def test_ids(text, name):
    for column in as_columns([text, "a long name for a cell"]):
        codes, texts = dialects.names(column, dialects.MISSING_IDS)
        assert [texts[code] if code >= 0 else "" for code in codes] == [name, "a long name for a cell"]


def test_ids_that_are_floats():
    codes, texts = dialects.names(np.array([6188.0, np.nan, 244153879.0, 0.0]), dialects.MISSING_IDS)
    assert [texts[code] if code >= 0 else "" for code in codes] == ["6188", "", "244153879", ""]


def test_joined_ids():
    area = dialects.names(np.array(["740", "740", ""]))
    cell = dialects.names(np.array([1.0, np.nan, 3.0]))
    codes, texts = dialects.joined([area, cell, cell])
    assert [texts[code] if code >= 0 else "" for code in codes] == ["740-1-1", "", ""]


def test_names_of_a_whole_table_keep_their_codes():
    names = dialects.Names()
    first = names.add(*dialects.names(np.array(["b", "a", ""])))
    second = names.add(*dialects.names(np.array(["c", "b"])))
    assert [names.texts[code] if code >= 0 else "" for code in [*first, *second]] == ["b", "a", "", "c", "b"]


MOMENT = datetime(2018, 4, 23, 9, 20, 11, 500_000, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text",
    [
        "2018-04-23T09:20:11.5Z", "2018-04-23 09:20:11.500", "2018-04-23T17:20:11.5+08:00", "2018-04-23T17:20:11.5+0800",
        "2018-04-23T04:20:11.5-05", "2018/04/23 09:20:11.500+00", "2018.04.23_09.20.11.5", "23.04.2018 09:20:11,5",
        "23-04-2018 09:20:11.5", "1524475211.5", "1524475211500", "1524475211500000", "1524475211500000000", "2018/4/23 9:20:11.5",
    ],
)  # fmt: skip
def test_times(text):
    for column in as_columns([text, ""]):
        seconds, odd = dialects.times(column)
        assert seconds[0] == pytest.approx(MOMENT.timestamp(), abs=1e-3)
        assert np.isnan(seconds[1])
        assert not odd.any()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2018/4/23 9:20", datetime(2018, 4, 23, 9, 20)), ("2019.12.16_13.40.04", datetime(2019, 12, 16, 13, 40, 4)),
        ("20180423092011", datetime(2018, 4, 23, 9, 20, 11)), ("2018-04-23", datetime(2018, 4, 23)),
    ],
)  # fmt: skip
def test_times_of_the_paper_and_of_gnettrack(text, moment):
    seconds, _ = dialects.times(np.array([text]))
    assert seconds[0] == moment.replace(tzinfo=timezone.utc).timestamp()


def test_times_in_a_zone_of_their_own():
    zone = timezone(timedelta(hours=8))
    seconds, _ = dialects.times(np.array(["2018/4/23 17:20", "2018-04-23T09:20:00Z"]), zone)
    assert seconds[0] == seconds[1] == datetime(2018, 4, 23, 9, 20, tzinfo=timezone.utc).timestamp()
    stamps = np.array(["2018-04-23T17:20", "NaT"], dtype="datetime64[ms]")
    np.testing.assert_array_equal(dialects.times(stamps, zone)[0], [seconds[0], np.nan])


@pytest.mark.parametrize("text", ["yesterday", "2018-13-01", "04/05/2018 09:20", "2018-04-23 25:00"])
def test_what_is_no_time_is_odd_and_not_guessed(text):
    seconds, odd = dialects.times(np.array([text, "-1"]))
    assert np.isnan(seconds).all()
    np.testing.assert_array_equal(odd, [True, False])


@pytest.mark.parametrize(
    ("radio", "asu", "dbm"),
    [
        ("gsm", 0, -113), ("gsm", 28, -57), ("gsm", 31, -51), ("gsm", 32, np.nan), ("gsm", 99, np.nan),
        ("umts", 0, -120), ("umts", 96, -24), ("umts", 255, np.nan), ("lte", 0, -140), ("lte", 43, -97), ("lte", 97, -43),
        ("lte", 99, np.nan), ("nr", 40, -100), ("lte", -1, np.nan),
    ],
)  # fmt: skip
def test_asu(radio, asu, dbm):
    np.testing.assert_array_equal(dialects.asu_to_dbm(np.array([asu]), radio), [dbm])


def test_radio_technologies_by_the_names_logs_give_them():
    said = {
        "LTE+": "lte",
        "LTE_CA": "lte",
        "HSPA+": "umts",
        "HSDPA": "umts",
        "UMTS": "umts",
        "EDGE": "gsm",
        "GSM": "gsm",
        "5G": "nr",
        "?": "",
    }
    assert {name: dialects.radio_of(name) for name in said} == said


# Tables


def imported(table, preset="auto", part=2, text=False, layout=None, **options):
    """Import a table (a dict of lists) in parts; `text` as a CSV hands it over."""
    layout = layout or presets.recognise(table, preset)
    assert not layout.missing, layout.missing
    importer = readers.Importer(layout, **options)
    n = len(next(iter(table.values())))
    for start in range(0, n, part):
        columns = {}
        for name in layout.columns:
            values = table[name][start : start + part]
            if text:
                columns[name] = np.array([("" if value is None else str(value)).encode() for value in values])
            else:
                columns[name] = np.array([np.nan if value is None else value for value in values])
        importer.add(np.arange(start, start + len(columns[name])) + 1, columns)
    return importer.finish()


def heard(records, row):
    """The cells of one record with their RSS."""
    return [(records.cells[code], rss) for code, rss in zip(records.cell[row], records.rss_dbm[row]) if code >= 0]


TONGJI = {
    "TrajID": [1, 1, 2],
    "RNCID_1": [6188, 6188, 6182], "CellID_1": [26051, 26051, 44757], "AsuLevel_1": [28, 27, 10], "Dbm_1": [-57, -59, -93],
    "SignalLevel_1": [4, 4, 3],
    "RNCID_2": [6182.0, -999.0, 0.0], "CellID_2": [44757.0, -999.0, 0.0], "AsuLevel_2": [12.0, -999.0, -1.0],
    "Dbm_2": [-89.0, -999.0, -1.0], "SignalLevel_2": [4.0, -999.0, 0.0],
    "MRTime": [1507727275740, 1507727272856, 1507727272856],
    "Lon": [121.21, 121.21, 121.22], "Lat": [31.28, 31.28, 31.29], "Lon2": [121.22, -999.0, 0.0], "Lat2": [31.29, -999.0, 0.0],
    "Longitude": [121.2102, 121.2101, 121.2], "Latitude": [31.2886, 31.2887, 31.2],
}  # fmt: skip


@pytest.mark.parametrize("text", [False, True])
def test_the_wide_2g_table(text):
    result = imported(TONGJI, text=text)
    records = result.records
    assert records.trajectories == records.devices == ("1", "2")
    np.testing.assert_allclose(records.time_s, [1507727272.856, 1507727275.74, 1507727272.856])
    assert heard(records, 0) == [("6188-26051", -59)]
    assert heard(records, 1) == [("6188-26051", -57), ("6182-44757", -89)]
    np.testing.assert_array_equal(records.signals["asu"][1, :3], [28, 12, np.nan])
    np.testing.assert_array_equal(records.signals["level"][0, :2], [4, np.nan])
    np.testing.assert_array_equal(records.row, [2, 1, 3])
    np.testing.assert_allclose(records.lon, [121.2101, 121.2102, 121.2])
    assert result.sites.ids == ("6182-44757", "6188-26051")
    np.testing.assert_allclose(result.sites.lon, [121.22, 121.21])
    assert len(result.rejected) == 0
    assert result.rows_read == 3


def test_table_1_of_the_paper():
    table = {
        "MRTime": ["2018/4/23 9:20"], "IMSI": ["xxx"], "SRNC_ID": [6188], "BestCellID": [27394], "LCS_BIT": [300],
        "RNCID_1": [6188], "CellID_1": [26051], "AsuLevel_1": [27], "SignalLevel_1": [4], "RSSI_1": [-74.5],
        "RNCID_2": [6188], "CellID_2": [27394], "AsuLevel_2": [10], "SignalLevel_2": [3], "RSSI_2": [-84.88],
    }  # fmt: skip
    result = imported(table)
    assert presets.recognise(table).preset == "tongji2g"
    assert result.records.devices == ("xxx",)
    cells = heard(result.records, 0)
    assert [name for name, _ in cells] == ["6188-27394", "6188-26051"]  # the best cell serves
    assert cells[0][1] == pytest.approx(-84.88, abs=1e-4)
    assert result.notes == {"records whose serving cell was not the first one, and is now": 1}


def test_asu_alone_becomes_dbm():
    table = {name: values for name, values in TONGJI.items() if not name.startswith("Dbm")}
    assert heard(imported(table).records, 1) == [("6188-26051", -57), ("6182-44757", -89)]
    assert heard(imported(table, radio="lte").records, 1) == [("6188-26051", -112), ("6182-44757", -128)]


@pytest.mark.parametrize("text", [False, True])
def test_the_lte_table(text):
    table = {
        "split": ["te", "tr"], "area": ["a0", "a2"], "TrajID_1": [3010.0, 3010.0], "MRTime_1": [1552719987.0, 1552719990.0],
        "Dbm_1": [-86.0, -80.0], "ECGI_1": [9316394.0, 9316394.0], "CellID_1": [368.0, 368.0], "Freq_1": [1650.0, 1650.0],
        "Lon": [121.1975, 121.1975], "Lat": [31.26919, 31.26919], "Azimuth": [200.0, 200.0], "Downtilt": [9.0, 9.0],
        "Height": [26.0, 26.0], "Power": [152.0, 152.0],
        "Dbm_2": [-95.0, None], "ECGI_2": [10470678.0, None], "CellID_2": [292.0, None], "Freq_2": [1650.0, None],
        "Lon2": [121.191667, None], "Lat2": [31.266111, None], "Azimuth2": [90.0, None], "Power2": [122.0, None],
        "Longitude": [121.196245, 121.19], "Latitude": [31.266249, 31.26],
    }  # fmt: skip
    result = imported(table, text=text)
    assert presets.recognise(table).preset == "huawei4g"
    assert result.records.trajectories == ("a0-3010", "a2-3010")
    assert heard(result.records, 0) == [("9316394", -86), ("10470678", -95)]
    assert sorted(result.records.signals) == ["earfcn", "pci"]
    assert result.sites.ids == ("10470678", "9316394")
    np.testing.assert_allclose(result.sites.power_dbm, [12.2, 15.2])
    np.testing.assert_allclose(result.sites.azimuth_deg, [90, 200])
    np.testing.assert_allclose(result.sites.height_m, [np.nan, 26])
    np.testing.assert_allclose(result.downtilt_deg, [np.nan, 9])


LA = {
    "drive": ["d2", "d1", "d1", "d1", "d1"],
    "t": [1619039402, 1619039403, 1619039402, 1619039402, 1619039402],
    "lat": [34.0, 34.2, 34.1, 34.1, 34.1], "lon": [-118.0, -118.2, -118.1, -118.1, -118.1],
    "freq": [850, 850, 850, 850, 1900], "cid": [60, 0, 293, 60, 7],
    "rsrp": [-106.9, -100.0, -90.0, -110.6, -95.0], "rsrq": [-16.0, -10.0, -19.0, -15.0, -11.0],
    "n": [2, 2, 2, 2, 2], "n_pcell": [2, 2, 0, 2, 0],
}  # fmt: skip


@pytest.mark.parametrize("part", [1, 2, 100])
def test_one_row_per_cell_heard_in_any_order(part):
    result = imported(LA, part=part)
    records = result.records
    assert presets.recognise(LA).preset == "cell_rows"
    assert records.trajectories == ("d1", "d2")
    assert [name for name, _ in heard(records, 0)] == ["850-60", "850-293", "1900-7"]  # serving first, then by RSS
    assert heard(records, 1) == [("850-0", -100)]  # 0 is a physical cell id
    np.testing.assert_allclose(records.signals["rsrq_db"][0, :3], [-15, -19, -11])
    np.testing.assert_array_equal(records.row, [3, 2, 1])
    np.testing.assert_allclose(records.lat, [34.1, 34.2, 34.0])


def test_more_than_seven_cells_in_a_second():
    n = 9
    table = {
        "t": [1619039402.0 + 0.05 * index for index in range(n)], "freq": [850] * n, "cid": list(range(1, n + 1)),
        "rsrp": [-60.0 - index for index in range(n)], "n_pcell": [0] * (n - 1) + [1],
    }  # fmt: skip
    result = imported(table)
    assert [name for name, _ in heard(result.records, 0)] == [f"850-{cid}" for cid in (9, 1, 2, 3, 4, 5, 6)]
    assert result.notes == {"cells left out because a record holds at most 7": 2}


def test_gnettrack():
    table = {
        "Timestamp": ["2019.12.16_13.40.04", "2019.12.16_13.40.04", "2019.12.16_13.40.05"],
        "Longitude": [-8.39] * 3, "Latitude": [51.88] * 3, "Operatorname": ["B"] * 3, "CellID": [11] * 3,
        "NetworkMode": ["5G", "5G", "LTE"], "RSRP": ["-101", "-101", "-"], "RSRQ": [-10] * 3, "SNR": ["0.0", "0.0", "-"],
        "CQI": [12] * 3, "RSSI": ["-103", "-103", "-"], "State": ["D"] * 3, "RAWCELLID": [10805003] * 3, "NRxRSRP": ["-"] * 3,
    }  # fmt: skip
    result = imported(table, device="log")
    assert presets.recognise(table).preset == "gnettrack"
    assert len(result.records) == 2
    assert result.rejected.counts() == {"copy of another record": 1}
    assert result.rejected.row.tolist() == [2]
    assert heard(result.records, 0) == [("10805003", -101)]
    assert np.isnan(result.records.rss_dbm[1, 0])
    assert result.records.devices == ("log",)


def test_opencellid():
    table = {
        "mcc": [740] * 4, "mnc": [2] * 4, "lac": [20700] * 4, "cellid": [11379203, 11379203, 5, 7],
        "lat": [-1.24, -1.24, -1.24, -1.25], "lon": [-78.62] * 4, "signal": [-97, -97, 40, 12],
        "measured_at": [1679769208597, 1679769208597, 1679769208597, 1679769209000], "act": ["LTE", "LTE", "LTE+", "GSM"],
        "ta": [0, 0, 0, 0],
    }  # fmt: skip
    result = imported(table)
    assert presets.recognise(table).preset == "opencellid"
    assert heard(result.records, 0) == [("740-2-20700-11379203", -97), ("740-2-20700-5", -100)]
    assert heard(result.records, 1) == [("740-2-20700-7", -89)]
    assert result.rejected.counts() == {"the cell twice in one record": 1}
    assert result.rejected.value_of(0) == "740-2-20700-11379203"


def test_tower_collector_marks_neighbours():
    table = {
        "mcc": [302] * 2, "mnc": [720] * 2, "lac": [1] * 2, "cell_id": [1, 2], "dbm": [-60, -90], "neighboring": ["true", "false"],
        "measured_at": ["2020-09-05T15:28:23Z"] * 2, "lat": [45.0] * 2, "lon": [-75.0] * 2,
    }  # fmt: skip
    assert [name for name, _ in heard(imported(table).records, 0)] == ["302-720-1-2", "302-720-1-1"]


def test_the_normal_form_is_read_back():
    table = {
        "device": ["a", "a"], "trajectory": ["a 1", "a 1"], "time": ["", ""], "time_s": [1e9, 1e9 + 1], "n_cells": [2, 1],
        "cell_1": ["6188-1", "6188-1"], "cell_2": ["6188-2", ""], "rss_dbm_1": [-60.0, -61.0], "rss_dbm_2": [-70.0, None],
        "rsrq_db_1": [-9.0, -8.0], "rsrq_db_2": [-12.0, None], "truth_lon": [10.0, None], "truth_lat": [50.0, None], "source_row": [7, 9],
    }  # fmt: skip
    result = imported(table)
    assert presets.recognise(table).preset == "normal"
    assert heard(result.records, 0) == [("6188-1", -60), ("6188-2", -70)]
    assert result.records.row.tolist() == [7, 9]
    assert result.records.has_truth.tolist() == [True, False]
    np.testing.assert_allclose(result.records.signals["rsrq_db"][0, :2], [-9, -12])


def test_usual_names_need_no_preset():
    table = {"imei": ["x"], "timestamp": [1e9], "cell_id": ["c"], "rsrp": [-80.0], "lon": [1.0], "lat": [2.0]}
    layout = presets.recognise(table)
    assert layout.preset == "fields"
    assert layout.because == ("timestamp", "cell_id")
    assert heard(imported(table).records, 0) == [("c", -80)]


def test_fields_that_a_user_names():
    table = {
        "who": ["x"],
        "when": [1e9],
        "A": [6188],
        "s1": [1],
        "s2": [2],
        "p1": ["-60,5"],
        "p2": [-70],
        "q1": [4],
        "q2": [3],
    }
    layout = presets.with_fields(
        presets.recognise(table),
        roles={"device": ["who"], "time": ["when"], "lon": []},
        cell=["s1", "s2"],
        area=["A"],
        rss=["p1", "p2"],
        signals=["q1", "q2"],
    )
    result = imported(table, layout=layout)
    assert heard(result.records, 0) == [("6188-1", -60.5), ("6188-2", -70)]
    np.testing.assert_array_equal(result.records.signals["q"][0, :2], [4, 3])


def test_fields_that_do_not_match():
    layout = presets.recognise(TONGJI)
    with pytest.raises(
        InputError, match="RSS_FIELDS names 1 fields, but there are 2 fields of cells; each needs its own"
    ):
        presets.with_fields(layout, roles={}, cell=["CellID_1", "CellID_2"], rss=["Dbm_1"])
    with pytest.raises(InputError, match="CELL_FIELDS names 8 fields, but a record holds at most 7 cells"):
        presets.with_fields(layout, roles={}, cell=["CellID_1"] * 8)
    with pytest.raises(InputError, match="give CELL_FIELDS too"):
        presets.with_fields(layout, roles={}, area=["RNCID_1"])
    with pytest.raises(InputError, match="'Dbm_9' belongs to cell 9, but there are 2 fields of cells"):
        presets.with_fields(layout, roles={}, signals=["Dbm_9"])


def test_an_unknown_table_lacks_roles():
    assert presets.recognise(["a", "b"]).missing == ("time", "cell")
    assert presets.recognise(["a", "MRTime"], "tongji2g").missing == ("cell",)
    assert presets.recognise(["a"], "normal").missing == ("device", "cell_1", "rss_dbm_1", "time_s")


# Rows that are rejected, and what is mended


def table_of(n=4, **changes):
    table = {
        "device": ["a"] * n, "time": [1e9 + row for row in range(n)], "cell_1": ["x"] * n, "cell_2": ["y"] * n,
        "rss_dbm_1": [-60.0 - row for row in range(n)], "rss_dbm_2": [-80.0] * n, "truth_lon": [10.0] * n, "truth_lat": [50.0] * n,
    }  # fmt: skip
    for name, (row, value) in changes.items():
        values = list(table[name])
        if isinstance(value, str):
            values = [str(one) for one in values]
        values[row] = value
        table[name] = values
    return table


@pytest.mark.parametrize(
    ("changes", "reason", "value"),
    [
        ({"device": (1, "")}, "no device", ""),
        ({"time": (1, "")}, "no time", ""),
        ({"time": (1, "-999")}, "no time", ""),
        ({"time": (1, "soon")}, "time that cannot be read", "soon"),
        ({"time": (1, 0.0)}, "time that cannot be read", "0"),
        ({"cell_1": (1, ""), "cell_2": (1, "-1")}, "no usable cell", ""),
        ({"rss_dbm_1": (1, 57.0), "cell_2": (1, "")}, "RSS that no phone measures", "57"),
        ({"rss_dbm_1": (1, -300.0), "rss_dbm_2": (1, 80.0)}, "RSS that no phone measures", "-300"),
        ({"truth_lon": (1, 421000.5)}, "truth off the earth", "421000.5, 50"),
    ],
)
def test_every_reason(changes, reason, value):
    result = imported(table_of(**changes))
    assert len(result.records) == 3
    assert result.rejected.counts() == {reason: 1}
    assert result.rejected.row.tolist() == [2]
    assert result.rejected.value_of(0) == value
    assert result.rows_read == 4


def test_copies_are_rejected_and_what_only_shares_a_time_is_kept():
    table = table_of(5)
    for name, values in table.items():
        table[name] = [values[0], values[0], values[0], values[3], values[0]]
    table["rss_dbm_1"] = [-60.0, -61.0, -60.0, -60.0, -60.0]  # rows 1, 3 and 5 are one, row 2 is not
    result = imported(table)
    assert result.rejected.row.tolist() == [3, 5]
    assert result.rejected.counts() == {"copy of another record": 2}
    assert sorted(result.records.row.tolist()) == [1, 2, 4]


def test_a_neighbour_with_absurd_rss_is_left_out():
    result = imported(table_of(rss_dbm_2=(1, 80.0)))
    assert heard(result.records, 1) == [("x", -61)]
    assert result.notes == {"neighbours left out because of an RSS that no phone measures": 1}


def test_a_serving_cell_with_absurd_rss_stays_without_it():
    result = imported(table_of(rss_dbm_1=(1, 5.0)))
    (serving, rss), other = heard(result.records, 1)
    assert (serving, other) == ("x", ("y", -80))
    assert np.isnan(rss)
    assert result.notes == {"serving cells kept without their RSS, which no phone measures": 1}


def test_missing_marks_leave_cells_and_rss_out():
    result = imported(table_of(rss_dbm_1=(0, 2147483647.0), cell_2=(1, "nan")))
    assert np.isnan(result.records.rss_dbm[0, 0])
    assert heard(result.records, 1) == [("x", -61)]
    assert not result.notes


def test_cells_move_up_and_none_stands_twice():
    table = table_of(cell_1=(1, ""))
    table["cell_2"][2] = "x"
    result = imported(table)
    assert heard(result.records, 1) == [("y", -80)]
    assert heard(result.records, 2) == [("x", -62)]
    assert result.notes == {
        "cells left out because they stand twice in one record": 1,
        "records without a serving cell, whose next one takes its place": 1,
    }


def test_no_row_can_be_used():
    table = table_of(2)
    table["rss_dbm_1"], table["rss_dbm_2"] = [28.0, 27.0], [12.0, 11.0]
    sentence = r"None of the 2 rows can be used \(RSS that no phone measures: 2, such as '28'\)\. If these are ASU, give RADIO\."
    with pytest.raises(InputError, match=sentence):
        imported(table)
    assert heard(imported(table, radio="gsm").records, 0) == [("x", -57), ("y", -89)]
    table = table_of(2)
    table["device"] = ["", ""]
    with pytest.raises(InputError, match=r"None of the 2 rows can be used \(no device: 2\)\."):
        imported(table)


def test_a_truth_in_another_crs():
    table = table_of()
    table["truth_lon"], table["truth_lat"] = [421_000.0] * 4, [5_540_000.0] * 4
    with pytest.raises(InputError, match=r"None of the 4 true positions lies on the earth .* Give its TRUTH_CRS"):
        imported(table)
    result = imported(table, to_lonlat=lambda x, y: (x / 1e5, y / 1e5))
    np.testing.assert_allclose(result.records.lon, 4.21)


def test_truths_that_are_not_known():
    result = imported(table_of(truth_lon=(0, 0.0), truth_lat=(0, 0.0)))
    assert result.records.has_truth.tolist() == [False, True, True, True]
    assert result.notes == {"truths at 0°, 0°, which count as unknown": 1}
    result = imported(table_of(truth_lon=(0, -999.0)))
    assert result.records.has_truth.tolist() == [False, True, True, True]


def test_a_long_gap_makes_a_new_trajectory():
    table = table_of(time=(3, 2e9))
    assert imported(table).records.trajectories == ("a #1", "a #2")
    assert imported(table, max_gap_s=1e10).records.trajectories == ("a",)


def test_times_from_a_start_are_taken_as_they_are():
    table = table_of()
    table["time"] = [0.0, 1.0, 2.0, 3.0]
    result = imported(table)
    np.testing.assert_array_equal(result.records.time_s, [0, 1, 2, 3])
    assert result.notes == {"times before 1973, which seem to count from a start": 4}


@pytest.mark.parametrize("part", [1, 2, 10])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_an_area_code_that_some_rows_lack(part, order):
    table = {"MRTime": [1e9, 1e9 + 1, 1e9 + 2], "RNCID_1": ["", "", "5"], "CellID_1": [1, 2, 3], "Dbm_1": [-60.0] * 3}
    result = imported({name: [values[row] for row in order] for name, values in table.items()}, part=part)
    assert result.records.cells == ("5-3",)
    assert result.rejected.counts() == {"no usable cell": 2}
    bare = {name: values[:2] for name, values in table.items()}
    assert imported(bare).records.cells == ("1", "2")


def test_texts_where_numbers_belong_are_counted():
    table = {
        **table_of(),
        "rsrq_db_1": [-9.0] * 4,
        "rsrq_db_2": ["-9", "low", "-9", "-9"],
        "truth_lat": ["50", "north", "50", "50"],
    }
    table["rss_dbm_2"] = ["-80", "-80", "loud", "-80"]
    result = imported(table)
    assert result.notes == {
        "RSS values that are no numbers": 1,
        "rsrq_db values that are no numbers": 1,
        "truths that are no numbers, which count as unknown": 1,
    }
    assert result.records.has_truth.tolist() == [True, False, True, True]


def test_two_devices_may_number_their_trajectories_alike():
    table = {**table_of(), "trajectory": [1, 1, 1, 2], "device": ["a", "b", "a", "b"]}
    assert imported(table).records.trajectories == ("2", "a 1", "b 1")


def test_any_order_and_any_parts_give_the_same():
    rng = np.random.default_rng(4)
    n = 300
    table = {
        "device": rng.choice(["a", "b"], n).tolist(), "time": (1e9 + rng.permutation(n)).tolist(),
        "cell_1": rng.choice(["x", "y", ""], n).tolist(), "cell_2": rng.choice(["z", ""], n).tolist(),
        "rss_dbm_1": rng.choice([-60.0, -70.0, 3.0, -999.0], n).tolist(), "rss_dbm_2": rng.choice([-60.0, 9.0], n).tolist(),
    }  # fmt: skip
    whole = imported(table, part=n)
    order = rng.permutation(n)
    mixed = imported({name: [values[row] for row in order] for name, values in table.items()}, part=7, text=True)
    np.testing.assert_array_equal(whole.records.cell, mixed.records.cell)
    np.testing.assert_array_equal(whole.records.rss_dbm, mixed.records.rss_dbm)
    np.testing.assert_array_equal(whole.records.row, order[mixed.records.row - 1] + 1)
    assert whole.notes == mixed.notes
    assert whole.rejected.counts() == mixed.rejected.counts()
    assert len(whole.records) + len(whole.rejected) == n
