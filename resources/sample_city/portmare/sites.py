"""Base-station sites, their cells and their day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from shapely.geometry import Point
from shapely.prepared import prep

from .shapes import at, generator
from .streets import Street
from .terrain import SUBURBAN, Terrain, density, urbanisation

# How far a site keeps from the others [m], by density: urban sites about 400 m apart, rural ones more than 3 km.
REACH = ([0.0, 0.10, 0.199, 0.201, 0.40, 0.599, 0.601, 0.95], [3200, 3000, 2700, 1080, 960, 860, 450, 385])

# Per urbanisation: antenna height [m], EIRP [dBm], carriers [MHz], chances of 1-4 sectors, peak-hour traffic [MB]
KINDS = {
    "urban": ((21, 38), (57, 60), (1800, 2100, 2600, 3500), (0.06, 0.08, 0.74, 0.12), 15000),
    "suburban": ((22, 34), (59, 62), (800, 1800, 1800, 2100), (0.04, 0.10, 0.84, 0.02), 7000),
    "rural": ((30, 55), (61, 64), (700, 800, 900), (0.10, 0.20, 0.70, 0.0), 1800),
}
HOURS = [f"h{h:02d}" for h in range(24)]
OFFICES = [(13600, 8750, 900), (11700, 8000, 700), (9900, 7100, 700), (9500, 11300, 700)]  # x, y, radius [m]


@dataclass
class Site:
    """One base station: a mast or roof with one to four cells at the same place."""

    bs_id: str
    name: str
    point: np.ndarray
    urbanisation: str
    height_m: float
    sectors: int
    eirp_dbm: float
    freq_mhz: int
    traffic: np.ndarray


@dataclass
class Cell:
    """One sector of a site."""

    cell_id: str
    site: Site
    azimuth_deg: int
    tilt_deg: int
    beamwidth_deg: int


def office_share(p: np.ndarray) -> float:
    """Return how much of the life at a place is office hours, 0..1."""
    return float(min(1.0, sum(np.exp(-((p[0] - x) ** 2 + (p[1] - y) ** 2) / r**2) for x, y, r in OFFICES)))


def daily_curve(office: float) -> np.ndarray:
    """Return traffic by hour, peak about 1: offices peak at noon, homes in the evening, nights are quiet."""
    h = np.arange(24)

    def bump(centre: float, width: float) -> np.ndarray:
        return np.exp(-(((h - centre + 12) % 24 - 12) ** 2) / (2 * width**2))

    work = 0.05 + 0.55 * bump(10, 1.8) + 0.95 * bump(12.6, 1.6) + 0.60 * bump(15.5, 2.0) + 0.12 * bump(20, 2.5)
    home = 0.10 + 0.25 * bump(8, 1.4) + 0.35 * bump(14, 3.0) + 0.90 * bump(20.7, 2.3) + 0.25 * bump(23.5, 1.5)
    curve = office * work / work.max() + (1 - office) * home / home.max()
    return curve / curve.max()


def make_sites(terrain: Terrain, streets: list[Street], seed: int) -> list[Site]:
    """Place the sites by an inhomogeneous hard-core process along streets, the densest places first.

    Each site keeps a distance from the others that follows the density of the city, see `REACH`.
    """
    rng = generator(seed, "sites")
    spots, names = [], []
    for s in streets:
        for d in np.arange(20.0, s.line.length, 45.0):
            a, b = at(s.line, d), at(s.line, d + 2)
            u = (b - a) / max(np.hypot(*(b - a)), 1e-9)
            off = rng.choice([-1, 1]) * (rng.uniform(14, 28) + (60 if s.kind == "motorway" else 0))
            if density(a)[0] < SUBURBAN:
                off *= rng.uniform(1, 20)  # a mast on some hill
            spots.append(a + off * np.array([-u[1], u[0]]))
            names.append(s.name)
    spots = np.array(spots)
    kind = urbanisation(spots)
    rank = np.array([{"urban": 0, "suburban": 1, "rural": 2}[k] for k in kind])
    reach = np.interp(density(spots), *REACH)
    dry = prep(terrain.land.buffer(-18))
    chosen: list[int] = []
    for k in np.lexsort((rng.random(len(spots)), rank)):
        if chosen:
            far = np.hypot(*(spots[chosen] - spots[k]).T)
            if np.any(far < 0.72 * np.maximum(reach[chosen], reach[k]) + 0.28 * np.minimum(reach[chosen], reach[k])):
                continue
        if dry.contains(Point(spots[k])):
            chosen.append(k)
    centre = np.array([11700, 8400])
    chosen.sort(key=lambda k: np.hypot(*(spots[k] - centre)))
    sites, used = [], {}
    for number, k in enumerate(chosen, 1):
        heights, powers, carriers, chances, peak = KINDS[kind[k]]
        used[names[k]] = used.get(names[k], 0) + 1
        p = np.round(spots[k], 1)
        level = peak * rng.lognormal(0, 0.35) * (0.8 + 0.4 * min(density(p)[0], 1))
        office = np.clip(office_share(p) + rng.normal(0, 0.06), 0, 1)
        curve = daily_curve(office) * np.exp(rng.normal(0, 0.06, 24)) * level
        sites.append(Site(
            f"PM{number:03d}", names[k] + (f" {used[names[k]]}" if used[names[k]] > 1 else ""), p, str(kind[k]),
            round(float(rng.uniform(*heights)) * 2) / 2, int(rng.choice(4, p=chances)) + 1,
            round(float(rng.uniform(*powers)), 1), int(rng.choice(carriers)), np.round(curve, 1)))  # fmt: skip
    return sites


def make_cells(sites: list[Site], seed: int) -> list[Cell]:
    """Split each site into its sectors, evenly around a direction of its own. One sector alone is an omni antenna."""
    rng = generator(seed, "cells")
    cells = []
    for site in sites:
        first, n = rng.integers(0, 36) * 10, site.sectors
        tilt = {"urban": 6, "suburban": 4, "rural": 2}[site.urbanisation]
        for k in range(n):
            azimuth = int(first + k * 360 / n + rng.integers(-1, 2) * 5 * (n > 1)) % 360 if n > 1 else 0
            beam = {1: 360, 2: 90, 3: 65, 4: 65}[n]
            tilt_k = int(np.clip(tilt + rng.integers(-2, 3), 0, 12)) if n > 1 else 0
            cells.append(Cell(f"{site.bs_id}_{k + 1}", site, azimuth, tilt_k, beam))
    return cells
