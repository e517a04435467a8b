"""Claim: what each ingredient of `auto` gains on trajectories and days it never saw."""

from __future__ import annotations

import kit
import mr_data
import numpy as np

if True:  # `kit` puts the package in place
    from telcoloc.models.trajectory.auto import Auto
    from telcoloc.models.trajectory.localizer import FitSettings
    from telcoloc.models.trajectory.measurements import CellSites, Measurements
    from telcoloc.models.trajectory.splits import folds, groups

TITLE = "Measurement reports: what each ingredient of auto gains"
#: What is left out or changed, and the options that do it.
WITHOUT = (
    ("auto", {}),
    ("without the radio map", {"map_weight": 0.0}),
    ("without the trees", {"vote_weight": 0.0}),
    ("without smoothing over time", {"smoothing": 0}),
    ("without windows of time in the trees", {"windows": 0}),
    ("trees alone, no windows, no smoothing", {"map_weight": 0.0, "windows": 0, "smoothing": 0}),
    ("radio map alone, no smoothing", {"vote_weight": 0.0, "smoothing": 0}),
    ("without cells' stated positions", {"sites": 0}),
)
_FOLDS, _SEED, _LA_EVERY_S = 5, 0, 4


def errors_m(data: Measurements, sites: CellSites, split: str, options: dict, n_folds: int) -> list[np.ndarray]:
    """Errors [m] of each fold by a model that learned from the others."""
    found = []
    stated = sites if options.get("sites", 1) else CellSites.none()
    for test in folds(groups(data, split), _FOLDS, np.random.default_rng(_SEED))[:n_folds]:
        settings = FitSettings(seed=_SEED, split=split, options={"trees": 40, **options})
        model = Auto().fit(data.take(~test), stated, settings)
        asked = data.take(test)
        fixes = model.predict(asked)
        x_m, y_m = model.frame_.to_xy(asked.lon, asked.lat)
        found.append(np.hypot(fixes.x_m - x_m, fixes.y_m - y_m))
    return found


def run(quick: bool) -> kit.Report:
    """Leave each out on each set."""
    sets = (
        ("Jiading 2G", *mr_data.jiading(), "trajectory"),
        ("Huawei 4G a2", *mr_data.huawei("a2"), "trajectory"),
        ("Huawei 4G a3", *mr_data.huawei("a3"), "trajectory"),
        ("LA LTE, by day", *mr_data.la(60 if quick else _LA_EVERY_S), "day"),
    )
    report = kit.Report(
        TITLE,
        "Median / 90 % error [m] over the records of five folds over whole trajectories (LA: days, every fourth second), 40 trees "
        "instead of 80.",
        ("", *(name for name, *_ in sets)),
    )
    rows = {name: [name] for name, _ in WITHOUT}
    for _, data, sites, split in sets:
        for name, options in WITHOUT:
            if "sites" in options and not sites.ids:
                rows[name].append("–")
                continue
            error_m = np.concatenate(errors_m(data, sites, split, options, 1 if quick else _FOLDS))
            rows[name].append(f"{np.median(error_m):.0f} / {np.quantile(error_m, 0.9):.0f}")
    report.rows = list(rows.values())
    return report
