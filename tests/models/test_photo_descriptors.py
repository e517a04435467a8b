"""MPEG-7's descriptors and line clusters against closed forms, loops as the standard writes them, and scipy."""

import numpy as np
import pytest
from scipy.fft import dctn
from telcoloc.models.errors import InputError
from telcoloc.models.landmarks import colour_descriptors as colours
from telcoloc.models.landmarks import edge_histogram as edges
from telcoloc.models.landmarks import facade_photos, facades
from telcoloc.models.landmarks import line_clusters as lines
from telcoloc.models.landmarks.descriptors import BY_NAME, DESCRIPTORS, as_text, describe, from_text, prepared

RNG = np.random.default_rng(5)
NOISE = RNG.integers(0, 256, (96, 128, 3), dtype=np.uint8)


def plain(colour, shape=(96, 128)):
    return np.full((*shape, 3), colour, dtype=np.uint8)


@pytest.fixture(scope="module")
def photos():
    found = []
    for seed in range(3):
        facade, rng = facades.make_facade(seed), np.random.default_rng(seed)
        found.append(facade_photos.photograph(facade, facade_photos.reference_view(facade, rng), rng))
    return found


# Scalable Color


def haar_by_loops(bins):
    """Clause 6.6 step by step on a cube of bins [value][saturation][hue]."""
    cube = np.array(bins, dtype=float).reshape(4, 4, 16)
    for axis, step in ((2, 1), (1, 1), (0, 1), (2, 2), (1, 2), (0, 2), (2, 4), (2, 8)):
        for place in np.ndindex(4, 4, 16):
            other = list(place)
            other[axis] += step
            if place[axis] % (2 * step) or any(still(place, done) for done in before((axis, step))):
                continue
            a, b = cube[place], cube[tuple(other)]
            cube[place], cube[tuple(other)] = a + b, b - a
    return cube.reshape(-1)


def before(now):
    steps = [(2, 1), (1, 1), (0, 1), (2, 2), (1, 2), (0, 2), (2, 4), (2, 8)]
    return steps[: steps.index(now)]


def still(place, done):
    """Whether a place holds a difference of an earlier step, which goes no further."""
    axis, step = done
    return place[axis] % (2 * step) != 0


def test_haar_is_the_loops_of_the_standard():
    bins = RNG.integers(0, 16, 256)
    mine, loops = colours.haar(bins), haar_by_loops(bins)
    assert sorted(mine) == sorted(loops)
    assert mine[0] == bins.sum()
    # the order begins 0, 4, 8, 12, 32, … as clause 6.6 lists it
    assert mine[:20].tolist() == [
        loops[i] for i in (0, 4, 8, 12, 32, 36, 40, 44, 128, 132, 136, 140, 160, 164, 168, 172, 2, 6, 10, 14)
    ]
    assert mine[128:].tolist() == loops[1::2].tolist()


def test_hue_saturation_and_value_of_known_colours():
    found = colours.hsv(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90], [255, 255, 0]]], np.uint8))
    assert found[:, 0] == pytest.approx([0, 256 / 3, 512 / 3, 0, 256 / 6], abs=1e-3)
    assert found[:, 1].tolist() == [255, 255, 255, 0, 255]
    assert found[:, 2].tolist() == [255, 255, 255, 90, 255]


def test_the_histogram_counts_colours():
    image = plain((255, 0, 0))
    image[:, 96:] = (0, 0, 0)
    share = colours.colour_histogram(image)
    assert share[3 * 64 + 3 * 16] == 0.75  # hue 0, most saturation and value
    assert share[0] == 0.25
    assert share.sum() == pytest.approx(1)


def test_a_short_scalable_colour_begins_a_long_one():
    long, short = colours.scalable_colour(NOISE, 256), colours.scalable_colour(NOISE, 64)
    assert long[:64].tolist() == short.tolist()
    assert (np.abs(long) <= 255).all()
    assert (long == np.round(long)).all()
    assert colours.scalable_colour_distance(short, long[None])[0] == 0
    assert colours.scalable_colour_distance(short, short[None] + 1)[0] == 64


def test_scalable_colour_does_not_see_where_colours_are():
    shuffled = RNG.permutation(NOISE.reshape(-1, 3)).reshape(NOISE.shape)
    assert colours.scalable_colour(shuffled).tolist() == colours.scalable_colour(NOISE).tolist()


# Color Layout


