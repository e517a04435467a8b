"""Claim: a million measurement reports are localised at 20,000 a second (classical) and 2,000 (DeepLoc), in under 2 GB."""

from __future__ import annotations

import resource
import time

import kit
import numpy as np

if True:  # `kit` puts the package in place
    from telcoloc.models.trajectory.measurements import CellSites, Measurements, measurements
    from telcoloc.models.trajectory.training import TrainJob, learn

TITLE = "Measurement reports: throughput"
#: Records to learn from, to localise, and to localise by the slow methods.
_LEARNED, _MILLION, _FEW = 10_000, 1_000_000, 100_000
_SITES, _SIDE_M = 150, 5_000.0
CLASSICAL = ("nbl", "raf", "ccr", "hmm")


def generated(n: int, seed: int) -> tuple[Measurements, CellSites]:
    """Random walks of 500 records over a 5 × 5 km network of 150 cells, six cells each by path loss and 6 dB of noise."""
    town = np.random.default_rng(0)
    east_m, north_m = town.uniform(0, _SIDE_M, (2, _SITES))
    rng = np.random.default_rng(seed)
    walk = np.arange(n) // 500
    step_m = rng.normal(0, 12, (2, n))
    begin = np.arange(n) % 500 == 0
    step_m[:, begin] = 0
    path_m = np.cumsum(step_m, axis=1)
    path_m -= path_m[:, np.flatnonzero(begin)][:, walk]
    path_m += rng.uniform(0, _SIDE_M, (2, walk[-1] + 1))[:, walk]
    x_m, y_m = _SIDE_M - np.abs(path_m % (2 * _SIDE_M) - _SIDE_M)
    cell = np.empty((n, 6), dtype="<U4")
    rss_dbm = np.empty((n, 6), dtype=np.float32)
    names = np.array([f"c{number}" for number in range(_SITES)])
    for start in range(0, n, 50_000):
        rows = slice(start, start + 50_000)
        away_m = np.hypot(x_m[rows, None] - east_m, y_m[rows, None] - north_m)
        power = -30 - 35 * np.log10(np.maximum(away_m, 20)) + rng.normal(0, 6, away_m.shape) + 20
        best = np.argsort(-power, axis=1)[:, :6]
        cell[rows] = names[best]
        rss_dbm[rows] = np.round(np.take_along_axis(power, best, axis=1))
    lon, lat = 10 + x_m / 78_000, 45 + y_m / 111_000
    sites = CellSites(tuple(names), 10 + east_m / 78_000, 45 + north_m / 111_000)
    device = np.char.add("d", walk.astype(str))
    data = measurements(device, np.arange(n) * 2.0, cell, rss_dbm, trajectory=device, lon=lon, lat=lat)
    return data, sites


def run(quick: bool) -> kit.Report:
    """Learn from a little, localise a lot."""
    learned, sites = generated(2_000 if quick else _LEARNED, 1)
    report = kit.Report(
        TITLE,
        f"Learned from {len(learned):,} generated records (150 cells on 5 × 5 km, walks of 500 records, six cells each), then as many "
        "others localised as the table says, by the engine alone, on two threads; the records themselves take 0.1 GB a million.",
        ("method", "learning", "records", "records/s", "peak memory", "load before"),
    )
    million, _ = generated(20_000 if quick else _MILLION, 2)
    few = million.take(np.arange(len(million)) < (5_000 if quick else _FEW))
    for method in (*CLASSICAL, "auto", "deeploc"):
        asked = million if method in CLASSICAL else few
        load = kit.load()
        began = time.perf_counter()
        model = learn(learned, sites, TrainJob(method, threads=2, refit=False))
        learning_s = time.perf_counter() - began
        began = time.perf_counter()
        model.localize(asked, threads=2)
        rate = len(asked) / (time.perf_counter() - began)
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        report.rows.append(
            (method, kit.duration(learning_s), f"{len(asked):,}", f"{rate:,.0f}", f"{peak_gb:.2f} GB", load)
        )
        least = 2_000 if method == "deeploc" else 20_000
        if method != "auto":
            report.targets.append(kit.Target(f"{method}: {least:,} records/s", f"{rate:,.0f}", rate >= least))
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    report.targets.append(kit.Target("memory under 2 GB", f"{peak_gb:.2f} GB", peak_gb < 2))
    return report
