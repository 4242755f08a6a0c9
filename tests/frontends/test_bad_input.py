"""Everything bad that an ONNX file can be ends in one clear error with the next step, and exit code 3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper, parser

from bnfold.errors import BnfoldError, CorruptModelError, InferenceModeError, UnknownFormatError, UnsupportedOpError
from bnfold.frontends import load
from bnfold.frontends.loaded import Request
from bnfold.inference import to_inference_mode

TEXT = """<ir_version: 8, opset_import: ["" : 17], producer_name: "exporter">
    g (float[N,3] x) => (float[N,3] y) <float[3] g = {1, 1, 1}, float[3] b = {0, 0, 0}, float[3] m = {0, 0, 0}> {
        h = Relu(x)
        y = BatchNormalization(h, g, b, m, v) }"""
VARIANCE = np.array([1, 2, 3], dtype=np.float32)


def model_of(
    text: str = TEXT, variance: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = VARIANCE
) -> ModelProto:
    model = parser.parse_model(text)
    if variance is not None:
        model.graph.initializer.append(numpy_helper.from_array(variance, "v"))
    return model


WHOLE = model_of().SerializeToString()
TRAINING = TEXT.replace("y = BatchNormalization(", "[bn] y, p, q = BatchNormalization<training_mode=1>(")
GIVEN = TRAINING.replace("float[N,3] x", "float[N,3] x, float[3] v")
READS = (
    "Name a file in one of the formats that are read: ONNX, Keras (.keras, .h5), SavedModel, TensorFlow frozen graphs, "
    "meta graphs and checkpoints, and PyTorch exported programs (.pt2)."
)
EXPORT_AGAIN = "Export the model again, or download it again if it came from elsewhere."


@pytest.mark.parametrize(
    ("content", "error", "message", "hint"),
    [
        pytest.param(
            b"", UnknownFormatError, "IT is empty", "Export the model again, or download it again.", id="empty"
        ),
        pytest.param(
            WHOLE[: len(WHOLE) // 2],
            CorruptModelError,
            f"IT starts like an ONNX model and breaks off or is damaged within its {len(WHOLE) // 2} bytes",
            EXPORT_AGAIN,
            id="truncated",
        ),
        pytest.param(
            WHOLE[:2],
            UnknownFormatError,
            "IT is no ONNX model: it has no graph",
            "Name the file that the ONNX exporter wrote.",
            id="two bytes",
        ),
        pytest.param(
            np.random.default_rng(7).bytes(10_000),
            UnknownFormatError,
            "IT is in no known format: its 10000 bytes look random",
            READS,
            id="random",
        ),
        pytest.param(
            b"this is my model, honestly\n",
            UnknownFormatError,
            "IT is a text file that begins with 'this is my model, honestly'",
            READS,
            id="text",
        ),
        pytest.param(
            model_of(TEXT.replace("Relu(x)", "FancyLayer(x)")).SerializeToString(),
            UnsupportedOpError,
            "IT uses the operator FancyLayer, which opset 17 does not have",
            "Export the model with the opset that has it; custom operators need a domain of their own.",
            id="an unknown layer",
        ),
        pytest.param(
            model_of(GIVEN, None).SerializeToString(),
            InferenceModeError,
            (
                "a batch norm normalises with the statistics of each batch, and the file holds no running mean and "
                "variance for it: 'bn'"
            ),
            "Export the model again in evaluation mode, with running statistics.",
            id="training mode without running statistics",
        ),
    ],
)
def test_bad_input_ends_in_one_clear_error(
    tmp_path: Path, content: bytes, error: type[BnfoldError], message: str, hint: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(BnfoldError) as caught:
        to_inference_mode(load(path, Request()).model)
    assert type(caught.value) is error
    assert (str(caught.value).replace(str(path), "IT"), caught.value.hint) == (message, hint)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value) + caught.value.hint
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def test_a_folder_that_is_no_saved_model_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UnknownFormatError) as caught:
        load(tmp_path, Request())
    assert str(caught.value) == f"{tmp_path} is a folder without a SavedModel or a checkpoint: it holds notes.txt"
    assert caught.value.hint == READS


@pytest.mark.parametrize("variance", [[np.nan, 1, 1], [-1, 1, 1], [np.inf, 1, 1]])
@pytest.mark.parametrize("text", [TEXT, TRAINING])
def test_statistics_that_are_no_variances_are_left_for_the_fold_to_judge(
    tmp_path: Path, variance: list[float], text: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model_of(text, np.array(variance, dtype=np.float32)).SerializeToString())
    model, _changes = to_inference_mode(load(path, Request()).model)
    np.testing.assert_array_equal(
        numpy_helper.to_array(model.graph.initializer[-1]), np.array(variance, dtype=np.float32)
    )


def test_a_file_that_may_not_be_read_is_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(WHOLE)

    def refuse(self: Path, *_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        load(path, Request())
