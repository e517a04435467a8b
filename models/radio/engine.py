"""Computes radio maps: one table of models, and in one place what they share (places, antenna patterns, threads, devices, warnings)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from ..chunks import run_chunks
from ..errors import MemoryBudgetError
from ..grid import Grid
from ..progress import Progress, span, stoppable
from . import dominant_path, empirical, path_loss, walfisch_ikegami
from .arrays import Array, namespace, to_device, to_numpy
from .maps import RadioMapJob, RadioMaps
from .obstacles import Paths, Walls, trace
from .transmitters import Transmitters
from .validity import Validity, share_warning, warnings

#: Places are taken in blocks that fit in a processor's cache, or in one on a GPU.
_BLOCK = 32_768
_GPU_BLOCK = 4_194_304
#: Transmitters are taken together until they make this many pairs with places.
_PAIRS = 262_144


@dataclass(frozen=True)
class Places:
    """Where the loss is computed: m places outside buildings.

    Parameters
    ----------
    xy_m
        Positions [m], shape (m, 2).
    number
        Their flat cell indices in `grid`, or their numbers among the points asked for, shape (m,).
    n_total
        Number of cells or points, those inside buildings included.
    grid
        The grid whose cells they are; None for points.
    """

    xy_m: np.ndarray
    number: np.ndarray
    n_total: int
    grid: Grid | None

    @property
    def resolution_m(self) -> float:
        """How finely the surroundings matter [m]."""
        return self.grid.cell_size_m if self.grid is not None else 1.0


@dataclass(frozen=True)
class Batch:
    """Some transmitters and some places: what a model's formula gets. Columns have shape (n, 1); numpy arrays or torch tensors.

    Parameters
    ----------
    job
        The job.
    distance_m
        Horizontal distances [m], shape (n, k).
    freq_mhz, height_m
        Of the transmitters, shape (n, 1).
    paths
        What the model's `paths` found, each of shape (n, k); None for a model without.
    """

    job: RadioMapJob
    distance_m: Array
    freq_mhz: Array
    height_m: Array
    paths: tuple[Array, ...] | None

    @property
    def distance_3d_m(self) -> Array:
        """Distance from antenna to device [m]."""
        xp = namespace(self.distance_m)
        return xp.hypot(self.distance_m, self.height_m - self.job.settings.device_height_m + 0 * self.distance_m)


@dataclass(frozen=True)
class _Model:
    """A propagation model.

    Parameters
    ----------
    loss_db
        Loss without the antenna's pattern [dB], shape (n, k), from a batch.
    validity
        Its range, from the job.
    prepare
        What all transmitters share, from (job, places, progress); None where there is nothing.
    paths
        What lies between one transmitter and all places, from (job, prepared, row of the transmitter, places, progress): arrays of shape
        (m,). None, or a result of None, for a model that needs distances only. Runs in a thread, where its progress only ever cancels.
    """

    loss_db: Callable[[Batch], Array]
    validity: Callable[[RadioMapJob], Validity]
    prepare: Callable[[RadioMapJob, Places, Progress], Any] | None = None
    paths: Callable[[RadioMapJob, Any, int, Places, Progress], Sequence[np.ndarray] | None] | None = None


def maps_of_job(job: RadioMapJob, progress: Progress) -> RadioMaps:
    """Compute the map of each transmitter on the job's grid; see `maps.radio_maps`."""
    grid = job.grid
    outside = np.arange(grid.size)
    if job.buildings is not None:
        outside = outside[job.buildings.heights_on(grid).ravel() <= 0]
    try:
        loss_db = np.full((len(job.transmitters), grid.size), np.nan, np.float32)
    except MemoryError as error:
        megabytes = len(job.transmitters) * grid.size / 2**18
        raise MemoryBudgetError(
            f"{len(job.transmitters)} maps of {grid.describe()} need {megabytes:,.0f} MiB, more than there is. Use larger cells, a smaller "
            "extent, or fewer transmitters."
        ) from error
    far = _compute(job, Places(grid.centres(outside), outside, grid.size, grid), loss_db, progress)
    shape = (len(job.transmitters), *grid.shape)
    sentences = _warnings(job, far)
    return RadioMaps(grid, job.transmitters, loss_db.reshape(shape), job.noise_floor_dbm, job.model, tuple(sentences))


