"""Radio maps: what each transmitter's signal has lost at each place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..grid import Grid
from .transmitters import Transmitters


@dataclass(frozen=True)
class RadioMaps:
    """The loss of each transmitter's signal on one grid.

    Parameters
    ----------
    grid
        The cells.
    transmitters
        Whose maps these are, n of them.
    loss_db
        Loss between the EIRP in the beam's peak and an isotropic device [dB], the antenna's pattern included, so that the received
        power is `eirp_dbm - loss_db`; shape (n, height, width), float32, NaN where nothing is known (inside buildings).
    noise_floor_dbm
        Below this power nothing is received [dBm].
    model
        Name of the propagation model.
    warnings
        One sentence each about what lies outside the model's range.
    """

    grid: Grid
    transmitters: Transmitters
    loss_db: np.ndarray
    noise_floor_dbm: float
    model: str
    warnings: tuple[str, ...] = ()

    @property
    def rss_dbm(self) -> np.ndarray:
        """Received power [dBm], shape (n, height, width), float32."""
        return (self.transmitters.eirp_dbm[:, None, None] - self.loss_db).astype(np.float32)
