"""ONNX files are read with distrust and written whole or not at all: judged by onnx itself, full disks and kills."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper, parser

from bnfold.errors import BnfoldError, CorruptModelError, UnknownFormatError
from bnfold.graph import io
from bnfold.graph.io import load_model, parse_model, save_model, serialize, write_atomically

TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,300] x) => (float[N,300] y) {
    h = Add(x, w)
    y = If(t) <then_branch = a () => (float[N,300] p) <float[2] inner = {1, 2}> { p = Relu(h) },
               else_branch = b () => (float[N,300] q) { q = Neg(h) }>
}"""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def small_model(seed: int = 0) -> ModelProto:
    model = parser.parse_model(TEXT)
    weight = np.random.default_rng(seed).normal(size=300).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, dtype=np.bool_), "t"))
    inner = model.graph.node[1].attribute[0].g.initializer.add()
    inner.CopyFrom(numpy_helper.from_array(np.arange(600, dtype=np.float64), "inner_large"))
    return model


def external(model: ModelProto, **entries: str) -> ModelProto:
    """Let the first weight claim to be in another file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return model


def written(folder: Path, model: ModelProto) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refusal(path: Path) -> tuple[type[BnfoldError], str, str]:
    with pytest.raises(BnfoldError) as caught:
        load_model(path)
    return type(caught.value), str(caught.value).replace(str(path), "m.onnx"), caught.value.hint


# Reading what is no ONNX model.


def test_a_file_that_onnx_wrote_comes_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small_model(), path)
    assert load_model(path) == small_model() == load_model(str(path))


EXPORT_AGAIN = "Export the model again, or download it again if it came from elsewhere."
NAME_THE_FILE = "Name the file that the ONNX exporter wrote."


@pytest.mark.parametrize(
    ("content", "error", "message", "hint"),
    [
        pytest.param(b"", UnknownFormatError, "m.onnx is empty", EXPORT_AGAIN, id="empty"),
        pytest.param(
            b"not a model\n" * 50,
            UnknownFormatError,
            "m.onnx is no ONNX model: its 600 bytes are not in ONNX's binary format",
            NAME_THE_FILE,
            id="text",
        ),
        pytest.param(
            np.random.default_rng(3).bytes(4096),
            UnknownFormatError,
            "m.onnx is no ONNX model: its 4096 bytes are not in ONNX's binary format",
            NAME_THE_FILE,
            id="random",
        ),
        pytest.param(
            b"\x0a\x0b\x0a\x01x\x12\x06Placeh",
            UnknownFormatError,
            "m.onnx is no ONNX model: it has no graph",
            NAME_THE_FILE,
            id="a GraphDef that parses as a ModelProto",
        ),
        pytest.param(
            b"\x08\x08", UnknownFormatError, "m.onnx is no ONNX model: it has no graph", NAME_THE_FILE, id="bare"
        ),
        pytest.param(
            b"\x08\x08\x3a\x00",
            CorruptModelError,
            "m.onnx does not say which operator set it uses",
            EXPORT_AGAIN,
            id="no opset",
        ),
        pytest.param(
            b"\x08\x08\x3a\x00\x42\x02\x10\x11",
            CorruptModelError,
            "m.onnx has a graph without outputs",
            EXPORT_AGAIN,
            id="no outputs",
        ),
        pytest.param(
            b"\x3a\x00\x42\x02\x10\x11",
            UnknownFormatError,
            "m.onnx is no ONNX model: it has no IR version",
            NAME_THE_FILE,
            id="no IR version",
        ),
        pytest.param(
            b"\x08\x00\x3a\x00\x42\x02\x10\x11",
            CorruptModelError,
            "m.onnx has the impossible IR version 0",
            EXPORT_AGAIN,
            id="IR version 0",
        ),
        pytest.param(
            b"\x08\x63\x3a\x00\x42\x02\x10\x11",
            UnknownFormatError,
            f"m.onnx says that it is of IR version 99; 1 to {int(onnx.IR_VERSION)} are known",
            "Upgrade the onnx package, or export the model with an older IR version.",
            id="IR version 99",
        ),
    ],
)
def test_what_is_no_model_is_refused(
    tmp_path: Path, content: bytes, error: type[BnfoldError], message: str, hint: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert refusal(path) == (error, message, hint)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    missing, fifo = tmp_path / "none.onnx", tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, message in (
        (missing, f"no such file: {missing}"),
        (tmp_path / "none" / "m.onnx", f"no such file: {tmp_path / 'none' / 'm.onnx'}"),
        (tmp_path, f"{tmp_path} is a folder, not an ONNX file"),
        (fifo, f"{fifo} is a device or a pipe, not a file"),
        (Path("/dev/zero"), "/dev/zero is a device or a pipe, not a file"),
    ):
        with pytest.raises(UnknownFormatError, match=f"^{re.escape(message)}$") as caught:
            load_model(path)
        assert caught.value.hint


def test_a_file_beyond_protobufs_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    assert refusal(path) == (
        CorruptModelError,
        "m.onnx has 3221225472 bytes, and one ONNX file can hold 2147483647",
        "Export the model with its weights as external data.",
    )


def test_no_truncation_of_a_model_is_taken_for_a_model() -> None:
    model = small_model()
    model.producer_name = "exporter"
    content = model.SerializeToString()
    assert content.endswith(b"\x42\x04\x0a\x00\x10\x11")  # the operator set is what is written last
    for length in range(len(content)):
        with pytest.raises((CorruptModelError, UnknownFormatError)):
            parse_model(content[:length])
    assert parse_model(content) == model


def test_a_truncated_model_is_called_damaged_and_not_unknown(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(small_model().SerializeToString()[:700])
    assert refusal(path) == (
        CorruptModelError,
        "m.onnx starts like an ONNX model and breaks off or is damaged within its 700 bytes",
        EXPORT_AGAIN,
    )


def test_a_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    content = small_model().SerializeToString().replace(b"Relu", b"R\xff\xfeu")
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert refusal(path) == (
        CorruptModelError,
        r"m.onnx is damaged: one of its names is not text: b'R\xff\xfeu'",
        EXPORT_AGAIN,
    )


def _shorten(tensor: TensorProto) -> None:
    tensor.raw_data = tensor.raw_data[:-4]


def _lie_about_shape(tensor: TensorProto) -> None:
    tensor.dims[0] = 1 << 40


def _negative(tensor: TensorProto) -> None:
    tensor.dims[0] = -300


def _unknown_type(tensor: TensorProto) -> None:
    tensor.data_type = 77


def _typed(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * 299)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_shorten, "tensor 'w' of shape [300] takes 1200 bytes, and the file has 1196"),
        (_lie_about_shape, "tensor 'w' of shape [1099511627776] takes 4398046511104 bytes, and the file has 1200"),
        (_negative, "tensor 'w' has the unknown type 1 or the impossible shape [-300]"),
        (_unknown_type, "tensor 'w' has the unknown type 77 or the impossible shape [300]"),
        (_typed, "tensor 'w' of shape [300] takes 300 values, and the file has 299"),
    ],
)
def test_a_weight_with_the_wrong_number_of_bytes_is_refused(
    tmp_path: Path, damage: Callable[[TensorProto], None], message: str
) -> None:
    model = small_model()
    damage(model.graph.initializer[0])
    assert refusal(written(tmp_path, model)) == (CorruptModelError, f"m.onnx is damaged: {message}", EXPORT_AGAIN)


@pytest.mark.parametrize("element", [number for number in TensorProto.DataType.values() if number not in (0, 8)])
def test_weights_of_every_type_are_read_as_raw_bytes_and_as_typed_fields(tmp_path: Path, element: int) -> None:
    values = np.arange(6).astype(onnx.helper.tensor_dtype_to_np_dtype(element)).reshape(2, 3)
    for tensor in (
        numpy_helper.from_array(values, "v"),
        onnx.helper.make_tensor("v", element, (2, 3), [0, 1, 0, 1, 1, 0]),
    ):
        model = small_model()
        model.graph.initializer.append(tensor)
        assert load_model(written(tmp_path, model)).graph.initializer[-1] == tensor


# External data.


def test_external_data_that_onnx_wrote_is_read_into_the_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small_model(), path, save_as_external_data=True, location="sub.data", size_threshold=0)
    assert (tmp_path / "sub.data").stat().st_size > 1200
    loaded = load_model(path)
    assert loaded.graph == small_model().graph


def test_external_data_in_a_folder_below_the_models_is_read(tmp_path: Path) -> None:
    weight = np.arange(300, dtype=np.float32)
    (tmp_path / "weights" / "of").mkdir(parents=True)
    (tmp_path / "weights" / "of" / "w.bin").write_bytes(b"....." + weight.tobytes() + b"more")
    path = written(tmp_path, external(small_model(), location="weights/of/w.bin", offset="5", length="1200"))
    np.testing.assert_array_equal(numpy_helper.to_array(load_model(path).graph.initializer[0]), weight)


BESIDE = "Keep the data files of a model in the model's own folder, as plain files, and name them relative to it."


@pytest.mark.parametrize(
    "location", ["/etc/hostname", "../secret.bin", "sub/../../secret.bin", "..\\secret.bin", "C:secret.bin", "", "."]
)
def test_external_data_outside_of_the_models_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(1200))
    (tmp_path / "models" / "sub").mkdir(parents=True)
    path = written(tmp_path / "models", external(small_model(), location=location))
    error, message, hint = refusal(path)
    assert (error, hint) == (CorruptModelError, BESIDE)
    assert (
        message
        == f"m.onnx is damaged: tensor 'w' is kept in '{location}', which is not a file below the model's folder"
    )


@pytest.mark.parametrize("kind", ["symbolic", "hard", "folder", "fifo", "folder that is a link"])
def test_external_data_behind_a_link_or_in_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(1200))
    folder = tmp_path / "models"
    folder.mkdir()
    location = "w.bin"
    match kind:
        case "symbolic":
            (folder / location).symlink_to(secret)
        case "hard":
            (folder / location).hardlink_to(secret)
        case "folder":
            (folder / location).mkdir()
        case "fifo":
            os.mkfifo(folder / location)
        case _:
            location = "sub/secret.bin"
            (folder / "sub").symlink_to(tmp_path)
    path = written(folder, external(small_model(), location=location))
    assert refusal(path) == (
        CorruptModelError,
        f"m.onnx is damaged: tensor 'w' is kept in '{location}', which is a link or no file",
        BESIDE,
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "4"}, "tensor 'w' is bytes 4 to 1204 of 'w.bin', which has 1200"),
        ({"offset": str(1 << 62)}, f"tensor 'w' is bytes {1 << 62} to {(1 << 62) + 1200} of 'w.bin', which has 1200"),
        ({"offset": "-4"}, "the external data of tensor 'w' has the offset '-4'"),
        ({"offset": "4e9"}, "the external data of tensor 'w' has the offset '4e9'"),
        ({"length": "1196"}, "tensor 'w' of shape [300] takes 1200 bytes, and its external data has 1196"),
        ({"length": "9" * 60}, f"the external data of tensor 'w' has the length '{'9' * 40}'"),
    ],
)
def test_external_data_beyond_its_file_is_refused(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(1200))
    error, said, hint = refusal(written(tmp_path, external(small_model(), location="w.bin", **entries)))
    assert (error, said) == (CorruptModelError, f"m.onnx is damaged: {message}")
    assert hint


def test_external_data_that_is_missing_is_named(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, external(small_model(), location="w.bin"))) == (
        CorruptModelError,
        "m.onnx is damaged: tensor 'w' is kept in 'w.bin', and that file is not beside the model",
        "Put the data file that was exported with the model into the model's folder.",
    )


def test_many_tensors_that_all_read_one_large_file_are_a_bomb(tmp_path: Path) -> None:
    size = 16 << 20
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(size)
    model = small_model()
    for number in range(1000):
        tensor = model.graph.initializer.add(name=f"w{number}", data_type=TensorProto.UINT8, dims=[size])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
    assert refusal(written(tmp_path, model)) == (
        CorruptModelError,
        "m.onnx is damaged: its tensors read more than 4 times the 16777216 bytes of their data files",
        "Export the model again, each weight with bytes of its own.",
    )


def test_external_data_in_the_tensors_of_attributes_and_bodies_is_guarded_too(tmp_path: Path) -> None:
    model = small_model()
    inner = model.graph.node[1].attribute[0].g.initializer[-1]
    inner.ClearField("raw_data")
    inner.data_location = TensorProto.EXTERNAL
    inner.external_data.add(key="location", value="/etc/hostname")
    assert refusal(written(tmp_path, model))[1] == (
        "m.onnx is damaged: tensor 'inner_large' is kept in '/etc/hostname', "
        "which is not a file below the model's folder"
    )


# Writing.


def test_the_same_model_gives_the_same_bytes_whatever_was_done_to_build_it() -> None:
    first, second = small_model(), ModelProto()
    second.CopyFrom(first)
    assert serialize(first) == serialize(second) == first.SerializeToString(deterministic=True)
    assert parse_model(serialize(first)) == first


def test_a_model_too_large_for_one_file_says_where_it_can_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "LARGEST_FILE", 4096)
    with pytest.raises(BnfoldError) as caught:
        serialize(small_model())
    assert str(caught.value) == "the model has 6009 bytes of weights, and one ONNX file can hold 4096"
    assert caught.value.hint == "Write the model to a path: its weights then go into a file beside it."


def test_a_model_that_does_not_fit_into_one_file_gets_one_for_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    files = save_model(small_model(), path, largest_file=2000)
    assert names_in(tmp_path) == sorted(file.name for file in files)
    assert re.fullmatch(r"m\.onnx\.[0-9a-f]{16}\.data", files[1].name)
    assert path.stat().st_size < 2000
    assert load_model(path) == small_model()
    for ours, theirs in zip(small_model().graph.initializer, onnx.load(path).graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(ours), numpy_helper.to_array(theirs))
    onnx.checker.check_model(path)
    again = save_model(small_model(), path, largest_file=2000)
    assert again == files
    assert names_in(tmp_path) == sorted(file.name for file in files)


def test_weights_of_a_model_that_is_replaced_do_not_stay_behind(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    (tmp_path / "m.onnx.notes.data").write_bytes(b"mine")
    first = save_model(small_model(1), path, largest_file=2000)
    second = save_model(small_model(2), path, largest_file=2000)
    assert first[1] != second[1]
    assert load_model(path) == small_model(2)
    assert names_in(tmp_path) == sorted(["m.onnx", "m.onnx.notes.data", second[1].name])
    assert save_model(small_model(3), path) == (path,)
    assert names_in(tmp_path) == ["m.onnx", "m.onnx.notes.data"]


def test_a_failure_between_weights_and_model_leaves_the_old_model_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    save_model(small_model(1), path, largest_file=2000)
    before = names_in(tmp_path)

    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "elsewhere")

    monkeypatch.setattr(io, "write_atomically", refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        save_model(small_model(2), path, largest_file=2000)
    assert caught.value.filename == str(path)
    assert names_in(tmp_path) == before
    assert load_model(path) == small_model(1)


def test_a_new_file_has_the_permissions_of_any_new_file_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", b"x")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
        (tmp_path / "new").chmod(0o604)
        write_atomically(tmp_path / "new", b"y")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604
    finally:
        os.umask(mask)


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "real.onnx", tmp_path / "link.onnx"
    link.symlink_to("elsewhere/real.onnx")
    for content in (b"one", b"two"):  # once to nowhere, once to a file
        write_atomically(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert names_in(tmp_path / "elsewhere") == ["real.onnx"]


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    write_atomically("/dev/null", b"gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    os.mkfifo(tmp_path / "fifo")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "fifo").read_bytes()))
    reader.start()
    write_atomically(tmp_path / "fifo", b"x" * 1_000_000)
    reader.join()
    assert got == [b"x" * 1_000_000]


def test_a_place_where_no_file_can_be_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    for path, error, message in (
        (tmp_path, IsADirectoryError, "a folder stands where the file should be written"),
        (tmp_path / "no" / "m", FileNotFoundError, f"the folder {tmp_path / 'no'} does not exist"),
        (tmp_path / "file" / "m", NotADirectoryError, f"{tmp_path / 'file'} is a file, not a folder"),
        (tmp_path / "loop", OSError, "its links lead in a circle"),
    ):
        for write in (lambda path: write_atomically(path, b""), lambda path: save_model(small_model(), path)):
            with pytest.raises(error) as caught:
                write(path)
            assert (caught.value.strerror, caught.value.filename) == (message, str(path))
    assert names_in(tmp_path) == ["file", "loop"]


def test_the_longest_name_that_a_folder_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


class Stop(BaseException):
    """What Ctrl-C or an exit raises."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, Stop, ValueError, OSError])
