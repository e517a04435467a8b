"""Claim: the cost of sPDI grows linearly with the number of cells."""

from __future__ import annotations

import math

import kit
import numpy as np
from telcoloc.models.geolocation.engine import GeolocationJob, geolocate
from telcoloc.models.geolocation.sites import default_margin_m
from telcoloc.models.grid import Grid

TITLE = "sPDI: cost against the number of cells"
CURVE = kit.ROOT / "docs" / "images" / "scaling.svg"
CELL_SIZES_M = (400.0, 200.0, 100.0, 50.0, 25.0)


def run(quick: bool) -> kit.Report:
    """Time the engine on one extent with smaller and smaller cells."""
    sites, what = kit.city_sites()
    margin = default_margin_m(sites)
    bounds = (*(sites.min(axis=0) - margin), *(sites.max(axis=0) + margin))
    report = kit.Report(
        TITLE,
        f"The engine alone on {what}, default margin, β = 4, values under 1e-4 dropped, two threads; fastest of several runs.",
        ("cell size", "cells", "seconds", "time per cell", "kept values per cell", "load"),
    )
    points = []
    for size in CELL_SIZES_M[: 2 if quick else None]:
        grid = Grid.covering(bounds, size)
        job = GeolocationJob(sites, grid, min_probability=1e-4, threads=2)
        kept = geolocate(job).association.nnz  # also warms up
        load = kit.load()
        seconds = kit.timings(lambda job=job: geolocate(job), 1 if quick else (9 if size >= 100 else 5))[0]
        points.append((grid.size, seconds))
        report.rows.append(
            (
                f"{size:g} m",
                f"{grid.size:,}",
                f"{seconds:.3f}",
                kit.duration(seconds / grid.size),
                f"{kept / grid.size:.1f}",
                load,
            )
        )
    cells, seconds = np.array(points).T
    slope = float(np.polyfit(np.log(cells), np.log(seconds), 1)[0])
    last = math.log(seconds[-1] / seconds[-2]) / math.log(cells[-1] / cells[-2])
    report.targets.append(
        kit.Target(
            "at most linear: exponent 1.05 or less",
            f"{slope:.2f} over all, {last:.2f} over the last step",
            slope <= 1.05 and last <= 1.05,
        )
    )
    if not quick:
        CURVE.parent.mkdir(parents=True, exist_ok=True)
        CURVE.write_text(curve(points, slope), "utf-8")
        report.notes.append(f"![Cost against the number of cells](images/{CURVE.name})")
    return report


def curve(points: list[tuple[int, float]], slope: float) -> str:
    """A log-log line as SVG, with a thin line of slope one through the last point."""
    width, height, left, bottom, top, right = 560, 360, 74, 52, 40, 24
    low_x, high_x = math.floor(math.log10(points[0][0])), math.ceil(math.log10(points[-1][0]))
    low_y, high_y = math.floor(math.log10(points[0][1])), math.ceil(math.log10(points[-1][1]))

    def x(cells: float) -> float:
        return left + (math.log10(cells) - low_x) / (high_x - low_x) * (width - left - right)

    def y(seconds: float) -> float:
        return height - bottom - (math.log10(seconds) - low_y) / (high_y - low_y) * (height - top - bottom)

    parts = []
    for power in range(low_x, high_x + 1):
        at = x(10**power)
        parts.append(f'<path d="M{at:.1f} {top}V{height - bottom}" stroke="#e4e7ea"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - bottom + 18}" text-anchor="middle">{10**power:,}</text>')
    for power in range(low_y, high_y + 1):
        at = y(10.0**power)
        parts.append(f'<path d="M{left} {at:.1f}H{width - right}" stroke="#e4e7ea"/>')
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g} s</text>')
    last_cells, last_seconds = points[-1]
    first = max(10**low_x, last_cells * 10.0**low_y / last_seconds)
    parts.append(
        f'<path d="M{x(first):.1f} {y(last_seconds * first / last_cells):.1f}L{x(last_cells):.1f} {y(last_seconds):.1f}" '
        'stroke="#8a9199" stroke-dasharray="4 4" fill="none"/>'
    )
    line = "L".join(f"{x(cells):.1f} {y(seconds):.1f}" for cells, seconds in points)
    parts.append(f'<path d="M{line}" stroke="#0072b2" stroke-width="2" fill="none"/>')
    parts += [f'<circle cx="{x(cells):.1f}" cy="{y(seconds):.1f}" r="4" fill="#0072b2"/>' for cells, seconds in points]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#5f666d">'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        f'<text x="{left}" y="24" font-size="14" fill="#1d2125">Time against cells: exponent {slope:.2f} (dashed: linear)</text>'
        f"{''.join(parts)}"
        f'<text x="{(left + width - right) / 2:.0f}" y="{height - 12}" text-anchor="middle">cells of the grid</text></svg>\n'
    )
