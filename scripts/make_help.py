"""Writes resources/help/*.html from the help that each algorithm declares. Run with QGIS's Python."""

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import QgsApplication

ROOT = Path(__file__).resolve().parents[1]
STYLE = (
    "body{font:16px/1.55 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color:#1d2125;background:#fff}"
    "h1{font-size:1.6rem}h3{margin-top:2rem}pre{background:#f3f4f5;padding:.8rem;white-space:pre-wrap;border-radius:4px}"
    "@media(prefers-color-scheme:dark){body{color:#e8eaed;background:#17191c}pre{background:#25282c}}"
)


def pages() -> dict[Path, str]:
    """Return path → text of every help page."""
    spec = importlib.util.spec_from_file_location(
        "telcoloc", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    if "telcoloc" not in sys.modules:
        module = importlib.util.module_from_spec(spec)
        sys.modules["telcoloc"] = module
        spec.loader.exec_module(module)
    from telcoloc.telcoloc_qgis.provider import TelcoLocProvider

    provider = TelcoLocProvider()
    QgsApplication.processingRegistry().addProvider(provider)
    result = {}
    for algorithm in provider.algorithms():
        title = algorithm.displayName()
        body = algorithm.help_page(html=True)
        result[ROOT / "resources" / "help" / f"{algorithm.name()}.html"] = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>\n'
            f"<body><h1>{title}</h1>\n{body}\n</body></html>\n"
        )
    QgsApplication.processingRegistry().removeProvider(provider)
    return result


if __name__ == "__main__":
    application = QgsApplication([], False)
    application.initQgis()
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
    sys.stdout.flush()
    os._exit(0)  # leaving through QgsApplication.exit crashed QGIS 3.40
