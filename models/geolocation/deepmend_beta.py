"""DeepMEND-β: a small network reads a base station's (BS's) neighbourhood and sets the parameters of sPDI, which draws the map.

The soft label of DeepMEND's teacher is an sPDI map with one β per BS, so a student need not learn to paint: it can learn β. Here every
BS j gets two attenuations, β_j up to its reach h_j and β'_j beyond it (a path loss of two slopes), a strength, and a shift of its
position towards or away from its neighbours. The association probabilities are those of equation (2) with

    λ_j(ℓ) = s_j^γ e^(−g_j) r^β_j (1 + r^4)^((β'_j − β_j) / 4),  r = ‖ℓ − x_j‖ / h_j,

where s_j is the BS's local spacing and γ one learned number: with all β equal to it, this is plain sPDI.

One model for all BSs of a cell, so the probabilities sum to one over BSs by construction. The features are ratios of distances, and
reach and shift are in local spacings: moving, turning, mirroring or scaling the layout does the same to the maps.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..weights_file import Weights, expect_shapes, read_weights
from .sites import local_spacing_m

KIND = "deepmend_beta"
#: Ranks of neighbours whose distances are features, and sizes of the neighbourhoods whose centroids are.
_RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 36, 48)
_CENTROIDS = (6, 24)
FEATURES = (
    *(f"log_distance_{rank}" for rank in _RANKS),
    *(f"log_spacing_of_{size}" for size in _CENTROIDS),
    *(f"centroid_{size}" for size in _CENTROIDS),
    "anisotropy_6",
)
#: Near and far attenuation, reach, strength, shift along the near and the far centroid.
OUTPUTS = ("beta", "beta_far", "reach", "strength", "shift_6", "shift_24")
BETA_RANGE = (0.3, 8.0)
MOST_SHIFT = 0.5


@dataclass(frozen=True)
class Surroundings:
    """What DeepMEND-β sees of each BS.

    Parameters
    ----------
    spacing_m
        Local spacing [m], shape (n,).
    features
        Shape (n, len(FEATURES)); no units.
    towards
        Vectors from the BS to the centroids of its neighbourhoods, in local spacings, shape (n, len(_CENTROIDS), 2).
    """

    spacing_m: np.ndarray
    features: np.ndarray
    towards: np.ndarray


def surroundings(sites_m: np.ndarray) -> Surroundings:
    """Describe the neighbourhood of each BS; positions [m], shape (n, 2), n ≥ 2.

    In a network with fewer BSs than a feature asks for, the farthest one there is stands in.
    """
    spacing = local_spacing_m(sites_m)
    n = len(sites_m)
    most = min(max(_RANKS), n - 1)
    distance, index = cKDTree(sites_m).query(sites_m, k=most + 1)
    distance, index = distance[:, 1:], index[:, 1:]
    ranks = np.minimum(np.array(_RANKS), most) - 1
    log_distance = np.log(distance[:, ranks] / spacing[:, None])
    log_spacing = np.log(spacing)
    relative = (sites_m[index] - sites_m[:, None, :]) / spacing[:, None, None]
    sizes = [min(size, most) for size in _CENTROIDS]
    around = np.column_stack([log_spacing[index[:, :size]].mean(axis=1) - log_spacing for size in sizes])
    towards = np.stack([relative[:, :size].mean(axis=1) for size in sizes], axis=1)
    lengths = np.linalg.norm(towards, axis=2)
    near = relative[:, : sizes[0]]
    spread = np.linalg.eigvalsh(np.einsum("nki,nkj->nij", near, near) / sizes[0])
    anisotropy = 1 - spread[:, 0] / spread[:, 1]
    return Surroundings(spacing, np.column_stack([log_distance, around, lengths, anisotropy]), towards)


@dataclass(frozen=True)
class SpdiParameters:
    """The sPDI model that draws the maps.

    Parameters
    ----------
    sites_m
        Shifted positions [m], shape (n, 2).
    beta, beta_far
        Attenuation before and beyond the reach, shape (n,).
    reach_m
        Where the slopes meet [m], shape (n,).
    strength
        g_j − γ log s_j: log rates are lower by it, shape (n,).
    """

    sites_m: np.ndarray
    beta: np.ndarray
    beta_far: np.ndarray
    reach_m: np.ndarray
    strength: np.ndarray


class DeepMendBeta:
    """The learned function from surroundings to sPDI parameters: a perceptron of two hidden layers."""

    def __init__(self, weights: Weights, path: str | os.PathLike[str] = "") -> None:
        tensors = weights.tensors
        hidden = tensors["layer_1.weight"].shape[0] if "layer_1.weight" in tensors else 0
        n_in, n_out = len(FEATURES), len(OUTPUTS)
        shapes = {
            "gamma": (),
            "mean": (n_in,),
            "std": (n_in,),
            "layer_1.weight": (hidden, n_in),
            "layer_1.bias": (hidden,),
        }
        shapes.update({"layer_2.weight": (hidden, hidden), "layer_2.bias": (hidden,)})
        shapes.update({"layer_3.weight": (n_out, hidden), "layer_3.bias": (n_out,)})
        expect_shapes(weights, shapes, path)
        self.weights = weights

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DeepMendBeta:
        """Read weights.

        Raises
        ------
        InputError
            As `read_weights`, and when the arrays do not fit.
        """
        return cls(read_weights(path, KIND), path)

    def predict(self, sites_m: np.ndarray) -> SpdiParameters:
        """Set the parameters of every BS of a network; positions [m], shape (n, 2), n ≥ 2."""
        seen = surroundings(sites_m)
        tensors = self.weights.tensors
        values = np.clip((seen.features - tensors["mean"]) / tensors["std"], -4, 4)
        for layer in ("layer_1", "layer_2"):
            values = np.tanh(values @ tensors[f"{layer}.weight"].T + tensors[f"{layer}.bias"])
        raw = values @ tensors["layer_3.weight"].T + tensors["layer_3.bias"]
        low, high = BETA_RANGE
        beta, beta_far = (low + (high - low) / (1 + np.exp(-raw[:, column])) for column in (0, 1))
        shift = MOST_SHIFT * np.tanh(raw[:, 4:])
        moved = sites_m + (shift[:, :, None] * seen.towards).sum(axis=1) * seen.spacing_m[:, None]
        strength = raw[:, 3] - tensors["gamma"] * np.log(seen.spacing_m)
        return SpdiParameters(moved, beta, beta_far, seen.spacing_m * np.exp(raw[:, 2]), strength)
