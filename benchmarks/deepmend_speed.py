"""Claim: 1,000 BSs of a real city in a minute on two cores, in 2 GB."""

from __future__ import annotations

import resource
import time

import french
import kit
import numpy as np
from scipy.spatial import cKDTree

if True:  # `kit` puts the package in place
    from telcoloc.models.geolocation.engine import METHODS, GeolocationJob, geolocate
    from telcoloc.models.geolocation.sites import default_margin_m, merge_sites

TITLE = "DeepMEND: speed and memory"
COUNT = 1000
MOST_SECONDS, MOST_GIB = 60.0, 2.0


def run(quick: bool) -> kit.Report:
    """Time every method on 1,000 BSs of Lyon, and the reference's own features."""
    count = 100 if quick else COUNT
    lyon = np.concatenate([one.sites_m for one in french.networks() if one.city == "Lyon"])
    sites = merge_sites([str(row) for row in range(len(lyon))], lyon).xy_m
    middle = np.median(sites, axis=0)
    sites = sites[np.argsort(((sites - middle) ** 2).sum(axis=1))[:count]]
    low, high = sites.min(axis=0), sites.max(axis=0)
    margin = default_margin_m(sites)
    grid = french.Grid.covering((*(low - margin), *(high + margin)), french.CELL_SIZE_M)
    report = kit.Report(
        TITLE,
        f"The {len(sites):,} places of all operators nearest to the middle of Lyon, {grid.describe()}, the weights that ship; the "
        "engine's call alone, one after another, with two threads. Peak memory is that of the process so far.",
        ("method", "wall", "ms per BS", "peak", "load"),
    )
    seconds = {}
    for method in METHODS:
        load = kit.load()
        start = time.perf_counter()
        geolocate(GeolocationJob(sites, grid, method=method, min_probability=1e-4))
        seconds[method] = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        each = f"{1000 * seconds[method] / len(sites):.1f}"
        report.rows.append((method, kit.duration(seconds[method]), each, f"{peak:.2f} GiB", load))
    report.rows.append(("the reference's features of one 600 × 600 window", *_reference_features(sites, quick)))
    report.targets = [
        kit.Target(
            f"{COUNT:,} BSs in {MOST_SECONDS:g} s with the default (deepmend_beta)",
            kit.duration(seconds["deepmend_beta"]),
            seconds["deepmend_beta"] <= MOST_SECONDS,
        ),
        kit.Target(f"at most {MOST_GIB:g} GiB", f"{peak:.2f} GiB", peak <= MOST_GIB),
    ]
    return report


def _reference_features(sites: np.ndarray, quick: bool) -> tuple[str, str, str, str]:
    """Time a KD-tree query per cell in a Python loop, as the authors' code does, over part of a window; scaled to the whole."""
    tree = cKDTree(sites)
    rows = 6 if quick else 60
    start = time.perf_counter()
    for row in range(rows):
        for column in range(600):
            tree.query(sites[0] + 100.0 * np.array([column - 300, row - 300]), k=5)
    whole = (time.perf_counter() - start) * 600 / rows
    return kit.duration(whole), f"{1000 * whole:.0f}", "–", kit.load()
