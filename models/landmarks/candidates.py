"""Candidate positions: several places per instant whose signal fits what the device heard."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    def every(self, interval_s: float) -> Candidates:
        """Return the same instants with candidates only every `interval_s` [s] and at the last one of each trajectory.

        A report every half second tells hardly more than one every two: errors of a look-up table stay over many metres. Between
        instants that are farther apart the motion tells candidates apart better.
        """
        kept = np.zeros(len(self), dtype=bool)
        for start, stop in zip(self.starts[:-1].tolist(), self.starts[1:].tolist()):
            since = self.time_s[start:stop] - self.time_s[start]
            number = np.floor(since / interval_s + 1e-6) if interval_s > 0 else np.arange(len(since))
            kept[start:stop] = np.diff(number, prepend=-1) > 0
            kept[stop - 1] = True
        count = np.diff(self.first)
        of_kept = np.repeat(kept, count)
        first = np.concatenate([[0], np.cumsum(np.where(kept, count, 0))]).astype(np.int64)
        return replace(self, first=first, xy_m=self.xy_m[of_kept], error_db=self.error_db[of_kept])
