"""Make the sample city Portmare: `/usr/bin/python3 resources/sample_city/make.py`.

Every layer is one function below, and each draws from a random generator of its own,
so adding a layer changes no other.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

os.environ.setdefault("PROJ_DATA", "/usr/share/proj")  # a venv over system packages does not find it

from portmare.buildings import Building, make_buildings
from portmare.geopackage import Layer, write
from portmare.landmarks import Landmark, Query, make_landmarks, make_queries, write_photos
from portmare.measurements import Trip, make_trips, write_table
from portmare.sites import HOURS, Cell, Site, make_cells, make_sites
from portmare.streets import SPEED, Street, make_streets
from portmare.terrain import Terrain, make_terrain, populate
from shapely.geometry import Point

SEED = 2024
OUT = Path(__file__).with_name("sample_city.gpkg")


@dataclass(frozen=True)
class City:
    """Everything the layers are made from."""

    seed: int
    terrain: Terrain
    streets: list[Street]
    sites: list[Site]
    cells: list[Cell]
    buildings: list[Building]
    trips: list[Trip]
    landmarks: list[Landmark]
    queries: list[Query]


def make_city(seed: int) -> City:
    """Make the city: what comes later builds on what came before."""
    terrain = make_terrain(seed)
    streets = make_streets(terrain, seed)
    sites = make_sites(terrain, streets, seed)
    cells = make_cells(sites, seed)
    trips = make_trips(streets, cells, seed)
    buildings = make_buildings(terrain, streets, seed)
    landmarks = make_landmarks(streets, buildings, trips)
    queries = make_queries(landmarks, trips, seed)
    return City(seed, terrain, streets, sites, cells, buildings, trips, landmarks, queries)


def base_stations(city: City) -> Layer:
    """One point per site, with its traffic by hour."""
    fields = {
        "bs_id": str,
        "name": str,
        "urbanisation": str,
        "height_m": float,
        "sectors": int,
        "eirp_dbm": float,
        "freq_mhz": int,
        **dict.fromkeys(HOURS, float),
    }
    rows = (
        (Point(s.point), (s.bs_id, s.name, s.urbanisation, s.height_m, s.sectors, s.eirp_dbm, s.freq_mhz, *s.traffic))
        for s in city.sites
    )
    return Layer(
        "base_stations",
        "Sites; h00 to h23 are the traffic volume of each hour of a working day [MB]",
        "Point",
        fields,
        rows,
    )


def cells(city: City) -> Layer:
    """One point per sector, at its site's coordinates."""
    fields = {
        "cell_id": str,
        "bs_id": str,
        "azimuth_deg": int,
        "tilt_deg": int,
        "height_m": float,
        "freq_mhz": int,
        "eirp_dbm": float,
        "beamwidth_deg": int,
    }
    rows = (
        (
            Point(c.site.point),
            (
                c.cell_id,
                c.site.bs_id,
                c.azimuth_deg,
                c.tilt_deg,
                c.site.height_m,
                c.site.freq_mhz,
                c.site.eirp_dbm,
                c.beamwidth_deg,
            ),
        )
        for c in city.cells
    )
    return Layer(
        "cells",
        "Sectors at their sites; azimuth clockwise from north, beamwidth 360 is an omni antenna",
        "Point",
        fields,
        rows,
    )


def boundary(city: City) -> Layer:
    """Return the municipality's land."""
    rows = [(city.terrain.land, ("Portmare",))]
    return Layer(
        "boundary",
        "The municipality's dry land: two banks and an island; the lake is a hole",
        "MultiPolygon",
        {"name": str},
        rows,
    )


def water(city: City) -> Layer:
    """Sea, river and lake inside the map frame."""
    t = city.terrain
    rows = [(t.sea, ("sea", "Portmare Bay")), (t.river, ("river", "River Weir")), (t.lake, ("lake", "Heron Mere"))]
    return Layer("water", "Sea, river and lake inside the map frame", "MultiPolygon", {"kind": str, "name": str}, rows)


