"""The options of all propagation models, as data in one place, each default with its source."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..errors import InputError
from . import empirical, path_loss, walfisch_ikegami
from .dominant_path_settings import DominantPathSettings

#: Thermal noise at 290 K [dBm/Hz], and the noise figure of a handset [dB] (3GPP TR 36.942 table 4.8: 9 dB).
_THERMAL_DBM_HZ, DEVICE_NOISE_FIGURE_DB = -174.0, 9.0


def noise_floor_dbm(bandwidth_mhz: float, noise_figure_db: float = DEVICE_NOISE_FIGURE_DB) -> float:
    """Power of the receiver's noise [dBm]: −174 + 10 log10(bandwidth in Hz) + noise figure."""
    return _THERMAL_DBM_HZ + 10 * math.log10(bandwidth_mhz * 1e6) + noise_figure_db


@dataclass(frozen=True)
class ModelSettings:
    """Options of the propagation models; each model reads its own.

    Parameters
    ----------
    device_height_m
        Height of the device above ground [m], for all models (TR 38.901 table 7.2-1: 1.5 m).
    exponent, reference_m, intercept_db
        `logdistance`: path loss exponent, reference distance [m], and loss there [dB], None for free space's. Defaults: the close-in model
        of urban macro cells without line of sight, exponent 3.0 from 1 m (S. Sun et al., VTC Spring 2016).
    hata_area, hata_city
        `hata`: one of `empirical.AREAS` and of `empirical.CITIES`.
    scenario
        `3gpp`: one of `path_loss.SCENARIOS`.
    sight_from_buildings
        `3gpp`: where buildings are given, use the actual line of sight instead of its probability.
    wi_city
        `cost231wi`: one of `walfisch_ikegami.CITIES`.
    roof_m, separation_m, street_width_m, street_angle_deg
        `cost231wi`, where footprints do not tell: roof height, separation of building rows, street width [m], and the angle between street
        and path [°]. Defaults: the small cells of 3GPP TS 43.030, in COST 231's recommended ranges (b 20 to 50 m, w = b / 2, φ 90°).
    least_gap_m
        `cost231wi`: buildings nearer to one another than this are one row [m].
    tower_quantile
        `cost231wi`: a building counts for the mean roof height of a path with at most this quantile of all heights. The formula is one of
        rows alike; a single tower would lift the mean above the antenna, and all behind it would lie in a shadow of tens of dB.
    narrowest_street_m, widest_street_m
        `cost231wi`: street widths measured from footprints are kept within these limits [m].
    dominant_path
        `dominantpath`: its constants.
    """

    device_height_m: float = 1.5
    exponent: float = 3.0
    reference_m: float = 1.0
    intercept_db: float | None = None
    hata_area: str = "urban"
    hata_city: str = "medium"
    scenario: str = "UMa"
    sight_from_buildings: bool = True
    wi_city: str = "medium"
    roof_m: float = 15.0
    separation_m: float = 40.0
    street_width_m: float = 20.0
    street_angle_deg: float = 90.0
    least_gap_m: float = 3.0
    tower_quantile: float = 0.95
    narrowest_street_m: float = 5.0
    widest_street_m: float = 60.0
    dominant_path: DominantPathSettings = field(default_factory=DominantPathSettings)

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("hata_area", self.hata_area, empirical.AREAS),
            ("hata_city", self.hata_city, empirical.CITIES),
            ("scenario", self.scenario, path_loss.SCENARIOS),
            ("wi_city", self.wi_city, walfisch_ikegami.CITIES),
        ):
            if value not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, not '{value}'.")
        for name in ("device_height_m", "exponent", "reference_m", "roof_m", "separation_m", "street_width_m"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} must be a positive number, not {value}.")
        if not 0 < self.tower_quantile <= 1:
            raise InputError(f"tower_quantile must be above 0 and at most 1, not {self.tower_quantile}.")
        if not 0 <= self.street_angle_deg <= 90:
            raise InputError(f"street_angle_deg must be between 0 and 90°, not {self.street_angle_deg}.")
