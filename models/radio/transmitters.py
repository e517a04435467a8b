"""The transmitters of a network as arrays: what a radio map is computed for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Transmitters:
    """One row per cell (a sector of a base station, BS).

    Parameters
    ----------
    ids
        Names, all different: the cell ids that measurements use.
    xy_m
        Positions [m] in the metric CRS of the map, shape (n, 2).
    height_m
        Height of the antenna above ground [m], shape (n,).
    azimuth_deg
        Main direction, clockwise from north [°], shape (n,); NaN for an antenna without one.
    tilt_deg
        Downtilt [°], shape (n,).
    beam_width_deg
        Horizontal half-power beam width [°], shape (n,); 360 for an antenna without a preferred direction.
    freq_mhz
        Carrier frequency [MHz], shape (n,).
    eirp_dbm
        Effective isotropic radiated power in the beam's peak [dBm], shape (n,).

    Raises
    ------
    InputError
        When two transmitters have one id, or lengths differ.
    """

    ids: tuple[str, ...]
    xy_m: np.ndarray
    height_m: np.ndarray
    azimuth_deg: np.ndarray
    tilt_deg: np.ndarray
    beam_width_deg: np.ndarray
    freq_mhz: np.ndarray
    eirp_dbm: np.ndarray

    def __post_init__(self) -> None:
        columns = (self.height_m, self.azimuth_deg, self.tilt_deg, self.beam_width_deg, self.freq_mhz, self.eirp_dbm)
        if self.xy_m.shape != (len(self), 2) or any(column.shape != (len(self),) for column in columns):
            raise InputError(f"{len(self)} transmitters need as many positions, heights, directions and powers.")
        if len(set(self.ids)) < len(self):
            twice = next(name for row, name in enumerate(self.ids) if name in self.ids[:row])
            raise InputError(f"Two transmitters are called '{twice}'; give every cell an id of its own.")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Transmitters:
        """Return some of the transmitters, by a mask or indices."""
        chosen = np.arange(len(self))[rows]
        return replace(
            self,
            ids=tuple(self.ids[row] for row in chosen.tolist()),
            xy_m=self.xy_m[chosen],
            height_m=self.height_m[chosen],
            azimuth_deg=self.azimuth_deg[chosen],
            tilt_deg=self.tilt_deg[chosen],
            beam_width_deg=self.beam_width_deg[chosen],
            freq_mhz=self.freq_mhz[chosen],
            eirp_dbm=self.eirp_dbm[chosen],
        )
