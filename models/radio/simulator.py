"""A network simulator that makes the association probabilities P(i|ℓ) of whole networks, as the DeepMEND paper's operator does.

Section III-A of the paper: a propagation model gives the received signal strength of every base station (BS) at every location, and
priority tables turn the strengths into P(i|ℓ). Here the strengths follow TR 38.901 with sector antennas, tilt, heights and
correlated shadowing; devices take the carrier of highest priority that is strong enough, and on it the strongest site. What a
device sees beyond the mean of its cell is taken as Gumbel distributed, so that the probability of a site is a softmax.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree
from scipy.special import ndtr

from ..errors import InputError
from ..geolocation.sites import URBANISATIONS, local_spacing_m, urbanisation
from ..grid import Grid
from ..progress import Progress, no_progress
from . import antennas
from .parameters import SimulatorParameters, SiteClass
from .path_loss import DEVICE_HEIGHT_M, path_loss_db
from .shadowing import correlated_field

#: Standard deviation of a standard Gumbel variable.
_GUMBEL_STD = math.pi / math.sqrt(6)
#: Spread of the received power around a carrier's threshold within a cell [dB].
_THRESHOLD_SPREAD_DB = 6.0
#: Shares of the variance of the directional gain in its harmonics.
_HARMONIC_SHARES = (0.6, 0.25, 0.15)
#: Received powers are lifted by this much [dB] before they are raised to a power, so that float32 holds them.
_LIFT_DB = 110.0


@dataclass(frozen=True)
class Equipment:
    """What stands at each site.

    Parameters
    ----------
    kind
        Index into `URBANISATIONS`, shape (n,).
    spacing_m, height_m
        Local spacing and antenna height [m], shape (n,).
    eirp_offset_db
        EIRP relative to the carrier's [dB], shape (n,).
    tilt_deg
        Downtilt [°], shape (n,).
    azimuths_deg
        Per site its sectors' azimuths [°]; none for an omnidirectional antenna.
    carriers
        Whether the site has each carrier, shape (n, n_carriers), bool.
    """

    kind: np.ndarray
    spacing_m: np.ndarray
    height_m: np.ndarray
    eirp_offset_db: np.ndarray
    tilt_deg: np.ndarray
    azimuths_deg: tuple[tuple[float, ...], ...]
    carriers: np.ndarray


def equip(sites_m: np.ndarray, parameters: SimulatorParameters, rng: np.random.Generator) -> Equipment:
    """Draw each site's equipment from its surroundings' class."""
    spacing = local_spacing_m(sites_m)
    kind = urbanisation(spacing)
    n = len(sites_m)
    classes = [parameters.classes[URBANISATIONS[index]] for index in kind]
    height = np.array([one.height_m for one in classes]) * np.exp(parameters.height_spread * rng.standard_normal(n))
    height = np.clip(height, 10.0, 90.0)
    planned = np.degrees(np.arctan((height - DEVICE_HEIGHT_M) / (parameters.tilt_spacings * spacing)))
    tilt = np.clip(planned + parameters.tilt_error_deg * rng.standard_normal(n), *parameters.tilt_limits_deg)
    offset = parameters.eirp_spread_db * rng.standard_normal(n)
    carriers = np.column_stack(
        [
            rng.random(n) < np.array([carrier.present[URBANISATIONS[index]] for index in kind])
            for carrier in parameters.carriers
        ]
    )
    carriers[~carriers.any(axis=1), -1] = True
    return Equipment(kind, spacing, height, offset, tilt, tuple(_azimuths(one, rng) for one in classes), carriers)


def _azimuths(site: SiteClass, rng: np.random.Generator) -> tuple[float, ...]:
    count = (0, 1, 2, 3, 4)[rng.choice(5, p=site.sectors)]
    first = rng.uniform(0, 360)
    spread = rng.normal(0, 10, count)
    return tuple((first + np.arange(count) * 360 / max(count, 1) + spread) % 360)


def simulate(
    sites_m: np.ndarray,
    grid: Grid,
    parameters: SimulatorParameters,
    seed: int,
    mask: np.ndarray | None = None,
    progress: Progress = no_progress,
) -> sparse.csr_matrix:
    """Simulate a network.

    Parameters
    ----------
    sites_m
        BS positions (x, y) [m] in the grid's CRS, all different, shape (n_bs, 2).
    grid
        Where to compute.
    seed
        Of equipment and shadowing.
    mask
        Cells where devices can be, shape (height, width), bool; None for all.

    Returns
    -------
    scipy.sparse.csr_matrix
        P(i|ℓ), shape (n_bs, n_cells), float32, sorted indices; cells sum to one over BSs.

    Raises
    ------
    InputError
        When there are fewer than two BSs.
    """
    if len(sites_m) < 2:
        raise InputError(f"A network needs at least two base stations, not {len(sites_m)}.")
    rng = np.random.default_rng(seed)
    equipment = equip(sites_m, parameters, rng)
    common_db = correlated_field(grid.shape, grid.cell_size_m, 100.0, rng)
    n_carriers = len(parameters.carriers)
    total = np.zeros((n_carriers, *grid.shape), np.float32)
    strongest = np.full((n_carriers, *grid.shape), -200.0, np.float32)
    exponent = np.float32(_GUMBEL_STD) / _residual_db(equipment, sites_m, grid, parameters)
    windows: list[tuple[slice, slice]] = []
    weights: list[np.ndarray] = []
    for index in range(len(sites_m)):
        progress(0.8 * index / len(sites_m))
        window = _window(sites_m[index], equipment.spacing_m[index], grid, parameters)
        received = _received_dbm(index, sites_m[index], equipment, window, grid, parameters, common_db, rng)
        weight = np.exp((received + np.float32(_LIFT_DB)) * exponent[window])
        np.maximum(strongest[(slice(None), *window)], received, out=strongest[(slice(None), *window)])
        total[(slice(None), *window)] += weight
        windows.append(window)
        weights.append(weight)
    share = _carrier_shares(strongest, parameters)
    share /= np.maximum(total, np.float32(1e-30))
    rows = []
    flat = np.arange(grid.size, dtype=np.int32).reshape(grid.shape)
    for index, (window, weight) in enumerate(zip(windows, weights)):
        progress(0.8 + 0.2 * index / len(windows))
        probability = (weight * share[(slice(None), *window)]).sum(axis=0)
        keep = probability >= parameters.min_probability
        if mask is not None:
            keep &= mask[window]
        rows.append((flat[window][keep], probability[keep]))
    counts = [len(cells) for cells, _ in rows]
    cells = np.concatenate([cells for cells, _ in rows])
    values = np.concatenate([values for _, values in rows])
    sums = np.bincount(cells, values, minlength=grid.size)
    values = (values / sums[cells]).astype(np.float32)
    progress(1.0)
    return sparse.csr_matrix((values, cells, np.concatenate([[0], np.cumsum(counts)])), shape=(len(rows), grid.size))


def _residual_db(equipment: Equipment, sites_m: np.ndarray, grid: Grid, parameters: SimulatorParameters) -> np.ndarray:
    """The residual's standard deviation at each cell [dB], that of its nearest site, shape (height, width), float32."""
    _, nearest = cKDTree(sites_m).query(grid.centres(np.arange(grid.size)))
    values = np.array([parameters.residual_db[name] for name in URBANISATIONS], np.float32)
    return values[equipment.kind[nearest]].reshape(grid.shape)


