"""Claim: radio maps of a city for ten base stations within a minute on 2 cores; dominant paths within a second per base station."""

from __future__ import annotations

import os
import time

import kit
import munich
import numpy as np
from telcoloc.models.grid import Grid
from telcoloc.models.radio.buildings import Buildings
from telcoloc.models.radio.dominant_path import (
    dominant_path_loss_db,
    find_paths,
    path_loss_of,
    prepare_dominant_paths,
)
from telcoloc.models.radio.dominant_path_settings import DominantPathSettings
from telcoloc.models.radio.maps import RadioMapJob, radio_maps
from telcoloc.models.radio.path_loss import DEVICE_HEIGHT_M, sight_losses_db
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


def beside_others(buildings: Buildings, network: Transmitters, antennas: int, seed: int = 0) -> list[str]:
    """What dominantpath says of hidden places of Munich beside UMi, UMa and COST231-WI, as sentences."""
    grid = munich.city_grid(buildings, 10.0)
    prepared = prepare_dominant_paths(buildings, grid)
    settings = DominantPathSettings()

    def losses(xy_m: np.ndarray, height_m: float, freq_mhz: float, scenario: str) -> tuple[np.ndarray, ...]:
        path = find_paths(prepared, xy_m, height_m, freq_mhz, settings, DEVICE_HEIGHT_M)
        above_m = height_m - DEVICE_HEIGHT_M
        alone = path._replace(roofs_db=np.full_like(path.roofs_db, np.inf))
        around = path_loss_of(alone, above_m, freq_mhz, settings)
        over = path_loss_of(path._replace(around_m=np.full_like(path.around_m, np.inf)), above_m, freq_mhz, settings)
        _, nlos = sight_losses_db(scenario, path.straight_m, freq_mhz, height_m)
        hidden = ~np.isnan(path.around_m) & ~path.seen & (path.straight_m > 50)
        return around - nlos, over - nlos, hidden & (path.roofs_db > 6), np.isfinite(path.around_m) & hidden

    rng = np.random.default_rng(seed)
    streets, roofs = [], []
    for xy_m in prepared.places_m[rng.choice(prepared.places.row, antennas)]:
        around, _, _, reached = losses(xy_m, 10.0, 2000.0, "UMi")
        streets.append(around[reached])
    for xy_m, height_m in zip(network.xy_m, network.height_m):
        _, over, behind, _ = losses(xy_m, height_m, munich.FREQ_MHZ, "UMa")
        roofs.append(over[behind])
    street, roof = np.concatenate(streets), np.concatenate(roofs)
    both = [
        radio_maps(RadioMapJob(network, grid, model, buildings=buildings, threads=THREADS)).loss_db
        for model in ("dominantpath", "cost231wi")
    ]
    apart = both[0] - both[1]
    return [
        f"Around corners, {antennas} antennas 10 m high at 2 GHz anywhere outside: hidden places lose {np.median(street):+.1f} dB against "
        f"UMi without line of sight (TR 38.901; median; standard deviation {street.std():.1f} dB). Over roofs, the antennas of "
        f"the tracking benchmark ({network.height_m.min():.0f} to {network.height_m.max():.0f} m high): {np.median(roof):+.1f} dB against "
        f"UMa ({roof.std():.1f} dB). Against cost231wi, everywhere: mean {np.nanmean(apart):+.1f} dB, RMSE "
        f"{np.sqrt(np.nanmean(apart**2)):.1f} dB.",
    ]


def run(quick: bool) -> kit.Report:
    """Time radio maps over Munich's footprints."""
    buildings = munich.footprints()
    # one sector of each of the ten sites
    network = munich.network(buildings).take(np.arange(0, 3 * munich.N_SITES, 3))
    report = kit.Report(
        TITLE,
        f"{len(buildings):,} footprints with heights, {len(buildings.xy_m):,} vertices, antennas on roofs with the antenna pattern of TR "
        f"38.901, whole runs of the engine on {THREADS} threads (footprints already read); the squares of 256 m on one. dominantpath: "
        "shortest ways around all corners, walls snapped to 10 cm; over the roofs, rays within half a cell of every place.",
        ("map", "best", "median", "per BS", "load"),
    )
    small_maps(report, buildings, quick)
    city_maps(report, buildings, network, quick)
    report.notes += beside_others(buildings, network, 2 if quick else 30)
    return report
