"""Archives are unpacked below their folder, within limits, and without links; judged by what lies on the disk."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from bnfold.errors import BnfoldError, CorruptModelError, SourceError
from bnfold.frontends import archive
from bnfold.frontends.archive import unpack

MODEL = {"m/saved_model.pb": b"graph", "m/variables/variables.index": b"index", "m/assets/": b""}
AGAIN = "Download or pack it again."


def packed_zip(path: Path, names: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in names.items():
            file.writestr(name, content)
    return path


def packed_tar(path: Path, names: dict[str, bytes], *links: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as file:
        for name, content in names.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
        for link in links:
            file.addfile(link)
    return path


def refusal(path: Path, folder: Path) -> tuple[type[BnfoldError], str, str]:
    with pytest.raises(BnfoldError) as caught:
        unpack(path, folder)
    return type(caught.value), str(caught.value).replace(str(path), "IT"), caught.value.hint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["m.zip", "m.tar", "m.tar.gz"])
def test_the_folder_of_the_saved_model_comes_back_with_its_files(tmp_path: Path, folder: Path, name: str) -> None:
    pack = packed_zip if name.endswith("zip") else packed_tar
    inside = unpack(pack(tmp_path / name, MODEL), folder)
    assert inside == folder / "m"
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name: content for name, content in MODEL.items() if content}
    assert (inside / "assets").is_dir()


@pytest.mark.parametrize("evil", ["../evil", "/tmp/evil", "m/../../evil", "..\\evil", "C:evil"])
@pytest.mark.parametrize("name", ["m.zip", "m.tar"])
def test_what_leads_out_of_the_folder_is_refused(tmp_path: Path, folder: Path, name: str, evil: str) -> None:
    pack = packed_zip if name.endswith("zip") else packed_tar
    assert refusal(pack(tmp_path / name, MODEL | {evil: b"x"}), folder) == (
        CorruptModelError,
        f"IT holds '{evil}', which leads out of its folder",
        AGAIN,
    )
    assert sorted(os.listdir(tmp_path)) == [name, "unpacked"]  # noqa: PTH208 - names are what is compared


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, folder: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("m/variables/link")
    link.type, link.linkname = kind, "/etc/hostname"
    assert refusal(packed_tar(tmp_path / "m.tar", MODEL, link), folder) == (
        CorruptModelError,
        "IT holds 'm/variables/link', which is neither a file nor a folder",
        AGAIN,
    )


def test_a_link_in_a_zip_archive_is_refused(tmp_path: Path, folder: Path) -> None:
    path = packed_zip(tmp_path / "m.zip", MODEL)
    entry = zipfile.ZipInfo("m/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(entry, "/etc/hostname")
    assert refusal(path, folder)[1] == "IT holds 'm/link', which is neither a file nor a folder"


def test_one_name_twice_is_damage(tmp_path: Path, folder: Path) -> None:
    path = packed_tar(tmp_path / "m.tar", {"saved_model.pb": b"one", "./saved_model.pb": b"two"})
    error, message, _hint = refusal(path, folder)
    assert (error, message.partition(":")[0]) == (CorruptModelError, "IT is an archive that breaks off or is damaged")


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz"])
def test_a_bomb_is_given_up_at_its_limit(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archive, "_FREE", 1 << 20)
    pack = packed_zip if name.endswith("zip") else packed_tar
    path = pack(tmp_path / name, MODEL | {"m/zeros": bytes(64 << 20)})
    assert path.stat().st_size < 100_000
    assert refusal(path, folder) == (
        CorruptModelError,
        f"IT unpacks to more than 100 times its size, or than {4 << 30} bytes",
        "Unpack it yourself if you trust it, and name the folder.",
    )
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 12 << 20


def test_too_many_files_are_refused(tmp_path: Path, folder: Path) -> None:
    path = packed_tar(tmp_path / "m.tar", {f"f{number}": b"" for number in range(5000)})
    assert refusal(path, folder) == (
        CorruptModelError,
        "IT is an archive of more than 4096 files",
        "Pack the model alone.",
    )


def test_an_archive_of_something_else_says_so(tmp_path: Path, folder: Path) -> None:
    assert refusal(packed_zip(tmp_path / "m.zip", {"readme": b"x"}), folder) == (
        SourceError,
        "IT is an archive without a model",
        "Unpack it and name the model inside.",
    )


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    path = packed_zip(tmp_path / "m.zip", MODEL)
    with pytest.raises(OSError, match="No such file or directory"):
        unpack(path, Path("/proc/self/nothing"))
