"""How tables of measurement reports (MRs) spell numbers, ids and times, and how they count signal strength.

Every function takes one column (numbers, datetime64, text as bytes or str, or objects) and looks at each different value once, so that
millions of rows cost little more than their reading.

References
----------
Arbitrary strength units (ASU): 3GPP TS 27.007, +CSQ (GSM) and +CESQ (RSCP, RSRP, SS-RSRP); Android's CellSignalStrengthGsm,
-Wcdma, -Lte and -Nr `getAsuLevel`, which count in the same steps.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo

import numpy as np

#: Texts that stand for "nothing", in lower case.
MISSING_TEXTS = frozenset({"", "-", "--", "nan", "null", "(null)", "none", "na", "n/a", "\\n", "nil", "unknown", "?"})
#: Numbers that stand for "nothing" in any column: -999 and the integer limits of Android and Java.
MISSING_NUMBERS = (-999.0, -9999.0, 2147483647.0, -2147483648.0, 9223372036854775807.0)
#: And in ids and signal columns, where -1 means nothing and 0 is no id and no level.
MISSING_IDS = (*MISSING_NUMBERS, -1.0, 0.0)
#: ASU scale of each radio: (dBm at 0, dB a step, highest level); 99 and 255 are "not known" in all of them.
#: GSM: TS 27.007 +CSQ <rssi>. UMTS: +CESQ <rscp> and Android, dBm = ASU - 120; the older ASU - 116 of TS 25.133 (levels -5 to 91) is 4 dB
#: above it. LTE: +CESQ <rsrp>, dBm = ASU - 140. NR: Android's SS-RSRP, dBm = ASU - 140.
ASU = {"gsm": (-113.0, 2.0, 31.0), "umts": (-120.0, 1.0, 96.0), "lte": (-140.0, 1.0, 97.0), "nr": (-140.0, 1.0, 97.0)}
RADIOS = tuple(ASU)
#: Names of radio technologies as logs write them, by how they begin in lower case; the first that fits counts.
_RADIO_NAMES = (
    ("umts", ("umts", "hs", "wcdma", "utra", "3g", "tdscdma", "td-scdma")),
    ("gsm", ("gsm", "gprs", "edge", "2g", "e-gprs", "egprs", "gera")),
    ("lte", ("lte", "4g", "eutra", "e-utra", "emtc", "nb-iot")),
    ("nr", ("nr", "5g", "en-dc", "sa", "nsa")),
)
_DATE = re.compile(
    r"(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})"
    r"(?:[T_ ]+(?P<H>\d{1,2})[:.](?P<M>\d{1,2})(?:[:.](?P<S>\d{1,2})(?:[.,:](?P<f>\d{1,9}))?)?)?"
    r"\s*(?P<z>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?",
    re.IGNORECASE,
)
#: The day first: with dots or dashes only, because 04/05/2018 is April in one country and May in another.
_DAY_FIRST = re.compile(r"(\d{1,2})([-.])(\d{1,2})\2(\d{4})(?=\D|$)")
#: A whole number written as a float of a country with decimal commas.
_WHOLE_WITH_COMMA = re.compile(r"-?\d+,0+")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def distinct(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values of a column and where each row's stands among them, as `np.unique` does, but quicker for short text."""
    column = plain(column)
    if column.dtype.kind == "S" and 0 < column.dtype.itemsize <= 8:
        words = np.ascontiguousarray(column.astype("S8")).view(np.uint64)
        values, inverse = np.unique(words, return_inverse=True)
        return values.view("S8"), inverse
    if column.dtype.kind == "O":
        column = column.astype(str)
    return np.unique(column, return_inverse=True)


def plain(column: np.ndarray) -> np.ndarray:
    """Return a column without a mask: masked numbers are NaN, masked text is empty."""
    if isinstance(column, np.ma.MaskedArray):
        mask = np.broadcast_to(np.asarray(column.mask), column.shape)
        data = np.asarray(column.data)
        if data.dtype.kind in "iufb":
            return np.where(mask, np.nan, data.astype(float))
        if data.dtype.kind in "mM":
            return np.where(mask, np.array("NaT", dtype=data.dtype), data)
        if data.dtype.kind == "O":
            return np.where(mask, "", data)
        return np.where(mask, data.dtype.type(), data)
    return np.asarray(column)


