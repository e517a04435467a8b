"""`telcoloc:importmeasurements`: a table of measurement reports becomes the one normal form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsFields,
    QgsProcessing,
    QgsProcessingFeatureSource,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterCrs,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import InputError
from ..telcoloc_qgis import styles
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.columns import features_of, is_points, need_crs, need_rows, parts_of, to_lonlat
from ..telcoloc_qgis.measurements import read_cell_sites, write_measurements
from ..telcoloc_qgis.outputs import fields_of

if TYPE_CHECKING:
    from ..models.trajectory.measurements import CellSites
    from ..models.trajectory.presets import Layout
    from ..models.trajectory.readers import Imported, Rejected

PRESETS = ["auto", "normal", "huawei4g", "tongji2g", "gnettrack", "cell_rows", "opencellid", "fields"]
RADIOS = ["auto", "gsm", "umts", "lte", "nr"]
_WGS84 = "EPSG:4326"
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d{2}))?", re.IGNORECASE)


class ImportMeasurements(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "importmeasurements"
    TITLE = "Import measurements"
    GROUP = "Trajectories"
    SUMMARY = "For tables of measurement reports: one normal form, with every row accounted for."
    DESCRIPTION = (
        "Turns a table of measurement reports (who heard which cells how strongly, when, and perhaps where) into the one form that the "
        "algorithms of this group read: device, trajectory, time, up to seven cells with id and received signal strength (RSS) in dBm, "
        "further signals of each cell, and the true position where it is known.\n\n"
        "Known tables are recognised by their columns: huawei4g (LTE, ECGI_i, Dbm_i, MRTime_1), tongji2g (as in the DeepLoc paper: "
        "RNCID_i, CellID_i, AsuLevel_i, SignalLevel_i, RSSI_i or Dbm_i, MRTime), gnettrack (logs of G-NetTrack), cell_rows (one row per "
        "cell heard, with a mark of the serving one such as n_pcell; those of one second are one record), opencellid (OpenCelliD, Tower "
        "Collector), normal (this form already), and fields (any other: fields recognised by usual names, or given). The log says which "
        "one was taken and why. A field that you give stands in place of what the preset says.\n\n"
        "Numbers may have decimal commas; times may be seconds, milli- or microseconds since 1970, or text such as 2018-04-23T09:20:00Z, "
        "2018/4/23 9:20 or 2019.12.16_13.40.04; missing are empty fields, '-', 'null', -999, 2147483647, and in ids and signals also -1 "
        "and 0. ASU becomes dBm by the radio technology (GSM: -113 + 2 ASU, UMTS: -120 + ASU, LTE and NR: -140 + ASU).\n\n"
        "A row without a device, time or cell is rejected, and so are copies; the log counts them by reason and REJECTED lists them. A "
        "neighbour cell whose RSS lies outside -150 to -20 dBm is left out; a serving cell keeps its place without its RSS as long as "
        "another cell has one. Rows may come in any order. A million records take about half a gigabyte of memory."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:importmeasurements --INPUT=reports.csv --BASE_STATIONS=cells.gpkg --OUTPUT=measurements.gpkg "
        "--CELLS=known_cells.gpkg --REJECTED=rejected.csv"
    )
    TAGS = (
        "telecom", "measurement reports", "mr", "import", "csv", "drive test", "g-nettrack", "opencellid", "tower collector", "asu",
        "rssi", "rsrp", "deeploc", "trajectory",
    )  # fmt: skip
    ICON = "import.svg"

    def define(self) -> None:
        kinds = QgsProcessing.SourceType
        self.add(
            QgsProcessingParameterFeatureSource("INPUT", self.tr("Measurement reports"), [kinds.TypeVector]),
            self.tr("Layer, table or CSV file; whether its fields are typed or all text makes no difference."),
        )
        self._choice(
            "PRESET",
            "Kind of table",
            PRESETS,
            "What the columns mean: auto (recognised from their names) or one of the tables above. fields takes nothing for granted but "
            "usual names.",
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "BASE_STATIONS", self.tr("Base stations"), [kinds.TypeVector], optional=True
            ),
            self.tr(
                "Where the cells stand: point layer in any CRS, or table with lon and lat. Without it, the positions that the table itself "
                "tells are taken."
            ),
        )
        self._field(
            "BS_ID_FIELD",
            "Id field of the base stations",
            "Field that names a cell as the table does; several are joined as 6188-26051. Without it, those fields are taken that name "
            "most of the table's cells (RNCID and CellID, ECGI, cell_id, …).",
            parent="BASE_STATIONS",
            several=True,
        )
        for name, label, text, several in (
            (
                "DEVICE_FIELD",
                "Device field",
                "Field that names the device; without one, each trajectory is its own.",
                False,
            ),
            (
                "TRAJECTORY_FIELD",
                "Trajectory field",
                "Field that names the trajectory; without one MAX_GAP separates them.",
                False,
            ),
            ("TIME_FIELD", "Time field", "Field of the time; several, such as date and time, are joined.", True),
            (
                "CELL_FIELDS",
                "Fields of cell ids",
                "Fields of the ids of up to seven cells, the serving one first.",
                True,
            ),
            (
                "AREA_FIELDS",
                "Fields that cell ids begin with",
                "Fields of the area code (RNC, LAC, or MCC, MNC and LAC) that the ids in CELL_FIELDS begin with, joined as 6188-26051: "
                "one for each of CELL_FIELDS, or else all of them before every id.",
                True,
            ),
            (
                "RSS_FIELDS",
                "RSS fields",
                "Fields of the RSS [dBm] of the cells in CELL_FIELDS, in the same order.",
                True,
            ),
            (
                "SIGNAL_FIELDS",
                "Fields of further signals",
                "Fields of other signals to keep, such as RSRQ_1 and RSRQ_2: a number at the end says which cell's.",
                True,
            ),
            (
                "SERVING_FIELD",
                "Field of the serving cell",
                "For tables with one row per cell heard: field that is largest (or true) for the serving cell of a record.",
                False,
            ),
            ("LON_FIELD", "Longitude field", "Field of the true longitude or easting, in TRUTH_CRS.", False),
            ("LAT_FIELD", "Latitude field", "Field of the true latitude or northing, in TRUTH_CRS.", False),
        ):
            self._field(name, label, text, several=several)
        self._choice(
            "RADIO",
            "Radio technology",
            RADIOS,
            "How ASU becomes dBm: auto (as the preset or a column with the technology says), gsm, umts, lte or nr. When given, RSS of 0 or "
            "more is read as ASU.",
            advanced=True,
        )
        self.add(
            QgsProcessingParameterString("TIME_ZONE", self.tr("Time zone"), defaultValue="UTC"),
            self.tr("Of times that name none: UTC, an offset such as +08:00, or a name such as Europe/Madrid."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterCrs("TRUTH_CRS", self.tr("CRS of the true positions"), defaultValue=_WGS84),
            self.tr(
                "CRS of the fields of the true position. A layer of points without such fields has its truth in its geometry and its own "
                "CRS."
            ),
            advanced=True,
        )
        number = QgsProcessingParameterNumber
        self.add(
            number("MAX_GAP", self.tr("Longest gap in a trajectory [s]"), number.Type.Double, 600.0, False, 0.001, 1e9),
            self.tr("In a table without trajectories, a device's records are one until such a gap."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterFeatureSink("OUTPUT", self.tr("Measurements"), kinds.TypeVectorPoint),
            self.tr(
                "One point per record in EPSG:4326, without geometry where the true position is not known: device, trajectory, time, "
                "time_s (seconds since 1970, UTC), n_cells, cell_1 (serving) to cell_7, rss_dbm_1 to _7, the further signals of each "
                "cell, truth_lon, truth_lat, and source_row (the feature id of the row). Sorted by trajectory and time; plays in the "
                "Temporal Controller."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink("CELLS", self.tr("Cells"), kinds.TypeVectorPoint, optional=True),
            self.tr(
                "One point per cell heard, without geometry where nothing tells its position: cell_id, records, mean_rss_dbm, known, "
                "source (base stations, table or none), and azimuth_deg, downtilt_deg, height_m and power_dbm where they are told. "
                "Training takes it as BASE_STATIONS."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink(
                "REJECTED", self.tr("Rejected rows"), kinds.TypeVector, optional=True, createByDefault=False
            ),
            self.tr("Table of the rows that became no record: source_row, reason, and the value that was wrong."),
        )
        for name, label, text in (
            ("ROWS_READ", "Rows read", "Rows of the table."),
            ("RECORDS", "Records", "Records written."),
            ("REJECTED_COUNT", "Rows rejected", "Rows that became no record."),
            ("DEVICES", "Devices", "Number of devices."),
            ("TRAJECTORIES", "Trajectories", "Number of trajectories."),
            ("CELLS_KNOWN", "Cells with a position", "Number of cells heard whose position is known."),
            ("CELLS_UNKNOWN", "Cells without a position", "Number of cells heard whose position is not known."),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        for name, label, text in (
            ("FIRST_TIME", "First time", "Time of the first record, ISO 8601, UTC."),
            ("LAST_TIME", "Last time", "Time of the last record, ISO 8601, UTC."),
            ("PRESET_USED", "Kind of table used", "The preset that was taken."),
        ):
            self.add_result(QgsProcessingOutputString(name, self.tr(label)), self.tr(text))

    def _choice(self, name: str, label: str, options: list[str], text: str, advanced: bool = False) -> None:
        self.add(
            QgsProcessingParameterEnum(name, self.tr(label), options, defaultValue=options[0], usesStaticStrings=True),
            self.tr(text),
            advanced=advanced,
        )

    def _field(self, name: str, label: str, text: str, parent: str = "INPUT", several: bool = False) -> None:
        self.add(
            QgsProcessingParameterField(
                name, self.tr(label), parentLayerParameterName=parent, allowMultiple=several, optional=True
            ),
            self.tr(text),
            advanced=parent == "INPUT",
        )

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.trajectory.readers import Importer, NothingUsableError

        parameters = run.parameters
        source = parameters.source("INPUT")
        need_rows("INPUT", source)
        layout = _layout(run, source)
        points, convert = _truth(run, source, layout)
        importer = Importer(
            layout,
            device=source.sourceName(),
            radio=parameters.choice("RADIO"),
            zone=_zone(str(parameters.algorithm.parameterAsString(parameters.values, "TIME_ZONE", run.context))),
            max_gap_s=parameters.number("MAX_GAP"),
            to_lonlat=convert,
        )
        reading = run.progress.phase(self.tr("Reading"), 0.0, 0.5)
        for part in parts_of(run, source, "INPUT", layout.columns, points, reading):
            importer.add(part.rows, part.columns, part.x, part.y)
        run.progress.phase(self.tr("Sorting"), 0.5, 0.55)
        try:
            imported = importer.finish()
        except InputError as error:
            if isinstance(error, NothingUsableError) and parameters.wants("REJECTED"):
                _write_rejected(run, error.rejected)
                run.outputs.commit()  # it stays, though the run fails
            raise InputError(f"INPUT: layer '{source.sourceName()}': {error}") from error
        run.info(f"Read and sorted in {run.seconds:.2f} s.")
        stations = None
        if parameters.given("BASE_STATIONS"):
            layer = parameters.source("BASE_STATIONS")
            ids = parameters.fields("BS_ID_FIELD", layer)
            stations = read_cell_sites(run, layer, ids, cells=imported.records.cells)
        cells = _Cells(imported, stations)
        first, last = _report(run, imported, cells)
        records = imported.records
        write_measurements(run, "OUTPUT", records, run.progress.phase(self.tr("Writing"), 0.6, 0.97))
        if parameters.wants("CELLS"):
            cells.write(run)
        if parameters.wants("REJECTED"):
            _write_rejected(run, imported.rejected)
        return {
            "ROWS_READ": imported.rows_read,
            "RECORDS": len(records),
            "REJECTED_COUNT": len(imported.rejected),
            "DEVICES": len(np.unique(records.device)),
            "TRAJECTORIES": len(records.starts) - 1,
            "CELLS_KNOWN": int(cells.known.sum()),
            "CELLS_UNKNOWN": int((~cells.known).sum()),
            "SECONDS": round(run.seconds, 2),
            "FIRST_TIME": first,
            "LAST_TIME": last,
            "PRESET_USED": layout.preset,
        }


def _layout(run: Run, source: QgsProcessingFeatureSource) -> Layout:
    """What the columns mean, by the preset and the fields given."""
    from ..models.trajectory.presets import recognise, with_fields

    parameters = run.parameters
    names = source.fields().names()
    wanted = parameters.choice("PRESET")
    layout = recognise(names, wanted)
    roles = {
        "device": "DEVICE_FIELD",
        "trajectory": "TRAJECTORY_FIELD",
        "time": "TIME_FIELD",
        "serving": "SERVING_FIELD",
        "lon": "LON_FIELD",
        "lat": "LAT_FIELD",
    }
    given = {role: parameters.fields(name, source) for role, name in roles.items()}
    if bool(given["lon"]) != bool(given["lat"]):
        raise InputError("LON_FIELD and LAT_FIELD belong together; give both or neither.")
    lists = {
        key: parameters.fields(name, source)
        for key, name in (
            ("cell", "CELL_FIELDS"),
            ("area", "AREA_FIELDS"),
            ("rss", "RSS_FIELDS"),
            ("signals", "SIGNAL_FIELDS"),
        )
    }
    mapped = any(given.values()) or any(lists.values())
    if mapped:
        layout = with_fields(layout, roles=given, **lists)
    if layout.missing:
        table = f"layer '{source.sourceName()}' (its columns: {_some(names)})"
        if wanted == "auto" and not mapped:
            raise InputError(
                f"INPUT: no known kind of table has the columns of {table}. Say what they mean with TIME_FIELD, CELL_FIELDS and "
                f"RSS_FIELDS, "
                "and DEVICE_FIELD, LON_FIELD and LAT_FIELD where there are such."
            )
        lacking = " and ".join({"time": "TIME_FIELD", "cell": "CELL_FIELDS"}.get(role, role) for role in layout.missing)
        raise InputError(
            f"INPUT: nothing says which column of {table} is meant by {lacking}, which {layout.preset} needs. Give it, or take another "
            f"PRESET."
        )
    how = "chosen" if wanted != "auto" else f"recognised by {', '.join(layout.because)}"
    run.info(f"Kind of table: {layout.preset} ({layout.title}), {how}.")
    roles_said = {**layout.roles, **{role: slots[0] for role, slots in layout.cells.items() if slots and slots[0]}}
    run.info("Columns: " + "; ".join(f"{role} = {' and '.join(used)}" for role, used in roles_said.items()) + ".")
    if "device" not in layout.roles:
        each = (
            "each trajectory counts as one"
            if "trajectory" in layout.roles
            else f"'{source.sourceName()}' counts as one"
        )
        run.info(f"No column names devices: {each}.")
    if "rss" not in layout.cells and "asu" not in layout.cells:
        run.warn("INPUT: no column tells how strongly a cell was heard; give RSS_FIELDS if one does.")
    return layout


def _some(names: list[str], most: int = 40) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def _truth(
    run: Run, source: QgsProcessingFeatureSource, layout: Layout
) -> tuple[bool, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None]:
    """Whether geometries are the truth, and what makes degrees of it."""
    in_fields = "lon" in layout.roles and "lat" in layout.roles
    if in_fields:
        crs = run.parameters.crs("TRUTH_CRS")
        run.info(
            f"True positions: {layout.roles['lon'][0]} and {layout.roles['lat'][0]}, in {crs.authid() or 'TRUTH_CRS'}."
        )
        if layout.preset == "normal":
            return False, None
    elif is_points(source):
        crs = source.sourceCrs()
        need_crs("INPUT", source)
        run.info(f"True positions: the points of '{source.sourceName()}', in {crs.authid()}.")
    else:
        run.info("True positions: none.")
        return False, None
    if crs == QgsCoordinateReferenceSystem(_WGS84):
        return not in_fields, None
    return not in_fields, lambda x, y: to_lonlat(run, x, y, crs)


def _zone(text: str) -> tzinfo:
    text = text.strip()
    if text.upper() in ("", "UTC", "GMT", "Z"):
        return timezone.utc
    offset = _OFFSET.fullmatch(text)
    if offset is not None and int(offset[2]) <= 14:
        minutes = int(offset[2]) * 60 + int(offset[3] or 0)
        return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(
            f"TIME_ZONE '{text}' is not known. Give UTC, an offset such as +08:00, or a name such as Europe/Madrid."
        ) from error


class _Cells:
    """The cells of the records, with what is known of each, shape (n_cells,)."""

    def __init__(self, imported: Imported, stations: CellSites | None) -> None:
        records = imported.records
        self.ids = records.cells
        heard = records.cell >= 0
        codes = records.cell[heard]
        self.records = np.bincount(codes, minlength=len(self.ids))
        rss = records.rss_dbm[heard].astype(float)
        told = np.isfinite(rss)
        count = np.bincount(codes[told], minlength=len(self.ids))
        total = np.bincount(codes[told], rss[told], minlength=len(self.ids))
        self.mean_rss_dbm = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        n = len(self.ids)
        self.lon, self.lat = np.full(n, np.nan), np.full(n, np.nan)
        names = ("azimuth_deg", "downtilt_deg", "height_m", "power_dbm")
        self.details = {name: np.full(n, np.nan) for name in names}
        self.source = np.full(n, "", dtype=object)
        row_of = {name: row for row, name in enumerate(self.ids)}
        for sites, source in ((imported.sites, "table"), (stations, "base stations")):
            if sites is None:
                continue
            rows = np.array([row_of.get(name, -1) for name in sites.ids], dtype=int)
            here = rows >= 0
            self.lon[rows[here]], self.lat[rows[here]] = sites.lon[here], sites.lat[here]
            self.source[rows[here]] = source
            for name in names:
                values = (
                    imported.downtilt_deg if (name, source) == ("downtilt_deg", "table") else getattr(sites, name, None)
                )
                if values is not None:
                    there = np.isfinite(values[here])
                    self.details[name][rows[here][there]] = values[here][there]
        self.known = np.isfinite(self.lon)

    def write(self, run: Run) -> None:
        """Write CELLS."""
        kind = QMetaType.Type
        told = {name: values.round(6) for name, values in self.details.items() if np.isfinite(values).any()}
        fields = fields_of(
            ("cell_id", kind.QString),
            ("records", kind.LongLong),
            ("mean_rss_dbm", kind.Double),
            ("known", kind.Bool),
            ("source", kind.QString),
            *((name, kind.Double) for name in told),
        )
        columns = [
            list(self.ids),
            self.records.tolist(),
            _or_null(self.mean_rss_dbm.round(2)),
            self.known.tolist(),
            [text or None for text in self.source.tolist()],
            *(_or_null(values) for values in told.values()),
        ]
        layer = run.outputs.table(
            "CELLS",
            fields,
            features_of(fields, columns, self.lon, self.lat),
            QgsWkbTypes.Type.Point,
            QgsCoordinateReferenceSystem(_WGS84),
            run.progress.phase("Writing cells", 0.97, 0.99),
            len(self.ids),
        )
        run.style("CELLS", layer, styles.points_qml("mean_rss_dbm", self.mean_rss_dbm[self.known]))


def _or_null(values: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


def _report(run: Run, imported: Imported, cells: _Cells) -> tuple[str, str]:
    """Log what was read; return the first and the last time."""
    records, rejected = imported.records, imported.rejected
    first, last = (_iso(seconds) for seconds in (records.time_s.min(), records.time_s.max()))
    run.info(
        f"Rows read: {imported.rows_read:,}; records: {len(records):,}; devices: {len(np.unique(records.device)):,}; trajectories: "
        f"{len(records.starts) - 1:,}; {first} to {last}; cells a record: {records.n_heard.mean():.1f}; records with a true position: "
        f"{int(records.has_truth.sum()):,}."
    )
    if len(rejected):
        counts = "; ".join(
            f"{reason}: {count:,}{_example(rejected, reason)}" for reason, count in rejected.counts().items()
        )
        run.warn(f"Rejected {len(rejected):,} of {imported.rows_read:,} rows: {counts}.")
    else:
        run.info("No row was rejected.")
    for what, count in imported.notes.items():
        run.info(f"{what[0].upper()}{what[1:]}: {count:,}.")
    same = (np.diff(records.trajectory) == 0) & (np.diff(records.time_s) == 0)
    if same.any():
        run.info(
            f"Records with the time of another one of their trajectory, but different; all were kept: {int(same.sum()):,}."
        )
    unknown = int((~cells.known).sum())
    by = {source: int((cells.source == source).sum()) for source in ("base stations", "table")}
    run.info(
        f"Cells heard: {len(cells.ids):,}; with a position: {int(cells.known.sum()):,} ({by['base stations']:,} from the base stations, "
        f"{by['table']:,} from the table); without: {unknown:,}"
        + (f", such as {', '.join(np.array(cells.ids, dtype=object)[~cells.known][:3])}." if unknown else ".")
    )
    return first, last


def _example(rejected: Rejected, reason: str) -> str:
    from ..models.trajectory.readers import REASONS

    rows = np.flatnonzero(rejected.reason == REASONS.index(reason))
    told = rejected.value_of(int(rows[0]))
    return f" (first: row {rejected.row[rows[0]]}" + (f", '{told}')" if told else ")")


def _iso(seconds: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=float(seconds))
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _write_rejected(run: Run, rejected: Rejected) -> None:
    kind = QMetaType.Type
    fields = fields_of(("source_row", kind.LongLong), ("reason", kind.QString), ("value", kind.QString))
    run.outputs.table(
        "REJECTED",
        fields,
        _rejected_rows(rejected, fields),
        progress=run.progress.phase("Writing rejected rows", 0.99, 1.0),
        count=len(rejected),
    )


def _rejected_rows(rejected: Rejected, fields: QgsFields) -> Iterator[QgsFeature]:
    from ..models.trajectory.readers import REASONS

    for index in range(len(rejected)):
        feature = QgsFeature(fields)
        feature.setAttributes(
            [int(rejected.row[index]), REASONS[rejected.reason[index]], rejected.value_of(index) or None]
        )
        yield feature
