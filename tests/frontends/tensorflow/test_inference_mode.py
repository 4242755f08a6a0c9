"""Programs in many spellings, each converted and compared with itself, run in inference mode by TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from bnfold.errors import InferenceModeError
from bnfold.frontends.loaded import Loaded, Request
from bnfold.frontends.tensorflow import checkpoint, frozen_graph
from bnfold.frontends.tensorflow.guests import tensorflow
from tests.frontends.tensorflow.programs import (
    Array,
    Written,
    averaged_norm,
    beta_gamma,
    dense,
    loss_of,
    moving_norm,
    write,
)

pytestmark = pytest.mark.tensorflow

ON, OFF = True, False


def tf() -> Any:
    return tensorflow()


def v1() -> Any:
    return tensorflow().compat.v1


def given_x(width: int = 6, dtype: str = "float32") -> Any:
    return v1().placeholder(dtype, [None, width], name="x")


def image_x() -> Any:
    return v1().placeholder("float32", [None, 6, 6, 3], name="x")


# --- the programs -------------------------------------------------------------------------------------------------


def switched_average() -> list[Any]:
    x = given_x(dtype="float64")
    train = v1().placeholder("bool", name="phase_train")
    h = averaged_norm(dense(x, 8, "one"), lambda a, b: v1().cond(train, a, b), "bn1")
    h = averaged_norm(dense(tf().nn.relu(h), 7, "two"), lambda a, b: v1().cond(train, a, b), "bn2")
    logits = dense(tf().nn.relu(h), 4, "three")
    loss_of(logits)
    return [logits]


def default_is_training() -> list[Any]:
    train = v1().placeholder_with_default(ON, [], name="is_training")
    return [dense(moving_norm(given_x(), train, "bn"), 4, "out")]


def learning_phase() -> list[Any]:
    phase = v1().placeholder_with_default(OFF, [], name="keras_learning_phase")
    h = moving_norm(dense(given_x(), 5, "one"), phase, "bn")
    return [dense(v1().cond(phase, lambda: tf().nn.dropout(h, rate=0.4), lambda: tf().identity(h)), 3, "out")]


def fused_switched() -> list[Any]:
    train = v1().placeholder("bool", name="train")
    kernel = v1().get_variable("kernel", [3, 3, 3, 5])
    h = tf().nn.conv2d(image_x(), kernel, 1, "SAME")
    h = tf().nn.relu(moving_norm(h, train, "bn", fused=True))
    return [dense(tf().reduce_mean(h, [1, 2]), 3, "out")]


def inverted() -> list[Any]:
    test = v1().placeholder("bool", name="is_test")
    return [dense(moving_norm(given_x(), tf().logical_not(test), "bn"), 4, "out")]


def misleading() -> list[Any]:
    """A flag with the name of one thing and the meaning of the other: only the graph tells."""
    flag = v1().placeholder("bool", name="is_training")
    return [dense(moving_norm(given_x(), tf().logical_not(flag), "bn"), 4, "out")]


def by_number() -> list[Any]:
    mode = v1().placeholder("int32", [], name="mode")
    return [dense(moving_norm(given_x(), tf().equal(mode, 2), "bn"), 4, "out")]


def by_cast() -> list[Any]:
    mode = v1().placeholder("float32", [], name="mode")
    return [dense(moving_norm(given_x(), tf().cast(mode, "bool"), "bn"), 4, "out")]


def by_text() -> list[Any]:
    mode = v1().placeholder("string", [], name="mode")
    return [dense(moving_norm(given_x(), tf().equal(mode, "train"), "bn"), 4, "out")]


def in_a_variable() -> list[Any]:
    flag = v1().get_variable("is_training", [], "bool", v1().ones_initializer(), trainable=False)
    return [dense(moving_norm(given_x(), flag, "bn"), 4, "out")]


def in_a_constant() -> list[Any]:
    return [dense(averaged_norm(given_x(), lambda a, b: v1().cond(tf().constant(ON), a, b), "bn"), 4, "out")]


def nested() -> list[Any]:
    train = v1().placeholder("bool", name="train")
    average = v1().placeholder_with_default(ON, [], name="with_average")
    h = dense(given_x(), 5, "one")

    def inner() -> Any:
        return v1().cond(average, lambda: moving_norm(h, tf().constant(OFF), "bn"), lambda: h * 2.0)

    with v1().variable_scope("", reuse=v1().AUTO_REUSE):
        y = v1().cond(train, lambda: moving_norm(h, tf().constant(ON), "bn"), inner)
    return [dense(y, 3, "out")]


def two_flags() -> list[Any]:
    first = v1().placeholder("bool", name="bn_train")
    second = v1().placeholder("bool", name="use_noise")
    h = moving_norm(dense(given_x(), 5, "one"), tf().logical_and(first, ON), "bn")
    return [dense(v1().cond(second, lambda: tf().nn.dropout(h, rate=0.3), lambda: h), 3, "out")]


def by_select() -> list[Any]:
    train = v1().placeholder("bool", [], name="train")
    x = given_x()
    beta, gamma = beta_gamma(6, tf().float32)
    mean = v1().get_variable("moving_mean", [6])
    variance = v1().get_variable("moving_variance", [6])
    m, v = tf().nn.moments(x, [0])
    return [
        tf().nn.batch_normalization(
            x, v1().where_v2(train, m, mean), v1().where_v2(train, v, variance), beta, gamma, 1e-3, name="y"
        )
    ]


def _blended(train: Any) -> list[Any]:
    x = given_x()
    beta, gamma = beta_gamma(6, tf().float32)
    mean = v1().get_variable("moving_mean", [6])
    variance = v1().get_variable("moving_variance", [6])
    m, v = tf().nn.moments(x, [0])
    mean, variance = train * m + (1.0 - train) * mean, variance + train * (v - variance)
    return [dense(tf().nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3), 3, "out")]


def by_weight() -> list[Any]:
    """No branch: a number blends the statistics of the batch with the moving ones."""
    return _blended(v1().placeholder("float32", [], name="phase"))


def by_cast_weight() -> list[Any]:
    return _blended(tf().cast(v1().placeholder_with_default(ON, [], name="learning"), "float32"))


def weighted_noise() -> list[Any]:
    size = v1().placeholder("float32", [], name="noise")
    x = given_x()
    return [dense(x + v1().random_normal(tf().shape(x), stddev=size), 3, "out")]


def a_weight() -> list[Any]:
    """A number that weighs the same in both modes is an input, not a mode."""
    alpha = v1().placeholder("float32", [], name="alpha")
    x = given_x()
    return [dense(alpha * dense(x, 5, "one") + (1.0 - alpha) * dense(x, 5, "two"), 3, "out")]


def layer_norm() -> list[Any]:
    x = given_x()
    m, v = tf().nn.moments(x, [-1], keepdims=True)
    beta, gamma = beta_gamma(6, tf().float32)
    return [dense(tf().nn.batch_normalization(x, m, v, beta, gamma, 1e-3), 3, "out")]


def keep_prob() -> list[Any]:
    keep = v1().placeholder("float32", name="keep_prob")
    h = tf().nn.relu(dense(given_x(), 9, "one"))
    return [dense(v1().nn.dropout(h, keep_prob=keep), 3, "out")]


def drop_rate() -> list[Any]:
    rate = v1().placeholder_with_default(0.5, [], name="drop_rate")
    h = tf().nn.relu(dense(given_x(), 9, "one"))
    return [dense(tf().nn.dropout(h, rate=rate), 3, "out")]


def old_dropout() -> list[Any]:
    """Dropout as TensorFlow 1 itself spelled it until 1.12, twice, one of them divided afterwards."""
    keep = v1().placeholder("float32", [], name="keep")
    h = tf().nn.relu(dense(given_x(), 9, "one"))
    mask = tf().floor(keep + v1().random_uniform(tf().shape(h)))
    h = tf().math.divide(h, keep) * mask
    other = tf().floor(keep + v1().random_uniform(tf().shape(h)))
    return [dense((h * other) / keep, 3, "out")]


def switched_keep() -> list[Any]:
    train = v1().placeholder("bool", [], name="train")
    keep = v1().cond(train, lambda: tf().constant(0.5), lambda: tf().constant(1.0))
    return [dense(v1().nn.dropout(dense(given_x(), 9, "one"), keep_prob=keep), 3, "out")]


def loops() -> list[Any]:
    """A loop stays what it is; the batch norm in front of it is switched."""
    train = v1().placeholder("bool", name="train")
    h = moving_norm(dense(given_x(), 5, "one"), train, "bn")
    _, h = v1().while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, y * 0.5 + 1.0), [tf().constant(0), h])
    return [tf().identity(h, name="y")]


def conditional() -> list[Any]:
    """A condition on the data itself is no mode."""
    x = given_x()
    train = v1().placeholder("bool", name="train")
    h = moving_norm(x, train, "bn")
    return [tf().identity(v1().cond(tf().reduce_sum(x) > 0.0, lambda: h * 2.0, lambda: h - 1.0), name="y")]


def an_option() -> list[Any]:
    """A bool that changes the result in both modes alike is an input, not a mode."""
    x = given_x()
    flip = v1().placeholder("bool", [], name="flip")
    return [dense(v1().cond(flip, lambda: -x, lambda: x), 3, "out")]


@dataclass(frozen=True)
class Case:
    define: Callable[[], list[Any]]
    modes: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (5, 6)
    changed: tuple[str, ...] = ()
    extra: Mapping[str, Array] = field(default_factory=dict)


SWITCHED = [
    Case(switched_average, {"phase_train:0": False}, changed=("phase_train",)),
    Case(default_is_training, {"is_training:0": False}, changed=("is_training",)),
    Case(learning_phase, {"keras_learning_phase:0": False}, changed=("keras_learning_phase",)),
    Case(fused_switched, {"train:0": False}, (2, 6, 6, 3), ("train",)),
    Case(inverted, {"is_test:0": True}, changed=("is_test",)),
    Case(misleading, {"is_training:0": True}, changed=("is_training",)),
    Case(by_number, {"mode:0": 0}, changed=("mode",)),
    Case(by_cast, {"mode:0": 0.0}, changed=("mode",)),
    Case(by_text, {"mode:0": "eval"}, changed=("mode",)),
    Case(in_a_constant, {"bn/Const:0": False}, changed=("bn/Const",)),
    Case(nested, {"train:0": False}, changed=("train", "with_average")),
    Case(two_flags, {"bn_train:0": False, "use_noise:0": False}, changed=("bn_train", "use_noise")),
    Case(by_select, {"train:0": False}, changed=("train",)),
    Case(by_weight, {"phase:0": 0.0}, changed=("phase",)),
    Case(by_cast_weight, {"learning:0": False}, changed=("learning",)),
    Case(weighted_noise, {"noise:0": 0.0}, changed=("noise",)),
    Case(a_weight, extra={"alpha:0": np.array(0.3, np.float32)}),
    Case(layer_norm),
    Case(keep_prob, {"keep_prob:0": 1.0}, changed=("keep_prob",)),
    Case(drop_rate, {"drop_rate:0": 0.0}, changed=("drop_rate",)),
    Case(old_dropout, {"keep:0": 1.0}, changed=("keep",)),
    Case(switched_keep, {"train:0": False}, changed=("train",)),
    Case(loops, {"train:0": False}, changed=("train",)),
    Case(conditional, {"train:0": False}, changed=("train",)),
    Case(an_option, extra={"flip:0": np.array(ON)}),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[], list[Any]], int], Written]:
    made: dict[tuple[str, int], Written] = {}

    def get(define: Callable[[], list[Any]], version: int) -> Written:
        key = define.__name__, version
        if key not in made:
            made[key] = write(tmp_path_factory.mktemp(define.__name__), define, version=version)
        return made[key]

    return get


def run_onnx(loaded: Loaded, feeds: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(loaded.model.SerializeToString(), options)
    found: list[Array] = session.run(None, dict(feeds))
    return found


def feeds_for(loaded: Loaded, case: Case) -> dict[str, Array]:
    rng = np.random.default_rng(11)
    (x,) = [spec for spec in loaded.inputs if spec.name == "x:0"]
    return {"x:0": rng.normal(1.0, 2.0, case.shape).astype(x.dtype), **case.extra}


def agree(got: list[Array], expected: list[Array]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        tolerance = 1e-12 if other.dtype == np.float64 else 2e-5
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("form", ["checkpoint", "frozen"])
@pytest.mark.parametrize("case", SWITCHED, ids=lambda case: case.define.__name__)
def test_a_program_converts_to_what_it_computes_in_inference_mode(
    case: Case, form: str, version: int, written: Callable[[Callable[[], list[Any]], int], Written]
) -> None:
    program = written(case.define, version)
    request = Request(outputs=program.outputs)
    loaded = (
        checkpoint.load(program.prefix, request) if form == "checkpoint" else frozen_graph.load(program.frozen, request)
    )
    feeds = feeds_for(loaded, case)
    assert {spec.name for spec in loaded.inputs} == set(feeds)
    expected = program.oracle(feeds, case.modes)
    agree(run_onnx(loaded, feeds), expected)
    assert loaded.run is not None
    agree(list(loaded.run(feeds).values()), expected)
    assert {change.name for change in loaded.mode} == set(case.changed)


@pytest.mark.parametrize("version", [1, 2])
def test_a_flag_in_a_variable_or_a_constant_is_turned(
    version: int, written: Callable[[Callable[[], list[Any]], int], Written]
) -> None:
    program = written(in_a_variable, version)
    loaded = checkpoint.load(program.prefix, Request(outputs=program.outputs))
    feeds = feeds_for(loaded, Case(in_a_variable))
    mean, variance = program.values["bn/pop_mean"], program.values["bn/pop_var"]
    x = feeds["x:0"]
    y = (x - mean) / np.sqrt(variance + 1e-3) * program.values["bn/gamma"] + program.values["bn/beta"]
    agree(run_onnx(loaded, feeds), [y @ program.values["out/weights"] + program.values["out/biases"]])
    (change,) = loaded.mode
    assert (change.before, change.after) == ("bool variable with the value True", "False")
    assert change.proof == "True leaves 2 batch-statistics nodes, False leaves 0"


def test_the_proof_counts_what_each_value_leaves(
    written: Callable[[Callable[[], list[Any]], int], Written],
) -> None:
    program = written(switched_average, 1)
    loaded = checkpoint.load(program.prefix, Request())
    assert [change.proof for change in loaded.mode] == ["True leaves 4 batch-statistics nodes, False leaves 0"]
    assert [spec.name for spec in loaded.outputs] == [program.outputs[0]]
    norms = [node.name for node in loaded.model.graph.node if node.op_type == "BatchNormalization"]
    assert norms == ["bn1", "bn2"]


# --- always in training mode --------------------------------------------------------------------------------------


def always_averaged() -> list[Any]:
    x = given_x()
    h = averaged_norm(x, lambda a, _: a(), "bn1")
    h = averaged_norm(tf().nn.relu(dense(h, 5, "one")), lambda a, _: a(), "bn2")
    return [dense(h, 3, "out")]


def always_debiased() -> list[Any]:
    h = averaged_norm(given_x(), lambda a, _: a(), "bn1", debias=True)
    h = averaged_norm(tf().nn.relu(dense(h, 5, "one")), lambda a, _: a(), "bn2", debias=True)
    return [dense(h, 3, "out")]


def always_assigned() -> list[Any]:
    h = moving_norm(dense(given_x(), 5, "one"), ON, "bn")
    return [dense(h, 3, "out")]


def always_fused() -> list[Any]:
    kernel = v1().get_variable("kernel", [3, 3, 3, 5])
    h = moving_norm(tf().nn.conv2d(image_x(), kernel, 1, "VALID"), ON, "bn", fused=True)
    return [dense(tf().reduce_max(h, [1, 2]), 3, "out")]


def never_averaged() -> list[Any]:
    h = tf().nn.conv2d(image_x(), v1().get_variable("kernel", [3, 3, 3, 5]), 1, "VALID")
    beta, gamma = beta_gamma(5, tf().float32)
    h, _, _ = v1().nn.fused_batch_norm(h, gamma, beta, epsilon=1e-3, is_training=True, name="bn")
    mean, variance = tf().nn.moments(h, [0, 1, 2], name="again")
    h = tf().nn.batch_normalization(h, mean, variance, None, None, 1e-3)
    return [dense(tf().reduce_max(h, [1, 2]), 3, "out")]


def by_squares() -> list[Any]:
    """The variance as the mean of squares minus the square of the mean, and statistics that only names tell."""
    x = given_x()
    with v1().variable_scope("norm"):
        beta, gamma = beta_gamma(6, tf().float32)
        v1().get_variable("moving_mean", [6])
        v1().get_variable("moving_variance", [6])
        mean = tf().reduce_mean(x, axis=0, keepdims=True)
        variance = tf().reduce_mean(tf().square(x), axis=0, keepdims=True) - tf().square(mean)
        y = (x - mean) / tf().sqrt(variance + 1e-3) * gamma + beta
    return [dense(y, 3, "out")]


def normalised(x: Array, values: Mapping[str, Array], scope: str, mean: str, variance: str) -> Array:
    scale = values[f"{scope}/gamma"] / np.sqrt(values[variance] + 1e-3)
    found: Array = (x - values[mean]) * scale + values[f"{scope}/beta"]
    return found


def layered(x: Array, values: Mapping[str, Array], scope: str) -> Array:
    found: Array = x @ values[f"{scope}/weights"] + values[f"{scope}/biases"]
    return found


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("define", [always_averaged, always_debiased], ids=lambda define: define.__name__)
def test_averages_of_moments_take_the_place_of_the_moments(
    define: Callable[[], list[Any]], version: int, written: Callable[[Callable[[], list[Any]], int], Written]
) -> None:
    program = written(define, version)
    assert any(name.endswith("/biased") for name in program.values) == (define is always_debiased)
    loaded = checkpoint.load(program.prefix, Request(outputs=program.outputs))
    x = feeds_for(loaded, Case(always_averaged))["x:0"]
    values = program.values
    names = {
        scope: [
            next(n for n in values if n.endswith(f"{scope}/moments/{end}/ExponentialMovingAverage")) for end in ends
        ]
        for scope, ends in (("bn1", ("Squeeze", "Squeeze_1")), ("bn2", ("Squeeze", "Squeeze_1")))
    }
    h = normalised(x, values, "bn1", *names["bn1"])
    h = normalised(np.maximum(layered(h, values, "one"), 0), values, "bn2", *names["bn2"])
    agree(run_onnx(loaded, {"x:0": x}), [layered(h, values, "out")])
    assert loaded.run is not None
    agree(list(loaded.run({"x:0": x}).values()), [layered(h, values, "out")])
    norms = [node.name for node in loaded.model.graph.node if node.op_type == "BatchNormalization"]
    assert norms == ["bn1", "bn2"]
    assert {change.kind for change in loaded.mode} == {"statistics"}
    assert {change.after for change in loaded.mode} == {name for pair in names.values() for name in pair}
    assert loaded.mode[0].proof == "its update operation names it"
    assert loaded.mode[-1].proof.endswith(
        "the original has no inference path of its own: compared with this rewritten TensorFlow graph"
    )


@pytest.mark.parametrize("version", [1, 2])
def test_a_moving_average_that_is_assigned_is_found_by_the_assignment(
    version: int, written: Callable[[Callable[[], list[Any]], int], Written]
) -> None:
    program = written(always_assigned, version)
    loaded = checkpoint.load(program.prefix, Request(outputs=program.outputs))
    x = feeds_for(loaded, Case(always_assigned))["x:0"]
    values = program.values
    h = normalised(layered(x, values, "one"), values, "bn", "bn/pop_mean", "bn/pop_var")
    agree(run_onnx(loaded, {"x:0": x}), [layered(h, values, "out")])
    assert {change.proof.partition(";")[0] for change in loaded.mode} == {"its update operation names it"}


@pytest.mark.parametrize("version", [1, 2])
def test_a_fused_batch_norm_is_flipped_and_named_after_its_scope(
    version: int, written: Callable[[Callable[[], list[Any]], int], Written]
) -> None:
    program = written(always_fused, version)
    loaded = checkpoint.load(program.prefix, Request(outputs=program.outputs))
    norms = [node for node in loaded.model.graph.node if node.op_type == "BatchNormalization"]
    assert [node.name for node in norms] == ["bn"]
    tensors = {tensor.name: tensor for tensor in loaded.model.graph.initializer}
    for name, stored in zip(norms[0].input[3:], ("bn/pop_mean", "bn/pop_var"), strict=True):
        raw = np.frombuffer(tensors[name].raw_data, np.float32)
        np.testing.assert_array_equal(raw, program.values[stored])


def test_names_tell_where_no_update_does(written: Callable[[Callable[[], list[Any]], int], Written]) -> None:
    program = written(by_squares, 1)
    loaded = checkpoint.load(program.prefix, Request(outputs=program.outputs))
    x = feeds_for(loaded, Case(by_squares))["x:0"]
    values = program.values
    h = normalised(x, values, "norm", "norm/moving_mean", "norm/moving_variance")
    agree(run_onnx(loaded, {"x:0": x}), [layered(h, values, "out")])
    assert {change.proof.partition(";")[0] for change in loaded.mode} == {"its name in the checkpoint model.ckpt-3"}


def test_averages_that_only_the_checkpoint_holds_are_found_by_their_names(
    tmp_path: Path, written: Callable[[Callable[[], list[Any]], int], Written]
) -> None:
    """The graph of a program that evaluates, written without its updates, beside the checkpoint of training."""
    program = written(always_averaged, 1)

    def without_updates() -> list[Any]:
        def norm(x: Any, scope: str) -> Any:
            with v1().variable_scope(scope):
                beta, gamma = beta_gamma(int(x.shape[-1]), tf().float32)
                mean, variance = tf().nn.moments(x, [0], name="moments")
                return tf().nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)

        h = norm(given_x(), "bn1")
        h = norm(tf().nn.relu(dense(h, 5, "one")), "bn2")
        return [dense(h, 3, "out")]

    meta = write(tmp_path / "eval", without_updates).prefix
    for suffix in (".index", ".data-00000-of-00001"):
        content = program.prefix.with_name(program.prefix.name + suffix).read_bytes()
        meta.with_name(meta.name + suffix).write_bytes(content)
    loaded = checkpoint.load(meta, Request())
    trained = checkpoint.load(program.prefix, Request(outputs=program.outputs))
    feeds = feeds_for(loaded, Case(without_updates))
    agree(run_onnx(loaded, feeds), run_onnx(trained, feeds))


@pytest.mark.parametrize(
    ("fixed", "reason"),
    [
        ({"/local_step": 0.0}, "was never updated: its count of updates is 0"),
        ({"Squeeze_1/ExponentialMovingAverage": -1.0}, "holds a negative variance, -1"),
        ({"Squeeze_1/ExponentialMovingAverage": float("nan")}, "holds values that are not finite"),
        ({"Squeeze_1/ExponentialMovingAverage": 0.0}, "was never updated: all its values are 0"),
    ],
)
def test_averages_that_cannot_be_meant_are_refused(tmp_path: Path, fixed: dict[str, float], reason: str) -> None:
    program = write(tmp_path, always_debiased, fixed=fixed)
    with pytest.raises(InferenceModeError) as caught:
        checkpoint.load(program.prefix, Request(outputs=program.outputs))
    name = "bn1/moments/Squeeze_1/ExponentialMovingAverage"
    assert f"bn1/moments/variance: {name} {reason}" in str(caught.value).replace("bn1/bn1/", "bn1/")


@pytest.mark.parametrize("form", ["checkpoint", "frozen"])
def test_statistics_that_nobody_averaged_are_refused_with_their_names(
    form: str, written: Callable[[Callable[[], list[Any]], int], Written]
) -> None:
    program = written(never_averaged, 1)
    place = "the graph" if form == "frozen" else "the checkpoint model.ckpt-3"
    load, path = (frozen_graph.load, program.frozen) if form == "frozen" else (checkpoint.load, program.prefix)
    with pytest.raises(InferenceModeError) as caught:
        load(path, Request())
    assert str(caught.value) == (
        f"3 batch statistics have no moving average: bn: {place} holds no moving mean for it; "
        f"again/variance: {place} holds no moving variance for it; again/mean: {place} holds no moving mean for it"
    )
    assert caught.value.hint == (
        "Take the checkpoint, which holds the moving averages, or train with batch norms that keep them."
    )


def renormalised() -> list[Any]:
    """Batch renormalisation while it trains: the statistics of the batch are corrected with averaged ones."""
    x = given_x()
    with v1().variable_scope("bn"):
        averages = [v1().get_variable(name, [6], trainable=False) for name in ("moving_mean", "moving_variance")]
        mean, variance = tf().nn.moments(x, [0])
        deviation = tf().sqrt(variance + 1e-3)
        renorm_mean, renorm_deviation = (v1().get_variable(name, [6]) for name in ("renorm_mean", "renorm_stddev"))
        r = tf().clip_by_value(deviation / renorm_deviation, 0.3, 3.0)
        d = tf().clip_by_value((mean - renorm_mean) / renorm_deviation, -2.0, 2.0)
        with tf().control_dependencies([v1().assign(averages[0], mean), v1().assign(averages[1], variance)]):
            y = (x - mean) / deviation * tf().stop_gradient(r) + tf().stop_gradient(d)
    return [dense(y, 3, "out")]


@pytest.mark.parametrize("form", ["checkpoint", "frozen"])
def test_batch_renormalisation_in_training_is_refused(
    form: str, written: Callable[[Callable[[], list[Any]], int], Written]
) -> None:
    program = written(renormalised, 1)
    load, path = (frozen_graph.load, program.frozen) if form == "frozen" else (checkpoint.load, program.prefix)
    with pytest.raises(InferenceModeError) as caught:
        load(path, Request(outputs=program.outputs))
    assert str(caught.value) == (
        "2 operations correct statistics of the batch with others, as batch renormalisation does while it trains: "
        "bn/truediv, bn/truediv_1"
    )
    assert caught.value.hint == "Pin the input that switches training off, or give the graph that evaluates."


# --- random numbers -----------------------------------------------------------------------------------------------


def constant_rate() -> list[Any]:
    h = tf().nn.relu(dense(given_x(), 9, "one"))
    return [dense(tf().nn.dropout(h, rate=0.25), 3, "out")]


def noise() -> list[Any]:
    h = dense(given_x(), 9, "one")
    return [dense(h + v1().random_normal(tf().shape(h), stddev=0.3), 3, "out")]


@pytest.mark.parametrize("define", [constant_rate, noise], ids=lambda define: define.__name__)
def test_noise_of_a_constant_size_goes(
    define: Callable[[], list[Any]], written: Callable[[Callable[[], list[Any]], int], Written]
) -> None:
    program = written(define, 1)
    loaded = frozen_graph.load(program.frozen, Request())
    x = feeds_for(loaded, Case(define))["x:0"]
    h = layered(x, program.values, "one")
    if define is constant_rate:
        h = np.maximum(h, 0)
    agree(run_onnx(loaded, {"x:0": x}), [layered(h, program.values, "out")])
    (change,) = loaded.mode
    assert (change.kind, change.after) == ("dropout", "identity")
    assert change.before == (
        "dropout that keeps 0.75 of its elements" if define is constant_rate else "noise of a constant size"
    )


def sampled() -> list[Any]:
    h = dense(given_x(), 4, "one")
    spread = tf().exp(dense(given_x_again(), 4, "spread"))
    return [dense(h + spread * v1().random_normal(tf().shape(h), name="draw"), 3, "out")]


def given_x_again() -> Any:
    return v1().get_default_graph().get_tensor_by_name("x:0")


def test_random_numbers_that_belong_to_the_network_are_refused(
    written: Callable[[Callable[[], list[Any]], int], Written],
) -> None:
    program = written(sampled, 1)
    with pytest.raises(InferenceModeError) as caught:
        frozen_graph.load(program.frozen, Request())
    assert str(caught.value) == ("1 random operation is left that no dropout explains: draw/RandomStandardNormal")


def test_a_value_that_the_user_sets_is_taken(
    written: Callable[[Callable[[], list[Any]], int], Written],
) -> None:
    program = written(an_option, 1)
    loaded = frozen_graph.load(program.frozen, Request(set_values={"flip": "true"}))
    feeds = feeds_for(loaded, Case(an_option))
    agree(run_onnx(loaded, feeds), program.oracle(feeds, {"flip:0": True}))
    assert [spec.name for spec in loaded.inputs] == ["x:0"]
    assert loaded.mode[0].proof == "set by the user"
