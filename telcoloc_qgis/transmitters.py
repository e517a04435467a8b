"""Reading the cells of a network with their equipment: a point layer in any CRS becomes `Transmitters`.

Every value is a field (given, or recognised by its name) or, where the layer has none, one number for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsPointXY,
    QgsProcessing,
    QgsProcessingFeatureSource,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterNumber,
)

from ..models.errors import InputError
from .columns import fields_by_lower, parts_of, recognised
from .measurements import CELL_ID_FIELDS
from .sites import checked_points, listed, projected

if TYPE_CHECKING:
    from ..models.radio.transmitters import Transmitters
    from .algorithm import Run, TelcoLocAlgorithm


@dataclass(frozen=True)
class Value:
    """One of the values that a transmitter has.

    Parameters
    ----------
    parameter
        Parameter with the number used where a transmitter has none of its own; with `_FIELD` behind it, the field.
    label, unit
        For people.
    default
        Of the parameter; None where it is empty.
    low, high
        Values outside of these are none.
    names
        Fields recognised, in this order; upper and lower case are alike.
    text
        What it is and why the default is what it is.
    otherwise
        What is used where neither field nor number tell.
    numbered
        Whether there is a parameter with a number, or only the field.
    """

    parameter: str
    label: str
    unit: str
    default: float | None
    low: float
    high: float
    names: tuple[str, ...]
    text: str
    otherwise: str = ""
    numbered: bool = True


#: By attribute of `Transmitters`.
EQUIPMENT = {
    "height_m": Value(
        "ANTENNA_HEIGHT",
        "Antenna height",
        "m",
        25.0,
        0.5,
        1000.0,
        ("height_m", "antenna_height_m", "antenna_height", "height", "altura", "hauteur"),
        "Height of the antenna above ground; 25 m is that of 3GPP TR 38.901's urban macro cells.",
    ),
    "azimuth_deg": Value(
        "AZIMUTH",
        "Azimuth",
        "°",
        None,
        -360.0,
        360.0,
        ("azimuth_deg", "azimuth", "direction", "dir", "bearing", "azi"),
        "Direction of the beam, clockwise from north.",
        "no direction",
        False,
    ),
    "tilt_deg": Value(
        "TILT",
        "Downtilt",
        "°",
        None,
        -30.0,
        90.0,
        ("tilt_deg", "downtilt_deg", "downtilt", "tilt", "total_tilt"),
        "Angle of the beam below the horizon, electrical and mechanical together. Empty: that of the pattern file, else 0.",
        "the pattern file's, else 0,",
    ),
    "beam_width_deg": Value(
        "BEAM_WIDTH",
        "Beam width",
        "°",
        65.0,
        1.0,
        360.0,
        ("beamwidth_deg", "beam_width_deg", "beamwidth", "beam_width", "beam_h", "hbw", "hpbw"),
        "Horizontal half-power width of the beam; 65° is that of 3GPP TR 38.901 table 7.3-1, 360° is an antenna without a direction.",
    ),
    "freq_mhz": Value(
        "FREQUENCY",
        "Frequency",
        "MHz",
        1800.0,
        100.0,
        300_000.0,
        ("freq_mhz", "frequency_mhz", "frequency", "freq"),
        "Carrier frequency.",
    ),
    "eirp_dbm": Value(
        "EIRP",
        "EIRP",
        "dBm",
        61.0,
        -50.0,
        100.0,
        ("eirp_dbm", "eirp", "power_dbm", "tx_power_dbm", "power"),
        "Effective isotropic radiated power in the beam's peak: transmitter's power plus antenna gain less feeder. 61 dBm is 46 dBm in "
        "20 MHz and 15 dB of panel less feeder; of one resource element, which RSRP is measured of, it is some 31 dB less.",
    ),
}


def add_transmitter_parameters(algorithm: TelcoLocAlgorithm) -> None:
    """Declare INPUT, ID_FIELD, and per value of `EQUIPMENT` its number and its field."""
    algorithm.add(
        QgsProcessingParameterFeatureSource("INPUT", algorithm.tr("Cells"), [QgsProcessing.SourceType.TypeVectorPoint]),
        algorithm.tr(
            "Point layer in any CRS, one point per cell (sector) with its equipment; sectors at one place stay apart. Select some to "
            "compute these alone."
        ),
    )
    algorithm.add(
        QgsProcessingParameterField(
            "ID_FIELD", algorithm.tr("Id field"), parentLayerParameterName="INPUT", allowMultiple=True, optional=True
        ),
        algorithm.tr(
            "Field that names the cell as measurements do, or several that together do, joined with '-'; it becomes the band's name. "
            "By default it is recognised by its name (cell_id, ecgi, cell, bs_id, …), else the feature id is used."
        ),
    )
    number = QgsProcessingParameterNumber
    for value in filter(lambda each: each.numbered, EQUIPMENT.values()):
        title = algorithm.tr(f"{value.label} where the layer has none [{value.unit}]")
        optional = value.default is None
        algorithm.add(
            number(value.parameter, title, number.Type.Double, value.default, optional, value.low, value.high),
            algorithm.tr(f"For cells without their own. {value.text}"),
            advanced=value.parameter in ("TILT", "BEAM_WIDTH"),
        )
    for value in EQUIPMENT.values():
        what = "Each cell's own value." if value.numbered else value.text
        otherwise = f"{value.parameter} counts" if value.numbered else f"a cell has {value.otherwise}"
        algorithm.add(
            QgsProcessingParameterField(
                f"{value.parameter}_FIELD",
                algorithm.tr(f"{value.label} field [{value.unit}]"),
                parentLayerParameterName="INPUT",
                optional=True,
            ),
            algorithm.tr(
                f"{what} By default it is recognised by its name "
                f"({', '.join(value.names[:3])}, …). Where it is empty, {otherwise}."
            ),
            advanced=True,
        )


def read_transmitters(
    run: Run, parameter: str = "INPUT", crs: QgsCoordinateReferenceSystem | None = None
) -> tuple[Transmitters, QgsCoordinateReferenceSystem]:
    """Read the layer that `add_transmitter_parameters` asks for.

    What is empty, no number or out of range takes the default, which is said; rows without a place or id are left out, which is said too.

    Parameters
    ----------
    crs
        A CRS in metres that positions are wanted in; None to choose one.

    Returns
    -------
    (Transmitters, QgsCoordinateReferenceSystem)
        The cells in the order of the layer, and the metric CRS of their positions.

    Raises
    ------
    InputError
        No features, no points, unknown CRS, no usable row, two rows with one id, a given field without any number that could be meant.
    """
    from ..models.radio.transmitters import Transmitters

    source = run.parameters.source(parameter)
    layer = checked_points(source, parameter)
    choices = _id_choices(run, source)
    fields = {name: _field(run, source, value) for name, value in EQUIPMENT.items()}
    power = fields["eirp_dbm"]
    if power and "eirp" not in power.lower() and not run.parameters.given("EIRP_FIELD"):
        run.warn(
            f"EIRP [dBm]: '{power}' is taken for the power radiated in the beam's peak, antenna gain included. If it is the transmitter's "
            "alone, give EIRP_FIELD with the gain added."
        )
    wanted = [*(name for choice in choices for name in choice), *(field for field in fields.values() if field)]
    wanted = list(dict.fromkeys(wanted))
    parts = list(parts_of(run, source, parameter, wanted, True, lambda _: run.progress(0.0)))
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")  # selected features come in any order
    rows = rows[order]
    x, y = (np.concatenate([getattr(part, axis) for part in parts])[order] for axis in "xy")
    columns = {name: np.ma.concatenate([part.columns[name] for part in parts])[order] for name in wanted}
    ids = _ids(run, parameter, layer, choices, columns, rows)
    placed = np.isfinite(x) & np.isfinite(y)
    named = np.array([bool(name) for name in ids], dtype=bool)
    rejected = [
        f"feature {rows[row]}: {'no id' if placed[row] else 'not one point'}"
        for row in np.flatnonzero(~(placed & named))
    ]
    if len(rejected) == len(rows):
        raise InputError(
            f"{parameter}: none of the {len(rows):,} rows of layer '{layer}' can be used ({listed(rejected)})."
        )
    if rejected:
        run.warn(f"{parameter}: {len(rejected):,} of {len(rows):,} rows cannot be used: {listed(rejected)}.")
    used = np.flatnonzero(placed & named)
    ids = [ids[row] for row in used]
    _check_unique(parameter, ids, rows[used])
    points = [QgsPointXY(x[row], y[row]) for row in used]
    xy_m, crs = projected(run, source, points, ids, parameter, crs)
    values = {
        name: _numbers(run, EQUIPMENT[name], field, None if field is None else columns[field][used], ids)
        for name, field in fields.items()
    }
    round_about = np.isnan(values["azimuth_deg"]) | (values["beam_width_deg"] >= 360)
    values["azimuth_deg"] = np.where(round_about, np.nan, values["azimuth_deg"] % 360)
    values["beam_width_deg"] = np.where(round_about, 360.0, values["beam_width_deg"])
    if round_about.any():
        run.info(f"Cells without a direction, which send alike all round: {round_about.sum():,} of {len(ids):,}.")
    return Transmitters(tuple(ids), xy_m, **values), crs


def _id_choices(run: Run, source: QgsProcessingFeatureSource) -> list[tuple[str, ...]]:
    """Fields that may name a cell: those given, or all that are recognised."""
    given = run.parameters.fields("ID_FIELD", source)
    if given:
        return [tuple(given)]
    by_lower = fields_by_lower(source)
    return [
        tuple(by_lower[name] for name in names) for names in CELL_ID_FIELDS if all(name in by_lower for name in names)
    ]


def _ids(
    run: Run,
    parameter: str,
    layer: str,
    choices: Sequence[tuple[str, ...]],
    columns: dict[str, np.ndarray],
    rows: np.ndarray,
) -> list[str]:
    """An id per row, "" for none: by the fields given, or the first recognised ones that tell all rows apart, else the feature id."""
    from ..models.trajectory import dialects

    given = run.parameters.given("ID_FIELD")
    for choice in choices:
        codes, texts = dialects.joined([dialects.names(columns[field], dialects.MISSING_IDS) for field in choice])
        named = codes[codes >= 0]
        if given or (len(named) and len(np.unique(named)) == len(named)):
            run.info(f"{parameter}: cells of '{layer}' are named by {' and '.join(choice)}.")
            return [texts[code] if code >= 0 else "" for code in codes.tolist()]
    run.info(f"{parameter}: no field of layer '{layer}' is known to name each of its cells, so feature ids do.")
    return [str(row) for row in rows.tolist()]


def _check_unique(parameter: str, ids: Sequence[str], rows: np.ndarray) -> None:
    seen: dict[str, int] = {}
    for name, row in zip(ids, rows.tolist()):
        if name in seen:
            raise InputError(
                f"{parameter}: features {seen[name]} and {row} are both called '{name}'; every cell needs an id of its own. Choose "
                "another ID_FIELD, or several that together name a cell."
            )
        seen[name] = row


def _field(run: Run, source: QgsProcessingFeatureSource, value: Value) -> str | None:
    """The field given, or the first one recognised by its name."""
    return run.parameters.field(f"{value.parameter}_FIELD", source) or recognised(source, value.names)


def _numbers(run: Run, value: Value, field: str | None, column: np.ndarray | None, ids: Sequence[str]) -> np.ndarray:
    """The value of each cell, shape (n,), and what there is to say about it."""
    from ..models.trajectory import dialects

    given = run.parameters.number(value.parameter) if value.numbered else None
    default = np.nan if given is None else given
    instead = value.otherwise if given is None else f"{given:g} {value.unit} ({value.parameter})"
    what = f"{value.label} [{value.unit}]"
    if column is None:
        run.info(f"{what}: no field has it; {instead} for all.")
        return np.full(len(ids), default)
    numbers, odd = dialects.numbers(column)
    with np.errstate(invalid="ignore"):
        wrong = odd | (np.isfinite(numbers) & ((numbers < value.low) | (numbers > value.high)))
    empty = np.isnan(numbers) & ~odd
    known = ~(wrong | empty)
    plain = dialects.plain(column)
    texts = [f"'{ids[row]}' has '{_shown(plain[row])}'" for row in np.flatnonzero(wrong)]
    if not known.any() and wrong.any() and run.parameters.given(f"{value.parameter}_FIELD"):
        raise InputError(
            f"{value.parameter}_FIELD: no value of '{field}' is a number from {value.low:g} to {value.high:g} {value.unit} "
            f"({listed(texts[:3])}). Convert them, or choose another field."
        )
    if wrong.any():
        run.warn(
            f"{what}: {len(texts):,} values of '{field}' are no number from {value.low:g} to {value.high:g} and do not count; {instead} "
            f"is used: {listed(texts)}."
        )
    if empty.any():
        run.info(f"{what}: '{field}' is empty for {empty.sum():,} of {len(ids):,} cells; {instead} is used.")
    if known.any():
        least, most = numbers[known].min(), numbers[known].max()
        run.info(f"{what} from '{field}': {least:g}" + (f" to {most:g}." if most > least else "."))
    return np.where(known, numbers, default)


def _shown(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
