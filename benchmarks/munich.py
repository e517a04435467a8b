"""The scenes of the tracking benchmark: a network, trips and measurements over real footprints.

What a device hears comes from the dominant-path model with correlated shadowing and fast fluctuation; what it is compared with comes
from COST231-Walfisch-Ikegami. So table and truth disagree as they do in life. Everything is drawn from published seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from kit import NEEDS_DATA, SHARED_DATA, Skipped
from scipy import ndimage
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import dijkstra
from telcoloc.models.grid import Grid
from telcoloc.models.radio.buildings import Buildings, buildings_of_polygons
from telcoloc.models.radio.journeys import MOTIONS, Journey, Route, journey, travel
from telcoloc.models.radio.maps import RadioMapJob, radio_maps
from telcoloc.models.radio.shadowing import correlated_field
from telcoloc.models.radio.transmitters import Transmitters
from telcoloc.models.trajectory.measurements import Measurements, measurements

FOOTPRINTS = SHARED_DATA / "buildings"
#: Reported is Munich; options were chosen on San Francisco, so that nothing tuned has seen the city.
CITY, TUNING_CITY = "munich", "san_francisco"
#: The paper's experiments: name and duration [s], one measurement every 0.48 s (section 5).
TRIPS = (("a", 500.0), ("b", 300.0), ("c", 800.0), ("d", 600.0), ("e", 300.0))
INTERVAL_S = 0.48
#: San Francisco's layer has its terrain as one building; larger than this [m²] nothing is one.
MOST_AREA_M2 = 100_000.0
#: Seeds: of the network, of the radio field, of the trips, of what fluctuates on them.
NETWORK_SEED, FIELD_SEED, TRIP_SEED, FLUCTUATION_SEED = 1, 2, 100, 200
#: Sites with three sectors each on roofs; a GSM 1800 network with 6 best-serving cells in a report, as in the paper.
N_SITES, MAST_M, FREQ_MHZ, EIRP_DBM, TILT_DEG, BEAM_WIDTH_DEG = 10, 4.0, 1800.0, 50.0, 6.0, 65.0
HEARD, LEAST_DBM = 6, -110.0
#: Shadowing: TR 38.901 table 7.4.1-1 (UMi NLOS 7.8, UMa NLOS 6 dB) less what buildings explain, its correlation distance for UMi
#: (table 7.5-6: 13 m NLOS) to UMa (50 m); half of it common to all sites (TR 36.942 clause 4.3).
SHADOWING_DB, CORRELATION_M, SITE_CORRELATION = 6.0, 50.0, 0.5
#: Fast fluctuation: Rayleigh's 5.6 dB less what the receiver averages in a report; independent after half a second of driving.
FLUCTUATION_DB = 4.0
#: Cars keep this far from walls [m] where they can, travel at most so fast [km/h], and drive in streets of this width [m].
CLEARANCE_M, LIMIT_KMH, STREET_M = 12.0, 50.0, 10.0
ROUTE_CELL_M = 5.0
#: The footprints end somewhere; farther than this from any of them [m] is not the city any more.
MOST_OPEN_M = 45.0


@dataclass(frozen=True)
class Trip:
    """A drive and what was heard on it: positions (n, 2), times (n,), cells (n, 6) and RSS (n, 6)."""

    name: str
    time_s: np.ndarray
    xy_m: np.ndarray
    cell: np.ndarray
    rss_dbm: np.ndarray


def footprints(city: str = CITY) -> Buildings:
    """A city's buildings, in metres around its centre."""
    path = FOOTPRINTS / f"{city}_buildings.gpkg"
    if not path.exists():
        raise Skipped(NEEDS_DATA)
    import geopandas

    frame = geopandas.read_file(path)
    frame = frame[frame.area_m2 < MOST_AREA_M2]
    polygons, heights = [], []
    for shape, height in zip(frame.geometry, frame.height_m):
        for part in getattr(shape, "geoms", [shape]):
            polygons.append([np.array(ring.coords)[:-1, :2] for ring in (part.exterior, *part.interiors)])
            heights.append(height)
    return buildings_of_polygons(polygons, np.array(heights))


