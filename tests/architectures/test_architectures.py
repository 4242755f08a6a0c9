"""Whole networks: what must stay of their batch norms, and that they compute the same without the others."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

import bnfold
from bnfold.fold import FoldPlan, apply, plan
from bnfold.parity.reference import run_float64
from bnfold.parity.run import Session
from tests.architectures.catalogue import ARCHITECTURES, Architecture
from tests.architectures.old_spelling import UnspeakableError, respelt

EACH = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
FEWEST = pytest.mark.parametrize(
    "architecture",
    [architecture for architecture in ARCHITECTURES if architecture.fewest is not None],
    ids=lambda architecture: architecture.name,
)
Dtype = Literal["float16", "float32", "float64"]
Arrays = dict[str, npt.NDArray[Any]]


@cache
def unfolded(architecture: Architecture, dtype: Dtype) -> onnx.ModelProto:
    model = architecture.model(dtype=dtype)
    onnx.checker.check_model(model, full_check=True)
    return model


@cache
def planned(architecture: Architecture, dtype: Dtype) -> FoldPlan:
    return plan(unfolded(architecture, dtype))


@cache
def folded(architecture: Architecture, dtype: Dtype) -> onnx.ModelProto:
    result = apply(unfolded(architecture, dtype), planned(architecture, dtype)).model
    onnx.checker.check_model(result, full_check=True)
    return result


def feeds_for(model: onnx.ModelProto, dtype: Dtype, *, side: int = 16) -> Arrays:
    """Draw every input: a batch of two, and sides of 16 where they are free."""
    rng = np.random.default_rng(11)
    feeds = {}
    for value in model.graph.input:
        sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        shape = [2, *(size or side for size in sizes[1:])]
        feeds[value.name] = rng.normal(size=shape).astype(dtype)
    return feeds


def distance(actual: Arrays, wanted: Arrays) -> float:
    """Return the largest error over all outputs, as part of the output's largest value."""
    assert list(actual) == list(wanted)
    assert all(np.max(np.abs(wanted[name])) > 1e-3 for name in wanted), "an output without values compares nothing"
    return max(
        float(np.max(np.abs(actual[name].astype(np.float64) - wanted[name])) / np.max(np.abs(wanted[name])))
        for name in wanted
    )


