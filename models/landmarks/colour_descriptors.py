"""MPEG-7's colour descriptors of a photo: Scalable Color, Color Layout and Dominant Color, numpy alone.

All take an image of shape (height, width, 3), uint8, sRGB, and give a flat float32 vector; all distances compare one vector with many.

References
----------
ISO/IEC 15938-3:2002, Multimedia content description interface, part 3: Visual; clauses 6.3 (colour space), 6.5 (dominant colour),
6.6 (scalable colour), 6.7 (colour layout); the extraction and the distances of ISO/IEC TR 15938-8:2002, as its reference software (the
eXperimentation Model, XM) has them.
"""

from __future__ import annotations

import numpy as np

# Scalable Color

#: Coefficients kept, of 16, 32, 64, 128 or 256; a shorter description is the beginning of a longer one.
SCALABLE_COEFFICIENTS = 128
#: Quantisation of the 256 Haar coefficients in their order (15938-3, table of clause 6.6): offset, and bits with the sign.
_OFFSETS = (
    "217 -71 -27 -54 -8 -14 -22 -29 -6 -13 -11 -22 -9 -14 -19 -22 0 -1 0 -2 1 -5 0 0 2 -2 -2 0 3 -5 -1 4 "
    "0 0 0 -1 0 0 -1 -2 -1 -1 -1 -3 -1 -2 -4 -5 -1 0 -2 -2 -2 -3 -3 0 0 0 0 2 -1 0 3 3 "
    "0 0 0 0 0 0 0 -1 -1 -1 -2 -1 -2 -2 -2 -1 0 0 0 -1 0 0 -1 -1 -2 -1 -2 -1 -3 -3 -2 0 "
    "0 0 0 -1 0 0 -2 -2 -2 -2 -2 -1 -3 -3 -1 0 1 0 0 -1 0 0 -1 0 -1 -1 -1 0 -1 0 1 -1 "
    "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 0 -1 1 0 0 0 0 0 0 -1 0 "
    "0 0 0 0 0 0 0 0 0 0 0 1 0 0 0 1 0 0 0 1 0 0 -1 2 0 0 0 0 0 0 -1 1 "
    "0 0 0 0 0 0 0 0 0 0 0 1 0 0 -1 1 0 0 -1 1 0 -1 -1 2 0 0 0 0 0 -1 0 1 "
    "1 0 -1 0 0 0 0 1 0 0 -1 0 0 0 0 1 0 0 0 0 0 -1 0 1 0 0 0 0 0 -1 0 -1"
)
_BITS = (
    "9989777867677777453656575657566733353355545555555355555555555565"
    "2234223444555555323423455455555533343355545555554344344443445555"
    "2233223322342233323423443334334432332233323423443235335533343345"
    "3233234432343355323534553334334432333334323433443234334433333334"
)
_SCALABLE_OFFSET = np.array([int(offset) for offset in _OFFSETS.split()], dtype=float)
_SCALABLE_MOST = np.array([2 ** (int(bits) - 1) - 1 for bits in _BITS], dtype=float)

# Color Layout