def city_grid(buildings: Buildings, cell_size_m: float, margin_m: float = 0.0) -> Grid:
    """The grid over all footprints."""
    low, high = buildings.xy_m.min(axis=0) - margin_m, buildings.xy_m.max(axis=0) + margin_m
    return Grid.covering((low[0], low[1], high[0], high[1]), cell_size_m)


def network(buildings: Buildings, seed: int = NETWORK_SEED) -> Transmitters:
    """Ten sites of three sectors on roofs, as far from one another as ten can be: the next always on the roof farthest from all others."""
    rng = np.random.default_rng(seed)
    ring_of = np.searchsorted(buildings.building, np.arange(len(buildings)))
    middle = np.array([buildings.xy_m[buildings.first[r] : buildings.first[r + 1]].mean(axis=0) for r in ring_of])
    high = np.flatnonzero((buildings.height_m >= 15) & (buildings.height_m <= 35) & buildings.inside(middle))
    inner = (np.abs(middle[high] - np.median(middle, axis=0)) < 0.42 * np.ptp(middle, axis=0)).all(axis=1)
    high = high[inner]
    chosen = [int(rng.choice(high))]
    while len(chosen) < N_SITES:
        away = np.hypot(*(middle[high, None] - middle[chosen]).transpose(2, 0, 1)).min(axis=1)
        chosen.append(int(high[away.argmax()]))
    turn = rng.uniform(0, 120, N_SITES)
    azimuth = (turn[:, None] + [0, 120, 240]).ravel() % 360
    site = np.repeat(np.arange(N_SITES), 3)
    every = np.ones(len(site))
    return Transmitters(
        tuple(f"M{s + 1:02d}{'abc'[k % 3]}" for k, s in enumerate(site)),
        middle[chosen][site],
        buildings.height_m[chosen][site] + MAST_M,
        azimuth,
        TILT_DEG * every,
        BEAM_WIDTH_DEG * every,
        FREQ_MHZ * every,
        EIRP_DBM * every,
    )


class Roads:
    """Where cars drive: ways that keep to the middle between walls, on a grid of free cells."""

    def __init__(self, buildings: Buildings) -> None:
        self.grid = city_grid(buildings, ROUTE_CELL_M, -10.0)
        fine = city_grid(buildings, 1.0, -10.0)
        clear_fine = ndimage.distance_transform_edt(buildings.heights_on(fine) == 0)
        clear_fine[clear_fine > MOST_OPEN_M] = 0.0  # beyond the last houses there is no city
        at = fine.cells_of(self.grid.centres(np.arange(self.grid.size)))
        clear = np.where(at >= 0, clear_fine.ravel()[np.maximum(at, 0)], 0.0).reshape(self.grid.shape)
        self.clear_m = np.minimum(clear, CLEARANCE_M)
        free = clear >= 2.5
        self.free = _largest(free)  # where one can be; courtyards that no way leads to are left out
        self.drivable = _largest(self.free & (clear >= STREET_M / 2))
        # Goals: where it is locally widest, thus in streets and squares and not along walls.
        widest = clear == ndimage.maximum_filter(clear, 5)
        self.goals = np.flatnonzero((self.drivable & widest).ravel())
        self.graph = self._graph()

    def _graph(self) -> csr_matrix:
        h, w = self.grid.shape
        cell = np.arange(self.grid.size).reshape(h, w)
        rows, columns, costs = [], [], []
        slow = 1 + 8 * (1 - self.clear_m / CLEARANCE_M) ** 2  # near walls a metre counts for up to nine
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
            a = (slice(0, h - dy), slice(max(0, -dx), w - max(0, dx)))
            b = (slice(dy, h), slice(max(0, dx), w + min(0, dx)))
            both = self.drivable[a] & self.drivable[b]
            if dx and dy:  # not through the gap between two houses that touch at a corner
                both &= self.drivable[a[0], b[1]] & self.drivable[b[0], a[1]]
            rows.append(cell[a][both])
            columns.append(cell[b][both])
            costs.append((np.hypot(dx, dy) * ROUTE_CELL_M * (slow[a] + slow[b]) / 2)[both])
        shape = (self.grid.size, self.grid.size)
        half = coo_matrix((np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))), shape=shape)
        return (half + half.T).tocsr()

    def drive(self, duration_s: float, seed: int) -> Journey:
        """A drive through random goals that takes `duration_s`."""
        rng = np.random.default_rng(seed)
        at = int(rng.choice(self.goals))
        cells = [at]
        while True:
            away = np.hypot(*(self.grid.centres(self.goals) - self.grid.centres(np.array([at]))).T)
            goal = int(rng.choice(self.goals[(away > 250) & (away < 700)]))
            _, before = dijkstra(self.graph, indices=at, return_predecessors=True)
            if before[goal] < 0:
                continue
            leg = [goal]
            while leg[-1] != at:
                leg.append(int(before[leg[-1]]))
            cells += leg[-2::-1]
            at = goal
            xy = self.grid.centres(np.array(cells))
            smooth = np.column_stack([ndimage.gaussian_filter1d(xy[:, axis], 2.0, mode="nearest") for axis in (0, 1)])
            route = Route(smooth, np.full(len(smooth) - 1, LIMIT_KMH / 3.6), np.arange(len(smooth)) % 20 == 0)
            table = travel(route, MOTIONS["car"], np.random.default_rng([seed, 1]))
            if table.time_s[-1] > duration_s:
                whole = journey(table, 0.0, INTERVAL_S, 0.0, rng)
                kept = whole.time_s <= duration_s
                return Journey(whole.time_s[kept], whole.xy_m[kept])


