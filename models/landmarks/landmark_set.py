"""Landmarks, and the instants at which a photo recognised one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Location-oriented landmarks are fiducial points; service-oriented ones are one more candidate (section 4.1 of the paper).
LOCATION, SERVICE = "location", "service"
KINDS = (LOCATION, SERVICE)


@dataclass(frozen=True)
class Landmarks:
    """Known places that a photo can recognise.

    Parameters
    ----------
    ids
        Names, all different.
    xy_m
        Where somebody stands who sees it as its photo shows it, in a metric CRS [m], shape (n, 2).
    fiducial
        Whether it is location-oriented, shape (n,), bool.
    """

    ids: tuple[str, ...]
    xy_m: np.ndarray
    fiducial: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Matches:
    """Recognised landmarks, in any order.

    Parameters
    ----------
    devices, device
        Names, and whose photo it was, shape (n,), int32; −1 where the table does not tell (then it counts for every device).
    time_s
        Seconds since 1970-01-01 UTC, shape (n,).
    landmark
        Row in the landmarks, shape (n,), int32.
    fiducial
        Whether the match may be trusted as a fiducial point: the landmark is location-oriented and the match passed the margin test,
        shape (n,), bool. Others are one more candidate.
    row
        Where a match came from (feature id or row number), shape (n,), int64.
    """

    devices: tuple[str, ...]
    device: np.ndarray
    time_s: np.ndarray
    landmark: np.ndarray
    fiducial: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.time_s)
