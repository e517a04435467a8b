import csv
import hashlib
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from osgeo import osr
from PIL import Image
from qgis.core import Qgis
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from shapely import wkb
from shapely.geometry import Point
from shapely.ops import unary_union
from shapely.prepared import prep

HERE = Path(__file__).resolve().parents[2] / "resources" / "sample_city"
GPKG = HERE / "sample_city.gpkg"
MADE_WITH_GEOS = "3.11."  # Debian 12's
LAYERS = ["base_stations", "cells", "boundary", "water", "zones", "streets", "buildings", "walks_truth", "landmarks"]
PLAIN = ["landmark_queries"]  # tables without geometry
TABLES = ["measurements.csv", "measurements_unlabelled.csv"]


def read(path, layer):
    """Rows as dicts, geometries as shapely; sqlite alone, so that nothing can write to the file."""
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as db:
        db.row_factory = sqlite3.Row
        rows = [dict(row) for row in db.execute(f'SELECT * FROM "{layer}" ORDER BY fid')]  # noqa: S608 - our own names
    for row in rows:
        if "geom" not in row:
            continue
        blob = row.pop("geom")
        header = 8 + {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}[blob[3] >> 1 & 7]
        row["wkb"] = blob[header:]
        row["geom"] = wkb.loads(row["wkb"])
    return rows


@pytest.fixture(scope="module")
def city():
    return {layer: read(GPKG, layer) for layer in LAYERS + PLAIN}


@pytest.fixture(scope="module")
def water(city):
    return unary_union([row["geom"] for row in city["water"]])


