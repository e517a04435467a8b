"""Path loss of 3GPP TR 38.901 (V17.0.0) table 7.4.1-1 with the LOS probability of table 7.4.2-1, vectorised over distances.

Distances are numpy arrays or torch tensors; with tensors, frequencies and heights are tensors too.
"""

from __future__ import annotations

import numpy as np

from .arrays import Array, at_least, namespace
from .validity import Validity

#: Speed of light [m/s], as the table uses it.
_LIGHT_M_S = 3.0e8
#: Height of the device [m] and, for UMa and UMi, of the effective environment (note 1 of the table).
DEVICE_HEIGHT_M = 1.5
_ENVIRONMENT_HEIGHT_M = 1.0
#: Antennas and devices stand at least this far above it [m], as a device 1.5 m high does: below, the formula has no breakpoint.
_LEAST_ABOVE_M = 0.5
#: RMa: average building height and street width [m], the table's defaults.
_BUILDING_HEIGHT_M, _STREET_WIDTH_M = 5.0, 20.0
#: The table's least horizontal distance [m]; nearer, the loss stays what it is there.
LEAST_DISTANCE_M = 10.0
SCENARIOS = ("UMa", "UMi", "RMa")
#: What the table was made for. Its antenna heights are those of the scenarios (25 m, 10 m), for RMa a range. Devices above 13 m would
#: need an effective environment drawn at random.
_FROM_TABLE = "3GPP TR 38.901 table 7.4.1-1"
_NEARER = "beyond, the same slopes go on; nearer than 10 m the loss stays what it is there"
VALIDITY = {
    "UMa": Validity(f"{_FROM_TABLE}, UMa", (500, 100_000), (25, 25), (1.5, 13), (10, 5_000), _NEARER),
    "UMi": Validity(f"{_FROM_TABLE}, UMi", (500, 100_000), (10, 10), (1.5, 13), (10, 5_000), _NEARER),
    "RMa": Validity(f"{_FROM_TABLE}, RMa", (500, 30_000), (10, 150), (1, 10), (10, 10_000), _NEARER),
}


def path_loss_db(scenario: str, distance_m: Array, freq_mhz: Array, height_m: Array) -> Array:
    """Mean path loss [dB]: LOS and NLOS losses weighted by the probability of line of sight.

    Valid to 5 km (10 km for RMa with line of sight), 0.5 to 100 GHz (RMa: 30 GHz); used beyond it, the same slopes go on.

    Parameters
    ----------
    scenario
        One of `SCENARIOS`.
    distance_m
        Horizontal distance [m], any shape.
    freq_mhz
        Carrier frequency [MHz].
    height_m
        Height of the antenna [m].
    """
    los, nlos = sight_losses_db(scenario, distance_m, freq_mhz, height_m)
    share = los_probability(scenario, distance_m)
    return _array(share * los + (1 - share) * nlos)


def sight_losses_db(
    scenario: str, distance_m: Array, freq_mhz: Array, height_m: Array, device_height_m: float = DEVICE_HEIGHT_M
) -> tuple[Array, Array]:
    """Losses with and without line of sight [dB]; see `path_loss_db`. `device_height_m` is the height of the device [m]."""
    xp = namespace(distance_m)
    d2 = _not_too_near(distance_m)
    d3 = xp.sqrt(d2**2 + (height_m - device_height_m) ** 2)
    los = _LOS[scenario](d2, d3, freq_mhz / 1000, height_m, device_height_m)
    return los, xp.maximum(los, _NLOS[scenario](d3, freq_mhz / 1000, height_m, device_height_m))


def _not_too_near(distance_m: Array) -> Array:
    """Return the distance used [m]."""
    return (distance_m if namespace(distance_m) is not np else np.asarray(distance_m)).clip(LEAST_DISTANCE_M)


def _array(values: Array) -> Array:
    """Return an array also where numpy makes a scalar."""
    return np.asarray(values) if namespace(values) is np else values


