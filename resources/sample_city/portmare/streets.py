"""The street network: main roads drawn by hand, local streets traced along a direction field, one connected graph.

Local streets follow Chen et al., Interactive procedural street modeling (2008): a field of two crossing directions
(along and across the coast, the river, rings and local grids) is traced with evenly spaced streamlines (Jobard and
Lefer 1997), denser in the centre. All lines are then noded, dead ends and slivers removed, and the largest connected
part kept.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from math import atan2, cos, pi, sin

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from shapely.geometry import LineString, MultiPoint, Point
from shapely.ops import unary_union
from shapely.prepared import prep

from .names import street_names
from .shapes import Index, Raster, at, generator, smooth_noise, spline
from .terrain import BUMPS, HEIGHT, SUBURBAN, WIDTH, Terrain, density

SPEED = {"motorway": 100, "primary": 60, "secondary": 50, "residential": 30}
RANK = {name: rank for rank, name in enumerate(SPEED)}

# (class, name, points). A motorway becomes two one-way carriageways, joined at both ends.
MAIN_ROADS = [
    ("motorway", "A1 Bay Motorway", [
        (520, 8350), (2600, 8300), (5000, 9300), (7000, 11050), (9300, 12700), (11700, 13350), (14300, 13200),
        (16900, 12000), (18600, 10400), (20300, 9300), (23150, 9000)]),
    ("motorway", "A2 North Motorway", [(13080, 13330), (13600, 14400), (14100, 15600), (14300, 17250)]),
    ("primary", "Coast Road West", [
        (750, 5900), (2500, 6000), (4600, 6050), (6500, 6350), (8300, 6800), (9500, 7260), (10500, 7420),
        (11550, 7560), (12500, 7640)]),
    ("primary", "Bay Parade", [
        (12500, 7640), (13500, 7480), (14800, 7260), (15900, 6900), (17000, 6500), (18700, 6600), (20700, 6700),
        (23000, 6600)]),
    ("primary", "Kingsweir Avenue", [
        (11660, 7570), (11600, 8300), (11420, 9300), (10900, 10700), (10100, 12100), (9200, 13700), (8500, 15300),
        (8100, 16850)]),
    ("primary", "Exchange Avenue", [
        (13150, 7540), (13350, 8450), (13900, 9300), (15100, 10300), (17100, 11400), (19100, 12700), (21300, 13800),
        (22850, 14600)]),
    ("primary", "Stonecross Road", [
        (13350, 8450), (13250, 9700), (13650, 11300), (14600, 12700), (15800, 14300), (16500, 15600), (17000, 17100)]),
    ("primary", "Market Street", [(11600, 8300), (12650, 8420), (13350, 8450)]),
    ("primary", "Saltgate", [
        (11600, 8300), (10500, 8420), (9000, 8850), (7000, 9050), (5100, 9300), (3000, 9500), (400, 9700)]),
    ("primary", "Lake Road", [
        (10500, 8420), (9700, 9500), (8700, 10700), (7600, 12000), (6400, 13500), (4800, 14900), (2700, 16650)]),
    ("primary", "Inner Ring", [
        (10000, 7340), (9900, 8000), (10080, 8950), (10500, 9650), (11200, 10100), (12150, 10230), (13240, 9950),
        (14350, 9700), (14950, 9000), (15050, 8100), (14800, 7260)]),
    ("secondary", "Outer Ring", [
        (8300, 6800), (7800, 8000), (8100, 9200), (8760, 10650), (9700, 11500), (10480, 11550), (11900, 11650),
        (13700, 11400), (15000, 11300), (15900, 10700), (16700, 9300), (17100, 7900), (17000, 6500)]),
    ("secondary", "Orchard Road", [
        (13930, 9310), (15000, 9300), (16700, 9300), (18600, 8800), (20700, 8000), (23150, 8050)]),
    ("secondary", "St Clement Road", [(13350, 8450), (14300, 8420), (15020, 8400), (17000, 8300), (18500, 7700),
        (18700, 6600)]),
    ("secondary", "Cape Road", [(6500, 6350), (6800, 5500), (7400, 4700), (7550, 3800)]),
    ("secondary", "Alder Lane", [(7400, 4700), (8300, 5400), (8600, 6100), (8800, 7000)]),
    ("secondary", "Eastpoint Road", [(18700, 6600), (18300, 5700), (17900, 4900), (17900, 4450)]),
    ("secondary", "Causeway", [
        (15300, 7090), (15250, 6750), (14750, 6100), (14000, 5150), (13300, 4850), (12750, 4750)]),
    ("secondary", "Sandhaven Road", [(4600, 6050), (4700, 7300), (4900, 8400), (5100, 9300), (5900, 10800),
        (6600, 12000), (6850, 12950)]),
    ("secondary", "Marram Road", [(1700, 5960), (1600, 7400), (1750, 8300), (1900, 9590)]),
    ("secondary", "Heron Road", [
        (3000, 9500), (2600, 10600), (2500, 12000), (3000, 13300), (4100, 14200), (6600, 14750), (8500, 15300)]),
    ("secondary", "Fen Road", [(2500, 12000), (700, 12400)]),
    ("secondary", "Weirbridge Road", [
        (8500, 15300), (9700, 15400), (11200, 15700), (12300, 15900), (13850, 15400), (16000, 14700), (18000, 14600),
        (20100, 13200), (20500, 12000), (20300, 10600), (20700, 9200), (20700, 8000), (21100, 7300), (20700, 6700)]),
    ("secondary", "Fenwick Road", [(12300, 15900), (12350, 17250)]),
    ("secondary", "Lowmoor Road", [(20300, 10600), (21800, 10800), (23300, 11300)]),
    ("secondary", "Long Acre Road", [(17100, 11400), (17500, 13000), (18000, 14600), (18700, 16800)]),
    ("secondary", "Oakbarrow Road", [(6600, 14750), (6300, 15700), (5600, 17050)]),
    ("secondary", "Mill Road", [(6950, 9050), (6700, 8000), (6500, 6350)]),
]  # fmt: skip


# Parks and squares that no local street enters: x, y, radius [m]. Landmarks stand on the small ones.
PARKS = [
    (10750, 9150, 170), (14050, 8250, 190), (12950, 10900, 330), (9050, 8200, 260), (15700, 8700, 260),
    (11260, 8660, 100), (11760, 9600, 110), (13220, 7360, 110), (13640, 8760, 60),
]  # fmt: skip


@dataclass
class Street:
    """One street between two junctions.

    Attributes
    ----------
    points : numpy.ndarray (n, 2)
        Its line [m].
    kind : str
        "motorway", "primary", "secondary" or "residential".
    name : str
    oneway : int
        1 if traffic runs only in the direction of the line.
    bridge : int
        1 if it crosses water.
    """

    points: np.ndarray
    kind: str
    name: str
    oneway: int = 0
    bridge: int = 0
    _line: LineString = field(default=None, repr=False)

    @property
    def line(self) -> LineString:
        """The street as a shapely line."""
        if self._line is None:
            self._line = LineString(self.points)
        return self._line

    @property
    def ends(self) -> tuple[tuple, tuple]:
        """Its two junctions."""
        return tuple(self.points[0]), tuple(self.points[-1])


class DirectionField:
    """Which way streets run: a smooth field of crosses (angles modulo 90 degrees)."""

    def __init__(self, terrain: Terrain, roads: list[Street], rng: np.random.Generator) -> None:
        guides = [(r.points, 350.0, 1.2 if r.kind == "primary" else 0.8) for r in roads if r.kind != "motorway"]
        guides += [(np.array(part.exterior.coords), 300.0, 1.5) for part in terrain.land.geoms]
        wander = smooth_noise(rng, 9000)
        grids = [(x, y, 0.8 * r, 4 * rng.uniform(0, np.pi / 2)) for x, y, _, r in BUMPS if r < 3000]
        sampled = {}

        def field_at(p: np.ndarray) -> np.ndarray:
            angle = 4 * (np.pi / 4 + 0.55 * wander(p))
            total = 0.35 * np.exp(1j * angle)
            for x, y, r, turn in grids:
                total += 0.9 * np.exp(-((p[:, 0] - x) ** 2 + (p[:, 1] - y) ** 2) / r**2) * np.exp(1j * turn)
            for points, reach, weight in guides:
                line = LineString(points)
                q = np.array([at(line, d) for d in np.arange(0, line.length, 60.0)])
                if len(q) < 3:
                    continue
                t = np.gradient(q, axis=0)
                distance, i = cKDTree(q).query(p, distance_upper_bound=3 * reach)
                near = np.isfinite(distance)
                w = weight * np.exp(-((distance[near] / reach) ** 2))
                total[near] += w * np.exp(4j * np.arctan2(t[:, 1], t[:, 0])[i[near]])
            return total / np.maximum(np.abs(total), 1e-9)

        def part(p: np.ndarray, name: str) -> np.ndarray:
            if not sampled:
                total = field_at(p)
                sampled.update(real=total.real, imag=total.imag)
            return sampled[name]

        self.c = Raster(lambda p: part(p, "real"), WIDTH, HEIGHT)
        self.s = Raster(lambda p: part(p, "imag"), WIDTH, HEIGHT)

    def __call__(self, p: np.ndarray, heading: np.ndarray) -> np.ndarray:
        """Return the unit direction at `p` (of the four the cross offers) closest to `heading`."""
        a = atan2(self.s(p), self.c(p)) / 4
        a += pi / 2 * round((atan2(heading[1], heading[0]) - a) / (pi / 2))
        return np.array([cos(a), sin(a)])


class Spacing:
    """Points of accepted streets with their directions, in square bins, to keep parallel streets apart."""

    def __init__(self, size: float = 120.0) -> None:
        self.size, self.bins = size, defaultdict(list)

    def add(self, points: np.ndarray) -> None:
        """Add a polyline, resampled to 15 m."""
        line = LineString(points)
        q = np.array([at(line, s) for s in np.arange(0, line.length + 1e-6, 15.0)])
        t = np.gradient(q, axis=0) if len(q) > 1 else np.zeros_like(q)
        t /= np.maximum(np.hypot(*t.T), 1e-9)[:, None]
        for a, b in zip(q, t):
            self.bins[int(a[0] // self.size), int(a[1] // self.size)].append((a[0], a[1], b[0], b[1]))

    def clear(self, p: np.ndarray, direction: np.ndarray, distance: float) -> bool:
        """Return whether no street within 40 degrees of `direction` comes closer to `p` than `distance`."""
        reach = int(np.ceil(distance / self.size))
        i, j = int(p[0] // self.size), int(p[1] // self.size)
        d2 = distance * distance
        px, py, ux, uy = p[0], p[1], direction[0], direction[1]
        for u in range(i - reach, i + reach + 1):
            for v in range(j - reach, j + reach + 1):
                for x, y, tx, ty in self.bins.get((u, v), ()):
                    if (x - px) ** 2 + (y - py) ** 2 < d2 and abs(tx * ux + ty * uy) > 0.766:
                        return False
        return True


DENSITY = Raster(density, WIDTH, HEIGHT)
SPACING = Raster(lambda p: np.interp(density(p), [0.2, 0.45, 0.62, 0.95], [200, 180, 125, 95]), WIDTH, HEIGHT)


def _main_roads() -> list[Street]:
    roads = []
    for kind, name, points in MAIN_ROADS:
        line = LineString(spline(points, 50)).simplify(1.5)
        if kind != "motorway":
            roads.append(Street(np.array(line.coords), kind, name))
            continue
        sides = [np.array(line.parallel_offset(13, side, join_style=2).coords) for side in ("right", "left")]
        right, left = sides
        start, end = np.array(line.coords)[[0, -1]]
        right = right if np.hypot(*(right[0] - start)) < np.hypot(*(right[-1] - start)) else right[::-1]
        left = left if np.hypot(*(left[0] - end)) < np.hypot(*(left[-1] - end)) else left[::-1]
        roads += [Street(right, kind, name, 1), Street(left, kind, name, 1)]
        for a, b in ((right[0], left[-1]), (right[-1], left[0])):
            roads.append(Street(np.array([a, b]), kind, name))
    for road in roads:  # ends that nearly meet another road do meet it
        others = [r.line for r in roads if r is not road and (road.kind == "motorway") == (r.kind == "motorway")]
        for flip in range(2 if road.kind != "motorway" else 0):
            end = Point(road.points[-1 if flip else 0])
            near = min(others, key=end.distance)
            gap = end.distance(near)
            if 0 < gap < 160:
                foot = at(near, near.project(end))
                beyond = foot + (foot - np.array(end.coords[0])) / gap * 2.0
                road.points = np.vstack([road.points, beyond] if flip else [beyond, road.points])
                road._line = None
    return roads


def _local_streets(terrain: Terrain, roads: list[Street], rng: np.random.Generator) -> list[np.ndarray]:
    directions = DirectionField(terrain, roads, rng)
    spacing = Spacing()
    for road in roads:
        spacing.add(road.points)
    motorway = unary_union([r.line for r in roads if r.kind == "motorway"]).buffer(70)
    parks = unary_union([Point(x, y).buffer(r) for x, y, r in PARKS])
    free = prep(terrain.land.buffer(-28).difference(unary_union([motorway, parks])))
    patchy = Raster(smooth_noise(rng, 2600), WIDTH, HEIGHT, 100.0)

    def allowed(p: np.ndarray) -> bool:
        d = DENSITY(p)
        return d > SUBURBAN + 0.02 and d + 0.07 * patchy(p) > 0.225 and free.contains(Point(p))

    queue = []
    for road in roads:
        if road.kind == "motorway":
            continue
        for s in np.arange(60, road.line.length, 90.0):
            a, b = at(road.line, s), at(road.line, s + 5)
            queue.append((a, b - a))
    queue.sort(key=lambda q: -round(float(DENSITY(q[0])), 1))
    streets, head = [], 0
    while head < len(queue):
        p, t = queue[head]
        head += 1
        size = np.hypot(*t)
        if size < 1e-6 or DENSITY(p) < SUBURBAN:
            continue
        t = t / size
        gap = SPACING(p)
        for side in (1, -1):
            # along the neighbour at one spacing, and across it
            n = np.array([-t[1], t[0]])
            for seed, way in ((p + side * gap * n, t), (p + side * t * gap * 0.5, n)):
                if not allowed(seed):
                    continue
                way = directions(seed, way)
                if not spacing.clear(seed, way, 0.9 * SPACING(seed)):
                    continue
                line = _trace(seed, way, directions, spacing, allowed)
                if len(line) < 2 or np.hypot(*np.diff(line, axis=0).T).sum() < 90:
                    continue
                spacing.add(line)
                streets.append(line)
                for k in range(2, len(line) - 1, 4):
                    queue.append((line[k], line[k + 1] - line[k]))
    return streets


def _trace(seed: np.ndarray, way: np.ndarray, directions: DirectionField, spacing: Spacing, allowed) -> np.ndarray:  # noqa: ANN001
    halves = []
    for sign in (1, -1):
        p, t, half = seed, sign * way, []
        for _ in range(110):  # 22 m steps: a local street ends after 2.4 km each way
            t = directions(p + 11 * directions(p, t), t)
            p = p + 22 * t
            if not allowed(p) or not spacing.clear(p, t, 0.62 * SPACING(p)):
                break
            half.append(p)
        halves.append(half)
    return np.array([*halves[1][::-1], seed, *halves[0]])


def _meet_neighbours(streets: list[np.ndarray], roads: list[Street], terrain: Terrain) -> list[np.ndarray]:
    """Extend each street's ends straight on until they meet another street, if one is near."""
    lines = [LineString(s) for s in streets] + [r.line for r in roads if r.kind != "motorway"]
    index = Index(lines)
    closed = prep(unary_union([terrain.water.buffer(12), *(r.line.buffer(25) for r in roads if r.kind == "motorway")]))
    out = []
    for k, points in enumerate(streets):
        for _ in range(2):
            points = points[::-1]
            end, t = points[-1], points[-1] - points[-2]
            t = t / np.hypot(*t)
            reach = 1.25 * SPACING(end)
            ray = LineString([end + 0.5 * t, end + reach * t])
            hits = []
            for j in index.near(ray):
                if j == k:
                    continue
                cut = lines[j].intersection(ray)
                if not cut.is_empty:
                    hits += [ray.project(Point(c)) for g in getattr(cut, "geoms", [cut]) for c in g.coords]
            if hits:
                stop = end + (min(hits) + 2.5) * t
                if not closed.intersects(LineString([end, stop])):
                    points = np.vstack([points, stop])
        out.append(points)
    return out


