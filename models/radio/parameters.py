"""The parameters of the network simulator, as data in one place, each with its source.

"Tuned" marks those chosen so that the errors of Voronoi, sPDI and VoronoiBoost on simulated networks resemble the published ones
(docs/deepmend.md shows the comparison); nothing was tuned on the French base stations used to test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Carrier:
    """A carrier frequency.

    Parameters
    ----------
    name
        Band.
    freq_mhz
        Downlink frequency [MHz].
    eirp_dbm
        Effective isotropic radiated power in the beam's peak, per reference signal resource element [dBm].
    threshold_dbm
        Reference signal received power (RSRP) above which devices stay on this carrier rather than on one of lower priority [dBm].
    present
        Share of sites with this carrier, by class.
    """

    name: str
    freq_mhz: float
    eirp_dbm: float
    threshold_dbm: float
    present: Mapping[str, float]


@dataclass(frozen=True)
class SiteClass:
    """What the sites of one urbanisation have in common.

    Parameters
    ----------
    scenario
        Scenario of TR 38.901 for the path loss.
    height_m
        Median height of the antennas [m].
    sectors
        Probabilities of one (omnidirectional), one (directional), two, three and four sectors.
    shadowing_db
        Standard deviation of the shadowing between places [dB].
    terrain_share
        Share of that variance which is alike over whole districts, the rest over `shadowing_m` (buildings).
    shadowing_m
        Correlation distance of the latter [m].
    directional_db
        Standard deviation of a smooth gain over the directions of the compass [dB]: horizon, unequal sectors, tilts and powers.
    """

    scenario: str
    height_m: float
    sectors: tuple[float, float, float, float, float]
    shadowing_db: float
    terrain_share: float
    shadowing_m: float
    directional_db: float


@dataclass(frozen=True)
class SimulatorParameters:
    """Everything `simulate` needs beside the layout and a seed."""

    #: EIRP: 46 dBm per 20 MHz (TR 36.942 table 4.13 and usual practice) less 31 dB for 1,200 resource elements, plus an 18 dBi panel less
    #: 3 dB of feeder. Priorities in order: capacity layers first, as operators do (absolute priorities of TS 36.304 clause 5.2.4.5).
    carriers: tuple[Carrier, ...] = (
        Carrier("2600", 2650.0, 30.0, -102.0, {"urban": 0.95, "suburban": 0.6, "rural": 0.15}),
        Carrier("1800", 1840.0, 30.0, -106.0, {"urban": 1.0, "suburban": 0.9, "rural": 0.55}),
        Carrier("800", 806.0, 30.0, -140.0, {"urban": 0.9, "suburban": 1.0, "rural": 1.0}),
    )
    #: Heights: TR 38.901 tables 7.2-1 and 7.2-3 (UMa 25 m, RMa 35 m). Shadowing: table 7.4.1-1 (UMa 6 dB, RMa 8 dB; here 5 and 6, as
    #: the cell's mean over 100 m varies less) and its correlation distances, table 7.5-6 (UMa NLOS 50 m, RMa NLOS 120 m). Sector
    #: shares: usual practice. Terrain's share and the directional gain: tuned.
    classes: Mapping[str, SiteClass] = field(
        default_factory=lambda: {
            "urban": SiteClass("UMa", 28.0, (0.04, 0.04, 0.10, 0.77, 0.05), 5.0, 0.5, 50.0, 6.0),
            "suburban": SiteClass("UMa", 30.0, (0.02, 0.05, 0.13, 0.78, 0.02), 6.0, 0.5, 50.0, 13.0),
            "rural": SiteClass("RMa", 35.0, (0.02, 0.05, 0.13, 0.78, 0.02), 6.0, 0.5, 120.0, 14.0),
        }
    )
    #: Correlation distance of the terrain's part, in local spacings. Tuned.
    terrain_spacings: float = 1.0
    #: Correlation of shadowing between sites (TR 36.942 clause 4.3: 0.5). What is common to all sites cancels in cell selection.
    site_correlation: float = 0.5
    #: Log-normal spread of heights, and of EIRP between sites [dB]. Tuned.
    height_spread: float = 0.25
    eirp_spread_db: float = 4.0
    #: Downtilt points the beam's centre at this many local spacings, within limits [°], with an error [°]. Usual planning practice.
    tilt_spacings: float = 0.7
    tilt_limits_deg: tuple[float, float] = (0.0, 10.0)
    tilt_error_deg: float = 1.5
    #: What a device in a cell sees beyond the cell's mean [dB]: buildings within the cell, fast fading (Rayleigh, 5.6 dB, less what
    #: layer-3 filtering averages, TS 36.331 clause 5.5.3.2), cell selection's hysteresis (q-Hyst), load and its steering. Tuned as a
    #: whole, by class of the nearest site.
    residual_db: Mapping[str, float] = field(default_factory=lambda: {"urban": 8.0, "suburban": 14.0, "rural": 16.0})
    #: Penetration losses [dB] and the share of devices behind each (TR 38.901 clause 7.4.3: low-loss and high-loss buildings).
    penetration: tuple[tuple[float, float], ...] = ((0.0, 0.3), (12.0, 0.4), (20.0, 0.3))
    #: Beyond this many local spacings a site serves ever less, as if its signal fell by `beyond_db` more per decade of distance: radio
    #: horizon, downtilt's side lobes, neighbour lists and timing advance end what the path loss alone would not. Tuned.
    horizon_spacings: float = 1.5
    beyond_db: float = 80.0
    #: A site is computed to this many of its local spacings in east and north, and at least this far [m].
    reach_spacings: float = 10.0
    least_reach_m: float = 3_000.0
    #: P(i|ℓ) below this are left out and the cell is scaled back to one.
    min_probability: float = 1e-3


def error_matched_parameters() -> SimulatorParameters:
    """A second tuning, for the paper's KS2 alone: no horizon but a sharp end of service after six local spacings.

    The paper's errors ask for wider maps than the published VoronoiBoost scales allow: what holds 37 % of its mass inside its Voronoi
    cell is hardly .7 away from it. The default heeds both and meets the scales; this one meets the errors, and shows in benchmarks what
    the comparison is like then.
    """
    residual_db = {"urban": 6.5, "suburban": 14.0, "rural": 16.0}
    return replace(SimulatorParameters(), residual_db=residual_db, beyond_db=0.0, reach_spacings=6.0)
