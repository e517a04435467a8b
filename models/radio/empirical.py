"""Path loss from distance alone: free space, log-distance, Okumura-Hata and COST231-Hata.

All functions take numpy arrays or torch tensors that broadcast against one another, and return the same kind.

Sources: ITU-R P.525-4 (free space); M. Hata, "Empirical formula for propagation loss in land mobile radio services", IEEE Trans.
Veh. Technol. 29 (1980), equations (15) to (23); COST 231 final report (EUR 18957), section 4.4.1, "COST 231-Hata-Model", equations (4.4.3)
and (4.4.4).
"""

from __future__ import annotations

import math

from .arrays import Array, namespace
from .validity import Validity

#: Free space: 20 log10(4π / c) with d in m and f in MHz [dB] (P.525-4 equation (4), c = 299,792,458 m/s).
_FREE_SPACE_DB = 20 * math.log10(4 * math.pi * 1e6 / 299_792_458.0)
#: Nearer than this a formula stays what it is there [m].
LEAST_DISTANCE_M = 1.0
AREAS = ("urban", "suburban", "open")
CITIES = ("medium", "large")

#: Okumura-Hata's constants by frequency: below and above 1,500 MHz (Hata equation (15); COST231-Hata equation (4.4.3)):
#: the intercept [dB] and the slope over log10 of the frequency.
_SPLIT_MHZ = 1500.0
_HATA, _COST_HATA = (69.55, 26.16), (46.3, 33.9)
#: C_m of COST231-Hata in metropolitan centres [dB]; 0 in medium-sized cities and suburban centres (equation (4.4.4)).
_METROPOLITAN_DB = 3.0
#: Frequency at which Hata's correction for the device's height in a large city changes (Hata gives it for ≤ 200 and ≥ 400 MHz).
_LARGE_CITY_MHZ = 300.0

_NEARER = "the formula is used all the same, nearer to the antenna as well, but never below free space"
HATA_VALIDITY = Validity(
    "Okumura-Hata, Hata 1980, to 1500 MHz and COST231-Hata, COST 231 final report 4.4.1, above",
    freq_mhz=(150.0, 2000.0),
    height_m=(30.0, 200.0),
    device_height_m=(1.0, 10.0),
    distance_m=(1_000.0, 20_000.0),
    beyond=_NEARER,
)
LOG_DISTANCE_VALIDITY = Validity("log-distance")


def free_space_db(distance_m: Array, freq_mhz: Array) -> Array:
    """Free-space loss between isotropic antennas [dB]; below 1 m it stays what it is there."""
    xp = namespace(distance_m)
    return _FREE_SPACE_DB + 20 * xp.log10(distance_m.clip(LEAST_DISTANCE_M)) + 20 * xp.log10(freq_mhz)


def log_distance_db(
    distance_m: Array, freq_mhz: Array, exponent: float, reference_m: float, intercept_db: float | None = None
) -> Array:
    """Log-distance loss [dB]: `intercept_db` at the reference distance [m] and 10 × `exponent` dB per decade.

    Without an intercept the loss at the reference distance is that of free space (the close-in model).
    """
    xp = namespace(distance_m)
    slope = 10 * exponent * xp.log10(distance_m.clip(LEAST_DISTANCE_M) / reference_m)
    if intercept_db is not None:
        return intercept_db + slope
    return _FREE_SPACE_DB + 20 * math.log10(reference_m) + 20 * xp.log10(freq_mhz) + slope


def device_height_correction_db(freq_mhz: Array, device_height_m: float, city: str) -> Array:
    """Hata's a(h_m) [dB]: what a device's height gains (equations (16) to (18)); in a large city or any other."""
    xp = namespace(freq_mhz)
    log_f = xp.log10(freq_mhz)
    if city == "large":
        low = 8.29 * math.log10(1.54 * device_height_m) ** 2 - 1.1
        high = 3.2 * math.log10(11.75 * device_height_m) ** 2 - 4.97
        return xp.where(freq_mhz < _LARGE_CITY_MHZ, low + 0 * log_f, high + 0 * log_f)
    return (1.1 * log_f - 0.7) * device_height_m - (1.56 * log_f - 0.8)


def hata_db(
    distance_m: Array,
    freq_mhz: Array,
    height_m: Array,
    device_height_m: float,
    area: str = "urban",
    city: str = "medium",
) -> Array:
    """Median loss of Okumura-Hata to 1,500 MHz and COST231-Hata above [dB].

    COST 231 gives no corrections for suburbs and open land; Hata's are used up to 2,000 MHz, as the extended Hata model of ERC Report 68
    does.

    Parameters
    ----------
    distance_m
        Distance [m]; below 1 m the loss stays what it is there.
    freq_mhz, height_m
        Carrier frequency [MHz] and height of the antenna [m].
    device_height_m
        Height of the device [m].
    area
        One of `AREAS`.
    city
        One of `CITIES`; matters in an urban area only.
    """
    xp = namespace(distance_m)
    log_f, log_h = xp.log10(freq_mhz), xp.log10(height_m)
    log_d = xp.log10(distance_m.clip(LEAST_DISTANCE_M) / 1000)
    large = city == "large" and area == "urban"
    hata = _HATA[0] + _HATA[1] * log_f
    hata = hata - device_height_correction_db(freq_mhz, device_height_m, "large" if large else "medium")
    cost = _COST_HATA[0] + _COST_HATA[1] * log_f + (_METROPOLITAN_DB if large else 0.0)
    cost = cost - device_height_correction_db(freq_mhz, device_height_m, "medium")
    loss = xp.where(freq_mhz <= _SPLIT_MHZ, hata, cost)
    loss = loss - 13.82 * log_h - area_gain_db(freq_mhz, area)
    return loss + (44.9 - 6.55 * log_h) * log_d


def area_gain_db(freq_mhz: Array, area: str) -> Array:
    """How much less the loss is than in a city [dB] (Hata's equations (22) for suburbs and (23) for open land)."""
    xp = namespace(freq_mhz)
    log_f = xp.log10(freq_mhz)
    if area == "suburban":
        return 2 * (log_f - math.log10(28.0)) ** 2 + 5.4
    if area == "open":
        return 4.78 * log_f**2 - 18.33 * log_f + 40.94
    return 0 * log_f
