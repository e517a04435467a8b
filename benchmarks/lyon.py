"""Claim: Orange Lyon, 520 BSs at 100 m, all three outputs, in 10 s on two cores."""

from __future__ import annotations

import kit

TITLE = "Lyon through qgis_process"
MOST_SECONDS = 10.0
OUTPUTS = ("OUTPUT", "BEST_SERVER", "COVERAGE")
SETS = (
    ("Orange, 520 BSs", "operator = 'Orange' AND city = 'Lyon'", {}, 5),
    ("Orange, MARGIN=15000", "operator = 'Orange' AND city = 'Lyon'", {"MARGIN": 15_000}, 3),
    ("all four operators, 1,875 points", "city = 'Lyon'", {}, 3),
)


def run(quick: bool) -> kit.Report:
    """Run the tool on Orange's BSs, then on all operators'."""
    source = kit.shared("voronoiboost_fr/bs_points.gpkg")
    cell_size = 400 if quick else 100
    report = kit.Report(
        TITLE,
        f"`telcoloc:geolocatebasestations` with CELL_SIZE={cell_size}, all else as it comes, all three outputs; the whole process "
        "from start to exit, the fastest run of each set. The steps are read off the times at which the log names them.",
        kit.STEP_HEADER,
    )
    for what, where, parameters, repeats in SETS[: 1 if quick else None]:
        with kit.scratch() as folder:
            layer = kit.select(source, "base_stations", where, folder / "base_stations.gpkg")
            runs = []
            for _ in range(1 if quick else repeats):
                load = kit.load()
                found = kit.geolocate(folder, layer, OUTPUTS, ID_FIELD="bs_id", CELL_SIZE=cell_size, **parameters)
                runs.append((found.seconds, kit.step_row(what, found, load), found))
        seconds, row, found = min(runs, key=lambda one: one[0])
        report.rows.append(row)
        grid = next(line for line in found.log.splitlines() if " cells of " in line)
        report.notes.append(
            f"{what}: {grid} All runs: {', '.join(kit.duration(one[0]) for one in runs)}. "
            f"Mass cut off: {found.line('Mass cut off by the grid, measured in a ring one margin wide around it:')}"
        )
        if what.startswith("Orange"):
            claim = f"{what} in at most {MOST_SECONDS:g} s"
            report.targets.append(kit.Target(claim, kit.duration(seconds), seconds <= MOST_SECONDS))
    return report
