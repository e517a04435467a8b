"""The paper's own two ways to compute sPDI for one cell, slow and independent of `spdi`: for tests and benchmarks only."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def adaptive_integration(distances_m: np.ndarray, beta: float, tolerance: float = 1e-12) -> np.ndarray:
    """Return P(i|ℓ) of one cell by adaptive quadrature of equation (2), one integral per BS.

    Parameters
    ----------
    distances_m
        Distance of the cell to every BS [m], shape (n_bs,); at most one may be 0.

    Returns
    -------
    numpy.ndarray
        Shape (n_bs,).
    """
    from scipy.integrate import quad

    distances_m = np.asarray(distances_m, dtype=float)
    result = np.zeros(len(distances_m))
    if (distances_m == 0).any():
        result[np.flatnonzero(distances_m == 0)[0]] = 1.0
        return result
    log_distance = np.log(distances_m)
    for i in range(len(distances_m)):
        log_ratio = np.minimum(beta * (np.delete(log_distance, i) - log_distance[i]), 600)

        def integrand(s: float, log_ratio: np.ndarray = log_ratio) -> float:
            r = np.exp(s)
            return float(np.exp(s - r) * np.prod(-np.expm1(-np.exp(np.minimum(log_ratio + s, 600)))))

        # In s = log r the factors switch on where s ~ −log ratio; telling quad keeps it from stepping over one.
        switches = np.unique(np.clip(-log_ratio, -40, 4).round(1))
        edges = np.unique(np.concatenate([[-40.0, -10.0, 0.0, 2.0, 4.0], switches[:: max(1, len(switches) // 12)]]))
        result[i] = sum(
            quad(integrand, low, high, epsabs=tolerance, epsrel=tolerance, limit=200)[0]
            for low, high in zip(edges[:-1], edges[1:])
        )
    return result


def inclusion_exclusion(distances_m: np.ndarray, beta: float) -> np.ndarray:
    """Return P(i|ℓ) by equation (3), over all BSs given (the paper gives the k = 5 nearest): 2^(k−1) terms per BS.

    Parameters
    ----------
    distances_m
        Shape (n_bs, n_cells) [m], strictly positive.

    Returns
    -------
    numpy.ndarray
        Shape (n_bs, n_cells).
    """
    n_bs = len(distances_m)
    result = np.ones_like(distances_m, dtype=float)
    for i in range(n_bs):
        ratio = (np.delete(distances_m, i, axis=0) / distances_m[i]) ** beta
        for size in range(1, n_bs):
            sign = (-1) ** size
            for chosen in combinations(range(n_bs - 1), size):
                result[i] += sign / (ratio[list(chosen)].sum(axis=0) + 1)
    return result
