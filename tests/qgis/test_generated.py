"""What scripts make and the repository keeps: help pages and graphical models are up to date, and the models run."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from qgis.core import Qgis
from shapely import wkb

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "resources" / "graphical_models"
CITY = ROOT / "resources" / "sample_city" / "sample_city.gpkg"
MADE_WITH_QGIS = "3.40."
PYTHON = "/usr/bin/python3"  # QGIS's own on Debian


@pytest.fixture
def copy(tmp_path):
    """A copy of what the scripts read, so that running them changes nothing here."""
    target = tmp_path / "telcoloc"
    for name in ("models", "telcoloc_qgis", "processing_algorithms", "scripts"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "metadata.txt"):
        shutil.copy(ROOT / name, target / name)
    return target


def rows(path, layer, fields):
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT {', '.join(fields)} FROM {layer}").fetchall()  # noqa: S608 - our own names


def run_script(folder, name):
    done = subprocess.run(
        [PYTHON, str(folder / "scripts" / name)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_help_pages_are_those_of_the_algorithms(copy):
    run_script(copy, "make_help.py")
    made = {path.name: path.read_text(encoding="utf-8") for path in (copy / "resources" / "help").iterdir()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "resources" / "help").iterdir()}
    assert made == kept, "run /usr/bin/python3 scripts/make_help.py"


def test_graphical_models_are_those_of_the_script(copy):
    if not Qgis.version().startswith(MADE_WITH_QGIS):
        pytest.skip("another QGIS writes the same model in another way")
    run_script(copy, "make_model.py")
    made = {path.name: path.read_text(encoding="utf-8") for path in (copy / "resources" / "graphical_models").iterdir()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in MODELS.iterdir()}
    assert made == kept, "run /usr/bin/python3 scripts/make_model.py"


@pytest.fixture
def headless(tmp_path):
    """`headless("telcoloc:…" or a model, INPUT=…)`: results of the real qgis_process."""
    profile = tmp_path / "config" / "profiles" / "default"
    plugins = profile / "python" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "telcoloc").symlink_to(ROOT)
    (profile / "QGIS").mkdir()
    (profile / "QGIS" / "QGIS3.ini").write_text("[PythonPlugins]\ntelcoloc=true\nprocessing=true\n", encoding="utf-8")
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)

    def run(algorithm, **inputs):
        done = subprocess.run(
            ["qgis_process", "--json", "run", str(algorithm), "-"],
            input=json.dumps({"inputs": inputs}),
            env={**os.environ, "QGIS_CUSTOM_CONFIG_PATH": str(tmp_path / "config"), "XDG_RUNTIME_DIR": str(runtime)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)["results"]

    return run


@pytest.mark.qgis_process
def test_the_model_of_districts_maps_kpis(headless, tmp_path):
    results = {
        name: str(tmp_path / file)
        for name, file in (
            ("best_server", "best_server.tif"),
            ("density", "density.tif"),
            ("district_totals", "districts.gpkg"),
        )
    }
    made = headless(
        MODELS / "districts.model3",
        base_stations=f"{CITY}|layername=base_stations",
        id_field="bs_id",
        kpi_fields=["h08", "h20"],
        districts=f"{CITY}|layername=zones",
        **results,
    )
    assert made == results

    districts = rows(results["district_totals"], "districts", ["h08", "entropy_bits_mean"])
    stations = rows(CITY, "base_stations", ["h08"])
    assert len(districts) == 37
    given, mapped = sum(row[0] for row in stations), sum(row[0] for row in districts)
    assert mapped == pytest.approx(given, rel=2e-3)  # a few cells of the coast lie in no district by more than half
    entropies = [row[1] for row in districts]
    assert all(0 < entropy < 7 for entropy in entropies)  # at most log2(105 base stations)


@pytest.mark.qgis_process
def test_the_model_of_trajectories_tells_time_spent(headless, tmp_path):
    """From the table that has positions to a localizer, and from the one without to districts by hour, held against the truth."""
    known, unknown = (
        shutil.copy(CITY.with_name(f"{name}.csv"), tmp_path) for name in ("measurements", "measurements_unlabelled")
    )
    records, cells, localizer = (str(tmp_path / name) for name in ("records.gpkg", "cells.gpkg", "raf.safetensors"))
    headless(
        "telcoloc:importmeasurements",
        INPUT=str(known),
        BASE_STATIONS=f"{CITY}|layername=cells",
        OUTPUT=records,
        CELLS=cells,
    )
    headless(
        "telcoloc:trainlocalizer",
        INPUT=records,
        BASE_STATIONS=cells,
        METHOD="raf",
        OPTIONS="trees=20",
        SEED=1,
        MODEL=localizer,
    )
    results = {name: str(tmp_path / f"{name}.gpkg") for name in ("points", "trajectories", "district_hours")}
    made = headless(
        MODELS / "trajectories.model3",
        measurements=str(unknown),
        localizer=localizer,
        streets=f"{CITY}|layername=streets",
        districts=f"{CITY}|layername=zones",
        **results,
    )
    assert made == results

    truth = rows(CITY, "walks_truth", ["device", "time", "geom"])
    points = rows(results["points"], "points", ["device", "time"])
    assert sorted(points) == sorted((device, time) for device, time, _ in truth)
    devices = {device for device, *_ in truth}
    paths = rows(results["trajectories"], "trajectories", ["device", "points"])
    assert {device for device, _ in paths} == devices
    assert sum(count for _, count in paths) > 0.95 * len(truth)

    fields = ["name", "hour", "devices", "device_minutes", "reports", '"begin"', '"end"']
    hours = rows(results["district_hours"], "district_hours", fields)
    assert len({row[:2] for row in hours}) == len(hours)
    assert all(row[5][:13].replace("T", " ") == row[1][:13] == row[6][:13].replace("T", " ") for row in hours)
    assert 0.95 * len(truth) < sum(row[4] for row in hours) <= len(truth)  # bridges are in no district
    minutes = len({(device, time[:16]) for device, time, _ in truth})
    assert (
        minutes <= sum(row[3] for row in hours) < 1.3 * minutes
    )  # the minute in which a device crosses into a district counts twice
    assert all(1 <= row[2] <= len(devices) and row[2] <= row[3] for row in hours)

    zones = [(name, shape(geometry)) for name, geometry in rows(CITY, "zones", ["name", "geom"])]
    where = Counter()
    for _, time, geometry in truth:
        place = shape(geometry)
        where[next((name for name, zone in zones if zone.covers(place)), None), f"{time[:10]} {time[11:13]}:00"] += 1
    found = Counter({row[:2]: row[4] for row in hours})
    wrong = sum((where - found).values()) / len(truth)
    assert wrong < 0.12, "share of the reports in a wrong district"


@pytest.mark.qgis_process
def test_the_model_of_landmark_tracking_goes_through_landmarks(headless, tmp_path):
    """Cells to path in one step: everywhere an instant, and at a recognised landmark where it is; without landmarks it runs as well."""
    unknown, records = shutil.copy(CITY.with_name("measurements_unlabelled.csv"), tmp_path), str(tmp_path / "r.gpkg")
    headless("telcoloc:importmeasurements", INPUT=str(unknown), OUTPUT=records)
    truth = [
        (device, time, np.array(shape(geometry).coords[0]))
        for device, time, geometry in rows(CITY, "walks_truth", ["device", "time", "geom"])
    ]
    places = {
        name: np.array(shape(geometry).coords[0]) for name, geometry in rows(CITY, "landmarks", ["landmark_id", "geom"])
    }
    seen = {}
    for name, place in places.items():
        device, time, gap = min(
            ((device, time, np.hypot(*(xy - place))) for device, time, xy in truth), key=lambda each: each[2]
        )
        if gap < 5 and device == "car-2":
            seen[device, time] = name
    assert len(seen) >= 2
    matches = tmp_path / "matches.csv"  # of some other recogniser
    matches.write_text(
        "device,time,landmark_id\n" + "".join(f"{device},{time},{name}\n" for (device, time), name in seen.items())
    )
    given = {
        "cells": f"{CITY}|layername=cells",
        "buildings": f"{CITY}|layername=buildings",
        "area": "499000,501300,4997500,4999500",
        "cell_size": 25,
        "measurements": records,
        "streets": f"{CITY}|layername=streets",
    }
    made = {}
    for run, more in (
        ("with", {"landmarks": f"{CITY}|layername=landmarks", "matches": str(matches)}),
        ("without", {}),
    ):
        results = {name: str(tmp_path / f"{run}_{name}.gpkg") for name in ("path", "lines", "edges", "candidates")}
        assert headless(MODELS / "landmark_tracking.model3", **given, **more, **results) == results
        path = rows(results["path"], f"{run}_path", ["device", "time", "geom", "landmark_id"])
        assert sorted(row[:2] for row in path) == sorted(row[:2] for row in truth)
        made[run] = {row[:2]: row[2:] for row in path}
    assert {at: name for at, (_, name) in made["with"].items() if name} == seen
    assert not any(name for _, name in made["without"].values())
    for at, name in seen.items():
        assert np.hypot(*(np.array(shape(made["with"][at][0]).coords[0]) - places[name])) < 25  # put on the street


def shape(blob):
    """A geometry of a GeoPackage as shapely has it."""
    return wkb.loads(blob[8 + {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}[blob[3] >> 1 & 7] :])
