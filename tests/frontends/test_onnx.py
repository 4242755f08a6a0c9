"""ONNX files are taken as they are, checked, and cut where it was asked for; judged by onnx's own evaluator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from bnfold.errors import BnfoldError, CorruptModelError, SignatureError, UnsupportedOpError
from bnfold.frontends import load
from bnfold.frontends.loaded import Loaded, ModeChange, Request, TensorSpec
from bnfold.frontends.onnx import check

TEXT = """<ir_version: 8, opset_import: ["" : 17, "my.ops" : 1], producer_name: "pytorch", producer_version: "2.5",
           metadata_props: ["author" : "me"]>
g (float[N,2] x, bool train) => (float[N,2] y, float[N,2] z) <float[2,2] w = {1, 2, 3, 4}, float[2] unused = {0, 0}> {
    h = MatMul(x, w)
    a = Relu(h)
    y = If(train) <then_branch = t () => (float[N,2] p) { p = Neg(a) },
                   else_branch = e () => (float[N,2] q) { q = Mul(h, w0) }>
    c = Sigmoid(a)
    z = my.ops.Foo(c)
}"""


def model_of(text: str = TEXT) -> ModelProto:
    model = parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.array([5, 6], np.float32), "w0"))
    return model


def loaded(folder: Path, request: Request | None = None, model: ModelProto | None = None) -> Loaded:
    path = folder / "m.onnx"
    path.write_bytes((model or model_of()).SerializeToString())
    return load(path, request or Request())


def refusal(folder: Path, request: Request | None = None, model: ModelProto | None = None) -> tuple[object, str, str]:
    with pytest.raises(BnfoldError) as caught:
        loaded(folder, request, model)
    return type(caught.value), str(caught.value).replace(str(folder / "m.onnx"), "m.onnx"), caught.value.hint


X = TensorSpec("x", "float32", ("N", 2))
TRAIN = TensorSpec("train", "bool", ())
Y, Z = TensorSpec("y", "float32", ("N", 2)), TensorSpec("z", "float32", ("N", 2))


def test_a_file_for_which_nothing_was_asked_comes_back_as_it_is(tmp_path: Path) -> None:
    result = loaded(tmp_path)
    assert result.model == model_of()
    assert (result.inputs, result.outputs) == ((X, TRAIN), (Y, Z))
    assert (result.format, result.framework) == ("onnx", "pytorch 2.5")
    assert result.description == "ONNX · IR 8 · opset 17"
    assert (result.mode, result.run) == ((), None)


def test_naming_all_inputs_and_outputs_changes_nothing(tmp_path: Path) -> None:
    assert loaded(tmp_path, Request(inputs=("x", "train"), outputs=("y", "z"))).model == model_of()


def test_initializers_that_old_files_list_as_inputs_are_not_fed(tmp_path: Path) -> None:
    model = parser.parse_model("""<ir_version: 3, opset_import: ["" : 9]>
        g (float[1,2] x, float[2,2] w) => (float[1,2] y) <float[2,2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }""")
    result = loaded(tmp_path, model=model)
    assert [spec.name for spec in result.inputs] == ["x"]
    assert [value.name for value in result.model.graph.input] == ["x", "w"]


def test_dimensions_stay_numbers_symbols_and_unknowns(tmp_path: Path) -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[batch,3,?,224] x, int64 n) => (float[batch,3,?,224] y, int64 m) { y = Relu(x)  m = Neg(n) }""")
    minus = model.graph.output[0].type.tensor_type.shape.dim[0]
    minus.Clear()
    minus.dim_value = -1  # how some exporters write an open dimension
    result = loaded(tmp_path, model=model)
    assert result.inputs == (TensorSpec("x", "float32", ("batch", 3, None, 224)), TensorSpec("n", "int64", ()))
    assert result.outputs[0].shape == (None, 3, None, 224)


