"""What the benchmarks of DeepMEND share: the methods of the paper's tables, trained and judged on networks with a known truth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import kit
import numpy as np

if True:  # `kit` puts the package in place
    from telcoloc.models.geolocation.engine import GeolocationJob
    from telcoloc.models.geolocation.ks2 import compare_maps
    from telcoloc.models.progress import no_progress
    from telcoloc.models.training.evaluate import ks2_of
    from telcoloc.models.training.labels import soft_labels
    from telcoloc.models.training.make import fit
    from telcoloc.models.training.truth import TruthNetwork
    from telcoloc.models.weights_file import write_weights

#: β of the paper's sPDI (section III-C), by urbanisation.
LEGACY_BETA = np.array([5.0, 4.0, 3.0])
LEARNED = ("voronoiboost", "direct", "deepmend", "deepmend_beta")
NAMES = {
    "voronoi": "Voronoi",
    "voronoiboost": "VoronoiBoost",
    "spdi_legacy": "sPDI (β 5/4/3)",
    "spdi_1.5": "sPDI, β 1.5",
    "direct": "Direct",
    "deepmend": "DeepMEND",
    "deepmend_beta": "DeepMEND-β",
    "teacher": "teacher (knows the truth)",
}
EPOCHS = {"direct": 6, "deepmend": 6, "deepmend_beta": 5, "voronoiboost": None}


@dataclass
class Scores:
    """KS2 of a method on the targets of the networks judged so far, with their urbanisation, and the time it took."""

    ks2: list[np.ndarray] = field(default_factory=list)
    kind: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0
    bs: int = 0

    def add(self, ks2: np.ndarray, kind: np.ndarray, seconds: float = 0.0, bs: int = 0) -> None:
        self.ks2.append(ks2)
        self.kind.append(kind)
        self.seconds += seconds
        self.bs += bs

    def values(self, kind: int | None = None) -> np.ndarray:
        """KS2 of all BSs, or of those of one urbanisation."""
        ks2, kinds = np.concatenate(self.ks2), np.concatenate(self.kind)
        chosen = ks2 if kind is None else ks2[kinds == kind]
        return chosen[np.isfinite(chosen)]

    def cell(self, kind: int | None = None) -> str:
        """Median ± standard deviation."""
        values = self.values(kind)
        return f"{np.median(values):.3f} ± {values.std():.3f}" if len(values) else "–"


def labels_of(networks: Sequence[TruthNetwork]) -> dict[str, object]:
    """The teacher's soft labels of each network, by name."""
    return {network.name: soft_labels(network) for network in networks}


def train(
    folder: Path, networks: Sequence[TruthNetwork], labels: dict[str, object], kinds: Sequence[str] = LEARNED
) -> dict[str, Path]:
    """Train methods on networks; the weights' paths by method."""
    paths = {}
    for kind in kinds:
        soft = [labels[network.name] for network in networks] if kind == "deepmend" else None
        weights = fit(kind, networks, (), labels=soft, epochs=EPOCHS[kind], progress=no_progress)
        paths[kind] = folder / f"{kind}.safetensors"
        write_weights(paths[kind], weights)
    return paths


def judge(
    network: TruthNetwork, paths: dict[str, Path], scores: dict[str, Scores], labels: dict[str, object] | None = None
) -> None:
    """Add every method's KS2 on a network that none was trained on."""
    kind = network.urbanisation
    job = GeolocationJob(network.sites_m, network.grid, min_probability=1e-3)
    jobs = {
        "voronoi": replace(job, method="voronoi"),
        "spdi_legacy": replace(job, beta=LEGACY_BETA[kind]),
        "spdi_1.5": replace(job, beta=1.5),
        **{name: replace(job, method=name, weights=str(path)) for name, path in paths.items()},
    }
    judged = kind[network.targets]
    for name, one in jobs.items():
        start = time.perf_counter()
        ks2 = ks2_of(network, one)
        scores.setdefault(name, Scores()).add(ks2, judged, time.perf_counter() - start, len(network.sites_m))
    if labels is not None:
        rows = network.targets
        found = compare_maps(network.maps[rows], labels[network.name][rows], network.grid)[0]  # type: ignore[index]
        scores.setdefault("teacher", Scores()).add(found, judged)


def reductions(scores: dict[str, Scores], best: str) -> list[kit.Target]:
    """How much lower the best method's median KS2 is than the others', against the paper's figures."""
    targets = []
    ours = np.median(scores[best].values())
    for name, percent in (("voronoi", 57), ("voronoiboost", 33), ("spdi_legacy", 39), ("direct", 28)):
        lower = 100 * (1 - ours / np.median(scores[name].values()))
        claim = f"{NAMES[best]}'s median KS2 at least {percent} % below {NAMES[name]}'s"
        targets.append(kit.Target(claim, f"{lower:.0f} %", lower >= percent))
    return targets


def best_of(scores: dict[str, Scores]) -> str:
    """DeepMEND's variant with the smallest median."""
    return min(("deepmend", "deepmend_beta"), key=lambda name: float(np.median(scores[name].values())))