def losses_of_job(job: RadioMapJob, xy_m: np.ndarray, progress: Progress) -> np.ndarray:
    """Compute the loss of each transmitter at points; see `maps.losses_at`."""
    number = np.arange(len(xy_m))
    if job.buildings is not None:
        number = number[~job.buildings.inside(xy_m)]
    loss_db = np.full((len(job.transmitters), len(xy_m)), np.nan)
    _compute(job, Places(xy_m[number], number, len(xy_m), None), loss_db, progress)
    return loss_db


def _compute(job: RadioMapJob, places: Places, loss_db: np.ndarray, progress: Progress) -> float:
    """Fill `loss_db`, shape (n, n_total), and return the share of pairs outside the model's distances."""
    model = _MODELS[job.model]
    prepared = model.prepare(job, places, span(progress, 0.0, 0.1)) if model.prepare is not None else None
    n_places = len(places.xy_m)
    limits = model.validity(job).distance_m or (0.0, np.inf)
    masts = _masts(job.transmitters)
    watched, check = stoppable(span(progress, 0.1, 1.0))

    def work(start: int, stop: int) -> int:
        rows = np.concatenate(masts[start:stop])
        mast = np.repeat(np.arange(stop - start), [len(each) for each in masts[start:stop]])
        paths = None
        if model.paths is not None:
            found = [model.paths(job, prepared, int(each[0]), places, check) for each in masts[start:stop]]
            paths = None if found[0] is None else [np.stack(values) for values in zip(*found)]
        size = _BLOCK if job.device == "cpu" else _GPU_BLOCK // len(rows) + 1
        far = 0
        for first in range(0, n_places, size):
            check(0.0)
            block = slice(first, min(first + size, n_places))
            here = None if paths is None else [values[:, block][mast] for values in paths]
            loss, distance = _loss(job, model, rows, places.xy_m[block], here)
            loss_db[rows[:, None], places.number[block]] = loss
            far += int(np.count_nonzero((distance < limits[0]) | (distance > limits[1])))
        return far

    pairs = len(job.transmitters) * n_places
    chunk = max(1, min(_PAIRS * len(masts) // max(pairs, 1), -(-len(masts) // max(job.threads, 1))))
    threads = job.threads if job.device == "cpu" else 1
    return sum(run_chunks(work, len(masts), chunk, threads, watched)) / max(pairs, 1)


def _masts(transmitters: Transmitters) -> list[np.ndarray]:
    """Rows of the transmitters at one place, height and frequency: all their paths are the same."""
    t = transmitters
    _, mast = np.unique(np.column_stack([t.xy_m, t.height_m, t.freq_mhz]), axis=0, return_inverse=True)
    order = np.argsort(mast, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(mast[order])) + 1)


def _loss(
    job: RadioMapJob, model: _Model, rows: np.ndarray, xy_m: np.ndarray, paths: list[np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return loss with the antenna's pattern [dB] and horizontal distance [m], shape (n, k)."""
    chosen = job.transmitters.take(rows)
    east = xy_m[:, 0] - chosen.xy_m[:, :1]
    north = xy_m[:, 1] - chosen.xy_m[:, 1:]

    def put(values: np.ndarray) -> Array:
        return to_device(values, job.device)

    east_there, north_there, height = put(east), put(north), put(chosen.height_m[:, None])
    distance = namespace(east_there).hypot(east_there, north_there)
    there = None if paths is None else tuple(put(values) for values in paths)
    loss = model.loss_db(Batch(job, distance, put(chosen.freq_mhz[:, None]), height, there))
    loss = loss - _gain_db(job, rows, chosen, east_there, north_there, distance)
    return to_numpy(loss), to_numpy(distance)


def _gain_db(
    job: RadioMapJob, rows: np.ndarray, transmitters: Transmitters, east_m: Array, north_m: Array, distance_m: Array
) -> Array:
    """Gain of the antennas towards the places relative to their peaks [dB], shape (n, k)."""
    patterns = [job.patterns[row] for row in rows.tolist()]
    if all(pattern.kind == "omni" for pattern in patterns):
        return 0.0
    xp = namespace(distance_m)
    directed = np.isfinite(transmitters.azimuth_deg) & (transmitters.beam_width_deg < 360)
    azimuth, width = (
        np.where(directed, transmitters.azimuth_deg, 0.0),
        np.where(directed, transmitters.beam_width_deg, 65.0),
    )
    below_m = transmitters.height_m - job.settings.device_height_m
    azimuth, width, tilt, below, towards = (
        to_device(column[:, None], job.device)
        for column in (azimuth, width, transmitters.tilt_deg, below_m, directed.astype(float))
    )
    offset = (xp.rad2deg(xp.arctan2(east_m, north_m)) - azimuth) * towards
    depression = xp.rad2deg(xp.arctan2(below + 0 * distance_m, distance_m))
    gains = [pattern.gain_db(offset[i], depression[i], tilt[i], width[i]) for i, pattern in enumerate(patterns)]
    return xp.stack(gains)


def _warnings(job: RadioMapJob, far: float) -> list[str]:
    """Return what lies outside the model's range, and which antennas stand in or at buildings higher than they."""
    validity = _MODELS[job.model].validity(job)
    sentences = warnings(validity, job.transmitters, job.settings.device_height_m)
    sentences += share_warning(validity, far)
    if job.buildings is not None:
        row, building = job.buildings.bearing(job.transmitters.xy_m)
        lower = job.transmitters.height_m[row] < job.buildings.height_m[building]
        rows = np.unique(row[lower]).tolist()
        if rows:
            names = ", ".join(f"'{job.transmitters.ids[row]}'" for row in rows[:10])
            more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
            sentences.append(
                f"In or at a building higher than the antenna: {names}{more}; each is treated as standing on the edge of that "
                "building's roof, which is no obstacle to it."
            )
    return sentences


def _log_distance(batch: Batch) -> Array:
    s = batch.job.settings
    return empirical.log_distance_db(batch.distance_3d_m, batch.freq_mhz, s.exponent, s.reference_m, s.intercept_db)


def _hata(batch: Batch) -> Array:
    s = batch.job.settings
    loss = empirical.hata_db(
        batch.distance_m, batch.freq_mhz, batch.height_m, s.device_height_m, s.hata_area, s.hata_city
    )
    return _not_below_free_space(loss, batch)


def _not_below_free_space(loss_db: Array, batch: Batch) -> Array:
    """Return the loss, at least that of free space over the line from antenna to device."""
    return namespace(loss_db).maximum(loss_db, empirical.free_space_db(batch.distance_3d_m, batch.freq_mhz))


def _3gpp(batch: Batch) -> Array:
    s = batch.job.settings
    los, nlos = path_loss.sight_losses_db(
        s.scenario, batch.distance_m, batch.freq_mhz, batch.height_m, s.device_height_m
    )
    if batch.paths is not None:
        return namespace(los).where(batch.paths[0], los, nlos)
    share = path_loss.los_probability(s.scenario, batch.distance_m)
    return share * los + (1 - share) * nlos


def _walfisch_ikegami(batch: Batch) -> Array:
    s = batch.job.settings
    if batch.paths is not None:
        street = walfisch_ikegami.Street(*batch.paths)
    else:
        typical = walfisch_ikegami.typical_street(s.roof_m, s.separation_m, s.street_width_m, s.street_angle_deg)
        street = walfisch_ikegami.Street(*(to_device(values, batch.job.device) for values in typical))
    distance = batch.distance_m.clip(empirical.LEAST_DISTANCE_M, None)
    loss = walfisch_ikegami.walfisch_ikegami_db(
        distance, batch.freq_mhz, batch.height_m, s.device_height_m, street, s.wi_city
    )
    return _not_below_free_space(loss, batch)


def _walls(job: RadioMapJob, places: Places, _progress: Progress) -> Walls | None:
    """Return the walls of all buildings that may lie between a transmitter and a place, or around one."""
    if job.buildings is None or len(job.buildings) == 0:
        return None
    corners = np.concatenate([places.xy_m, job.transmitters.xy_m])
    reach = job.settings.widest_street_m
    walls = Walls.of(job.buildings)
    lowest = np.full((len(job.buildings), 2), np.inf)
    highest = -lowest
    np.minimum.at(lowest, walls.building, walls.start_m)
    np.maximum.at(highest, walls.building, walls.start_m)
    outside = (highest < corners.min(axis=0) - reach) | (lowest > corners.max(axis=0) + reach)
    return walls.without(np.flatnonzero(outside.any(axis=1)))


def _trace(job: RadioMapJob, walls: Walls, row: int, places: Places, tower_m: float = np.inf) -> Paths:
    """Trace the paths of one transmitter."""
    t = job.transmitters
    s = job.settings
    _, around = job.buildings.bearing(t.xy_m[row : row + 1])  # type: ignore[union-attr]
    return trace(
        walls.without(around),
        t.xy_m[row],
        float(t.height_m[row]),
        places.xy_m,
        s.device_height_m,
        places.resolution_m,
        s.least_gap_m,
        tower_m,
    )


def _sight(
    job: RadioMapJob, walls: Walls | None, row: int, places: Places, _progress: Progress
) -> tuple[np.ndarray] | None:
    if walls is None or not job.settings.sight_from_buildings:
        return None
    return (_trace(job, walls, row, places).sight,)


def _street(
    job: RadioMapJob, walls: Walls | None, row: int, places: Places, _progress: Progress
) -> walfisch_ikegami.Street | None:
    """Return what COST231-WI asks about the paths of one transmitter, None without buildings."""
    if walls is None:
        return None
    s = job.settings
    tower_m = float(np.quantile(job.buildings.height_m, s.tower_quantile))  # type: ignore[union-attr]
    found = _trace(job, walls, row, places, tower_m)
    distance = np.hypot(*(places.xy_m - job.transmitters.xy_m[row]).T)
    return walfisch_ikegami.Street(
        found.sight,
        np.where(np.isfinite(found.roof_m), found.roof_m, s.roof_m),
        np.maximum(distance, empirical.LEAST_DISTANCE_M) / np.maximum(found.rows, 1),
        np.clip(found.gap_m * found.facade_sine, s.narrowest_street_m, s.widest_street_m),
        np.rad2deg(np.arcsin(np.minimum(found.facade_sine, 1.0))),
    )


def _free_space(job: RadioMapJob, places: Places, progress: Progress) -> dominant_path.DominantPaths | None:
    if job.buildings is None or not len(places.xy_m):
        return None
    return dominant_path.prepare_at(job.buildings, places.xy_m, places.resolution_m, True, job.threads, progress)


def _ways(
    job: RadioMapJob, prepared: dominant_path.DominantPaths | None, row: int, _places: Places, progress: Progress
) -> dominant_path.Path | None:
    if prepared is None:
        return None
    t, s = job.transmitters, job.settings
    height_m, freq_mhz = float(t.height_m[row]), float(t.freq_mhz[row])
    return dominant_path.find_paths(
        prepared, t.xy_m[row], height_m, freq_mhz, s.dominant_path, s.device_height_m, progress
    )


def _dominant_path(batch: Batch) -> Array:
    s = batch.job.settings
    path = dominant_path.Path(*(batch.paths or ()))
    return dominant_path.path_loss_of(path, batch.height_m - s.device_height_m, batch.freq_mhz, s.dominant_path)


#: The models by name.
_MODELS = {
    "logdistance": _Model(_log_distance, lambda _: empirical.LOG_DISTANCE_VALIDITY),
    "hata": _Model(_hata, lambda _: empirical.HATA_VALIDITY),
    "3gpp": _Model(_3gpp, lambda job: path_loss.VALIDITY[job.settings.scenario], _walls, _sight),
    "cost231wi": _Model(_walfisch_ikegami, lambda _: walfisch_ikegami.VALIDITY, _walls, _street),
    "dominantpath": _Model(_dominant_path, lambda _: dominant_path.VALIDITY, _free_space, _ways),
}
