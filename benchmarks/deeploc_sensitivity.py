"""Claim: the sensitivity studies of the DeepLoc paper (section 5.3) repeated on Jiading 2G, at a size that a CPU can train."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import kit
import mr_data
import numpy as np

if True:  # `kit` puts the package in place
    from telcoloc.models.trajectory.evaluate import distance_m
    from telcoloc.models.trajectory.localizer import FitSettings
    from telcoloc.models.trajectory.measurements import Measurements
    from telcoloc.models.trajectory.neural import Cnn, DeepLoc, Lstm, RecuLstm
    from telcoloc.models.trajectory.splits import groups, held_out

TITLE = "DeepLoc: sensitivity studies"
#: Passes over the records, where a study says nothing else: two fifths of the default, so that all studies fit in 25 min on two idle cores.
EPOCHS, CNN_EPOCHS = 40, 12
#: Table 5: median / mean / 90 % of configurations 1 to 5 [m].
TABLE_5 = ("25.7 / 49.9 / 97.8", "18.2 / 42.2 / 82.7", "23.1 / 47.5 / 89.5", "18.0 / 41.7 / 83.1", "24.3 / 48.6 / 99.2")
INTERVALS_S = (2, 5, 10, 20, 30)
WINDOWS = ((1, 1), (2, 2), (4, 3), (8, 3), (8, 1), (3, 8), (10, 10))
JOINS = ("concat", "mean", "max", "last")
_METHODS = {kind.method: kind for kind in (Cnn, Lstm, RecuLstm, DeepLoc)}

Case = tuple[str, str, int, dict[str, Any]]
_cnns: dict[int, Any] = {}


class _SameCnn(DeepLoc):
    """DeepLoc that takes the CNNs of the case before, where only what follows them differs."""

    def _prepare(self, data, truth, learn, settings, progress):
        if len(data) not in _cnns:
            _cnns[len(data)] = (super()._prepare(data, truth, learn, settings, progress), self._cnns)
        scores, self._cnns = _cnns[len(data)]
        return scores


def thinned(data: Measurements, interval_s: float) -> Measurements:
    """Keep records at least `interval_s` apart."""
    kept, last, before = np.zeros(len(data), bool), -np.inf, -1
    for row, (part, when) in enumerate(zip(data.trajectory, data.time_s)):
        if part != before or when - last >= interval_s:
            kept[row], last, before = True, when, part
    return data.take(kept)


def measure(case: Case) -> tuple[tuple[float, float, float], list[tuple[int, float]], int, float]:
    """Errors [m] (median, mean, 90 %) on the test part of the paper's split, those of the held-out part by epoch, records, seconds."""
    _, method, interval_s, options = case
    data, sites = mr_data.jiading()
    if options.pop("quick", False):
        data = data.take(data.trajectory < 6)
    data = thinned(data, interval_s) if interval_s else data
    test = held_out(groups(data, "sample"), 0.2, np.random.default_rng(0))
    more = min(10_000 / len(data), 3.0)  # about as many steps, whatever the number of records
    chosen = {"epochs": round(EPOCHS * more), "cnn_epochs": round(CNN_EPOCHS * more), **options}
    kind = _SameCnn if method == "deeploc" else _METHODS[method]
    began = time.monotonic()
    model = kind().fit(data.without_truth(test), sites, FitSettings(0, "cpu", 1, "sample", chosen))
    seconds = time.monotonic() - began
    fixes = model.predict(data)
    error = distance_m(*model.frame_.to_lonlat(fixes.x_m, fixes.y_m), data.lon, data.lat)[test]
    found = (float(np.median(error)), float(error.mean()), float(np.percentile(error, 90)))
    return found, getattr(model, "history_", []), len(data), seconds


def cases(quick: bool) -> list[Case]:
    """All trainings of all studies."""
    every: list[Case] = [("configuration", "cnn", 0, {"configuration": number}) for number in (2, 1, 3, 4, 5)]
    every += [("recursive", "deeploc", 0, {"recursive": layers}) for layers in (2, 0, 1, 3, 4)]
    every += [("prediction", "deeploc", 0, {"initialise": False})]
    every += [("concat", "deeploc", 0, {"concat": join}) for join in JOINS[1:]]
    every += [("interval", method, every_s, {}) for every_s in INTERVALS_S for method in _METHODS]
    every += [("window", "deeploc", 0, {"w1": first, "w2": second}) for first, second in WINDOWS]
    if quick:
        every = [one for one in every if one[0] != "interval" or one[2] in (2, 30)]
        small = {"epochs": 1, "cnn_epochs": 1, "hidden": 16, "quick": True}
        every = [(*one[:3], {**one[3], **small}) for one in every]
    return every


def run(quick: bool) -> kit.Report:
    """Train every case, two at a time."""
    every = cases(quick)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(measure, every))
    by_study: dict[str, list[tuple[Case, Any]]] = {}
    for case, result in zip(every, found):
        by_study.setdefault(case[0], []).append((case, result))

    def text(errors: tuple[float, float, float]) -> str:
        return " / ".join(f"{value:.1f}" for value in errors)

    report = kit.Report(
        TITLE,
        f"The paper's split of Jiading 2G (80/20 by sample, {found[0][2]:,} records); errors are median / mean / 90 % [m] of the test "
        f"part. All is smaller than the default: {EPOCHS} epochs, CNNs of a sixteenth of the paper's filters (at least 8) for "
        f"{CNN_EPOCHS} epochs, one seed; so compare within a study. The paper trained on another, larger part of this data. Study 7 "
        "(Figure 10) is a map in the docs.",
        ("study", "setting", "ours", "the paper", "learning"),
    )

    def row(study: str, setting: str, result: Any, paper: str = "") -> None:
        report.rows.append((study, setting, text(result[0]), paper, kit.duration(result[3])))

    for (case, result), paper in zip(
        sorted(by_study["configuration"], key=lambda one: one[0][3]["configuration"]), TABLE_5
    ):
        row("1 CNN configuration", str(case[3]["configuration"]), result, paper)
    recursive = sorted(by_study["recursive"], key=lambda one: one[0][3]["recursive"])
    usual = next(result for case, result in recursive if case[3]["recursive"] == 2)
    for case, result in recursive:
        layers = case[3]["recursive"]
        row("2 recursive layers", str(layers), result, {0: "worst", 2: "chosen"}.get(layers, ""))
    plain = by_study["prediction"][0][1]
    row("3 prediction layer", "initialised (equation 4)", usual, "better, stable after 200 epochs")
    row("3 prediction layer", "at random", plain)
    for join, result in zip(JOINS, [usual, *(result for _, result in by_study["concat"])]):
        row("4 concatenation", join, result, {"concat": "best", "last": "second"}.get(join, ""))
    for case, result in by_study["interval"]:
        row("5 sampling interval", f"{case[2]} s, {case[1]} ({result[2]:,} records)", result)
    row("6 windows w1 × w2", "from C2_bs and C1_bs", usual, "8.33 × 3.3")
    for case, result in by_study["window"]:
        sizes = (case[3]["w1"], case[3]["w2"])
        row("6 windows w1 × w2", f"{sizes[0]} × {sizes[1]}", result, "best" if sizes == (8, 3) else "")
    steps = "; ".join(
        f"epoch {epoch}: {first:.0f} and {second:.0f}" for (epoch, first), (_, second) in zip(usual[1], plain[1])
    )
    report.notes.append(
        f"Study 3 while learning, mean error of held-out records [m], initialised and at random: {steps}."
    )
    return report
