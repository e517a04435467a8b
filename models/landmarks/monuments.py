"""Façades that stand out in a town: churches, halls with columns, glass towers and stations, painted as `facades` paints houses."""

from __future__ import annotations

import numpy as np

from .facades import ABOVE_M, Facade, Plane, finished

#: What there is.
MONUMENTS = ("church", "hall", "tower", "station")
_DARK, _DOOR = (52, 56, 64), (70, 46, 34)


def make_monument(kind: str, seed: int | np.random.Generator | list[int]) -> Facade:
    """Paint a monument and its neighbours.

    Parameters
    ----------
    kind
        One of `MONUMENTS`.
    seed
        Equal seeds give equal façades.
    """
    rng = np.random.default_rng(seed)
    plane = Plane(rng)
    stone = np.array([204.0, 192.0, 168.0]) * rng.uniform(0.8, 1.1) + rng.normal(0, 8, 3)
    stone = np.clip(stone, 60, 240)
    painters = {"church": _church, "hall": _hall, "tower": _tower, "station": _station}
    width, height = painters[kind](plane, rng, stone)
    return finished(plane, rng, width, height)


def _church(plane: Plane, rng: np.random.Generator, stone: np.ndarray) -> tuple[float, float]:
    """A nave between two towers, with a rose window over the portal."""
    half, aisle, top = 11.0, 5.5, float(rng.uniform(22.0, 25.0))
    roof = stone * 0.45
    plane.rectangle(-half, half, 0.0, 15.0, stone)
    plane.gable(-half + aisle, half - aisle, 15.0, 20.0, stone)
    for left in (-half, half - aisle):
        plane.rectangle(left, left + aisle, 0.0, top, stone * 0.96)
        plane.gable(left - 0.3, left + aisle + 0.3, top, min(top + 6.5, ABOVE_M), roof)
        for y in (4.0, 10.0, 16.5):
            plane.rectangle(left + 1.9, left + 3.6, y, y + 3.2, _DARK)
            plane.disc(left + 2.75, y + 3.2, 0.85, _DARK, y + 3.2)
        for y in (8.6, 15.2, top - 0.5):
            plane.rectangle(left - 0.2, left + aisle + 0.2, y, y + 0.4, stone * 0.8)
    plane.disc(0.0, 11.6, 2.6, stone * 0.75)
    plane.disc(0.0, 11.6, 2.2, (74, 66, 110))
    for turn in np.arange(8) * np.pi / 4:
        plane.disc(1.3 * float(np.cos(turn)), 11.6 + 1.3 * float(np.sin(turn)), 0.5, (176, 132, 92))
    for radius, colour in ((2.4, stone * 0.7), (1.9, np.array(_DOOR))):
        plane.rectangle(-radius, radius, 0.0, 4.2, colour)
        plane.disc(0.0, 4.2, radius, colour, 4.2)
    return 2 * half, top


def _hall(plane: Plane, rng: np.random.Generator, stone: np.ndarray) -> tuple[float, float]:
    """Columns on steps, under a pediment and perhaps a dome."""
    half, eaves = float(rng.uniform(12.0, 15.0)), float(rng.uniform(11.0, 13.0))
    if rng.random() < 0.6:
        plane.rectangle(-5.0, 5.0, eaves, eaves + 5.0, stone * 0.92)
        plane.disc(0.0, eaves + 5.0, 5.0, (92, 132, 118), eaves + 5.0)
        plane.rectangle(-0.4, 0.4, eaves + 10.0, eaves + 12.0, stone)
    plane.rectangle(-half, half, 0.0, eaves, stone)
    plane.rectangle(-0.6 * half, 0.6 * half, 1.0, eaves - 1.4, stone * 0.6)
    columns = int(rng.integers(6, 9))
    for x in np.linspace(-0.56 * half, 0.56 * half, columns):
        plane.rectangle(x - 0.55, x + 0.55, 1.2, eaves - 1.4, stone * 1.05)
        plane.rectangle(x + 0.2, x + 0.55, 1.2, eaves - 1.4, stone * 0.85)
        plane.rectangle(x - 0.8, x + 0.8, eaves - 1.8, eaves - 1.3, stone)
    plane.rectangle(-1.5, 1.5, 1.2, 5.0, _DOOR)
    for side in (-1, 1):
        for x in np.linspace(0.7 * half, 0.93 * half, 2) * side:
            for y in (2.2, 7.0):
                plane.rectangle(x - 0.8, x + 0.8, y, y + 2.8, _DARK)
    plane.gable(-0.66 * half, 0.66 * half, eaves, eaves + 4.2, stone * 1.02)
    plane.gable(-0.52 * half, 0.52 * half, eaves + 0.5, eaves + 3.5, stone * 0.84)
    plane.rectangle(-half - 0.4, half + 0.4, eaves - 0.3, eaves + 0.4, stone * 0.9)
    for step in range(4):
        plane.rectangle(-0.7 * half, 0.7 * half, 0.3 * step, 0.3 * step + 0.28, stone * (0.95 - 0.06 * step))
    return 2 * half, eaves + 3.0


