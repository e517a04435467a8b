"""Landmarks of the centre of Portmare with their photos, and photos that the devices of measurements_unlabelled.csv took on their way.

`models/landmarks/facades.py` and its like draw façades and photos. Where a landmark is recognised is where somebody stands who sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from PIL import Image
from shapely.geometry import Point

from .buildings import Building
from .measurements import FIRST_DAY, Trip, lon_lat
from .science import facade_photos, facades, monuments
from .shapes import Index, generator
from .streets import Street

#: Buildings with a name that are landmarks, and what they look like: points of interest, so service-oriented.
SIGHTS = {
    "Portmare Cathedral": "church", "Town Hall": "hall", "University Hall": "hall", "Exchange Tower": "tower",
    "Central Station": "station", "Opera House": "hall",
}  # fmt: skip
#: Façades along the ways of the devices: location-oriented. So many, and at least so far from each other and from a wall [m].
FACADES, APART, WALL = 18, 90.0, (4.0, 26.0)
SEEN_FROM = 220.0  # a sight is seen from the devices' ways, or else from a street, this near [m]
#: A device takes a photo where it passes a landmark this near [m], at most so many a trip and so often [s].
PASSES, MOST_PHOTOS, PAUSE = 14.0, 7, 15.0
CHANGE = 0.8  # of a query's view, light and surroundings; 1 is the benchmark's
QUALITY = 78


@dataclass(frozen=True)
class Landmark:
    """A place with a photo.

    Attributes
    ----------
    name, kind : str
        "location" or "service".
    point : numpy.ndarray (2,)
        Where the photo is taken [local m].
    direction_deg : int
        Where the camera looks, clockwise from north.
    look : str
        Of the building: a monument's kind, or "house".
    photo : str
        Relative to the GeoPackage.
    """

    name: str
    kind: str
    point: np.ndarray
    direction_deg: int
    look: str
    photo: str


@dataclass(frozen=True)
class Query:
    """A photo that a device took.

    Attributes
    ----------
    device, photo : str
    time_s : float
        Since 1970.
    landmark : int
        That it shows, -1 for none.
    """

    device: str
    photo: str
    time_s: float
    landmark: int


def make_landmarks(streets: list[Street], buildings: list[Building], trips: list[Trip]) -> list[Landmark]:
    """Choose sights, and façades spread over the ways of the devices without positions."""
    walkable = [s for s in streets if s.kind != "motorway"]
    near_street = Index([s.line for s in walkable])
    found: list[Landmark] = []
    named = {b.name: b for b in buildings if b.name in SIGHTS}
    ways = np.concatenate([t.reports.xy_m for t in trips if not t.labelled])
    for name, look in SIGHTS.items():
        shape = named[name].shape
        stand = min(ways, key=lambda xy: Point(xy).distance(shape))
        if Point(stand).distance(shape) > SEEN_FROM:
            line = min((walkable[k].line for k in near_street.near(shape.buffer(SEEN_FROM))), key=shape.distance)
            stand = np.array(line.interpolate(line.project(shape.centroid)).coords[0])
        found.append(_landmark(name, "service", stand, np.array(shape.centroid.coords[0]), look))
    houses = [b.shape for b in buildings if b.use in ("residential", "office")]
    near_house = Index(houses)
    numbers: dict[str, int] = {}
    away = np.min([np.hypot(*(ways - one.point).T) for one in found], axis=0)
    while len(found) < len(SIGHTS) + FACADES and away.max() > APART:  # the farthest from all others comes next
        row = int(away.argmax())
        here = Point(ways[row])
        house = min((houses[k] for k in near_house.near(here.buffer(WALL[1]))), key=here.distance, default=None)
        if house is None or not WALL[0] <= here.distance(house) <= WALL[1]:
            away[row] = 0.0
            continue
        street = min((walkable[k] for k in near_street.near(here.buffer(30))), key=lambda s: here.distance(s.line))
        number = 1 + int(street.line.project(here) / 9)
        while numbers.setdefault(f"{number} {street.name}", row) != row:
            number += 2
        found.append(
            _landmark(f"{number} {street.name}", "location", ways[row], np.array(house.centroid.coords[0]), "house")
        )
        away = np.minimum(away, np.hypot(*(ways - ways[row]).T))
    return found


def _landmark(name: str, kind: str, stand: np.ndarray, building: np.ndarray, look: str) -> Landmark:
    direction = round(float(np.degrees(np.arctan2(*(building - stand)))) % 360)
    file = "".join(letter if letter.isalnum() else "_" for letter in name.lower())
    return Landmark(name, kind, np.round(stand, 1), direction, look, f"photos/landmarks/{file}.jpg")


def make_queries(landmarks: list[Landmark], trips: list[Trip], seed: int) -> list[Query]:
    """Let the devices take photos of landmarks that they pass, and one each of something else."""
    rng = generator(seed, "queries")
    places = np.array([one.point for one in landmarks])
    found = []
    for trip in trips:
        if trip.labelled:
            continue
        apart = np.hypot(*(trip.reports.xy_m[:, None] - places[None]).transpose(2, 0, 1))
        closest = apart.argmin(axis=0)
        passed = [k for k in np.argsort(closest).tolist() if apart[closest[k], k] <= PASSES]
        moments: list[tuple[float, int]] = []
        for k in passed:
            time_s = round(trip.reports.time_s[closest[k]] + rng.uniform(0.0, 1.5))
            if len(moments) < MOST_PHOTOS and all(abs(time_s - other) >= PAUSE for other, _ in moments):
                moments.append((time_s, k))
        far = np.flatnonzero(apart.min(axis=1) > 2 * PASSES)
        moments.append((round(trip.reports.time_s[rng.choice(far)]), -1))
        for time_s, k in sorted(moments):
            clock = datetime.fromtimestamp(time_s, timezone.utc)
            found.append(Query(trip.device, f"photos/queries/{trip.device}_{clock:%H%M%S}.jpg", float(time_s), k))
    return found


def write_photos(landmarks: list[Landmark], queries: list[Query], folder: Path, seed: int) -> None:
    """Draw all photos into `folder`: those of landmarks know where they were taken, those of devices only when."""
    for kind in ("landmarks", "queries"):
        (folder / "photos" / kind).mkdir(parents=True, exist_ok=True)
        for old in (folder / "photos" / kind).glob("*.jpg"):
            old.unlink()
    painted = []
    for number, (one, (lon, lat)) in enumerate(
        zip(landmarks, lon_lat(np.array([one.point for one in landmarks])).tolist())
    ):
        rng = generator(seed, f"facade {one.name}")
        facade = facades.make_facade(rng) if one.look == "house" else monuments.make_monument(one.look, rng)
        painted.append(facade)
        rng = generator(seed, f"photo {one.name}")
        picture = facade_photos.photograph(facade, facade_photos.reference_view(facade, rng), rng)
        taken = FIRST_DAY - timedelta(days=12) + timedelta(hours=10, minutes=7 * number)
        _write(picture, folder / one.photo, taken, (lon, lat, one.direction_deg))
    for query in queries:
        rng = generator(seed, query.photo)
        if query.landmark < 0:
            picture = facade_photos.unknown_photo(rng)
        else:
            facade = painted[query.landmark]
            picture = facade_photos.photograph(facade, facade_photos.query_view(facade, rng, CHANGE), rng)
        _write(picture, folder / query.photo, datetime.fromtimestamp(query.time_s, timezone.utc))


def _write(picture: np.ndarray, path: Path, taken: datetime, place: tuple[float, float, float] | None = None) -> None:
    """Write a JPEG with EXIF: when it was taken and, if known, where and in which direction."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Portmare", "Seeded camera"
    exif[0x0132] = f"{taken:%Y:%m:%d %H:%M:%S}"
    exif[0x8769] = {0x9003: f"{taken:%Y:%m:%d %H:%M:%S}"}
    if place:
        lon, lat, direction = place
        exif[0x8825] = {
            1: "N" if lat >= 0 else "S", 2: _sexagesimal(lat), 3: "E" if lon >= 0 else "W", 4: _sexagesimal(lon),
            16: "T", 17: float(direction),
        }  # fmt: skip
    Image.fromarray(picture).save(path, "JPEG", quality=QUALITY, exif=exif)


def _sexagesimal(degrees: float) -> tuple[float, float, float]:
    thousandths = round(abs(degrees) * 3_600_000)
    return float(thousandths // 3_600_000), float(thousandths // 60_000 % 60), thousandths % 60_000 / 1000
