"""Registers the repository root once as the package `telcoloc`, whatever its folder is called, and sets up QGIS's environment."""

import atexit
import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("XDG_RUNTIME_DIR", "/tmp")  # noqa: S108 - Qt only wants the folder to exist
os.environ.setdefault("PROJ_DATA", "/usr/share/proj")  # a venv over system packages does not find it

if "telcoloc" not in sys.modules:
    _init = ROOT / "__init__.py"
    _spec = importlib.util.spec_from_file_location("telcoloc", _init, submodule_search_locations=[str(ROOT)])
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["telcoloc"] = _module
    _spec.loader.exec_module(_module)


@pytest.fixture(scope="session")
def shared_data():
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data, which is not here")
    return SHARED_DATA


def pytest_sessionfinish(session, exitstatus):
    session.config.telcoloc_exit_status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Leave without taking QGIS down piece by piece, which crashes 3.40 at times, after all tests have passed."""
    if "qgis.core" in sys.modules and hasattr(config, "telcoloc_exit_status"):
        atexit._run_exitfuncs()  # what tests registered to clean up
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.telcoloc_exit_status)
