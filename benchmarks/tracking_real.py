"""Claim: database correlation and the Time-Forwarding Graph on real measurement reports, beside the localizers."""

from __future__ import annotations

from dataclasses import dataclass

import kit
import mr_data
import numpy as np
from mr_table4 import score

if True:  # `kit` puts the package in place
    from telcoloc.models.grid import Grid
    from telcoloc.models.landmarks.lookup import LookupTable, learn_fingerprints
    from telcoloc.models.landmarks.map_distance import Straight
    from telcoloc.models.landmarks.signal_candidates import CandidateSettings, signal_candidates
    from telcoloc.models.landmarks.tracking import TrackSettings, track
    from telcoloc.models.radio.maps import RadioMapJob, radio_maps
    from telcoloc.models.radio.transmitters import Transmitters
    from telcoloc.models.trajectory.measurements import CellSites, LocalFrame, Measurements
    from telcoloc.models.trajectory.splits import folds, groups

TITLE = "Tracking: database correlation and the graph on real reports"
#: Of the table and of fingerprints [m].
CELL_M = 25.0
#: LTE band 3: F_DL = 1805 MHz + 0.1 (N_DL − 1200), TS 36.101 table 5.7.3-1; the set's carrier is EARFCN 1650.
HUAWEI_FREQ_MHZ = 1850.0
#: Gain of a 65° panel less its feeder [dB], added to the power of a resource element the set states; usual practice. An offset is
#: estimated on top, so it hardly matters.
PANEL_GAIN_DB = 15.0
#: A device on foot or in a car within the city [m/s].
TOP_SPEED_M_S = 20.0
#: Squared errors weigh as over Munich; slack for the table's squares.
TRACK = {
    "top_speed_m_s": TOP_SPEED_M_S,
    "slack_m": 2 * CELL_M,
    "most_forward": 40,
    "error_weight_m": 2.0,
    "kalman": True,
}
LOCALIZERS = ("nbl", "raf", "hmm", "auto")


@dataclass(frozen=True)
class Set:
    """Reports in metres: true positions (n, 2), folds over whole trajectories, and the frame."""

    data: Measurements
    sites: CellSites
    frame: LocalFrame
    xy_m: np.ndarray
    parts: list[np.ndarray]

    @classmethod
    def of(cls, data: Measurements, sites: CellSites) -> Set:
        """Make it, with the folds of the other benchmarks."""
        frame = LocalFrame.around(data.lon, data.lat)
        xy_m = np.column_stack(frame.to_xy(data.lon, data.lat))
        return cls(data, sites, frame, xy_m, folds(groups(data, "trajectory"), 5, np.random.default_rng(0)))

    def grid(self, margin_m: float = 100.0) -> Grid:
        """The grid over all true positions."""
        known = self.xy_m[np.isfinite(self.xy_m).all(axis=1)]
        (x0, y0), (x1, y1) = known.min(axis=0) - margin_m, known.max(axis=0) + margin_m
        return Grid.covering((x0, y0, x1, y1), CELL_M)


def fingerprints(one: Set, test: np.ndarray) -> LookupTable:
    """The table learned from all trajectories that are not held out."""
    rest = ~test & one.data.has_truth
    return learn_fingerprints(one.data.take(rest), one.xy_m[rest], one.grid())


def predicted(one: Set, model: str) -> LookupTable:
    """The table of a propagation model: from what the set tells of its antennas; downtilt 9° as most have."""
    sites = one.sites
    xy_m = np.column_stack(one.frame.to_xy(sites.lon, sites.lat))
    usable = np.isfinite(xy_m).all(axis=1) & (sites.height_m > 3) & np.isfinite(sites.power_dbm)
    rows = np.flatnonzero(usable)
    every = np.ones(len(rows))
    network = Transmitters(
        tuple(sites.ids[row] for row in rows),
        xy_m[rows],
        np.clip(sites.height_m[rows], 5, 100),
        sites.azimuth_deg[rows],
        9.0 * every,
        65.0 * every,
        HUAWEI_FREQ_MHZ * every,
        sites.power_dbm[rows] + PANEL_GAIN_DB,
    )
    return LookupTable.from_radio_maps(radio_maps(RadioMapJob(network, one.grid(), model, threads=2)))