def test_the_transform_is_scipys():
    blocks = RNG.normal(size=(8, 8, 3))
    assert colours.dct8(blocks) == pytest.approx(dctn(blocks, axes=(0, 1), norm="ortho"))


def test_zigzag_is_that_of_jpeg():
    assert colours.ZIGZAG[:15].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4]
    assert sorted(colours.ZIGZAG) == list(range(64))
    assert colours.ZIGZAG[-3:].tolist() == [55, 62, 63]


def test_a_plain_image_has_no_layout():
    found = colours.colour_layout(plain((130, 130, 130)))
    assert found[1:6].tolist() == [16] * 5  # no difference stands in the middle of 5 bits
    assert found[[6, 9]].tolist() == [32, 32]  # grey in the middle of 6
    assert found[0] == (32 + (127 - 96)) // 2  # Y of this grey is 127


def test_block_means_by_loops():
    image = RNG.normal(size=(37, 53, 2))
    found = colours.block_means(image, 8, 8)
    for row, column in np.ndindex(8, 8):
        part = image[row * 37 // 8 : (row + 1) * 37 // 8, column * 53 // 8 : (column + 1) * 53 // 8]
        assert found[row, column] == pytest.approx(part.mean(axis=(0, 1)))


def test_layout_sees_light_above_and_dark_below():
    image = plain((220, 220, 220))
    image[48:] = 40
    upright, turned = colours.colour_layout(image), colours.colour_layout(image[::-1])
    assert upright[2] > 16 > turned[2]  # the second vertical coefficient
    assert upright[0] == turned[0]


def test_layout_distance_in_closed_form():
    one = np.zeros(12)
    other = one.copy()
    other[[0, 6, 9, 11]] = (3, 4, 5, 2)  # first of Y, Cb and Cr, third of Cr
    expected = np.sqrt(2 * 9) + np.sqrt(2 * 16) + np.sqrt(4 * 25 + 2 * 4)
    assert colours.colour_layout_distance(one, np.stack([one, other])) == pytest.approx([0, expected])


# Dominant Color


def test_luv_of_known_colours():
    found = colours.luv(np.array([[255, 255, 255], [255, 0, 0], [0, 0, 255], [0, 0, 0]]))
    published = [[100, 0, 0], [53.24, 175.01, 37.76], [32.30, -9.40, -130.34], [0, 0, 0]]  # sRGB under D65
    assert found == pytest.approx(np.array(published), abs=0.06)


def test_dominant_colours_of_two_colours():
    image = plain((200, 30, 30))
    image[:, 96:] = (20, 20, 160)
    found = colours.dominant_colours(image).reshape(8, 4)
    assert found[:, 3].tolist() == [23, 8, 0, 0, 0, 0, 0, 0]  # 0.75 and 0.25 of 31
    assert found[0, :3] == pytest.approx(colours.luv(np.array([200, 30, 30])), abs=0.06)
    assert found[1, :3] == pytest.approx(colours.luv(np.array([20, 20, 160])), abs=0.06)


def test_dominant_colours_are_apart_and_few():
    found = colours.dominant_colours(NOISE).reshape(8, 4)
    assert 2 <= (found[:, 3] > 0).sum() <= 8
    assert found[:, 3].sum() == pytest.approx(31, abs=3)
    there = found[found[:, 3] > 0, :3]
    apart = np.hypot.reduce(there[:, None] - there[None], axis=2) + 99 * np.eye(len(there))
    assert apart.min() > 10
    assert colours.dominant_colours(NOISE).tolist() == colours.dominant_colours(NOISE).tolist()


def test_dominant_colour_distance_in_closed_form():
    red, blue = colours.dominant_colours(plain((255, 0, 0))), colours.dominant_colours(plain((0, 0, 255)))
    assert colours.dominant_colours_distance(red, np.stack([red, blue])) == pytest.approx([0, np.sqrt(2)])
    near = red.copy()
    near[0] += 12.0  # 12 of 20 apart, α 1.2: alike by 1/2
    assert colours.dominant_colours_distance(red, near[None])[0] == pytest.approx(1.0)


# Edge Histogram


def stripes(across):
    """Black and white stripes, half a block wide: 272² pixels make blocks of 8."""
    level = np.where(np.arange(272) % 8 < 4, 0, 255).astype(np.uint8)
    grey = np.broadcast_to(level[None] if across == "x" else level[:, None], (272, 272))
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize(("across", "kind"), [("x", 0), ("y", 1)])
def test_stripes_are_edges_of_one_kind(across, kind):
    share = edges.edge_shares(stripes(across))
    assert share[..., kind] == pytest.approx(1.0)
    assert share.sum() == pytest.approx(16)


def test_a_block_of_each_kind():
    quarters = {0: (0, 200, 0, 200), 1: (0, 0, 200, 200), 2: (0, 90, 90, 200), 3: (90, 0, 200, 90), 4: (0, 200, 200, 0)}
    for kind, values in quarters.items():
        block = np.array(values).reshape(2, 2).repeat(4, axis=0).repeat(4, axis=1)
        image = np.tile(block, (34, 34))[..., None].repeat(3, axis=2).astype(np.uint8)
        assert edges.edge_shares(image)[..., kind] == pytest.approx(1.0)


def test_weak_edges_do_not_count():
    assert edges.edge_shares(plain((90, 90, 90))).sum() == 0
    weak = stripes("x") // 255 * 5 + 100  # they answer 10, less than 11
    assert edges.edge_shares(weak).sum() == 0
    assert edges.edge_shares(weak // 5 * 6).sum() == 16


def test_levels_are_the_nearest_of_the_standard():
    found = edges.edge_histogram(NOISE).reshape(4, 4, 5)
    share = edges.edge_shares(NOISE)
    for kind in range(5):
        nearest = np.abs(share[..., kind, None] - edges.LEVELS[kind]).argmin(axis=-1)
        assert found[..., kind].tolist() == nearest.tolist()


def test_global_and_semi_global_histograms_by_loops():
    levels = RNG.integers(0, 8, 80)
    found = edges.with_global(levels)
    local = np.array([edges.LEVELS[i % 5, levels[i]] for i in range(80)]).reshape(4, 4, 5)
    assert found.shape == (150,)
    assert found[:80] == pytest.approx(local.reshape(-1))
    assert found[80:85] == pytest.approx(5 * local.reshape(16, 5).mean(axis=0))
    groups = [[(r, c) for r in range(4)] for c in range(4)] + [[(r, c) for c in range(4)] for r in range(4)]
    groups += [[(r + i, c + j) for i in (0, 1) for j in (0, 1)] for r, c in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))]
    expected = [np.mean([local[place] for place in group], axis=0) for group in groups]
    assert found[85:] == pytest.approx(np.concatenate(expected))


