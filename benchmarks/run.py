"""Runs the benchmarks, prints what they find and writes it into docs/benchmarks.md.

    .venv/bin/python benchmarks/run.py [--only NAME ...] [--quick]

Each benchmark is a module here with `run(quick) -> Report` and runs in an interpreter of its own. `--quick` checks that
they work, on less data, and leaves docs/benchmarks.md alone; with `--only`, the other sections of that file stay.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import platform
import re
import subprocess
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import kit

NAMES = (
    "spdi_speed",
    "accuracy",
    "scaling",
    "ks2_speed",
    "lyon",
    "shanghai",
    "startup",
    "deepmend_simulator",
    "deepmend_table1",
    "deepmend_table1_errors",
    "deepmend_table2",
    "deepmend_rings",
    "deepmend_speed",
    "import_speed",
    "match_speed",
    "landmark_matching",
    "munich_tracking",
    "tracking_real",
    "tfg_speed",
    "radio_maps_speed",
    "mr_table4",
    "mr_sets",
    "auto_ingredients",
    "mr_throughput",
    "deeploc_sensitivity",
    "deeploc_map",
)
PAGE = kit.ROOT / "docs" / "benchmarks.md"
INTRODUCTION = """# Benchmarks

One script per claim, in `benchmarks/`. Run them all with `make bench`, or one with
`.venv/bin/python benchmarks/run.py --only NAME`; this page is written by them. Times are wall times; *load* is the load
average of the last minute when a measurement began: above 0 somebody else was using the machine's cores too.
"""


def one(name: str, quick: bool) -> tuple[str, str, bool]:
    """Run one benchmark: (title, Markdown, whether all is well)."""
    module = importlib.import_module(name)
    title = module.TITLE
    try:
        report = module.run(quick)
    except kit.Skipped as reason:
        return title, f"skipped: {reason}", True
    except Exception:
        return title, f"failed:\n\n```\n{traceback.format_exc()}```", False
    return report.title, report.markdown(), all(target.met for target in report.targets)


def machine() -> str:
    """Processor, cores, memory and versions, in one line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    script = "import numpy, scipy, osgeo; print(numpy.__version__, scipy.__version__, osgeo.__version__)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    qgis = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", "python3-qgis"], capture_output=True, text=True, check=False
    ).stdout
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB; {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, numpy {found[0]}, scipy {found[1]}, GDAL {found[2]}, QGIS {qgis or 'missing'}"
    )


def state() -> str:
    """The commit measured, and whether the code differed from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=kit.ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", "models", "telcoloc_qgis", "processing_algorithms")
    return f"commit {git('rev-parse', '--short', 'HEAD') or 'unknown'}{' with changes' if changed else ''}"


def section(name: str, title: str, body: str) -> str:
    """One benchmark's part of the page, between marks by which it is found again."""
    command = f".venv/bin/python benchmarks/run.py --only {name}"
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    foot = f"<sub>`{command}`, {now}, {state()}, {machine()}.</sub>"
    return f"<!-- {name} -->\n## {title}\n\n{body}\n\n{foot}\n<!-- end {name} -->\n"


def write_page(sections: dict[str, str]) -> None:
    """Put `sections` into docs/benchmarks.md; sections that were not run stay as they are."""
    old = PAGE.read_text("utf-8") if PAGE.exists() else ""
    kept = {match[1]: match[0] for match in re.finditer(r"<!-- (\w+) -->\n.*?<!-- end \1 -->\n", old, flags=re.DOTALL)}
    kept.update(sections)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join([INTRODUCTION, *(kept[name] for name in NAMES if name in kept)]), "utf-8")


def main() -> int:
    """Run what was asked for; 1 when a target was missed or a benchmark failed."""
    parser = argparse.ArgumentParser(description="Run the benchmarks.")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="less data; does not write docs/benchmarks.md")
    options = parser.parse_args()
    fine = True
    for name in options.only:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            title, body, well = pool.submit(one, name, options.quick).result()
        fine &= well
        sys.stdout.write(f"## {title}\n\n{body}\n\n")
        sys.stdout.flush()
        if not options.quick:
            write_page({name: section(name, title, body)})
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
