"""The normal form of measurement reports as a table: what its columns are called. In memory it is `measurements.Measurements`.

One row per record, in this order: `device`, `trajectory`, `time` (UTC), `time_s` (seconds since 1970-01-01 UTC), `n_cells`, `cell_1` to
`cell_7` (the serving cell first), `rss_dbm_1` to `rss_dbm_7`, further signals of each cell such as `rsrq_db_1` to `_7`, `truth_lon`,
`truth_lat` [°, WGS84], and `source_row`. The geometry is the true position too, in any coordinate system.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .measurements import MOST_CELLS

#: Received power that a phone can measure [dBm]; what lies outside is in another unit or wrong.
RSS_RANGE_DBM = (-150.0, -20.0)
_COUNTED = re.compile(r"(.+)_([1-7])")


def counted(name: str, most: int = MOST_CELLS) -> list[str]:
    """`name_1` to `name_7`."""
    return [f"{name}_{index}" for index in range(1, most + 1)]


def missing(names: Iterable[str]) -> list[str]:
    """What a table with these columns lacks to be in the normal form."""
    there = set(names)
    lacks = [name for name in ("device", "cell_1", "rss_dbm_1") if name not in there]
    return lacks if there & {"time_s", "time"} else [*lacks, "time_s"]


def signals(names: Iterable[str]) -> list[str]:
    """The further signals a table in the normal form has, e.g. "rsrq_db"."""
    found = [_COUNTED.fullmatch(name) for name in names]
    return list(dict.fromkeys(one[1] for one in found if one is not None and one[1] not in ("cell", "rss_dbm")))
