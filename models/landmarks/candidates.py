"""Candidate positions: several places per instant whose signal fits what the device heard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Candidates:
    """Candidates of n instants, sorted by trajectory and time; an instant may have none.

    Parameters
    ----------
    devices, device
        Names of the devices, and which one an instant belongs to, shape (n,), int32.
    trajectories, trajectory
        Names of the trajectories, and which one an instant belongs to, shape (n,), int32; equal ones stand together.
    time_s
        Seconds since 1970-01-01 UTC, shape (n,), ascending within a trajectory.
    first
        First candidate of each instant, and their number at the end, shape (n + 1,), int64.
    xy_m
        Positions in a metric CRS [m], shape (n_candidates, 2), best first within an instant.
    error_db
        Root mean squared difference to the look-up table [dB], shape (n_candidates,), NaN where unknown.
    row
        Where an instant came from (feature id or row number), shape (n,), int64.
    """

    devices: tuple[str, ...]
    device: np.ndarray
    trajectories: tuple[str, ...]
    trajectory: np.ndarray
    time_s: np.ndarray
    first: np.ndarray
    xy_m: np.ndarray
    error_db: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def starts(self) -> np.ndarray:
        """First instant of each trajectory and the number of instants at the end, shape (n_trajectories present + 1,)."""
        changes = np.flatnonzero(np.diff(self.trajectory)) + 1
        return np.concatenate([[0], changes, [len(self)] if len(self) else []]).astype(np.int64)
