"""Statements about weights files. Oracle: the safetensors package, and files damaged byte by byte."""

import errno
import json
import os

import numpy as np
import pytest
from telcoloc.models.errors import InputError, OutputError
from telcoloc.models.weights_file import Weights, expect_shapes, read_weights, shipped, write_weights

DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
CARD = {"data": "simulated 1–8", "seed": 3, "ks2": 0.25, "networks": ["München", "Łódź"], "licence": None}


def arrays():
    rng = np.random.default_rng(0)
    found = {f"layer.{name}": (rng.normal(size=(3, 4)) * 50).astype(name) for name in DTYPES}
    return {**found, "empty": np.zeros((0, 5), np.float32), "deep": rng.normal(size=(2, 1, 3, 2))}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.safetensors"


def written(path, **change):
    write_weights(path, Weights(**{"kind": "voronoiboost", "tensors": arrays(), "card": CARD, **change}))
    return path


def assert_equal(found, expected):
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def file_of(path, header, body=b""):
    """A file with any header, sound or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


OURS = {"telcoloc_kind": "voronoiboost", "telcoloc_card": "{}"}


# What is written is read


def test_arrays_of_every_type_and_the_card_come_back(path):
    found = read_weights(written(path))
    assert found.kind == "voronoiboost"
    assert found.card == CARD
    assert_equal(found.tensors, arrays())
    assert all(array.flags.writeable and array.flags.owndata for array in found.tensors.values())


def test_big_endian_and_strided_arrays_come_back_by_value(path):
    strange = {"big": np.arange(6, dtype=">f4").reshape(2, 3), "turned": np.arange(6.0).reshape(2, 3).T[::-1]}
    found = read_weights(written(path, tensors=strange)).tensors
    for name, array in strange.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype.isnative


def test_a_single_number_comes_back_without_a_dimension(path):
    assert_equal(read_weights(written(path, tensors={"gamma": np.array(1.5)})).tensors, {"gamma": np.array(1.5)})


def test_equal_weights_make_equal_bytes_whatever_the_order(tmp_path):
    first = written(tmp_path / "a").read_bytes()
    turned = {name: array.copy(order="F") for name, array in reversed(arrays().items())}
    assert written(tmp_path / "b", tensors=turned, card=dict(reversed(CARD.items()))).read_bytes() == first
    other = {**arrays(), "deep": np.nextafter(arrays()["deep"], 9)}
    assert written(tmp_path / "c", tensors=other).read_bytes() != first
    assert written(tmp_path / "d", card={**CARD, "seed": 4}).read_bytes() != first


def test_the_body_begins_at_a_multiple_of_eight(path):
    content = written(path).read_bytes()
    assert int.from_bytes(content[:8], "little") % 8 == 0


def test_the_kind_is_checked_only_when_one_is_asked_for(path):
    written(path)
    assert read_weights(path).kind == "voronoiboost"
    assert read_weights(path, "voronoiboost").kind == "voronoiboost"
    assert read_weights(path, ("deepmend", "voronoiboost")).kind == "voronoiboost"


def test_shipped_weights_lie_beside_the_code():
    assert shipped("deepmend").name == "deepmend.safetensors"
    assert shipped("deepmend").parent.parent.name == "models"


# The safetensors package reads ours, and we read its


def test_the_safetensors_package_reads_our_files(path):
    safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")
    from safetensors.numpy import load_file

    assert_equal(load_file(written(path)), arrays())
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata["telcoloc_kind"] == "voronoiboost"
    assert json.loads(metadata["telcoloc_card"]) == CARD


def test_we_read_files_of_the_safetensors_package(path):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    from safetensors.numpy import save_file

    both = {**arrays(), "gamma": np.array(1.5)}
    save_file(both, path, {**OURS, "telcoloc_card": json.dumps(CARD)})
    found = read_weights(path, "voronoiboost")
    assert found.card == CARD
    assert_equal(found.tensors, both)


# What cannot be read is said


def refusal(path, kinds=()):
    with pytest.raises(InputError) as caught:
        read_weights(path, kinds)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    return sentence.replace(str(path), "FILE")


def test_a_missing_file_or_a_folder(path, tmp_path):
    assert refusal(path) == "The weights file FILE cannot be read: No such file or directory."
    assert refusal(tmp_path) == "The weights file FILE cannot be read: Is a directory."


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"PK\x03\x04" + bytes(100),
        b"\x80\x02}q\x00." + bytes(90),
        b"GIF89a" * 20,
        (2**40).to_bytes(8, "little") + b"{}",
    ],
    ids=["empty", "short", "zip", "pickle", "picture", "endless header"],
)
def test_what_is_no_safetensors_file(path, content):
    path.write_bytes(content)
    assert refusal(path) == "FILE is no weights file: it does not begin as a .safetensors file does."


def test_a_file_cut_anywhere_is_called_truncated_or_no_weights_file(path):
    content = written(path).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for length in (*range(10), *range(10, len(content), 37), header - 1, header, len(content) - 1):
        path.write_bytes(content[:length])
        sentence = refusal(path)
        if length < 10:
            assert sentence == "FILE is no weights file: it does not begin as a .safetensors file does."
        elif length < header:
            assert sentence == "The weights file FILE is truncated within its header; copy or download it again."
        else:
            assert sentence.startswith(
                f"The weights file FILE is truncated: {length - header:,} bytes of arrays, but '"
            )
            assert sentence.endswith("Copy or download it again.")


@pytest.mark.parametrize(
    "header",
    [
        b"{not json}",
        b'{"\xff": 1}',
        {"__metadata__": OURS, "a": 3},
        {"__metadata__": OURS, "a": {"dtype": "F32", "shape": [2]}},
        {"__metadata__": OURS, "a": entry(dtype="BF16")},
        {"__metadata__": OURS, "a": entry(offsets=(0,))},
        {"__metadata__": OURS, "a": entry(shape=("two",))},
    ],
    ids=["no JSON", "no UTF-8", "no object", "no place", "unknown type", "one offset", "no number"],
)
def test_a_damaged_header(path, header):
    sentence = refusal(file_of(path, header, bytes(8)))
    assert sentence.startswith("FILE is no weights file that can be read here: its header is damaged (")


@pytest.mark.parametrize("metadata", [{}, {"__metadata__": {}}, {"__metadata__": {"format": "pt"}}])
def test_another_programs_file(path, metadata):
    assert refusal(file_of(path, {**metadata, "a": entry()}, bytes(8))) == (
        "FILE is a .safetensors file of another program. Use weights that 'Train DeepMEND' wrote, or those that ship with the plugin."
    )


def test_weights_of_another_method(path):
    written(path)
    assert refusal(path, "deepmend") == (
        "FILE holds weights for 'voronoiboost', but 'deepmend' is asked for. Choose that method, or another file."
    )
    assert "but 'deepmend' or 'direct' is asked for" in refusal(path, ("deepmend", "direct"))


@pytest.mark.parametrize(
    "place", [entry(offsets=(0, 4)), entry(offsets=(-8, 0)), entry(shape=(3,)), entry(shape=(-2,))]
)
def test_an_array_that_does_not_fit_its_place(path, place):
    sentence = refusal(file_of(path, {"__metadata__": OURS, "a": place}, bytes(8)))
    assert sentence == "The weights file FILE is damaged: array 'a' does not fit its place."


def test_a_card_that_is_no_json(path):
    sentence = refusal(file_of(path, {"__metadata__": {**OURS, "telcoloc_card": "{seed"}}))
    assert sentence.startswith("The weights file FILE is damaged: its card is no JSON object (")


@pytest.mark.parametrize(
    "header",
    [
        {"__metadata__": ["a list"]},
        {"__metadata__": OURS, "a": entry(shape=(2**80,))},
        {"__metadata__": OURS, "a": entry(shape=(-2, -1))},
        {"__metadata__": OURS, "a": {"dtype": "F32", "shape": [float("inf")], "data_offsets": [0, 8]}},
        {"__metadata__": {**OURS, "telcoloc_card": "3"}},
    ],
)
def test_a_hostile_header_is_refused_with_a_sentence(path, header):
    assert "FILE" in refusal(file_of(path, header, bytes(8)))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(path, value, dtype):
    sentence = refusal(written(path, tensors={"fine": np.ones(2), "wrong": np.array([1, value], dtype)}))
    assert sentence == "The weights file FILE cannot be used: array 'wrong' holds values that are not finite."


def test_shapes_that_this_version_does_not_know():
    weights = Weights("deepmend", {"a": np.zeros((2, 3)), "b": np.zeros(4)})
    expect_shapes(weights, {"a": (2, 3), "b": (4,)}, "FILE")
    begin = "^The weights file FILE does not fit this version of 'deepmend': array "
    for shapes, end in (
        ({"a": (3, 2), "b": (4,)}, r"'a' is \(2, 3\), expected \(3, 2\)\.$"),
        ({"a": (2, 3)}, r"'b' is \(4,\), expected none\.$"),
        ({"a": (2, 3), "b": (4,), "c": (1,)}, r"'c' is missing, expected \(1,\)\.$"),
    ):
        with pytest.raises(InputError, match=begin + end):
            expect_shapes(weights, shapes, "FILE")


# What cannot be written leaves nothing


@pytest.mark.parametrize("array", [np.zeros(2, complex), np.array(["a"]), np.zeros(2, np.uint32), np.array([None])])
def test_a_type_the_format_does_not_know_is_refused_before_a_file_appears(path, array):
    with pytest.raises(InputError, match=r"^Array 'a' has type .*, which a weights file cannot hold\.$"):
        written(path, tensors={"a": array})
    assert os.listdir(path.parent) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OutputError, match=r"^The weights could not be written to .*: No such file or directory\.$"):
        written(tmp_path / "nowhere" / "some.safetensors")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("before", [None, b"older"])
def test_a_disk_that_fills_leaves_nothing_but_what_was_there(path, monkeypatch, before):
    if before:
        path.write_bytes(before)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match=r"^The weights could not be written to .*: No space left on device\.$"):
        written(path)
    assert os.listdir(path.parent) == ([path.name] if before else [])
    assert not before or path.read_bytes() == before


def test_an_older_file_is_replaced_whole(path):
    written(path)
    written(path, tensors={"a": np.ones(1)}, kind="deepmend")
    assert read_weights(path, "deepmend").tensors.keys() == {"a"}
    assert os.listdir(path.parent) == [path.name]
