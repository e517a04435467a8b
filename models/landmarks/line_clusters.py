"""Consistent line clusters: straight lines of a photo that belong together by colour, direction and place, as those of a building do.

Lines come from line-support regions: neighbouring pixels whose gradients point alike. Each has a pair of colours, on its brighter and its
darker side. Lines of like colours and like direction that lie near each other are one cluster. Photos are compared by their clusters.

References
----------
Y. Li, L. G. Shapiro, Consistent line clusters for building recognition in CBIR, ICPR 2002; J. B. Burns, A. R. Hanson, E. M. Riseman,
Extracting straight lines, IEEE TPAMI 8(4), 1986 (support regions in two overlapping partitions of directions, which vote).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .colour_descriptors import luv

#: A description holds this many clusters, the longest lines in sum, of `FEATURES` numbers each.
CLUSTERS, FEATURES = 16, 13
#: Least difference of grey levels [0 to 255] between neighbours along an edge.
_LEAST_GRADIENT = 6.0
_DIRECTIONS = 8
#: A line is at least this share of the image's diagonal long, and its pixels lie this near to it [px].
_LEAST_LENGTH, _MOST_WIDTH_PX = 0.03, 2.0
_MOST_LINES = 300
#: Where the colours beside a line are looked up: this far from it [px], at these shares of its half length.
_BESIDE_PX = 3.0
_ALONG = np.array([-0.8, -0.4, 0.0, 0.4, 0.8])
#: Lines are of one cluster within these bounds: CIE LUV, direction [rad], middles [share of the diagonal].
_LIKE_COLOUR, _LIKE_DIRECTION, _NEAR = 16.0, np.radians(10.0), 0.2
#: Widths of the Gaussian kernel that compares clusters, in the same units; how far they extend counts as place does.
_COLOUR_WIDTH, _DIRECTION_WIDTH, _PLACE_WIDTH = 18.0, np.radians(14.0), 0.16


@dataclass(frozen=True)
class Lines:
    """Straight lines of an image.

    Parameters
    ----------
    middle_px, half_px
        Middle (x, y) and half the way from end to end, shape (n, 2).
    normal
        Unit vector across the line towards its brighter side, shape (n, 2).
    """

    middle_px: np.ndarray
    half_px: np.ndarray
    normal: np.ndarray

    def __len__(self) -> int:
        return len(self.middle_px)

    @property
    def length_px(self) -> np.ndarray:
        """From end to end, shape (n,)."""
        return 2 * np.hypot(*self.half_px.T)


def find_lines(grey: np.ndarray) -> Lines:
    """Find the straight lines of an image of grey levels, shape (height, width), the longest first."""
    smooth = ndimage.gaussian_filter(grey.astype(np.float32), 0.8)
    down, right = np.gradient(smooth)
    strength = np.hypot(right, down)
    rows, columns = np.nonzero(strength > _LEAST_GRADIENT / 2)
    if not len(rows):
        return Lines(np.empty((0, 2)), np.empty((0, 2)), np.empty((0, 2)))
    weight = strength[rows, columns].astype(float)
    gx, gy = right[rows, columns].astype(float), down[rows, columns].astype(float)
    turn = np.arctan2(gy, gx) / (2 * np.pi) * _DIRECTIONS
    number = np.full(grey.shape, -1, dtype=np.int64)
    number[rows, columns] = np.arange(len(rows))
    pairs = _neighbours(number)
    xy = np.stack([columns, rows], axis=1).astype(float)
    region_of, fits = [], []
    for shift in (0.0, 0.5):
        part = np.floor(turn + shift).astype(np.int64) % _DIRECTIONS
        alike = pairs[:, part[pairs[0]] == part[pairs[1]]]
        links = coo_matrix((np.ones(alike.shape[1], dtype=bool), (alike[0], alike[1])), shape=(len(rows),) * 2)
        region = connected_components(links, directed=False)[1]
        region_of.append(region)
        fits.append(_fit(region, xy, weight, gx, gy))
    longer = fits[0][2][region_of[0]] >= fits[1][2][region_of[1]]
    found = []
    least = _LEAST_LENGTH * np.hypot(grey.shape[0], grey.shape[1])
    for region, fit, votes in zip(region_of, fits, (longer, ~longer)):
        middle, along, length, width, normal = fit
        support = np.bincount(region, votes) / np.bincount(region)
        good = (support > 0.5) & (length >= least) & (width <= _MOST_WIDTH_PX)
        found.append((middle[good], along[good] * length[good, None] / 2, normal[good]))
    middle, half, normal = (np.concatenate(parts) for parts in zip(*found))
    order = np.argsort(-np.hypot(*half.T), kind="stable")[:_MOST_LINES]
    return Lines(middle[order], half[order], normal[order])


def _neighbours(number: np.ndarray) -> np.ndarray:
    """Pairs of pixels that touch, shape (2, n); −1 in `number` is no pixel."""
    slices = (
        (number[:, :-1], number[:, 1:]),
        (number[:-1], number[1:]),
        (number[:-1, :-1], number[1:, 1:]),
        (number[:-1, 1:], number[1:, :-1]),
    )
    pairs = np.concatenate([np.stack([one.ravel(), other.ravel()]) for one, other in slices], axis=1)
    return pairs[:, (pairs >= 0).all(axis=0)]


def _fit(
    region: np.ndarray, xy: np.ndarray, weight: np.ndarray, gx: np.ndarray, gy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Total least squares line of each region: middle, unit direction, length, root mean square width, normal to the brighter side."""
    n = int(region.max()) + 1

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(region, values, n)

    mass = total(weight)
    mean = np.stack([total(weight * xy[:, axis]) for axis in range(2)], axis=1) / mass[:, None]
    x, y = (xy - mean[region]).T
    xx, yy, xy_ = total(weight * x * x) / mass, total(weight * y * y) / mass, total(weight * x * y) / mass
    angle = 0.5 * np.arctan2(2 * xy_, xx - yy)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    width = np.sqrt(np.maximum((xx + yy - np.hypot(xx - yy, 2 * xy_)) / 2, 0.0))
    way = x * along[region, 0] + y * along[region, 1]
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, region, way)
    np.maximum.at(high, region, way)
    middle = mean + along * ((low + high) / 2)[:, None]
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    towards = total(gx) * normal[:, 0] + total(gy) * normal[:, 1]
    return middle, along, high - low + 1.0, width, normal * np.where(towards < 0, -1.0, 1.0)[:, None]