def read_table(name):
    with (HERE / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def reports():
    """Rows of the table with positions, and these in metres of the city's CRS."""
    rows = read_table("measurements.csv")
    systems = [osr.SpatialReference(), osr.SpatialReference()]
    for system, code in zip(systems, (4326, 32628)):
        system.ImportFromEPSG(code)
        system.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    transform = osr.CoordinateTransformation(*systems)
    places = [transform.TransformPoint(float(row["Longitude"]), float(row["Latitude"]))[:2] for row in rows]
    return rows, np.array(places)


def xy(rows):
    return np.array([row["geom"].coords[0] for row in rows])


def test_the_same_seed_gives_the_committed_city(city, tmp_path):
    """Exactly where GEOS cuts polygons as it did when the city was made; elsewhere in kind and number."""
    again = tmp_path / "again.gpkg"
    subprocess.run([sys.executable, HERE / "make.py", "--out", again], check=True)
    for layer in LAYERS + PLAIN:
        new = read(again, layer)
        if not Qgis.geosVersion().startswith(MADE_WITH_GEOS):
            assert len(new) == pytest.approx(len(city[layer]), rel=0.05)
            assert {frozenset(row) for row in new} == {frozenset(row) for row in city[layer]}
            continue
        assert len(new) == len(city[layer])
        if layer == LAYERS[0]:
            for table in TABLES:
                assert again.with_name(table).read_bytes() == (HERE / table).read_bytes()
            photos = sorted(path.relative_to(HERE) for path in HERE.glob("photos/*/*.jpg"))
            assert sorted(path.relative_to(tmp_path) for path in tmp_path.glob("photos/*/*.jpg")) == photos
            for photo in photos:  # encoders differ from one version of libjpeg to the next
                with Image.open(tmp_path / photo) as one, Image.open(HERE / photo) as other:
                    assert np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 8
        for a, b in zip(new, city[layer]):
            assert {k: v for k, v in a.items() if k != "geom"} == {k: v for k, v in b.items() if k != "geom"}


def test_the_file_is_small_and_alone():
    assert GPKG.stat().st_size < 3e6
    assert not list(HERE.glob("*-wal")) + list(HERE.glob("*-shm"))
    with closing(sqlite3.connect(f"file:{GPKG}?immutable=1", uri=True)) as db:
        assert GPKG.read_bytes()[18:20] == b"\x01\x01"  # rollback journal, not WAL
        described = db.execute("SELECT table_name, description, srs_id FROM gpkg_contents").fetchall()
    assert sorted(name for name, *_ in described) == sorted(LAYERS + PLAIN)
    assert all(text and srs == (0 if name in PLAIN else 32628) for name, text, srs in described)


def test_coordinates_are_rounded_to_a_decimetre(city):
    for layer in ("streets", "zones", "buildings"):
        for row in city[layer][:200]:
            ring = getattr(row["geom"], "geoms", [row["geom"]])[0]
            p = np.array(ring.exterior.coords if hasattr(ring, "exterior") else ring.coords)
            assert np.abs(p * 10 - np.round(p * 10)).max() < 1e-4


def test_zones_tile_the_boundary(city):
    zones = [row["geom"] for row in city["zones"]]
    (boundary,) = [row["geom"] for row in city["boundary"]]
    assert 25 <= len(zones) <= 40
    assert boundary.is_valid
    assert all(zone.is_valid for zone in zones)
    assert abs(sum(z.area for z in zones) - boundary.area) < 1e-6 * boundary.area
    assert unary_union(zones).symmetric_difference(boundary).area < 1e-6 * boundary.area
    for k, a in enumerate(zones):
        assert all(a.intersection(b).area < 1e-3 for b in zones[:k] if a.intersects(b))
    assert all(row["population"] > 0 for row in city["zones"])
    assert len({row["name"] for row in city["zones"]}) == len(zones)


def test_water_and_land_exclude_each_other(city, water):
    land = city["boundary"][0]["geom"]
    assert {row["kind"] for row in city["water"]} == {"sea", "river", "lake"}
    assert land.intersection(water).area < 1e-7 * land.area  # both are rounded to 0.1 m
    lake = next(row["geom"] for row in city["water"] if row["kind"] == "lake")
    assert any(len(part.interiors) for part in land.geoms)
    assert not land.contains(lake.representative_point())


def test_base_stations_stand_apart_on_dry_land(city, water):
    points = xy(city["base_stations"])
    assert 90 <= len(points) <= 120
    assert len({tuple(p) for p in points}) == len(points)
    land = prep(city["boundary"][0]["geom"])
    for row in city["base_stations"]:
        assert land.contains(row["geom"])
        assert row["geom"].distance(water) > 5


def test_spacing_grows_from_urban_to_rural(city):
    nearest = cKDTree(xy(city["base_stations"])).query(xy(city["base_stations"]), k=2)[0][:, 1]
    kind = np.array([row["urbanisation"] for row in city["base_stations"]])
    median = {k: np.median(nearest[kind == k]) for k in ("urban", "suburban", "rural")}
    assert 350 <= median["urban"] <= 500
    assert 1000 <= median["suburban"] <= 1500
    assert 2500 <= median["rural"] <= 4000
    assert np.std(nearest[kind == "urban"]) > 20  # no lattice


def test_ids_are_unique(city):
    for layer, field in (("base_stations", "bs_id"), ("cells", "cell_id"), ("zones", "zone_id")):
        ids = [row[field] for row in city[layer]]
        assert len(set(ids)) == len(ids)


def test_cells_belong_to_their_sites(city):
    sites = {row["bs_id"]: row for row in city["base_stations"]}
    by_site = {}
    for cell in city["cells"]:
        by_site.setdefault(cell["bs_id"], []).append(cell)
    assert set(by_site) == set(sites)
    for bs_id, cells in by_site.items():
        site = sites[bs_id]
        assert len(cells) == site["sectors"]
        assert [c["cell_id"] for c in cells] == [f"{bs_id}_{k + 1}" for k in range(len(cells))]
        assert len({c["azimuth_deg"] for c in cells}) == len(cells)
        for c in cells:
            assert c["wkb"] == site["wkb"]
            assert 0 <= c["azimuth_deg"] < 360
            assert (c["height_m"], c["freq_mhz"], c["eirp_dbm"]) == (
                site["height_m"],
                site["freq_mhz"],
                site["eirp_dbm"],
            )


def test_days_look_like_days(city):
    curve = np.array([[row[f"h{h:02d}"] for h in range(24)] for row in city["base_stations"]])
    kind = np.array([row["urbanisation"] for row in city["base_stations"]])
    assert (curve > 0).all()
    assert (curve[:, 2:6].mean(1) < 0.5 * curve.mean(1)).all()
    peak = curve.argmax(1)
    assert ((peak >= 11) & (peak <= 14)).sum() >= 5  # offices
    assert ((peak >= 19) & (peak <= 22)).sum() >= 30  # homes
    total = curve.sum(1)
    assert np.median(total[kind == "urban"]) > np.median(total[kind == "suburban"]) > np.median(total[kind == "rural"])


def test_every_junction_can_be_reached_from_every_other(city):
    number, rows, cols = {}, [], []
    for street in city["streets"]:
        ends = [tuple(np.round(street["geom"].coords[k], 1)) for k in (0, -1)]
        a, b = (number.setdefault(e, len(number)) for e in ends)
        rows += [a] if street["oneway"] else [a, b]
        cols += [b] if street["oneway"] else [b, a]
    graph = coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(len(number),) * 2)
    assert connected_components(graph, connection="strong")[0] == 1
    assert {s["class"] for s in city["streets"]} == {"motorway", "primary", "secondary", "residential"}
    assert sum(s["bridge"] for s in city["streets"]) >= 4


