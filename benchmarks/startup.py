"""Claim: the plugin adds less than 0.2 s to the start of QGIS."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import kit

TITLE = "Start of QGIS with and without the plugin"
MOST_SECONDS = 0.2


def run(quick: bool) -> kit.Report:
    """Start QGIS with and without the plugin, in turn."""
    report = kit.Report(
        TITLE,
        "`qgis_process list`, with two copies of the developer's profile that differ in the plugin only; started in turn, after "
        "one start of each that is not counted.",
        ("profile", "median", "fastest", "runs", "load"),
    )
    if not (kit.ROOT / ".qgis").is_dir():
        raise kit.Skipped("needs the profile that 'make setup' makes")
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    with kit.scratch() as folder:
        profiles = {name: _profile(folder, plugin=name == "with") for name in seconds}
        load = kit.load()
        for repeat in range(3 if quick else 10):
            for name, profile in profiles.items():
                found = kit.qgis_process("list", folder=folder, profile=profile)
                if ("telcoloc:geolocatebasestations" in found.log) != (name == "with"):
                    raise RuntimeError(f"The profile {name} the plugin is not what it should be:\n{found.log[-2000:]}")
                if repeat:
                    seconds[name].append(found.seconds)
    for name, values in seconds.items():
        report.rows.append(
            (f"{name} telcoloc", kit.duration(kit.median(values)), kit.duration(min(values)), str(len(values)), load)
        )
    added = kit.median(seconds["with"]) - kit.median(seconds["without"])
    fastest = min(seconds["with"]) - min(seconds["without"])
    report.targets.append(
        kit.Target(
            f"adds less than {MOST_SECONDS} s",
            f"{1000 * added:+.0f} ms by the medians, {1000 * fastest:+.0f} ms by the fastest",
            added < MOST_SECONDS,
        )
    )
    return report


def _profile(folder: Path, plugin: bool) -> Path:
    """A copy of .qgis with or without the plugin."""
    copy = folder / ("with" if plugin else "without")
    shutil.copytree(kit.ROOT / ".qgis", copy, symlinks=True)
    link = copy / "profiles/default/python/plugins/telcoloc"
    settings = copy / "profiles/default/QGIS/QGIS3.ini"
    if plugin:
        link.unlink(missing_ok=True)
        link.symlink_to(kit.ROOT)
    else:
        link.unlink()
        settings.write_text(re.sub(r"(?m)^telcoloc=.*\n", "", settings.read_text("utf-8")), "utf-8")
    return copy
