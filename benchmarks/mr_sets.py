"""Claim: `auto` beside a random forest on trajectories and days it never saw, on three sets."""

from __future__ import annotations

import kit
import mr_data
import numpy as np
from mr_table4 import Scores, score

TITLE = "Measurement reports: auto on trajectories and days never seen"
#: (set, median and 90 % of a 100-tree forest on the RSS vector, target of the median and of the 90 %).
SETS = (
    ("Jiading 2G, by trajectory", (115, 383), (75, 250)),
    ("LA LTE, by day", (84, 253), (55, None)),
    ("Huawei 4G a2, by trajectory", (53, None), (40, None)),
    ("Huawei 4G a3, by trajectory", (53, None), (40, None)),
)
#: LA has a record every second; every fourth is what the forest's figure was measured on.
_LA_EVERY_S = 4


def run(quick: bool) -> kit.Report:
    """Five folds of each set."""
    report = kit.Report(
        TITLE,
        "Five folds over whole trajectories (LA: whole days, for two phones often rode in one car; every fourth second). Errors: median / "
        "mean / 90 % [m], mean over folds, and the lowest and highest median of a fold. *Inside*: per cent of truths inside the circles "
        "that claim 50 / 90 %. *Forest*: median / 90 % of a plain 100-tree forest on the RSS vector, from the data's README.",
        ("set", "records", "forest", "raf", "auto", "medians of folds", "inside", "learning, a fold"),
    )
    for name, forest, targets in SETS:
        if name.startswith("Jiading"):
            data, sites = mr_data.jiading()
        elif name.startswith("LA"):
            data, sites = mr_data.la(60 if quick else _LA_EVERY_S)
        else:
            data, sites = mr_data.huawei(name.split()[2].rstrip(","))
        split = "day" if "day" in name else "trajectory"
        plain: Scores = score(data, sites, "raf", split, 1 if quick else None)
        auto: Scores = score(data, sites, "auto", split, 1 if quick else None)
        medians = [one.median_m for one in auto.errors]
        errors, inside = auto.cells()
        report.rows.append(
            (
                name,
                f"{len(data):,}",
                " / ".join("–" if value is None else str(value) for value in forest),
                plain.cells()[0],
                errors,
                f"{min(medians):.0f}–{max(medians):.0f}",
                inside,
                kit.duration(auto.seconds),
            )
        )
        found = (auto.mean("median_m"), auto.mean("p90_m"))
        for value, target, what in zip(found, targets, ("median", "90 %")):
            if target is not None:
                report.targets.append(
                    kit.Target(f"{name}: {what} at most {target} m", f"{value:.0f} m", bool(np.round(value) <= target))
                )
    return report