def best_error_m(one: Set, test: np.ndarray, table: LookupTable, offset: str) -> np.ndarray:
    """Error of the best candidate of each held-out record [m]; the grid's middle where there is none."""
    found = signal_candidates(one.data.take(test), table, CandidateSettings(1, offset=offset), threads=2)
    return _errors(found.xy_m, found.first, one.xy_m[test], table)


def track_error_m(one: Set, test: np.ndarray, table: LookupTable) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the best candidate and of the graph's path at each held-out record [m]."""
    settings = CandidateSettings(60, average_s=10.0)
    found = signal_candidates(one.data.take(test), table, settings, threads=2)
    path = track(found, None, None, Straight(), TrackSettings("none", **TRACK))
    return best_error_m(one, test, table, "none"), np.hypot(*(path.xy_m - one.xy_m[test]).T)


def _errors(xy_m: np.ndarray, first: np.ndarray, truth_m: np.ndarray, table: LookupTable) -> np.ndarray:
    count = np.diff(first)
    place = np.tile(table.xy_m.mean(axis=0), (len(count), 1))
    place[count > 0] = xy_m[first[:-1][count > 0]]
    return np.asarray(np.hypot(*(place - truth_m).T))


def figures(errors_m: list[np.ndarray]) -> str:
    """Median / mean / 90 % [m], means over folds as in the other benchmarks."""
    values = np.mean([[np.median(one), one.mean(), np.quantile(one, 0.9)] for one in errors_m], axis=0)
    return " / ".join(f"{value:.0f}" for value in values)


def run(quick: bool) -> kit.Report:
    """Both sets, five folds over whole trajectories."""
    report = kit.Report(
        TITLE,
        f"Five folds over whole trajectories, the same ones for all; errors: median / mean / 90 % [m], means over folds. *DCM*: the best "
        f"place of a table on a {CELL_M:g} m grid by squared error over the six strongest cells. *learned*: fingerprints of the other "
        "trajectories. *3gpp*, *cost231wi*: predicted from the heights, azimuths and powers the set states, without footprints (there are "
        "none of Shanghai), the device's offset estimated; nothing is learned from positions. *TFG*: the graph over 60 candidates on "
        f"RSS averaged over 10 s, without a map, top speed {TOP_SPEED_M_S:g} m/s. The localizers are those of `localizemeasurements`.",
        ("set", "method", "errors"),
    )
    only = 1 if quick else None
    for area in ("a2", "a3"):
        data, sites = mr_data.huawei(area)
        one = Set.of(data, sites)
        name = f"Huawei 4G {area}"
        for model in ("3gpp", "cost231wi"):
            table = predicted(one, model)
            errors = [best_error_m(one, test, table, "estimate") for test in one.parts[:only]]
            report.rows.append((name, f"DCM, {model}", figures(errors)))
        errors = [best_error_m(one, test, fingerprints(one, test), "none") for test in one.parts[:only]]
        report.rows.append((name, "DCM, learned", figures(errors)))
        for method in ("raf", "auto"):
            report.rows.append((name, method, score(data, sites, method, "trajectory", only).cells()[0]))
    data, sites = mr_data.jiading()
    one = Set.of(data, sites)
    both = [track_error_m(one, test, fingerprints(one, test)) for test in one.parts[:only]]
    report.rows.append(("Jiading 2G", "DCM, learned", figures([best for best, _ in both])))
    report.rows.append(("Jiading 2G", "TFG on it", figures([path for _, path in both])))
    for method in LOCALIZERS[: 1 if quick else None]:
        report.rows.append(("Jiading 2G", method, score(data, sites, method, "trajectory", only).cells()[0]))
    return report
