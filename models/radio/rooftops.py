"""Diffraction over roofs in the vertical plane from an antenna to a device: Bullington's construction of ITU-R P.526-15.

The edges are where the straight ray from antenna to device crosses the walls of buildings, each at the height of its flat roof, exact.
The ground is flat. Clause 4.5.1 replaces all edges by one: where the steepest line from the antenna over any edge meets the steepest
from the device. With the line of sight clear, the edge that comes nearest to it counts. The clause's empirical addition of up to
10 dB is left out, for it was found on terrain: over Munich's roofs free space and the single edge lose 1 dB more, in the median, than
UMa without line of sight (TR 38.901) for antennas 20 to 28 m high at 1.8 GHz (`benchmarks/radio_maps_speed.py`), and 11 dB with it.
"""

from __future__ import annotations

import numpy as np

from ..progress import Progress, no_progress
from .obstacles import Walls, cross_walls, rays_towards
from .walls import cross, pairs_of

#: Speed of light [m/s].
LIGHT_M_S = 299_792_458.0
#: An edge is never nearer to antenna or device than this [m]: below it the formula's ν grows without limit.
_LEAST_M = 1.0
#: Below this ν an edge costs nothing (P.526-15 clause 4.1).
_CLEAR = -0.78
#: Pairs of a place and an edge looked at together.
_PAIRS_AT_ONCE = 100_000


def knife_edge_db(nu: np.ndarray) -> np.ndarray:
    """Loss J(ν) of a knife edge [dB]: P.526-15 equation (31), 0 for ν ≤ −0.78."""
    shifted = np.maximum(nu, _CLEAR) - 0.1
    return np.where(nu > _CLEAR, 6.9 + 20 * np.log10(np.sqrt(shifted**2 + 1) + shifted), 0.0)


def over_roofs_db(
    walls: Walls,
    antenna_m: np.ndarray,
    height_m: float,
    freq_mhz: float,
    places_m: np.ndarray,
    device_height_m: float,
    resolution_m: float,
    progress: Progress = no_progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Diffraction loss over the roofs on the straight way to each place [dB], and whether the line of sight is clear; shape (m,) each.

    Parameters
    ----------
    walls
        Walls of the buildings that count as obstacles.
    antenna_m, height_m
        Position (x, y) and height of the antenna [m].
    freq_mhz
        Carrier frequency [MHz].
    places_m
        Positions of the devices outside buildings [m], shape (m, 2).
    device_height_m
        Height of the devices [m].
    resolution_m
        How far apart rays may be at the farthest place [m].
    progress
        Told about the share of the places done.
    """
    angles, ray, distance_m = rays_towards(antenna_m, places_m, resolution_m)
    crossings = cross_walls(walls, antenna_m, angles)
    edge_m, roof_m = crossings.distance_m, walls.roof_m[crossings.wall]
    start = crossings.first[ray]
    # crossings are sorted by ray, then distance: those before a place are found by one search
    far_m = 2.0 * max(float(distance_m.max(initial=0.0)), float(edge_m.max(initial=0.0)), 1.0)
    count = np.searchsorted(crossings.ray * far_m + edge_m, ray * far_m + distance_m) - start
    loss_db, clear = np.zeros(len(ray)), np.ones(len(ray), dtype=bool)
    total = np.cumsum(count)
    first = 0
    while first < len(ray):
        progress(first / len(ray))
        done = total[first - 1] if first else 0
        stop = max(first + 1, int(np.searchsorted(total, done + _PAIRS_AT_ONCE, side="right")))
        rows = first + np.flatnonzero(count[first:stop])
        first = stop
        if not len(rows):
            continue
        place, edge = pairs_of(rows, count, start)
        begin = np.cumsum(count[rows]) - count[rows]
        roof = roof_m[edge]
        # a cell's ray passes beside its centre: near it, and there alone it matters, an edge must be on the very line to the centre
        near = np.flatnonzero(distance_m[rows][place] - edge_m[edge] < resolution_m)
        beside = ~_crossed(walls, crossings.wall[edge[near]], antenna_m, places_m[rows][place[near]])
        roof[near[beside]] = -np.inf
        loss_db[rows], clear[rows] = _bullington_db(
            edge_m[edge], roof, place, begin, distance_m[rows], height_m, device_height_m, freq_mhz
        )
    return loss_db, clear


def _crossed(walls: Walls, wall: np.ndarray, antenna_m: np.ndarray, places_m: np.ndarray) -> np.ndarray:
    """Whether the straight lines from the antenna to places cross a wall each, shape (k,)."""
    start, end, line = walls.start_m[wall] - antenna_m, walls.end_m[wall] - antenna_m, places_m - antenna_m
    along = end - start
    parted = cross(line, start) * cross(line, end) <= 0
    return parted & (cross(along, -start) * cross(along, line - start) <= 0)


def _bullington_db(
    edge_m: np.ndarray,
    roof_m: np.ndarray,
    place: np.ndarray,
    begin: np.ndarray,
    distance_m: np.ndarray,
    height_m: float,
    device_height_m: float,
    freq_mhz: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and clear sight for places whose edges follow one another, from `begin` on, as P.526-15 clause 4.5.1."""
    d = np.maximum(distance_m, 2 * _LEAST_M)
    near = np.clip(edge_m, _LEAST_M, d[place] - _LEAST_M)
    far = d[place] - near
    wavelength_m = LIGHT_M_S / (freq_mhz * 1e6)
    from_antenna = np.maximum.reduceat((roof_m - height_m) / near, begin)
    line = (device_height_m - height_m) / d
    clear = from_antenna <= line
    above_m = roof_m - (height_m * far + device_height_m * near) / d[place]
    nu = np.maximum.reduceat(above_m * np.sqrt(2 * d[place] / (wavelength_m * near * far)), begin)
    # the point of Bullington's single edge
    from_device = np.maximum.reduceat((roof_m - device_height_m) / far, begin)
    both = np.where(clear, 1.0, np.maximum(from_antenna + from_device, 1e-12))
    at = np.clip((device_height_m - height_m + from_device * d) / both, _LEAST_M, d - _LEAST_M)
    above = height_m + from_antenna * at - (height_m * (d - at) + device_height_m * at) / d
    nu = np.where(clear, nu, above * np.sqrt(2 * d / (wavelength_m * at * (d - at))))
    return knife_edge_db(nu), clear
