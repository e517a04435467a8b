"""Simulated drive tests: what devices on journeys hear of a network, as measurement reports (MRs).

The received power of a sector is its EIRP, less the path loss of TR 38.901, with its antenna's gain and its site's shadowing. The
shadowing is a fixed field of the place: whoever comes again, with whatever device, finds it there. A device adds an offset of its
own, each journey its own surroundings and fast fading, and a report holds the serving cell and the strongest neighbours, in whole dB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..grid import Grid
from .antennas import BEAM_WIDTH_DEG, MOST_ATTENUATION_DB, sector_gain_db, vertical_loss_db
from .journeys import Journey
from .path_loss import DEVICE_HEIGHT_M, SCENARIOS, path_loss_db
from .shadowing import correlated_field

#: Most cells one report holds: the serving one and six neighbours, as in the tables of the DeepLoc paper (section 2.1).
MOST_CELLS = 7
#: Beam widths from here on are an antenna without a preferred direction [°].
_OMNI_DEG = 360.0
#: Received powers and fading are computed for this many reports at once.
_REPORTS_AT_ONCE = 4096


@dataclass(frozen=True)
class DriveTestParameters:
    """What a drive test depends on beside network, journeys and seeds. Each default has its source.

    Parameters
    ----------
    shadowing_db
        Standard deviation of the shadowing by scenario [dB]: TR 38.901 table 7.4.1-1, NLOS (UMa 6, UMi 7.82, RMa 8).
    correlation_m
        Its correlation distance by scenario [m]: TR 38.901 table 7.5-6, NLOS (UMa 50, UMi 13, RMa 120); the autocorrelation is
        e^(−d / correlation), clause 7.4.4.
    site_correlation
        Correlation of shadowing between sites: 0.5, between sectors of a site 1 (TR 36.942 clause 4.3).
    cell_size_m
        Of the grid that holds the shadowing [m]; between its centres it is interpolated.
    fading_db
        Standard deviation of what is left of fast fading [dB] after the averages of layer 1 (TS 36.133 clause 8.1.2.2) and layer 3
        (TS 36.331 clause 5.5.3.2). Chosen so that reports 2 s apart differ by about 2 dB; in the Jiading 2G set it is 1.5.
    fading_s, fading_m
        Time [s] and distance [m] over which it is forgotten: layer 3's filter, and some wavelengths.
    journey_db
        Standard deviation of what differs at one place from a journey to the next [dB]: body and hand, vehicles, doors, leaves; alike
        for the sectors of a site. In the Jiading 2G set reports of two trajectories within 8 m differ by 6.0 dB beside their mean.
    journey_s, journey_m
        Time [s] and distance [m] over which it is forgotten. Chosen as `fading_db`.
    offset_db
        Standard deviation of the offset between devices [dB]: the accuracy of ±6 dB that TS 36.133 clause 9.1.2 asks for as two of it.
    vehicle_loss_db, vehicle_spread_db
        Mean and standard deviation of the loss into a car [dB]: TR 38.901 clause 7.4.3.2 (9 and 5).
    noise_dbm
        Noise in a resource element [dBm]: −174 dBm/Hz over 15 kHz and a noise figure of 9 dB (TR 36.942 table 4.8).
    least_snr_db
        A cell is found above this ratio to the noise [dB]: Ês/Iot ≥ −6 dB, TS 36.133 clause 8.1.2.2.1.
    least_share_db
        On one carrier a cell is found unless it is this much weaker than the strongest [dB]. Usual practice: 20.
    margin_db
        A neighbour takes over when it is this much stronger than the serving cell [dB]: event A3 with its hysteresis and offset
        (TS 36.331 clause 5.5.4.4). Usual practice: 3.
    range_dbm
        Weakest and strongest power that can be reported [dBm] (TS 36.133 table 9.1.4-1).
    alone_probability
        Of a report with the serving cell only.
    missed_probability
        Of a neighbour missing from a report. Both as often as in tables people have.
    """

    shadowing_db: Mapping[str, float] = field(default_factory=lambda: {"UMa": 6.0, "UMi": 7.82, "RMa": 8.0})
    correlation_m: Mapping[str, float] = field(default_factory=lambda: {"UMa": 50.0, "UMi": 13.0, "RMa": 120.0})
    site_correlation: float = 0.5
    cell_size_m: float = 10.0
    fading_db: float = 1.0
    fading_s: float = 2.0
    fading_m: float = 2.0
    journey_db: float = 4.0
    journey_s: float = 30.0
    journey_m: float = 60.0
    offset_db: float = 3.0
    vehicle_loss_db: float = 9.0
    vehicle_spread_db: float = 5.0
    noise_dbm: float = -123.2
    least_snr_db: float = -6.0
    least_share_db: float = 20.0
    margin_db: float = 3.0
    range_dbm: tuple[float, float] = (-140.0, -44.0)
    alone_probability: float = 0.02
    missed_probability: float = 0.15


@dataclass(frozen=True)
class Sectors:
    """The sectors of a network.

    Parameters
    ----------
    site
        Which site a sector belongs to, shape (n,), int, from 0.
    xy_m
        Position [m], shape (n, 2).
    height_m, azimuth_deg, tilt_deg
        Of the antenna [m], [°] clockwise from north, [°] below the horizon, shape (n,).
    beam_width_deg
        Horizontal half-power beam width [°], shape (n,); 360: no preferred direction.
    eirp_dbm
        EIRP in a resource element, in the beam's peak [dBm], shape (n,).
    freq_mhz
        Carrier [MHz], shape (n,).
    scenario
        Index into `path_loss.SCENARIOS`, shape (n,).
    """

    site: np.ndarray
    xy_m: np.ndarray
    height_m: np.ndarray
    azimuth_deg: np.ndarray
    tilt_deg: np.ndarray
    beam_width_deg: np.ndarray
    eirp_dbm: np.ndarray
    freq_mhz: np.ndarray
    scenario: np.ndarray

    def __len__(self) -> int:
        return len(self.site)


@dataclass(frozen=True)
class Reports:
    """Measurement reports of one journey.

    Parameters
    ----------
    time_s, xy_m
        When [s] and where [m], shape (n,) and (n, 2).
    sector
        Sectors heard, the serving one first, then from strong to weak, shape (n, 7), int32, −1 for none.
    rss_dbm
        Received power of each (RSRP), in whole dBm, shape (n, 7), float32, NaN for none.
    """

    time_s: np.ndarray
    xy_m: np.ndarray
    sector: np.ndarray
    rss_dbm: np.ndarray

    def __len__(self) -> int:
        return len(self.time_s)


class RadioField:
    """What is received where, on average over a few metres: the same for every journey.

    Parameters
    ----------
    sectors
        The network.
    bounds
        Where journeys may lead: x_min, y_min, x_max, y_max [m].
    parameters
        See `DriveTestParameters`.
    seed
        Of the shadowing. Each site has a generator of its own, so that a further site changes none of the others.
    """

    def __init__(
        self,
        sectors: Sectors,
        bounds: tuple[float, float, float, float],
        parameters: DriveTestParameters,
        seed: int,
    ) -> None:
        self.sectors, self.parameters = sectors, parameters
        size = parameters.cell_size_m
        x_min, y_min, x_max, y_max = bounds
        # A cell more on each side, for the interpolation between centres.
        self.grid = Grid.covering((x_min - size, y_min - size, x_max + size, y_max + size), size)
        self.bounds = bounds
        sites = np.unique(sectors.site)
        self._first = np.array([np.flatnonzero(sectors.site == site)[0] for site in sites], dtype=int)
        #: Which site a sector belongs to, from 0 without gaps, shape (n_sectors,).
        self.site_of = np.searchsorted(sites, sectors.site)
        self.n_sites = len(sites)
        shared = parameters.site_correlation
        fields = np.empty((len(sites), *self.grid.shape), np.float32)
        common = {}
        for number, (site, sector) in enumerate(zip(sites, self._first)):
            scenario = SCENARIOS[sectors.scenario[sector]]
            distance = parameters.correlation_m[scenario]
            if scenario not in common:
                rng = np.random.default_rng([seed, 0, int(sectors.scenario[sector])])
                common[scenario] = correlated_field(self.grid.shape, size, distance, rng)
            own = correlated_field(self.grid.shape, size, distance, np.random.default_rng([seed, 1, int(site)]))
            fields[number] = np.sqrt(shared) * common[scenario] + np.sqrt(1 - shared) * own
            fields[number] *= parameters.shadowing_db[scenario]
        self._fields = fields

    def shadowing_db(self, xy_m: np.ndarray) -> np.ndarray:
        """Shadowing at places, shape (n, 2) [m] → (n, n_sectors) [dB].

        Raises
        ------
        InputError
            When a place is outside the bounds.
        """
        x_min, y_min, x_max, y_max = self.bounds
        outside = ~((xy_m >= (x_min, y_min)) & (xy_m <= (x_max, y_max))).all(axis=1)
        if outside.any():
            place = xy_m[outside][0]
            raise InputError(
                f"({place[0]:.0f}, {place[1]:.0f}) m is outside of the bounds {self.bounds} of the radio field."
            )
        size = self.grid.cell_size_m
        column = (xy_m[:, 0] - self.grid.x_min) / size - 0.5
        row = (self.grid.y_max - xy_m[:, 1]) / size - 0.5
        left, top = np.floor(column).astype(int), np.floor(row).astype(int)
        u, v = column - left, row - top
        fields = self._fields
        upper = fields[:, top, left] * (1 - u) + fields[:, top, left + 1] * u
        lower = fields[:, top + 1, left] * (1 - u) + fields[:, top + 1, left + 1] * u
        return np.asarray((upper * (1 - v) + lower * v).T[:, self.site_of])

    def mean_dbm(self, xy_m: np.ndarray) -> np.ndarray:
        """Received power without shadowing, shape (n, 2) [m] → (n, n_sectors) [dBm]."""
        s = self.sectors
        received = np.empty((len(xy_m), len(s)))
        for column in range(len(s)):
            east, north = (xy_m - s.xy_m[column]).T
            distance = np.hypot(east, north)
            height = float(s.height_m[column])
            loss = path_loss_db(SCENARIOS[s.scenario[column]], distance, float(s.freq_mhz[column]), height)
            depression = np.degrees(np.arctan2(height - DEVICE_HEIGHT_M, np.maximum(distance, 1.0)))
            width, tilt = float(s.beam_width_deg[column]), float(s.tilt_deg[column])
            if width >= _OMNI_DEG:
                gain = -np.minimum(vertical_loss_db(depression, tilt), MOST_ATTENUATION_DB)
            else:
                offset = (np.degrees(np.arctan2(east, north)) - s.azimuth_deg[column] + 180) % 360 - 180
                stretched = np.clip(offset * BEAM_WIDTH_DEG / width, -180, 179.999)  # the pattern is one of 65°
                gain = sector_gain_db(stretched, depression, tilt)
            received[:, column] = s.eirp_dbm[column] + gain - loss
        return received

    def local_mean_dbm(self, xy_m: np.ndarray) -> np.ndarray:
        """Received power with shadowing, shape (n, 2) [m] → (n, n_sectors) [dBm]."""
        return self.mean_dbm(xy_m) + self.shadowing_db(xy_m)


def draw_device_offset_db(parameters: DriveTestParameters, rng: np.random.Generator) -> float:
    """Draw a device's offset [dB]: how much more than another it reports of everything."""
    return float(parameters.offset_db * rng.standard_normal())