def _window(site_m: np.ndarray, spacing_m: float, grid: Grid, parameters: SimulatorParameters) -> tuple[slice, slice]:
    """Rows and columns of the cells that hear a site."""
    reach = max(parameters.reach_spacings * spacing_m, parameters.least_reach_m)
    columns = np.array([site_m[0] - reach - grid.x_min, site_m[0] + reach - grid.x_min]) / grid.cell_size_m
    rows = np.array([grid.y_max - site_m[1] - reach, grid.y_max - site_m[1] + reach]) / grid.cell_size_m
    left, right = np.clip(np.floor(columns), 0, grid.width).astype(int)
    top, bottom = np.clip(np.floor(rows), 0, grid.height).astype(int)
    return slice(top, max(bottom, top)), slice(left, max(right, left))


def _received_dbm(
    index: int,
    site_m: np.ndarray,
    equipment: Equipment,
    window: tuple[slice, slice],
    grid: Grid,
    parameters: SimulatorParameters,
    common_db: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """RSRP of the site's strongest sector on each carrier [dBm], −300 where it lacks one, (n_carriers, rows, columns)."""
    site = parameters.classes[URBANISATIONS[equipment.kind[index]]]
    dx = (grid.x_m[window[1]] - site_m[0]).astype(np.float32)[None, :]
    dy = (grid.y_m[window[0]] - site_m[1]).astype(np.float32)[:, None]
    distance = np.hypot(dx, dy)
    height = float(equipment.height_m[index])
    depression = np.degrees(np.arctan2(height - DEVICE_HEIGHT_M, np.maximum(distance, 1.0)))
    tilt = float(equipment.tilt_deg[index])
    bearing = np.degrees(np.arctan2(dx, dy))
    if equipment.azimuths_deg[index]:
        gain = np.max(
            [antennas.sector_gain_db(bearing - azimuth, depression, tilt) for azimuth in equipment.azimuths_deg[index]],
            axis=0,
        )
    else:
        gain = -antennas.vertical_loss_db(depression, tilt)
    horizon_m = parameters.horizon_spacings * float(equipment.spacing_m[index])
    gain = gain - parameters.beyond_db / 4 * np.log10(1 + (distance / horizon_m) ** 4)
    gain = gain + site.directional_db * _directional(np.radians(bearing), rng)
    gain = gain + _shadowing_db(
        site, distance.shape, float(equipment.spacing_m[index]), grid, window, parameters, common_db, rng
    )
    received = np.full((len(parameters.carriers), *distance.shape), -300.0, np.float32)
    for number, carrier in enumerate(parameters.carriers):
        if equipment.carriers[index, number]:
            loss = path_loss_db(site.scenario, distance, carrier.freq_mhz, height)
            received[number] = carrier.eirp_dbm + equipment.eirp_offset_db[index] + gain - loss
    return received


def _directional(bearing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth random function of the bearing [rad] with unit variance: the first three harmonics."""
    total = np.zeros_like(bearing)
    for order, share in enumerate(_HARMONIC_SHARES, start=1):
        a, b = math.sqrt(share) * rng.standard_normal(2)
        total += a * np.cos(order * bearing) + b * np.sin(order * bearing)
    return total


def _shadowing_db(
    site: SiteClass,
    shape: tuple[int, int],
    spacing_m: float,
    grid: Grid,
    window: tuple[slice, slice],
    parameters: SimulatorParameters,
    common_db: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    size = grid.cell_size_m
    terrain = correlated_field(shape, size, parameters.terrain_spacings * spacing_m, rng)
    buildings = correlated_field(shape, size, site.shadowing_m, rng)
    own = math.sqrt(site.terrain_share) * terrain + math.sqrt(1 - site.terrain_share) * buildings
    shared = parameters.site_correlation
    return np.asarray(site.shadowing_db * (math.sqrt(shared) * common_db[window] + math.sqrt(1 - shared) * own))


def _carrier_shares(strongest_dbm: np.ndarray, parameters: SimulatorParameters) -> np.ndarray:
    """Share of a cell's devices on each carrier, (n_carriers, height, width), float32; sums to one where any carrier is heard."""
    shares = np.zeros_like(strongest_dbm)
    for loss_db, devices in parameters.penetration:
        left = np.full(strongest_dbm.shape[1:], devices, np.float32)
        for number, carrier in enumerate(parameters.carriers):
            heard = strongest_dbm[number] > -190
            margin = (strongest_dbm[number] - loss_db - carrier.threshold_dbm) / np.float32(_THRESHOLD_SPREAD_DB)
            enough = np.where(heard, ndtr(margin), 0).astype(np.float32)
            shares[number] += left * enough
            left *= 1 - enough
        # Devices for whom no carrier is strong enough stay on the last one there is.
        remaining = left
        for number in reversed(range(len(parameters.carriers))):
            heard = strongest_dbm[number] > -190
            shares[number] += np.where(heard, remaining, 0)
            remaining = np.where(heard, 0, remaining)
    return shares