def operations(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@EACH
def test_what_stays_is_what_algebra_says(architecture: Architecture) -> None:
    model = unfolded(architecture, "float32")
    assert operations(model)["BatchNormalization"] == architecture.batch_norms
    made = planned(architecture, "float32")
    assert Counter(kept.refusal.reason.id for kept in made.kept) == architecture.stays
    left = operations(folded(architecture, "float32"))
    assert left["BatchNormalization"] == sum(architecture.stays.values())
    assert {op: left[op] for op in architecture.at_most if left[op] > architecture.at_most[op]} == {}


@FEWEST
def test_fewer_stay_where_an_add_or_a_max_may_take_their_place(architecture: Architecture) -> None:
    model = unfolded(architecture, "float32")
    made = plan(model, fewest=True)
    assert Counter(kept.refusal.reason.id for kept in made.kept) == architecture.fewest
    result = apply(model, made).model
    onnx.checker.check_model(result, full_check=True)
    # Each of them costs one node at most, as the batch norm did.
    before, after = (sum(operations(one).values()) - operations(one)["Constant"] for one in (model, result))
    assert after <= before
    feeds = feeds_for(model, "float32")
    exact = run_float64(model, feeds)
    assert distance(Session(result).run(feeds), exact) < 4 * distance(Session(model).run(feeds), exact) + 2e-6
    again = plan(result, fewest=True)
    assert again.folds == ()


@EACH
def test_every_batch_norm_is_accounted_for_once(architecture: Architecture) -> None:
    model, made = unfolded(architecture, "float32"), planned(architecture, "float32")
    subjects = [fold.subject for fold in made.folds] + [kept.subject for kept in made.kept]
    batch_norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    found = Counter(subject.output for subject in subjects if subject.op_type == "BatchNormalization")
    assert found == {node.output[0]: 1 for node in batch_norms}


@EACH
def test_it_computes_the_same_in_float64(architecture: Architecture) -> None:
    model = unfolded(architecture, "float64")
    feeds = feeds_for(model, "float64")
    expected = run_float64(model, feeds)
    assert distance(run_float64(folded(architecture, "float64"), feeds), expected) < 1e-12


@EACH
def test_it_computes_the_same_in_float32(architecture: Architecture) -> None:
    model = unfolded(architecture, "float32")
    feeds = feeds_for(model, "float32")
    exact = run_float64(model, feeds)
    before = distance(Session(model).run(feeds), exact)
    after = distance(Session(folded(architecture, "float32")).run(feeds), exact)
    assert after < 4 * before + 2e-6


def by_default(model: onnx.ModelProto, feeds: Arrays) -> Arrays:
    """Run a model as most people do: with whatever onnxruntime makes of it by itself."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in model.graph.output]
    return dict(zip(names, session.run(names, feeds), strict=True))


@EACH
def test_onnxruntime_may_optimise_what_is_left(architecture: Architecture) -> None:
    model, result = unfolded(architecture, "float32"), folded(architecture, "float32")
    feeds = feeds_for(model, "float32")
    exact = run_float64(model, feeds)
    # It is wrong itself where it makes the zeros of a Pad those of a MaxPool, which are smaller than any number.
    before, after = (distance(by_default(one, feeds), exact) for one in (model, result))
    assert after < 1.01 * before + 1e-5


@EACH
def test_onnxruntime_has_no_more_to_do_than_before(architecture: Architecture, tmp_path: Path) -> None:
    # What it makes of a model shows what breaks a pattern that it knows, or a layout: the nodes become more.
    counts = []
    for model in (unfolded(architecture, "float32"), folded(architecture, "float32")):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        left = operations(onnx.load(options.optimized_model_filepath))
        counts.append(sum(left.values()) - left["Constant"])
    assert counts[1] <= counts[0]


@EACH
def test_a_second_plan_is_empty(architecture: Architecture) -> None:
    first, again = planned(architecture, "float32"), plan(folded(architecture, "float32"))
    assert again.folds == ()
    assert [kept.subject.name for kept in again.kept] == [kept.subject.name for kept in first.kept]


@EACH
def test_what_no_fold_touches_is_byte_for_byte_the_same(architecture: Architecture) -> None:
    model, result = unfolded(architecture, "float32"), folded(architecture, "float32")
    for name in ("ir_version", "opset_import", "producer_name", "doc_string", "metadata_props"):
        assert getattr(result, name) == getattr(model, name)
    for name in ("name", "doc_string", "input", "output"):
        assert getattr(result.graph, name) == getattr(model.graph, name)

    tensors = {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer}
    kept = {tensor.name: tensor.SerializeToString() for tensor in result.graph.initializer if tensor.name in tensors}
    assert kept == {name: tensors[name] for name in kept}
    stated = {value.name: value for value in model.graph.value_info}
    for value in result.graph.value_info:
        assert value == stated.get(value.name, value)
    computed = {name for node in result.graph.node for name in node.output}
    assert {value.name for value in result.graph.value_info} <= computed
    assert stated.keys() & computed <= {value.name for value in result.graph.value_info}
    properties = {node.name: node.metadata_props for node in model.graph.node if node.metadata_props}
    assert all(node.metadata_props == properties[node.name] for node in result.graph.node if node.name in properties)
    # A constant that is gone was a batch norm's, or an input of a node that is gone or reads another one now.
    nodes = {node.SerializeToString() for node in result.graph.node}
    changed = {name for node in model.graph.node if node.SerializeToString() not in nodes for name in node.input}
    assert tensors.keys() - kept.keys() <= changed
    # The nodes that are left have their names, their operation and their order.
    names = {node.name: node.op_type for node in model.graph.node if node.name}
    left = [node.name for node in result.graph.node if node.name in names and node.op_type == names[node.name]]
    assert left == [name for name in names if name in set(left)]


@EACH
def test_the_file_does_not_grow(architecture: Architecture) -> None:
    before, after = (which(architecture, "float32").ByteSize() for which in (unfolded, folded))
    shared = 2.5 if architecture.name == "EfficientDet" else 1.0  # a batch norm of its own for each of three levels
    assert after <= shared * before


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@EACH
def test_dead_channels_do_no_harm(architecture: Architecture, dtype: Dtype) -> None:
    model = architecture.model(dtype=dtype, gammas="dead")
    result = apply(model, plan(model)).model
    feeds = feeds_for(model, dtype)
    exact = run_float64(model, feeds)
    if dtype == "float64":
        assert distance(run_float64(result, feeds), exact) < 1e-11
        return
    before, after = (distance(Session(one).run(feeds), exact) for one in (model, result))
    assert after < 4 * before + 2e-6


PROVEN = (
    "ResNetV2, bottleneck",
    "DenseNet",
    "MobileOne",
    "FastViT",
    "LeViT, dynamic",
    "LeViT, computed shapes",
    "HRNet, computed shapes",
    "CRNN, batch norm last",
    "IR-ResNet",
)


@pytest.mark.parametrize("name", PROVEN)
def test_a_fold_through_branches_and_streams_is_proven_whole(name: str, tmp_path: Path) -> None:
    architecture = next(architecture for architecture in ARCHITECTURES if architecture.name == name)
    onnx.save(unfolded(architecture, "float32"), tmp_path / "network.onnx")
    report = bnfold.fold_onnx(tmp_path / "network.onnx").report
    assert report.verdict in {"pass", "pass-more-accurate"}
    outcomes = Counter(batch_norm.outcome for batch_norm in report.batch_norms)
    stays = sum(architecture.stays.values())
    assert outcomes == {"folded": architecture.batch_norms - stays, **({"kept": stays} if stays else {})}


# Spelling changes from version to version: axes become inputs, Clip's bounds are inputs, Split needs sizes, batch norm
# gains a type for its statistics.
OPSETS = (14, 16, 18, 21, 24, onnx.defs.onnx_opset_version())
OLD_ENOUGH = ("ResNet, basic", "MobileNetV3", "ShuffleNetV2", "PointNet", "CRNN, batch norm last", "RepVGG", "LeViT")


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", OLD_ENOUGH)
def test_what_stays_does_not_depend_on_the_opset(name: str, opset: int) -> None:
    architecture = next(architecture for architecture in ARCHITECTURES if architecture.name == name)
    model = architecture.model(dtype="float64", opset=opset)
    onnx.checker.check_model(model, full_check=True)
    made = plan(model)
    assert Counter(kept.refusal.reason.id for kept in made.kept) == architecture.stays
    result = apply(model, made).model
    onnx.checker.check_model(result, full_check=True)
    assert result.opset_import == model.opset_import
    feeds = feeds_for(model, "float64")
    assert distance(run_float64(result, feeds), run_float64(model, feeds)) < 1e-12


# Before, nearly everything was an attribute, and before opset 7 broadcasting was said where it was to happen.
OLD_OPSETS = (6, 7, 9, 10, 12)
OLDEST = (
    "ResNet, basic",
    "ResNetV2, basic",
    "ResNetV2, Keras",
    "MobileNetV2",
    "ShuffleNetV2",
    "DenseNet",
    "GAN of upsampling",
    "CRNN, batch norm last",
    "SSD, frozen",
    "RepVGG",
    "Temporal convolutions",
)
# What an opset has no words for.
UNSPEAKABLE = {
    6: {"DenseNet", "GAN of upsampling", "SSD, frozen"},
}


@pytest.mark.parametrize("opset", OLD_OPSETS)
@pytest.mark.parametrize("name", OLDEST)
def test_what_stays_does_not_depend_on_how_old_the_opset_is(name: str, opset: int) -> None:
    architecture = next(architecture for architecture in ARCHITECTURES if architecture.name == name)
    young = architecture.model(dtype="float64", opset=14)
    if name in UNSPEAKABLE.get(opset, ()):
        with pytest.raises(UnspeakableError):
            respelt(young, opset)
        return
    model = respelt(young, opset)
    onnx.checker.check_model(model, full_check=True)
    made = plan(model)
    # In float64 an Add takes no longer than a batch norm.
    stays = architecture.stays if architecture.fewest is None else architecture.fewest
    assert Counter(kept.refusal.reason.id for kept in made.kept) == stays
    result = apply(model, made).model
    onnx.checker.check_model(result, full_check=True)
    assert result.opset_import == model.opset_import
    feeds = feeds_for(young, "float64")
    assert distance(run_float64(result, feeds), run_float64(model, feeds)) < 1e-12
    assert distance(run_float64(model, feeds), run_float64(young, feeds)) < 1e-6 or name == "GAN of upsampling"


@pytest.mark.parametrize("name", ["ResNet, basic", "MobileNetV3", "DenseNet", "RepVGG", "LeViT", "DCGAN"])
def test_float16_folds_as_float32_does(name: str) -> None:
    architecture = next(architecture for architecture in ARCHITECTURES if architecture.name == name)
    model = architecture.model(dtype="float16")
    made = plan(model)
    # Where there are no blocked kernels, an Add takes no longer than a batch norm.
    stays = architecture.stays if architecture.fewest is None else architecture.fewest
    assert Counter(kept.refusal.reason.id for kept in made.kept) == stays
    result = apply(model, made).model
    onnx.checker.check_model(result, full_check=True)
    feeds = feeds_for(model, "float16")
    exact = run_float64(model, feeds)
    before, after = (distance(Session(one, native=False).run(feeds), exact) for one in (model, result))
    assert after < 3 * before + 1e-3
