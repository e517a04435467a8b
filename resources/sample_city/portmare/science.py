"""The plugin's own science, `models/`, for programs that run beside it: the package `telcoloc`, whatever the folder is called."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def _package() -> None:
    """Make the plugin's root importable as `telcoloc`, as the tests and scripts/module.py do."""
    spec = importlib.util.spec_from_file_location(
        "telcoloc", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{ROOT} holds no plugin.")
    package = importlib.util.module_from_spec(spec)
    sys.modules["telcoloc"] = package
    spec.loader.exec_module(package)


if "telcoloc" not in sys.modules:
    _package()
drive_test = importlib.import_module("telcoloc.models.radio.drive_test")
journeys = importlib.import_module("telcoloc.models.radio.journeys")
path_loss = importlib.import_module("telcoloc.models.radio.path_loss")
facade_photos = importlib.import_module("telcoloc.models.landmarks.facade_photos")
facades = importlib.import_module("telcoloc.models.landmarks.facades")
monuments = importlib.import_module("telcoloc.models.landmarks.monuments")
