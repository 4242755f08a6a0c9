"""Weights out of memory: what comes of it must be what comes of a model that is held whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from bnfold.errors import BnfoldError, CorruptModelError
from bnfold.graph import io
from bnfold.graph.encoding import encoded, encoded_size
from bnfold.graph.io import load_model, save_model, serialize
from bnfold.graph.outside import Outside, content, is_outside, outside_bytes, pieces
from bnfold.pipeline import Options, fold_onnx

CHANNELS = 96  # 96 x 96 x 3 x 3 float32 are 331,776 bytes


def network(dtype: type[np.generic] = np.float32) -> ModelProto:
    """Return two convolutions with batch norms, a weight that is shared, and all kinds of things beside them."""
    element = "float" if dtype is np.float32 else "float16"
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17], producer_name: "a test", model_version: 3,
             metadata_props: ["key": "value"], doc_string: "what it is">
        g ({element}[N,{CHANNELS},6,6] x) => ({element}[N,{CHANNELS},6,6] y) {{
            a = Conv<pads=[1,1,1,1]>(x, w)
            b = BatchNormalization(a, gamma, beta, mean, var)
            c = Relu(b)
            d = Conv<pads=[1,1,1,1]>(c, v, bias)
            e = BatchNormalization(d, gamma, beta, mean, var)
            s = Constant<value_floats = [1.0]>()
            t = Cast<to={helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}>(s)
            f = Mul(e, t)
            y = Conv<pads=[1,1,1,1]>(f, v)
        }}"""
    )
    rng = np.random.default_rng(5)
    for name, shape in (("w", (CHANNELS, CHANNELS, 3, 3)), ("v", (CHANNELS, CHANNELS, 3, 3)), ("bias", (CHANNELS,))):
        weight = rng.normal(0, 0.03, size=shape)
        model.graph.initializer.append(numpy_helper.from_array(weight.astype(dtype), name))
    for name in ("gamma", "beta", "mean", "var"):
        values = rng.uniform(0.5, 1.5, size=CHANNELS)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(dtype), name))
    model.graph.initializer[0].doc_string = "the first"
    model.graph.initializer[1].metadata_props.add(key="of", value="a tensor")
    return model


def written_beside(folder: Path, model: ModelProto) -> Path:
    """Write a model with its weights in a file beside it."""
    path = folder / "source.onnx"
    copy = ModelProto.FromString(model.SerializeToString())  # saving moves the weights out
    onnx.save_model(copy, path, save_as_external_data=True, location="source.data", size_threshold=0)
    return path


def test_weights_stay_in_their_file_and_are_what_they_were(tmp_path: Path) -> None:
    model = network()
    path = written_beside(tmp_path, model)
    with Outside(tmp_path) as outside:
        loaded = load_model(path, outside)
        large = [tensor for tensor in loaded.graph.initializer if is_outside(tensor)]
        assert [tensor.name for tensor in large] == ["w", "v"]
        assert outside_bytes(loaded) == 2 * CHANNELS * CHANNELS * 9 * 4
        assert len(loaded.SerializeToString()) < 10_000
        for tensor, before in zip(large, model.graph.initializer, strict=False):
            same = content(tensor) == before.raw_data
            assert same
            same = b"".join(pieces(tensor)) == before.raw_data
            assert same


def test_a_model_is_encoded_as_protobuf_encodes_it(tmp_path: Path) -> None:
    path = written_beside(tmp_path, network())
    whole = load_model(path).SerializeToString(deterministic=True)
    with Outside(tmp_path) as outside:
        loaded = load_model(path, outside)
        same = b"".join(encoded(loaded)) == whole
        assert same
        assert encoded_size(loaded) == len(whole)
        same = serialize(loaded) == whole
        assert same


