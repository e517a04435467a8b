"""What lies between an antenna and many places: line of sight, roofs, building rows and the street, from the footprints.

Straight rays leave the antenna; where they cross walls is computed exactly and sorted once, and what is asked for at a place is a sum,
a count or a maximum over the crossings before it. A list of places gets a ray each; a map gets rays so dense that none passes a
cell's centre farther off than half of `resolution_m`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .buildings import Buildings


class Paths(NamedTuple):
    """The paths from one antenna to m places; all shape (m,).

    Parameters
    ----------
    sight
        Whether the straight line from antenna to device passes above or beside all buildings.
    rows
        Number of building rows crossed; buildings nearer to one another than `least_gap_m` are one row.
    roof_m
        Mean height of the roofs along the path, weighted by the length crossed [m]; NaN where none is crossed.
    gap_m
        Distance along the path from the wall it leaves last to the first wall behind the place [m]; inf where there is none, or
        nothing is crossed.
    facade_sine
        Sine of the angle between the path and the wall it leaves last; 1 where nothing is crossed.
    """

    sight: np.ndarray
    rows: np.ndarray
    roof_m: np.ndarray
    gap_m: np.ndarray
    facade_sine: np.ndarray


@dataclass(frozen=True)
class Walls:
    """All walls of the buildings.

    Parameters
    ----------
    start_m, end_m
        Ends [m], the building to the left, shape (w, 2).
    building
        Whose wall it is, shape (w,).
    roof_m
        Height of that building [m], shape (w,).
    """

    start_m: np.ndarray
    end_m: np.ndarray
    building: np.ndarray
    roof_m: np.ndarray

    @classmethod
    def of(cls, buildings: Buildings) -> Walls:
        """Return the walls of some buildings."""
        start, end = buildings.walls_m
        building = buildings.building_of_vertex
        return cls(start, end, building, buildings.height_m[building])

    def without(self, buildings: np.ndarray) -> Walls:
        """Return the walls of all buildings but some."""
        if not len(buildings):
            return self
        kept = ~np.isin(self.building, buildings)
        return Walls(self.start_m[kept], self.end_m[kept], self.building[kept], self.roof_m[kept])


class Crossings(NamedTuple):
    """Where rays cross walls, ray by ray and outwards.

    Parameters
    ----------
    ray, distance_m, wall
        Ray, distance from the antenna [m] and wall of each crossing, shape (c,).
    into
        1 where the ray enters a building, −1 where it leaves one, shape (c,).
    first
        First crossing of each ray, and c, shape (n_rays + 1,).
    """

    ray: np.ndarray
    distance_m: np.ndarray
    wall: np.ndarray
    into: np.ndarray
    first: np.ndarray


def trace(
    walls: Walls,
    antenna_m: np.ndarray,
    height_m: float,
    places_m: np.ndarray,
    device_height_m: float,
    resolution_m: float,
    least_gap_m: float,
    tower_m: float = np.inf,
) -> Paths:
    """Return what lies between an antenna and places outside buildings.

    Parameters
    ----------
    walls
        Walls of the buildings that count as obstacles.
    antenna_m, height_m
        Position (x, y) and height of the antenna [m].
    places_m
        Positions of the devices [m], shape (m, 2).
    device_height_m
        Height of the devices [m].
    resolution_m
        How far apart rays may be at the farthest place [m].
    least_gap_m
        Buildings nearer than this are one row [m].
    tower_m
        A roof counts for the mean height with at most this [m].
    """
    angles, ray, distance = rays_towards(antenna_m, places_m, resolution_m)
    crossings = cross_walls(walls, antenna_m, angles)
    slope = np.arctan2(device_height_m - height_m, distance)
    return _along(crossings, walls, height_m, angles, ray, distance, slope, least_gap_m, tower_m)


def rays_towards(
    antenna_m: np.ndarray, places_m: np.ndarray, resolution_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rays that serve places: their rising angles [rad], shape (n_rays,), and ray and distance [m] of each place."""
    east, north = places_m[:, 0] - antenna_m[0], places_m[:, 1] - antenna_m[1]
    distance = np.hypot(east, north)
    angle = np.arctan2(north, east)
    n_even = int(np.ceil(2 * np.pi * distance.max(initial=0.0) / resolution_m)) + 1
    if len(angle) <= n_even:
        order = np.argsort(angle)
        angles, ray = angle[order], np.empty(len(order), np.int64)
        ray[order] = np.arange(len(order))
    else:
        angles = -np.pi + 2 * np.pi / n_even * np.arange(n_even)
        ray = np.rint((angle + np.pi) * (n_even / (2 * np.pi))).astype(np.int64) % n_even
    return angles, ray, distance


