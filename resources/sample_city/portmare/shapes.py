"""Curves, blobs and noise: the drawing tools the layers share. Arrays of points are (n, 2), in metres."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable

import numpy as np
from shapely.geometry import LineString, MultiPolygon, Polygon
from shapely.ops import transform
from shapely.strtree import STRtree

DECIMALS = 1  # coordinates are kept to 0.1 m, which is finer than any street sign


def generator(seed: int, name: str) -> np.random.Generator:
    """Return a random generator of its own for one step, so that a new step does not disturb the others."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def rounded(geometry):  # noqa: ANN001, ANN201 - any shapely geometry in, the same kind out
    """Round all coordinates of a shapely geometry to 0.1 m."""
    return transform(lambda x, y: (np.round(x, DECIMALS), np.round(y, DECIMALS)), geometry)


def spline(points: list, step: float = 60.0) -> np.ndarray:
    """Draw a centripetal-looking Catmull-Rom curve through `points`, one vertex about every `step` metres."""
    p = np.asarray(points, float)
    if len(p) == 2:
        return p
    p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    pieces = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:]):
        n = max(2, round(np.hypot(*(c - b)) / step))
        t = (np.arange(n) / n)[:, None]
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.vstack([*pieces, p[-2]])


def fractal(points: list, rng: np.random.Generator, roughness: float = 0.12, shortest: float = 60.0) -> np.ndarray:
    """Displace midpoints along a polyline until no piece is longer than `shortest` metres."""
    p = np.asarray(points, float)
    while True:
        step = np.diff(p, axis=0)
        long = np.hypot(*step.T) > shortest
        if not long.any():
            return p
        middle = (p[:-1] + p[1:]) / 2
        middle += (
            np.stack([-step[:, 1], step[:, 0]], 1) * (rng.normal(0, roughness, len(step)).clip(-0.3, 0.3))[:, None]
        )
        new = np.empty((len(p) + long.sum(), 2))
        at = np.arange(len(p)) + np.concatenate([[0], np.cumsum(long)])
        new[at] = p
        new[at[:-1][long] + 1] = middle[long]
        p = new


def blob(centre: tuple, radii: tuple, angle: float, rng: np.random.Generator, wobble: float = 0.16) -> Polygon:
    """Draw a wobbly ellipse: islands and lakes."""
    t = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    r = np.ones_like(t)
    for k in range(2, 14):
        r += wobble / k**1.1 * rng.normal() * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    x, y = radii[0] * r * np.cos(t), radii[1] * r * np.sin(t)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return Polygon(np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], 1)).buffer(0)


def box(centre: tuple, length: float, width: float, angle: float) -> Polygon:
    """Draw a rectangle around `centre`, its length turned `angle` degrees counter-clockwise from east."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    u, v = np.array([c, s]) * length / 2, np.array([-s, c]) * width / 2
    m = np.asarray(centre, float)
    return Polygon([m - u - v, m + u - v, m + u + v, m - u + v])


def parts(geometry) -> list:  # noqa: ANN001 - any shapely geometry
    """Return the polygons of a polygon, multipolygon or collection."""
    if isinstance(geometry, Polygon):
        return [geometry]
    return [part for part in geometry.geoms if isinstance(part, (Polygon, MultiPolygon))]


def smooth_noise(rng: np.random.Generator, wavelength: float, n: int = 24):  # noqa: ANN201 - a closure
    """Return a smooth random function of position with mean 0 and variance about 1."""
    k = rng.normal(0, 2 * np.pi / wavelength, (n, 2))
    phase = rng.uniform(0, 2 * np.pi, n)
    return lambda p: np.sqrt(2 / n) * np.cos(np.asarray(p) @ k.T + phase).sum(-1)


def at(line: LineString, distance: float) -> np.ndarray:
    """Return the point at a distance along a line."""
    return np.array(line.interpolate(distance).coords[0])


class Index:
    """Which of some geometries lie near another: a spatial index that speaks shapely 1.8 and 2."""

    def __init__(self, geometries: list) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 1.8 announces the change that `near` copes with
            self.tree = STRtree(geometries)
        self.number = {id(g): k for k, g in enumerate(geometries)}

    def near(self, geometry) -> list[int]:  # noqa: ANN001 - any shapely geometry
        """Return the numbers of the geometries whose bounding boxes meet that of `geometry`, in order."""
        found = self.tree.query(geometry)  # 1.8 returns geometries, 2 their numbers
        return sorted(int(g) if isinstance(g, (int, np.integer)) else self.number[id(g)] for g in found)


class Raster:
    """A function of position, sampled once on a lattice and then interpolated: quick to ask point by point."""

    def __init__(self, function: Callable, width: float, height: float, step: float = 50.0) -> None:
        nx, ny = int(width / step) + 2, int(height / step) + 2
        x, y = np.meshgrid(np.arange(nx) * step, np.arange(ny) * step)
        self.rows = function(np.stack([x.ravel(), y.ravel()], 1)).reshape(ny, nx).tolist()
        self.step, self.nx, self.ny = step, nx, ny

    def __call__(self, p: np.ndarray) -> float:
        """Return the value at one point; outside, that of the edge."""
        x, y = p[0] / self.step, p[1] / self.step
        i, j = min(max(int(x), 0), self.nx - 2), min(max(int(y), 0), self.ny - 2)
        u, v = x - i, y - j
        a, b = self.rows[j], self.rows[j + 1]
        return (a[i] * (1 - u) + a[i + 1] * u) * (1 - v) + (b[i] * (1 - u) + b[i + 1] * u) * v
