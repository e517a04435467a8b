"""Photos of façades: the picture of a painted plane in a pinhole camera, from anywhere in the street, under any light.

Cars, trees and people stand in front; the picture is blurred, noisy and compressed. All is drawn from a generator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from .colour_descriptors import DCT8
from .facades import ABOVE_M, SCALE, SIGNS, WIDTH_M, WOODS, Facade, make_facade, pick

#: Size of photos (width, height) [px] and the horizontal angle of view of a phone [°].
PHOTO_PX, ANGLE_DEG = (320, 240), 62.0
#: Where the eye is above the street [m].
EYE_M = 1.6
_CARS = ((180, 30, 34), (40, 60, 110), (30, 30, 34), (210, 210, 212), (128, 132, 136), (60, 96, 72))
#: Luminance quantisation of ITU-T T.81, table K.1, in rows.
_JPEG = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=float,
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """Where a photo is taken from, under which light, and what stands in front.

    Parameters
    ----------
    aside_m, distance_m
        Of the camera, to the right of the middle of the façade, and from it.
    yaw_deg, pitch_deg, roll_deg
        Of the camera, from looking at the middle of the façade; to the right, up and clockwise.
    gain
        Of each channel, shape (3,): exposure and white balance.
    contrast
        Exponent of the tone curve.
    shadow
        How dark a shadow of the houses opposite is, 0 for none; `shadow_from` and `shadow_slope` tell where it lies.
    cars, trees, people
        How many stand in front.
    blur_px, noise, quality
        Standard deviations of blur [px] and of noise [grey levels], and the quality of JPEG.
    """

    aside_m: float = 0.0
    distance_m: float = 20.0
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    contrast: float = 1.0
    shadow: float = 0.0
    shadow_from: float = 0.5
    shadow_slope: float = 0.0
    cars: int = 0
    trees: int = 0
    people: int = 0
    blur_px: float = 0.5
    noise: float = 1.5
    quality: int = 90


def reference_view(facade: Facade, rng: np.random.Generator) -> View:
    """How somebody takes the photo of a landmark on purpose: from the front, in good light, with little in front."""
    fills = max(facade.width_m, 1.15 * facade.height_m)
    return View(
        aside_m=float(rng.normal(0.0, 0.05)) * facade.width_m,
        distance_m=float(np.clip(0.95 * fills * rng.uniform(0.95, 1.1), 12.0, 34.0)),
        pitch_deg=float(rng.uniform(-1.0, 3.0)),
        cars=int(rng.integers(2)),
        people=int(rng.integers(3)),
    )


def query_view(facade: Facade, rng: np.random.Generator, change: float = 1.0) -> View:
    """How a passer-by takes it: from aside, nearer or farther, in other light, with cars, trees and people in front.

    Parameters
    ----------
    change
        How much differs from `reference_view`: 0 nothing but chance, 1 as in the benchmark (up to 22° aside, 25 % in distance, a stop
        of light, 7 % of white balance, shadows, a sixth of the picture hidden).
    """
    first = reference_view(facade, rng)
    aside = change * rng.uniform(-0.4, 0.4)
    light = 2.0 ** (change * rng.uniform(-0.55, 0.45))
    balance = np.exp(change * rng.normal(0.0, 0.045, 3))
    red, green, blue = (light * balance).tolist()
    return replace(
        first,
        aside_m=first.aside_m + aside * first.distance_m,
        distance_m=first.distance_m * float(np.exp(change * rng.uniform(-0.2, 0.25))),
        yaw_deg=change * float(rng.normal(0.0, 3.0)),
        pitch_deg=first.pitch_deg + change * float(rng.normal(0.0, 2.0)),
        roll_deg=change * float(rng.normal(0.0, 1.5)),
        gain=(red, green, blue),
        contrast=float(np.exp(change * rng.normal(0.0, 0.12))),
        shadow=float(rng.uniform(0.15, 0.45)) * (rng.random() < 0.5 * change),
        shadow_from=float(rng.uniform(0.2, 0.8)),
        shadow_slope=float(rng.normal(0.0, 0.6)),
        cars=int(rng.integers(0, 3)),
        trees=int(rng.random() < 0.4 * change),
        people=int(rng.integers(0, 5)),
        blur_px=0.5 + change * float(rng.uniform(0.0, 0.8)),
        noise=1.5 + change * float(rng.uniform(0.0, 4.0)),
        quality=int(90 - change * rng.uniform(0, 35)),
    )


def photograph(facade: Facade, view: View, rng: np.random.Generator, size_px: tuple[int, int] = PHOTO_PX) -> np.ndarray:
    """Take a photo, shape (height, width, 3), uint8.

    Parameters
    ----------
    rng
        Draws what passes by and the noise.
    """
    picture = _projected(facade, view, size_px)
    rows, columns = picture.shape[:2]
    if view.shadow:
        x = np.linspace(0, 1, columns)[None, :, None]
        y = np.linspace(0, 1, rows)[:, None, None]
        edge = 1 / (1 + np.exp(-(y - view.shadow_from - view.shadow_slope * (x - 0.5)) / 0.02))
        picture = picture * (1 - view.shadow * edge)
    for _ in range(view.trees):
        _tree(picture, rng)
    for _ in range(view.cars):
        _car(picture, rng)
    for _ in range(view.people):
        _person(picture, rng)
    picture = np.clip(picture * np.array(view.gain), 0, 255)
    picture = 255.0 * (picture / 255.0) ** view.contrast
    picture = ndimage.gaussian_filter(picture, (view.blur_px, view.blur_px, 0))
    picture = picture + rng.normal(0.0, view.noise, picture.shape)
    return _compressed(np.clip(picture, 0, 255), view.quality)


def unknown_photo(rng: np.random.Generator, size_px: tuple[int, int] = PHOTO_PX) -> np.ndarray:
    """A photo that shows no landmark: a house of no note, a park, or a wall near by, shape (height, width, 3), uint8."""
    kind = rng.integers(4)
    facade = make_facade(rng)
    view = query_view(facade, rng)
    if kind == 1:  # along the street
        view = replace(view, yaw_deg=view.yaw_deg + float(rng.choice([-38.0, 38.0])))
    elif kind == 2:  # a park
        view = replace(view, trees=6, people=4)
    elif kind == 3:  # a wall near by
        view = replace(view, distance_m=6.0, aside_m=float(rng.uniform(-3, 3)))
    return photograph(facade, view, rng, size_px)


def _projected(facade: Facade, view: View, size_px: tuple[int, int]) -> np.ndarray:
    """The plane in a pinhole camera, shape (height, width, 3), float."""
    width, height = size_px
    focal = width / 2 / np.tan(np.radians(ANGLE_DEG) / 2)
    aim_y = 0.42 * facade.height_m
    yaw = np.arctan2(-view.aside_m, view.distance_m) + np.radians(view.yaw_deg)
    pitch = np.arctan2(aim_y - EYE_M, np.hypot(view.aside_m, view.distance_m)) + np.radians(view.pitch_deg)
    roll = np.radians(view.roll_deg)
    u = (np.arange(width) + 0.5 - width / 2)[None, :] / focal
    v = (height / 2 - np.arange(height) - 0.5)[:, None] / focal
    u, v = u * np.cos(roll) - v * np.sin(roll), u * np.sin(roll) + v * np.cos(roll)
    up, ahead = v * np.cos(pitch) + np.sin(pitch), np.cos(pitch) - v * np.sin(pitch)
    right, ahead = u * np.cos(yaw) + ahead * np.sin(yaw), ahead * np.cos(yaw) - u * np.sin(yaw)
    reach = view.distance_m / np.maximum(ahead, 0.02)
    x, y = view.aside_m + right * reach, EYE_M + up * reach
    rows = (ABOVE_M - y) * SCALE - 0.5
    columns = (x + WIDTH_M / 2) * SCALE - 0.5
    coarse = max(0.0, float(np.median(reach)) * SCALE / focal / 2 - 0.35)  # what one pixel covers of the plane
    plane = ndimage.gaussian_filter(facade.plane, (coarse, coarse, 0)) if coarse > 0.1 else facade.plane
    return np.stack(
        [
            ndimage.map_coordinates(plane[..., channel], [rows, columns], order=1, mode="nearest")
            for channel in range(3)
        ],
        axis=-1,
    ).astype(float)


def _grid(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of pixels as shares of the picture's height: x from its middle, y from its lower edge upwards."""
    rows, columns = picture.shape[:2]
    return (np.arange(columns) + 0.5 - columns / 2)[None, :] / rows, (rows - np.arange(rows) - 0.5)[:, None] / rows


