"""Measurement reports of walks and drives in the centre of Portmare: eight devices, three days with positions and one without.

Every device goes about between a few places of the centre; what it hears is simulated by `models/radio/drive_test.py`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from osgeo import osr

from .geopackage import EPSG, ORIGIN
from .science import drive_test, journeys, path_loss
from .shapes import generator
from .sites import Cell
from .streets import SPEED, Street

CENTRE, RADIUS = (12250.0, 8700.0), 1100.0  # the district where people walk: 3.8 km² [m]
PLACES, APART = 16, 380.0  # where they go, and how far these are from each other [m]
DEVICES = ("walk-1", "walk-2", "walk-3", "bike-1", "bike-2", "bus-1", "car-1", "car-2")
MINUTES = {"walk": (8.0, 11.0), "bike": (5.5, 8.0), "bus": (6.0, 8.0), "car": (4.0, 5.5)}
FIRST_DAY, DAYS = datetime(2025, 3, 4, tzinfo=timezone.utc), 3  # a Tuesday; the day after these comes without positions
LAST_DEVICES = ("walk-1", "walk-3", "bike-2", "bus-1", "car-2")  # those out on the last day
INTERVAL, JITTER = 2.0, 0.12  # seconds between reports
RESOURCE_ELEMENTS = 1200  # of 20 MHz: a cell's EIRP is that of all of them
CELLS = range(1, drive_test.MOST_CELLS + 1)


@dataclass(frozen=True)
class Trip:
    """One device's reports of one day.

    Attributes
    ----------
    device, number : str, int
        Who, and the trajectory's number.
    labelled : bool
        Whether the operator knows the positions.
    reports : drive_test.Reports
        With times in seconds since 1970 and positions in local metres.
    """

    device: str
    number: int
    labelled: bool
    reports: drive_test.Reports


def make_trips(streets: list[Street], cells: list[Cell], seed: int) -> list[Trip]:
    """Let every device go out once a day."""
    graph = _streets_of_the_centre(streets)
    places = _places(graph, generator(seed, "places"))
    rng = generator(seed, "devices")
    parameters = drive_test.DriveTestParameters()
    offsets = {device: drive_test.draw_device_offset_db(parameters, rng) for device in DEVICES}
    haunts = {device: rng.permutation(places)[:5] for device in DEVICES}
    low, high = graph.node_xy_m.min(axis=0) - 100.0, graph.node_xy_m.max(axis=0) + 100.0
    radio = drive_test.RadioField(_sectors(cells), (*low, *high), parameters, seed)
    trips = []
    for day in range(DAYS + 1):
        labelled = day < DAYS
        for device in DEVICES if labelled else LAST_DEVICES:
            rng = generator(seed, f"{device} on day {day}")
            start = FIRST_DAY + timedelta(days=day, hours=rng.uniform(7, 19))
            journey = _journey(graph, device, haunts[device], start.timestamp(), rng)
            rides = device.startswith(("bus", "car"))
            loss = drive_test.draw_vehicle_loss_db(parameters, rng) if rides else 0.0
            reports = drive_test.measurement_reports(radio, journey, rng, offsets[device], loss)
            trips.append(Trip(device, len(trips) + 1, labelled, reports))
    return trips


def _streets_of_the_centre(streets: list[Street]) -> journeys.StreetGraph:
    near = [
        s
        for s in streets
        if s.kind != "motorway" and all(np.hypot(*np.subtract(end, CENTRE)) < RADIUS for end in s.ends)
    ]
    lines = [np.round(s.points, 1) for s in near]
    oneway, limit = np.array([s.oneway for s in near]), np.array([SPEED[s.kind] for s in near])
    return journeys.StreetGraph.of(lines, oneway, limit).well_connected()


def _places(graph: journeys.StreetGraph, rng: np.random.Generator) -> np.ndarray:
    """Junctions apart from each other."""
    chosen: list[int] = []
    for node in rng.permutation(len(graph.node_xy_m)):
        away = np.hypot(*(graph.node_xy_m[chosen] - graph.node_xy_m[node]).T)
        if len(chosen) < PLACES and (away > APART).all():
            chosen.append(int(node))
    return np.array(chosen)


def _journey(
    graph: journeys.StreetGraph, device: str, haunts: np.ndarray, start_s: float, rng: np.random.Generator
) -> journeys.Journey:
    """From haunt to haunt until the time is up."""
    kind = device.split("-")[0]
    motion = journeys.MOTIONS[kind]
    visits = np.concatenate([rng.permutation(haunts) for _ in range(4)])
    visits = visits[np.concatenate([[True], np.diff(visits) != 0])]
    timetable = journeys.travel(graph.route(visits.tolist(), motion.drives), motion, rng)
    least, most = MINUTES[kind]
    journey = journeys.journey(timetable, start_s, INTERVAL, JITTER, rng)
    until = journey.time_s < start_s + 60 * rng.uniform(least, most)
    until &= rng.random(len(until)) > 0.005  # a report in two hundred is lost
    return journeys.Journey(np.round(journey.time_s[until], 3), journey.xy_m[until])


def _sectors(cells: list[Cell]) -> drive_test.Sectors:
    sites = {bs_id: number for number, bs_id in enumerate(dict.fromkeys(c.site.bs_id for c in cells))}
    town = path_loss.SCENARIOS.index("UMa")  # whatever stands around the antenna, the devices are among buildings
    return drive_test.Sectors(
        site=np.array([sites[c.site.bs_id] for c in cells]),
        xy_m=np.array([c.site.point for c in cells]),
        height_m=np.array([c.site.height_m for c in cells]),
        azimuth_deg=np.array([c.azimuth_deg for c in cells], float),
        tilt_deg=np.array([c.tilt_deg for c in cells], float),
        beam_width_deg=np.array([c.beamwidth_deg for c in cells], float),
        eirp_dbm=np.array([c.site.eirp_dbm for c in cells]) - 10 * np.log10(RESOURCE_ELEMENTS),
        freq_mhz=np.array([c.site.freq_mhz for c in cells], float),
        scenario=np.full(len(cells), town),
    )


def lon_lat(local: np.ndarray) -> np.ndarray:
    """Local metres to degrees, both (n, 2)."""
    systems = []
    for code in (EPSG, 4326):
        system = osr.SpatialReference()
        system.ImportFromEPSG(code)
        system.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
        systems.append(system)
    transform = osr.CoordinateTransformation(*systems)
    return np.array([transform.TransformPoint(x, y)[:2] for x, y in (local + ORIGIN).tolist()])


def _strength(rss_dbm: float) -> tuple[int, int, int]:
    """Return ASU, signal level and dBm as Android gives them for LTE: ASU = dBm + 140, level from 0 to 4."""
    dbm = int(rss_dbm)
    return min(max(dbm + 140, 0), 97), sum(dbm >= least for least in (-128, -118, -108, -98)), dbm


def write_table(trips: list[Trip], cell_ids: list[str], path: Path, with_truth: bool) -> None:
    """Write the reports in the wide form of the DeepLoc paper's table 1, cells by their `cell_id`."""
    header = ["IMSI", "TrajID", "MRTime"]
    for i in CELLS:
        header += [f"{name}_{i}" for name in ("RNCID", "CellID", "AsuLevel", "SignalLevel", "Dbm")]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header + ["Longitude", "Latitude"] * with_truth)
        for trip in trips:
            r = trip.reports
            truth = lon_lat(r.xy_m)
            for k in range(len(r)):
                row: list = [trip.device, trip.number, round(r.time_s[k] * 1000)]
                for sector, rss in zip(r.sector[k], r.rss_dbm[k]):
                    if sector < 0:
                        row += [""] * 5
                        continue
                    row += ["", cell_ids[sector], *_strength(rss)]
                table.writerow(row + [f"{value:.6f}" for value in truth[k]] * with_truth)
