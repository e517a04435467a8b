"""Run a module of the package from the repository, as `python -m telcoloc.…` does where it is installed.

.venv/bin/python scripts/module.py telcoloc.models.training.make voronoiboost
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location(
        "telcoloc", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    if spec is None or spec.loader is None:
        sys.exit(f"{ROOT} holds no package.")
    package = importlib.util.module_from_spec(spec)
    sys.modules["telcoloc"] = package
    spec.loader.exec_module(package)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=False)
