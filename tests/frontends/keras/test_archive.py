"""Broken and hostile files end in one paragraph, before TensorFlow or Keras see them."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bnfold.errors import BnfoldError, CorruptModelError, SourceError, UnsupportedOpError
from bnfold.frontends.keras.archive import read_artifact
from bnfold.frontends.keras.guests import h5py
from tests.frontends.keras.networks import Saved

pytestmark = pytest.mark.tensorflow  # to write the files


def refusal(path: Path) -> BnfoldError:
    with pytest.raises(BnfoldError) as refused:
        read_artifact(path)
    return refused.value


def rezipped(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as copy:
        for name in archive.namelist():
            content = change(name, archive.read(name))
            if content is not None:
                copy.writestr(name, content)
    return target


def test_files_say_what_they_are(files: dict[str, Saved]) -> None:
    facts = {name: read_artifact(saved.path) for name, saved in files.items() if not name.endswith(".json")}
    assert {name: (found.container, found.layout, found.generation) for name, found in facts.items()} == {
        "2.keras": ("zip", "slots", 2),
        "2.h5": ("hdf5", "names", 2),
        "k2.weights.h5": ("hdf5", "slots", 3),
        "k2-named.h5": ("hdf5", "names", 2),
        "3.keras": ("zip", "slots", 3),
        "3.h5": ("hdf5", "names", 3),
        "k3.weights.h5": ("hdf5", "slots", 3),
    }
    assert {name for name, found in facts.items() if found.config is None} == {
        "k2.weights.h5", "k2-named.h5", "k3.weights.h5"
    }  # fmt: skip
    assert facts["2.h5"].framework.startswith("Keras 2.")
    assert facts["3.keras"].framework.startswith("Keras 3.")


@pytest.mark.parametrize("name", ["3.keras", "2.keras"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.95, 0.999])
def test_a_cut_archive_is_corrupt(name: str, share: float, files: dict[str, Saved], folder: Path) -> None:
    content = files[name].path.read_bytes()
    path = folder / "cut.keras"
    path.write_bytes(content[: int(len(content) * share)])
    error = refusal(path)
    assert isinstance(error, CorruptModelError)
    assert str(error) == "cut.keras begins like a .keras archive and is not a whole one: File is not a zip file"
    assert error.hint == "Copy or download the file again."


@pytest.mark.parametrize("name", ["3.h5", "2.h5", "k3.weights.h5"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.95])
def test_a_cut_hdf5_file_is_corrupt(name: str, share: float, files: dict[str, Saved], folder: Path) -> None:
    content = files[name].path.read_bytes()
    path = folder / "cut.h5"
    path.write_bytes(content[: int(len(content) * share)])
    error = refusal(path)
    assert isinstance(error, CorruptModelError)
    assert str(error).startswith("cut.h5 begins like an HDF5 file and cannot be read: ")
    assert "\n" not in str(error)


def test_flipped_bytes_end_in_a_refusal_or_change_nothing_that_is_read(files: dict[str, Saved], folder: Path) -> None:
    rng = np.random.default_rng(5)
    for name in ("3.keras", "2.h5"):
        content = bytearray(files[name].path.read_bytes())
        for trial in range(40):
            changed = bytearray(content)
            for place in rng.integers(8, len(content), size=20):
                changed[place] ^= int(rng.integers(1, 256))
            path = folder / f"{trial}{Path(name).suffix}"
            path.write_bytes(changed)
            try:
                read_artifact(path)
            except BnfoldError as error:
                assert "\n" not in str(error)  # noqa: PT017  # most of them are refused, some only hit padding


def test_a_changed_weight_in_an_archive_is_caught_by_its_checksum(files: dict[str, Saved], folder: Path) -> None:
    content = bytearray(files["3.keras"].path.read_bytes())
    start = content.find(b"\x89HDF")
    content[start + 5000] ^= 1
    path = folder / "flipped.keras"
    path.write_bytes(content)
    assert str(refusal(path)) == (
        "flipped.keras begins like a .keras archive and is not a whole one: Bad CRC-32 for file 'model.weights.h5'"
    )


def test_an_archive_without_its_parts_says_which(files: dict[str, Saved], folder: Path) -> None:
    source = files["3.keras"].path
    path = rezipped(source, folder / "a.keras", lambda name, content: None if name == "config.json" else content)
    assert str(refusal(path)) == "a.keras is a zip archive without the config.json of a Keras model"
    path = rezipped(source, folder / "b.keras", lambda name, content: None if name.endswith(".h5") else content)
    assert str(refusal(path)) == "b.keras holds a configuration and no weights (model.weights.h5 is missing)"
    path = rezipped(source, folder / "c.keras", lambda name, content: b"{" if name == "metadata.json" else content)
    assert str(refusal(path)) == "c.keras/metadata.json is not valid JSON"
    path = rezipped(source, folder / "d.keras", lambda name, content: b"?" if name.endswith(".h5") else content)
    assert str(refusal(path)).startswith("d.keras/model.weights.h5 begins like an HDF5 file and cannot be read: ")


def test_a_bomb_is_refused_before_it_is_read(files: dict[str, Saved], folder: Path) -> None:
    path = folder / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.0.0"}')
        archive.writestr("config.json", b" " * (40 << 20))
    error = refusal(path)
    assert isinstance(error, CorruptModelError)
    assert str(error).startswith("bomb.keras: config.json expands from ")
    assert str(error).endswith(" to 41943040 bytes, more than 100 times")
    path = rezipped(
        files["3.keras"].path, folder / "wide.keras",
        lambda name, content: b" " * (65 << 20) if name == "config.json" else content,
    )  # fmt: skip
    assert str(refusal(path)) == "wide.keras: config.json has 68157440 bytes, more than the 67108864 that are read"


def test_a_member_that_leads_out_is_refused(files: dict[str, Saved], folder: Path) -> None:
    path = folder / "out.keras"
    shutil.copy(files["3.keras"].path, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/../../../tmp/owned", b"x")
    assert str(refusal(path)) == "out.keras has a member that points out of the archive: assets/../../../tmp/owned"


def changed_hdf5(source: Path, target: Path, change: Callable[..., None]) -> Path:
    shutil.copy(source, target)
    with h5py().File(target, "r+") as file:
        change(file)
    return target


def test_ways_out_of_an_hdf5_file_are_refused(files: dict[str, Saved], folder: Path) -> None:
    library, source = h5py(), files["2.h5"].path

    def external_link(file: object) -> None:
        file["model_weights/out"] = library.ExternalLink("/elsewhere.h5", "/x")  # type: ignore[index]

    def soft_link(file: object) -> None:
        file["model_weights/out"] = library.SoftLink("/model_weights")  # type: ignore[index]

    def external_values(file: object) -> None:
        file.create_dataset("model_weights/out", (4,), "f4", external=[("/elsewhere.bin", 0, 16)])  # type: ignore[attr-defined]

    def virtual(file: object) -> None:
        layout = library.VirtualLayout((4,), "f4")
        layout[:] = library.VirtualSource("/elsewhere.h5", "x", (4,))
        file.create_virtual_dataset("model_weights/out", layout)  # type: ignore[attr-defined]

    def bomb(file: object) -> None:
        file.create_dataset("model_weights/out", (1 << 33,), "f4", chunks=(1 << 20,))  # type: ignore[attr-defined]

    place = "m.h5: /model_weights/out"
    for change, says in (
        (external_link, f"{place} is a link to another file, /elsewhere.h5"),
        (soft_link, f"{place} is a link to /model_weights, and weights are not linked"),
        (external_values, f"{place} keeps its values in another file, /elsewhere.bin"),
        (virtual, f"{place} is a virtual dataset, which reads from other files"),
        (bomb, f"{place} expands from 0 to 34359738368 bytes, more than 100 times"),
    ):
        error = refusal(changed_hdf5(source, folder / "m.h5", change))
        assert isinstance(error, CorruptModelError)
        assert str(error) == says


def test_what_keras_did_not_write_is_refused(folder: Path) -> None:
    text = folder / "m.h5"
    text.write_text("weights")
    error = refusal(text)
    assert type(error) is SourceError
    assert str(error) == "m.h5 is neither a .keras archive nor an HDF5 file"
    assert error.hint == "Give the file that model.save() wrote."
    with h5py().File(folder / "other.h5", "w") as file:
        file["measurements"] = np.zeros(3)
    assert str(refusal(folder / "other.h5")) == (
        "other.h5 is an HDF5 file that Keras did not write: it holds neither a model nor layers' weights"
    )


def test_versions_and_backends_that_store_otherwise_are_refused(files: dict[str, Saved], folder: Path) -> None:
    def keras_1(file: object) -> None:
        file.attrs["keras_version"] = "1.2.2"  # type: ignore[attr-defined]

    def theano(file: object) -> None:
        file.attrs["keras_version"] = "2.0.5"  # type: ignore[attr-defined]
        file.attrs["backend"] = "theano"  # type: ignore[attr-defined]

    error = refusal(changed_hdf5(files["2.h5"].path, folder / "m.h5", keras_1))
    assert isinstance(error, UnsupportedOpError)
    assert str(error) == "m.h5 was written by Keras 1.2.2, which stores weights in another way"
    assert error.hint == "Load and save it with Keras 2 first."
    error = refusal(changed_hdf5(files["2.h5"].path, folder / "m.h5", theano))
    assert str(error) == "m.h5 was written by Keras 2.0.5 on theano, which stores kernels in another way"
    assert error.hint == "Load and save it with Keras 2 on TensorFlow first."


def test_an_hdf5_file_behind_a_block_of_the_user_is_read(files: dict[str, Saved], folder: Path) -> None:
    path = folder / "m.h5"
    with h5py().File(path, "w", userblock_size=1024) as copy, h5py().File(files["2.h5"].path) as file:
        for name in file:
            file.copy(name, copy)
        for name, value in file.attrs.items():
            copy.attrs[name] = value
    assert read_artifact(path).config == read_artifact(files["2.h5"].path).config


def test_an_archive_of_too_many_members_is_refused(folder: Path) -> None:
    path = folder / "many.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(10_001):
            archive.writestr(f"assets/{number}", b"")
    assert str(refusal(path)) == "many.keras has 10001 members; a Keras model has a few"


def test_an_encrypted_archive_is_refused(files: dict[str, Saved], folder: Path) -> None:
    content = bytearray(files["3.keras"].path.read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(magic)
        while place >= 0:
            struct.pack_into("<H", content, place + at, 1)
            place = content.find(magic, place + 4)
    path = folder / "locked.keras"
    path.write_bytes(content)
    assert isinstance(refusal(path), CorruptModelError)


def test_a_file_of_named_weights_says_its_version(files: dict[str, Saved]) -> None:
    found = read_artifact(files["k2-named.h5"].path)
    assert found.config is None
    assert found.version.startswith("2.")
    assert json.loads(files["k2.json"].path.read_text())["keras_version"] == found.version