@pytest.mark.parametrize(
    ("inputs", "outputs", "nodes"),
    [
        ((), ("a",), ["MatMul", "Relu"]),
        ((), ("a", "h"), ["MatMul", "Relu"]),
        ((), ("y",), ["MatMul", "Relu", "If"]),
        (("h",), ("a",), ["Relu"]),
        (("h", "train"), ("y",), ["Relu", "If"]),
        (("a",), ("c",), ["Sigmoid"]),
        (("train", "x"), ("y",), ["MatMul", "Relu", "If"]),
    ],
)
def test_a_cut_computes_what_the_whole_model_computes_there(
    tmp_path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], nodes: list[str]
) -> None:
    result = loaded(tmp_path, Request(inputs=inputs, outputs=outputs))
    onnx.checker.check_model(result.model, full_check=True)
    assert [node.op_type for node in result.model.graph.node] == nodes
    assert [spec.name for spec in result.outputs] == list(outputs)
    if inputs:
        assert [spec.name for spec in result.inputs] == list(inputs)
    assert "unused" not in {tensor.name for tensor in result.model.graph.initializer}
    whole = model_of()
    del whole.graph.node[-1], whole.graph.output[:]
    whole.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("h", "a", "c", "y")
    )
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32), "train": np.array(1, dtype=np.bool_)}
    everything = feeds | dict(zip(("h", "a", "c", "y"), ReferenceEvaluator(whole).run(None, feeds), strict=True))
    got = ReferenceEvaluator(result.model).run(None, {spec.name: everything[spec.name] for spec in result.inputs})
    for name, value in zip(outputs, got, strict=True):
        np.testing.assert_array_equal(value, everything[name])


def test_a_cut_keeps_what_the_file_says_about_itself(tmp_path: Path) -> None:
    result = loaded(tmp_path, Request(outputs=("a",)))
    for field in ("ir_version", "producer_name", "producer_version", "opset_import", "metadata_props"):
        assert getattr(result.model, field) == getattr(model_of(), field)
    assert result.model.graph.name == "g"


@pytest.mark.parametrize(
    ("request_", "message", "hint"),
    [
        (
            Request(outputs=("yy",)),
            "there is no value 'yy'; there are x, train, y, z, h, a, c",
            "Did you mean --outputs y?",
        ),
        (
            Request(outputs=("Y:0",)),
            "there is no value 'Y:0'; there are x, train, y, z, h, a, c",
            "Did you mean --outputs y?",
        ),
        (
            Request(inputs=("entirely else",)),
            "there is no value 'entirely else'; there are x, train, y, z, h, a, c",
            "Look up the names with: bnfold inspect",
        ),
        (Request(outputs=("y", "y")), "value 'y' is named twice", "Name each one once."),
        (
            Request(inputs=("h",), outputs=("y",)),
            "the outputs y also need the input train",
            "Name it too: --inputs h,train",
        ),
        (
            Request(inputs=("train", "x"), outputs=("a",)),
            "input 'train' influences none of the outputs a",
            "Leave it out of --inputs, or name the outputs that need it with --outputs.",
        ),
        (
            Request(outputs=("c",), inputs=("z",)),
            "input 'z' influences none of the outputs c",
            "Leave it out of --inputs, or name the outputs that need it with --outputs.",
        ),
        (
            Request(signature="serving_default"),
            "an ONNX file has no named signatures, so none is called 'serving_default'",
            "Leave --signature out, or cut the model with --inputs and --outputs.",
        ),
        (
            Request(set_values={"trian": "0"}),
            "there is no input 'trian'; there are x, train",
            "Did you mean --set train?",
        ),
        (
            Request(set_values={"train": "maybe"}),
            "'maybe' is no value for input 'train' of type bool",
            "Write true or false for bool, and a number otherwise, for example: --set train=false",
        ),
        (
            Request(set_values={"x": "0"}),
            "input 'x' has the open shape ['N', 2], so it cannot be set to one value",
            "Set inputs of a fixed shape only.",
        ),
    ],
)
def test_a_request_that_cannot_be_met_names_what_there_is(
    tmp_path: Path, request_: Request, message: str, hint: str
) -> None:
    assert refusal(tmp_path, request_) == (SignatureError, message, hint)