# Line clusters


def box(colour=(200, 60, 50), ground=(90, 120, 200), x=(40, 120), y=(30, 90), shape=(140, 180)):
    image = plain(ground, shape)
    image[y[0] : y[1], x[0] : x[1]] = colour
    return image


def grey(image):
    return image @ np.array([0.299, 0.587, 0.114])


def test_a_box_has_four_lines():
    found = lines.find_lines(grey(box((220, 220, 220), (20, 20, 20))))
    assert len(found) == 4
    assert sorted(found.length_px.round(-1)) == [60, 60, 80, 80]
    middles = found.middle_px[np.lexsort(found.middle_px.round(-1).T[::-1])]
    assert np.abs(middles - [(40, 60), (80, 30), (80, 90), (120, 60)]).max() <= 1
    inwards = ((np.array([80, 60]) - found.middle_px) * found.normal).sum(axis=1)
    assert (inwards > 0).all()  # the box is brighter


@pytest.mark.parametrize("degrees", [3, 17, 40, 66, 88, 120])
def test_a_line_at_any_angle(degrees):
    y, x = np.mgrid[:160, :160] - 80.0
    angle = np.radians(degrees)
    side = -np.sin(angle) * x + np.cos(angle) * y
    found = lines.find_lines(255 / (1 + np.exp(-side / 0.4)))
    assert len(found) == 1
    along = np.degrees(np.arctan2(found.half_px[0, 1], found.half_px[0, 0])) % 180
    assert along == pytest.approx(degrees, abs=0.5)
    assert np.abs(-np.sin(angle) * (found.middle_px[0, 0] - 80) + np.cos(angle) * (found.middle_px[0, 1] - 80)) < 0.7
    assert found.length_px[0] > 155


def test_colours_on_either_side():
    image = box((220, 220, 200), (20, 20, 60))
    found = lines.find_lines(grey(image))
    pairs = lines.colour_pairs(image, found)
    assert pairs[:, 0] == pytest.approx(np.tile(colours.luv(np.array([220, 220, 200])), (4, 1)), abs=0.5)
    assert pairs[:, 1] == pytest.approx(np.tile(colours.luv(np.array([20, 20, 60])), (4, 1)), abs=0.5)


