"""Claim: a graph of 500 instants of 60 candidates is solved in 10 ms, and ten minutes of driving are tracked over Munich in 10 s."""

from __future__ import annotations

import time

import kit
import numpy as np
from match_speed import grid_city
from munich import INTERVAL_S, Roads, city_grid, footprints
from scipy.spatial import cKDTree
from telcoloc.models.landmarks.candidates import Candidates
from telcoloc.models.landmarks.free_cells import FreeSpace
from telcoloc.models.landmarks.map_distance import MapDistance, Straight
from telcoloc.models.landmarks.street_distance import StreetDistance
from telcoloc.models.landmarks.tfg import Graph, build_graph, shortest_paths
from telcoloc.models.landmarks.track import TrackSettings
from telcoloc.models.landmarks.tracking import track

TITLE = "Time-Forwarding Graph: speed"
MOST_SOLVING_S, MOST_TRACKING_S = 0.010, 10.0
INSTANTS, EACH = 500, 60
TRIP_S, CELL_M = 600.0, 5.0
#: Candidates lie around the truth and around three other places that look alike [m, per axis].
SPREAD_M, PLACES_ALIKE = 40.0, 3


def random_graph(instants: int, slack_m: float) -> Graph:
    """A graph of `EACH` candidates per instant, of which the more are reachable the more slack there is."""
    rng = np.random.default_rng(0)
    first = np.arange(instants + 1) * EACH
    walk = np.cumsum(rng.normal(0, 1, (instants, 2)), axis=0)
    xy = np.repeat(walk, EACH, axis=0) + rng.uniform(-5, 5, (len(walk) * EACH, 2))
    distance, times = Straight(), np.arange(instants, dtype=float)
    return build_graph(distance, distance.spots(xy), first, times, np.zeros(instants, bool), 2.0, slack_m, 5)


def around(truth_m: np.ndarray, places_m: np.ndarray, each: int, seed: int = 0) -> Candidates:
    """Candidates of every instant: half of them around where the device was, the others around places that look alike for 10 s."""
    rng = np.random.default_rng(seed)
    tree = cKDTree(places_m)
    alike = rng.integers(len(places_m), size=(len(truth_m) // 20 + 1, PLACES_ALIKE))
    chosen = []
    for instant, here in enumerate(truth_m):
        middle = np.concatenate([[here] * PLACES_ALIKE, places_m[alike[instant // 20]]])[
            rng.integers(2 * PLACES_ALIKE, size=each)
        ]
        chosen.append(tree.query(middle + rng.normal(0, SPREAD_M, (each, 2)))[1])
    n = len(truth_m)
    one = np.zeros(n, np.int32)
    xy = places_m[np.concatenate(chosen)]
    first = np.arange(n + 1) * each
    return Candidates(
        ("a",), one, ("a",), one, np.arange(n) * INTERVAL_S, first, xy, rng.uniform(4, 8, len(xy)), np.arange(n)
    )


def tracked(
    name: str, candidates: Candidates, distance: MapDistance, settings: TrackSettings
) -> tuple[float, tuple[str, ...]]:
    """Wall time of tracking over a map that knows nothing yet [s], and a row of the table."""
    before = kit.load()
    begun = time.perf_counter()
    found = track(candidates, None, None, distance, settings)
    seconds = time.perf_counter() - begun
    again = kit.timings(lambda: track(candidates, None, None, distance, settings), 1 if seconds > 5 else 3)[0]
    per_instant = len(candidates.xy_m) // len(candidates)
    return seconds, (
        name,
        f"{len(candidates):,} × {per_instant}",
        f"{len(found.edges):,}",
        f"{int(found.edges.forwarding.sum()):,}",
        f"{found.part.max() + 1}",
        kit.duration(seconds),
        kit.duration(again),
        before,
    )


def run(quick: bool) -> kit.Report:
    """Solve random graphs, and track a drive over free space and over streets."""
    report = kit.Report(
        TITLE,
        f"Solving: the shortest path of a graph that is there, {INSTANTS} instants of {EACH} candidates (best of 20, one core). Tracking: "
        f"{TRIP_S / 60:.0f} minutes of a drive at {INTERVAL_S} s over Munich's footprints ({CELL_M:g} m cells of free space) and over a "
        f"grid of one-way and two-way streets, candidates around the truth and {PLACES_ALIKE} places that look alike (σ {SPREAD_M:g} m, "
        "seeded), top speed 20 m/s; from a map that knows no distance yet to positions of all instants, and the same again with known "
        "distances.",
        ("map, slack", "instants × candidates", "edges", "forwarding", "parts", "first", "again", "load"),
    )
    slowest = 0.0
    for slack_m in (0.0, 3.0, 50.0):
        graph = random_graph(100 if quick else INSTANTS, slack_m)
        seconds = kit.timings(lambda graph=graph: shortest_paths(graph), 20)[0]
        slowest = max(slowest, seconds)
        share = len(graph.start) / ((len(graph.first) - 2) * EACH**2)
        report.notes.append(
            f"Solving {len(graph.start):,} edges ({share:.0%} of all pairs reachable): {kit.duration(seconds)}."
        )
    claim = f"{INSTANTS} × {EACH} solved in {kit.duration(MOST_SOLVING_S)}"
    report.targets.append(kit.Target(claim, kit.duration(slowest), slowest <= MOST_SOLVING_S))
    duration_s = 60.0 if quick else TRIP_S
    longest = 0.0
    try:
        buildings = footprints()
        grid = city_grid(buildings, CELL_M)
        free = buildings.heights_on(grid) == 0
        truth = Roads(buildings).drive(duration_s, seed=1).xy_m
        places = grid.centres(np.flatnonzero(free.ravel()))
        for each, slack_m in ((20, 10.0), (20, 40.0), (60, 40.0), (60, 100.0)):
            settings = TrackSettings(slack_m=slack_m, error_weight_m=1.0)
            name = f"Munich, {slack_m:g} m"
            seconds, row = tracked(name, around(truth, places, each), FreeSpace(grid, free), settings)
            longest = max(longest, seconds)
            report.rows.append(row)
        claim = f"{TRIP_S / 60:.0f} minutes over Munich tracked in {MOST_TRACKING_S:g} s"
        report.targets.append(kit.Target(claim, kit.duration(longest), longest <= MOST_TRACKING_S))
    except kit.Skipped as reason:
        report.notes.append(f"Munich: skipped, {reason}.")
    streets = grid_city(20)
    walk = np.repeat(streets.node_xy_m[np.arange(0, len(streets.node_xy_m), 3)], 12, axis=0)[
        : round(duration_s / INTERVAL_S)
    ]
    settings = TrackSettings(slack_m=40.0, error_weight_m=1.0)
    candidates = around(walk, streets.node_xy_m, 20)
    report.rows.append(tracked(f"{len(streets):,} streets, 40 m", candidates, StreetDistance(streets), settings)[1])
    return report
