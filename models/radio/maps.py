"""Radio maps: what each transmitter's signal has lost at each place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..grid import Grid
from ..progress import Progress, no_progress
from .buildings import Buildings
from .model_settings import ModelSettings, noise_floor_dbm
from .patterns import Pattern
from .transmitters import Transmitters

#: Propagation models; `engine` computes them.
MODELS = ("logdistance", "hata", "3gpp", "cost231wi", "dominantpath")
#: Noise of a handset in 10 MHz [dBm].
NOISE_FLOOR_DBM = noise_floor_dbm(10.0)


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
        power is `eirp_dbm - loss_db`; shape (n, height, width), float32, NaN where nothing is known (inside buildings) or arrives.
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


@dataclass(frozen=True)
class RadioMapJob:
    """What to compute.

    Parameters
    ----------
    transmitters
        Whose maps are asked for.
    grid
        The cells.
    model
        One of `MODELS`.
    settings
        Options of the models.
    buildings
        Footprints, None without; cells inside buildings have no value, whatever the model.
    pattern
        The antenna pattern of all transmitters, or one for each.
    noise_floor_dbm
        Below this power nothing is received [dBm].
    device
        "cpu" (numpy), "cuda", or "torch" for torch on the CPU.
    threads
        Number of threads, on the CPU.

    Raises
    ------
    InputError
        When there is nothing to compute, or a transmitter has no usable place, height, frequency, beam width or EIRP.
    """

    transmitters: Transmitters
    grid: Grid
    model: str = "3gpp"
    settings: ModelSettings = field(default_factory=ModelSettings)
    buildings: Buildings | None = None
    pattern: Pattern | Sequence[Pattern] = field(default_factory=Pattern)
    noise_floor_dbm: float = NOISE_FLOOR_DBM
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        t = self.transmitters
        if self.model not in MODELS:
            raise InputError(f"The model must be one of {', '.join(MODELS)}, not '{self.model}'.")
        if len(t) == 0:
            raise InputError("There are no transmitters; give a layer with at least one cell.")
        if self.model == "dominantpath" and self.buildings is None:
            raise InputError("The model dominantpath needs building footprints; give them, or choose another model.")
        for name, values, least, unit in (
            ("easting", t.xy_m[:, 0], -np.inf, "m"),
            ("northing", t.xy_m[:, 1], -np.inf, "m"),
            ("height", t.height_m, 0.0, "m"),
            ("frequency", t.freq_mhz, 0.0, "MHz"),
            ("beam width", t.beam_width_deg, 0.0, "°"),
            ("EIRP", t.eirp_dbm, -np.inf, "dBm"),
        ):
            wrong = np.flatnonzero(~(values > least) | ~np.isfinite(values))
            if len(wrong):
                first = int(wrong[0])
                raise InputError(
                    f"The {name} of transmitter '{t.ids[first]}' is {values[first]:g} {unit}; give a "
                    f"{'positive' if least == 0 else 'finite'} number."
                )
        if not isinstance(self.pattern, Pattern) and len(self.pattern) != len(t):
            raise InputError(
                f"There are {len(self.pattern)} patterns for {len(t)} transmitters; give one, or one for each."
            )

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The pattern of each transmitter."""
        return (self.pattern,) * len(self.transmitters) if isinstance(self.pattern, Pattern) else tuple(self.pattern)


def radio_maps(job: RadioMapJob, progress: Progress = no_progress) -> RadioMaps:
    """Compute the map of each transmitter."""
    from .engine import maps_of_job

    return maps_of_job(job, progress)


def losses_at(job: RadioMapJob, xy_m: np.ndarray, progress: Progress = no_progress) -> np.ndarray:
    """Compute the loss at points instead of the job's grid [dB].

    Parameters
    ----------
    job
        What to compute.
    xy_m
        Points [m], shape (m, 2).
    progress
        Told about the share done.

    Returns
    -------
    numpy.ndarray
        As `RadioMaps.loss_db`, shape (n, m), float64.

    Raises
    ------
    InputError
        When a point is not finite.
    """
    from .engine import losses_of_job

    points = np.asarray(xy_m, float)
    wrong = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(wrong):
        x, y = points[wrong[0]]
        raise InputError(f"Point {wrong[0]} is at ({x:g}, {y:g}); give finite coordinates, or leave it out.")
    return losses_of_job(job, points, progress)