#: Coefficients of luminance and of either chrominance: 6 and 3 by default in the standard.
LAYOUT_LUMA, LAYOUT_CHROMA = 6, 3
#: Weights of the squared differences of the first coefficients of Y, Cb and Cr in the XM; all others weigh 1.
_LAYOUT_WEIGHTS = ((2.0, 2.0, 2.0), (2.0, 1.0, 1.0), (4.0, 2.0, 2.0))
#: Zig-zag scan of an 8 x 8 block, as flat indices row * 8 + column.
ZIGZAG = np.array(
    sorted(range(64), key=lambda i: (i // 8 + i % 8, i % 8 if (i // 8 + i % 8) % 2 == 0 else i // 8)), dtype=np.int64
)

# Dominant Color

#: The standard's limit of colours.
MOST_COLOURS = 8
#: Distance in CIE LUV within which two colours count as alike (10 to 20), and α of TR 15938-8 (1.0 to 1.5).
SIMILAR_LUV, ALPHA = 20.0, 1.2
#: Colours of one image nearer than this are merged: the XM's squared distance of 255.
_MERGE_LUV = 255.0**0.5
_SPLIT_BELOW, _STOP_BELOW, _PERTURBATION = 0.02, 0.01, 0.1
_MOST_ROUNDS = 60
_PERCENT_LEVELS = 31.0


def hsv(image: np.ndarray) -> np.ndarray:
    """Hue [1/256 of a turn], saturation and value [0 to 255] of an image, shape (n, 3), float32; grey has hue 0."""
    rgb = image.reshape(-1, 3).astype(np.float32)
    value = rgb.max(axis=1)
    spread = value - rgb.min(axis=1)
    red, green, blue = rgb.T
    divisor = np.where(spread > 0, spread, 1.0)
    turn = np.where(
        value == red,
        (green - blue) / divisor,
        np.where(value == green, 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor),
    )
    hue = np.where(spread > 0, (turn % 6.0) * (256.0 / 6.0), 0.0)
    saturation = np.where(value > 0, 255.0 * spread / np.where(value > 0, value, 1.0), 0.0)
    return np.stack([hue, saturation, value], axis=1)


def colour_histogram(image: np.ndarray) -> np.ndarray:
    """Shares of the 16 x 4 x 4 colours of clause 6.6, shape (256,); hue runs quickest, then saturation, then value."""
    h, s, v = np.minimum(hsv(image), 255.0).astype(np.int64).T
    counts = np.bincount((v // 64) * 64 + (s // 64) * 16 + h // 16, minlength=256)
    return counts / counts.sum()


def haar(bins: np.ndarray) -> np.ndarray:
    """Haar transform of 256 bins in the order of clause 6.6, shape (256,): sums and differences (second less first), coarse ones first.

    The eight steps halve hue, saturation, value, hue, saturation, value, hue and hue.
    """
    cube = bins.astype(float).reshape((2,) * 8)  # bits of value (2), saturation (2) and hue (4), the highest first
    sums = np.ones((2,) * 8, dtype=bool)  # where the steps until now left sums: only these go on
    bit = np.indices((2,) * 8)
    for axis in (7, 3, 1, 6, 2, 0, 5, 4):
        first, second = np.take(cube, [0], axis=axis), np.take(cube, [1], axis=axis)
        cube = np.where(sums, np.concatenate([first + second, second - first], axis=axis), cube)
        sums &= bit[axis] == 0
    return cube.reshape(256)[_HAAR_ORDER]


def _haar_order() -> np.ndarray:
    """Flat index of each coefficient: 16 coarse ones, then the differences of hue, of value, of saturation and of hue again."""
    h, s, v = (np.arange(256) & 15), (np.arange(256) >> 4) & 3, np.arange(256) >> 6
    fine_hue, fine_saturation, fine_value, second_hue = h & 1, s & 1, v & 1, (h >> 1) & 1
    level = np.select([fine_hue == 1, fine_saturation == 1, fine_value == 1, second_hue == 1], [4, 3, 2, 1], 0)
    return np.lexsort([np.arange(256), level])


_HAAR_ORDER = _haar_order()


def scalable_colour(image: np.ndarray, coefficients: int = SCALABLE_COEFFICIENTS) -> np.ndarray:
    """Scalable Color (clause 6.6): quantised Haar coefficients of the colour histogram, shape (coefficients,), whole numbers."""
    eleven_bits = np.floor(2047.0 * colour_histogram(image) + 0.49999)
    four_bits = np.floor(15.0 * np.minimum(eleven_bits / (0.4 * 2047.0), 1.0) ** 0.4 + 0.5)
    quantised = np.clip(haar(four_bits) - _SCALABLE_OFFSET, -_SCALABLE_MOST, _SCALABLE_MOST)
    return quantised[:coefficients].astype(np.float32)


def scalable_colour_distance(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """L1 between one description and many, shape (n,); of different length, by what both have."""
    shared = min(len(one), many.shape[1])
    return np.abs(many[:, :shared] - one[:shared]).sum(axis=1, dtype=float)


def block_means(channels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Means of nearly equal blocks of an image (height, width, c), shape (rows, columns, c); smaller images repeat their pixels."""
    height, width = channels.shape[:2]
    if height < rows or width < columns:
        channels = channels.repeat(-(-rows // height), axis=0).repeat(-(-columns // width), axis=1)
        height, width = channels.shape[:2]
    y, x = np.arange(rows + 1) * height // rows, np.arange(columns + 1) * width // columns
    sums = np.add.reduceat(np.add.reduceat(channels.astype(float), y[:-1], axis=0), x[:-1], axis=1)
    return sums / (np.diff(y)[:, None, None] * np.diff(x)[None, :, None])


def ycbcr(rgb: np.ndarray) -> np.ndarray:
    """Y [16 to 235], Cb and Cr [16 to 240] of sRGB values, last axis 3 (clause 6.3)."""
    red, green, blue = (rgb[..., channel] / 256.0 for channel in range(3))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([219.0 * y + 16.0, 224.0 * 0.564 * (blue - y) + 128.0, 224.0 * 0.713 * (red - y) + 128.0], axis=-1)


def dct8(blocks: np.ndarray) -> np.ndarray:
    """Orthonormal two-dimensional DCT-II of blocks (8, 8, c), the same shape."""
    return np.einsum("ij,jkc,lk->ilc", DCT8, blocks, DCT8)


#: Rows of the orthonormal DCT-II of eight values, shape (8, 8).
DCT8 = np.sqrt(np.where(np.arange(8) == 0, 1 / 8, 1 / 4))[:, None] * np.cos(
    np.pi / 8 * np.arange(8)[:, None] * (np.arange(8)[None, :] + 0.5)
)


def colour_layout(image: np.ndarray, luma: int = LAYOUT_LUMA, chroma: int = LAYOUT_CHROMA) -> np.ndarray:
    """Color Layout (clause 6.7): DCT of the 8 x 8 mean colours, quantised, shape (luma + 2 chroma,): of Y, of Cb and of Cr."""
    small = np.floor(ycbcr(block_means(image, 8, 8)) + 0.5)
    coefficients = np.floor(dct8(small) + 0.499999).reshape(64, 3)[ZIGZAG]
    y, cb, cr = coefficients.T
    parts = [
        np.concatenate([np.floor(_quantised_luma(y[:1] / 8) / 2), _quantised_ac(y[1:luma] / 2)]),
        np.concatenate([_quantised_chroma(cb[:1] / 8), _quantised_ac(cb[1:chroma])]),
        np.concatenate([_quantised_chroma(cr[:1] / 8), _quantised_ac(cr[1:chroma])]),
    ]
    return np.concatenate(parts).astype(np.float32)


def _quantised_luma(value: np.ndarray) -> np.ndarray:
    """The finer the nearer to the middle: 7 bits."""
    i = np.trunc(value)
    return np.select(
        [i > 191, i > 159, i > 95, i > 63],
        [112 + (i - 192) // 4, 96 + (i - 160) // 2, 32 + (i - 96), 16 + (i - 64) // 2],
        i // 4,
    )


def _quantised_chroma(value: np.ndarray) -> np.ndarray:
    """The finer the nearer to grey: 6 bits."""
    i = np.trunc(value)
    return np.select(
        [i > 191, i > 159, i > 143, i > 111, i > 95, i > 63],
        [
            np.full_like(i, 63),
            56 + (i - 160) // 4,
            48 + (i - 144) // 2,
            16 + (i - 112),
            8 + (i - 96) // 2,
            (i - 64) // 4,
        ],
        0.0,
    )


def _quantised_ac(value: np.ndarray) -> np.ndarray:
    """The finer the nearer to 0: 5 bits."""
    i = np.clip(np.trunc(value), -256, 239)
    size = np.abs(i)
    steps = np.where(size > 127, 64 + size // 4, np.where(size > 63, 32 + size // 2, size))
    return (np.sign(i) * steps + 132) // 8


def colour_layout_distance(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Sum over Y, Cb and Cr of the roots of weighted squared differences (TR 15938-8), shape (n,).

    The lengths tell how many coefficients there are: half of them are Y's.
    """
    luma, chroma = len(one) // 2, len(one) // 4
    ends = np.cumsum([0, luma, chroma, chroma])
    total = np.zeros(len(many))
    for channel, weights in enumerate(_LAYOUT_WEIGHTS):
        part = slice(ends[channel], ends[channel + 1])
        weight = np.ones(ends[channel + 1] - ends[channel])
        weight[: len(weights)] = weights[: len(weight)]
        total += np.sqrt(((many[:, part] - one[part]) ** 2 * weight).sum(axis=1, dtype=float))
    return total


def luv(rgb: np.ndarray) -> np.ndarray:
    """CIE 1976 L*u*v* of sRGB values [0 to 255] under D65, last axis 3, float64."""
    linear = np.asarray(rgb, dtype=float) / 255.0
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    x, y, z = np.moveaxis(linear @ _TO_XYZ.T, -1, 0)
    white_u, white_v = _uv(*_TO_XYZ.sum(axis=1))
    u, v = _uv(x, y, z)
    lightness = np.where(y > (6 / 29) ** 3, 116.0 * np.cbrt(y) - 16.0, (29 / 3) ** 3 * y)
    return np.stack([lightness, 13 * lightness * (u - white_u), 13 * lightness * (v - white_v)], axis=-1)


_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def _uv(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = np.maximum(x + 15 * y + 3 * z, 1e-12)
    return 4 * x / total, 9 * y / total


def dominant_colours(image: np.ndarray) -> np.ndarray:
    """Dominant Color (clause 6.5): up to eight colours by the generalised Lloyd algorithm in CIE LUV, with their shares.

    Pixels of one colour in 4 bits a channel count as their mean. Without variances and spatial coherency, which the standard leaves open.

    Returns
    -------
    np.ndarray
        L, u, v and share [0 to 31] of each colour, the most frequent first, shape (8 * 4,); share 0 where there are fewer colours.
    """
    cells = (image.reshape(-1, 3) >> 4).astype(np.int64)
    flat = (cells[:, 0] << 8) | (cells[:, 1] << 4) | cells[:, 2]
    sums = np.stack([np.bincount(flat, image[..., channel].reshape(-1), 4096) for channel in range(3)], axis=1)
    counts = np.bincount(flat, minlength=4096)
    there = np.flatnonzero(counts)
    weight = counts[there] / counts.sum()
    centres, share = _merged(*_lloyd(luv(sums[there] / counts[there, None]), weight))
    order = np.argsort(-share, kind="stable")
    found = np.zeros((MOST_COLOURS, 4), dtype=np.float32)
    found[: len(order), :3] = np.round(centres[order], 1)
    found[: len(order), 3] = np.floor(_PERCENT_LEVELS * share[order] + 0.5)
    return found.reshape(-1)


def _lloyd(points: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres and shares of weighted points (n, 3): clusters are split, the worst first, whenever the distortion settles."""
    centres = (points * weight[:, None]).sum(axis=0, keepdims=True)
    before = np.inf
    for _ in range(_MOST_ROUNDS):
        nearest, square = _assigned(points, centres)
        centres, share = _means(points, weight, nearest, centres)
        nearest, square = _assigned(points, centres)
        distortion = float((square * weight).sum())
        gain = (before - distortion) / before if 0 < before < np.inf else float(before == np.inf)
        before = distortion
        if distortion < 1e-9:
            break
        if len(centres) < MOST_COLOURS and (gain < _SPLIT_BELOW or len(centres) == 1):
            worst = int(np.argmax(np.bincount(nearest, square * weight, len(centres))))
            mine = nearest == worst
            spread = np.sqrt(np.average((points[mine] - centres[worst]) ** 2, axis=0, weights=weight[mine]))
            shift = np.maximum(spread, _PERTURBATION)
            centres = np.concatenate([centres, centres[worst : worst + 1] + shift])
            centres[worst] -= shift
        elif gain < _STOP_BELOW:
            break
    nearest, _ = _assigned(points, centres)
    centres, share = _means(points, weight, nearest, centres)
    return centres[share > 0], share[share > 0]


def _assigned(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    squares = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
    nearest = squares.argmin(axis=1)
    return nearest, squares[np.arange(len(points)), nearest]


def _means(
    points: np.ndarray, weight: np.ndarray, nearest: np.ndarray, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    share = np.bincount(nearest, weight, len(centres))
    sums = np.stack([np.bincount(nearest, weight * points[:, axis], len(centres)) for axis in range(3)], axis=1)
    return np.where(share[:, None] > 0, sums / np.maximum(share, 1e-300)[:, None], centres), share


def _merged(centres: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put the nearest two together until all are apart."""
    while len(centres) > 1:
        apart = np.sqrt(((centres[:, None] - centres[None]) ** 2).sum(axis=2))
        apart[np.diag_indices(len(centres))] = np.inf
        a, b = np.unravel_index(int(apart.argmin()), apart.shape)
        if apart[a, b] >= _MERGE_LUV:
            break
        centres[a] = (share[a] * centres[a] + share[b] * centres[b]) / (share[a] + share[b])
        share[a] += share[b]
        centres, share = np.delete(centres, b, axis=0), np.delete(share, b)
    return centres, share


def dominant_colours_distance(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """TR 15938-8's distance of sets of colours, shape (n,): 0 for the same colours in the same shares, √2 for nothing in common."""
    ours, theirs = one.reshape(MOST_COLOURS, 4).astype(float), many.reshape(-1, MOST_COLOURS, 4).astype(float)
    p = ours[:, 3] / max(ours[:, 3].sum(), 1e-9)
    q = theirs[..., 3] / np.maximum(theirs[..., 3].sum(axis=1, keepdims=True), 1e-9)

    def alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        apart = np.sqrt(((a[..., :, None, :3] - b[..., None, :, :3]) ** 2).sum(axis=-1))
        return np.where(apart <= SIMILAR_LUV, 1.0 - apart / (ALPHA * SIMILAR_LUV), 0.0)

    own = np.einsum("i,ij,j->", p, alike(ours, ours), p)
    their_own = np.einsum("ni,nij,nj->n", q, alike(theirs, theirs), q)
    shared = np.einsum("i,nij,nj->n", p, alike(ours[None], theirs), q)
    return np.sqrt(np.maximum(own + their_own - 2.0 * shared, 0.0))
