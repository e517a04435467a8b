"""Claim: radio maps of a city for ten base stations within a minute on 2 cores; dominant paths within a second per base station."""

from __future__ import annotations

import os
import time

import kit
import munich
import numpy as np
from telcoloc.models.grid import Grid
from telcoloc.models.radio.buildings import Buildings
from telcoloc.models.radio.dominant_path import dominant_path_loss_db, prepare_dominant_paths
from telcoloc.models.radio.maps import RadioMapJob, radio_maps
from telcoloc.models.radio.transmitters import Transmitters

TITLE = "Radio maps: speed"
THREADS = min(2, os.cpu_count() or 1)
#: What the issue asks for [s].
MOST_FOR_TEN_S, MOST_PER_BS_S = 60.0, 1.0
#: Side of the small map [cells of 1 m], and how many of them are looked at.
SIDE, WINDOWS = 256, 6
REPEATS = 3


def city_maps(report: kit.Report, buildings: Buildings, network: Transmitters, quick: bool) -> None:
    """Ten base stations over the whole city, with both models that look at buildings."""
    for model in ("cost231wi", "dominantpath"):
        for cell_m in (10.0,) if quick else (5.0, 2.0, 1.0):
            grid = munich.city_grid(buildings, cell_m)
            job = RadioMapJob(network, grid, model, buildings=buildings, threads=THREADS)
            before = kit.load()
            seconds = kit.timings(lambda job=job: radio_maps(job), 1 if quick or cell_m < 2 else REPEATS)
            report.rows.append(
                (
                    f"Munich, {model}, {len(network)} BSs, {grid.height} × {grid.width} cells of {cell_m:g} m",
                    kit.duration(seconds[0]),
                    kit.duration(kit.median(seconds)),
                    kit.duration(kit.median(seconds) / len(network)),
                    before,
                )
            )
            if model == "cost231wi":
                report.targets.append(
                    kit.Target(
                        f"Munich, ten BSs, cost231wi, {cell_m:g} m: at most {MOST_FOR_TEN_S:g} s",
                        kit.duration(kit.median(seconds)),
                        quick or kit.median(seconds) <= MOST_FOR_TEN_S,
                    )
                )


def windows(buildings: Buildings, count: int, seed: int = 1) -> list[tuple[Grid, Buildings]]:
    """Squares of 256 m in the city, and the buildings that reach into each."""
    low, high = buildings.xy_m.min(axis=0), buildings.xy_m.max(axis=0)
    vertex_of = buildings.building_of_vertex
    found = []
    for corner in np.random.default_rng(seed).uniform(low, high - SIDE, (count, 2)):
        grid = Grid(SIDE, SIDE, float(corner[0]), float(corner[1]) + SIDE, 1.0)
        near = ((buildings.xy_m >= corner) & (buildings.xy_m <= corner + SIDE)).all(axis=1)
        found.append((grid, buildings.take(np.unique(vertex_of[near]))))
    return found


def small_maps(report: kit.Report, buildings: Buildings, quick: bool) -> None:
    """Dominant paths on 256² cells of 1 m: what all base stations of a map share, and each by itself, on one core."""
    rng = np.random.default_rng(2)
    before = kit.load()
    preparing, each, corners = [], [], []
    for grid, near in windows(buildings, 2 if quick else WINDOWS):
        start = time.perf_counter()
        prepared = prepare_dominant_paths(near, grid)
        preparing.append(time.perf_counter() - start)
        corners.append(len(prepared.corners))
        antennas = prepared.places_m[rng.choice(prepared.places.row, 5)]
        for antenna, height_m in zip(antennas, (3.0, 10.0, 20.0, 30.0, 45.0)):
            start = time.perf_counter()
            dominant_path_loss_db(prepared, antenna, height_m, munich.FREQ_MHZ)
            each.append(time.perf_counter() - start)
    report.rows.append(
        (
            f"{len(preparing)} squares of Munich, {SIDE}² cells of 1 m, {min(corners)} to {max(corners)} corners: preparing dominantpath",
            kit.duration(min(preparing)),
            kit.duration(kit.median(preparing)),
            "–",
            before,
        )
    )
    report.rows.append(
        (
            f"– each BS (height 3 to 45 m), {len(each)} of them",
            kit.duration(min(each)),
            kit.duration(kit.median(each)),
            kit.duration(max(each)) + " at most",
            before,
        )
    )
    report.targets.append(
        kit.Target(
            f"dominantpath, {SIDE}² cells of 1 m: at most {MOST_PER_BS_S:g} s per BS after preparing",
            f"{kit.duration(max(each))} at most",
            quick or max(each) <= MOST_PER_BS_S,
        )
    )


def run(quick: bool) -> kit.Report:
    """Time radio maps over Munich's footprints."""
    buildings = munich.footprints()
    # one sector of each of the ten sites
    network = munich.network(buildings).take(np.arange(0, 3 * munich.N_SITES, 3))
    report = kit.Report(
        TITLE,
        f"{len(buildings):,} footprints with heights, {len(buildings.xy_m):,} vertices, antennas on roofs with the antenna pattern of TR "
        f"38.901, whole runs of the engine on {THREADS} threads (footprints already read); the squares of 256 m on one. dominantpath is "
        "exact: ways around all corners of the footprints, and diffraction over the roofs along every straight line.",
        ("map", "best", "median", "per BS", "load"),
    )
    small_maps(report, buildings, quick)
    city_maps(report, buildings, network, quick)
    return report