def _tree(picture: np.ndarray, rng: np.random.Generator) -> None:
    x, y = _grid(picture)
    at, crown, size = rng.uniform(-0.65, 0.65), rng.uniform(0.42, 0.62), rng.uniform(0.11, 0.19)
    bark = np.array([74.0, 60.0, 48.0]) * rng.uniform(0.8, 1.2)
    picture[(np.abs(x - at) < 0.018) & (y < crown) & (y > 0.04)] = bark
    for _ in range(26):
        cx, cy = at + rng.normal(0.0, 0.5 * size), crown + rng.normal(0.0, 0.5 * size)
        leaf = np.array([60.0, 92.0, 44.0]) * rng.uniform(0.65, 1.3)
        picture[(x - cx) ** 2 + (y - cy) ** 2 < (size * rng.uniform(0.2, 0.4)) ** 2] = leaf


def _car(picture: np.ndarray, rng: np.random.Generator) -> None:
    x, y = _grid(picture)
    at, low, size = rng.uniform(-0.6, 0.6), rng.uniform(0.02, 0.1), rng.uniform(0.2, 0.3)
    paint = pick(rng, _CARS)
    along, up = (x - at) / size, (y - low) / size
    picture[(np.abs(along) < 0.8) & (np.abs(up - 0.28) < 0.17)] = paint
    roof = (np.abs(along) < 0.5 - 0.5 * (up - 0.42)) & (up > 0.42) & (up < 0.68)
    picture[roof] = paint * 0.9
    picture[(np.abs(along) < 0.44 - 0.5 * (up - 0.42)) & (up > 0.46) & (up < 0.64)] = (52, 60, 68)
    for wheel in (-0.48, 0.48):
        picture[(along - wheel) ** 2 + (up - 0.13) ** 2 < 0.13**2] = (28, 28, 30)


