"""Two files differ in what was changed in one of them, in everything that was, and in nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bnfold import BnfoldError
from bnfold.pipeline import diff
from bnfold.pipeline.ulps import distance, ulps
from bnfold.report.difference import BatchNormChange, Difference, FileChange, NodeChange, OpCount
from tests.cli.program import CONV_BN, model

FLOATS = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32), np.dtype(np.float64)]

WITH_BODIES = """
<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
digits (float[N,4] x, bool flag) => (float[N,4] y)
<float[4] a = {1, 2, 3, 4}>
{
    h = own.twice(x)
    s = Constant<value = float[4] {5, 6, 7, 8}>()
    k = Mul(h, s)
    y = If(flag) <
        then_branch = yes () => (float[N,4] t) <float[4] w = {1, 1, 1, 1}> { t = Mul(k, w) },
        else_branch = no () => (float[N,4] e) { e = Add(k, a) }
    >
}
<domain: "own", opset_import: ["" : 17]> twice (v) => (r) { r = Add(v, v) }
"""


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 77])
def test_ulps_are_the_steps_from_one_number_to_the_next(dtype: np.dtype[np.generic], steps: int) -> None:
    start = np.array([1.0, -1.0, 0.0, 1e-4, 0.999], dtype)
    moved = start
    for _ in range(steps):
        moved = np.nextafter(moved, np.array(4.0, dtype))
    assert ulps(start, moved) == steps
    assert ulps(moved, start) == steps


def test_ulps_across_zero_are_counted_through_it() -> None:
    small = np.nextafter(np.float32(0), np.float32(1))
    assert ulps(np.array([small]), np.array([-small])) == 2
    assert ulps(np.array([np.float64(1)]), np.array([np.float64(-1)])) == pytest.approx(2 * 0x3FF0000000000000)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, math.nan], [1.0, math.nan], 0.0),
        ([1.0, math.nan], [1.0, 2.0], math.inf),
        ([math.inf], [-math.inf], math.inf),
        ([math.inf], [math.inf], 0.0),
        ([0.0], [-0.0], 0.0),
    ],
)
def test_ulps_of_what_is_not_finite(a: list[float], b: list[float], expected: float) -> None:
    assert ulps(np.array(a, np.float32), np.array(b, np.float32)) == expected


def test_ulps_of_two_types_are_those_of_the_narrower() -> None:
    wide = np.array([0.1, 0.2, 1.0], np.float32)
    assert ulps(wide, wide.astype(np.float16)) == 0
    assert ulps(wide, np.nextafter(wide.astype(np.float16), np.float16(2))) == 1


def test_integers_have_no_ulps() -> None:
    assert ulps(np.array([1]), np.array([2])) is None


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.uint8, np.bool_, np.complex64]
)
def test_of_any_type_what_has_changed_is_counted(dtype: type[np.generic]) -> None:
    a = np.array([[0, 1, 1], [0, 1, 0]]).astype(dtype)
    b = a.copy()
    b[1, 2] = 1
    found = distance(numpy_helper.from_array(a, "w"), numpy_helper.from_array(b, "w"))
    assert (found.elements, found.changed, found.largest) == (6, 1, 1.0)
    assert not distance(numpy_helper.from_array(a, "w"), numpy_helper.from_array(a, "w")).changed


def test_a_change_of_sign_of_zero_is_a_change_of_no_ulp() -> None:
    found = distance(
        numpy_helper.from_array(np.array([0.0, 1.0], np.float32)),
        numpy_helper.from_array(np.array([-0.0, 1.0], np.float32)),
    )
    assert (found.changed, found.ulps, found.largest) == (1, 0.0, 0.0)


def test_large_tensors_are_compared_in_parts() -> None:
    a = np.zeros((3 << 20) + 5, np.float32)
    b = a.copy()
    b[[0, 1 << 20, -1]] = 1.0
    found = distance(numpy_helper.from_array(a), numpy_helper.from_array(b))
    assert (found.elements, found.changed, found.largest) == (a.size, 3, 1.0)


def _differ(folder: Path, change: Callable[[ModelProto], object], text: str = CONV_BN) -> Difference:
    """Return how a model and a changed copy of it differ."""
    one = onnx.parser.parse_model(text) if text is WITH_BODIES else model(text)
    other = ModelProto()
    other.CopyFrom(one)
    change(other)
    onnx.save(one, folder / "a.onnx")
    onnx.save(other, folder / "b.onnx")
    return diff(folder / "a.onnx", folder / "b.onnx")


def _shuffled(changed: ModelProto) -> None:
    for field in (changed.graph.node, changed.graph.initializer, changed.opset_import):
        reordered = list(field)[::-1]
        del field[:]
        field.extend(reordered)


def _raw(changed: ModelProto) -> None:
    for tensor in changed.graph.initializer:
        array = numpy_helper.to_array(tensor)
        typed = helper.make_tensor(tensor.name, tensor.data_type, tensor.dims, array.reshape(-1).tolist())
        tensor.CopyFrom(typed)


@pytest.mark.parametrize("change", [lambda _model: None, _shuffled, _raw], ids=["nothing", "order", "encoding"])
@pytest.mark.parametrize("text", [CONV_BN, WITH_BODIES], ids=["plain", "bodies"])
def test_files_that_say_the_same_are_equal(tmp_path: Path, change: Callable[[ModelProto], object], text: str) -> None:
    found = _differ(tmp_path, change, text)
    assert found.equal
    assert (found.ops, found.nodes, found.weights, found.batch_norms, found.others) == ((), (), (), (), ())
    assert found.nodes_a == found.nodes_b == (3 if text is CONV_BN else 7)


def test_weights_beside_the_file_are_read_for_the_comparison(tmp_path: Path) -> None:
    one = model(CONV_BN)
    onnx.save(one, tmp_path / "a.onnx")
    (tmp_path / "beside").mkdir()
    onnx.save(one, tmp_path / "beside" / "b.onnx", save_as_external_data=True, size_threshold=0, location="b.bin")
    assert diff(tmp_path / "a.onnx", tmp_path / "beside" / "b.onnx").equal
    content = bytearray((tmp_path / "beside" / "b.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "beside" / "b.bin").write_bytes(content)
    (changed,) = diff(tmp_path / "a.onnx", tmp_path / "beside" / "b.onnx").weights
    assert (changed.name, changed.changed, changed.ulps) == ("W", 1, 1.0)
    (tmp_path / "beside" / "b.bin").unlink()
    with pytest.raises(BnfoldError, match="that file is not beside the model"):
        diff(tmp_path / "a.onnx", tmp_path / "beside" / "b.onnx")


def test_a_weight_that_moved_by_one_ulp_is_named(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        for tensor in changed.graph.initializer:
            if tensor.name == "W":
                array = numpy_helper.to_array(tensor).copy()
                array[0, 0, 0, 0] = np.nextafter(array[0, 0, 0, 0], np.float32(10))
                tensor.CopyFrom(numpy_helper.from_array(array, "W"))

    found = _differ(tmp_path, change)
    (weight,) = found.weights
    assert (weight.name, weight.renamed, weight.change, weight.elements, weight.changed) == ("W", "", "changed", 108, 1)
    assert weight.ulps == 1
    assert 0 < weight.largest < 1e-6
    assert (found.nodes, found.ops, found.weights_equal, found.equal) == ((), (), 5, False)


def test_a_weight_of_another_type_or_shape_is_named(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        for tensor in changed.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if tensor.name == "W":
                tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), "W"))
            elif tensor.name == "b":
                tensor.CopyFrom(numpy_helper.from_array(array[:2], "b"))

    narrowed, cut = _differ(tmp_path, change).weights
    assert (narrowed.name, narrowed.dtype_a, narrowed.dtype_b, narrowed.ulps) == ("W", "float32", "float16", 0)
    assert narrowed.changed > 50
    assert (cut.name, cut.shape_a, cut.shape_b, cut.elements) == ("b", (4,), (2,), 0)


def test_a_weight_under_a_new_name_is_found_where_it_is_read(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        for tensor in changed.graph.initializer:
            if tensor.name == "W":
                tensor.name = "kernel"
        changed.graph.node[0].input[1] = "kernel"

    found = _differ(tmp_path, change)
    (weight,) = found.weights
    assert (weight.name, weight.renamed, weight.change, weight.changed) == ("W", "kernel", "changed", 0)
    assert found.nodes == (NodeChange("conv_0", "", "changed", "Conv", ("inputs",)),)


def test_a_batch_norm_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        changed.graph.node[2].input[0] = "h"
        del changed.graph.node[1]
        kept = [tensor for tensor in changed.graph.initializer if tensor.name in {"W", "b"}]
        del changed.graph.initializer[:]
        changed.graph.initializer.extend(kept)

    found = _differ(tmp_path, change)
    assert found.batch_norms == (BatchNormChange("batchnormalization_1", "", "removed"),)
    assert found.ops == (OpCount("BatchNormalization", 1, 0),)
    assert [(weight.name, weight.change) for weight in found.weights] == [
        (name, "removed") for name in ("gamma", "beta", "mean", "var")
    ]
    back = diff(tmp_path / "b.onnx", tmp_path / "a.onnx")
    assert back.batch_norms == (BatchNormChange("batchnormalization_1", "", "added"),)


def test_a_batch_norm_that_became_another_operation_is_said_to_have(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        node = changed.graph.node[1]
        node.op_type = "Add"
        del node.input[2:]
        del node.attribute[:]

    found = _differ(tmp_path, change)
    assert found.batch_norms == (BatchNormChange("batchnormalization_1", "", "removed", "Add"),)


def test_a_batch_norm_with_other_statistics_has_changed(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        for tensor in changed.graph.initializer:
            if tensor.name == "var":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, "var"))

    found = _differ(tmp_path, change)
    assert found.batch_norms == (BatchNormChange("batchnormalization_1", "", "changed"),)
    assert found.batch_norms_kept == 0


def test_attributes_inputs_and_operations_are_named(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        changed.graph.node[0].attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
        changed.graph.node[1].attribute[0].f = 0.5
        changed.graph.node[2].op_type = "Sigmoid"

    found = _differ(tmp_path, change)
    assert found.nodes == (
        NodeChange("conv_0", "", "changed", "Conv", ("attribute pads",)),
        NodeChange("batchnormalization_1", "", "changed", "BatchNormalization", ("attribute epsilon",)),
        NodeChange("relu_2", "", "changed", "Relu", ("operation Relu → Sigmoid",)),
    )
    assert found.ops == (OpCount("Relu", 1, 0), OpCount("Sigmoid", 0, 1))


def test_nodes_without_names_are_known_by_what_they_compute(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        for node in changed.graph.node:
            node.name = ""
        changed.graph.node[2].op_type = "Sigmoid"

    found = _differ(tmp_path, change)
    assert found.nodes == (NodeChange("relu_2", "", "changed", "Relu", ("operation Relu → Sigmoid",)),)


def test_changes_inside_bodies_and_functions_are_found_where_they_are(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        (branching,) = (node for node in changed.graph.node if node.op_type == "If")
        bodies = {item.name: item.g for item in branching.attribute}
        bodies["then_branch"].initializer[0].CopyFrom(numpy_helper.from_array(np.full(4, 2, np.float32), "w"))
        bodies["else_branch"].node[0].op_type = "Sub"
        changed.functions[0].node[0].op_type = "Mul"

    found = _differ(tmp_path, change, WITH_BODIES)
    assert [(node.scope, node.op_type, node.what) for node in found.nodes] == [
        ("y.else_branch", "Add", ("operation Add → Sub",)),
        ("own::twice", "Add", ("operation Add → Mul",)),
    ]
    (weight,) = found.weights
    assert (weight.scope, weight.name, weight.changed, weight.largest) == ("y.then_branch", "w", 4, 1.0)


def test_a_body_that_returns_something_else_has_changed(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        (branching,) = (node for node in changed.graph.node if node.op_type == "If")
        bodies = {item.name: item.g for item in branching.attribute}
        bodies["else_branch"].output[0].name = "k"

    found = _differ(tmp_path, change, WITH_BODIES)
    assert found.nodes == (NodeChange("y", "", "changed", "If", ("attribute else_branch",)),)


def test_a_function_of_another_form_has_changed(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        changed.functions[0].opset_import[0].version = 18

    found = _differ(tmp_path, change, WITH_BODIES)
    says = "1 node, (v) → (r), opset 17"
    assert found.others == (FileChange("function", "own::twice", says, says.replace("17", "18")),)


def test_a_constant_is_the_same_in_a_node_and_in_an_initializer(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        (constant,) = (node for node in changed.graph.node if node.op_type == "Constant")
        tensor = TensorProto()
        tensor.CopyFrom(constant.attribute[0].t)
        tensor.name = constant.output[0]
        changed.graph.initializer.append(tensor)
        changed.graph.node.remove(constant)

    found = _differ(tmp_path, change, WITH_BODIES)
    assert (found.weights, found.nodes, found.equal) == ((), (), False)
    assert found.ops == (OpCount("Constant", 1, 0),)


def test_what_a_constant_node_holds_is_compared_as_a_weight(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        (constant,) = (node for node in changed.graph.node if node.op_type == "Constant")
        constant.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array([5, 6, 7, 9], np.float32)))

    found = _differ(tmp_path, change, WITH_BODIES)
    assert found.nodes == ()
    assert [(weight.name, weight.changed, weight.largest) for weight in found.weights] == [("s", 1, 1.0)]


def test_everything_around_the_graph_is_compared(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        changed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        changed.graph.output[0].name = "y"
        changed.opset_import[0].version = 18
        changed.metadata_props.add(key="author", value="somebody")
        changed.producer_name = "another"

    found = _differ(tmp_path, change)
    assert found.others == (
        FileChange("input", "x", "float32 (N, 3, 8, 8)", "float32 (1, 3, 8, 8)"),
        FileChange("opset", "ai.onnx", "17", "18"),
        FileChange("metadata", "author", "", "somebody"),
        FileChange("file", "producer_name", "", "another"),
    )


def test_inputs_in_another_order_are_another_signature(tmp_path: Path) -> None:
    found = _differ(tmp_path, lambda changed: _turn(changed.graph.input), WITH_BODIES)
    assert found.others == (FileChange("input", "order", "x, flag", "flag, x"),)


def _turn(field: object) -> None:
    ports = list(field)[::-1]  # type: ignore[call-overload]
    del field[:]  # type: ignore[attr-defined]
    field.extend(ports)  # type: ignore[attr-defined]


def test_texts_are_compared() -> None:
    words = TensorProto(data_type=TensorProto.STRING, dims=[2], string_data=[b"one", b"two"])
    others = TensorProto(data_type=TensorProto.STRING, dims=[2], string_data=[b"one", b"three"])
    found = distance(words, others)
    assert (found.elements, found.changed) == (2, 1)
    assert math.isnan(found.ulps)
    number = numpy_helper.from_array(np.zeros(2, np.float32))
    assert distance(words, number).changed == 2


def test_names_that_stand_twice_are_not_taken_for_one(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        for node in changed.graph.node:
            node.name = "same"
        changed.graph.node[1].attribute[0].f = 0.5

    found = _differ(tmp_path, change)
    assert [(node.name, node.what) for node in found.nodes] == [("batchnormalization_1", ("attribute epsilon",))]


def test_every_single_field_that_changes_is_seen(tmp_path: Path) -> None:
    """Whatever one string or number of a node is changed to, the files are no longer equal."""
    plain = model(CONV_BN)
    for index, field in itertools.product(range(3), ("op_type", "domain", "input", "output", "attribute")):

        def change(changed: ModelProto, index: int = index, field: str = field) -> None:
            node = changed.graph.node[index]
            if field in {"input", "output"}:
                getattr(node, field)[0] += "_other"
            elif field == "attribute":
                node.attribute.append(helper.make_attribute("unheard_of", 3))
            else:
                setattr(node, field, f"{getattr(node, field)}other")

        assert not _differ(tmp_path, change).equal, (index, field, plain.graph.node[index].op_type)


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    onnx.save(model(CONV_BN), tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"\x00 no model")
    with pytest.raises(BnfoldError, match=r"b\.onnx is no ONNX model"):
        diff(tmp_path / "a.onnx", tmp_path / "b.onnx")
    with pytest.raises(BnfoldError, match="no such file"):
        diff(tmp_path / "a.onnx", tmp_path / "c.onnx")


def test_a_tensor_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    def change(changed: ModelProto) -> None:
        changed.graph.initializer[0].raw_data = b"\0" * 8

    with pytest.raises(BnfoldError, match=r"b\.onnx is damaged: tensor 'W' of shape \[4, 3, 3, 3\] takes 432 bytes"):
        _differ(tmp_path, change)


def test_what_says_who_wrote_a_file_is_shown_and_makes_no_other_model(tmp_path: Path) -> None:
    def stamped(changed: ModelProto) -> None:
        changed.metadata_props.add(key="bnfold", value="{}")
        changed.producer_version = "9"

    found = _differ(tmp_path, stamped)
    assert found.equal
    assert found.others == (
        FileChange("metadata", "bnfold", "", "{}"),
        FileChange("file", "producer_version", "", "9"),
    )


@pytest.mark.parametrize("key", ["names", "bnfold "])
def test_any_other_entry_of_the_metadata_may_be_part_of_the_model(tmp_path: Path, key: str) -> None:
    assert not _differ(tmp_path, lambda changed: changed.metadata_props.add(key=key, value="cat, dog")).equal