def draw_vehicle_loss_db(parameters: DriveTestParameters, rng: np.random.Generator) -> float:
    """Draw the loss into a vehicle on one journey [dB], at least 0."""
    return max(0.0, float(parameters.vehicle_loss_db + parameters.vehicle_spread_db * rng.standard_normal()))


def measurement_reports(
    radio: RadioField,
    journey: Journey,
    rng: np.random.Generator,
    device_offset_db: float = 0.0,
    loss_db: float = 0.0,
) -> Reports:
    """Simulate what a device reports on a journey.

    Parameters
    ----------
    radio
        What is received where.
    journey
        Positions [m] within the field's bounds, with their times, one report each.
    rng
        Of fading, of the journey's surroundings, and of what reports miss.
    device_offset_db
        Added to whatever the device measures [dB].
    loss_db
        Into the vehicle [dB]; it weakens the signal but not the noise.

    Returns
    -------
    Reports
        A report without any cell in it is possible, where nothing is heard.
    """
    parameters, n = radio.parameters, len(journey.time_s)
    sector = np.full((n, MOST_CELLS), -1, np.int32)
    rss = np.full((n, MOST_CELLS), np.nan, np.float32)
    missed = rng.random((n, MOST_CELLS - 1)) < parameters.missed_probability
    missed |= (rng.random(n) < parameters.alone_probability)[:, None]
    quick = _memory(journey, parameters.fading_s, parameters.fading_m)
    slow = _memory(journey, parameters.journey_s, parameters.journey_m)
    slow_rng = np.random.default_rng(
        int(rng.integers(2**62))
    )  # so that it does not matter how reports are cut into parts
    fading = rng.standard_normal((1, len(radio.sectors)))
    surroundings = slow_rng.standard_normal((1, radio.n_sites))
    serving = -1
    for start in range(0, n, _REPORTS_AT_ONCE):
        part = slice(start, min(start + _REPORTS_AT_ONCE, n))
        received = radio.local_mean_dbm(journey.xy_m[part]) - loss_db
        fading = _correlated(quick[part], fading[-1], rng)
        surroundings = _correlated(slow[part], surroundings[-1], slow_rng)
        received += parameters.fading_db * fading
        received += parameters.journey_db * surroundings[:, radio.site_of]
        heard = _heard(received, radio.sectors.freq_mhz, parameters)
        # Signal and noise add in power; a device cannot tell them apart.
        measured = 10 * np.log10(10 ** (received / 10) + 10 ** (parameters.noise_dbm / 10))
        measured = np.where(heard, measured, -np.inf)
        choice = _serving(measured, serving, parameters.margin_db)
        serving = int(choice[-1])
        sector[part], rss[part] = _ranked(measured, choice, missed[part])
    low, high = parameters.range_dbm
    rss = np.clip(np.round(rss + np.float32(device_offset_db)), low, high)
    return Reports(journey.time_s, journey.xy_m, sector, np.where(sector >= 0, rss, np.float32(np.nan)))


