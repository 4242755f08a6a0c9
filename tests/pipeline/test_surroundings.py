"""Around a batch norm that stays stands what the graph has there, and no more than a reader can take in."""

from __future__ import annotations

import onnx

from bnfold.pipeline.surroundings import with_surroundings
from bnfold.report import BatchNorm, Surroundings

RESIDUAL = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,4] x) => (float[N,4] y)
<float[4,4] W, float[4] g, float[4] b, float[4] m, float[4] v>
{
    d = MatMul(x, W)
    r = Relu(d)
    n = BatchNormalization(r, g, b, m, v)
    s = Sigmoid(n)
    t = MatMul(s, W)
    y = Add(t, r)
}
"""


def around(text: str, output: str) -> Surroundings:
    """Return what stands around one batch norm of a model."""
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    (row,) = with_surroundings(model, [BatchNorm("n", output, 4, "kept")])
    assert row.around is not None
    return row.around


def _edges(found: Surroundings) -> set[tuple[str, str]]:
    return {(found.nodes[one].name, found.nodes[other].name) for one, other in found.edges}


def test_two_steps_to_either_side_and_who_else_reads_the_same_value() -> None:
    found = around(RESIDUAL, "n")
    assert found.nodes[0].name == "BatchNormalization_n"
    assert {(node.name, node.step) for node in found.nodes} == {
        ("BatchNormalization_n", 0),
        ("Relu_r", -1),
        ("MatMul_d", -2),
        ("Sigmoid_s", 1),
        ("MatMul_t", 2),
        ("Add_y", 0),
    }
    assert _edges(found) == {
        ("MatMul_d", "Relu_r"),
        ("Relu_r", "BatchNormalization_n"),
        ("BatchNormalization_n", "Sigmoid_s"),
        ("Sigmoid_s", "MatMul_t"),
        ("Relu_r", "Add_y"),
        ("MatMul_t", "Add_y"),
    }
    assert found.more == 0


def test_the_ends_of_the_graph_are_shown_and_constants_are_not() -> None:
    found = around(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,4] x) => (float[N,4] n)
        <float[4] g, float[4] b, float[4] m>
        {
            v = Constant<value = float[4] {1, 2, 3, 4}>()
            n = BatchNormalization(x, g, b, m, v)
        }
        """,
        "n",
    )
    assert [(node.op_type, node.name, node.step) for node in found.nodes] == [
        ("BatchNormalization", "BatchNormalization_n", 0),
        ("input", "x", -1),
        ("output", "n", 1),
    ]
    assert found.edges == ((0, 2), (1, 0))


def test_of_many_neighbours_some_are_shown_and_the_others_counted() -> None:
    readers = "\n".join(f"k{number} = Relu(n)" for number in range(40))
    text = RESIDUAL.replace("s = Sigmoid(n)", f"s = Sigmoid(n)\n{readers}")
    found = around(text, "n")
    assert len([node for node in found.nodes if node.step == 1]) == 3
    assert found.more >= 38
    assert len(found.nodes) < 12


def test_in_a_body_the_neighbours_are_those_of_the_body() -> None:
    found = around(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,4] x, bool f) => (float[N,4] y)
        <float[4] g, float[4] b, float[4] m, float[4] v>
        {
            y = If(f) <
                then_branch = yes () => (float[N,4] t) { n = BatchNormalization(x, g, b, m, v) t = Relu(n) },
                else_branch = no () => (float[N,4] e) { e = Neg(x) }
            >
        }
        """,
        "n",
    )
    assert [(node.op_type, node.step) for node in found.nodes] == [
        ("BatchNormalization", 0),
        ("Relu", 1),
        ("output", 2),
    ]


def test_what_folded_has_no_surroundings() -> None:
    model = onnx.parser.parse_model(RESIDUAL)
    (row,) = with_surroundings(model, [BatchNorm("n", "n", 4, "folded")])
    assert row.around is None


def test_of_very_many_batch_norms_the_first_hundred_are_looked_at() -> None:
    chain = "".join(f"n{i + 1} = BatchNormalization(n{i}, g, b, m, v)\n" for i in range(300))
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N,4] n0) => (float[N,4] n300)
    <float[4] g, float[4] b, float[4] m, float[4] v>
    {{ {chain} }}
    """
    rows = with_surroundings(
        onnx.parser.parse_model(text), [BatchNorm(f"n{i}", f"n{i}", 4, "kept") for i in range(1, 301)]
    )
    assert [row.around is not None for row in rows] == [True] * 100 + [False] * 200
