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


_HOUR = re.compile(r"^(?:.*_)?(?:h|hour|hr)_?([01]?\d|2[0-3])$|^([01]?\d|2[0-3])[:h](00)?$", re.IGNORECASE)
_DATE_TIME = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_]?(\d{2})[-_]?(\d{2})(?:[T_ -]?(\d{2})[:_-]?(\d{2})?)?(?!\d)")


def times_of_fields(names: Sequence[str], day: datetime) -> list[tuple[datetime, datetime]] | None:
    """Read field names as times, if all of them are times.

    Recognised are hours of a day (``h07``, ``hour_7``, ``traffic_h07``, ``07:00``) and dates with or without a time
    (``2024-05-01T13:00``, ``mb_20240501_13``).

    Parameters
    ----------
    day
        The day that plain hours belong to.

    Returns
    -------
    list of (begin, end), or None
        UTC ranges [begin, end) in the order of `names`: each ends where the next one begins, the last lasts as long as the one
        before it (an hour or a day where there is only one). None unless every name is a time, all of one kind, and no two are equal.
    """
    begins = []
    hourly = True
    kinds = set()
    for name in names:
        hour = _HOUR.match(name.strip())
        date = _DATE_TIME.search(name)
        kinds.add(bool(hour))
        if hour:
            value = int(hour.group(1) or hour.group(2))
            begins.append(
                day.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=timezone.utc) + timedelta(hours=value)
            )
        elif date:
            try:
                year, month, day_of_month, at_hour, minute = (int(part or 0) for part in date.groups())
                begins.append(datetime(year, month, day_of_month, at_hour, minute, tzinfo=timezone.utc))
            except ValueError:
                return None
            hourly &= date.group(4) is not None
        else:
            return None
    if len(kinds) != 1 or len(set(begins)) < len(begins):
        return None
    ordered = sorted(begins)
    last = ordered[-1] - ordered[-2] if len(ordered) > 1 else timedelta(hours=1) if hourly else timedelta(days=1)
    ends = dict(zip(ordered, [*ordered[1:], ordered[-1] + last]))
    return [(begin, ends[begin]) for begin in begins]
