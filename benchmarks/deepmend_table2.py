"""Claim: Table II of the DeepMEND paper: leave one city, and one urbanisation, out; real French layouts with a simulated truth."""

from __future__ import annotations

from dataclasses import replace

import deepmend_kit as deepmend
import french
import kit
import numpy as np

if True:  # `kit` puts the package in place
    from telcoloc.models.geolocation.sites import URBANISATIONS
    from telcoloc.models.grid import Grid
    from telcoloc.models.training.evaluate import targets_of
    from telcoloc.models.training.make import networks_of
    from telcoloc.models.training.networks import CELL_SIZE_M, network_of_layout
    from telcoloc.models.training.truth import TruthNetwork

TITLE = "DeepMEND: Table II, leave one out"
#: The paper's Table II: DeepMEND, VoronoiBoost, Direct, sPDI, Voronoi.
PAPER = {
    "Bordeaux": (0.39, 0.54, 0.56, 0.64, 0.86),
    "Lille": (0.30, 0.41, 0.41, 0.50, 0.64),
    "Lyon": (0.47, 0.67, 0.74, 0.81, 0.92),
    "Mans": (0.34, 0.63, 0.53, 0.66, 0.88),
    "Nantes": (0.36, 0.54, 0.60, 0.73, 0.89),
    "Nice": (0.45, 0.52, 0.55, 0.54, 0.77),
    "Orleans": (0.38, 0.63, 0.54, 0.61, 0.85),
    "urban": (0.31, 0.37, 0.33, 0.39, 0.53),
    "suburban": (0.34, 0.52, 0.48, 0.60, 0.83),
    "rural": (0.32, 0.52, 0.48, 0.61, 0.85),
}
ORDER = ("deepmend_beta", "deepmend", "voronoiboost", "direct", "spdi_legacy", "voronoi")
SIDE_M = 40_000.0
#: An urbanisation left out is judged on this many networks.
_JUDGED = 3


def layout(network: french.FrenchNetwork, seed: int, per_network: int) -> TruthNetwork:
    """The 40 × 40 km around the network's middle, with a simulated truth."""
    middle = np.round(np.median(network.sites_m, axis=0), -2)
    inside = (np.abs(network.sites_m - middle) < SIDE_M / 2).all(axis=1)
    grid = Grid.covering((*(middle - SIDE_M / 2), *(middle + SIDE_M / 2)), CELL_SIZE_M)
    found = network_of_layout(network.city, network.sites_m[inside], grid, seed)
    return targets_of(found, per_network, seed)


def run(quick: bool) -> kit.Report:
    """Train without each city and without each urbanisation, and judge on what was left out."""
    per_network = 10 if quick else 24
    cities = [
        layout(network, 2000 + number, per_network)
        for number, network in enumerate(french.one_per_city()[: 2 if quick else None])
    ]
    networks = cities + networks_of(0, 1 if quick else 2, per_network, "default")
    labels = deepmend.labels_of(networks)
    report = kit.Report(
        TITLE,
        f"Real layouts of {len(cities)} French cities (one operator each, 40 × 40 km) and {len(networks) - len(cities)} simulated ones, "
        f"all with a simulated truth, at most {per_network} base stations each. A row is trained on all other networks (or on the base "
        f"stations of the other urbanisations) and judged on what was left out (urbanisations: in {_JUDGED} cities). The paper's figures, "
        "on the operator's truth, in brackets.",
        ("left out", "BSs", *(deepmend.NAMES[name] for name in ORDER)),
    )
    wins, rows = 0, 0

    def leave_out(name: str, learn: list[TruthNetwork], test: list[TruthNetwork]) -> None:
        nonlocal wins, rows
        scores: dict[str, deepmend.Scores] = {}
        with kit.scratch() as folder:
            paths = deepmend.train(folder, learn, labels)
            for network in test:
                deepmend.judge(network, paths, scores)
        paper = dict(zip(("deepmend", "voronoiboost", "direct", "spdi_legacy", "voronoi"), PAPER[name]))
        cells = []
        for method in ORDER:
            theirs = paper.get(method)
            cells.append(scores[method].cell() + (f" ({theirs:.2f})" if theirs is not None else ""))
        medians = {method: float(np.median(scores[method].values())) for method in ORDER}
        wins += min(medians, key=lambda method: medians[method]) in ("deepmend", "deepmend_beta")
        rows += 1
        report.rows.append((name, str(len(scores["voronoi"].values())), *cells))

    for number, city in enumerate(cities):
        leave_out(city.name, networks[:number] + networks[number + 1 :], [city])
    for kind, name in enumerate(URBANISATIONS):
        learn = [replace(one, targets=one.targets[one.urbanisation[one.targets] != kind]) for one in networks]
        test = [replace(one, targets=one.targets[one.urbanisation[one.targets] == kind]) for one in networks[:_JUDGED]]
        leave_out(name, [one for one in learn if len(one.targets)], [one for one in test if len(one.targets)])
    report.targets.append(kit.Target("a DeepMEND variant is best in every row", f"in {wins} of {rows}", wins == rows))
    return report