def test_lines_cluster_by_colour_direction_and_place():
    image = plain((20, 20, 20), (160, 400))
    for x in (30, 50, 70):  # three bars near each other
        image[40:120, x : x + 10] = (220, 220, 220)
    image[40:120, 350:360] = (220, 220, 220)  # the same far away
    image[40:120, 110:120] = (220, 40, 40)  # another colour near by
    found = lines.find_lines(grey(image))
    upright = np.abs(found.half_px[:, 0]) < np.abs(found.half_px[:, 1])
    of = lines.cluster(found, lines.colour_pairs(image, found), float(np.hypot(160, 400)))
    groups = {}
    for x, number in zip(found.middle_px[upright, 0], of[upright]):
        groups.setdefault(number, set()).add(round(float(x) / 10) * 10)
    assert sorted(sorted(group) for group in groups.values()) == [[30, 40, 50, 60, 70, 80], [110, 120], [350, 360]]
    assert not set(of[upright]) & set(of[~upright])


def test_photos_without_lines():
    none, some = lines.line_clusters(plain((90, 90, 90))), lines.line_clusters(box())
    assert not none.any()
    assert lines.line_clusters_distance(none, np.stack([none, some])).tolist() == [0, 1]
    assert some.reshape(-1, lines.FEATURES)[:, 0].sum() == pytest.approx(1)


def test_another_colour_is_farther_than_a_shift():
    first = lines.line_clusters(box())
    shifted = lines.line_clusters(box(x=(46, 126)))
    other = lines.line_clusters(box((60, 160, 60), (240, 240, 240)))
    near, far = lines.line_clusters_distance(first, np.stack([shifted, other]))
    assert near < 0.35
    assert far > 0.95


# All of them


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=lambda each: each.name)
def test_distances_are_distances(descriptor, photos):
    vectors = np.stack([descriptor.extract(photo) for photo in photos])
    assert vectors.shape == (3, descriptor.size)
    assert vectors.dtype == np.float32
    table = np.stack([descriptor.distance(vector, vectors) for vector in vectors])
    assert np.diag(table) == pytest.approx(0, abs=1e-6)
    assert table == pytest.approx(table.T)
    assert (table[~np.eye(3, dtype=bool)] > 0.2 * descriptor.typical).all()
    assert descriptor.distance(vectors[0], vectors[1:2])[0] == pytest.approx(table[0, 1])


def test_light_is_evened_out(photos):
    photo = np.minimum(photos[0], 180)
    darker = (photo * np.array([0.6, 0.65, 0.7])).astype(np.uint8)
    assert np.abs(prepared(photo).astype(int) - prepared(darker)).mean() < 2
    large = photo.repeat(3, axis=0).repeat(3, axis=1)
    assert prepared(large).shape == (240, 320, 3)
    assert np.abs(prepared(large).astype(int) - prepared(photo)).max() <= 1


def test_small_and_odd_images_are_described():
    for shape in ((1, 1), (3, 200), (7, 5), (241, 319)):
        found = describe(np.zeros((*shape, 3), dtype=np.uint8) + 70)
        assert {name: len(vector) for name, vector in found.items()} == {d.name: d.size for d in DESCRIPTORS}
        assert all(np.isfinite(vector).all() for vector in found.values())


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_photo(image):
    with pytest.raises(InputError, match=r"A photo of shape .+ is no RGB image of whole numbers from 0 to 255\."):
        describe(image)


def test_text_gives_the_description_back(photos):
    for name, vector in describe(photos[0]).items():
        assert from_text(as_text(vector), BY_NAME[name]).tolist() == vector.tolist()


@pytest.mark.parametrize(
    ("text", "version", "sentence"),
    [
        ("[1, 2]", 1, r"A description by color_layout is an array of 12 numbers, not '\[1, 2\]'\."),
        ("hello", 1, "A description by color_layout is an array of 12 numbers, not 'hello'."),
        ("[" + "1," * 11 + "NaN]", 1, "A description by color_layout is an array of 12 numbers, .+"),
        ("[]", 2, "This is version 2 of color_layout; only version 1 is known. Describe the photos anew."),
    ],
)
def test_text_that_is_no_description(text, version, sentence):
    with pytest.raises(InputError, match=sentence):
        from_text(text, BY_NAME["color_layout"], version)
