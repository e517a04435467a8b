"""What the tests of the science share: an sPDI oracle for many cells at once, which uses nothing of `spdi`."""

import numpy as np
import pytest


def exact_spdi(distances_m, beta):
    """P(i|ℓ) of equation (2), shape (n_bs, n_cells), by brute force: 510 fixed nodes in log t, all base stations, float64.

    The nearest one, whose rate may be zero, is what the others leave. test_spdi.py holds it against adaptive quadrature.
    """
    distances_m = np.asarray(distances_m, float)
    if len(distances_m) == 1:
        return np.ones_like(distances_m)
    with np.errstate(divide="ignore"):
        return exact_of_rates(beta * np.log(distances_m / np.partition(distances_m, 1, axis=0)[1]))


def exact_of_rates(log_rate):
    """The same for any log λ, shape (n_bs, n_cells), −inf for at most one BS of a cell."""
    nearest, every = log_rate.argmin(axis=0), np.arange(log_rate.shape[1])
    rate = np.exp(np.clip(log_rate - np.partition(log_rate, 1, axis=0)[1], -500, 300))
    result = np.zeros_like(rate)
    step = 0.08
    for log_t in np.arange(-36, 4.8, step):
        x = np.minimum(rate * np.exp(log_t), 700)
        log_rest = np.log(np.maximum(-np.expm1(-x), 1e-300))
        result += step * x * np.exp(-x + log_rest.sum(axis=0) - log_rest)
    result[nearest, every] = 0
    result[nearest, every] = 1 - result.sum(axis=0)
    return result


@pytest.fixture(scope="session")
def exact():
    return exact_spdi


@pytest.fixture(scope="session")
def exact_rates():
    return exact_of_rates