def _node(streets: list[Street]) -> list[Street]:
    """Split all streets where they meet, and carry their attributes over."""
    lines = [s.line for s in streets]
    index = Index(lines)
    pieces = []
    for piece in unary_union(lines).geoms:
        points = np.array(piece.coords)
        middle = Point((points[0] + points[1]) / 2)
        near = [streets[k] for k in index.near(middle.buffer(0.5)) if lines[k].distance(middle) < 0.05]
        if not near:
            continue
        near.sort(key=lambda s: (RANK[s.kind], s.name))
        source = near[0]
        if source.oneway:
            along = [source.line.project(Point(q)) for q in (points[0], points[-1])]
            points = points if along[0] < along[1] else points[::-1]
        pieces.append(Street(np.round(points, 1), source.kind, source.name, source.oneway))
    return pieces


def _merge_close_junctions(streets: list[Street], shortest: float) -> list[Street]:
    """Contract streets shorter than `shortest` into one junction, and drop what this makes double."""
    parent: dict[tuple, tuple] = {}
    importance: dict[tuple, int] = defaultdict(lambda: 9)

    def root(n: tuple) -> tuple:
        while parent.get(n, n) != n:
            n = parent[n]
        return n

    for s in streets:
        for end in s.ends:
            importance[end] = min(importance[end], RANK[s.kind])
    for s in sorted(streets, key=lambda s: s.line.length):
        if s.line.length < shortest and s.kind != "motorway":
            a, b = root(s.ends[0]), root(s.ends[1])
            if a != b and np.hypot(a[0] - b[0], a[1] - b[1]) < 1.6 * shortest:
                if (importance[a], a) > (importance[b], b):
                    a, b = b, a
                parent[b] = a
    out, seen = [], set()
    for s in sorted(streets, key=lambda s: (RANK[s.kind], s.line.length)):
        points = s.points.copy()
        points[0], points[-1] = root(s.ends[0]), root(s.ends[1])
        keep = np.ones(len(points), bool)
        keep[1:-1] = [min(np.hypot(*(q - points[0])), np.hypot(*(q - points[-1]))) > 4 for q in points[1:-1]]
        points = points[keep]
        a, b = sorted([tuple(points[0]), tuple(points[-1])])
        key = (a, b, round(LineString(points).length / 40)) if a != b else None
        if key is None or key in seen:
            continue
        seen.add(key)
        out.append(Street(points, s.kind, s.name, s.oneway))
    return out