def _person(picture: np.ndarray, rng: np.random.Generator) -> None:
    x, y = _grid(picture)
    at, low, size = rng.uniform(-0.65, 0.65), rng.uniform(0.02, 0.14), rng.uniform(0.16, 0.28)
    along, up = (x - at) / size, (y - low) / size
    picture[(np.abs(along) < 0.11) & (up > 0) & (up < 0.46)] = pick(rng, WOODS)
    picture[(np.abs(along) < 0.15) & (up >= 0.46) & (up < 0.84)] = pick(rng, SIGNS, 24.0)
    picture[along**2 + (up - 0.92) ** 2 < 0.085**2] = (196, 152, 126)


def _compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    """What JPEG of a quality [1 to 100] leaves of a picture; chrominance is quantised like luminance, twice as coarsely."""
    scale = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100
    steps = np.maximum(np.floor(_JPEG * scale + 0.5), 1.0)
    rows, columns = picture.shape[:2]
    padded = np.pad(picture, ((0, -rows % 8), (0, -columns % 8), (0, 0)), mode="edge")
    ycc = padded @ _TO_YCC.T
    blocks = ycc.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8, 3)
    frequencies = np.einsum("ui,aibjc,vj->aubvc", DCT8, blocks - 128.0, DCT8, optimize=True)
    coarse = steps[None, :, None, :, None] * np.array([1.0, 2.0, 2.0])
    frequencies = np.round(frequencies / coarse) * coarse
    blocks = np.einsum("ui,aubvc,vj->aibjc", DCT8, frequencies, DCT8, optimize=True) + 128.0
    rgb = blocks.reshape(padded.shape)[:rows, :columns] @ np.linalg.inv(_TO_YCC).T
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8)


_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
