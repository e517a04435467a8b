"""Claim: Table 4 of the DeepLoc paper on its own Jiading 2G data, on the paper's split and on held-out trajectories."""

from __future__ import annotations

import time
from dataclasses import dataclass

import kit
import mr_data
import numpy as np

if True:  # `kit` puts the package in place
    from telcoloc.models.trajectory.evaluate import Errors
    from telcoloc.models.trajectory.measurements import CellSites, Measurements
    from telcoloc.models.trajectory.methods import NEURAL, PLAIN
    from telcoloc.models.trajectory.splits import folds, groups
    from telcoloc.models.trajectory.training import TrainJob, judge, learn, what_is_left

TITLE = "Measurement reports: Table 4, both splits"
#: The paper's Table 4, Jiading 2G: median, mean, 90 % [m].
PAPER = {
    "nbl": (57.4, 67.2, 300.9),
    "nbl_f": (40.8, 59.2, 214.7),
    "raf": (38.3, 48.3, 168.9),
    "ccr": (34.1, 43.2, 142.3),
    "ccr_f": (29.3, 40.8, 130.7),
    "hmm": (38.9, 59.9, 172.8),
    "cnn": (18.2, 42.2, 82.7),
    "lstm": (26.5, 51.3, 89.2),
    "stacklstm": (26.7, 56.1, 93.1),
    "seq2seq": (25.4, 50.6, 85.3),
    "convlstm": (28.5, 59.3, 129.3),
    "reculstm": (17.9, 42.6, 67.7),
    "deeploc": (15.2, 37.8, 63.2),
}
#: How many of the five folds by trajectory are run, where not all: what takes long to learn.
FOLDS = {"ccr": 2, "ccr_f": 2, **dict.fromkeys(NEURAL, 1)}
METHODS = ("auto", "nbl", "nbl_f", "raf", "ccr", "ccr_f", "hmm", *NEURAL)


@dataclass(frozen=True)
class Scores:
    """Errors [m] of all folds together, the share of truths inside the circles, and how long a fold took to learn [s]."""

    errors: list[Errors]
    seconds: float

    def cells(self) -> tuple[str, ...]:
        """Median / mean / 90 %, and the shares inside the circles."""
        median, mean, p90, inside_50, inside_90 = (
            np.mean([getattr(one, name) for one in self.errors])
            for name in ("median_m", "mean_m", "p90_m", "inside_50", "inside_90")
        )
        return f"{median:.0f} / {mean:.0f} / {p90:.0f}", f"{100 * inside_50:.0f} / {100 * inside_90:.0f}"

    def mean(self, name: str) -> float:
        """Mean over the folds of one figure."""
        return float(np.mean([getattr(one, name) for one in self.errors]))


def score(
    data: Measurements,
    sites: CellSites,
    method: str,
    split: str,
    only: int | None = None,
    seed: int = 0,
    n_folds: int = 5,
) -> Scores:
    """Learn and judge over five folds of whole groups, or the first `only` of them."""
    parts = folds(groups(data, split), n_folds, np.random.default_rng(seed))
    job = TrainJob(method, split, seed=seed, threads=2, refit=False)
    found = []
    began = time.monotonic()
    for test in parts[:only]:
        model = learn(what_is_left(data, test, split), sites, job)
        found.append(judge(model, data, test, split, threads=2)[1])
    return Scores(found, (time.monotonic() - began) / len(found))


def run(quick: bool) -> kit.Report:
    """Every method on both splits."""
    data, sites = mr_data.jiading()
    if quick:
        data = data.take(data.trajectory < 12)
    report = kit.Report(
        TITLE,
        f"Jiading 2G: {len(data):,} records of {len(np.unique(data.trajectory))} trajectories, one part in five held out. *Sample* is the "
        "paper's split, neighbouring seconds of one walk on both sides; *trajectory* holds whole trajectories out, which is what a user "
        "gets. Errors: median / mean / 90 % [m], mean over folds; by sample the first fold, by trajectory as many as *folds* says, the "
        "first ones of the same five. *Inside*: per cent of held-out truths inside the circles that claim 50 / 90 %. *Time*: learning with "
        "calibration, and judging, of the fold by sample. The set here is two thirds of the paper's. _m is not here: no street layer of "
        "Jiading is at hand.",
        ("method", "the paper", "sample", "inside", "trajectory", "folds", "inside", "time"),
    )
    scores: dict[tuple[str, str], Scores] = {}
    for method in METHODS if not quick else ("nbl", "raf", "deeploc"):
        for split, only in (("sample", 1), ("trajectory", 1 if quick else FOLDS.get(method))):
            scores[method, split] = score(data, sites, method, split, only)
        sample, apart = scores[method, "sample"], scores[method, "trajectory"]
        paper = " / ".join(f"{value:.0f}" for value in PAPER[method]) if method in PAPER else ""
        errors, inside = apart.cells()
        report.rows.append(
            (
                method,
                paper,
                *sample.cells(),
                errors,
                str(len(apart.errors)),
                inside,
                kit.duration(sample.seconds),
            )
        )
    if quick:
        return report
    deeploc, ccr = scores["deeploc", "sample"], scores["ccr", "sample"]
    measured = tuple(deeploc.mean(name) for name in ("median_m", "mean_m", "p90_m"))
    limits = (15.2, 37.8, 63.2)
    report.targets.append(
        kit.Target(
            "DeepLoc, paper's split, median / mean / 90 %: at most 15.2 / 37.8 / 63.2 m",
            " / ".join(f"{value:.1f}" for value in measured),
            all(value <= limit for value, limit in zip(measured, limits)),
        )
    )
    medians = {name: scores[name, "sample"].mean("median_m") for name in METHODS if name in PLAIN and name != "auto"}
    best = min(medians, key=lambda name: medians[name])
    report.targets.append(
        kit.Target(
            "DeepLoc has the lowest median on the paper's split", f"{best}: {medians[best]:.1f} m", best == "deeploc"
        )
    )
    gain = 1 - deeploc.mean("median_m") / ccr.mean("median_m")
    report.targets.append(
        kit.Target("DeepLoc's median at least 40 % below CCR's (paper 55 %)", f"{100 * gain:.0f} %", gain >= 0.4)
    )
    auto = scores["auto", "trajectory"]
    report.targets.append(
        kit.Target(
            "auto by trajectory: median at most 75 m, 90 % at most 250 m",
            f"{auto.mean('median_m'):.0f} / {auto.mean('p90_m'):.0f} m",
            auto.mean("median_m") <= 75 and auto.mean("p90_m") <= 250,
        )
    )
    return report
