"""Tables of measurement reports that people have, as data: which columns mean what.

A preset names for each role the columns that may hold it. Names compare without regard to upper and lower case. `{i}` is the number of a
cell within a record, 1 (serving) to 7; `{s}` is the same but nothing for 1 (`Lon`, `Lon2`); names without either belong to the first cell.
Several columns in one alternative are joined with "-".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import InputError
from . import normal_form
from .measurements import MOST_CELLS

#: Alternatives of one role, each the columns that are joined.
Alternatives = tuple[tuple[str, ...], ...]
#: Roles that each cell of a record has of its own; the names after "signal " are those of the normal form.
_OF_CELLS = ("cell", "rss", "asu", "cell_lon", "cell_lat", "azimuth_deg", "downtilt_deg", "height_m", "power_dbm")
_DEVICE: Alternatives = (
    ("device",),
    ("device_id",),
    ("deviceid",),
    ("imsi",),
    ("imei",),
    ("user",),
    ("user_id",),
    ("phone",),
)
_TRAJECTORY: Alternatives = (
    ("trajectory",), ("trajectory_id",), ("trajid",), ("traj_id",), ("drive",), ("track",), ("track_id",), ("trip",), ("session",),
)  # fmt: skip
_TIME: Alternatives = (
    ("time_s",), ("date", "time"), ("time",), ("timestamp",), ("t",), ("datetime",), ("date_time",), ("measured_at",), ("mrtime",),
    ("epoch",),
)  # fmt: skip
#: Ids in which the last part may be 0: physical cell ids (PCI) of a carrier.
WITH_ZERO = (("freq", "cid"), ("earfcn", "pci"), ("freq", "pci"), ("arfcn", "pci"))
_LON: Alternatives = (("truth_lon",), ("longitude",), ("lon",), ("lng",), ("long",))
_LAT: Alternatives = (("truth_lat",), ("latitude",), ("lat",))
_RSS: Alternatives = (("rss_dbm",), ("rss",), ("rsrp",), ("rsrp_dbm",), ("dbm",), ("rssi",), ("signal",), ("level",))
_RADIO: Alternatives = (
    ("act",),
    ("radio",),
    ("net_type",),
    ("networkmode",),
    ("networktech",),
    ("technology",),
    ("rat",),
)
_PLAIN_CELL: Alternatives = (
    ("rncid", "cellid"), ("mcc", "mnc", "lac", "cellid"), ("mcc", "mnc", "lac", "ci"), ("mcc", "mnc", "tac", "ci"), ("cell_id",),
    ("ecgi",), ("cgi",), ("eci",), ("nci",), ("lac", "cellid"), ("lac", "ci"), ("ci",), ("cellid",), ("cell",), ("freq", "cid"),
    ("earfcn", "pci"),
)  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """One kind of table.

    Parameters
    ----------
    name, title
        As the parameter PRESET has it, and in words.
    roles
        Alternatives by role; see the module.
    required
        Roles by which the table is recognised.
    of_cells
        Whether a row is one cell heard rather than a whole record.
    within_s
        With `of_cells`: rows of one device within a span of so many seconds [s] are one record; 0 for the very same time.
    radio
        Whose ASU the table counts in where nothing else says so, "" for none.
    asu_in_rss
        Whether an RSS of 0 or more is in ASU.
    power_scale
        dBm of one unit of the column of `power_dbm`.
    """

    name: str
    title: str
    roles: Mapping[str, Alternatives]
    required: tuple[str, ...] = ("time", "cell")
    of_cells: bool = False
    within_s: float = 0.0
    radio: str = ""
    asu_in_rss: bool = False
    power_scale: float = 1.0


PRESETS = (
    Preset(
        "huawei4g",
        "wide LTE tables with ECGI_i and Dbm_i",
        {
            "device": (("imsi",), ("device",)),
            "trajectory": (("area", "trajid_1"), ("area", "trajid"), ("trajid_1",), ("trajid",)),
            "time": (("mrtime_1",), ("mrtime",)),
            "cell": (("ecgi_{i}",), ("ecgi{s}",)),
            "rss": (("dbm_{i}",), ("rsrp_{i}",), ("dbm{s}",)),
            "signal earfcn": (("freq_{i}",), ("earfcn_{i}",)),
            "signal pci": (("pci_{i}",), ("cellid_{i}",)),
            "signal rsrq_db": (("rsrq_{i}",),),
            "lon": (("longitude",),),
            "lat": (("latitude",),),
            "cell_lon": (("lon{s}",), ("lon_{i}",)),
            "cell_lat": (("lat{s}",), ("lat_{i}",)),
            "azimuth_deg": (("azimuth{s}",), ("azimuth_{i}",)),
            "downtilt_deg": (("downtilt{s}",), ("downtilt_{i}",)),
            "height_m": (("height{s}",), ("height_{i}",)),
            "power_dbm": (("power{s}",), ("power_{i}",)),
        },
        radio="lte",
        power_scale=0.1,  # reference-signal power is planned in tenths of a dBm
    ),
    Preset(
        "tongji2g",
        "wide tables as in the DeepLoc paper",
        {
            "device": (("imsi",), ("imei",), ("device",)),
            "trajectory": (("trajid",), ("traj_id",), ("trajectory",)),
            "time": (("mrtime",), ("mrtime_1",)),
            "cell": (("rncid_{i}", "cellid_{i}"), ("rncid", "cellid"), ("srnc_id", "bestcellid")),
            "serving_cell": (("srnc_id", "bestcellid"),),
            "rss": (("dbm_{i}",), ("rssi_{i}",), ("rss_{i}",), ("dbm",), ("rssi",), ("rss",)),
            "asu": (("asulevel_{i}",), ("asu_{i}",), ("asulevel",)),
            "signal asu": (("asulevel_{i}",), ("asu_{i}",), ("asulevel",)),
            "signal level": (("signallevel_{i}",), ("level_{i}",), ("signallevel",)),
            "lon": (("longitude",),),
            "lat": (("latitude",),),
            "cell_lon": (("lon{s}",), ("lon_{i}",)),
            "cell_lat": (("lat{s}",), ("lat_{i}",)),
        },
        radio="gsm",
    ),
    Preset(
        "gnettrack",
        "logs of G-NetTrack, the serving cell only",
        {
            "device": _DEVICE,
            "trajectory": _TRAJECTORY,
            "time": (("timestamp",), ("time",)),
            "cell": (("cgi",), ("rawcellid",), ("node", "cellid"), ("nodehex", "cellhex"), ("lac", "cellid"), ("cellid",)),
            "rss": (("rsrp",), ("level",), ("rscp",), ("rxlev",)),
            "radio": (("networkmode",), ("networktech",)),
            "signal rsrq_db": (("rsrq",), ("qual",)),
            "signal snr_db": (("snr",),),
            "signal rssi_dbm": (("lterssi",), ("rssi",)),
            "signal cqi": (("cqi",),),
            "lon": _LON,
            "lat": _LAT,
        },
        required=("time", "cell", "radio"),
    ),
    Preset(
        "cell_rows",
        "one row per cell heard, with a mark of the serving one",
        {
            "device": _DEVICE,
            "trajectory": _TRAJECTORY,
            "time": _TIME,
            "cell": (("freq", "cid"), ("earfcn", "pci"), *_PLAIN_CELL),
            "serving": (("n_pcell",), ("serving",), ("is_serving",), ("registered",), ("pcell",), ("primary",)),
            "rss": _RSS,
            "radio": _RADIO,
            "signal rsrq_db": (("rsrq",), ("rsrq_db",)),
            "signal snr_db": (("snr",), ("sinr",), ("rssnr",)),
            "signal earfcn": (("earfcn",), ("freq",)),  # LTE's channel number, which logs call freq
            "signal freq_mhz": (("freq_mhz",),),
            "lon": _LON,
            "lat": _LAT,
        },
        required=("time", "cell", "serving"),
        of_cells=True,
        within_s=1.0,
    ),
    Preset(
        "opencellid",
        "measurements as OpenCelliD and Tower Collector export them",
        {
            "device": _DEVICE,
            "trajectory": _TRAJECTORY,
            "time": (("measured_at",), ("timestamp",), ("time",)),
            "cell": (
                ("mcc", "mnc", "lac", "cellid"), ("mcc", "mnc", "lac", "cell_id"), ("mcc", "net", "area", "cell"),
                ("mcc", "mnc", "lac", "ci"), ("mcc", "mnc", "tac", "ci"),
            ),
            "neighbour": (("neighboring",), ("neighbouring",), ("neighbor",), ("is_neighbor",)),
            "rss": (("dbm",), ("signal",), ("rssi",)),
            "asu": (("asu",),),
            "radio": _RADIO,
            "signal ta": (("ta",),),
            "lon": (("lon",), ("longitude",)),
            "lat": (("lat",), ("latitude",)),
        },
        of_cells=True,
        asu_in_rss=True,
    ),
    Preset(
        "fields",
        "any table, its fields recognised by name or given",
        {
            "device": _DEVICE,
            "trajectory": _TRAJECTORY,
            "time": _TIME,
            "cell": (
                ("cell_{i}",), ("rncid_{i}", "cellid_{i}"), ("lac_{i}", "ci_{i}"), ("lac_{i}", "cellid_{i}"), ("ecgi_{i}",), ("ci_{i}",),
                ("cellid_{i}",), ("cell_id_{i}",), *_PLAIN_CELL,
            ),
            "serving": (("serving",), ("is_serving",), ("n_pcell",), ("registered",)),
            "rss": (("rss_dbm_{i}",), ("rss_{i}",), ("rsrp_{i}",), ("dbm_{i}",), ("rssi_{i}",), *_RSS),
            "asu": (("asu_{i}",), ("asulevel_{i}",), ("asu",)),
            "radio": _RADIO,
            "signal rsrq_db": (("rsrq_{i}",), ("rsrq_db_{i}",), ("rsrq",)),
            "lon": _LON,
            "lat": _LAT,
        },
    ),
)  # fmt: skip
NAMES = ("auto", "normal", *(preset.name for preset in PRESETS))


@dataclass(frozen=True)
class Layout:
    """Which columns of one table mean what.

    Parameters
    ----------
    preset
        Its name, what it is in words, and the columns it was recognised by.
    roles
        The columns of each role that a record has once.
    cells
        The columns of each role that every cell of a record has, by cell; () where a cell has none.
    """

    preset: str
    title: str
    because: tuple[str, ...]
    roles: dict[str, tuple[str, ...]]
    cells: dict[str, tuple[tuple[str, ...], ...]]
    of_cells: bool = False
    within_s: float = 0.0
    radio: str = ""
    asu_in_rss: bool = False
    power_scale: float = 1.0
    missing: tuple[str, ...] = field(default=())

    @property
    def columns(self) -> list[str]:
        """All columns that are read, each once."""
        used = [column for columns in self.roles.values() for column in columns]
        used += [column for slots in self.cells.values() for columns in slots for column in columns]
        return list(dict.fromkeys(used))

    @property
    def slots(self) -> int:
        """Cells that a row may hold."""
        return len(self.cells["cell"])

    @property
    def signals(self) -> list[str]:
        """Further signals of each cell."""
        return [role[7:] for role in self.cells if role.startswith("signal ")]


def recognise(columns: Iterable[str], wanted: str = "auto") -> Layout:
    """Find out what the columns of a table mean.

    Parameters
    ----------
    wanted
        A name of `NAMES`: a preset, or "auto" for the first that fits. What a preset requires and the table lacks is in `missing`.
    """
    columns = list(columns)
    if wanted in ("auto", "normal") and (wanted == "normal" or not normal_form.missing(columns)):
        return _normal(columns)
    by_lower = {name.strip().lower(): name for name in reversed(columns)}
    chosen = [preset for preset in PRESETS if wanted in ("auto", preset.name)]
    layouts = [_fit(preset, by_lower) for preset in chosen]
    return next((layout for layout in layouts if not layout.missing), layouts[-1])


def _fit(preset: Preset, by_lower: Mapping[str, str]) -> Layout:
    roles: dict[str, tuple[str, ...]] = {}
    cells: dict[str, tuple[tuple[str, ...], ...]] = {}
    for role, alternatives in preset.roles.items():
        if role in _OF_CELLS or role.startswith("signal "):
            slots = [_slot(alternatives, index, by_lower) for index in range(1, MOST_CELLS + 1)]
            while slots and not slots[-1]:
                slots.pop()
            if slots:
                cells[role] = tuple(slots)
        else:
            found = _slot(alternatives, 1, by_lower)
            if found:
                roles[role] = found
    count = len(cells.get("cell", ()))
    cells = {role: (slots + ((),) * count)[:count] for role, slots in cells.items()}
    cells = {role: slots for role, slots in cells.items() if any(slots)}
    lacking = tuple(role for role in preset.required if role not in roles and role not in cells)
    because = [column for role in preset.required for column in (roles.get(role) or cells.get(role, ((),))[0])]
    of_cells = preset.of_cells or (preset.name == "fields" and "serving" in roles and count == 1)
    return Layout(
        preset.name,
        preset.title,
        tuple(because),
        roles,
        cells,
        of_cells,
        preset.within_s,
        preset.radio,
        preset.asu_in_rss,
        preset.power_scale,
        lacking,
    )


def _slot(alternatives: Alternatives, index: int, by_lower: Mapping[str, str]) -> tuple[str, ...]:
    """The columns of the first alternative that the table has for the cell `index`, () for none."""
    for names in alternatives:
        if index > 1 and "{" not in names[0]:
            continue
        wanted = [name.format(i=index, s="" if index == 1 else index) for name in names]
        if all(name in by_lower for name in wanted):
            return tuple(by_lower[name] for name in wanted)
    return ()


def _normal(columns: Sequence[str]) -> Layout:
    there = set(columns)
    roles: dict[str, tuple[str, ...]] = {role: (role,) for role in ("device", "trajectory") if role in there}
    roles["time"] = ("time_s" if "time_s" in there else "time",)
    roles.update({role: (f"truth_{role}",) for role in ("lon", "lat") if f"truth_{role}" in there})
    if "source_row" in there:
        roles["source_row"] = ("source_row",)
    count = sum(name in there for name in normal_form.counted("cell"))
    names = {"cell": "cell", "rss": "rss_dbm", **{f"signal {name}": name for name in normal_form.signals(columns)}}
    cells: dict[str, tuple[tuple[str, ...], ...]] = {
        role: tuple((column,) if column in there else () for column in normal_form.counted(name, count))
        for role, name in names.items()
    }
    lacking = tuple(normal_form.missing(columns))
    return Layout(
        "normal", "the normal form", ("device", *roles["time"], "cell_1", "rss_dbm_1"), roles, cells, missing=lacking
    )


def with_fields(
    layout: Layout,
    *,
    roles: Mapping[str, Sequence[str]],
    cell: Sequence[str] = (),
    area: Sequence[str] = (),
    rss: Sequence[str] = (),
    signals: Sequence[str] = (),
) -> Layout:
    """Return a layout in which the fields that a user names stand in place of those recognised.

    Parameters
    ----------
    roles
        Fields by role ("device", "trajectory", "time", "lon", "lat", "serving", "radio"); empty ones stay as recognised.
    cell
        Fields of the cell ids, the serving cell first.
    area
        What an id begins with: one field for each of `cell`, or else fields that the ids of all cells begin with.
    rss
        Fields of their RSS, as many as `cell`.
    signals
        Fields of further signals; names that end in a number belong to that cell, e.g. RSRQ_1, RSRQ_2.

    Raises
    ------
    InputError
        When the numbers of fields do not match.
    """
    for name, given in (("CELL_FIELDS", cell), ("RSS_FIELDS", rss)):
        if len(given) > MOST_CELLS:
            raise InputError(f"{name} names {len(given)} fields, but a record holds at most {MOST_CELLS} cells.")
    changed = {**layout.roles, **{role: tuple(fields) for role, fields in roles.items() if fields}}
    cells = dict(layout.cells)
    if cell:
        each = [(one,) for one in area] if len(area) == len(cell) else [tuple(area)] * len(cell)
        cells = {role: slots for role, slots in cells.items() if len(slots) == len(cell)}
        cells["cell"] = tuple((*before, one) for before, one in zip(each, cell))
    elif area:
        raise InputError("AREA_FIELDS says what the ids in CELL_FIELDS begin with; give CELL_FIELDS too.")
    if rss:
        if len(rss) != len(cells.get("cell", ())):
            raise InputError(
                f"RSS_FIELDS names {len(rss)} fields, but there are {len(cells.get('cell', ()))} fields of cells; each needs its own."
            )
        cells["rss"] = tuple((one,) for one in rss)
        cells.pop("asu", None)
    count = len(cells.get("cell", ()))
    for one in signals:
        stem = one.rstrip("0123456789")
        slot = int(one[len(stem) :] or 1)
        if not 1 <= slot <= count:
            raise InputError(f"SIGNAL_FIELDS: '{one}' belongs to cell {slot}, but there are {count} fields of cells.")
        role = f"signal {stem.strip('_ ').lower()}"
        slots = list(cells.get(role, ((),) * count))
        slots[slot - 1] = (one,)
        cells[role] = tuple(slots)
    of_cells = count == 1 and (layout.of_cells or bool(roles.get("serving")))
    lacking = tuple(role for role in ("time", "cell") if role not in changed and role not in cells)
    return replace(layout, roles=changed, cells=cells, of_cells=of_cells, missing=lacking)