def _memory(journey: Journey, over_s: float, over_m: float) -> np.ndarray:
    """Correlation with the report before, of what is forgotten over a time [s] and a distance [m], shape (n,)."""
    waited = np.diff(journey.time_s, prepend=journey.time_s[:1])
    moved = np.hypot(*np.diff(journey.xy_m, axis=0, prepend=journey.xy_m[:1]).T)
    return np.asarray(np.exp(-waited / over_s - moved / over_m))


def _correlated(memory: np.ndarray, last: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standard normal series, correlated from report to report by `memory` (n,), that follow `last` (k,): shape (n, k)."""
    noise = rng.standard_normal((len(memory), len(last)))
    for row, share in enumerate(memory):
        last = share * last + np.sqrt(1 - share**2) * noise[row]
        noise[row] = last
    return noise


def _heard(received_dbm: np.ndarray, freq_mhz: np.ndarray, parameters: DriveTestParameters) -> np.ndarray:
    """Whether a device finds each sector, shape (n, n_sectors)."""
    heard = received_dbm >= parameters.noise_dbm + parameters.least_snr_db
    for carrier in np.unique(freq_mhz):
        on_it = freq_mhz == carrier
        strongest = received_dbm[:, on_it].max(axis=1, keepdims=True)
        heard[:, on_it] &= received_dbm[:, on_it] >= strongest - parameters.least_share_db
    return np.asarray(heard)


def _serving(measured_dbm: np.ndarray, serving: int, margin_db: float) -> np.ndarray:
    """Sector that serves at each report, shape (n,), −1 for none: the one before until another is stronger by a margin."""
    strongest = measured_dbm.argmax(axis=1)
    result = np.empty(len(measured_dbm), int)
    for row, best in enumerate(strongest):
        top = measured_dbm[row, best]
        if not np.isfinite(top):
            serving = -1
        elif serving < 0 or top > measured_dbm[row, serving] + margin_db:
            serving = int(best)
        result[row] = serving
    return result


def _ranked(measured_dbm: np.ndarray, serving: np.ndarray, missed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sectors of each report and their power, shape (n, 7) each: the serving one, then the strongest neighbours not missed."""
    n, n_sectors = measured_dbm.shape
    every = np.arange(n)[:, None]
    first = measured_dbm.copy()
    served = serving >= 0
    first[served, serving[served]] = np.inf
    width = min(MOST_CELLS, n_sectors)
    order = np.argsort(-first, axis=1, kind="stable")[:, :width]
    power = measured_dbm[every, order]
    kept = np.isfinite(power)
    kept[:, 1:] &= ~missed[:, : width - 1]
    place = np.argsort(~kept, axis=1, kind="stable")
    order, power, kept = order[every, place], power[every, place], kept[every, place]
    sector = np.full((n, MOST_CELLS), -1, np.int32)
    rss = np.full((n, MOST_CELLS), np.nan, np.float32)
    sector[:, :width] = np.where(kept, order, -1)
    rss[:, :width] = np.where(kept, power, np.nan)
    return sector, rss
