"""Claim: KS2 of two maps of 256 x 256 cells takes at most 2 ms."""

from __future__ import annotations

import kit
import numpy as np
from telcoloc.models.geolocation.ks2 import ks2

TITLE = "KS2 of two maps"
MOST_SECONDS = 2e-3


def run(quick: bool) -> kit.Report:
    """Time `ks2` on three sizes of map."""
    rng = np.random.default_rng(0)
    report = kit.Report(
        TITLE,
        "Two random maps per size, the statistic over all four quadrants at every cell, checks of the input included; one thread.",
        ("cells", "fastest", "median", "calls", "load"),
    )
    for side in (64, 256, 600):
        first, second = (map_ / map_.sum() for map_ in rng.random((2, side, side)))
        load = kit.load()
        seconds = kit.timings(lambda first=first, second=second: ks2(first, second), 10 if quick else 300)
        report.rows.append(
            (f"{side} × {side}", kit.duration(seconds[0]), kit.duration(kit.median(seconds)), str(len(seconds)), load)
        )
        if side == 256:
            report.targets.append(
                kit.Target(
                    f"256 × 256 in at most {kit.duration(MOST_SECONDS)}",
                    f"{kit.duration(kit.median(seconds))} median, {kit.duration(seconds[0])} fastest",
                    kit.median(seconds) <= MOST_SECONDS,
                )
            )
    return report
