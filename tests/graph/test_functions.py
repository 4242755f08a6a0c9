"""A model's functions are replaced by what they stand for; judged by onnxruntime on the model before and after."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper, parser

from bnfold.errors import CorruptModelError
from bnfold.graph.functions import calls, functions_with, inline_functions, obstacles

HEAD = '<ir_version: 8, opset_import: ["" : 17, "my" : 1]>'
FUNCTION = '<domain: "my", opset_import: ["" : 17, "my" : 1]>'


def run(model: ModelProto, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> object:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_calls_are_replaced_and_large_weights_come_back() -> None:
    ones = ",".join(["1"] * 64)
    model = parser.parse_model(f"""{HEAD} g (float[N,64] x) => (float[N,64] y) <float[64] b = {{{ones}}}> {{
            h = my.Dense(x, w, b)
            y = my.Dense(h, w, b) }}
        {FUNCTION} Dense (x, w, b) => (y) {{ h = MatMul(x, w)  i = Add(h, b)  y = my.Act(i) }}
        {FUNCTION} Act (x) => (y) {{ y = Relu(x) }}""")
    weight = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    before = model.SerializeToString(deterministic=True)
    result = inline_functions(model)
    onnx.checker.check_model(result, full_check=True)
    assert not result.functions
    assert [node.op_type for node in result.graph.node] == ["MatMul", "Add", "Relu"] * 2
    assert [value.name for value in result.graph.input] == ["x"]
    assert model.SerializeToString(deterministic=True) == before
    x = np.random.default_rng(2).normal(size=(3, 64)).astype(np.float32)
    np.testing.assert_array_equal(run(result, x), run(model, x))


def test_a_model_without_functions_is_the_same_object() -> None:
    model = parser.parse_model(f"{HEAD} g (float[N] x) => (float[N] y) {{ y = Relu(x) }}")
    assert inline_functions(model) is model


def test_functions_that_stand_for_too_many_nodes_are_refused_at_once() -> None:
    levels = "".join(
        f"{FUNCTION} F{level} (x) => (y) {{ a = my.F{level + 1}(x)  b = my.F{level + 1}(a)  y = my.F{level + 1}(b) }}"
        for level in range(30)
    )
    model = parser.parse_model(
        f"{HEAD} g (float[N] x) => (float[N] y) {{ y = my.F0(x) }} {levels} {FUNCTION} F30 (x) => (y) {{ y = Relu(x) }}"
    )
    with pytest.raises(CorruptModelError) as caught:
        inline_functions(model)
    assert str(caught.value) == f"the model's functions stand for {3**30} nodes; at most 200000 are read"
    assert caught.value.hint == "Export the model without functions of its own."


@pytest.mark.parametrize(
    "functions",
    [
        f"{FUNCTION} F (x) => (y) {{ y = my.F(x) }}",
        f"{FUNCTION} F (x) => (y) {{ y = my.G(x) }} {FUNCTION} G (x) => (y) {{ y = my.F(x) }}",
    ],
)
def test_functions_that_call_themselves_are_refused(functions: str) -> None:
    model = parser.parse_model(f"{HEAD} g (float[N] x) => (float[N] y) {{ y = my.F(x) }} {functions}")
    with pytest.raises(
        CorruptModelError, match=r"^the model's function 'F' calls itself, or is nested deeper than 64$"
    ):
        inline_functions(model)


CASES = {
    "an optional input that the caller leaves out": f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = my.C(x) }}
        {FUNCTION} C (x, low, high) => (y) {{ y = Clip(x, low, high) }}""",
    "an optional input that the caller leaves empty": f"""{HEAD} g (float[2,3] x) => (float[2,3] y)
        <float high = {{0.5}}> {{ y = my.C(x, , high) }}
        {FUNCTION} C (x, low, high) => (y) {{ y = Clip(x, low, high) }}""",
    "attributes handed from function to function": f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{
            h = my.A<a = 0.25>(x)
            y = my.A<a = 0.5>(h) }}
        {FUNCTION} A <a> (x) => (y) {{ y = my.B<alpha: float = @a>(x) }}
        {FUNCTION} B <alpha> (x) => (y) {{ y = LeakyRelu<alpha: float = @alpha>(x) }}""",
    "an attribute's default, and another value": f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{
            h = my.B(x)
            y = my.B<a = 0.125>(h) }}
        {FUNCTION} B <a: float = 0.7> (x) => (y) {{ y = LeakyRelu<alpha: float = @a>(x) }}""",
    "an attribute that nobody gives": f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = my.B(x) }}
        {FUNCTION} B <a> (x) => (y) {{ y = LeakyRelu<alpha: float = @a>(x) }}""",
    "an attribute inside a body": f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = my.A<a = 0.5>(x) }}
        {FUNCTION} A <a> (x) => (y) {{
            s = ReduceSum<keepdims = 0>(x)
            z = Sub(s, s)
            c = Greater(s, z)
            y = If (c) <then_branch = t () => (float[2,3] o) {{ o = LeakyRelu<alpha: float = @a>(x) }},
                        else_branch = e () => (float[2,3] o) {{ o = Elu<alpha: float = @a>(x) }}> }}""",
    "names that the model has already": f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{
            t = Neg(x)
            q = my.A(t)
            y__t = Add(q, t)
            r = my.A(y__t)
            y = Sub(r, t) }}
        {FUNCTION} A (x) => (y) {{ t = Relu(x)  q = Add(t, x)  y = Neg(q) }}""",
    "a body's own name that the caller's value has": f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{
            o = Neg(x)
            q = my.A(o)
            y = Add(q, o) }}
        {FUNCTION} A (x) => (y) {{
            s = ReduceSum<keepdims = 0>(x)
            z = Sub(s, s)
            c = Greater(s, z)
            y = If (c) <then_branch = t () => (float[2,3] p) {{ o = Neg(x)  p = Add(o, x) }},
                        else_branch = e () => (float[2,3] p) {{ o = Relu(x)  p = Sub(o, x) }}> }}""",
    "calls inside a body, and a body inside what they call": f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{
            s = ReduceSum<keepdims = 0>(x)
            z = Sub(s, s)
            c = Greater(s, z)
            t = Neg(x)
            y = If (c) <then_branch = t () => (float[2,3] o) {{ o = my.B(t) }},
                        else_branch = e () => (float[2,3] o) {{ q = my.B(t)  o = my.B(q) }}> }}
        {FUNCTION} B (x) => (y) {{
            s = ReduceMean<keepdims = 0>(x)
            z = Sub(s, s)
            c = Less(s, z)
            t = Relu(x)
            u = If (c) <then_branch = t () => (float[2,3] o) {{ q = Neg(t)  o = my.C(q) }},
                        else_branch = e () => (float[2,3] o) {{ o = my.C(t) }}>
            y = Sub(u, x) }}
        {FUNCTION} C (x) => (y) {{ t = Mul(x, x)  y = Add(t, x) }}""",
    "a loop inside a function": f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = my.L(x) }}
        {FUNCTION} L (x) => (y) {{
            n = Constant<value = int64 {{3}}>()
            c = Constant<value = bool {{1}}>()
            y = Loop (n, c, x) <body = b (int64 i, bool going, float[2,3] v) => (bool more, float[2,3] w) {{
                more = Identity(going)
                w = my.S(v) }}> }}
        {FUNCTION} S (x) => (y) {{ t = Sin(x)  y = Add(t, x) }}""",
    "the same value twice": f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = my.A(x, x) }}
        {FUNCTION} A (x, w) => (z) {{ t = Exp(w)  z = Sub(x, t) }}""",
    "an output that the caller leaves out": f"""{HEAD} g (float[2,3] x) => (float[2,3] z) {{ , z = my.A(x) }}
        {FUNCTION} A (x) => (t, z) {{ t = Relu(x)  z = Sub(x, t) }}""",
    "another opset in which everything means the same": f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = my.A(x) }}
        <domain: "my", opset_import: ["" : 15]> A (x) => (y) {{ t = Relu(x)  y = Neg(t) }}""",
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_what_stands_in_place_of_a_call_computes_the_same(text: str) -> None:
    model = parser.parse_model(text)
    before = model.SerializeToString(deterministic=True)
    result = inline_functions(model)
    assert not result.functions
    onnx.checker.check_model(result, full_check=True)
    assert model.SerializeToString(deterministic=True) == before
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)
        np.testing.assert_array_equal(run(result, x), run(model, x))


