"""Claim: a million measurement reports are imported by streaming, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import kit
import numpy as np

TITLE = "Import measurements: a million rows"
ROWS, QUICK_ROWS = 1_000_000, 20_000
SLOTS = 6
MOST_GIB = 2.0
LEAST_READ_PER_S, LEAST_ROWS_PER_S = 30_000, 15_000


def write_table(path: Path, n: int, seed: int = 1) -> None:
    """Write a CSV with the columns of the DeepLoc paper's table: drawn at random, the rows in no order, a tenth of cells missing."""
    rng = np.random.default_rng(seed)
    header = ["TrajID"]
    for slot in range(1, SLOTS + 1):
        suffix = "" if slot == 1 else str(slot)
        header += [f"{name}_{slot}" for name in ("RNCID", "CellID", "AsuLevel", "Dbm", "SignalLevel")]
        header += [f"Lon{suffix}", f"Lat{suffix}"]
    header += ["MRTime", "Longitude", "Latitude"]
    kinds = ["%d"] + (["%d"] * 5 + ["%.6f"] * 2) * SLOTS + ["%d", "%.8f", "%.8f"]
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join(header) + "\n")
        order = rng.permutation(n)
        for start in range(0, n, 50_000):
            rows = order[start : start + 50_000]
            trajectory = rows // 500
            columns = [trajectory]
            for slot in range(SLOTS):
                cell = trajectory * 7 % 1000 + rng.permutation(6 * SLOTS)[:SLOTS][slot]  # different ones in one record
                rss = rng.integers(-109, -50, len(rows))
                missing = rng.random(len(rows)) < (0.1 if slot > 1 else 0.0)
                values = [6182 + cell % 7, 26000 + 13 * cell, (rss + 113) // 2, rss, np.clip((rss + 110) // 10, 0, 4)]
                values += [121.1 + cell / 1e4, 31.2 + cell * 7 % 1000 / 1e4]
                columns += [np.where(missing, -999, value) for value in values]
            step = rows % 500
            lon = 121.1 + trajectory * 61 % 997 / 1e4 + 0.002 * np.sin(step / 80)  # a walk around a place of its own
            lat = 31.2 + trajectory * 67 % 991 / 1e4 + 0.002 * np.cos(step / 80)
            columns += [1507727272856 + 2137 * rows, lon, lat]
            np.savetxt(file, np.stack(columns, axis=1), fmt=kinds, delimiter=",")


def run(quick: bool) -> kit.Report:
    """Import generated tables with the real qgis_process, into a GeoPackage with its spatial index."""
    n = QUICK_ROWS if quick else ROWS
    report = kit.Report(
        TITLE,
        f"`telcoloc:importmeasurements` in `qgis_process`: a generated CSV of {n:,} rows as in the DeepLoc paper, {SLOTS} cells each, in "
        f"no "
        "order, becomes the normal form, sorted. Reading and writing are the algorithm's own times; wall, CPU and memory are the whole "
        "process's, with its start.",
        ("OUTPUT", "rows", "read and sort", "all of the algorithm", "rows/s", "wall", "CPU", "peak RSS", "load"),
    )
    with kit.scratch() as folder:
        table = folder / "reports.csv"
        write_table(table, n)
        for output in ("measurements.gpkg",) if quick else ("measurements.gpkg", "measurements.fgb"):
            load = kit.load()
            done = kit.qgis_process(
                "run",
                "telcoloc:importmeasurements",
                f"--INPUT={table}",
                f"--OUTPUT={folder / output}",
                f"--CELLS={folder / 'cells.gpkg'}",
                folder=folder,
            )
            reading = float(done.line("Read and sorted in ").split()[0])
            seconds = float(done.line("SECONDS:"))
            records = int(done.line("RECORDS:"))
            if records != n:
                raise RuntimeError(f"{records:,} records of {n:,} rows:\n{done.log[-2000:]}")
            gib = done.peak_mib / 1024
            report.rows.append(
                (
                    f"`{Path(output).suffix}`",
                    f"{n:,}",
                    kit.duration(reading),
                    kit.duration(seconds),
                    f"{n / seconds:,.0f}",
                    kit.duration(done.seconds),
                    kit.duration(done.cpu_s),
                    f"{gib:.2f} GiB",
                    load,
                )
            )
            if output.endswith(".gpkg"):
                report.targets += [
                    kit.Target(
                        f"reads and sorts at least {LEAST_READ_PER_S:,} rows/s",
                        f"{n / reading:,.0f}",
                        n / reading >= LEAST_READ_PER_S,
                    ),
                    kit.Target(
                        f"imports at least {LEAST_ROWS_PER_S:,} rows/s into a GeoPackage",
                        f"{n / seconds:,.0f}",
                        n / seconds >= LEAST_ROWS_PER_S,
                    ),
                    kit.Target(f"needs less than {MOST_GIB:g} GiB", f"{gib:.2f} GiB", gib < MOST_GIB),
                ]
    return report
