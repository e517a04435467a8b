"""Learning VoronoiBoost's regressor with scikit-learn; predicting needs numpy alone (`telcoloc.models.trees`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..geolocation.voronoi_boost import VoronoiBoost, cell_bounds, inputs, true_scales
from ..geolocation.voronoi_cells import voronoi_cells
from ..geolocation.voronoi_features import FEATURES, features
from ..geolocation.voronoi_rings import TAUS
from ..progress import Progress, no_progress
from ..trees import TreeEnsemble
from .truth import TruthNetwork

#: Scales beyond these are learned as these: a map that its cell does not touch says little about others.
SCALE_LIMITS = (0.02, 100.0)
#: Trees, leaves of each, learning rate and fewest samples in a leaf (a BS is five): weights of 0.1 MB. On held-out simulated networks
#: larger trees with smaller leaves told the scales worse.
N_TREES, N_LEAVES, LEARNING_RATE, LEAF_SAMPLES = 200, 12, 0.05, 200
#: Share of the progress that collecting samples takes.
_COLLECTING = 0.8


def samples(network: TruthNetwork) -> tuple[np.ndarray, np.ndarray]:
    """What one network teaches: inputs (5 n, 15) and log scales (5 n,) of its targets that have a true map."""
    rows = np.asarray(network.targets)
    bounds = cell_bounds(network.sites_m)
    scales = true_scales(network.sites_m, bounds, network.maps, network.grid, rows)
    known = np.isfinite(scales).all(axis=1)
    table = features(voronoi_cells(network.sites_m, bounds), network.sites_m)[rows[known]]
    return inputs(table), np.log(np.clip(scales[known], *SCALE_LIMITS)).ravel()


def fit(networks: Sequence[TruthNetwork], seed: int = 0, progress: Progress = no_progress) -> VoronoiBoost:
    """Fit one regressor of log(scale) by absolute error on the targets of all networks.

    A scale is a ratio, so its logarithm is what errors are symmetric in; the absolute error tells the median scale, which a few odd
    maps do not move.

    Parameters
    ----------
    networks
        Networks to learn from.
    seed
        Of the sample that feature values are binned by.
    progress
        Called after each network.

    Raises
    ------
    InputError
        When scikit-learn is missing, or fewer BSs than a leaf needs have a true map.
    Cancelled
        From `progress`.
    """
    try:
        import sklearn
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError as error:
        raise InputError(
            f"Training VoronoiBoost needs scikit-learn, which cannot be imported ({error}); install python3-sklearn. "
            "Geolocating with it needs nothing more."
        ) from error
    collected = []
    for place, network in enumerate(networks):
        collected.append(samples(network))
        progress(_COLLECTING * (place + 1) / len(networks))
    n_targets = sum(len(scales) for _, scales in collected) // len(TAUS)
    if n_targets * len(TAUS) < LEAF_SAMPLES:
        raise InputError(
            f"{n_targets} base stations with a true map are too few to learn from; {LEAF_SAMPLES // len(TAUS)} are needed."
        )
    regressor = HistGradientBoostingRegressor(
        loss="absolute_error",
        max_iter=N_TREES,
        max_leaf_nodes=N_LEAVES,
        learning_rate=LEARNING_RATE,
        min_samples_leaf=LEAF_SAMPLES,
        early_stopping=False,
        random_state=seed,
    )
    regressor.fit(np.concatenate([one for one, _ in collected]), np.concatenate([one for _, one in collected]))
    progress(1.0)
    card = {
        "method": "VoronoiBoost (Martínez-Durive et al., SECON 2022), log scale, absolute error",
        "networks": [network.name for network in networks],
        "base_stations": n_targets,
        "features": list(FEATURES),
        "seed": seed,
        "trees": N_TREES,
        "scikit_learn": sklearn.__version__,
    }
    return VoronoiBoost(from_sklearn(regressor), card)


def from_sklearn(regressor: Any) -> TreeEnsemble:  # noqa: ANN401 - scikit-learn is not imported here
    """Take the trees out of a fitted HistGradientBoostingRegressor without categorical features or missing values.

    scikit-learn keeps them in attributes that are not public; a test compares predictions. Feature values must be float32 in training
    too, since `TreeEnsemble` compares them so.
    """
    trees = [stage[0].nodes for stage in regressor._predictors]
    roots = np.cumsum([0, *(len(nodes) for nodes in trees[:-1])])
    nodes = np.concatenate(trees)
    first = np.repeat(roots, [len(tree) for tree in trees])
    leaf = nodes["is_leaf"].astype(bool)
    here = np.arange(len(nodes))
    return TreeEnsemble(
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int16),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
        left=np.where(leaf, here, first + nodes["left"]).astype(np.int32),
        right=np.where(leaf, here, first + nodes["right"]).astype(np.int32),
        value=np.where(leaf, nodes["value"], 0.0).astype(np.float32),
        roots=roots.astype(np.int32),
        base=np.ravel(regressor._baseline_prediction).astype(np.float64)[:1],
    )