def cross_walls(walls: Walls, antenna_m: np.ndarray, angles: np.ndarray) -> Crossings:
    """Cross every wall with the rays it spans; `angles` rises within [−π, π].

    A wall takes the rays in [least, largest) of its ends' angles, so neighbouring walls share none and leave none out.
    """
    n_rays = len(angles)
    start, end = walls.start_m - antenna_m, walls.end_m - antenna_m
    from_angle, to_angle = np.arctan2(start[:, 1], start[:, 0]), np.arctan2(end[:, 1], end[:, 0])
    least, largest = np.minimum(from_angle, to_angle), np.maximum(from_angle, to_angle)
    behind = largest - least > np.pi  # the wall crosses the direction ±π
    low, high = np.searchsorted(angles, least), np.searchsorted(angles, largest)
    first = np.where(behind, high, low)
    count = np.where(behind, n_rays - high + low, high - low)
    # Seen from the antenna, walls that run anticlockwise have the building on this side: the ray leaves it there.
    into = np.where((to_angle > from_angle) ^ behind, -1, 1)
    wall = np.repeat(np.arange(len(count)), count)
    ray = (np.arange(len(wall)) - np.repeat(np.cumsum(count) - count, count) + first[wall]) % max(n_rays, 1)
    along = end - start
    numerator = start[:, 0] * along[:, 1] - start[:, 1] * along[:, 0]
    farthest = np.maximum(np.hypot(*start.T), np.hypot(*end.T))
    denominator = np.cos(angles)[ray] * along[wall, 1] - np.sin(angles)[ray] * along[wall, 0]
    denominator = np.where(denominator == 0, 1.0, denominator)
    distance = np.clip(numerator[wall] / denominator, 0, farthest[wall])
    order = np.argsort(_key(ray, distance))
    firsts = np.concatenate([[0], np.cumsum(np.bincount(ray, minlength=n_rays))])
    return Crossings(ray[order], distance[order], wall[order], into[wall[order]], firsts)


#: Larger than any distance [m]; ray × this + distance sorts by both, exact to a millimetre up to two million rays.
_FAR_M = 2.0**22


def _key(ray: np.ndarray, distance_m: np.ndarray) -> np.ndarray:
    """Return a number that sorts by ray, then distance."""
    return ray * _FAR_M + distance_m


def _along(
    crossings: Crossings,
    walls: Walls,
    height_m: float,
    angles: np.ndarray,
    ray: np.ndarray,
    distance_m: np.ndarray,
    slope: np.ndarray,
    least_gap_m: float,
    tower_m: float,
) -> Paths:
    """Look up what lies before each place; `slope` is the elevation of the device seen from the antenna [rad]."""
    n = len(crossings.ray)
    if n == 0:
        nothing = np.full(len(ray), np.nan)
        return Paths(np.ones(len(ray), bool), np.zeros(len(ray), int), nothing, nothing + np.inf, np.ones(len(ray)))
    c_ray, c_distance, into = crossings.ray, crossings.distance_m, crossings.into
    roof = walls.roof_m[crossings.wall]
    ray_start = crossings.first[c_ray]

    # A ray ends outside, so the sum over it tells in how many buildings it began.
    total = np.cumsum(into)
    depth = total - total[crossings.first[c_ray + 1] - 1]
    built = _sums_from_start(-into * c_distance, ray_start)
    roof_area = _sums_from_start(-into * c_distance * np.minimum(roof, tower_m), ray_start)
    # The elevation of the highest edge so far; rays are kept apart by an offset larger than any elevation.
    elevation = np.arctan2(roof - height_m, np.maximum(c_distance, 1e-9))
    horizon = np.maximum.accumulate(elevation + 4.0 * c_ray) - 4.0 * c_ray
    gap_before = np.diff(c_distance, prepend=0.0)
    first_of_ray = np.arange(n) == ray_start
    new_row = (into > 0) & (depth - into == 0) & (first_of_ray | (gap_before > least_gap_m))
    rows = _sums_from_start(new_row, ray_start)
    facade = (walls.end_m - walls.start_m)[crossings.wall]
    across = np.abs(np.cos(angles)[c_ray] * facade[:, 1] - np.sin(angles)[c_ray] * facade[:, 0])
    sine = across / np.maximum(np.hypot(*facade.T), 1e-9)

    last = np.searchsorted(_key(c_ray, c_distance), _key(ray, distance_m), side="right") - 1
    last = _outside(last, ray, distance_m, crossings, depth)
    crossed = last >= crossings.first[ray]
    last = np.maximum(last, 0)
    following = np.minimum(last + 1, n - 1)
    has_next = (last + 1 < crossings.first[ray + 1]) & crossed
    gap = np.where(has_next, c_distance[following] - c_distance[last], np.inf)
    enough = crossed & (built[last] > 1e-6)
    roof_m = np.where(enough, roof_area[last] / np.where(enough, built[last], 1.0), np.nan)
    sight = ~crossed | (horizon[last] <= slope)
    return Paths(sight, np.where(crossed, rows[last], 0), roof_m, gap, np.where(crossed, sine[last], 1.0))


def _sums_from_start(values: np.ndarray, ray_start: np.ndarray) -> np.ndarray:
    """Return cumulative sums that begin anew at each ray."""
    total = np.cumsum(values)
    return total - (total - values)[ray_start]


def _outside(
    last: np.ndarray, ray: np.ndarray, distance_m: np.ndarray, crossings: Crossings, depth: np.ndarray
) -> np.ndarray:
    """Move places whose ray runs through a building beside them to that building's nearer side.

    The ray of a cell passes up to half a cell from it, so a cell along a wall may seem to be inside.
    """
    n = len(depth)
    number = np.arange(n)
    free = depth == 0
    before = np.maximum.accumulate(np.where(free, number, -1))
    after = np.minimum.accumulate(np.where(free, number, n)[::-1])[::-1]
    starts = crossings.first[ray]
    within = (last >= starts) & ~free[np.maximum(last, 0)]
    rows = np.flatnonzero(within)
    back = np.maximum(before[last[rows]], starts[rows] - 1)
    ahead = after[last[rows]]
    entered, left = crossings.distance_m[back + 1], crossings.distance_m[ahead]
    nearer_back = distance_m[rows] - entered < left - distance_m[rows]
    result = last.copy()
    result[rows] = np.where(nearer_back, back, ahead)
    return result
