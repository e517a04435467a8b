"""Path loss of 3GPP TR 38.901 (V17.0.0) table 7.4.1-1 with the LOS probability of table 7.4.2-1, vectorised over distances."""

from __future__ import annotations

import numpy as np

#: Speed of light [m/s], as the table uses it.
_LIGHT_M_S = 3.0e8
#: Height of the device [m] and, for UMa and UMi, of the effective environment (note 1 of the table).
DEVICE_HEIGHT_M = 1.5
_ENVIRONMENT_HEIGHT_M = 1.0
#: RMa: average building height and street width [m], the table's defaults.
_BUILDING_HEIGHT_M, _STREET_WIDTH_M = 5.0, 20.0
#: The table's least horizontal distance [m]; nearer, the loss stays what it is there.
LEAST_DISTANCE_M = 10.0
SCENARIOS = ("UMa", "UMi", "RMa")


def path_loss_db(scenario: str, distance_m: np.ndarray, freq_mhz: float, height_m: float) -> np.ndarray:
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
    d2 = np.maximum(distance_m, LEAST_DISTANCE_M)
    d3 = np.sqrt(d2**2 + (height_m - DEVICE_HEIGHT_M) ** 2)
    los = _LOS[scenario](d2, d3, freq_mhz / 1000, height_m)
    nlos = np.maximum(los, _NLOS[scenario](d3, freq_mhz / 1000, height_m))
    share = los_probability(scenario, d2)
    return np.asarray(share * los + (1 - share) * nlos)


def los_probability(scenario: str, distance_m: np.ndarray) -> np.ndarray:
    """Probability of line of sight at a horizontal distance [m] for a device 1.5 m high (table 7.4.2-1)."""
    d2 = np.maximum(distance_m, LEAST_DISTANCE_M)
    if scenario == "RMa":
        return np.asarray(np.exp(-(d2 - 10) / 1000))
    decay_m = 63.0 if scenario == "UMa" else 36.0
    near = np.exp(-d2 / decay_m)
    return np.where(d2 <= 18, 1.0, 18 / d2 + near * (1 - 18 / d2))


def _urban_los(d2: np.ndarray, d3: np.ndarray, ghz: float, height_m: float, slope: float, offset: float) -> np.ndarray:
    """PL1 and PL2 of UMa and UMi; the environment's height makes the breakpoint d'_BP."""
    above_m = height_m - _ENVIRONMENT_HEIGHT_M
    device_above_m = DEVICE_HEIGHT_M - _ENVIRONMENT_HEIGHT_M
    breakpoint_m = 4 * above_m * device_above_m * ghz * 1e9 / _LIGHT_M_S
    far_slope = {28.0: 9.0, 32.4: 9.5}[offset]
    near = offset + slope * np.log10(d3) + 20 * np.log10(ghz)
    difference2 = breakpoint_m**2 + (height_m - DEVICE_HEIGHT_M) ** 2
    far = offset + 40 * np.log10(d3) + 20 * np.log10(ghz) - far_slope * np.log10(difference2)
    return np.where(d2 <= breakpoint_m, near, far)


def _uma_los(d2: np.ndarray, d3: np.ndarray, ghz: float, height_m: float) -> np.ndarray:
    return _urban_los(d2, d3, ghz, height_m, 22.0, 28.0)


def _umi_los(d2: np.ndarray, d3: np.ndarray, ghz: float, height_m: float) -> np.ndarray:
    return _urban_los(d2, d3, ghz, height_m, 21.0, 32.4)


def _rma_los(d2: np.ndarray, d3: np.ndarray, ghz: float, height_m: float) -> np.ndarray:
    breakpoint_m = 2 * np.pi * height_m * DEVICE_HEIGHT_M * ghz * 1e9 / _LIGHT_M_S
    h172 = _BUILDING_HEIGHT_M**1.72

    def near(d: np.ndarray | float) -> np.ndarray:
        return np.asarray(
            20 * np.log10(40 * np.pi * np.asarray(d) * ghz / 3)
            + min(0.03 * h172, 10) * np.log10(d)
            - min(0.044 * h172, 14.77)
            + 0.002 * np.log10(_BUILDING_HEIGHT_M) * np.asarray(d)
        )

    return np.where(d2 <= breakpoint_m, near(d3), near(breakpoint_m) + 40 * np.log10(d3 / breakpoint_m))


def _uma_nlos(d3: np.ndarray, ghz: float, _height_m: float) -> np.ndarray:
    return np.asarray(13.54 + 39.08 * np.log10(d3) + 20 * np.log10(ghz) - 0.6 * (DEVICE_HEIGHT_M - 1.5))


def _umi_nlos(d3: np.ndarray, ghz: float, _height_m: float) -> np.ndarray:
    return np.asarray(35.3 * np.log10(d3) + 22.4 + 21.3 * np.log10(ghz) - 0.3 * (DEVICE_HEIGHT_M - 1.5))


def _rma_nlos(d3: np.ndarray, ghz: float, height_m: float) -> np.ndarray:
    ratio2 = (_BUILDING_HEIGHT_M / height_m) ** 2
    device_term = 3.2 * np.log10(11.75 * DEVICE_HEIGHT_M) ** 2 - 4.97
    return np.asarray(
        161.04
        - 7.1 * np.log10(_STREET_WIDTH_M)
        + 7.5 * np.log10(_BUILDING_HEIGHT_M)
        - (24.37 - 3.7 * ratio2) * np.log10(height_m)
        + (43.42 - 3.1 * np.log10(height_m)) * (np.log10(d3) - 3)
        + 20 * np.log10(ghz)
        - device_term
    )


_LOS = {"UMa": _uma_los, "UMi": _umi_los, "RMa": _rma_los}
_NLOS = {"UMa": _uma_nlos, "UMi": _umi_nlos, "RMa": _rma_nlos}