def test_the_default_of_an_inner_function_holds_where_the_outer_one_is_given_nothing() -> None:
    # The rule of the format: a reference to an attribute that has neither value nor default is as if it were not there.
    model = parser.parse_model(f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ y = my.A(x) }}
        {FUNCTION} A <a> (x) => (y) {{ y = my.B<b: float = @a>(x) }}
        {FUNCTION} B <b: float = 0.75> (x) => (y) {{ y = LeakyRelu<alpha: float = @b>(x) }}""")
    (node,) = inline_functions(model).graph.node
    assert [(attribute.name, attribute.f) for attribute in node.attribute] == [("alpha", 0.75)]


def test_an_input_that_a_function_hands_back_is_copied() -> None:
    model = parser.parse_model(f"""{HEAD} g (float[2,3] x) => (float[2,3] y, float[2,3] z, float[2,3] again) {{
            y, z, again = my.A(x) }}
        {FUNCTION} A (x) => (x, z, z) {{ z = Relu(x) }}""")
    result = inline_functions(model)
    onnx.checker.check_model(result, full_check=True)
    x = np.random.default_rng(4).normal(size=(2, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(result.SerializeToString(), providers=["CPUExecutionProvider"])
    y, z, again = session.run(None, {"x": x})
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(z, np.maximum(x, 0))
    np.testing.assert_array_equal(again, z)


MIXED = f"""{HEAD} g (float[2,3,4,4] x) => (float[2,3,4,4] y)
        <float[3] s = {{1,2,3}}, float[3] b = {{3,2,1}}, float[3] m = {{0,1,0}}, float[3] v = {{1,1,4}}> {{
            h = my.Act(x)
            [block] k = my.Block<e = 0.5>(h, s, b, m, v)
            y = my.Act(k) }}
        {FUNCTION} Act (x) => (y) {{ t = Sigmoid(x)  y = Mul(x, t) }}
        {FUNCTION} Block <e> (x, s, b, m, v) => (y) {{ t = my.Act(x)  y = my.Norm<e: float = @e>(t, s, b, m, v) }}
        {FUNCTION} Norm <e> (x, s, b, m, v) => (y) {{ [bn] n = BatchNormalization<epsilon: float = @e>(x, s, b, m, v)
            y = Relu(n) }}
        {FUNCTION} Idle (x) => (y) {{ y = my.Act(x) }}"""


def test_only_what_is_named_is_replaced_and_the_rest_stays_byte_for_byte() -> None:
    model = parser.parse_model(MIXED)
    assert calls(model) == {("my", "Act", ""): 4, ("my", "Block", ""): 1, ("my", "Norm", ""): 1, ("my", "Idle", ""): 0}
    holding = functions_with(model, "BatchNormalization")
    assert holding == {("my", "Block", ""), ("my", "Norm", "")}
    result = inline_functions(model, holding)
    assert [function.SerializeToString() for function in result.functions] == [
        model.functions[0].SerializeToString(),
        model.functions[3].SerializeToString(),
    ]
    assert [node.op_type for node in result.graph.node] == ["Act", "Act", "BatchNormalization", "Relu", "Act"]
    for kept, original in ((0, 0), (4, 2)):
        assert result.graph.node[kept].SerializeToString() == model.graph.node[original].SerializeToString()
    assert result.graph.initializer == model.graph.initializer
    (epsilon,) = result.graph.node[2].attribute
    assert (epsilon.name, epsilon.f, epsilon.ref_attr_name) == ("epsilon", 0.5, "")
    assert result.graph.node[2].name == "k/bn"
    x = np.random.default_rng(3).normal(size=(2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(result, x), run(model, x))


def test_a_function_in_which_an_operation_means_something_else_stays_with_what_it_calls() -> None:
    model = parser.parse_model(f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ h = my.B(x)  y = my.A(h) }}
        <domain: "my", opset_import: ["" : 11, "my" : 1]> A (x) => (y) {{ t = Softmax(x)  y = my.B(t) }}
        {FUNCTION} B (x) => (y) {{ y = Relu(x) }}""")
    assert obstacles(model) == {
        (
            "my",
            "A",
            "",
        ): "the function A is written in opset 11, the model in 17, and Softmax may mean something else there"
    }
    result = inline_functions(model)
    assert [node.op_type for node in result.graph.node] == ["Relu", "A"]
    assert [function.name for function in result.functions] == ["A", "B"]
    x = np.random.default_rng(5).normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(result, x), run(model, x))


