"""What tracking is told and what it finds, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .constrained_kalman import Motion

HYBRID, NON_HYBRID, NONE = "hybrid", "nonhybrid", "none"
MODES = (HYBRID, NON_HYBRID, NONE)

#: Top speeds by mode of transport [m/s]: brisk walk, fast cyclist, car in a city (72 km/h), train.
TOP_SPEED_M_S = {"walk": 2.0, "bike": 8.0, "car": 20.0, "train": 60.0}

#: What a position is.
CANDIDATE, LANDMARK, FILLED, PREDICTED = 0, 1, 2, 3
KIND_NAMES = ("candidate", "landmark", "filled", "predicted")


@dataclass(frozen=True)
class TrackSettings:
    """How to track.

    Parameters
    ----------
    mode
        One of `MODES`.
    top_speed_m_s
        See `TOP_SPEED_M_S`.
    slack_m
        Tolerance of Th(Δ) = top speed · Δt + slack for the error of candidates [m].
    window
        Instants m that are known when a position is chosen; None for all of them.
    most_forward
        Most instants that a forwarding edge spans, at most `window`.
    error_weight_m
        0 is the paper's weight W = μ. Ours: each node costs `error_weight_m` · (error [dB])² besides, an instant that is led over as
        much as its worst candidate [m/dB²].
    match_s
        A match counts for the nearest instant of its device, up to this far in time [s].
    kalman, smooth
        Whether the constrained Kalman filter runs over the path, and whether it looks back as well (Rauch-Tung-Striebel).
    sigma_m, landmark_sigma_m
        Standard deviation of candidates and of landmarks along each axis, for the filter [m]. Small for landmarks: the filtered path
        goes through them as well, although photos are taken some metres off.
    acceleration_m_s2
        Change of velocity in a second along each axis, for the filter.
    landmark_range_m
        How far from a location-oriented landmark's place somebody may be whose photo shows it [m]: so much more Th allows at that end of
        an edge.
    predict_s
        How far ahead of each trajectory's end to predict [s].
    """

    mode: str = HYBRID
    top_speed_m_s: float = TOP_SPEED_M_S["car"]
    slack_m: float = 10.0
    window: int | None = None
    most_forward: int = 10
    error_weight_m: float = 0.0
    match_s: float = 2.0
    kalman: bool = False
    smooth: bool = True
    sigma_m: float = 30.0
    landmark_sigma_m: float = 1.0
    landmark_range_m: float = 25.0
    acceleration_m_s2: float = 1.0
    predict_s: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"Tracking knows the modes {', '.join(MODES)}, not '{self.mode}'.")
        if not self.top_speed_m_s > 0:
            raise InputError(f"The top speed must be above 0 m/s, not {self.top_speed_m_s:g}.")
        if self.window is not None and self.window < 2:
            raise InputError(
                f"A window holds at least 2 instants, not {self.window}; leave it out to solve all at once."
            )
        if self.most_forward < 1:
            raise InputError(f"A forwarding edge spans at least 1 instant, not {self.most_forward}.")
        for what, value, unit in (
            ("slack", self.slack_m, "m"),
            ("weight of errors", self.error_weight_m, "m/dB²"),
            ("delay of matches", self.match_s, "s"),
            ("range of landmarks", self.landmark_range_m, "m"),
            ("prediction", self.predict_s, "s"),
        ):
            if not (value >= 0 and math.isfinite(value)):
                raise InputError(f"The {what} must be 0 or more, not {value:g} {unit}.")
        for what, value, unit in (
            ("spread of candidates", self.sigma_m, "m"),
            ("spread of landmarks", self.landmark_sigma_m, "m"),
            ("acceleration", self.acceleration_m_s2, "m/s²"),
        ):
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"The {what} must be above 0, not {value:g} {unit}.")

    @property
    def motion(self) -> Motion:
        """What the Kalman filter is told."""
        return Motion(self.top_speed_m_s, self.acceleration_m_s2, self.smooth)


@dataclass(frozen=True)
class Edges:
    """All edges of the graphs.

    Parameters
    ----------
    instant, instant_to
        Instants that each leads from and to, shape (e,).
    candidate, candidate_to
        Candidates at both ends, −1 for a landmark, shape (e,).
    xy_m, xy_to_m
        Both ends [m], shape (e, 2).
    weight_m
        Equation (1), shape (e,).
    forwarding, chosen
        Whether it leads over instants; whether the path runs along it; shape (e,), bool.
    """

    instant: np.ndarray
    instant_to: np.ndarray
    candidate: np.ndarray
    candidate_to: np.ndarray
    xy_m: np.ndarray
    xy_to_m: np.ndarray
    weight_m: np.ndarray
    forwarding: np.ndarray
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.weight_m)


@dataclass(frozen=True)
class Track:
    """A position for every instant of some `Candidates`.

    Parameters
    ----------
    xy_m
        Positions [m], shape (n, 2); NaN only for a trajectory that has neither a candidate nor a landmark.
    kind
        `CANDIDATE`, `LANDMARK` or `FILLED`, shape (n,).
    candidate, landmark
        Candidate and landmark chosen, −1 for none, shape (n,).
    part
        Part of its trajectory's path, from 0; −1 between parts, where positions are only interpolated; shape (n,).
    edges
        The graphs'.
    predicted_trajectory, predicted_time_s, predicted_xy_m
        Positions after the end of trajectories, shapes (p,), (p,), (p, 2).
    used_matches
        Whether a match was near an instant, and its landmark on the map, shape (matches,), bool.
    messages
        Sentences on what the tracks lack.
    """

    xy_m: np.ndarray
    kind: np.ndarray
    candidate: np.ndarray
    landmark: np.ndarray
    part: np.ndarray
    edges: Edges
    predicted_trajectory: np.ndarray
    predicted_time_s: np.ndarray
    predicted_xy_m: np.ndarray
    used_matches: np.ndarray
    messages: tuple[str, ...]
