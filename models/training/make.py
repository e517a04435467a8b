"""Makes the weights that ship: `python -m telcoloc.models.training.make KIND`, one command per file.

All networks are simulated from their seeds. Seeds below `FIRST_HELD_OUT` are to learn from, those from it on to judge by; they never mix.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ..environment import resolve_device
from ..geolocation.engine import GeolocationJob
from ..geolocation.student_windows import StudentWindow
from ..progress import Progress
from ..radio.scene import CALIBRATIONS
from ..weights_file import SHIPPED, Weights, write_weights
from .deepmend_beta import BetaSettings, fit_deepmend_beta
from .evaluate import ks2_of, median_by_urbanisation, targets_of
from .labels import soft_labels
from .networks import simulated_network
from .student import StudentSettings, fit_student
from .train import hardware
from .truth import TruthNetwork
from .voronoi_boost import fit as fit_voronoi_boost

KINDS = ("voronoiboost", "deepmend", "direct", "deepmend_fixed", "direct_fixed", "deepmend_beta")
#: What kinds for the paper's window end in.
_FIXED = "_fixed"
#: Seeds of the networks to learn from, to stop by, and to judge by.
FIRST_VALIDATION, FIRST_HELD_OUT = 900, 1000
LICENCE = "GPL-2.0-or-later, as the plugin; trained on data this project generates, no others"


def networks_of(first: int, count: int, per_network: int, calibration: str) -> list[TruthNetwork]:
    """Simulate `count` networks from seed `first` on, each with at most `per_network` targets."""
    parameters = CALIBRATIONS[calibration]()
    return [targets_of(simulated_network(seed, parameters), per_network, seed) for seed in range(first, first + count)]


def fit(
    kind: str,
    networks: Sequence[TruthNetwork],
    validation: Sequence[TruthNetwork],
    *,
    labels: Sequence[sparse.csr_matrix] | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 2,
    progress: Progress,
) -> Weights:
    """Train one of `KINDS`; settings left out are those that suit a CPU. `labels` spares "deepmend" asking the teacher again."""
    if kind == "voronoiboost":
        boost = fit_voronoi_boost(networks, seed=seed, progress=progress)
        return boost.weights()
    if kind == "deepmend_beta":
        defaults = BetaSettings()
        chosen = BetaSettings(
            epochs=epochs or defaults.epochs, learning_rate=learning_rate or defaults.learning_rate, seed=seed
        )
        weights, history = fit_deepmend_beta(networks, validation, chosen, progress, device=device)
        card = {"settings": asdict(chosen), "history": asdict(history)}
        return Weights(weights.kind, weights.tensors, card)
    method = kind.removesuffix(_FIXED)
    settings = StudentSettings(
        method=method,
        window=StudentWindow() if method == kind else StudentWindow.paper(),
        epochs=epochs or (100 if device == "cuda" else 8),
        learning_rate=learning_rate or (1e-4 if device == "cuda" else 2e-3),
        one_cycle=device != "cuda",
        seed=seed,
        device=device,
        threads=threads,
    )
    if method == "direct":
        labels = [network.maps for network in networks]
    elif labels is None:
        labels = [soft_labels(network, threads=threads, progress=progress) for network in networks]
    return fit_student(networks, labels, validation, settings, progress)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make weights files with their cards."""
    parser = argparse.ArgumentParser(prog="python -m telcoloc.models.training.make", description=__doc__)
    parser.add_argument("kinds", choices=KINDS, nargs="+", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--calibration", choices=tuple(CALIBRATIONS), default="default", help="of the simulator")
    parser.add_argument("--networks", type=int, default=16, help="simulated networks to learn from")
    parser.add_argument("--per-network", type=int, default=120, help="most base stations of each")
    parser.add_argument("--epochs", type=int, help="passes over the data")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--folder", type=Path, default=SHIPPED, help="default: where the plugin looks for weights")
    options = parser.parse_args(arguments)
    device, _ = resolve_device(options.device)
    data = [
        networks_of(first, count, most, options.calibration)
        for first, count, most in (
            (0, options.networks, options.per_network),
            (FIRST_VALIDATION, 2, 80),
            (FIRST_HELD_OUT, 3, 100),
        )
    ]
    given = list(sys.argv[1:] if arguments is None else arguments)
    for kind in options.kinds:
        command = " ".join([kind, *(word for word in given if word not in KINDS)])
        _make(kind, command, options, device, *data)
    return 0


def _make(
    kind: str,
    command: str,
    options: argparse.Namespace,
    device: str,
    learn: list[TruthNetwork],
    validation: list[TruthNetwork],
    held_out: list[TruthNetwork],
) -> None:
    """Train one kind, judge it on networks it never saw, and write it with its card."""
    start = time.perf_counter()
    weights = fit(
        kind,
        learn,
        validation,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        seed=options.seed,
        device=device,
        progress=_Said(),
    )
    minutes = (time.perf_counter() - start) / 60
    path = options.folder / f"{kind}.safetensors"
    write_weights(path, weights)
    method = kind.removesuffix(_FIXED)
    if method != kind:  # half a second a map
        held_out = [targets_of(network, 30, seed=1) for network in held_out]
    job = GeolocationJob(
        held_out[0].sites_m,
        held_out[0].grid,
        method=method,
        window="adaptive" if method == kind else "fixed",
        weights=str(path),
        device=device,
        min_probability=1e-3,
    )
    ks2 = np.concatenate([ks2_of(network, job) for network in held_out])
    kinds = np.concatenate([network.urbanisation[network.targets] for network in held_out])
    card: dict[str, Any] = {
        **weights.card,
        "data": f"{len(learn)} simulated networks (seeds 0 to {len(learn) - 1}, calibration '{options.calibration}'), "
        f"{sum(len(network.targets) for network in learn)} base stations",
        "seed": options.seed,
        "command": f"python -m telcoloc.models.training.make {command}",
        "hardware": hardware(device)
        + ("" if device == "cuda" else f", {os.cpu_count()} cores (reduced: few epochs, a raised learning rate)"),
        "minutes": round(minutes, 1),
        "median_ks2_held_out": median_by_urbanisation(ks2, kinds),
        "held_out": f"{len(held_out)} simulated networks (seeds from {FIRST_HELD_OUT} on), {len(ks2)} base stations",
        "licence": LICENCE,
    }
    write_weights(path, Weights(weights.kind, weights.tensors, card))
    sys.stdout.write(f"\n{path}: {card['median_ks2_held_out']} after {minutes:.1f} min\n")
    sys.stdout.flush()


class _Said:
    """Progress on the terminal, now and then."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, fraction: float) -> None:
        now = time.perf_counter()
        if now - self._last > 10:
            self._last = now
            sys.stdout.write(f"{fraction:6.1%}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