def test_streets_meet_only_at_their_ends(city):
    ends = [tuple(np.round(s["geom"].coords[k], 1)) for s in city["streets"] for k in (0, -1)]
    tree, middles = cKDTree(np.array(sorted(set(ends)))), []
    pieces = unary_union([s["geom"] for s in city["streets"]]).geoms
    for piece in pieces:  # noding again may split where rounding moved a line by a decimetre, but never elsewhere
        middles += [tree.query(piece.coords[k])[0] for k in (0, -1)]
    assert max(middles) < 0.5


def test_only_bridges_cross_water(city, water):
    wet = prep(water.buffer(-1.0))
    for street in city["streets"]:
        assert street["bridge"] or not wet.intersects(street["geom"])


def test_buildings_stand_on_land_off_the_streets_and_apart(city, water):
    wet = prep(water)
    streets = prep(unary_union([s["geom"].buffer(3) for s in city["streets"]]))
    shapes = [row["geom"] for row in city["buildings"]]
    centres = np.array([s.centroid.coords[0] for s in shapes])
    for row in city["buildings"]:
        assert row["geom"].is_valid
        assert not wet.intersects(row["geom"])
        assert not streets.intersects(row["geom"])
        assert row["height_m"] > 2.5
        assert row["levels"] >= 1
        assert (row["use"] == "landmark") == (row["name"] is not None)
    for a, b in cKDTree(centres).query_pairs(120):
        assert not shapes[a].intersects(shapes[b])
    assert max(row["height_m"] for row in city["buildings"]) > 80


def test_tables_of_reports_look_as_operators_have_them(city):
    known = {row["cell_id"] for row in city["cells"]}
    assert sum((HERE / name).stat().st_size for name in TABLES) < 1.1e6
    with_truth, without = (read_table(name) for name in TABLES)
    assert (len(with_truth), len(without)) == (5264, 1021)
    header = ["IMSI", "TrajID", "MRTime"]
    header += [f"{name}_{i}" for i in range(1, 8) for name in ("RNCID", "CellID", "AsuLevel", "SignalLevel", "Dbm")]
    assert list(without[0]) == header
    assert list(with_truth[0]) == [*header, "Longitude", "Latitude"]
    assert len({row["TrajID"] for row in with_truth}) == 24
    assert {row["TrajID"] for row in without} == {str(number) for number in range(25, 30)}
    assert {row["IMSI"] for row in without} < {row["IMSI"] for row in with_truth}
    for row in with_truth + without:
        cells = [row[f"CellID_{i}"] for i in range(1, 8)]
        heard = [cell for cell in cells if cell]
        assert cells == heard + [""] * (7 - len(heard))
        assert len(set(heard)) == len(heard) > 0
        assert set(heard) <= known
        dbm = [int(row[f"Dbm_{i}"]) for i in range(1, len(heard) + 1)]
        assert dbm[0] >= max(dbm) - 4  # serves while no other is 3 dB stronger, before rounding
        assert [int(row[f"AsuLevel_{i}"]) for i in range(1, len(heard) + 1)] == [value + 140 for value in dbm]
        assert all(row[f"RNCID_{i}"] == "" for i in range(1, 8))


