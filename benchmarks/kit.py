"""What the benchmarks share: the package `telcoloc`, reports, timings, data, and qgis_process with its clock and memory."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
NEEDS_DATA = "needs ../shared/data"

os.environ.setdefault("PROJ_DATA", "/usr/share/proj")  # a venv over system packages does not find it

if "telcoloc" not in sys.modules:  # as in tests/conftest.py
    _init = ROOT / "__init__.py"
    _spec = importlib.util.spec_from_file_location("telcoloc", _init, submodule_search_locations=[str(ROOT)])
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["telcoloc"] = _module
    _spec.loader.exec_module(_module)


class Skipped(Exception):  # noqa: N818 - not an error
    """Why a benchmark cannot run here."""


@dataclass(frozen=True)
class Target:
    """A promise and what became of it."""

    claim: str
    measured: str
    met: bool


@dataclass
class Report:
    """What one benchmark found."""

    title: str
    how: str
    header: Sequence[str] = ()
    rows: list[Sequence[str]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The report as Markdown, without its title."""
        parts = [self.how]
        if self.rows:
            parts.append(table(self.header, self.rows))
        if self.targets:
            parts.append(
                table(
                    ("target", "measured", ""),
                    [(one.claim, one.measured, "met" if one.met else "**missed**") for one in self.targets],
                )
            )
        return "\n\n".join(parts + self.notes)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every column but the first is aligned right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (header, rule, *rows))


def load() -> str:
    """The load average of the last minute: how much else the machine was doing."""
    return f"{os.getloadavg()[0]:.1f}"


def timings(work: Callable[[], object], repeats: int) -> list[float]:
    """Wall time of each of `repeats` calls [s], sorted; the first is the least disturbed."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)


def median(values: Sequence[float]) -> float:
    """Middle one of sorted or unsorted values; the upper of two."""
    return sorted(values)[len(values) // 2]


def duration(seconds: float) -> str:
    """A time for people: µs, ms, s or min, three digits."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (600.0, 1.0, "s"), (36_000.0, 1 / 60, "min")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds / 3600:.3g} h"


def shared(path: str) -> Path:
    """A file of ../shared/data.

    Raises
    ------
    Skipped
        When it is not there.
    """
    found = SHARED_DATA / path
    if not found.exists():
        raise Skipped(NEEDS_DATA)
    return found


# Base-station layers


def select(path: Path, layer: str, where: str, target: Path) -> Path:
    """Copy the features of `layer` that match `where` into a GeoPackage, which qgis_process may open for writing."""
    from osgeo import gdal

    gdal.UseExceptions()
    options = gdal.VectorTranslateOptions(layers=[layer], where=where or None, layerName=target.stem)
    gdal.VectorTranslate(str(target), str(path), options=options)
    return target


def lyon_sites(operator: str = "Orange"):
    """Positions [m, EPSG:2154] of an operator's BSs in Lyon, shape (n, 2)."""
    import numpy as np
    from osgeo import ogr

    source = ogr.Open(str(shared("voronoiboost_fr/bs_points.gpkg")))
    layer = source.GetLayerByName("base_stations")
    layer.SetAttributeFilter(f"operator = '{operator}' AND city = 'Lyon'")
    return _merged(np.array([_projected(layer, 2154)]).reshape(-1, 2))


def _projected(layer, epsg: int) -> list[tuple[float, float]]:
    from osgeo import osr

    target = osr.SpatialReference()
    target.ImportFromEPSG(epsg)
    origin = layer.GetSpatialRef().Clone()
    for system in (origin, target):
        system.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    transform = osr.CoordinateTransformation(origin, target)
    return [point[:2] for point in transform.TransformPoints([row.GetGeometryRef().GetPoint_2D() for row in layer])]


def _merged(xy_m):
    from telcoloc.models.geolocation.sites import merge_sites

    return merge_sites([str(row) for row in range(len(xy_m))], xy_m).xy_m


