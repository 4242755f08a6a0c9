"""Graphs that make sequences of thousands of millions from a few bytes: inference passes them by, and no others."""

from __future__ import annotations

import subprocess
import sys

import pytest
from onnx import ModelProto, parser

from bnfold.graph.growth import makes_long_sequences
from bnfold.graph.shapes import infer

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) '


def doubled(times: int, between: str = "Identity") -> ModelProto:
    """Return a model that joins a sequence with itself, again and again."""
    steps = []
    for step in range(times):
        steps.append(f"a{step} = Concat<axis = 0>(c{step}, c{step})")
        steps.append(f"c{step + 1} = {between}(a{step})")
    return parser.parse_model(
        f"{HEAD} <int64[1] c0 = {{1}}> {{ {' '.join(steps)} f = Cast<to = 1>(c{times}) "
        "s = ReduceSum<keepdims = 1>(f) y = Add(x, s) }"
    )


def counted(most: int) -> ModelProto:
    return parser.parse_model(
        f"{HEAD} <int64 a = {{0}}, int64 m = {{{most}}}, int64 o = {{1}}> "
        "{ r = Range(a, m, o) f = Cast<to = 1>(r) s = ReduceSum<keepdims = 1>(f) y = Add(x, s) }"
    )


def in_a_branch() -> ModelProto:
    return parser.parse_model(f"""{HEAD}
        <bool on = {{1}}, int64 a = {{0}}, int64 m = {{17179869184}}, int64 o = {{1}}> {{
        s = If(on) <
            then_branch = t () => (int64[n] r) {{ r = Range(a, m, o) }},
            else_branch = e () => (int64[n] q) {{ q = Constant<value_ints = [1]>() }}
        >
        f = Cast<to = 1>(s)
        y = Add(x, f)
    }}""")


BOMBS = {"doubled": doubled(34), "doubled and changed": doubled(34, "Cast<to = 7>"),
    "counted": counted(1 << 34), "in a branch": in_a_branch()}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_sequence_without_measure_is_seen(name: str) -> None:
    assert makes_long_sequences(BOMBS[name].graph)


@pytest.mark.parametrize("name", BOMBS)
def test_inference_takes_little_for_it(name: str) -> None:
    program = (
        "import resource, sys, onnx\n"
        "from bnfold.graph.shapes import infer\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))\n"
        "infer(onnx.load_from_string(sys.stdin.buffer.read()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=BOMBS[name].SerializeToString(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("model", [doubled(4), counted(100)], ids=["doubled", "counted"])
def test_sequences_of_use_are_followed(model: ModelProto) -> None:
    assert not makes_long_sequences(model.graph)


def test_layers_that_join_features_are_no_such_sequences() -> None:
    """Blocks that join four branches, as networks of the Inception kind have, one behind the other."""
    steps = ["h0 = Relu(x)"]
    for step in range(20):
        steps += [f"b{step}_{branch} = Conv(h{step}, w)" for branch in range(4)]
        steps.append(f"j{step} = Concat<axis = 1>({', '.join(f'b{step}_{branch}' for branch in range(4))})")
        steps.append(f"h{step + 1} = Relu(j{step})")
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "g (float[N, C, 8, 8] x, float[4, C, 1, 1] w) => (float[N, D, 8, 8] y) "
        f"{{ {' '.join(steps)} y = Identity(h20) }}"
    )
    assert not makes_long_sequences(model.graph)


def test_a_shape_that_is_computed_is_still_followed() -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[2,3,4] x) => (float[a,b] y)
        <int64[1] zero = {0}, int64[1] rest = {12}> {
            s = Shape(x)
            n = Gather(s, zero)
            t = Concat<axis = 0>(n, rest)
            z = Reshape(x, t)
            y = Relu(z)
        }""")
    shape = infer(model)[()]["z"].shape
    assert shape is not None
    assert list(shape) == [2, 12]
