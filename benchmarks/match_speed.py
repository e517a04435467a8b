"""Claim: map matching does 5,000 points a second on a city network with 2 cores, and finds the right streets."""

from __future__ import annotations

import csv
import os
import time
from dataclasses import dataclass
from pathlib import Path

import kit
import numpy as np
from telcoloc.models.trajectory.map_matching import Matched, Matching, match
from telcoloc.models.trajectory.streets import BACKWARD, BOTH, FORWARD, RouteSearch, Streets, build_streets

TITLE = "Map matching: speed and right streets"
LEAST_POINTS_PER_S = 5_000
THREADS = min(2, os.cpu_count() or 1)


@dataclass(frozen=True)
class Drives:
    """Noisy points of drives whose streets are known: shape (n,) and (n, 2)."""

    trajectory: np.ndarray
    time_s: np.ndarray
    true_m: np.ndarray
    seen_m: np.ndarray
    edge: np.ndarray
    length_m: float


def grid_city(side: int, spacing_m: float = 120.0, seed: int = 0) -> Streets:
    """A city of side × side crossings, moved at random; every third street is one-way, an eighth of blocks has no street between."""
    rng = np.random.default_rng(seed)
    column, row = np.meshgrid(np.arange(side), np.arange(side))
    nodes = np.stack([column, row], axis=-1) * spacing_m + rng.normal(0, 0.12 * spacing_m, (side, side, 2))
    lines, direction = [], []
    for a, b, number in (
        (nodes[:, :-1], nodes[:, 1:], row[:, 1:]),
        (nodes[:-1], nodes[1:], column[1:]),
    ):
        middle = (a + b) / 2 + rng.normal(0, 0.03 * spacing_m, a.shape)
        kept = rng.random(a.shape[:2]) > 0.12
        lines.append(np.stack([a, middle, b], axis=2)[kept])
        direction.append(np.where(number % 3, BOTH, np.where(number % 2, FORWARD, BACKWARD))[kept])
    vertices = np.concatenate(lines)
    return build_streets(vertices.reshape(-1, 2), np.arange(len(vertices) + 1) * 3, np.concatenate(direction))


def stockholm() -> tuple[Streets, object]:
    """The street network of ../shared/data, and the transformation from degrees to its metres (UTM 33N)."""
    from osgeo import ogr, osr

    ogr.UseExceptions()
    degrees, metres = osr.SpatialReference(), osr.SpatialReference()
    degrees.ImportFromEPSG(4326)
    metres.ImportFromEPSG(32633)
    for system in (degrees, metres):
        system.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    transform = osr.CoordinateTransformation(degrees, metres)
    source = ogr.Open(str(kit.shared("streets/stockholm_osm/edges.shp")))
    lines, travel = [], []
    for feature in source.GetLayer(0):
        geometry = feature.GetGeometryRef()
        geometry.Transform(transform)
        lines.append(np.array(geometry.GetPoints())[:, :2])
        travel.append(FORWARD)  # a directed network: two-way streets are there twice
    first = np.concatenate([[0], np.cumsum([len(line) for line in lines])])
    return build_streets(np.concatenate(lines), first, np.array(travel)), transform


def simulate(
    streets: Streets, points: int, step_s: float, sigma_m: float, seed: int, speed_m_s: float = 10.0
) -> Drives:
    """Drive shortest ways between random crossings, `step_s` apart, and see positions with Gaussian noise."""
    rng = np.random.default_rng(seed)
    search = RouteSearch(streets)
    nodes = np.arange(len(streets.node_xy_m))
    search.enter(nodes)
    parts, total, code, length = [], 0, 0, 0.0
    while total < points:
        start, end = rng.choice(nodes, 2, replace=False)
        (path,) = search.paths(int(start), np.array([end]), np.inf)
        if path is None or len(path) < 12:
            continue
        arcs = [streets.arc_between(a, b) for a, b in zip(path[:-1], path[1:])]
        arcs_m = streets.arc_length_m[arcs]
        way = np.concatenate([[0], np.cumsum(arcs_m)])
        speed = speed_m_s * rng.uniform(0.6, 1.3)
        done = np.arange(0, way[-1], speed * step_s)
        on = np.searchsorted(way, done, side="right") - 1
        edge, ahead = streets.arc_edge[arcs][on], streets.arc_forward[arcs][on]
        along = np.where(ahead, done - way[on], arcs_m[on] - (done - way[on]))
        true = streets.points_at(edge, along)
        parts.append((np.full(len(done), code), done / speed, true, true + rng.normal(0, sigma_m, true.shape), edge))
        total, code, length = total + len(done), code + 1, length + done[-1]
    return Drives(*(np.concatenate(each) for each in zip(*parts)), length)


def raw_error_m(drives: Drives) -> float:
    """Median distance of the points themselves from the truth [m]."""
    return float(np.median(np.hypot(*(drives.seen_m - drives.true_m).T)))