def colour_pairs(image: np.ndarray, lines: Lines) -> np.ndarray:
    """Mean CIE LUV beside each line, on the brighter side and on the darker, shape (n, 2, 3)."""
    height, width = image.shape[:2]
    smooth = ndimage.uniform_filter(image.astype(np.float32), (3, 3, 1))
    places = lines.middle_px[:, None] + _ALONG[None, :, None] * lines.half_px[:, None]
    colours = []
    for side in (_BESIDE_PX, -_BESIDE_PX):
        x, y = np.moveaxis(places + side * lines.normal[:, None], -1, 0)
        x = np.clip(np.round(x), 0, width - 1).astype(np.int64)
        y = np.clip(np.round(y), 0, height - 1).astype(np.int64)
        colours.append(smooth[y, x].mean(axis=1))
    return luv(np.stack(colours, axis=1))


def cluster(lines: Lines, colours: np.ndarray, diagonal_px: float) -> np.ndarray:
    """Number of the consistent cluster of each line, shape (n,).

    Lines are sorted by colour first, each to the longest line of like colours; among those of one colour, lines of like direction that
    are near each other are connected.
    """
    of_colour = np.full(len(lines), -1)
    flat = colours.reshape(len(lines), 6)
    for line in range(len(lines)):  # the longest first
        if of_colour[line] < 0:
            near = np.sqrt(((flat - flat[line]) ** 2).sum(axis=1) / 2) < _LIKE_COLOUR
            of_colour[near & (of_colour < 0)] = line
    angle = np.arctan2(lines.half_px[:, 1], lines.half_px[:, 0])
    turned = np.abs((angle[:, None] - angle[None] + np.pi / 2) % np.pi - np.pi / 2)
    apart = np.sqrt(((lines.middle_px[:, None] - lines.middle_px[None]) ** 2).sum(axis=2)) / diagonal_px
    together = (of_colour[:, None] == of_colour[None]) & (turned < _LIKE_DIRECTION) & (apart < _NEAR)
    return connected_components(coo_matrix(together), directed=False)[1]


