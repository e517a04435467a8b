"""Façades that do not exist, for benchmarks, tests and the sample city; `facade_photos` takes photos of them.

A façade is painted on its plane, with its neighbours, the sky above and the street below, all of it drawn from a seed. Façades of one
town are alike on purpose: they share palettes, storey heights and kinds of windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

#: Scale of the painted plane [px/m], what it shows (width; from below the street to the sky), and where the street begins [m].
SCALE, WIDTH_M, BELOW_M, ABOVE_M = 12, 108.0, 7.0, 31.0
_WALLS = (
    (214, 198, 168), (200, 176, 136), (188, 150, 118), (170, 104, 84), (152, 84, 68), (186, 182, 174), (160, 160, 158),
    (206, 206, 200), (176, 190, 198), (204, 168, 158), (190, 196, 170), (224, 214, 192), (140, 128, 116), (196, 158, 98),
)  # fmt: skip
_STONES = ((222, 216, 204), (196, 188, 176), (168, 162, 152), (236, 232, 224), (120, 112, 106))
WOODS = ((70, 46, 34), (40, 62, 52), (96, 30, 30), (36, 44, 70), (232, 228, 220), (58, 58, 60))
_GLASS = ((62, 74, 88), (84, 98, 112), (48, 54, 60), (104, 122, 138))
_ROOFS = ((118, 70, 54), (84, 84, 90), (96, 108, 106), (70, 62, 60), (140, 92, 66))
SIGNS = ((176, 36, 40), (24, 92, 60), (30, 60, 128), (214, 168, 40), (40, 40, 44), (226, 222, 214))


@dataclass(frozen=True)
class Facade:
    """A painted plane.

    Parameters
    ----------
    plane
        Colours, shape (rows, columns, 3), float32; row 0 is `ABOVE_M` above the street, column 0 `WIDTH_M` / 2 left of the middle.
    width_m, height_m
        Of the façade in the middle.
    """

    plane: np.ndarray
    width_m: float
    height_m: float


def make_facade(seed: int | np.random.Generator) -> Facade:
    """Paint a façade and its neighbours.

    Parameters
    ----------
    seed
        Equal seeds give equal façades.
    """
    rng = np.random.default_rng(seed)
    plane = Plane(rng)
    width, height = _building(plane, rng, 0.0, None)
    return finished(plane, rng, width, height)


def finished(plane: Plane, rng: np.random.Generator, width_m: float, height_m: float) -> Facade:
    """Paint the neighbours of what stands in the middle of a plane, and its dirt."""
    for side in (-1, 1):
        edge = side * width_m / 2
        while abs(edge) < WIDTH_M / 2:
            gap = rng.choice([0.0, 0.0, 0.0, 5.0])
            next_width = rng.uniform(10.0, 20.0)
            _building(plane, rng, edge + side * (gap + next_width / 2), next_width)
            edge += side * (gap + next_width)
    plane.grain(rng)
    return Facade(plane.colours, width_m, height_m)


class Plane:
    """A canvas in metres: x to the right of the middle, y above the street."""

    def __init__(self, rng: np.random.Generator) -> None:
        rows, columns = int((ABOVE_M + BELOW_M) * SCALE), int(WIDTH_M * SCALE)
        up = np.linspace(1.0, 0.0, rows)[:, None, None]
        high, low = np.array([118.0, 160.0, 206.0]), np.array([206.0, 220.0, 230.0])
        overcast = rng.uniform(0.0, 1.0)
        sky = up * ((1 - overcast) * high + overcast * 196.0) + (1 - up) * low
        self.colours = np.broadcast_to(sky, (rows, columns, 3)).astype(np.float32)
        ground = float(rng.uniform(84, 116))
        self.rectangle(-WIDTH_M, WIDTH_M, -BELOW_M, 0.0, (ground, ground, ground + 2))
        self.rectangle(-WIDTH_M, WIDTH_M, -1.1, 0.0, (ground + 52, ground + 50, ground + 46))
        self.rectangle(-WIDTH_M, WIDTH_M, -1.2, -1.1, (ground - 20, ground - 20, ground - 20))

    def box(self, x0: float, x1: float, y0: float, y1: float) -> tuple[slice, slice]:
        """Pixels of a rectangle."""
        columns = np.clip(np.round((np.array([x0, x1]) + WIDTH_M / 2) * SCALE), 0, self.colours.shape[1]).astype(int)
        rows = np.clip(np.round((ABOVE_M - np.array([y1, y0])) * SCALE), 0, self.colours.shape[0]).astype(int)
        return slice(rows[0], rows[1]), slice(columns[0], columns[1])

    def rectangle(self, x0: float, x1: float, y0: float, y1: float, colour: np.ndarray | tuple[float, ...]) -> None:
        """Fill a rectangle."""
        self.colours[self.box(x0, x1, y0, y1)] = colour

    def where(self, x0: float, x1: float, y0: float, y1: float) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice]]:
        """Coordinates of the pixels of a rectangle, x of shape (1, columns) and y of shape (rows, 1)."""
        part = self.box(x0, x1, y0, y1)
        x = (np.arange(part[1].start, part[1].stop) + 0.5) / SCALE - WIDTH_M / 2
        y = ABOVE_M - (np.arange(part[0].start, part[0].stop) + 0.5) / SCALE
        return x[None, :], y[:, None], part

    def disc(
        self, x: float, y: float, radius: float, colour: np.ndarray | tuple[float, ...], above: float = -1e9
    ) -> None:
        """Fill a disc, or what of it is higher than `above`."""
        px, py, part = self.where(x - radius, x + radius, max(y - radius, above), y + radius)
        self.colours[part][(px - x) ** 2 + (py - y) ** 2 < radius**2] = colour

    def gable(self, x0: float, x1: float, y0: float, y1: float, colour: np.ndarray | tuple[float, ...]) -> None:
        """Fill a triangle on the base y0 with its top at y1."""
        px, py, part = self.where(x0, x1, y0, y1)
        middle, half = (x0 + x1) / 2, (x1 - x0) / 2
        self.colours[part][np.abs(px - middle) / half + (py - y0) / max(y1 - y0, 1e-6) < 1.0] = colour

    def grain(self, rng: np.random.Generator) -> None:
        """Roughen and stain all surfaces."""
        rows, columns = self.colours.shape[:2]
        fine = rng.normal(0.0, 4.0, (rows, columns, 1))
        coarse = ndimage.zoom(rng.normal(0.0, 1.0, (rows // 24 + 2, columns // 24 + 2)), 24, order=1)[
            :rows, :columns, None
        ]
        self.colours = np.clip(self.colours + fine + 5.0 * coarse, 0, 255).astype(np.float32)


def pick(rng: np.random.Generator, palette: tuple[tuple[int, int, int], ...], vary: float = 8.0) -> np.ndarray:
    """A colour of a palette, slightly off."""
    return np.clip(np.array(palette[rng.integers(len(palette))]) + rng.normal(0.0, vary, 3), 8, 247)


def _building(plane: Plane, rng: np.random.Generator, x: float, width_m: float | None) -> tuple[float, float]:
    """Paint a building around x and return its width and height [m]; without a width it draws its own."""
    storeys = int(rng.integers(2, 7))
    bays = int(rng.integers(3, 9)) if width_m is None else max(2, round(width_m / rng.uniform(2.6, 4.2)))
    width = bays * rng.uniform(2.6, 4.2) if width_m is None else width_m
    width = float(np.clip(width, 10.0, 26.0))
    ground, storey = float(rng.uniform(3.6, 5.2)), float(rng.uniform(2.9, 3.8))
    eaves = ground + (storeys - 1) * storey + rng.uniform(0.2, 0.8)
    left, right = x - width / 2, x + width / 2
    wall, stone = pick(rng, _WALLS), pick(rng, _STONES)
    plane.rectangle(left, right, 0.0, eaves, wall)
    if rng.random() < 0.3:  # courses of bricks
        for y in np.arange(ground, eaves, 0.5):
            plane.rectangle(left, right, y, y + 0.09, wall * 0.88)
    base = rng.integers(4)
    if base:
        plane.rectangle(left, right, 0.0, ground, (wall * 0.85, stone, stone * 0.9)[base - 1])
    _roof(plane, rng, left, right, eaves, wall, stone)
    _windows(plane, rng, left, right, ground, storey, storeys, bays, stone)
    _ground_floor(plane, rng, left, right, ground, bays, stone)
    if rng.random() < 0.6:
        plane.rectangle(left, right, ground - 0.2, ground + 0.15, stone)
    if rng.random() < 0.35:
        for floor in range(1, storeys - 1):
            plane.rectangle(left, right, ground + floor * storey - 0.12, ground + floor * storey + 0.08, stone)
    if rng.random() < 0.35:  # pilasters at the corners
        for end in (left, right - 0.6):
            plane.rectangle(end, end + 0.6, 0.0, eaves, stone * 0.96)
    return width, eaves


def _roof(
    plane: Plane,
    rng: np.random.Generator,
    left: float,
    right: float,
    eaves: float,
    wall: np.ndarray,
    stone: np.ndarray,
) -> None:
    roof, kind = pick(rng, _ROOFS), rng.integers(6)
    middle, width = (left + right) / 2, right - left
    if kind == 0:  # mansard with dormers
        plane.rectangle(left + 0.2, right - 0.2, eaves, eaves + 2.6, roof)
        for x in np.linspace(left, right, int(rng.integers(3, 6)) + 1)[1:-1]:
            plane.rectangle(x - 0.7, x + 0.7, eaves + 0.3, eaves + 1.9, stone)
            plane.rectangle(x - 0.45, x + 0.45, eaves + 0.5, eaves + 1.7, _GLASS[0])
    elif kind == 1:  # a gable to the street
        top = eaves + width * rng.uniform(0.25, 0.45)
        plane.gable(left, right, eaves, top, stone)
        plane.gable(left + 0.7, right - 0.7, eaves, top - 0.6, wall)
        plane.disc(middle, eaves + 1.7, 0.8, _GLASS[1])
    elif kind == 2:  # a pediment over the middle
        plane.gable(middle - width / 4, middle + width / 4, eaves, eaves + width / 9, stone)
        plane.gable(
            middle - width / 4 + 0.8, middle + width / 4 - 0.8, eaves + 0.2, eaves + width / 9 - 0.5, wall * 0.92
        )
    elif kind == 3:  # a tower at one end
        end = left if rng.random() < 0.5 else right - 5.0
        top = eaves + rng.uniform(4.0, 8.0)
        plane.rectangle(end, end + 5.0, eaves, top, wall)
        plane.rectangle(end - 0.2, end + 5.2, top - 0.3, top, stone)
        plane.gable(end - 0.2, end + 5.2, top, top + rng.uniform(2.0, 6.0), roof)
        plane.disc(end + 2.5, top - 2.0, 1.1, stone)
        plane.disc(end + 2.5, top - 2.0, 0.8, (238, 236, 226))
    elif kind == 4:  # a tiled roof seen from below
        plane.rectangle(left - 0.3, right + 0.3, eaves, eaves + rng.uniform(1.2, 2.2), roof)
    else:  # a parapet
        plane.rectangle(left, right, eaves, eaves + 0.9, stone * 0.97)
    plane.rectangle(left - 0.3, right + 0.3, eaves - 0.2, eaves + 0.3, stone)


def _windows(
    plane: Plane,
    rng: np.random.Generator,
    left: float,
    right: float,
    ground: float,
    storey: float,
    storeys: int,
    bays: int,
    stone: np.ndarray,
) -> None:
    glass, frame, shutter = pick(rng, _GLASS), pick(rng, WOODS[4:] + _STONES[:1]), pick(rng, WOODS)
    pitch = (right - left) / bays
    width, height = pitch * rng.uniform(0.32, 0.62), storey * rng.uniform(0.45, 0.68)
    surround, arched, shutters = rng.random() < 0.6, rng.random() < 0.3, rng.random() < 0.25
    cross, pediments, balconies = int(rng.integers(3)), rng.random() < 0.25, int(rng.integers(5))
    ribbon = rng.random() < 0.12  # an office of glass bands
    for floor in range(storeys - 1):
        sill = ground + floor * storey + 0.25 * storey
        if ribbon:
            plane.rectangle(left + 0.5, right - 0.5, sill, sill + height, glass)
            for x in np.linspace(left + 0.5, right - 0.5, 2 * bays + 1):
                plane.rectangle(x - 0.06, x + 0.06, sill, sill + height, frame)
            continue
        for bay in range(bays):
            x = left + (bay + 0.5) * pitch
            x0, x1, top = x - width / 2, x + width / 2, sill + height
            if surround:
                plane.rectangle(x0 - 0.18, x1 + 0.18, sill - 0.15, top + 0.2, stone)
                if arched:
                    plane.disc(x, top, width / 2 + 0.18, stone, top)
            if shutters:
                plane.rectangle(x0 - width * 0.45, x1 + width * 0.45, sill, top, shutter)
            tint = glass * rng.uniform(0.8, 1.25)
            plane.rectangle(x0, x1, sill, top, frame)
            plane.rectangle(x0 + 0.1, x1 - 0.1, sill + 0.1, top - 0.1, tint)
            if arched:
                plane.disc(x, top - 0.05, width / 2, frame, top - 0.05)
                plane.disc(x, top - 0.05, width / 2 - 0.1, tint, top)
            if cross >= 1:
                plane.rectangle(x - 0.05, x + 0.05, sill, top, frame)
            if cross == 2:
                plane.rectangle(x0, x1, sill + 0.62 * height, sill + 0.62 * height + 0.09, frame)
            if pediments and floor == 0:
                plane.gable(x0 - 0.3, x1 + 0.3, top + 0.25, top + 0.8, stone)
            if rng.random() < 0.3:  # a curtain or a blind
                plane.rectangle(
                    x0 + 0.1, x1 - 0.1, top - 0.1 - height * rng.uniform(0.15, 0.6), top - 0.1, (222, 218, 206)
                )
        if balconies == floor:
            plane.rectangle(left + pitch * 0.2, right - pitch * 0.2, sill - 0.25, sill - 0.05, stone * 0.8)
            for x in np.arange(left + pitch * 0.2, right - pitch * 0.2, 0.33):
                plane.rectangle(x, x + 0.09, sill - 0.1, sill + 0.9, (44, 44, 48))


def _ground_floor(
    plane: Plane, rng: np.random.Generator, left: float, right: float, ground: float, bays: int, stone: np.ndarray
) -> None:
    glass, wood, sign = pick(rng, _GLASS), pick(rng, WOODS), pick(rng, SIGNS)
    pitch = (right - left) / bays
    door = int(rng.integers(bays))
    kind = rng.integers(4)
    if kind == 0:  # shop fronts under a sign
        plane.rectangle(left + 0.4, right - 0.4, ground - 1.0, ground - 0.35, sign)
    for bay in range(bays):
        x = left + (bay + 0.5) * pitch
        if bay == door:
            plane.rectangle(x - 0.95, x + 0.95, 0.0, 2.9, stone)
            plane.rectangle(x - 0.7, x + 0.7, 0.0, 2.6, wood)
            plane.rectangle(x - 0.7, x + 0.7, 2.15, 2.6, glass)
            continue
        if kind == 0:
            plane.rectangle(x - 0.42 * pitch, x + 0.42 * pitch, 0.5, ground - 1.1, glass * rng.uniform(0.85, 1.3))
            if rng.random() < 0.3:
                plane.rectangle(x - 0.45 * pitch, x + 0.45 * pitch, ground - 1.7, ground - 1.0, sign * 0.9)
        elif kind == 1:  # arcade
            half = 0.36 * pitch
            plane.rectangle(x - half, x + half, 0.0, ground - 0.6 - half, glass * 0.7)
            plane.disc(x, ground - 0.6 - half, half, glass * 0.7, ground - 0.6 - half - 0.05)
        else:
            plane.rectangle(x - 0.28 * pitch, x + 0.28 * pitch, 1.1, min(2.9, ground - 0.7), glass)
            plane.rectangle(x - 0.05, x + 0.05, 1.1, min(2.9, ground - 0.7), wood)
