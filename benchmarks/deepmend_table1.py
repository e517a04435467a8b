"""Claim: Table I of the DeepMEND paper on simulated networks: five-fold cross-validation over networks, all methods in one run."""

from __future__ import annotations

import deepmend_kit as deepmend
import kit
import numpy as np

if True:  # `kit` puts the package in place
    from telcoloc.models.training.make import networks_of

TITLE = "DeepMEND: Table I, five-fold cross-validation"
#: The paper's Table I, and its share of BSs with KS2 > .6 (section V-A).
PAPER = {
    "voronoi": ("0.704 ± 0.305", "< 1", "30 to 60 %"),
    "voronoiboost": ("0.454 ± 0.232", "3", "30 to 60 %"),
    "spdi_legacy": ("0.501 ± 0.296", "80,000", "30 to 60 %"),
    "direct": ("0.422 ± 0.274", "21", "30 to 60 %"),
    "deepmend": ("0.304 ± 0.194", "21", "9 %"),
}
FOLDS = 5


def run(quick: bool) -> kit.Report:
    """Train on four fifths of the networks, judge on the last, five times."""
    return cross_validation("default", TITLE, n_networks=5, per_network=12 if quick else 80)


def cross_validation(calibration: str, title: str, n_networks: int, per_network: int) -> kit.Report:
    """Run the cross-validation on one calibration of the simulator."""
    networks = networks_of(0, n_networks, per_network, calibration)
    labels = deepmend.labels_of(networks)
    scores: dict[str, deepmend.Scores] = {}
    for fold in range(FOLDS):
        with kit.scratch() as folder:
            learn = [network for number, network in enumerate(networks) if number % FOLDS != fold]
            paths = deepmend.train(folder, learn, labels)
            for network in networks[fold::FOLDS]:
                deepmend.judge(network, paths, scores, labels)
    count = sum(len(network.targets) for network in networks)
    report = kit.Report(
        title,
        f"{count:,} base stations of {n_networks} simulated networks (60 × 60 km, 100 m cells, calibration '{calibration}'); each fold "
        "holds out a fifth of the networks, whole. Median KS2 ± standard deviation on the full grid; ms per BS is the whole call for "
        "all BSs of a network, KS2 of the judged ones included. Networks were trained in the reduced form that suits two CPU cores "
        f"({deepmend.EPOCHS['deepmend']} epochs for the U-Nets, {deepmend.EPOCHS['deepmend_beta']} for DeepMEND-β).",
        (
            "method",
            "KS2",
            "urban",
            "suburban",
            "rural",
            "KS2 > .6",
            "ms per BS",
            "paper: KS2",
            "paper: ms",
            "paper: > .6",
        ),
    )
    for name, label in deepmend.NAMES.items():
        one = scores[name]
        share = f"{100 * np.mean(one.values() > 0.6):.0f} %"
        milliseconds = f"{1000 * one.seconds / one.bs:.1f}" if one.bs else "–"
        cells = [one.cell(), *(one.cell(kind) for kind in range(3)), share, milliseconds]
        report.rows.append((label, *cells, *PAPER.get(name, ("–",) * 3)))
    best = deepmend.best_of(scores)
    report.targets += deepmend.reductions(scores, best)
    share = 100 * float(np.mean(scores[best].values() > 0.6))
    report.targets.append(kit.Target("at most 9 % of BSs with KS2 > .6", f"{share:.1f} %", share <= 9))
    return report