def test_among_many_names_the_nearest_are_offered(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", [f"encoder/block{i}/out"], [f"encoder/block{i + 1}/out"]) for i in range(30)]
    io = [helper.make_tensor_value_info(f"encoder/block{i}/out", TensorProto.FLOAT, [1]) for i in (0, 30)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", io[:1], io[1:]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    error, message, hint = refusal(tmp_path, Request(outputs=("encoder/blok17/out:0",)), model)
    assert (error, message) == (SignatureError, "there is no value 'encoder/blok17/out:0' among 31 values")
    assert hint.startswith("Did you mean --outputs encoder/block17/out? (or ")


def test_a_cut_where_the_type_is_not_known_says_so(tmp_path: Path) -> None:
    model = model_of(TEXT.replace("z = my.ops.Foo(c)", "o = my.ops.Foo(c)\n    z = Relu(o)"))
    assert refusal(tmp_path, Request(outputs=("o",)), model) == (
        SignatureError,
        "the type of value 'o' is not known, so the model cannot be cut there",
        "Name a value of which the file states the type, or run onnx.shape_inference on the file first.",
    )


@pytest.mark.parametrize(("text", "value"), [("False", False), ("0", False), (" TRUE ", True), ("on", True)])
def test_a_mode_that_the_caller_sets_becomes_a_constant(tmp_path: Path, text: str, value: bool) -> None:  # noqa: FBT001
    result = loaded(tmp_path, Request(set_values={"train": text}))
    assert result.inputs == (X,)
    assert result.mode == (ModeChange("switch", "train", "bool input", text, "set by the caller"),)
    (constant,) = [tensor for tensor in result.model.graph.initializer if tensor.name == "train"]
    assert numpy_helper.to_array(constant) == value
    onnx.checker.check_model(result.model)


def test_operators_of_other_domains_need_not_be_known() -> None:
    check(model_of())


NEWEST = onnx.defs.onnx_opset_version()


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("MatMul(", "MatMull(", UnsupportedOpError, "m.onnx uses the operator MatMull, which opset 17 does not have"),
        ('"" : 17', '"" : 999', UnsupportedOpError, f"m.onnx uses opset 999; 1 to {NEWEST} are known"),
        (
            "MatMul(x, w)",
            "MatMul(x, nothing)",
            CorruptModelError,
            (
                "m.onnx breaks a rule of ONNX: Nodes in a graph must be topologically sorted, however input 'nothing' "
                "of node: name: OpType: MatMul is not output of any previous nodes."
            ),
        ),
        (
            "a = Relu(h)",
            "h = Relu(h)  a = Relu(h)",
            CorruptModelError,
            (
                "m.onnx breaks a rule of ONNX: Graph must be in single static assignment (SSA) form, however 'h' has "
                "been used as output names multiple times."
            ),
        ),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused(
    tmp_path: Path, old: str, new: str, error: type[BnfoldError], message: str
) -> None:
    assert old in TEXT
    found = refusal(tmp_path, model=model_of(TEXT.replace(old, new)))
    assert found[:2] == (error, message)
    assert found[2]


def test_what_is_no_tensor_cannot_be_fed(tmp_path: Path) -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N] x) => (seq(float[N]) y) { y = SequenceConstruct(x) }""")
    assert refusal(tmp_path, model=model) == (
        UnsupportedOpError,
        "output 'y' is a sequence, not a tensor",
        "Cut the model at tensors with --outputs, for example in front of what makes the sequence.",
    )


def test_checking_takes_no_copy_of_the_weights() -> None:
    model = model_of()
    weight = model.graph.initializer.add(name="large", data_type=TensorProto.FLOAT, dims=[1 << 40])
    weight.raw_data = b"not four tebibytes, and nobody counts them here"
    check(model)


def test_an_output_may_leave_its_shape_to_the_runtime(tmp_path: Path) -> None:
    model = model_of('<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }')
    model.graph.output[0].type.tensor_type.ClearField("shape")
    result = loaded(tmp_path, model=model)
    assert result.model == model
    assert result.outputs == (Y,)