def test_a_domain_that_only_a_function_imports_is_imported_by_the_model() -> None:
    model = parser.parse_model(f"""<ir_version: 8, opset_import: ["my" : 1]>
        g (float[2,3] x) => (float[2,3] y) {{ y = my.A(x) }}
        {FUNCTION} A (x) => (y) {{ y = Relu(x) }}""")
    result = inline_functions(model)
    assert {entry.domain: entry.version for entry in result.opset_import} == {"my": 1, "": 17}
    x = np.random.default_rng(6).normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(result, x), np.maximum(x, 0))


def test_a_function_that_reads_a_value_from_nowhere_is_refused_and_does_not_catch_the_callers() -> None:
    model = parser.parse_model(f"""{HEAD} g (float[2,3] x) => (float[2,3] y) {{ h = Neg(x)  y = my.A(x) }}
        {FUNCTION} A (x) => (y) {{ y = Add(x, h) }}""")
    with pytest.raises(CorruptModelError) as caught:
        inline_functions(model)
    assert str(caught.value) == "the function A reads h, which nothing in it computes"
    assert caught.value.hint == "Export the model again, or without functions of its own."


def test_functions_that_stand_for_too_many_bytes_are_refused_at_once() -> None:
    levels = "".join(
        f"{FUNCTION} F{level} (x) => (y) {{ a = my.F{level + 1}(x)  y = my.F{level + 1}(a) }}" for level in range(10)
    )
    model = parser.parse_model(
        f"{HEAD} g (float[N] x) => (float[N] y) {{ y = my.F0(x) }} {levels} {FUNCTION} F10 (x) => (y) "
        "{ c = Constant<value = float[1] {1}>()  y = Mul(x, c) }"
    )
    tensor = model.functions[10].node[0].attribute[0].t
    tensor.CopyFrom(numpy_helper.from_array(np.zeros((1, 1 << 20), np.float32)))
    with pytest.raises(CorruptModelError) as caught:
        inline_functions(model)
    assert str(caught.value).startswith("the model's functions stand for 42949")
    assert str(caught.value).endswith(" bytes of nodes; at most 2147483648 are read")