def _degrees(streets: list[Street]) -> dict[tuple, list[int]]:
    at_node = defaultdict(list)
    for k, s in enumerate(streets):
        for end in s.ends:
            at_node[end].append(k)
    return at_node


def _prune(streets: list[Street], shortest: float) -> list[Street]:
    """Drop residential dead ends shorter than `shortest`, repeatedly."""
    for _ in range(4):
        at_node = _degrees(streets)
        keep = [
            s for s in streets
            if s.kind != "residential" or s.line.length > shortest or min(len(at_node[e]) for e in s.ends) > 1
        ]  # fmt: skip
        if len(keep) == len(streets):
            break
        streets = keep
    return streets


def _join_chains(streets: list[Street]) -> list[Street]:
    """Join two streets of the same name that meet where nothing else does."""
    streets = list(streets)
    at_node = _degrees(streets)
    alive = [True] * len(streets)
    for node in sorted(at_node):
        ks = at_node[node]
        if len(ks) != 2 or ks[0] == ks[1]:
            continue
        a, b = (streets[k] for k in ks)
        if (a.kind, a.name, a.oneway) != (b.kind, b.name, b.oneway):
            continue
        if a.oneway:
            if a.ends[1] != node:
                a, b = b, a
            if a.ends[1] != node or b.ends[0] != node:
                continue
            points = np.vstack([a.points, b.points[1:]])
        else:
            p = a.points if a.ends[1] == node else a.points[::-1]
            q = b.points if b.ends[0] == node else b.points[::-1]
            points = np.vstack([p, q[1:]])
        if tuple(points[0]) == tuple(points[-1]):
            continue
        i, j = ks
        streets[i], alive[j] = Street(points, a.kind, a.name, a.oneway), False
        for end in streets[i].ends:
            at_node[end] = [i if k == j else k for k in at_node[end]]
    return [s for s, ok in zip(streets, alive) if ok]


