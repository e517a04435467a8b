"""The measurement reports of ../shared/data in their normal form, with the positions of their cells."""

from __future__ import annotations

import kit
import numpy as np
import pandas as pd

if True:  # `kit` puts the package in place
    from telcoloc.models.trajectory.measurements import CellSites, Measurements, measurements

HUAWEI_AREAS = ("a0", "a1", "a2", "a3", "a4", "a5")


def jiading() -> tuple[Measurements, CellSites]:
    """The Jiading 2G set: 10,115 GSM records of 48 trajectories, cells "RNC-CellID", signals "asu" and "level"."""
    table = pd.read_csv(kit.shared("tongji_mr/jiading2g_mr.csv"))
    slots = range(1, 7)
    rnc, cid = (_wide(table, [f"{name}_{slot}" for slot in slots]) for name in ("RNCID", "CellID"))
    known = (rnc > 0) & (cid > 0)
    lon, lat = (_wide(table, [name + ("" if slot == 1 else str(slot)) for slot in slots]) for name in ("Lon", "Lat"))
    asu, level, dbm = (
        np.where(known, _wide(table, [f"{name}_{slot}" for slot in slots]), np.nan)
        for name in ("AsuLevel", "SignalLevel", "Dbm")
    )
    ids = _ids(known, rnc, "-", cid)
    sites = _sites(ids, {"lon": np.where(lon > 0, lon, np.nan), "lat": np.where(lat > 0, lat, np.nan)})
    records = measurements(
        table["TrajID"].to_numpy(),
        table["MRTime"].to_numpy() / 1000,
        ids,
        np.where(dbm > -200, dbm, np.nan),
        trajectory=table["TrajID"].to_numpy(),
        lon=table["Longitude"].to_numpy(),
        lat=table["Latitude"].to_numpy(),
        signals={"asu": np.where(asu > -200, asu, np.nan), "level": np.where(level > -200, level, np.nan)},
    )
    return records, sites


def huawei(area: str | None = None) -> tuple[Measurements, CellSites]:
    """The Huawei 4G set, or one of its `HUAWEI_AREAS`: LTE records of short trajectories, cells by ECGI.

    `row` is the row of the file, also with one area. Trajectories are an area's own: "a0-3010".
    """
    table = pd.read_parquet(kit.shared("tongji_mr/huawei4g_mr.parquet"))
    slots = range(1, 8)
    row = np.arange(len(table))
    if area is not None:
        row = row[table["area"].to_numpy() == area]
        table = table.iloc[row]
    suffixes = ["" if slot == 1 else str(slot) for slot in slots]
    ecgi = _wide(table, [f"ECGI_{slot}" for slot in slots])
    known = np.nan_to_num(ecgi) > 0
    ids = _ids(known, ecgi)
    columns = {"lon": "Lon", "lat": "Lat", "azimuth_deg": "Azimuth", "height_m": "Height", "power_dbm": "Power"}
    values = {name: _wide(table, [column + suffix for suffix in suffixes]) for name, column in columns.items()}
    values["power_dbm"] = values["power_dbm"] / 10
    name = (table["area"].astype(str) + "-" + table["TrajID_1"].astype(int).astype(str)).to_numpy()
    records = measurements(
        name,
        table["MRTime_1"].to_numpy(),
        ids,
        np.where(known, _wide(table, [f"Dbm_{slot}" for slot in slots]), np.nan),
        trajectory=name,
        lon=table["Longitude"].to_numpy(),
        lat=table["Latitude"].to_numpy(),
        row=row,
    )
    return records, _sites(ids, values)


def huawei_test(data: Measurements) -> np.ndarray:
    """Which records of `huawei` its publishers call the test part (shares most trajectories with the rest), shape (n,)."""
    table = pd.read_parquet(kit.shared("tongji_mr/huawei4g_mr.parquet"), columns=["split"])
    return (table["split"].to_numpy() == "te")[data.row]


def la(every_s: int = 1) -> tuple[Measurements, CellSites]:
    """The LA drives, one record per second (of every `every_s`): serving cell by `n_pcell`, 7 strongest; no cell positions.

    Cells are "freq-cid"; signals: "rsrq_db". A trajectory is a drive; its name begins with its day, as `days` reads it.
    """
    table = pd.read_parquet(kit.shared("la_lte/C1_att_1hz.parquet"))
    table = table[table["t"] % every_s == 0]
    serving = table.groupby(["drive", "t"], observed=True)["n_pcell"].transform("max")
    first = (table["n_pcell"] == serving) & (serving > 0)
    table = table.assign(
        first=first & ~table[first].duplicated(["drive", "t"]).reindex(table.index, fill_value=False),
        cell=table["freq"].astype(str) + "-" + table["cid"].astype(str),
    )
    table = table.sort_values(["drive", "t", "first", "rsrp"], ascending=[True, True, False, False], kind="stable")
    group = table.groupby(["drive", "t"], observed=True)
    slot, record = group.cumcount().to_numpy(), group.ngroup().to_numpy()
    seconds = table[slot == 0]
    kept = slot < 7
    cell = np.full((len(seconds), 7), "", dtype=object)
    rsrp, rsrq = (np.full((len(seconds), 7), np.nan) for _ in range(2))
    at = record[kept], slot[kept]
    cell[at] = table["cell"].to_numpy()[kept]
    rsrp[at], rsrq[at] = table["rsrp"].to_numpy()[kept], table["rsrq"].to_numpy()[kept]
    drive = seconds["drive"].astype(str).to_numpy()
    records = measurements(
        drive,
        seconds["t"].to_numpy(),
        cell.astype(str),
        rsrp,
        trajectory=drive,
        lon=seconds["lon"].to_numpy(),
        lat=seconds["lat"].to_numpy(),
        signals={"rsrq_db": rsrq},
    )
    return records, CellSites.none()


def days(data: Measurements) -> np.ndarray:
    """Number of the day each record was made on, shape (n,): by name of a trajectory of `la`, else by UTC time."""
    names = np.array([name[:8] for name in data.trajectories])
    if len(names) and all(name.isdigit() and len(name) == 8 for name in names):
        return np.unique(names, return_inverse=True)[1][data.trajectory]
    return (data.time_s // 86_400).astype(np.int64)


def _wide(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
    return table[columns].to_numpy(dtype=float)


def _ids(known: np.ndarray, *parts: np.ndarray | str) -> np.ndarray:
    """Ids as strings, shape of `known`; "" where it is false."""
    pieces = [
        part if isinstance(part, str) else np.nan_to_num(part).astype(np.int64).astype(str).astype(object)
        for part in parts
    ]
    text = pieces[0]
    for piece in pieces[1:]:
        text = text + piece
    return np.where(known, text, "").astype(str)


def _sites(ids: np.ndarray, values: dict[str, np.ndarray]) -> CellSites:
    """The median of what the records say of each cell."""
    table = pd.DataFrame({name: value.ravel() for name, value in values.items()}).groupby(ids.ravel()).median()
    table = table[table.index != ""]
    columns = {name: table[name].to_numpy() for name in values}
    return CellSites(tuple(table.index.astype(str)), **columns)