def los_probability(scenario: str, distance_m: Array) -> Array:
    """Probability of line of sight at a horizontal distance [m] for a device 1.5 m high (table 7.4.2-1)."""
    xp = namespace(distance_m)
    d2 = _not_too_near(distance_m)
    if scenario == "RMa":
        return _array(xp.exp(-(d2 - 10) / 1000))
    decay_m = 63.0 if scenario == "UMa" else 36.0
    near = xp.exp(-d2 / decay_m)
    return xp.where(d2 <= 18, 1.0, 18 / d2 + near * (1 - 18 / d2))


def _urban_los(
    d2: Array, d3: Array, ghz: Array, height_m: Array, device_height_m: float, slope: float, offset: float
) -> Array:
    """PL1 and PL2 of UMa and UMi; the environment's height makes the breakpoint d'_BP."""
    above_m = at_least(height_m - _ENVIRONMENT_HEIGHT_M, _LEAST_ABOVE_M)
    device_above_m = max(device_height_m - _ENVIRONMENT_HEIGHT_M, _LEAST_ABOVE_M)
    breakpoint_m = 4 * above_m * device_above_m * ghz * 1e9 / _LIGHT_M_S
    far_slope = {28.0: 9.0, 32.4: 9.5}[offset]
    xp = namespace(d3)
    near = offset + slope * xp.log10(d3) + 20 * xp.log10(ghz)
    difference2 = breakpoint_m**2 + (height_m - device_height_m) ** 2
    far = offset + 40 * xp.log10(d3) + 20 * xp.log10(ghz) - far_slope * xp.log10(difference2)
    return xp.where(d2 <= breakpoint_m, near, far)


def _uma_los(d2: Array, d3: Array, ghz: Array, height_m: Array, device_height_m: float) -> Array:
    return _urban_los(d2, d3, ghz, height_m, device_height_m, 22.0, 28.0)


def _umi_los(d2: Array, d3: Array, ghz: Array, height_m: Array, device_height_m: float) -> Array:
    return _urban_los(d2, d3, ghz, height_m, device_height_m, 21.0, 32.4)


def _rma_los(d2: Array, d3: Array, ghz: Array, height_m: Array, device_height_m: float) -> Array:
    breakpoint_m = 2 * np.pi * height_m * device_height_m * ghz * 1e9 / _LIGHT_M_S
    h172 = _BUILDING_HEIGHT_M**1.72
    xp = namespace(d3)

    def near(d: Array) -> Array:
        return (
            20 * xp.log10(40 * np.pi * d * ghz / 3)
            + min(0.03 * h172, 10) * xp.log10(d)
            - min(0.044 * h172, 14.77)
            + 0.002 * float(np.log10(_BUILDING_HEIGHT_M)) * d
        )

    return xp.where(d2 <= breakpoint_m, near(d3), near(breakpoint_m) + 40 * xp.log10(d3 / breakpoint_m))


def _uma_nlos(d3: Array, ghz: Array, _height_m: Array, device_height_m: float) -> Array:
    xp = namespace(d3)
    return 13.54 + 39.08 * xp.log10(d3) + 20 * xp.log10(ghz) - 0.6 * (device_height_m - 1.5)


def _umi_nlos(d3: Array, ghz: Array, _height_m: Array, device_height_m: float) -> Array:
    xp = namespace(d3)
    return 35.3 * xp.log10(d3) + 22.4 + 21.3 * xp.log10(ghz) - 0.3 * (device_height_m - 1.5)


def _rma_nlos(d3: Array, ghz: Array, height_m: Array, device_height_m: float) -> Array:
    ratio2 = (_BUILDING_HEIGHT_M / height_m) ** 2
    device_term = 3.2 * float(np.log10(11.75 * device_height_m)) ** 2 - 4.97
    xp = namespace(d3)
    return (
        161.04
        - 7.1 * float(np.log10(_STREET_WIDTH_M))
        + 7.5 * float(np.log10(_BUILDING_HEIGHT_M))
        - (24.37 - 3.7 * ratio2) * xp.log10(height_m)
        + (43.42 - 3.1 * xp.log10(height_m)) * (xp.log10(d3) - 3)
        + 20 * xp.log10(ghz)
        - device_term
    )


_LOS = {"UMa": _uma_los, "UMi": _umi_los, "RMa": _rma_los}
_NLOS = {"UMa": _uma_nlos, "UMi": _umi_nlos, "RMa": _rma_nlos}