def _text(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.strip().strip("'\"").strip()


def _number(text: str) -> float | None:
    """The number a text holds, also with a decimal comma, a unit or a typographer's minus; NaN for none, None when it holds no number."""
    if text.lower() in MISSING_TEXTS:
        return np.nan
    text = text.replace("\u2212", "-").replace("\u00a0", "")
    if text.lower().endswith(("dbm", "db", "mhz")):
        text = text[: -3 if text.lower().endswith(("dbm", "mhz")) else -2].strip()
    if "," in text:
        if text.rfind(",") > text.rfind("."):  # 1.234,5
            text = text.replace(".", "").replace(",", ".") if text.count(",") == 1 else text.replace(",", "")
        else:  # 1,234.5
            text = text.replace(",", "")
    try:
        return float(text)
    except ValueError:
        return None


def numbers(column: np.ndarray, missing: tuple[float, ...] = MISSING_NUMBERS) -> tuple[np.ndarray, np.ndarray]:
    """Read a column as numbers.

    Returns
    -------
    (values, odd)
        Shape (n,): float64 with NaN for what is missing or odd; and whether a text stood there that is no number.
    """
    column = plain(column)
    odd = np.zeros(len(column), dtype=bool)
    if column.dtype.kind in "iufb":
        values = column.astype(float)
    else:
        try:
            if column.dtype.kind != "S":
                raise ValueError
            values = np.where(column == b"", b"nan", column).astype(float)
        except ValueError:
            different, inverse = distinct(column)
            read = [_number(_text(value)) for value in different.tolist()]
            values = np.array([np.nan if value is None else value for value in read], dtype=float)[inverse]
            odd = np.array([value is None for value in read], dtype=bool)[inverse]
    for mark in missing:
        values = np.where(values == mark, np.nan, values)
    values[~np.isfinite(values)] = np.nan
    return values, odd


def names(column: np.ndarray, missing: tuple[float, ...] = MISSING_NUMBERS) -> tuple[np.ndarray, list[str]]:
    """Read a column as names or ids, in which 6188.0 is "6188".

    Parameters
    ----------
    missing
        Numbers that are no name; see `MISSING_IDS`.

    Returns
    -------
    (codes, texts)
        Codes of shape (n,), -1 for none, into the different texts.
    """
    column = plain(column)
    different, inverse = distinct(column)
    row_of: dict[str, int] = {}
    codes = np.array([_code_of(_name(value, missing), row_of) for value in different.tolist()], dtype=np.int64)
    return (codes[inverse.reshape(-1)] if len(codes) else np.zeros(0, dtype=np.int64)), list(row_of)


def _code_of(name: str, row_of: dict[str, int]) -> int:
    return row_of.setdefault(name, len(row_of)) if name else -1


def _name(value: object, missing: tuple[float, ...]) -> str:
    """An id as text: whole numbers without a point, "" for what is missing."""
    if isinstance(value, bytes) and value.isdigit() and len(value) < 10 and value[:1] != b"0":
        return value.decode()  # what most ids are
    text = repr(value) if isinstance(value, float) else _text(value)
    if text.lower() in MISSING_TEXTS or text == "NaT":
        return ""
    if _WHOLE_WITH_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if text[:1] in "-+.0123456789" or text[:3].lower() == "inf":
        try:
            number = float(text)
        except ValueError:
            return text
        if number in missing or not np.isfinite(number):
            return ""
        if number.is_integer() and "." in text:  # not 12E4, which is an id in hexadecimal
            return str(int(number))
    return text


def joined(parts: list[tuple[np.ndarray, list[str]]], separator: str = "-") -> tuple[np.ndarray, list[str]]:
    """Join ids of several columns, e.g. "6188-26051"; a row that lacks one has none."""
    codes, texts = parts[0]
    for more, ends in parts[1:]:
        both = np.where((codes >= 0) & (more >= 0), codes * len(ends) + more, -1)
        different, inverse = np.unique(both, return_inverse=True)
        pairs = [(int(pair) // len(ends), int(pair) % len(ends)) if pair >= 0 else None for pair in different]
        shift = 1 if pairs and pairs[0] is None else 0
        texts = [f"{texts[pair[0]]}{separator}{ends[pair[1]]}" for pair in pairs if pair is not None]
        codes = inverse.reshape(-1) - shift
    return codes, texts


def times(column: np.ndarray, zone: tzinfo = timezone.utc) -> tuple[np.ndarray, np.ndarray]:
    """Read a column as times.

    Numbers count seconds, milli-, micro- or nanoseconds since 1970-01-01 UTC, which their size tells (from 1973 on). Text is such a
    number, or a date with a time in ISO 8601, "2018/4/23 9:20", "2019.12.16_13.40.04", or "23.04.2018 09:20".

    Parameters
    ----------
    zone
        Of texts and datetime64 that name none.

    Returns
    -------
    (seconds, odd)
        Shape (n,): seconds since 1970-01-01 UTC, NaN for what is missing or odd; and whether a text stood there that is no time.
    """
    column = plain(column)
    if column.dtype.kind == "M":
        seconds = column.astype("datetime64[us]").astype(np.int64) / 1e6
        seconds = np.where(np.isnat(column), np.nan, seconds)
        if zone != timezone.utc:
            different, inverse = np.unique(seconds, return_inverse=True)
            moved = [value if np.isnan(value) else _in_zone(value, zone) for value in different]
            seconds = np.array(moved, dtype=float)[inverse.reshape(-1)]
        return seconds, np.zeros(len(column), dtype=bool)
    values, odd = numbers(column, (*MISSING_NUMBERS, -1.0))
    if odd.any():
        rows = np.flatnonzero(odd)
        different, inverse = distinct(column[rows])
        read = [_moment(_text(value), zone) for value in different.tolist()]
        seconds = np.array([np.nan if value is None else value for value in read], dtype=float)[inverse]
        values = epoch_seconds(values)
        values[rows] = seconds
        odd = np.isnan(values) & odd
        return values, odd
    return epoch_seconds(values), odd


def epoch_seconds(values: np.ndarray) -> np.ndarray:
    """Seconds since 1970 of counts (n,) of s, ms, µs or ns, by their size; 20180423092000 is a date. NaN stays NaN."""
    size = np.abs(values)
    seconds = np.where(size >= 1e11, values / 1e3, values)
    compact = (size >= 1.9e13) & (size < 2.2e13)
    seconds = np.where((size >= 1e14), values / 1e6, seconds)
    seconds = np.where(size >= 1e17, values / 1e9, seconds)
    for row in np.flatnonzero(compact):
        text = f"{values[row]:.0f}"
        try:
            moment = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
        except ValueError:
            continue
        seconds[row] = (moment - _EPOCH).total_seconds()
    return seconds


def _in_zone(seconds: float, zone: tzinfo) -> float:
    """What a clock of `zone` showed as `seconds`, in seconds since 1970 UTC."""
    moment = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=zone)
    return (moment - _EPOCH).total_seconds()


def _moment(text: str, zone: tzinfo) -> float | None:
    """Seconds since 1970 UTC, None when the text is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        turned = _DAY_FIRST.sub(lambda found: f"{found[4]}-{found[3]}-{found[1]}", text, count=1)
        found = _DATE.fullmatch(turned)
        if found is None:
            return None
        part = {name: int(value) for name, value in found.groupdict("0").items() if name in "ymdHMS"}
        fraction = float(f"0.{found['f'] or 0}")
        try:
            moment = datetime(part["y"], part["m"], part["d"], part["H"], part["M"], part["S"])
        except ValueError:
            return None
        moment += timedelta(seconds=fraction)
        if found["z"]:
            moment = moment.replace(tzinfo=_offset(found["z"]))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return (moment - _EPOCH).total_seconds()


def _offset(text: str) -> timezone:
    if text[0] not in "+-":
        return timezone.utc
    digits = text[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def radio_of(text: str) -> str:
    """One of `RADIOS` for a name such as "HSPA+" or "LTE_CA", "" for one that says nothing."""
    text = text.strip().lower()
    return next((radio for radio, starts in _RADIO_NAMES if text.startswith(starts)), "")


def asu_to_dbm(asu: np.ndarray, radio: str) -> np.ndarray:
    """Received power [dBm] of arbitrary strength units (ASU), NaN for "not known" and what is off the scale; see `ASU`."""
    zero, step, highest = ASU[radio]
    asu = np.asarray(asu, dtype=float)
    return np.where((asu >= 0) & (asu <= highest), zero + step * asu, np.nan)


class Names:
    """The different names of a whole table, as its parts come by.

    A name is kept once; rows hold codes into `texts`.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._row_of: dict[str, int] = {}

    def add(self, codes: np.ndarray, texts: list[str]) -> np.ndarray:
        """Return the codes of `names` or `joined` of one part, shape (n,), in terms of the whole table, int32."""
        table = np.empty(len(texts) + 1, dtype=np.int32)
        for row, text in enumerate(texts):
            code = self._row_of.get(text)
            if code is None:
                code = self._row_of[text] = len(self.texts)
                self.texts.append(text)
            table[row] = code
        table[-1] = -1
        return table[codes]
