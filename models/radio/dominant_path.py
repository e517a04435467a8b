"""Dominant path model: the loss of the one path that carries most of the power, around the corners of buildings or over their roofs.

Two paths lead to each place, and the one with less loss is the dominant one:

- *around*: the shortest way in the plane that crosses no building (`shortest_paths`, exact). Heights matter to its length only.
- *over*: straight in the vertical plane, with the diffraction over the roofs of ITU-R P.526-15 clause 4.5.1 (`rooftops`). Buildings
  below the straight ray do not block it.

Each has the loss of R. Wahl, G. Wölfle, P. Wertz, P. Wildbolz, F. Landstorfer, "Dominant path prediction model for urban scenarios",
14th IST Mobile and Wireless Communications Summit, 2005, in the words of Çağkan Yapar et al. (LocUNet, section II-B1):

    L = 20 log10(4π/λ) + 10 p log10(l) + Σ f(φ_i, i) − Ω

with l the length of the path [m], p an exponent that depends on visibility, f the loss of a change of direction by φ after i others, and
Ω the gain of wave guiding. The authors publish neither f nor Ω; what we take for them stands at `DominantPathSettings`, and the
parameters are those of the model in WinProp (Altair WinProp 2021 documentation, `Model_DPM`), inside their ranges there.

The geometry is computed with numpy on the CPU, where branching is cheap; only the formula follows the engine's device.

Not modelled: penetration, reflection other than as guiding, terrain, and a second slope behind a breakpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..grid import Grid
from ..progress import Progress, no_progress, span
from .arrays import Array, namespace
from .buildings import Buildings
from .corners import Corners, find_corners
from .dominant_path_settings import DominantPathSettings
from .free_space import FreeSpace, triangulate
from .guiding import WallDistance, nearness_of_ways, wall_distance
from .obstacles import Walls
from .rooftops import LIGHT_M_S, over_roofs_db
from .shortest_paths import SEEN, Places, Ways, find_ways, group_places, ways_to
from .validity import Validity

#: Its authors publish no limits. Those of ITU-R P.1411-11, which deals with the same paths around corners and over roofs, and of TR
#: 38.901's UMa and UMi, which `DominantPathSettings` and `rooftops` were compared with; heights enter as geometry, without limits.
VALIDITY = Validity(
    "dominant path model, with the frequencies of ITU-R P.1411 and the distances of 3GPP TR 38.901, for its authors give none",
    freq_mhz=(300.0, 100_000.0),
    distance_m=(0.0, 5_000.0),
)
#: Nearer than this the loss stays what it is there [m].
_LEAST_M = 1.0
#: 20 log10(4π/λ) at 1 MHz [dB].
_CONSTANT_DB = 20 * math.log10(4 * math.pi * 1e6 / LIGHT_M_S)
#: Two directions closer than this are one [rad]: rounding to the lattice bends straight walls by less.
_STRAIGHT_RAD = math.radians(0.5)


@dataclass(frozen=True)
class DominantPaths:
    """What all antennas of a map share; make one with `prepare_dominant_paths` or `prepare_at`.

    Attributes
    ----------
    buildings
        The obstacles.
    space, corners
        Free space in triangles, and the corners of the buildings.
    places, places_m
        Where the loss is asked for: grouped, and all of them [m], shape (n, 2), those inside buildings included.
    shape
        Shape of the results: (height, width) of the grid, or (n,).
    resolution_m
        How finely the surroundings matter [m].
    """

    buildings: Buildings
    space: FreeSpace
    corners: Corners
    places: Places
    places_m: np.ndarray
    shape: tuple[int, ...]
    resolution_m: float

    @cached_property
    def wall_distance(self) -> WallDistance:
        """How far away the nearest wall is, for wave guiding."""
        return wall_distance(self.buildings, self.space)


def prepare_dominant_paths(
    buildings: Buildings, grid: Grid, threads: int = 1, progress: Progress = no_progress
) -> DominantPaths:
    """Prepare for the cells of a grid.

    Raises
    ------
    InputError
        When footprints make no sense.
    """
    centres = grid.centres(np.arange(grid.size))
    outside = np.flatnonzero(buildings.heights_on(grid).ravel() <= 0)
    prepared = _prepare(buildings, centres, outside, grid.cell_size_m, threads, progress)
    return replace(prepared, shape=grid.shape)


def prepare_at(
    buildings: Buildings,
    xy_m: np.ndarray,
    resolution_m: float = 1.0,
    all_outside: bool = False,
    threads: int = 1,
    progress: Progress = no_progress,
) -> DominantPaths:
    """Prepare for points [m], shape (n, 2), exact.

    Parameters
    ----------
    buildings
        The obstacles.
    xy_m
        The points [m].
    resolution_m
        How finely the surroundings matter [m].
    all_outside
        Whether the points are known to lie outside buildings; points inside get no value.
    threads, progress
        As always.

    Raises
    ------
    InputError
        As `prepare_dominant_paths`, and when there are no points, or some are not finite.
    """
    if not len(xy_m) or not np.isfinite(xy_m).all():
        raise InputError("The points must be at least one, with finite coordinates.")
    outside = np.arange(len(xy_m)) if all_outside else np.flatnonzero(~buildings.inside(xy_m))
    return _prepare(buildings, xy_m, outside, resolution_m, threads, progress)


def _prepare(
    buildings: Buildings,
    places_m: np.ndarray,
    outside: np.ndarray,
    resolution_m: float,
    threads: int,
    progress: Progress,
) -> DominantPaths:
    bounds_m = (*places_m.min(axis=0).tolist(), *places_m.max(axis=0).tolist())
    space = triangulate(buildings, bounds_m, span(progress, 0.0, 0.5))
    corners = find_corners(space, threads, span(progress, 0.5, 0.8))
    places = group_places(space, places_m[outside], threads, span(progress, 0.8, 1.0))
    places = replace(places, row=outside[places.row])
    return DominantPaths(buildings, space, corners, places, places_m, (len(places_m),), resolution_m)


class Path(NamedTuple):
    """What the formula needs to know of the two paths to each place; numpy arrays or torch tensors of one shape.

    Parameters
    ----------
    around_m
        Length of the shortest way in the plane [m]: inf where there is none, NaN inside buildings.
    seen
        Whether it is straight.
    diffraction_db
        Σ f along it [dB].
    guiding_db
        Ω [dB].
    straight_m
        Length of the straight line in the plane [m].
    roofs_db
        Diffraction over the roofs [dB]; inf where it does not count.
    """

    around_m: Array
    seen: Array
    diffraction_db: Array
    guiding_db: Array
    straight_m: Array
    roofs_db: Array


def path_length_m(prepared: DominantPaths, xy_m: np.ndarray) -> np.ndarray:
    """Length of the shortest free way from `xy_m` [m], shape (2,), to each place [m]: inf where there is none, NaN inside buildings."""
    ways = _ways(prepared, xy_m)
    return _spread_out(prepared, ways.length_m, np.nan).reshape(prepared.shape)


def paths_to(prepared: DominantPaths, xy_m: np.ndarray) -> list[np.ndarray]:
    """Vertices [m] of the shortest free way from `xy_m` to each place, both ends included; empty where there is none or inside."""
    found = ways_to(prepared.corners, prepared.places, _ways(prepared, xy_m))
    result = [np.zeros((0, 2))] * len(prepared.places_m)
    for row, way in zip(prepared.places.row.tolist(), found):
        result[row] = prepared.space.metres(way)
    return result


def dominant_path_loss_db(
    prepared: DominantPaths,
    xy_m: np.ndarray,
    height_m: float,
    freq_mhz: float,
    settings: DominantPathSettings | None = None,
    device_height_m: float = 1.5,
) -> np.ndarray:
    """Loss between isotropic antennas [dB], shape `prepared.shape`, float32; NaN inside buildings and where no path leads.

    The building that the antenna stands on, or at a wall of, is no obstacle to it: not to the first leg around, and not over the roofs.

    Parameters
    ----------
    prepared
        What all antennas share.
    xy_m, height_m
        Position (x, y) and height above ground of the antenna [m].
    freq_mhz
        Carrier frequency [MHz].
    settings
        The model's constants.
    device_height_m
        Height of the devices [m].
    """
    settings = settings or DominantPathSettings()
    path = find_paths(prepared, xy_m, height_m, freq_mhz, settings, device_height_m)
    loss_db = path_loss_of(path, height_m - device_height_m, freq_mhz, settings)
    return np.asarray(loss_db, dtype=np.float32).reshape(prepared.shape)


def find_paths(
    prepared: DominantPaths,
    xy_m: np.ndarray,
    height_m: float,
    freq_mhz: float,
    settings: DominantPathSettings,
    device_height_m: float,
    progress: Progress = no_progress,
) -> Path:
    """The two paths to each place (all of shape (n,)); parameters as `dominant_path_loss_db`, and `progress` only to cancel by."""
    ways = _ways(prepared, xy_m, progress)
    places = prepared.places
    seen = ways.last == SEEN
    bent = np.flatnonzero(ways.last >= 0)
    diffraction_db = np.zeros(len(places))
    diffraction_db[bent] = _diffraction_db(prepared.corners, places.xy[bent], ways, ways.last[bent], settings)
    guiding_db = np.zeros(len(places))
    if settings.guiding:
        nearness = nearness_of_ways(
            prepared.wall_distance, prepared.space, prepared.corners, places, ways, settings.guiding_reach_m
        )
        reflected = 10 ** (-settings.reflection_loss_db / 10)
        guiding_db = 10 * np.log10(1 + 2 * nearness * reflected / (1 - reflected))
    at_m = prepared.places_m[places.row]
    roofs_db = np.full(len(places), np.inf)
    hidden = np.flatnonzero(~seen)
    if settings.over_roofs:
        _, own = prepared.buildings.bearing(np.reshape(np.asarray(xy_m, dtype=float), (1, 2)))
        walls = Walls.of(prepared.buildings).without(own)
        roofs_db[hidden], _ = over_roofs_db(
            walls, xy_m, height_m, freq_mhz, at_m[hidden], device_height_m, prepared.resolution_m, progress
        )
    return Path(
        _spread_out(prepared, ways.length_m, np.nan),
        _spread_out(prepared, seen, False),
        _spread_out(prepared, diffraction_db, 0.0),
        _spread_out(prepared, guiding_db, 0.0),
        np.hypot(*(prepared.places_m - xy_m).T),
        _spread_out(prepared, roofs_db, np.inf),
    )


def path_loss_of(path: Path, above_m: Array, freq_mhz: Array, settings: DominantPathSettings) -> Array:
    """Loss of the better of the two paths [dB], NaN without one; `above_m` is how much higher the antenna is than the device [m]."""
    xp = namespace(path.around_m)
    slope_seen, slope_hidden = 10 * settings.exponent_seen, 10 * settings.exponent_hidden
    above_m = above_m + 0 * path.straight_m
    length = xp.log10(xp.hypot(path.around_m, above_m).clip(_LEAST_M, None))
    around_db = xp.where(path.seen, slope_seen * length, slope_hidden * length) + path.diffraction_db - path.guiding_db
    over_db = slope_seen * xp.log10(xp.hypot(path.straight_m, above_m).clip(_LEAST_M, None)) + path.roofs_db
    # inside buildings the way around has no length, and so no loss either
    best_db = xp.where(xp.isnan(path.around_m), path.around_m, xp.minimum(around_db, over_db))
    best_db = xp.where(xp.isinf(best_db), xp.nan, best_db)
    return _CONSTANT_DB + 20 * xp.log10(freq_mhz) + best_db


def diffraction_loss_db(angle_rad: np.ndarray, before: np.ndarray, settings: DominantPathSettings) -> np.ndarray:
    """f(φ, i) [dB] for changes of direction [rad] after so many others."""
    share = np.minimum(angle_rad / math.radians(settings.full_angle_deg), 1.0)
    first_db = settings.least_diffraction_db + (settings.most_diffraction_db - settings.least_diffraction_db) * share
    return np.where(angle_rad > _STRAIGHT_RAD, first_db * settings.repeated_share**before, 0.0)


def _ways(prepared: DominantPaths, xy_m: np.ndarray, progress: Progress = no_progress) -> Ways:
    xy_m = np.asarray(xy_m, dtype=float)
    if xy_m.shape != (2,) or not np.isfinite(xy_m).all():
        raise InputError(f"The position of an antenna must be two finite coordinates, not {xy_m}.")
    _, own = prepared.buildings.bearing(xy_m[None])
    return find_ways(prepared.space, prepared.corners, prepared.places, xy_m, own, progress)


def _spread_out(prepared: DominantPaths, values: np.ndarray, elsewhere: float) -> np.ndarray:
    """Values of the grouped places at all places."""
    result = np.full(len(prepared.places_m), elsewhere, dtype=values.dtype)
    result[prepared.places.row] = values
    return result


def _turn_rad(arriving: np.ndarray, leaving: np.ndarray) -> np.ndarray:
    """Angle between directions (n, 2) [rad]; 0 where one has no length."""
    across = arriving[:, 0] * leaving[:, 1] - arriving[:, 1] * leaving[:, 0]
    return np.arctan2(np.abs(across), arriving[:, 0] * leaving[:, 0] + arriving[:, 1] * leaving[:, 1])


def _diffraction_db(
    corners: Corners, xy: np.ndarray, ways: Ways, last: np.ndarray, settings: DominantPathSettings
) -> np.ndarray:
    """Σ f along the ways to places [units], whose last corners are given."""
    # up to and without the turn at each corner
    sum_db, number = np.zeros(len(corners)), np.zeros(len(corners), dtype=np.int64)
    for corner in ways.levels():
        before = ways.before[corner]
        turn = _turn_rad(ways.arriving[before], ways.arriving[corner])
        sum_db[corner] = sum_db[before] + diffraction_loss_db(turn, number[before], settings)
        number[corner] = number[before] + (turn > _STRAIGHT_RAD)
    turn = _turn_rad(ways.arriving[last], xy - corners.xy[last])
    return sum_db[last] + diffraction_loss_db(turn, number[last], settings)
