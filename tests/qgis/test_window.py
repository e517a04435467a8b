"""A real QGIS window under Xvfb, used as a user does: it stays responsive, cancels promptly, and what it loads has a style."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("window_script.py")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    if not shutil.which("xvfb-run") or not shutil.which("qgis"):
        pytest.fail("xvfb-run and qgis are needed; run `make setup`")
    folder = tmp_path_factory.mktemp("window")
    out = folder / "out"
    profile = folder / "profiles" / "default"
    plugins = profile / "python" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "telcoloc").symlink_to(ROOT)
    (profile / "QGIS").mkdir()
    (profile / "QGIS" / "QGIS3.ini").write_text(
        "[PythonPlugins]\ntelcoloc=true\nprocessing=true\n[qgis]\ncheckVersion=false\n", encoding="utf-8"
    )
    out.mkdir()
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {key: value for key, value in os.environ.items() if key != "QT_QPA_PLATFORM"}
    environment |= {
        "TELCOLOC_WINDOW_OUT": str(out),
        "TELCOLOC_ROOT": str(ROOT),
        "XDG_RUNTIME_DIR": str(runtime),
        "QGIS_CUSTOM_CONFIG_PATH": str(folder),
    }
    command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", "qgis", "--nologo", "--noversioncheck"]
    done = subprocess.run(
        [*command, "--profiles-path", str(folder), "--code", str(SCRIPT)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    path = folder / "report.json"
    assert path.exists(), (
        f"QGIS ended with {done.returncode} and no report:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    )
    result = json.loads(path.read_text(encoding="utf-8"))
    assert "error" not in result, result["error"]
    return result


@pytest.mark.gui
def test_a_run_from_the_dialog_finishes_and_loads_styled_layers(report):
    run = report["run"]
    assert run["finished"]
    assert {"whole_stack.tif", "whole_best.tif", "whole_coverage.gpkg"} <= set(run["files"]), run["log"]
    assert not [name for name in run["files"] if ".part" in name]
    renderers = sorted(layer["renderer"] for layer in report["layers"].values())
    assert renderers == ["categorizedSymbol", "paletted", "singlebandpseudocolor"], report["layers"]


@pytest.mark.gui
def test_the_window_ticks_during_a_run(report):
    run = report["run"]
    assert run["seconds"] > 1, "too quick to say anything about a run"
    assert run["longest_tick_ms"] < 100, f"the main loop waited {run['longest_tick_ms']:.0f} ms"


@pytest.mark.gui
def test_cancel_ends_within_a_second_and_leaves_no_file(report):
    for case in report["cancelled"]:
        assert case["finished"], case
        assert case["seconds_to_cancel"] is not None, f"finished before it could be cancelled: {case}"
        assert case["seconds_to_cancel"] < 1, case
        assert case["files"] == [], case