def test_devices_move_as_their_kind_does(reports):
    rows, places = reports
    trajectory = np.array([int(row["TrajID"]) for row in rows])
    time_s = np.array([int(row["MRTime"]) for row in rows]) / 1000
    assert (np.diff(trajectory) >= 0).all()
    likely = {"walk": (1.0, 1.6), "bike": (2.5, 5.5), "bus": (3.0, 8.0), "car": (4.0, 12.0)}
    fastest = {"walk": 1.7, "bike": 6.5, "bus": 14.0, "car": 15.0}
    for number in np.unique(trajectory):
        part = trajectory == number
        kind = rows[np.flatnonzero(part)[0]]["IMSI"].split("-")[0]
        wait = np.diff(time_s[part])
        speed = np.hypot(*np.diff(places[part], axis=0).T) / wait
        assert wait.min() > 1
        assert np.median(wait) == pytest.approx(2, abs=0.05)
        assert likely[kind][0] < speed.mean() < likely[kind][1]
        assert speed.max() < fastest[kind] + 0.1  # positions are rounded to a decimetre
        assert np.ptp(time_s[part]) < 15 * 60


def test_devices_keep_to_streets_and_vehicles_to_one_ways(city, reports):
    rows, places = reports
    streets = [street for street in city["streets"] if street["class"] != "motorway"]
    ends = np.array([street["geom"].coords[k] for street in streets for k in (0, -1)])
    near = (np.hypot(*(ends - places.mean(axis=0)).T) < 2500).reshape(-1, 2).all(axis=1)
    streets = [street for street, one in zip(streets, near) if one]
    network = unary_union([street["geom"] for street in streets])
    assert all(network.distance(Point(place)) < 0.3 for place in places[::7])
    truth = xy(city["walks_truth"])
    assert all(network.distance(Point(place)) < 0.3 for place in truth[::7])
    travelled = 0
    for street in streets:
        if not street["oneway"]:
            continue
        x_min, y_min, x_max, y_max = street["geom"].buffer(0.3).bounds
        inside = ((places > (x_min, y_min)) & (places < (x_max, y_max))).all(axis=1)
        for k in np.flatnonzero(inside[:-1] & inside[1:]):
            here, there = Point(places[k]), Point(places[k + 1])
            on_it = max(street["geom"].distance(here), street["geom"].distance(there)) < 0.3
            if on_it and rows[k]["TrajID"] == rows[k + 1]["TrajID"] and not rows[k]["IMSI"].startswith("walk"):
                assert street["geom"].project(there) > street["geom"].project(here) - 0.5
                travelled += 1
    assert travelled > 20


def test_the_truth_of_the_table_without_positions_fits_it_row_by_row(city):
    rows = read_table("measurements_unlabelled.csv")
    assert len(rows) == len(city["walks_truth"])
    for row, truth in zip(rows, city["walks_truth"]):
        assert (row["IMSI"], int(row["TrajID"])) == (truth["device"], truth["trajectory"])
        moment = datetime.fromisoformat(truth["time"].replace("Z", "+00:00")).timestamp()
        assert moment == pytest.approx(int(row["MRTime"]) / 1000, abs=0.0015)


def test_landmarks_stand_apart_beside_the_ways_of_devices(city):
    places, ways = xy(city["landmarks"]), xy(city["walks_truth"])
    kinds = np.array([row["kind"] for row in city["landmarks"]])
    assert len(places) == 24
    assert len({row["landmark_id"] for row in city["landmarks"]}) == 24
    assert set(kinds) == {"location", "service"}
    assert cKDTree(places).query(places, k=2)[0][:, 1].min() > 60
    assert cKDTree(ways).query(places[kinds == "location"])[0].max() < 0.2
    named = {row["name"] for row in city["buildings"]}
    sights = [row["landmark_id"] for row in city["landmarks"] if row["kind"] == "service"]
    assert set(sights) < named
    network = unary_union([street["geom"] for street in city["streets"]])
    assert all(network.distance(Point(place)) < 0.3 for place in places)


def test_devices_take_photos_where_they_pass_landmarks(city):
    marks = {row["landmark_id"]: np.array(row["geom"].coords[0]) for row in city["landmarks"]}
    truth = {}
    for row in city["walks_truth"]:
        truth.setdefault(row["device"], []).append((seconds(row["time"]), *row["geom"].coords[0]))
    near = 0
    for row in city["landmark_queries"]:
        way = np.array(truth[row["device"]])
        assert way[0, 0] - 1 <= seconds(row["time"]) <= way[-1, 0] + 2
        here = [np.interp(seconds(row["time"]), way[:, 0], way[:, axis]) for axis in (1, 2)]
        near += min(np.hypot(*(mark - here)) for mark in marks.values()) < 25
    assert len(city["landmark_queries"]) == 25
    assert near >= 20  # one photo of each device shows something else