def _tower(plane: Plane, rng: np.random.Generator, stone: np.ndarray) -> tuple[float, float]:
    """A slab of glass that leaves the picture upwards."""
    half, top = float(rng.uniform(8.5, 11.5)), ABOVE_M - 0.5
    glass = np.array([92.0, 128.0, 150.0]) * rng.uniform(0.75, 1.15)
    plane.rectangle(-half, half, 0.0, top, glass)
    for floor, y in enumerate(np.arange(5.0, top, 3.4)):
        plane.rectangle(-half, half, y, y + 0.7, glass * 0.55)
        for x in np.arange(-half, half, 1.5):
            shade = rng.uniform(0.8, 1.3) if (floor + int(x)) % 3 else 1.45
            plane.rectangle(x + 0.1, x + 1.4, y + 0.8, y + 3.3, np.clip(glass * shade, 0, 245))
    plane.rectangle(-half - 2.0, half + 2.0, 4.2, 5.0, stone)
    for x in np.linspace(-half, half, 6):
        plane.rectangle(x - 0.3, x + 0.3, 0.0, 4.2, stone)
    return 2 * half, 22.0


def _station(plane: Plane, rng: np.random.Generator, stone: np.ndarray) -> tuple[float, float]:
    """Three great arches of glass, and a clock."""
    half, eaves = 17.0, float(rng.uniform(12.0, 14.0))
    brick = np.array([168.0, 96.0, 74.0]) * rng.uniform(0.85, 1.1)
    plane.rectangle(-half, half, 0.0, eaves, brick)
    for y in np.arange(0.6, eaves, 1.2):
        plane.rectangle(-half, half, y, y + 0.12, brick * 0.85)
    for x, radius in ((-10.5, 4.2), (0.0, 5.2), (10.5, 4.2)):
        spring = eaves - 2.2 - radius
        for grow, colour in ((0.7, stone), (0.0, np.array([120.0, 150.0, 164.0]))):
            plane.rectangle(x - radius - grow, x + radius + grow, 0.0, spring, colour)
            plane.disc(x, spring, radius + grow, colour, spring)
        for bar in np.linspace(-radius, radius, 7)[1:-1]:
            rise = float(np.sqrt(max(radius**2 - bar**2, 0.0)))
            plane.rectangle(x + bar - 0.1, x + bar + 0.1, 0.0, spring + rise, _DARK)
        plane.rectangle(x - radius, x + radius, 3.2, 3.7, _DARK)
    plane.rectangle(-half - 0.4, half + 0.4, eaves - 0.3, eaves + 0.6, stone)
    plane.rectangle(-3.4, 3.4, eaves, eaves + 4.4, stone)
    plane.disc(0.0, eaves + 2.2, 1.6, _DARK)
    plane.disc(0.0, eaves + 2.2, 1.35, (240, 236, 222))
    plane.rectangle(-0.07, 0.07, eaves + 2.2, eaves + 3.3, _DARK)
    plane.rectangle(0.0, 0.8, eaves + 2.13, eaves + 2.27, _DARK)
    return 2 * half, eaves + 2.0
