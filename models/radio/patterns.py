"""Antenna patterns: none, the sector of TR 38.901, Gaussian lobes, or the two cuts of a pattern file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .antennas import sector_gain_db
from .arrays import Array, interpolate, namespace

KINDS = ("omni", "3gpp", "gaussian", "file")
#: Vertical half-power beam width [°] and attenuation backwards [dB] of Gaussian lobes, horizontal and vertical alike: the defaults
#: of mobloc's propagation model (M. Tennekes, "mobloc", parameters beam_v and azim_dB_back).
GAUSSIAN_VERTICAL_BEAM_DEG, GAUSSIAN_BACK_DB = 9.0, 30.0


@dataclass(frozen=True)
class Pattern:
    """How an antenna shares its power out over directions, relative to its beam's peak.

    Parameters
    ----------
    kind
        One of `KINDS`: "omni" radiates alike everywhere; "3gpp" is the sector of TR 38.901 table 7.3-1; "gaussian" has lobes whose
        attenuation in dB is a Gaussian bell, as in mobloc; "file" uses the two cuts.
    horizontal_loss_db, vertical_loss_db
        For "file": attenuation at 0, 1, …, 360° [dB], shape (361,): clockwise from the main direction, and downwards from the horizon.
    name
        What the file calls the antenna.
    gain_dbi
        The file's gain [dBi]; NaN where it tells none. For information: the EIRP of the transmitters holds it already.
    """

    kind: str = "3gpp"
    horizontal_loss_db: np.ndarray | None = None
    vertical_loss_db: np.ndarray | None = None
    name: str = ""
    gain_dbi: float = float("nan")

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"The antenna pattern must be one of {', '.join(KINDS)}, not '{self.kind}'.")

    @property
    def file_tilt_deg(self) -> float:
        """Downtilt of the file's vertical cut [°]: where it attenuates least within 90° of the horizon; 0 for other kinds."""
        if self.vertical_loss_db is None:
            return 0.0
        angles = np.concatenate([np.arange(91), np.arange(-90, 0)])
        least = self.vertical_loss_db[angles % 360] - np.min(self.vertical_loss_db[angles % 360]) < 1e-9
        return float(np.median(angles[least]))

    def gain_db(
        self, azimuth_offset_deg: Array, depression_deg: Array, tilt_deg: Array, beam_width_deg: Array
    ) -> Array:
        """Gain relative to the beam's peak [dB], at most 0.

        The cuts of a file are added in dB, each relative to its own peak, and the vertical one is turned until its peak is at the tilt;
        so an electrical tilt that the file was measured with does not count twice.

        Parameters
        ----------
        azimuth_offset_deg
            Direction of the device minus the antenna's azimuth [°], any range and shape; 0 for an antenna without a direction.
        depression_deg
            Angle of the device below the horizon seen from the antenna [°], same shape.
        tilt_deg
            Downtilt of the beam's peak [°]; NaN for what the file has, else 0.
        beam_width_deg
            Horizontal half-power beam width [°], for "3gpp" and "gaussian".
        """
        xp = namespace(depression_deg)
        tilt_deg = xp.nan_to_num(tilt_deg, nan=self.file_tilt_deg)
        if self.kind == "omni":
            return 0 * depression_deg
        if self.kind == "3gpp":
            return sector_gain_db(azimuth_offset_deg, depression_deg, tilt_deg, beam_width_deg)
        offset = (azimuth_offset_deg + 180) % 360 - 180
        if self.kind == "gaussian":
            vertical = _gaussian_loss_db(depression_deg - tilt_deg, GAUSSIAN_VERTICAL_BEAM_DEG + 0 * tilt_deg)
            return -_gaussian_loss_db(offset, beam_width_deg) - vertical
        turned = (depression_deg - tilt_deg + self.file_tilt_deg) % 360
        loss = interpolate(_relative(self.horizontal_loss_db), offset % 360)
        return -loss - interpolate(_relative(self.vertical_loss_db), turned)


def _relative(loss_db: np.ndarray | None) -> np.ndarray:
    """Return a cut of a file relative to its peak [dB]."""
    if loss_db is None:
        raise InputError(
            "A pattern of kind 'file' needs a horizontal and a vertical cut; read one with read_pattern_file."
        )
    return loss_db - loss_db.min()


def _gaussian_loss_db(offset_deg: Array, beam_width_deg: Array) -> Array:
    """Attenuation [dB]: 0 ahead, 3 at half the beam width, `GAUSSIAN_BACK_DB` behind, a Gaussian bell between.

    A bell can't be wider than 114°; wider beams get the widest.
    """
    xp = namespace(offset_deg)
    # 1 − e^(−x² p) with p = 1 / (2 σ²) grows with p faster at half the beam than behind, so bisection finds the one p.
    low, high = 0 * beam_width_deg - 20.0, 0 * beam_width_deg + 5.0
    share = 3.0 / GAUSSIAN_BACK_DB
    for _ in range(60):
        middle = (low + high) / 2
        p = xp.exp(middle)
        too_small = xp.expm1(-((beam_width_deg / 2) ** 2) * p) / xp.expm1(-(180.0**2) * p) < share
        low, high = xp.where(too_small, middle, low), xp.where(too_small, high, middle)
    p = xp.exp(low)
    return GAUSSIAN_BACK_DB * xp.expm1(-(offset_deg**2) * p) / xp.expm1(-(180.0**2) * p)