def test_whatever_goes_wrong_the_old_file_stays_and_nothing_else_does(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")

    def write(file: BinaryIO) -> None:
        file.write(b"new" * 100_000)
        raise error("stop")

    with pytest.raises(error):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["m.onnx"]


def limited(folder: Path, action: str) -> subprocess.CompletedProcess[str]:
    """Run Python where no file may grow beyond 64 KiB: a real refusal of the system in the middle of writing."""
    code = f"""
        import resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        from bnfold.graph.io import load_model, save_model, write_atomically
        try:
            {action}
        except OSError as error:
            print(error.errno, error.filename)
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "action",
    [
        "write_atomically('m.onnx', bytes(1 << 20))",
        "write_atomically('m.onnx', lambda file: [file.write(bytes(1000)) for _ in range(1000)])",
        "save_model(load_model('large.onnx'), 'm.onnx')",
        "save_model(load_model('large.onnx'), 'm.onnx', largest_file=1000)",
    ],
)
def test_a_disk_that_takes_no_more_leaves_the_old_file_and_nothing_else(tmp_path: Path, action: str) -> None:
    model = small_model()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1 << 20, np.uint8), "large"))
    (tmp_path / "large.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "m.onnx").write_bytes(b"old")
    done = limited(tmp_path, action)
    assert (done.stdout, done.stderr) == (f"{errno.EFBIG} m.onnx\n", "")
    assert (tmp_path / "m.onnx").read_bytes() == b"old"
    assert names_in(tmp_path) == ["large.onnx", "m.onnx"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_device_is_an_error_about_its_path() -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomically("/dev/full", b"x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")


SLOW = """
    import sys, time
    from bnfold.graph.io import write_atomically
    def write(file):
        file.write(b'new' * 100_000)
        file.flush()
        print('writing', flush=True)
        time.sleep(60)
    try:
        write_atomically('m.onnx', write)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_process_that_is_stopped_while_writing_leaves_the_old_file(tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "m.onnx").write_bytes(b"old")
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        assert process.wait(30) == code
    assert (tmp_path / "m.onnx").read_bytes() == b"old"
    left = [name for name in names_in(tmp_path) if name != "m.onnx"]
    # Nobody can clean up after a kill; what is left then is hidden and does not look like a model.
    assert left == [] if number == signal.SIGINT else [name.startswith(".bnfold-") for name in left] == [True]


def test_a_reader_finds_a_whole_model_at_every_moment_while_two_write(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    models = [small_model(seed) for seed in (1, 2)]
    save_model(models[0], path, largest_file=2000)
    done = threading.Event()
    failures: list[BaseException] = []

    def write(model: ModelProto, largest: int) -> None:
        try:
            while not done.is_set():
                save_model(model, path, largest_file=largest)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(model, 2000)) for model in models]
    for writer in writers:
        writer.start()
    seen, refusals = set[int](), list[str]()
    end = time.monotonic() + 2
    while time.monotonic() < end or len(seen) < 2:
        try:
            loaded = load_model(path)
        except CorruptModelError as error:
            # Between opening the model and its weights, both may have been replaced: that is said, never hidden.
            refusals.append(str(error))
            continue
        seen.add([model == loaded for model in models].index(True))
    done.set()
    for writer in writers:
        writer.join()
    assert failures == []
    assert seen == {0, 1}
    assert [refused for refused in refusals if "that file is not beside the model" not in refused] == []
    assert [model == load_model(path) for model in models].count(True) == 1
    assert len(names_in(tmp_path)) == 2
