"""A small simulated town of measurement reports, odd records, and the Jiading set: what tests of localisation methods share."""

import sys
from pathlib import Path

import numpy as np
import pytest
from telcoloc.models.trajectory.measurements import CellSites, LocalFrame, measurements

FRAME = LocalFrame(121.2, 31.3)


def walks(n_walks=20, n_steps=60, seed=0, sites=True):
    """Walks among 16 masts on a square of 1.5 km; each record hears up to 5 by path loss and 4 dB of noise."""
    rng = np.random.default_rng(seed)
    mast_x, mast_y = (grid.ravel() * 400.0 for grid in np.meshgrid(np.arange(4), np.arange(4)))
    start = rng.uniform(0, 1200, (n_walks, 1, 2))
    way = np.cumsum(rng.normal(0, 7, (n_walks, 1, 2)) + rng.normal(0, 2, (n_walks, n_steps, 2)), axis=1)
    xy = (start + way).reshape(-1, 2)
    away = np.hypot(xy[:, :1] - mast_x, xy[:, 1:] - mast_y)
    rss = -40 - 35 * np.log10(np.maximum(away, 10) / 10) + rng.normal(0, 4, away.shape)
    order = np.argsort(-rss, axis=1)[:, :5]
    heard = np.take_along_axis(rss, order, axis=1)
    lon, lat = FRAME.to_lonlat(*xy.T)
    data = measurements(
        np.repeat([f"d{walk:02d}" for walk in range(n_walks)], n_steps),
        np.tile(np.arange(n_steps) * 2.0, n_walks) + 1e9,
        np.array([f"c{mast}" for mast in range(16)])[order],
        heard,
        lon=lon,
        lat=lat,
    )
    where = FRAME.to_lonlat(mast_x, mast_y)
    return data, CellSites(tuple(f"c{mast}" for mast in range(16)), *where) if sites else CellSites.none()


def odd_records():
    """One device with one record, one cell, no RSS, cells nobody knows, nothing at all, the same time twice."""
    nan = np.nan
    return measurements(
        np.array(["a", "b", "b", "b", "b", "c"]),
        np.array([0.0, 5, 5, 9, 9000, 1]),
        np.array([["c1", ""], ["c1", "c2"], ["zz", ""], ["", ""], ["c3", "c3"], ["c4", "zz"]]),
        np.array([[-70.0, nan], [nan, nan], [-60, nan], [nan, nan], [-80, -60], [-200, -75]]),
    )


def errors(model, data, rows=slice(None)):
    fixes = model.predict(data)
    x, y = model.frame_.to_xy(data.lon, data.lat)
    return np.hypot(fixes.x_m - x, fixes.y_m - y)[rows], fixes


def jiading():
    """(data, sites) of the Jiading 2G set, read as the benchmarks read it."""
    pytest.importorskip("pandas")
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    import mr_data

    return mr_data.jiading()
