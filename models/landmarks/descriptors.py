"""The descriptors of photos together: extracting all of them, comparing photos by them, and writing them as text.

A photo is first made as small as the smallest phone's and its light is evened out, so that descriptions do not tell cameras and
hours of the day apart; what MPEG-7 defines is then computed of that picture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Callable

import numpy as np

from ..errors import InputError
from .colour_descriptors import (
    LAYOUT_CHROMA,
    LAYOUT_LUMA,
    MOST_COLOURS,
    SCALABLE_COEFFICIENTS,
    block_means,
    colour_layout,
    colour_layout_distance,
    dominant_colours,
    dominant_colours_distance,
    scalable_colour,
    scalable_colour_distance,
)
from .edge_histogram import edge_histogram, edge_histogram_distance
from .line_clusters import CLUSTERS, FEATURES, line_clusters, line_clusters_distance

#: Photos are described at this many pixels along their longer side, or fewer.
LONGER_SIDE_PX = 320
#: And at this many at least along each side; smaller ones repeat their pixels.
_LEAST_SIDE_PX = 16
#: Level that the mean of each channel is brought towards, how far (0: not at all, 1: all the way), and the largest factor.
_MIDDLE, _EVENED, _MOST_GAIN = 118.0, 1.0, 2.5


@dataclass(frozen=True)
class Descriptor:
    """One way to describe a photo.

    Parameters
    ----------
    name
        As tables have it.
    version
        Descriptions of another version cannot be compared.
    size
        Numbers of a description.
    extract
        Of a picture of shape (height, width, 3), uint8, shape (size,), float32.
    distance
        Between one description and many (n, size), shape (n,), 0 for equal ones.
    typical
        Median distance of photos of different landmarks, which makes distances of different descriptors alike.
    weight
        What the descriptor counts for where they are put together.
    """

    name: str
    version: int
    size: int
    extract: Callable[[np.ndarray], np.ndarray]
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]
    typical: float
    weight: float


#: `typical` is what `benchmarks/landmark_matching.py --calibrate` prints; it and the weights were chosen with façades that no test and no
#: result uses.
DESCRIPTORS = (
    Descriptor("scalable_color", 1, SCALABLE_COEFFICIENTS, scalable_colour, scalable_colour_distance, 470.0, 1.0),
    Descriptor("color_layout", 1, LAYOUT_LUMA + 2 * LAYOUT_CHROMA, colour_layout, colour_layout_distance, 16.5, 0.5),
    Descriptor("dominant_color", 1, MOST_COLOURS * 4, dominant_colours, dominant_colours_distance, 0.49, 1.0),
    Descriptor("edge_histogram", 1, 80, edge_histogram, edge_histogram_distance, 9.3, 1.5),
    Descriptor("line_clusters", 1, CLUSTERS * FEATURES, line_clusters, line_clusters_distance, 0.76, 2.0),
)
BY_NAME = {descriptor.name: descriptor for descriptor in DESCRIPTORS}


def prepared(image: np.ndarray) -> np.ndarray:
    """The picture that is described: not larger than `LONGER_SIDE_PX`, with even light, uint8.

    Parameters
    ----------
    image
        Shape (height, width, 3), uint8, sRGB.

    Raises
    ------
    InputError
        Another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"A photo of shape {image.shape}, {image.dtype} is no RGB image of whole numbers from 0 to 255."
        )
    shrink = LONGER_SIDE_PX / max(image.shape[:2])
    small = image.astype(np.float32)
    for axis in range(2):
        small = small.repeat(-(-_LEAST_SIDE_PX // image.shape[axis]), axis=axis)
    if shrink < 1:
        rows, columns = (round(side * shrink) for side in image.shape[:2])
        small = block_means(small, max(rows, _LEAST_SIDE_PX), max(columns, _LEAST_SIDE_PX))
    mean = np.maximum(small.mean(axis=(0, 1)), 1.0)
    gain = np.clip((_MIDDLE / mean) ** _EVENED, 1 / _MOST_GAIN, _MOST_GAIN)
    return np.clip(small * gain + 0.5, 0, 255).astype(np.uint8)


def describe(image: np.ndarray) -> dict[str, np.ndarray]:
    """All descriptions of a photo of shape (height, width, 3), uint8, by the descriptor's name.

    Raises
    ------
    InputError
        No RGB image.
    """
    picture = prepared(image)
    return {descriptor.name: descriptor.extract(picture) for descriptor in DESCRIPTORS}


def as_text(vector: np.ndarray) -> str:
    """A description as a JSON array, with the shortest decimals that give it back."""
    return "[" + ",".join(format(value, ".9g") for value in vector.tolist()) + "]"


def from_text(text: str, descriptor: Descriptor, version: int = 1) -> np.ndarray:
    """A description from a JSON array, shape (size,), float32.

    Raises
    ------
    InputError
        No array of finite numbers of the right length, or another version.
    """
    if version != descriptor.version:
        raise InputError(
            f"This is version {version} of {descriptor.name}; only version {descriptor.version} is known. Describe the photos anew."
        )
    try:
        vector = np.array(json.loads(text), dtype=np.float32)
    except (ValueError, TypeError):
        vector = np.empty(0, dtype=np.float32)
    if vector.shape != (descriptor.size,) or not np.isfinite(vector).all():
        raise InputError(
            f"A description by {descriptor.name} is an array of {descriptor.size} numbers, not '{text[:40]}'."
        )
    return vector