def components(streets: list[Street], strong: bool = False) -> np.ndarray:
    """Return the component number of each street; strong ones respect `oneway`."""
    index: dict[tuple, int] = {}
    rows, cols = [], []
    for s in streets:
        a, b = (index.setdefault(e, len(index)) for e in s.ends)
        rows.append(a)
        cols.append(b)
        if not s.oneway:
            rows.append(b)
            cols.append(a)
    graph = coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(len(index),) * 2)
    label = connected_components(graph, directed=True, connection="strong" if strong else "weak")[1]
    ends = np.array([[label[index[e]] for e in s.ends] for s in streets])
    return np.where(ends[:, 0] == ends[:, 1], ends[:, 0], -1)


def _largest(streets: list[Street]) -> list[Street]:
    label = components(streets)
    largest = np.bincount(label[label >= 0]).argmax()
    return [s for s, k in zip(streets, label) if k == largest]


def _one_ways(streets: list[Street], rng: np.random.Generator) -> None:
    """Make about a third of the centre's long residential streets one-way, as far as every place stays reachable."""
    by_name = defaultdict(list)
    for s in streets:
        if s.kind == "residential":
            by_name[s.name].append(s)
    for name in sorted(by_name):
        group = by_name[name]
        d = density(np.array([at(s.line, s.line.length / 2) for s in group])).mean()
        if d < 0.66 or len(group) < 3 or rng.random() > 0.45:
            continue
        axis = group[0].points[-1] - group[0].points[0]
        axis = axis * rng.choice([-1, 1])
        for s in group:
            if (s.points[-1] - s.points[0]) @ axis < 0:
                s.points, s._line = s.points[::-1], None
            s.oneway = 1
    for _ in range(6):
        label = components(streets, strong=True)
        largest = np.bincount(label[label >= 0]).argmax()
        stuck = {e for s, k in zip(streets, label) if k != largest for e in s.ends}
        if not any(s.oneway and k != largest for s, k in zip(streets, label)):
            return
        for s in streets:
            if s.kind == "residential" and stuck.intersection(s.ends):
                s.oneway = 0


