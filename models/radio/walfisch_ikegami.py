"""COST231-Walfisch-Ikegami: propagation over roofs and along streets.

Source: COST 231, "Digital mobile radio towards future generation systems", final report, EUR 18957 (1999), section 4.4.1, "COST 231 -
Walfisch-Ikegami-Model", equations (4.4.6) to (4.4.18). All functions take numpy arrays or torch tensors that broadcast against one
another, and return the same kind.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import Array, namespace
from .validity import Validity

VALIDITY = Validity(
    "COST231-Walfisch-Ikegami, COST 231 final report 4.4.1",
    freq_mhz=(800.0, 2000.0),
    height_m=(4.0, 50.0),
    device_height_m=(1.0, 3.0),
    distance_m=(20.0, 5_000.0),
    beyond="the formula is used all the same, but never below free space",
)
CITIES = ("medium", "metropolitan")
#: k_f's slope over frequency (equation (4.4.17)): medium-sized cities and suburban centres with moderate trees; metropolitan centres.
_CITY_SLOPE = {"medium": 0.7, "metropolitan": 1.5}
#: Roofs stand at least this far above the device [m], where the formula would else gain without end.
_LEAST_ROOF_M = 1.0


class Street(NamedTuple):
    """What a path has on its way and around the device; arrays that broadcast against the distances.

    Parameters
    ----------
    sight
        Whether the antenna sees the device.
    roof_m
        Mean height of the roofs along the path, h_roof [m].
    separation_m
        Separation of the building rows, b [m].
    width_m
        Width of the street the device is in, w [m].
    angle_deg
        Angle between that street and the path, φ, in [0, 90] [°].
    """

    sight: Array
    roof_m: Array
    separation_m: Array
    width_m: Array
    angle_deg: Array


def walfisch_ikegami_db(
    distance_m: Array, freq_mhz: Array, height_m: Array, device_height_m: float, street: Street, city: str = "medium"
) -> Array:
    """Path loss [dB]: a street canyon where there is line of sight, rows of roofs elsewhere.

    Parameters
    ----------
    distance_m
        Horizontal distance [m], positive.
    freq_mhz, height_m
        Carrier frequency [MHz] and height of the antenna [m].
    device_height_m
        Height of the device [m].
    street
        What lies along the path.
    city
        One of `CITIES`.
    """
    xp = namespace(distance_m)
    over_roofs = over_roofs_db(distance_m, freq_mhz, height_m, device_height_m, street, city)
    return xp.where(street.sight, street_canyon_db(distance_m, freq_mhz), over_roofs)


def street_canyon_db(distance_m: Array, freq_mhz: Array) -> Array:
    """Loss with line of sight along a street [dB] (equation (4.4.6)); equals free space at 20 m."""
    xp = namespace(distance_m)
    return 42.6 + 26 * xp.log10(distance_m / 1000) + 20 * xp.log10(freq_mhz)


def over_roofs_db(
    distance_m: Array, freq_mhz: Array, height_m: Array, device_height_m: float, street: Street, city: str = "medium"
) -> Array:
    """Loss without line of sight [dB]: L_0 + max(0, L_rts + L_msd) (equations (4.4.7) and (4.4.8))."""
    xp = namespace(distance_m)
    free_space = 32.4 + 20 * xp.log10(distance_m / 1000) + 20 * xp.log10(freq_mhz)
    to_street = roof_to_street_db(freq_mhz, street.roof_m - device_height_m, street.width_m, street.angle_deg)
    screens = multi_screen_db(distance_m, freq_mhz, height_m, street.roof_m, street.separation_m, city)
    return free_space + (to_street + screens).clip(0, None)


def roof_to_street_db(freq_mhz: Array, below_roof_m: Array, width_m: Array, angle_deg: Array) -> Array:
    """Loss from the last roof down to the street, L_rts [dB] (equations (4.4.9) to (4.4.11)).

    `below_roof_m` is Δh_m, how far the device stands below the roofs [m].
    """
    xp = namespace(width_m)
    drop = 20 * xp.log10(below_roof_m.clip(_LEAST_ROOF_M, None))
    return -16.9 - 10 * xp.log10(width_m) + 10 * xp.log10(freq_mhz) + drop + orientation_db(angle_deg)


def orientation_db(angle_deg: Array) -> Array:
    """L_ori [dB] for the angle between street and path [°] (equation (4.4.11))."""
    xp = namespace(angle_deg)
    along, across = -10 + 0.354 * angle_deg, 4.0 - 0.114 * (angle_deg - 55)
    return xp.where(angle_deg < 35, along, xp.where(angle_deg < 55, 2.5 + 0.075 * (angle_deg - 35), across))


def multi_screen_db(
    distance_m: Array, freq_mhz: Array, height_m: Array, roof_m: Array, separation_m: Array, city: str
) -> Array:
    """Loss over the rows of roofs, L_msd [dB] (equations (4.4.12) to (4.4.17))."""
    xp = namespace(distance_m)
    above_m = height_m - roof_m
    higher = above_m > 0
    shadowing_gain = -18 * xp.log10(1 + above_m.clip(0, None))
    k_a = 54 - 0.8 * above_m.clip(None, 0) * (distance_m / 500).clip(None, 1)
    k_d = xp.where(higher, 18.0 + 0 * above_m, 18 - 15 * above_m / roof_m)
    k_f = -4 + _CITY_SLOPE[city] * (freq_mhz / 925 - 1)
    rest = k_f * xp.log10(freq_mhz) - 9 * xp.log10(separation_m)
    return shadowing_gain + k_a + k_d * xp.log10(distance_m / 1000) + rest


def typical_street(roof_m: float, separation_m: float, width_m: float, angle_deg: float) -> Street:
    """Return the same street everywhere, never with line of sight: what is assumed without footprints."""
    return Street(np.zeros(1, bool), *(np.array([value]) for value in (roof_m, separation_m, width_m, angle_deg)))