def judge(drives: Drives, matched: Matched) -> tuple[float, float, float]:
    """Share of points on the right edge, median distance from the truth [m], and length error of the routes, as a share."""
    right = float((matched.edge == drives.edge).mean())
    error = float(np.median(np.hypot(*(matched.xy_m - drives.true_m).T)))
    steps = np.hypot(*np.diff(matched.route_xy_m, axis=0).T)
    steps[matched.route_first[1:-1] - 1] = 0.0
    return right, error, float(steps.sum() / drives.length_m - 1)


def row(name: str, streets: Streets, drives: Drives, settings: Matching) -> tuple[float, tuple[str, ...]]:
    """Points per second, and a row of the table."""
    before = kit.load()
    start = time.perf_counter()
    matched = match(streets, drives.seen_m, drives.time_s, drives.trajectory, settings=settings, threads=THREADS)
    seconds = time.perf_counter() - start
    right, error, length = judge(drives, matched)
    speed = len(drives.edge) / seconds
    cells = (
        name,
        f"{len(drives.edge):,}",
        f"{speed:,.0f}",
        f"{100 * right:.1f} %",
        f"{raw_error_m(drives):.1f} → {error:.1f} m",
        f"{100 * length:+.1f} %",
        f"{matched.stretches:,} / {drives.trajectory[-1] + 1:,}",
        before,
    )
    return speed, cells


def trips(streets: Streets, transform: object) -> list[str]:
    """What becomes of the two trips that come with the Stockholm network, beside what the program fmm made of them (mr.txt)."""
    notes = []
    folder = "streets/stockholm_osm"
    given, theirs = (_lines(kit.shared(f"{folder}/{name}"), transform) for name in ("trips.csv", "mr.txt"))
    for trip, points in given.items():
        matched = match(streets, points, settings=Matching(radius_m=100.0))
        way, other = (_every_metre(line) for line in (matched.route_xy_m, theirs[trip]))
        near, covered = (
            float((np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)).min(axis=1) < 5).mean())
            for a, b in ((way, other), (other, way))
        )
        notes.append(
            f"Trip {trip} of trips.csv: {(matched.edge >= 0).sum()} of {len(points)} points matched in {matched.stretches} stretch, "
            f"{np.nanmax(matched.offset_m):.0f} m at most from their street; {100 * near:.0f} % of our path lies within 5 m of that of fmm "
            f"(mr.txt), and {100 * covered:.0f} % of fmm's within 5 m of ours."
        )
    return notes


def _lines(path: Path, transform: object) -> dict[str, np.ndarray]:
    """The last column of a table of trips, in metres, by its first."""
    from osgeo import ogr

    csv.field_size_limit(10**7)
    found = {}
    with path.open(encoding="utf-8") as file:
        rows = csv.reader(file, delimiter=";")
        next(rows)
        for row_ in rows:
            line = ogr.CreateGeometryFromWkt(row_[-1])
            line.Transform(transform)
            found[row_[0]] = np.array(line.GetPoints())[:, :2]
    return found


def _every_metre(line: np.ndarray) -> np.ndarray:
    """Places along a line, a metre apart."""
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    places = np.arange(0, way[-1], 1.0)
    return np.column_stack([np.interp(places, way, line[:, axis]) for axis in range(2)])


def run(quick: bool) -> kit.Report:
    """Match simulated drives on two networks."""
    points = 2_000 if quick else 30_000
    report = kit.Report(
        TITLE,
        "Drives over shortest ways between random crossings at 6 to 13 m/s, positions with Gaussian noise of σ per axis (seeded), matched "
        f"with σ known, other settings by default, {THREADS} threads. Right: share of points put on the very edge they were on, also next "
        "to crossings. Off: median distance from the truth, of the points and of their matches. Length: of all routes, against the truth. "
        "Stretches: found / driven.",
        ("network, sampling, σ", "points", "points/s", "right", "off", "length", "stretches", "load"),
    )
    cities = [("grid", grid_city(105))]
    try:
        streets, transform = stockholm()
        cities.append(("Stockholm", streets))
    except kit.Skipped as reason:
        report.notes.append(f"Stockholm: skipped, {reason}.")
    for name, city in cities:
        city_name = f"{name} ({len(city):,} edges)"
        for step_s, sigma, skip in (
            (1, 5.0, False),
            (1, 10.0, False),
            (1, 10.0, True),
            (5, 10.0, False),
            (30, 10.0, False),
            (5, 50.0, False),
        ):
            drives = simulate(city, points, step_s, sigma, seed=1)
            settings = Matching(sigma_m=sigma, radius_m=max(50.0, 4 * sigma), skip_close=skip)
            label = f"{city_name}, {step_s} s, {sigma:g} m" + (", close ones skipped" if skip else "")
            speed, cells = row(label, city, drives, settings)
            report.rows.append(cells)
            if step_s == 1 and not skip:
                report.targets.append(
                    kit.Target(
                        f"{name}, {step_s} s, σ {sigma:g} m: at least {LEAST_POINTS_PER_S:,} points/s",
                        f"{speed:,.0f}",
                        quick or speed >= LEAST_POINTS_PER_S,
                    )
                )
        if name == "Stockholm":
            report.notes += trips(city, transform)
    return report
