"""Claim: sPDI is exact to 1e-6 in float32 and 1e-9 in float64."""

from __future__ import annotations

import kit
import numpy as np
from telcoloc.models.geolocation.engine import GeolocationJob, geolocate
from telcoloc.models.geolocation.spdi import association_probabilities
from telcoloc.models.geolocation.spdi_reference import adaptive_integration
from telcoloc.models.grid import Grid

TITLE = "sPDI: accuracy"
LIMITS = {"float32": 1e-6, "float64": 1e-9}
BETAS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
SPACINGS_M = (1.0, 10.0, 100.0, 1_000.0, 10_000.0, 50_000.0)
PLACES = ("anywhere", "on a BS", "a millionth of the spacing from a BS", "between two BSs", "40 spacings outside")


def run(quick: bool) -> kit.Report:
    """Sweep β, spacings and places, directly and through the engine."""
    rng = np.random.default_rng(3)
    betas = (0.1, 4.0) if quick else BETAS
    spacings = (1.0, 50_000.0) if quick else SPACINGS_M
    worst = {name: dict.fromkeys(PLACES, 0.0) for name in LIMITS}
    where = dict.fromkeys(LIMITS, "")
    count = 0
    for spacing in spacings:
        for beta in betas:
            n_bs = int(rng.choice([2, 5, 20, 60]))
            # Positions are kept in the units of float64; what is tested is what a user's coordinates would be.
            sites = rng.uniform(0, np.sqrt(n_bs) * spacing, (n_bs, 2))
            first, second = rng.choice(n_bs, 2, replace=False)
            cells = np.array(
                [
                    rng.uniform(0, np.sqrt(n_bs) * spacing, 2),
                    sites[first],
                    sites[first] + [spacing * 1e-6, 0],
                    (sites[first] + sites[second]) / 2,
                    [40 * spacing, -40 * spacing],
                ]
            )
            squared = ((sites[:, None, :] - cells[None]) ** 2).sum(axis=2)
            exact = np.column_stack([adaptive_integration(np.sqrt(column), beta) for column in squared.T])
            count += exact.size
            for name in LIMITS:
                error = np.abs(association_probabilities(squared.astype(name), beta) - exact).max(axis=0)
                if error.max() > max(worst[name].values()):
                    where[name] = f"{name}: β = {beta:g}, spacing {spacing:g} m, {n_bs} BSs"
                for place, value in zip(PLACES, error):
                    worst[name][place] = max(worst[name][place], float(value))
    n_engine_bs = 60 if quick else 300
    engine, many, n_engine = _engine_errors(rng, betas, n_engine_bs)
    report = kit.Report(
        TITLE,
        f"Largest |ΔP(i|ℓ)| against adaptive integration of equation (2) (tolerance 1e-12): {count:,} integrals over β = "
        f"{', '.join(f'{beta:g}' for beta in betas)}, mean BS spacings of {', '.join(f'{one:g}' for one in spacings)} m, 2 to 60 BSs "
        f"at random, at five kinds of places; and {n_engine:,} integrals with {n_engine_bs} BSs, "
        "one on a cell centre, directly and with the engine, there with nothing dropped on purpose (MIN_PROBABILITY=0), so that "
        "leaving out BSs that do not matter counts "
        "too; the engine keeps its results as float32 whatever it computes in.",
        ("place of the cell", *LIMITS),
    )
    for place in PLACES:
        report.rows.append((place, *(f"{worst[name][place]:.1e}" for name in LIMITS)))
    report.rows.append((f"{n_engine_bs} BSs, random cells", *(f"{many[name]:.1e}" for name in LIMITS)))
    report.rows.append(("through the engine", *(f"{engine[name]:.1e}" for name in LIMITS)))
    for name, limit in LIMITS.items():
        largest = max(*worst[name].values(), many[name])
        report.targets.append(kit.Target(f"{name}: {limit:g}", f"{largest:.1e}", largest <= limit))
    largest = max(engine.values())
    report.targets.append(kit.Target("through the engine: 1e-06", f"{largest:.1e}", largest <= 1e-6))
    report.notes.append(f"Where the direct comparison was worst: {'; '.join(where.values())}.")
    return report


def _engine_errors(rng, betas, n_bs):
    """Largest error of the engine, and of the same BSs directly, on two cells per β; the number of integrals."""
    extent = 8192.0  # powers of two, so that a BS can be on a cell centre to the last bit
    sites = rng.uniform(0, extent, (n_bs, 2))
    grid = Grid.covering((0, 0, extent, extent), 128.0, snap=False)
    sites[0] = grid.centres([grid.size // 3])[0]
    worst, direct, count = dict.fromkeys(LIMITS, 0.0), dict.fromkeys(LIMITS, 0.0), 0
    for beta in betas:
        cells = [grid.size // 3, int(rng.integers(grid.size))]
        exact = {cell: adaptive_integration(np.hypot(*(sites - grid.centres([cell])[0]).T), beta) for cell in cells}
        count += n_bs * len(cells)
        for name in LIMITS:
            job = GeolocationJob(sites, grid, beta=beta, min_probability=0.0, dtype=name, memory_mb=1e6)
            found = geolocate(job).association.tocsc()
            for cell, value in exact.items():
                squared = ((sites - grid.centres([cell])[0]) ** 2).sum(axis=1)[:, None].astype(name)
                error = np.abs(association_probabilities(squared, beta)[:, 0] - value).max()
                direct[name] = max(direct[name], float(error))
                worst[name] = max(worst[name], float(np.abs(found[:, cell].toarray()[:, 0] - value).max()))
    return worst, direct, count