def _largest(free: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask."""
    label, _ = ndimage.label(free)
    return np.asarray(label == np.bincount(label[label > 0]).argmax())


class RadioTruth:
    """What is really received: the dominant path, shadowing of the place, and what fluctuates with the moment."""

    def __init__(self, buildings: Buildings, transmitters: Transmitters) -> None:
        self.transmitters = transmitters
        self.site = np.arange(len(transmitters)) // 3
        grid = city_grid(buildings, ROUTE_CELL_M)
        job = RadioMapJob(transmitters, grid, "dominantpath", buildings=buildings, threads=2)
        self.maps = radio_maps(job)
        rng = np.random.default_rng(FIELD_SEED)
        common = correlated_field(grid.shape, ROUTE_CELL_M, CORRELATION_M, rng)
        own = [correlated_field(grid.shape, ROUTE_CELL_M, CORRELATION_M, rng) for _ in range(N_SITES)]
        share = np.sqrt(SITE_CORRELATION), np.sqrt(1 - SITE_CORRELATION)
        fields = np.stack([SHADOWING_DB * (share[0] * common + share[1] * one) for one in own])
        self.mean_dbm = self.maps.rss_dbm + fields[self.site]  # (n, height, width), NaN inside buildings

    def at(self, xy_m: np.ndarray) -> np.ndarray:
        """Local mean power [dBm] at positions (n, 2), shape (n, n_transmitters)."""
        cell = self.maps.grid.cells_of(xy_m)
        return np.asarray(self.mean_dbm.reshape(len(self.transmitters), -1)[:, cell].T, dtype=float)

    def drive(self, name: str, drive: Journey, seed: int) -> Trip:
        """What is heard on a drive: the six strongest cells, in whole dBm."""
        rng = np.random.default_rng(seed)
        power = self.at(drive.xy_m) + FLUCTUATION_DB * rng.standard_normal((len(drive.time_s), len(self.transmitters)))
        power[~(power >= LEAST_DBM)] = -np.inf
        order = np.argsort(-power, axis=1)[:, :HEARD]
        rss = np.take_along_axis(power, order, axis=1)
        return Trip(
            name,
            drive.time_s,
            drive.xy_m,
            np.where(np.isfinite(rss), order, -1),
            np.where(np.isfinite(rss), np.round(rss), np.nan),
        )


def reports(trips: list[Trip], transmitters: Transmitters) -> Measurements:
    """Trips as measurements; a trip is a device's."""
    names = np.array([*transmitters.ids, ""])
    return measurements(
        np.concatenate([np.full(len(trip.time_s), trip.name) for trip in trips]),
        np.concatenate([trip.time_s for trip in trips]),
        names[np.concatenate([trip.cell for trip in trips])],
        np.concatenate([trip.rss_dbm for trip in trips]),
    )
