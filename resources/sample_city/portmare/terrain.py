"""Land and water, how dense the city is where, and its districts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import Voronoi
from shapely.geometry import LineString, MultiPolygon, Point, Polygon
from shapely.ops import polygonize, unary_union
from shapely.prepared import prep

from .shapes import blob, box, fractal, generator, parts, rounded, smooth_noise, spline

WIDTH, HEIGHT = 24000.0, 18000.0
FRAME = Polygon([(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)])

COAST = [
    (-400, 5300), (1500, 4800), (3600, 5250), (5300, 4900), (6500, 3900), (7500, 3300), (8500, 3900), (8950, 5200),
    (9500, 6250), (10600, 6850), (11800, 7200), (12500, 7300), (13400, 7100), (14700, 6850), (15700, 6300),
    (16400, 5200), (17200, 4300), (18300, 4050), (19200, 4900), (20800, 5350), (22400, 4900), (24400, 5700),
]  # fmt: skip
RIVER = [
    (10200, 18400), (10600, 16500), (9900, 14900), (10900, 13500), (12300, 12300), (11800, 10900), (12100, 9900),
    (12750, 8900), (12480, 8000), (12500, 6700),
]  # fmt: skip
OUTLINE = [
    (500, -400), (700, 6000), (350, 9500), (900, 13000), (1700, 16300), (5000, 17400), (9000, 16900), (13000, 17500),
    (17500, 17300), (21000, 16500), (23100, 14300), (23500, 10500), (23100, 7000), (23500, -400),
]  # fmt: skip

# (x, y, peak, radius): the density is the sum of these bumps, about 1 in the centre. Peaks of 0.3 are villages.
BUMPS = [
    (11700, 8450, 0.62, 1900), (13900, 8600, 0.42, 1300), (12100, 9200, 0.40, 4000), (7900, 8300, 0.16, 1700),
    (9600, 11300, 0.16, 1400), (16700, 9200, 0.22, 1700), (14400, 11700, 0.15, 1300), (18000, 7000, 0.30, 1500),
    (4700, 7000, 0.32, 1100), (21000, 7300, 0.32, 950), (6500, 14600, 0.30, 900), (16300, 14900, 0.34, 900),
    (20300, 12900, 0.32, 850), (2900, 9800, 0.30, 800), (7450, 4600, 0.30, 800), (13300, 4700, 0.30, 1000),
    (12300, 15800, 0.31, 750),
]  # fmt: skip
URBAN, SUBURBAN = 0.60, 0.20  # densities from which a place counts as urban and as suburban

DISTRICTS = [
    ("Old Town", 11700, 7900), ("Fishmarket", 10750, 7500), ("Harbour", 9800, 7100), ("Cathedral", 11250, 8650),
    ("Saltgate", 10150, 8350), ("University", 11550, 9450), ("Northgate", 10250, 9650), ("Eastbank", 13250, 7950),
    ("Exchange", 13650, 8750), ("Sands", 14800, 7700), ("St Clement", 14950, 8900), ("Millfield", 13100, 10000),
    ("Westerly", 8500, 8300), ("Ropewalk", 8700, 9700), ("Foundry", 9500, 11200), ("Hillcrest", 14700, 10300),
    ("Orchards", 16600, 9500), ("Bayview", 16500, 7600), ("Ferrymead", 14300, 12000), ("Kingsweir", 11000, 11200),
    ("Cape Alder", 7400, 4700), ("Windmill Hill", 6800, 7200), ("Sandhaven", 4400, 7000), ("Marram", 1900, 6900),
    ("Lakeside", 6100, 10900), ("Heronmere", 3000, 10800), ("Oakbarrow", 6600, 14800), ("Upper Fen", 3000, 14200),
    ("Riverhead", 8300, 13100), ("Weirbridge", 12300, 15300), ("Stonecross", 16400, 14800), ("Long Acre", 17600, 12000),
    ("Vineyards", 20600, 13300), ("Lowmoor", 20700, 10000), ("Eastpoint", 18300, 5900), ("Tern Bay", 21300, 6700),
    ("Gull Island", 13300, 4700),
]  # fmt: skip


@dataclass(frozen=True)
class Terrain:
    """The lie of the land.

    Attributes
    ----------
    land : MultiPolygon
        The municipality's dry land; lakes are holes, the river separates its parts.
    sea, river, lake : Polygon or MultiPolygon
        Water inside the frame; they do not overlap.
    zones : list of (name, geometry)
        Districts that tile `land` exactly.
    """

    land: MultiPolygon
    sea: MultiPolygon
    river: MultiPolygon
    lake: Polygon
    zones: list

    @property
    def water(self) -> MultiPolygon:
        """All water as one geometry."""
        return unary_union([self.sea, self.river, self.lake])


def density(points: np.ndarray) -> np.ndarray:
    """Return how dense the city is at points (n, 2): about 1 in the centre, 0 far out."""
    p = np.atleast_2d(np.asarray(points, float))
    return sum(a * np.exp(-((p[:, 0] - x) ** 2 + (p[:, 1] - y) ** 2) / r**2) for x, y, a, r in BUMPS)


def urbanisation(points: np.ndarray) -> np.ndarray:
    """Return "urban", "suburban" or "rural" for points (n, 2)."""
    return np.array(["rural", "suburban", "urban"])[np.digitize(density(points), [SUBURBAN, URBAN])]


def make_terrain(seed: int) -> Terrain:
    """Draw coast, river, lake, island and harbour, and tile the land with districts."""
    rng = generator(seed, "terrain")
    coast = fractal(spline(COAST, 700), rng, 0.10, 70)
    sea = Polygon([*coast, (WIDTH + 500, -500), (-500, -500)]).buffer(0)
    middle = LineString(spline(RIVER, 120))
    river = []
    for k in range(40):  # 45 m wide where it enters, 170 m at the mouth
        a, b = middle.length * k / 40, middle.length * (k + 1) / 40
        piece = LineString([middle.interpolate(d) for d in np.linspace(a, b, 8)])
        river.append(piece.buffer(22 + 63 * (k / 39) ** 1.5))
    river = unary_union(river).simplify(4)
    lake = blob((4350, 12050), (1050, 520), 25, rng)
    island = blob((13300, 4700), (1050, 640), -12, rng)

    basins = [box((10030, 6690), 420, 90, 118), box((10330, 6830), 420, 90, 118), box((10640, 6960), 360, 80, 116)]
    moles = [
        LineString([(8900, 6080), (9700, 5700), (10350, 5760), (10900, 6000)]).buffer(16, cap_style=2, join_style=2),
        LineString([(11480, 7250), (11500, 6700), (11280, 6360)]).buffer(16, cap_style=2, join_style=2),
        LineString([(15500, 6550), (15250, 6250), (15350, 5900)]).buffer(13, cap_style=2, join_style=2),
    ]
    sea = sea.difference(unary_union([island, *moles])).union(unary_union(basins)).intersection(FRAME)
    sea = MultiPolygon([p for p in parts(sea.buffer(0)) if p.area > 20000])
    river = river.difference(sea).intersection(FRAME)
    river = MultiPolygon([p for p in parts(river) if p.area > 20000])

    outline = Polygon(fractal(OUTLINE, rng, 0.07, 300)).buffer(0).intersection(FRAME)
    land = outline.difference(unary_union([sea, river, lake]))
    land = [p for p in parts(land) if p.area > 30000]
    zones = _zones(land, rng)
    land = unary_union([z for _, z in zones])
    land = land if isinstance(land, MultiPolygon) else MultiPolygon([land])
    water, taken = [], land
    for body in (sea, river, lake):  # up to the simplified shore, without a gap
        wet = body.buffer(2, join_style=2).intersection(FRAME).difference(taken)
        water.append(MultiPolygon([p for p in parts(wet) if p.area > 500]))
        taken = unary_union([taken, wet])
    return Terrain(land, *water, zones)


def _zones(pieces: list, rng: np.random.Generator) -> list:
    """Tile each piece of land with the Voronoi cells of its own districts, wobbly edges, and round to 0.1 m.

    Rounding comes after noding and before polygonising, so neighbours share every vertex and leave no gap.
    """
    zones: dict[str, list] = {}
    for piece in sorted(pieces, key=lambda p: -p.area):
        piece = Polygon(piece.exterior, [h for h in piece.interiors if Polygon(h).area > 1000]).simplify(1.5)
        inside = [(name, x, y) for name, x, y in DISTRICTS if piece.distance(Point(x, y)) < 1]
        if not inside:
            continue
        seeds = np.array([(x, y) for _, x, y in inside])
        faces = [piece]
        if len(inside) > 1:
            mirrored = [seeds * (sx, sy) + (ox, oy) for sx, sy, ox, oy in
                        ((-1, 1, -8000, 0), (-1, 1, 56000, 0), (1, -1, 0, -8000), (1, -1, 0, 44000))]  # fmt: skip
            cells = Voronoi(np.vstack([seeds, *mirrored]))
            edges = []
            for (i, j), (a, b) in zip(cells.ridge_points, cells.ridge_vertices):
                if min(a, b) >= 0 and min(i, j) < len(seeds):
                    edges.append(LineString(fractal(cells.vertices[[a, b]], rng, 0.06, 250)))
            rings = [LineString(r.coords) for r in (piece.exterior, *piece.interiors)]
            cover = prep(piece.buffer(1e-6))
            noded = unary_union(rings + edges)
            lines = [line for line in noded.geoms if cover.contains(line)]
            faces = list(polygonize(unary_union([rounded(line) for line in lines])))
            probe = prep(piece)
            faces = [f for f in faces if probe.contains(f.representative_point())]
        else:
            faces = [rounded(piece)]
        _assign(faces, inside, zones)
    order = [name for name, *_ in DISTRICTS]
    return [(name, unary_union(zones[name])) for name in order if name in zones]


def _assign(faces: list, inside: list, zones: dict) -> None:
    """Give each face to the district whose seed it holds, left-over bits to the neighbour with the longest border."""
    rest = []
    for face in faces:
        owner = [name for name, x, y in inside if face.distance(Point(x, y)) < 1]
        if owner:
            for name in owner[:1]:
                zones.setdefault(name, []).append(face)
        else:
            rest.append(face)
    for face in sorted(rest, key=lambda f: -f.area):
        candidates = [name for name, *_ in inside if name in zones]
        border = {name: unary_union(zones[name]).intersection(face).length for name in candidates}
        zones[max(candidates, key=lambda name: border[name])].append(face)


def populate(terrain: Terrain, seed: int) -> list[int]:
    """Return each district's population: density times area, some districts fuller than others."""
    rng = generator(seed, "population")
    noise = smooth_noise(rng, 3000)
    people = []
    for _, zone in terrain.zones:
        x0, y0, x1, y1 = zone.bounds
        p = rng.uniform((x0, y0), (x1, y1), (900, 2))
        inside = prep(zone)
        p = np.array([q for q in p if inside.contains(Point(q))])
        per_km2 = 40 + 9500 * density(p) ** 1.35 * np.exp(0.15 * noise(p))
        people.append(int(per_km2.mean() * zone.area / 1e6))
    return people