def zones(city: City) -> Layer:
    """Return the districts, which tile the boundary."""
    people = populate(city.terrain, city.seed)
    rows = [(shape, (f"Z{k:02d}", name, n)) for k, ((name, shape), n) in enumerate(zip(city.terrain.zones, people), 1)]
    return Layer(
        "zones",
        "Districts with their residents; together they are exactly the boundary",
        "MultiPolygon",
        {"zone_id": str, "name": str, "population": int},
        rows,
    )


def streets(city: City) -> Layer:
    """Return the street network, split at junctions."""
    fields = {"class": str, "name": str, "oneway": int, "speed_kmh": int, "bridge": int}
    rows = ((s.line, (s.kind, s.name, s.oneway, SPEED[s.kind], s.bridge)) for s in city.streets)
    return Layer(
        "streets",
        "Street graph: lines meet only at their ends; oneway 1 runs in the line's direction",
        "LineString",
        fields,
        rows,
    )


def buildings(city: City) -> Layer:
    """Footprints."""
    fields = {"height_m": float, "levels": int, "use": str, "name": str}
    rows = ((b.shape, (b.height_m, b.levels, b.use, b.name)) for b in city.buildings)
    return Layer(
        "buildings", "Footprints of the centre and some suburbs; landmarks have a name", "Polygon", fields, rows
    )


def walks_truth(city: City) -> Layer:
    """Where the devices of measurements_unlabelled.csv really were."""
    rows = (
        (Point(xy), (trip.device, trip.number, datetime.fromtimestamp(time_s, timezone.utc)))
        for trip in city.trips
        if not trip.labelled
        for time_s, xy in zip(trip.reports.time_s.tolist(), trip.reports.xy_m)
    )
    return Layer(
        "walks_truth",
        "Where the devices of measurements_unlabelled.csv were, one point a report",
        "Point",
        {"device": str, "trajectory": int, "time": datetime},
        rows,
    )


def landmarks(city: City) -> Layer:
    """Where somebody stands who sees a landmark as its photo shows it."""
    rows = ((Point(one.point), (one.name, one.kind, one.photo, one.direction_deg)) for one in city.landmarks)
    return Layer(
        "landmarks",
        "Where landmarks are seen as in their photos; kind location: made to locate by, service: a sight",
        "Point",
        {"landmark_id": str, "kind": str, "photo": str, "direction_deg": int},
        rows,
    )


def landmark_queries(city: City) -> Layer:
    """Photos that the devices of measurements_unlabelled.csv took."""
    rows = ((None, (one.device, one.photo, datetime.fromtimestamp(one.time_s, timezone.utc))) for one in city.queries)
    return Layer(
        "landmark_queries",
        "Photos that the devices of measurements_unlabelled.csv took on their way; nothing tells where",
        "None",
        {"device": str, "photo": str, "time": datetime},
        rows,
    )


LAYERS = [
    base_stations,
    cells,
    boundary,
    water,
    zones,
    streets,
    buildings,
    walks_truth,
    landmarks,
    landmark_queries,
]
#: Tables beside the GeoPackage, and whether they hold the true positions.
TABLES = {"measurements.csv": True, "measurements_unlabelled.csv": False}


def main(seed: int = SEED, out: Path = OUT) -> City:
    """Make the city and write it: the GeoPackage, and the tables and photos beside it.

    Parameters
    ----------
    seed : int
        The same seed gives the same city.
    out : Path
        The GeoPackage; replaced if it exists, as are the tables and photos in its folder.

    Returns
    -------
    City
    """
    city = make_city(seed)
    write([layer(city) for layer in LAYERS], Path(out))
    ids = [c.cell_id for c in city.cells]
    for name, labelled in TABLES.items():
        write_table([t for t in city.trips if t.labelled == labelled], ids, Path(out).with_name(name), labelled)
    write_photos(city.landmarks, city.queries, Path(out).parent, seed)
    return city


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    main(arguments.seed, arguments.out)
