"""What scripts make and the repository keeps: help pages and the graphical model are up to date, and the model runs."""

import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "resources" / "graphical_models" / "districts.model3"
CITY = ROOT / "resources" / "sample_city" / "sample_city.gpkg"
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


@pytest.mark.qgis_process
def test_the_graphical_model_chains_our_algorithms_with_native_ones(tmp_path):
    profile = tmp_path / "config" / "profiles" / "default"
    plugins = profile / "python" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "telcoloc").symlink_to(ROOT)
    (profile / "QGIS").mkdir()
    (profile / "QGIS" / "QGIS3.ini").write_text("[PythonPlugins]\ntelcoloc=true\nprocessing=true\n", encoding="utf-8")
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    results = {
        name: str(tmp_path / file)
        for name, file in (
            ("best_server", "best_server.tif"),
            ("density", "density.tif"),
            ("district_totals", "districts.gpkg"),
        )
    }
    inputs = {
        "base_stations": f"{CITY}|layername=base_stations",
        "id_field": "bs_id",
        "kpi_fields": ["h08", "h20"],
        "districts": f"{CITY}|layername=zones",
        **results,
    }
    done = subprocess.run(
        ["qgis_process", "--json", "run", str(MODEL), "-"],
        input=json.dumps({"inputs": inputs}),
        env={**os.environ, "QGIS_CUSTOM_CONFIG_PATH": str(tmp_path / "config"), "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["results"] == results

    districts = rows(results["district_totals"], "districts", ["h08", "entropy_bits_mean"])
    stations = rows(CITY, "base_stations", ["h08"])
    assert len(districts) == 37
    given, mapped = sum(row[0] for row in stations), sum(row[0] for row in districts)
    assert mapped == pytest.approx(given, rel=2e-3)  # a few cells of the coast lie in no district by more than half
    entropies = [row[1] for row in districts]
    assert all(0 < entropy < 7 for entropy in entropies)  # at most log2(105 base stations)