def line_clusters(image: np.ndarray) -> np.ndarray:
    """Consistent line clusters of an image (height, width, 3), uint8, shape (CLUSTERS * FEATURES,), float32.

    Of each cluster: share of all line length, colours (L, u, v) of the brighter and of the darker side, cosine and sine of twice the
    direction, middle and extent (standard deviations, x and y) as shares of the diagonal. Share 0 where there are fewer clusters.
    """
    found = np.zeros((CLUSTERS, FEATURES), dtype=np.float32)
    lines = find_lines(image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32))
    if not len(lines):
        return found.reshape(-1)
    diagonal = float(np.hypot(image.shape[0], image.shape[1]))
    colours = colour_pairs(image, lines)
    of = cluster(lines, colours, diagonal)
    length = lines.length_px
    mass = np.bincount(of, length)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(of, length * values) / mass

    twice = 2 * np.arctan2(lines.half_px[:, 1], lines.half_px[:, 0])
    c, s = mean(np.cos(twice)), mean(np.sin(twice))
    size = np.maximum(np.hypot(c, s), 1e-9)
    shape = np.array([image.shape[1], image.shape[0]]) / 2
    place = (lines.middle_px - shape) / diagonal
    spread = lines.half_px / diagonal
    middle = [mean(place[:, axis]) for axis in range(2)]
    extent = [
        np.sqrt(np.maximum(mean(place[:, axis] ** 2 + spread[:, axis] ** 2 / 3) - middle[axis] ** 2, 0.0))
        for axis in range(2)
    ]
    sides = [mean(colours[:, side, axis]) for side in range(2) for axis in range(3)]
    features = np.stack([mass / mass.sum(), *sides, c / size, s / size, *middle, *extent], axis=1)
    order = np.argsort(-mass, kind="stable")[:CLUSTERS]
    found[: len(order)] = features[order]
    return found.reshape(-1)


def line_clusters_distance(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """How little the clusters of two photos have in common, shape (n,): 0 for the same ones, 1 for nothing alike.

    A Gaussian kernel tells how alike two clusters are; the photos' similarity is that of all pairs of clusters by their shares of
    line length, divided by what each photo has with itself.
    """
    ours = one.reshape(CLUSTERS, FEATURES).astype(float)
    theirs = many.reshape(-1, CLUSTERS, FEATURES).astype(float)
    shared = _shared(ours[None], theirs)
    own = _shared(ours[None], ours[None])[0]
    their_own = _shared(theirs, theirs)
    empty = (own <= 0) | (their_own <= 0)
    cosine = shared / np.sqrt(np.where(empty, 1.0, own * their_own))
    nothing = (own <= 0) & (their_own <= 0)  # photos without a line are alike
    return np.sqrt(np.clip(1.0 - np.where(nothing, 1.0, np.where(empty, 0.0, cosine)), 0.0, 1.0))


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum over pairs of clusters of their shares times their likeness, shape (n,)."""
    a, b = a[:, :, None], b[:, None]
    colour = ((a[..., 1:7] - b[..., 1:7]) ** 2).sum(axis=-1) / 2 / _COLOUR_WIDTH**2
    aligned = np.clip((a[..., 7:9] * b[..., 7:9]).sum(axis=-1), -1.0, 1.0)
    direction = (np.arccos(aligned) / 2 / _DIRECTION_WIDTH) ** 2
    place = ((a[..., 9:13] - b[..., 9:13]) ** 2).sum(axis=-1) / _PLACE_WIDTH**2
    return (a[..., 0] * b[..., 0] * np.exp(-0.5 * (colour + direction + place))).sum(axis=(1, 2))
