"""Spatially correlated log-normal shadowing: Gaussian fields by the fast Fourier transform."""

from __future__ import annotations

import numpy as np
from scipy import fft


def correlated_field(
    shape: tuple[int, int], cell_size_m: float, correlation_m: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a standard normal field with autocorrelation about e^(−d / correlation_m), shape `shape`, float32.

    The exponential autocorrelation is that of 3GPP TR 38.901 clause 7.4.4; its spectrum in the plane is (1 + (2πkL)²)^(−3/2). The
    field is made on a larger torus, so that opposite edges are not alike.
    """
    if 0 in shape:
        return np.zeros(shape, np.float32)
    padding = int(np.ceil(3 * correlation_m / cell_size_m))
    size = [fft.next_fast_len(n + min(padding, n), real=True) for n in shape]
    ky = fft.fftfreq(size[0], cell_size_m)[:, None]
    kx = fft.rfftfreq(size[1], cell_size_m)[None, :]
    amplitude = (1 + (2 * np.pi * correlation_m) ** 2 * (ky**2 + kx**2)) ** -0.75
    # Half-plane weights: every column but the first (and the last of an even width) stands for two.
    weight = np.full(kx.shape[1], 2.0)
    weight[0] = 1.0
    if size[1] % 2 == 0:
        weight[-1] = 1.0
    power = float((amplitude**2 * weight).sum())
    noise = rng.standard_normal(size, dtype=np.float32)
    field = fft.irfft2(fft.rfft2(noise) * amplitude.astype(np.float32), s=size)
    field *= np.sqrt(size[0] * size[1] / power)
    return np.asarray(field[: shape[0], : shape[1]], dtype=np.float32)
