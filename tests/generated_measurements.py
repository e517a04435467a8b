"""A small generated network and the walks of a few devices in it, for tests that need measurements with a truth."""

from __future__ import annotations

import numpy as np
from telcoloc.models.trajectory.measurements import CellSites, LocalFrame, Measurements, measurements

FRAME = LocalFrame(10.0, 50.0)
#: Side of the square that the network covers [m].
SIDE_M = 1200.0
CELLS = tuple(f"100-{index}" for index in range(1, 13))


def sites() -> CellSites:
    """Twelve cells on a jittered grid."""
    rng = np.random.default_rng(1)
    x_m, y_m = np.meshgrid(np.linspace(100, SIDE_M - 100, 4), np.linspace(150, SIDE_M - 150, 3))
    lon, lat = FRAME.to_lonlat(x_m.ravel() + rng.normal(0, 30, 12), y_m.ravel() + rng.normal(0, 30, 12))
    return CellSites(CELLS, lon, lat)


def walks(
    n_trajectories: int = 10, n: int = 40, seed: int = 0, step_s: float = 5.0, noise_db: float = 4.0
) -> Measurements:
    """Walks along the streets of a grid of 200 m; two walks of each device, a day apart, the cells by path loss and noise."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list] = {name: [] for name in ("device", "trajectory", "time_s", "x_m", "y_m")}
    for walk in range(n_trajectories):
        place, heading = rng.integers(1, 6, 2) * 200.0, rng.integers(4)
        for step in range(n):
            columns["device"].append(f"d{walk // 2}")
            columns["trajectory"].append(f"d{walk // 2} {walk}")
            columns["time_s"].append(1.6e9 + 86_400.0 * walk + step_s * step)
            columns["x_m"].append(place[0])
            columns["y_m"].append(place[1])
            if (place % 200 == 0).all() and rng.random() < 0.4:
                heading = rng.integers(4)
            ahead = place + 10.0 * np.array([(1, 0), (0, 1), (-1, 0), (0, -1)][heading])
            if (ahead < 0).any() or (ahead > SIDE_M).any():
                heading = (heading + 2) % 4
                ahead = place + 10.0 * np.array([(1, 0), (0, 1), (-1, 0), (0, -1)][heading])
            place = ahead
    x_m, y_m = np.array(columns["x_m"]), np.array(columns["y_m"])
    where = sites()
    site_x_m, site_y_m = FRAME.to_xy(where.lon, where.lat)
    away_m = np.hypot(x_m[:, None] - site_x_m, y_m[:, None] - site_y_m)
    rss_dbm = np.maximum(-40 - 33 * np.log10(np.maximum(away_m, 10) / 10) + rng.normal(0, noise_db, away_m.shape), -125)
    best = np.argsort(-rss_dbm, axis=1)[:, :6]
    lon, lat = FRAME.to_lonlat(x_m, y_m)
    return measurements(
        np.array(columns["device"]),
        np.array(columns["time_s"]),
        np.array(CELLS)[best],
        np.take_along_axis(rss_dbm, best, axis=1).astype(np.float32),
        trajectory=np.array(columns["trajectory"]),
        lon=lon,
        lat=lat,
    )