def seconds(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_photos_are_small_and_those_of_landmarks_know_where(city):
    photos = sorted(HERE.glob("photos/*/*.jpg"))
    named = [row["photo"] for row in city["landmarks"] + city["landmark_queries"]]
    assert sorted(path.relative_to(HERE).as_posix() for path in photos) == sorted(named)
    assert sum(path.stat().st_size for path in photos) < 1e6
    to_city = osr.CoordinateTransformation(*(system(code) for code in (4326, 32628)))
    for row in city["landmarks"]:
        with Image.open(HERE / row["photo"]) as image:
            exif = image.getexif()
        gps = exif.get_ifd(0x8825)
        degrees = [float(a) + float(b) / 60 + float(c) / 3600 for a, b, c in (gps[4], gps[2])]
        assert (gps[1], gps[3]) == ("N", "W")
        x, y, _ = to_city.TransformPoint(-degrees[0], degrees[1])
        assert np.hypot(*(np.array(row["geom"].coords[0]) - (x, y))) < 0.2
        assert float(gps[17]) == row["direction_deg"]
    for row in city["landmark_queries"]:
        with Image.open(HERE / row["photo"]) as image:
            exif = image.getexif()
        assert 0x8825 not in exif
        taken = datetime.strptime(exif.get_ifd(0x8769)[0x9003] + "+0000", "%Y:%m:%d %H:%M:%S%z")
        assert taken.timestamp() == seconds(row["time"])


def system(code):
    found = osr.SpatialReference()
    found.ImportFromEPSG(code)
    found.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return found


def test_the_nearest_cells_are_heard_best(city, reports):
    rows, places = reports
    at = {row["cell_id"]: row["geom"].coords[0] for row in city["cells"]}
    distance = np.array([np.hypot(*(at[row["CellID_1"]] - place)) for row, place in zip(rows, places)])
    assert np.median(distance) < 350  # sites stand 400 m apart
    serving = np.array([int(row["Dbm_1"]) for row in rows])
    assert -0.9 < np.corrcoef(np.log(distance), serving)[0, 1] < -0.1


def test_the_project_is_relative_and_leaves_the_data_alone(tmp_path):
    with zipfile.ZipFile(HERE / "sample_city.qgz") as archive:
        text = "".join(archive.read(name).decode() for name in archive.namelist() if name.endswith(".qgs"))
    assert "./sample_city.gpkg|layername=zones" in text
    for trace in ("/work", "/home", "/root", "file:///"):
        assert trace not in text
    for name in LAYERS:
        assert (HERE / "styles" / f"{name}.qml").stat().st_size > 500
        assert "/work" not in (HERE / "styles" / f"{name}.qml").read_text()
    assert "file:./measurements.csv?" in text
    for name in ("sample_city.qgz", "sample_city.gpkg", *TABLES):
        shutil.copy(HERE / name, tmp_path / name)
    before = hashlib.sha256((tmp_path / "sample_city.gpkg").read_bytes()).hexdigest()
    script = (
        "import sys; from qgis.core import QgsApplication, QgsProject\n"
        "app = QgsApplication([], True); app.initQgis(); p = QgsProject.instance(); ok = p.read(sys.argv[1])\n"
        "layers = p.mapLayers().values()\n"
        "good = ok and len(layers) == 12 and all(l.isValid() and l.featureCount() > 0 for l in layers)\n"
        "seen = {l.name() for l in p.layerTreeRoot().checkedLayers()}\n"
        "good = good and 'Cells' not in seen and len(seen) == 6 and p.crs().authid() == 'EPSG:32628'\n"
        "p.clear(); app.exitQgis(); print('good' if good else 'bad')\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", script, tmp_path / "sample_city.qgz"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "good"
    assert sorted(p.name for p in tmp_path.iterdir()) == [*TABLES, "sample_city.gpkg", "sample_city.qgz"]
    assert hashlib.sha256((tmp_path / "sample_city.gpkg").read_bytes()).hexdigest() == before
