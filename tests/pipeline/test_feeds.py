"""The caller's own inputs are fed as they are, or refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bnfold.errors import BnfoldError, CorruptModelError, SignatureError
from bnfold.frontends.loaded import TensorSpec
from bnfold.pipeline.feeds import load_feeds

IMAGE = TensorSpec("image", "float32", ("batch", 3, None))
COUNT = TensorSpec("block/count:0", "int64", (2,))


def _saved(path: Path, **arrays: npt.ArrayLike) -> Path:
    values: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(path, **values)
    return path


def test_arrays_are_found_by_the_names_of_the_inputs(tmp_path: Path) -> None:
    image = np.arange(24.0).reshape(2, 3, 4)
    given: dict[str, npt.ArrayLike] = {"image": image, "block/count:0": [1, 2], "more": [0]}
    path = _saved(tmp_path / "d.npz", **given)
    feeds = load_feeds(path, (IMAGE, COUNT))
    assert list(feeds) == ["image", "block/count:0"]
    np.testing.assert_array_equal(feeds["image"], image)
    assert feeds["image"].dtype == np.float32
    assert feeds["block/count:0"].dtype == np.int64


def test_a_folder_of_arrays_is_read_and_slashes_become_underscores(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.zeros((1, 3, 5)))
    np.save(tmp_path / "block_count.npy", np.array([3, 4]))
    feeds = load_feeds(tmp_path, (IMAGE, COUNT))
    assert feeds["image"].shape == (1, 3, 5)
    np.testing.assert_array_equal(feeds["block/count:0"], [3, 4])


def test_a_single_array_goes_to_a_single_input_whatever_it_is_called(tmp_path: Path) -> None:
    assert load_feeds(_saved(tmp_path / "d.npz", arr_0=np.zeros((4, 3, 2))), (IMAGE,))["image"].shape == (4, 3, 2)


@pytest.mark.parametrize(
    ("arrays", "said", "hint"),
    [
        (
            {"imag": np.zeros((1, 3, 2)), "other": [0]},
            "has no array for the input image; it holds imag, other",
            "Name the arrays as the inputs: image.",
        ),
        (
            {"image": np.zeros((1, 4, 2))},
            "the input image takes the shape (batch, 3, ?), and {} has (1, 4, 2)",
            "Give it arrays of that shape; a size that is not a number may be anything.",
        ),
        (
            {"image": np.zeros((3, 2))},
            "the input image takes the shape (batch, 3, ?), and {} has (3, 2)",
            "Give it arrays of that shape; a size that is not a number may be anything.",
        ),
        ({"image": np.zeros((0, 3, 2))}, "the array for image in {} is empty", "Give it at least one sample."),
        (
            {"image": np.zeros((1, 3, 2), complex)},
            "the input image takes float32, and {} has complex128",
            "Convert the array with astype('float32').",
        ),
        (
            {"image": np.full((1, 3, 2), "x")},
            "the input image takes float32, and {} has <U1",
            "Convert the array with astype('float32').",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, npt.ArrayLike], said: str, hint: str
) -> None:
    path = _saved(tmp_path / "d.npz", **arrays)
    with pytest.raises(SignatureError) as caught:
        load_feeds(path, (IMAGE,))
    assert str(caught.value).removeprefix(f"{path} ") == said.format(path)
    assert caught.value.hint == hint


def test_numbers_with_a_fraction_are_no_indices(tmp_path: Path) -> None:
    path = _saved(tmp_path / "d.npz", count=[0.5, 1.5])
    with pytest.raises(SignatureError, match=r"takes int64, and .* has float64"):
        load_feeds(path, (COUNT,))


@pytest.mark.parametrize(
    "content", [b"", b"no arrays\n", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "cut", "npy"]
)
def test_a_file_without_arrays_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    with pytest.raises(CorruptModelError) as caught:
        load_feeds(path, (IMAGE,))
    assert str(caught.value) == f"{path} is no archive of NumPy arrays"
    assert caught.value.hint == (
        "Write the inputs with numpy.savez, one array per input, or give a folder of .npy files."
    )


def test_code_in_arrays_is_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=np.array([object()], dtype=object))
    with pytest.raises(BnfoldError):
        load_feeds(tmp_path / "d.npz", (IMAGE,))


def test_a_single_npy_file_is_an_archive_of_one(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((2, 3, 4)))
    assert load_feeds(tmp_path / "d.npy", (IMAGE,))["image"].shape == (2, 3, 4)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_feeds(tmp_path / "d.npz", (IMAGE,))
    assert caught.value.filename == str(tmp_path / "d.npz")