def make_streets(terrain: Terrain, seed: int) -> list[Street]:
    """Draw the network.

    Parameters
    ----------
    terrain : Terrain
    seed : int

    Returns
    -------
    list of Street
        Noded: streets meet only at their ends. One connected component.
    """
    rng = generator(seed, "streets")
    roads = _main_roads()
    traced = _meet_neighbours(_local_streets(terrain, roads, rng), roads, terrain)
    streets = list(roads)
    names = street_names(rng)
    for points in traced:
        line = LineString(points).simplify(2.5)
        if line.length < 80:
            continue
        long = line.length > 1500 and rng.random() < 0.07
        streets.append(Street(np.array(line.coords), "secondary" if long else "residential", next(names)))
    streets = _prune(_node(streets), 45)
    streets = _merge_close_junctions(streets, 24)
    lonely = [s.kind != "residential" or rng.random() > 0.08 for s in streets]  # irregular blocks, T-junctions
    streets = _largest(_prune([s for s, ok in zip(streets, lonely) if ok], 110))
    streets = _join_chains(_largest(_prune(_node(streets), 60)))
    streets = [Street(np.round(np.array(s.line.simplify(1.0).coords), 1), s.kind, s.name, s.oneway) for s in streets]
    streets = _largest(_prune(_node(streets), 12))
    _one_ways(streets, rng)
    wet = prep(terrain.water.buffer(-0.5))
    for s in streets:
        s.bridge = int(wet.intersects(s.line))
    streets.sort(key=lambda s: (RANK[s.kind], s.name, *s.ends[0], *s.ends[1]))
    return streets


def junctions(streets: list[Street]) -> MultiPoint:
    """Return all places where streets end or meet."""
    return MultiPoint(sorted({e for s in streets for e in s.ends}))
