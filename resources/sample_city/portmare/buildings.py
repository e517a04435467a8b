"""Building footprints along the streets of the centre and of some suburbs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from shapely.geometry import Point, Polygon
from shapely.ops import unary_union
from shapely.prepared import prep

from .shapes import Index, at, box, generator, parts, rounded, smooth_noise
from .sites import office_share
from .streets import Street
from .terrain import URBAN, Terrain, density

HALF_WIDTH = {"motorway": 14.0, "primary": 10.0, "secondary": 8.0, "residential": 5.5}  # street centre to its edge [m]
INDUSTRIAL = ("Harbour", "Foundry")

# name, place, length, width [m], angle [degrees], height [m]
LANDMARKS = [
    ("Portmare Cathedral", (11260, 8660), 78, 30, 80, 62), ("Town Hall", (11700, 7930), 56, 40, 5, 34),
    ("Exchange Tower", (13640, 8760), 38, 38, 20, 128), ("Old Lighthouse", (11282, 6372), 13, 13, 30, 41),
    ("Cape Light", (7540, 3560), 16, 16, 10, 36), ("Bay Stadium", (15700, 8700), 210, 160, 15, 32),
    ("University Hall", (11760, 9600), 96, 36, 70, 29), ("Opera House", (13220, 7390), 84, 52, 100, 38),
    ("Central Station", (10720, 9150), 190, 48, 55, 24), ("St Clement Hospital", (14050, 8250), 110, 60, 0, 37),
    ("Grain Silo", (10480, 6760), 46, 26, 118, 52), ("Foundry Chimney", (9420, 11260), 12, 12, 0, 85),
]  # fmt: skip


@dataclass
class Building:
    """One footprint."""

    shape: Polygon
    height_m: float
    levels: int
    use: str
    name: str | None = None


class Builder:
    """Accepts footprints that keep clear of streets, water and each other."""

    def __init__(self, terrain: Terrain, streets: list[Street]) -> None:
        self.streets = streets
        self.index = Index([s.line for s in streets])
        self.dry = prep(terrain.land.buffer(-4))
        self.bins: dict[tuple, list[Polygon]] = defaultdict(list)
        self.buildings: list[Building] = []

    def add(self, building: Building, gap: float = 1.0) -> bool:
        """Add a building if it fits; say whether it did."""
        shape = building.shape = rounded(building.shape)
        if not self.dry.contains(shape):
            return False
        for k in self.index.near(shape.buffer(15)):
            if self.streets[k].line.distance(shape) < HALF_WIDTH[self.streets[k].kind] + 1.0:
                return False
        x0, y0, x1, y1 = shape.bounds
        cells = [
            (i, j) for i in range(int(x0 // 100), int(x1 // 100) + 1) for j in range(int(y0 // 100), int(y1 // 100) + 1)
        ]
        around = {(i + u, j + v) for i, j in cells for u in (-1, 0, 1) for v in (-1, 0, 1)}
        if any(other.distance(shape) < gap for cell in around for other in self.bins.get(cell, ())):
            return False
        for cell in cells:
            self.bins[cell].append(shape)
        self.buildings.append(building)
        return True


def _lot(a: np.ndarray, u: np.ndarray, n: np.ndarray, front: float, depth: float, back: float, wing: float) -> Polygon:
    """Draw a rectangle of `front` x `depth` from `back` metres off the street; with a wing it becomes an L."""
    a = a + back * n
    if wing <= 0:
        return Polygon([a, a + front * u, a + front * u + depth * n, a + depth * n])
    w = min(front * 0.42, depth)
    return Polygon([a, a + front * u, a + front * u + depth * n, a + w * u + depth * n,
                    a + w * u + (depth + wing) * n, a + (depth + wing) * n])  # fmt: skip


def make_buildings(terrain: Terrain, streets: list[Street], seed: int) -> list[Building]:
    """Place landmarks first, then line the streets: rows in the centre, works by the docks, houses in suburbs."""
    rng = generator(seed, "buildings")
    builder = Builder(terrain, streets)
    for name, place, length, width, angle, height in LANDMARKS:
        for shift in range(60):  # the nearest free spot
            p = np.array(place) + 9 * np.sqrt(shift) * np.array([np.cos(2.4 * shift), np.sin(2.4 * shift)])
            shape = box(p, length, width, angle)
            if name == "Portmare Cathedral":
                shape = unary_union([shape, box(p + np.array([3, 12]), width * 2, width * 0.7, angle + 90)])
            elif length < 20 or "Stadium" in name:
                turn = np.linspace(0, 6.283, 13)[:-1]
                shape = Polygon([(length * np.cos(t) / 2, width * np.sin(t) / 2) for t in turn])
                c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
                shape = Polygon([(p[0] + c * x - s * y, p[1] + s * x + c * y) for x, y in shape.exterior.coords[:-1]])
            if builder.add(Building(parts(shape)[0], float(height), max(1, round(height / 4)), "landmark", name)):
                break
    works = prep(unary_union([zone for name, zone in terrain.zones if name in INDUSTRIAL]))
    settled = smooth_noise(rng, 2200)
    order = sorted(
        (s for s in streets if s.kind != "motorway" and not s.bridge),
        key=lambda s: -density(at(s.line, s.line.length / 2))[0],
    )
    for s in order:
        middle = at(s.line, s.line.length / 2)
        d = density(middle)[0]
        industrial = works.contains(Point(middle)) and d < 0.75
        if d < 0.24 or (d < URBAN - 0.02 and settled(middle[None])[0] < (1.0 if not industrial else 0.2)):
            continue
        for side in (1, -1):
            _line_street(builder, s, side, d, industrial, rng)
    return builder.buildings


def _line_street(builder: Builder, s: Street, side: int, d: float, industrial: bool, rng: np.random.Generator) -> None:
    along = HALF_WIDTH[s.kind] + rng.uniform(2, 6)
    while along < s.line.length - 12:
        if industrial:
            front, depth, back, space = rng.uniform(38, 75), rng.uniform(24, 42), 8.0, rng.uniform(10, 30)
        elif d > URBAN - 0.02:
            front, depth, back, space = rng.uniform(38, 68), rng.uniform(12, 17), 2.5, rng.choice([1.2, 1.2, 12.0])
            if d < 0.8:
                front, space = rng.uniform(30, 52), rng.uniform(10, 38)
        else:
            front, depth, back, space = rng.uniform(11, 19), rng.uniform(9, 13), rng.uniform(5, 9), rng.uniform(12, 34)
        front = min(front, s.line.length - along - 8)
        if front < 9:
            return
        a, b = at(s.line, along), at(s.line, along + front)
        u = (b - a) / max(np.hypot(*(b - a)), 1e-9)
        n = side * np.array([-u[1], u[0]])
        wing = rng.uniform(7, 15) if rng.random() < 0.14 else 0.0
        office = office_share(a)
        if industrial:
            use, levels = "industrial", int(rng.integers(1, 4))
        elif d > URBAN - 0.02:
            use = "office" if rng.random() < 0.08 + 0.55 * office else "residential"
            levels = int(np.clip(rng.normal(3.4 + 2.6 * min(d, 1.0), 1.1), 2, 9))
            if use == "office" and rng.random() < 0.16 * office:
                levels, wing, depth = int(rng.integers(13, 29)), 0.0, min(front, 30.0)
        else:
            use, levels = "residential", int(rng.choice([1, 2, 2, 2, 3]))
            if rng.random() < 0.02:
                levels, front, depth = int(rng.integers(6, 11)), min(front, 26.0), 14.0
        height = round(
            levels * (3.0 if use == "residential" else 3.7 if use == "office" else 5.0) + rng.uniform(0.5, 2.5), 1
        )
        lot = _lot(a, u, n, front, depth, HALF_WIDTH[s.kind] + back, wing)
        if not builder.add(Building(lot, height, levels, use)) and wing:
            builder.add(Building(_lot(a, u, n, front, depth, HALF_WIDTH[s.kind] + back, 0.0), height, levels, use))
        along += front + space
