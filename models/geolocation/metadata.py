"""Spreading base-station (BS) key performance indicators (KPIs) over cells and zones, conserving totals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import numpy as np
from scipy import sparse


def spread(location_given_bs: sparse.csr_matrix, kpis: np.ndarray) -> np.ndarray:
    """Distribute each BS's KPIs over its cells: d_ℓ = Σ_i P(ℓ|i) KPI_i (DeepMEND paper, section VI-A).

    Parameters
    ----------
    location_given_bs
        P(ℓ|i), rows sum to one, shape (n_bs, n_cells).
    kpis
        Shape (n_bs, n_fields).

    Returns
    -------
    numpy.ndarray
        KPI per cell, shape (n_fields, n_cells), float64.
    """
    return np.asarray(kpis, dtype=np.float64).T @ location_given_bs.astype(np.float64)


_HOUR = re.compile(r"^(.*_)?(?:h|hour|hr)_?([01]?\d|2[0-3])$|^([01]?\d|2[0-3])[:h](?:00)?$", re.IGNORECASE)
_DATE_TIME = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_]?(\d{2})[-_]?(\d{2})(?:[T_ -]?[hH]?(\d{2})[:_-]?(\d{2})?)?(?!\d)")


def times_of_fields(names: Sequence[str], day: datetime) -> list[tuple[datetime, datetime]] | None:
    """Read field names as times, if all of them are times.

    Recognised are dates with or without a time (``2024-05-01T13:00``, ``mb_20240501_13``, ``mb_20240501_h13``) and hours of a day
    (``h07``, ``hour_7``, ``traffic_h07``, ``07:00``).

    Parameters
    ----------
    day
        The day that plain hours belong to.

    Returns
    -------
    list of (begin, end), or None
        UTC ranges [begin, end) in the order of `names`. A field lasts an hour, or a day where its name is a date alone, and ends
        earlier where the next one begins; the last is not longer than the time since the one before it. None unless every name is
        a time, all of one kind and with the same text around it (``dl_h08`` and ``ul_h09`` are not), and no two are equal.
    """
    readings = [_reading(name.strip(), day) for name in names]
    if not readings or None in readings:
        return None
    begins, lengths, series = zip(*readings)
    if len(set(series)) > 1 or len(set(begins)) < len(begins):
        return None
    ordered = sorted(begins)
    steps = [after - before for before, after in zip(ordered, ordered[1:])]
    steps += steps[-1:] or [lengths[0]]
    step_after = dict(zip(ordered, steps))
    return [(begin, begin + min(length, step_after[begin])) for begin, length in zip(begins, lengths)]


def _reading(name: str, day: datetime) -> tuple[datetime, timedelta, tuple[str, ...]] | None:
    """(begin, length, what names of one series share) of a field named by a time."""
    hour = _HOUR.match(name)
    date = _DATE_TIME.search(name)
    at_hour = int(hour.group(2) or hour.group(3)) if hour else None
    if not date:
        if hour is None or at_hour is None:
            return None
        begin = datetime(day.year, day.month, day.day, at_hour, tzinfo=timezone.utc)
        return begin, timedelta(hours=1), ("hour", (hour.group(1) or "").lower())
    around = name
    if date.group(4) is not None:
        at_hour = int(date.group(4))
    elif hour:  # the date and, further on, the hour
        around = hour.group(1)
    try:
        year, month, day_of_month = (int(part) for part in date.groups()[:3])
        begin = datetime(year, month, day_of_month, at_hour or 0, int(date.group(5) or 0), tzinfo=timezone.utc)
    except ValueError:
        return None
    before, after = around[: date.start()].lower(), around[date.end() :].lower()
    if at_hour is None:
        return begin, timedelta(days=1), ("date", before, after)
    return begin, timedelta(hours=1), ("date and hour", before, after)
