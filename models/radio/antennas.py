"""The sector antenna of 3GPP TR 38.901 (V17.0.0) table 7.3-1."""

from __future__ import annotations

import numpy as np

from .arrays import Array, at_most, namespace

#: Half-power beam width [°] and largest attenuation [dB], horizontal and vertical alike, for the table's single element.
BEAM_WIDTH_DEG, MOST_ATTENUATION_DB = 65.0, 30.0
#: Vertical half-power beam width of a macro panel [°] (3GPP TR 36.814 table A.2.1.1-2: 10°), side lobes at most 20 dB down.
PANEL_BEAM_WIDTH_DEG, SIDE_LOBE_DB = 10.0, 20.0


def sector_gain_db(
    azimuth_offset_deg: Array, depression_deg: Array, tilt_deg: Array, beam_width_deg: Array = BEAM_WIDTH_DEG
) -> Array:
    """Gain relative to the beam's peak [dB], at most 0 and at least −30.

    Parameters
    ----------
    azimuth_offset_deg
        Direction of the device minus the sector's azimuth [°], any range and shape.
    depression_deg
        Angle of the device below the horizon seen from the antenna [°], same shape.
    tilt_deg
        Downtilt of the beam [°].
    beam_width_deg
        Horizontal half-power beam width [°].
    """
    offset = (azimuth_offset_deg + 180) % 360 - 180
    horizontal = at_most(12 * (offset / beam_width_deg) ** 2, MOST_ATTENUATION_DB)
    vertical = vertical_loss_db(depression_deg, tilt_deg)
    gain = -at_most(horizontal + vertical, MOST_ATTENUATION_DB)
    return np.asarray(gain) if namespace(gain) is np else gain


def vertical_loss_db(depression_deg: Array, tilt_deg: Array) -> Array:
    """Loss of the vertical pattern [dB] at an angle below the horizon [°]."""
    return at_most(12 * ((depression_deg - tilt_deg) / PANEL_BEAM_WIDTH_DEG) ** 2, SIDE_LOBE_DB)
