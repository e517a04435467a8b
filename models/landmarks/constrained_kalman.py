"""The filtering stage of the Time-Forwarding Graph: a Kalman filter whose state keeps to the map and below a top speed.

The device keeps its velocity but for random pushes (constant velocity, white acceleration). After each update the estimate is
projected onto the constraints, as D. Simon and T. L. Chia do (Kalman filtering with state equality constraints, IEEE Transactions on
Aerospace and Electronic Systems 38, 2002): the velocity onto the disc of speeds, the position at the end onto the nearest place of
the map. Looking back is H. Rauch, F. Tung, C. Striebel (AIAA Journal 3, 1965).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..progress import Progress, no_progress
from .map_distance import MapDistance

#: Rows between two reports of progress.
_ROWS = 500
#: Velocities along each axis have this standard deviation before anything is known, as a share of the top speed.
_FIRST_SPEED_SHARE = 0.5


@dataclass(frozen=True)
class Motion:
    """How a device moves.

    Parameters
    ----------
    top_speed_m_s
        No estimate is faster.
    acceleration_m_s2
        Standard deviation of the change of velocity in one second, along each axis; it grows with the root of time.
    smooth
        Whether positions also know what comes after them.
    """

    top_speed_m_s: float
    acceleration_m_s2: float = 1.0
    smooth: bool = True


def smoothed(
    time_s: np.ndarray,
    xy_m: np.ndarray,
    sigma_m: np.ndarray,
    motion: Motion,
    distance: MapDistance | None = None,
    progress: Progress = no_progress,
) -> np.ndarray:
    """Filter one path.

    Parameters
    ----------
    time_s
        Ascending, shape (n,) [s].
    xy_m, sigma_m
        Positions [m], shape (n, 2), and their standard deviations along each axis [m], shape (n,): small for landmarks, inf where a
        position is not to be believed.
    motion, distance
        The constraints; None for no map.
    progress
        May raise `Cancelled`.

    Returns
    -------
    numpy.ndarray
        Positions [m], shape (n, 2).
    """
    place, _ = _filtered(time_s, xy_m, sigma_m, motion, progress)
    return place if distance is None else distance.nearest(place)


def predicted(
    time_s: np.ndarray,
    xy_m: np.ndarray,
    sigma_m: np.ndarray,
    motion: Motion,
    ahead_s: float,
    distance: MapDistance | None = None,
    progress: Progress = no_progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict where a path goes on, in its usual time steps (one for a single instant), up to `ahead_s` after its end.

    Returns
    -------
    (time_s, xy_m)
        Shapes (k,) and (k, 2).
    """
    place, velocity = _filtered(time_s, xy_m, sigma_m, motion, progress)
    gaps = np.diff(time_s)
    step = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else ahead_s
    later = step * np.arange(1, max(1, math.floor(ahead_s / step + 1e-9)) + 1)
    later = np.minimum(later, ahead_s)
    goal = place[-1] + later[:, None] * velocity[-1]
    return time_s[-1] + later, goal if distance is None else distance.nearest(goal)


def _filtered(
    time_s: np.ndarray, xy_m: np.ndarray, sigma_m: np.ndarray, motion: Motion, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities, shape (n, 2) each. Both axes share one covariance of place and velocity."""
    n = len(time_s)
    state = np.zeros((n, 2, 2))  # place and velocity by axis
    spread = np.zeros((n, 2, 2))
    early, early_spread = np.zeros((n, 2, 2)), np.zeros((n, 2, 2))
    push = motion.acceleration_m_s2**2
    here = np.array([xy_m[0], [0.0, 0.0]])
    first_place = 0.0 if not np.isfinite(sigma_m[0]) else sigma_m[0] ** 2
    there = np.diag([max(first_place, 1e-6), (_FIRST_SPEED_SHARE * motion.top_speed_m_s) ** 2])
    ways = 2 if motion.smooth else 1  # there, and back
    for row in range(n):
        if row % _ROWS == 0:
            progress(row / (ways * n))
        if row:
            gap = float(time_s[row] - time_s[row - 1])
            step = np.array([[1.0, gap], [0.0, 1.0]])
            noise = push * np.array([[gap**3 / 3, gap**2 / 2], [gap**2 / 2, gap]])
            here, there = step @ here, step @ there @ step.T + noise
            early[row], early_spread[row] = here, there
            if np.isfinite(sigma_m[row]):
                gain = there[:, 0] / (there[0, 0] + sigma_m[row] ** 2)
                here = here + gain[:, None] * (xy_m[row] - here[0])
                there = there - np.outer(gain, there[0])
        speed = float(np.hypot(*here[1]))
        if speed > motion.top_speed_m_s:
            here = np.array([here[0], here[1] * (motion.top_speed_m_s / speed)])
        state[row], spread[row] = here, there
    if motion.smooth:
        for row in range(n - 2, -1, -1):
            if row % _ROWS == 0:
                progress(1.0 - row / (ways * n))
            gap = float(time_s[row + 1] - time_s[row])
            step = np.array([[1.0, gap], [0.0, 1.0]])
            back = spread[row] @ step.T @ np.linalg.pinv(early_spread[row + 1])
            state[row] = state[row] + back @ (state[row + 1] - early[row + 1])
    return state[:, 0], state[:, 1]