def synthetic_sites(n: int = 520, seed: int = 1):
    """A city without data: BSs dense in the middle and sparse outside, shape (n, 2) [m]."""
    import numpy as np

    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = 12_000 * rng.gamma(1.3, 0.6, n)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def city_sites():
    """(positions [m], what they are): Orange Lyon, or a synthetic city where ../shared/data is missing."""
    try:
        sites = lyon_sites()
    except Skipped:
        sites = synthetic_sites()
        return sites, f"a synthetic city of {len(sites)} BSs (../shared/data is not here)"
    return sites, f"the {len(sites)} Orange BSs of Lyon"


# The real qgis_process


@dataclass(frozen=True)
class ProcessRun:
    """One call of qgis_process."""

    seconds: float
    peak_mib: float
    log: str
    arrivals: list[tuple[float, str]]
    cpu_s: float = 0.0

    def at(self, text: str) -> float | None:
        """When `text` first appeared in the log, in seconds after the start."""
        return next((moment for moment, piece in self.arrivals if text in piece), None)

    def line(self, start: str) -> str:
        """The rest of the log's first line that begins with `start`, empty without one."""
        return next((line[len(start) :].strip() for line in self.log.splitlines() if line.startswith(start)), "")


@contextmanager
def scratch() -> Iterator[Path]:
    """A private folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="telcoloc-bench-") as folder:
        yield Path(folder)


def qgis_process(*arguments: str, folder: Path, profile: Path = ROOT / ".qgis") -> ProcessRun:
    """Run /usr/bin/qgis_process and measure its wall time and peak memory (the kernel's own figure for that process).

    Raises
    ------
    Skipped
        When it or the profile that `make setup` makes is missing.
    RuntimeError
        When it fails; with its log.
    """
    program = "/usr/bin/qgis_process"
    if not Path(program).exists() or not profile.is_dir():
        raise Skipped("needs QGIS and the profile that 'make setup' makes")
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    environment = {
        **os.environ,
        "QGIS_CUSTOM_CONFIG_PATH": str(profile),
        "QT_QPA_PLATFORM": "offscreen",
        "XDG_RUNTIME_DIR": str(runtime),
    }
    reader, writer = os.pipe()
    start = time.perf_counter()
    child = os.posix_spawn(
        program,
        [program, *arguments],
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)],
    )
    os.close(writer)
    pieces = []
    while piece := os.read(reader, 1 << 16):
        pieces.append((time.perf_counter() - start, piece.decode("utf-8", "replace")))
    os.close(reader)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    log = "".join(text for _, text in pieces)
    if status:
        raise RuntimeError(f"qgis_process {' '.join(arguments)} failed:\n{log}")
    return ProcessRun(seconds, usage.ru_maxrss / 1024, log, pieces, usage.ru_utime + usage.ru_stime)


def geolocate(folder: Path, layer: Path, outputs: Sequence[str], **parameters: object) -> ProcessRun:
    """Run telcoloc:geolocatebasestations on `layer`; results land in `folder`."""
    names = {"OUTPUT": "stack.tif", "BEST_SERVER": "best_server.tif", "COVERAGE": "coverage.gpkg"}
    for name in names.values():
        (folder / name).unlink(missing_ok=True)
    return qgis_process(
        "run",
        "telcoloc:geolocatebasestations",
        f"--INPUT={layer}",
        *(f"--{name}={value}" for name, value in parameters.items()),
        *(f"--{name}={folder / names[name]}" for name in outputs),
        folder=folder,
    )


STEP_HEADER = ("run", "wall", "start and reading", "compute", "rasters", "coverage", "peak RSS", "load")


def step_row(what: str, run: ProcessRun, load_before: str) -> tuple[str, ...]:
    """A row of `STEP_HEADER`: the steps of a geolocation, from when the log names them (qgis_process passes lines on in batches)."""
    marks = ("Computing probabilities", "Computed in", "Drawing coverage areas", "Results")
    begun, computed, coverage, end = (run.at(text) for text in marks)
    end = end if end is not None else run.seconds

    def between(first: float | None, last: float | None) -> str:
        return "–" if first is None or last is None else duration(max(last - first, 0))

    return (
        what,
        duration(run.seconds),
        between(0.0, begun),
        between(begun, computed),
        between(computed, coverage if coverage is not None else end),
        between(coverage, end),
        f"{run.peak_mib / 1024:.2f} GiB",
        load_before,
    )
