"""How far off fixes are: the figures every method is judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .measurements import metres_per_degree


@dataclass(frozen=True)
class Errors:
    """Distribution of the localisation errors [m] of some records.

    Parameters
    ----------
    count
        Number of records.
    median_m, mean_m, p67_m, p80_m, p90_m, p95_m
        Median, mean and percentiles.
    inside_50, inside_90
        Shares of the truths inside the circles that claim 50 % and 90 %; NaN when there are none.
    """

    count: int
    median_m: float
    mean_m: float
    p67_m: float
    p80_m: float
    p90_m: float
    p95_m: float
    inside_50: float = float("nan")
    inside_90: float = float("nan")


def errors_of(
    error_m: np.ndarray, radius_50_m: np.ndarray | None = None, radius_90_m: np.ndarray | None = None
) -> Errors:
    """Summarise errors [m] and, where given, the radii [m] claimed with them, each of shape (n,); NaN radii are left out.

    Raises
    ------
    InputError
        When there is no error.
    """
    if not len(error_m):
        raise InputError("No record has both a fix and a true position, so nothing can be judged.")
    shares = []
    for radius in (radius_50_m, radius_90_m):
        known = np.zeros(len(error_m), dtype=bool) if radius is None else np.isfinite(radius)
        shares.append(float((error_m[known] <= np.asarray(radius)[known]).mean()) if known.any() else float("nan"))
    median, p67, p80, p90, p95 = (float(value) for value in np.percentile(error_m, [50, 67, 80, 90, 95]))
    return Errors(len(error_m), median, float(error_m.mean()), p67, p80, p90, p95, *shares)


def distance_m(lon: np.ndarray, lat: np.ndarray, true_lon: np.ndarray, true_lat: np.ndarray) -> np.ndarray:
    """Distance [m] between positions [°], each of shape (n,): true to 1e-3 up to 50 km, NaN where one is unknown."""
    east_m, north_m = metres_per_degree((np.asarray(lat, dtype=float) + true_lat) / 2)
    away = (np.asarray(lon, dtype=float) - true_lon + 180) % 360 - 180
    return np.hypot(away * east_m, (np.asarray(lat, dtype=float) - true_lat) * north_m)