@given(sizes=st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=6), spoken=st.booleans())
def test_any_mixture_of_weights_is_encoded_as_protobuf_encodes_it(
    tmp_path_factory: pytest.TempPathFactory, *, sizes: list[tuple[bool, int]], spoken: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    model = ModelProto(ir_version=8, producer_name="p" if spoken else "", doc_string="d" if spoken else "")
    model.graph.name = "g" * 200 if spoken else ""
    with Outside(folder) as outside:
        for number, (large, size) in enumerate(sizes):
            array = np.full(size * (1 << 12 if large else 1), number, dtype=np.float32)
            model.graph.initializer.append(numpy_helper.from_array(array, f"t{number}"))
        model.opset_import.add(domain="", version=17)
        whole = model.SerializeToString(deterministic=True)
        for tensor, (large, _size) in zip(model.graph.initializer, sizes, strict=True):
            if large:
                tensor.CopyFrom(outside.put(tensor))
        same = b"".join(encoded(model)) == whole
        assert same
        assert encoded_size(model) == len(whole)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_folding_gives_the_same_file(tmp_path: Path, dtype: type[np.generic]) -> None:
    path = written_beside(tmp_path, network(dtype))
    options = Options(verify="off")
    fold_onnx(path, options).save(tmp_path / "whole.onnx")
    with Outside(tmp_path) as outside:
        conversion = fold_onnx(path, Options(verify="off", outside=outside))
        assert outside_bytes(conversion.model) > 0
        assert conversion.to_bytes() == (tmp_path / "whole.onnx").read_bytes()
        conversion.save(tmp_path / "outside.onnx")
    assert (tmp_path / "outside.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    assert len(conversion.report.folded) == 2
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "outside.onnx",
        "source.data",
        "source.onnx",
        "whole.onnx",
    ]


def test_weights_that_go_beside_the_result_are_the_same_too(tmp_path: Path) -> None:
    path = written_beside(tmp_path, network())
    model = fold_onnx(path, Options(verify="off")).model
    (tmp_path / "whole").mkdir()
    (tmp_path / "pieces").mkdir()
    _model, data = save_model(model, tmp_path / "whole" / "m.onnx", largest_file=1 << 16)
    with Outside(tmp_path) as outside:
        model = fold_onnx(path, Options(verify="off", outside=outside)).model
        _model, again = save_model(model, tmp_path / "pieces" / "m.onnx", largest_file=1 << 16)
    assert data.name == again.name
    assert data.read_bytes() == again.read_bytes()
    assert (tmp_path / "whole" / "m.onnx").read_bytes() == (tmp_path / "pieces" / "m.onnx").read_bytes()


@pytest.mark.parametrize("held", [True, False], ids=["in memory", "outside"])
def test_the_weights_of_a_model_that_one_file_cannot_hold_go_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: object
) -> None:
    path = written_beside(tmp_path, network())
    monkeypatch.setattr(io, "LARGEST_FILE", 100_000)  # as if 2 GiB were so little
    with Outside(tmp_path) as outside:
        model = load_model(path, None if held else outside)
        with pytest.raises(
            BnfoldError, match=r"the model has 665\d+ bytes of weights, and one ONNX file can hold 100000"
        ):
            serialize(model)
        written, beside = save_model(model, tmp_path / "out.onnx", largest_file=100_000)
    assert written.stat().st_size < 10_000
    assert beside.stat().st_size > 600_000
    same = load_model(written).SerializeToString() == load_model(path).SerializeToString()
    assert same


def test_what_is_verified_is_in_memory(tmp_path: Path) -> None:
    path = written_beside(tmp_path, network())
    with Outside(tmp_path) as outside:
        conversion = fold_onnx(path, Options(verify="fast", outside=outside))
        assert outside_bytes(conversion.model) == 0
    assert conversion.report.holds


def test_a_data_file_that_shrinks_meanwhile_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    path = written_beside(tmp_path, network())
    with Outside(tmp_path) as outside:
        conversion = fold_onnx(path, Options(verify="off", fold="none", outside=outside))
        os.truncate(tmp_path / "source.data", 1000)
        with pytest.raises(CorruptModelError) as caught:
            conversion.save(tmp_path / "out.onnx")
    assert str(caught.value) == "a data file became shorter while it was read"
    assert caught.value.hint == "Try again when nobody writes to the model's folder."
    assert sorted(item.name for item in tmp_path.iterdir()) == ["source.data", "source.onnx"]


def test_a_weight_in_another_place_is_not_believed_to_be_open(tmp_path: Path) -> None:
    model = network()
    path = written_beside(tmp_path, model)
    hostile = onnx.load(path, load_external_data=False)
    for tensor in hostile.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "bnfold-outside:0:0"
    onnx.save_model(hostile, path)
    with Outside(tmp_path), pytest.raises(CorruptModelError, match="is not a file below the model's folder"):
        load_model(path)


def test_more_files_than_may_be_open_are_read(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w0"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1 << 14])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1 << 14])],
        [numpy_helper.from_array(np.full(1 << 14, number, dtype=np.float32), f"w{number}") for number in range(140)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "many.onnx"
    onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    with Outside(tmp_path) as outside:
        loaded = load_model(path, outside)
        assert sum(map(is_outside, loaded.graph.initializer)) == 128
        assert loaded.graph.initializer[139].raw_data == np.full(1 << 14, 139, dtype=np.float32).tobytes()
        same = b"".join(encoded(loaded)) == load_model(path).SerializeToString(deterministic=True)
        assert same


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.zeros(1 << 16, dtype=np.float32), "w")
    with Outside(tmp_path / "nowhere") as outside, pytest.raises(FileNotFoundError) as caught:
        outside.put(tensor)
    assert caught.value.filename == str(tmp_path / "nowhere")


def test_a_model_that_outlives_its_context_says_so(tmp_path: Path) -> None:
    path = written_beside(tmp_path, network())
    with Outside(tmp_path) as outside:
        model = load_model(path, outside)
    with pytest.raises(BnfoldError) as caught:
        save_model(model, tmp_path / "out.onnx")
    assert str(caught.value) == "the content of tensor 'w' was left in a file that is closed"
    assert caught.value.hint == "Save the model before the Outside that it was read with is closed."
    assert not (tmp_path / "out.onnx").exists()
