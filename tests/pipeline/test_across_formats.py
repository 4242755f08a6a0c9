"""Comparing artifacts of different formats: a Keras file, a SavedModel and a frozen graph with ONNX files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold import frontends
from bnfold.frontends.loaded import Loaded, Request
from bnfold.graph.ports import renamed
from bnfold.parity import Verdict, verify

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
FAST = bnfold.Options(verify="fast")


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual net with two branches, a model inside of the model, and batch norms with statistics."""
    import keras

    generator = np.random.default_rng(0)
    inner = keras.Sequential(
        [keras.layers.Conv2D(8, 3, padding="same", name="deep"), keras.layers.ReLU(name="deep_relu")]
    )
    x = keras.Input((12, 12, 3), name="image")
    h = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    h = keras.layers.BatchNormalization(name="stem_bn")(h)
    h = keras.layers.ReLU(name="stem_relu")(h)
    left = keras.layers.BatchNormalization(name="left_bn")(inner(h))
    right = keras.layers.DepthwiseConv2D(3, padding="same", name="right")(h)
    h = keras.layers.Add(name="both")([left, right])
    h = keras.layers.Dropout(0.2, name="drop")(h)
    h = keras.layers.GlobalAveragePooling2D(name="pool")(h)
    model = keras.Model(x, keras.layers.Dense(5, name="scores")(h), name="two_ways")
    for variable in model.weights:
        low = 0.5 if "variance" in variable.path or "gamma" in variable.path else -0.5
        variable.assign(generator.uniform(low, low + 1, size=variable.shape))
    path = tmp_path_factory.mktemp("keras") / "two_ways.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def folded(keras_file: Path) -> onnx.ModelProto:
    conversion = bnfold.convert(keras_file, FAST)
    assert conversion.report.verdict in {"pass", "pass-more-accurate"}
    return conversion.model


@pytest.fixture(scope="module")
def plain(loaded: Loaded) -> onnx.ModelProto:
    return loaded.model


@pytest.fixture(scope="module")
def loaded(keras_file: Path) -> Loaded:
    return frontends.load(keras_file, Request())


def _strange(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with names of its own for everything inside."""
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    inner = [name for node in model.graph.node for name in node.output if name not in ends]
    return renamed(model, {name: f"value_{number}" for number, name in enumerate(inner)})


def _damaged(model: onnx.ModelProto, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A copy in which one channel of the only weight of a shape is off."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (tensor,) = (tensor for tensor in copy.graph.initializer if tuple(tensor.dims) == shape)
    array = np.array(numpy_helper.to_array(tensor))
    array[1] *= 1.25
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def test_a_keras_file_and_its_conversion_compute_the_same(
    keras_file: Path, folded: onnx.ModelProto, tmp_path: Path
) -> None:
    for number, model in enumerate((folded, _strange(folded))):
        onnx.save(model, tmp_path / f"{number}.onnx")
        report = bnfold.verify(keras_file, tmp_path / f"{number}.onnx", FAST)
        assert report.verdict in {"pass", "pass-more-accurate"}, report.reason
        assert report.parity is not None
        assert report.parity.translation[0].verdict.passed


@pytest.mark.parametrize(("shape", "layer"), [((8, 8, 3, 3), "sequential/deep"), ((8, 1, 3, 3), "right")])
def test_a_conversion_that_is_damaged_fails_and_the_layer_is_named_whatever_the_file_calls_it(
    keras_file: Path, plain: onnx.ModelProto, tmp_path: Path, shape: tuple[int, ...], layer: str
) -> None:
    onnx.save(_strange(_damaged(plain, shape)), tmp_path / "b.onnx")
    report = bnfold.verify(keras_file, tmp_path / "b.onnx", FAST)
    assert report.verdict == "fail"
    assert report.parity is not None
    assert report.parity.suspect is not None
    assert report.parity.suspect.value == layer
    assert "the first layer of the original that is off is " in report.reason


def test_layers_of_a_keras_file_are_listed_beside_what_is_most_like_them(
    keras_file: Path, plain: onnx.ModelProto, tmp_path: Path
) -> None:
    """One layer is damaged under names that say nothing: what it and those behind it compute is nowhere in B."""
    onnx.save(_strange(_damaged(plain, (8, 8, 3, 3))), tmp_path / "b.onnx")
    report = bnfold.verify(keras_file, tmp_path / "b.onnx", replace(FAST, layerwise=True))
    assert report.layers is not None
    listed = {item.layer: item for item in report.layers.original}
    assert list(listed) == [
        *("stem", "stem_bn", "stem_relu", "sequential/deep", "sequential/deep_relu", "left_bn", "right", "both"),
        *("drop", "pool", "scores"),
    ]
    assert listed["stem"].kind == "Conv2D"
    assert listed["stem"].error < 1e-6
    assert listed["sequential/deep"].error > 1e-3
    assert listed["stem_relu"].value in {
        name for node in onnx.load(tmp_path / "b.onnx").graph.node for name in node.output
    }


def test_an_onnx_file_is_judged_by_a_keras_file_and_the_other_way_round(
    keras_file: Path, folded: onnx.ModelProto, tmp_path: Path
) -> None:
    onnx.save(folded, tmp_path / "a.onnx")
    assert bnfold.verify(tmp_path / "a.onnx", keras_file, FAST).verdict in {"pass", "pass-more-accurate"}
    onnx.save(_damaged(folded, (8, 1, 3, 3)), tmp_path / "b.onnx")
    assert bnfold.verify(tmp_path / "b.onnx", keras_file, FAST).verdict == "fail"


def test_artifacts_with_other_inputs_are_told_apart_before_anything_runs(keras_file: Path, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] a) => (float[N, 4] b) { b = Relu(a) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "other.onnx")
    with pytest.raises(bnfold.SignatureError) as caught:
        bnfold.verify(keras_file, tmp_path / "other.onnx", FAST)
    assert str(caught.value).startswith("the two models do not have the same inputs: image float[")
    assert str(caught.value).endswith(", 12, 12, 3] here, a float[N, 4] there")


@pytest.mark.parametrize(("shape", "layer"), [((8, 3, 3, 3), "stem"), ((8, 8, 3, 3), "sequential/deep")])
def test_a_translation_that_goes_wrong_names_the_first_layer_of_the_original(
    loaded: Loaded, shape: tuple[int, ...], layer: str
) -> None:
    wrong = _damaged(loaded.model, shape)
    parity = verify(unfolded=wrong, folded=wrong, original=loaded.run, layers=loaded.layers, level="fast")
    assert parity.verdict is Verdict.FAIL
    assert parity.blames == "translation"
    assert parity.suspect is not None
    assert (parity.suspect.value, parity.suspect.layer) == (layer, True)
    assert "; the first layer of the original that is off is " in parity.summary


def test_the_layers_of_a_keras_model_are_all_seen_with_what_they_read(loaded: Loaded) -> None:
    assert loaded.layers is not None
    layers = {item.name: item for item in loaded.layers({"image": np.zeros((1, 12, 12, 3), np.float32)})}
    assert list(layers) == [
        *("stem", "stem_bn", "stem_relu", "sequential/deep", "sequential/deep_relu", "left_bn", "right", "both"),
        *("drop", "pool", "scores"),
    ]
    assert layers["both"].reads == ("left_bn", "right")
    assert layers["left_bn"].reads == ("sequential/deep_relu",)
    assert layers["stem"].kind == "Conv2D"


@pytest.mark.parametrize("name", ["tf1_layers/frozen.pb", "keras_depthwise/saved_model"])
def test_a_translated_graph_that_goes_wrong_names_the_first_operation(name: str) -> None:
    found = frontends.load(Path(__file__).parents[2] / "models" / name, Request())
    norms = [node for node in found.model.graph.node if node.op_type == "BatchNormalization"]
    wrong = onnx.ModelProto()
    wrong.CopyFrom(found.model)
    (tensor,) = (tensor for tensor in wrong.graph.initializer if tensor.name == norms[1].input[4])
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(numpy_helper.to_array(tensor) * 1.1), tensor.name))
    right, parity = (
        verify(unfolded=model, folded=model, original=found.run, layers=found.layers, level="fast")
        for model in (found.model, wrong)
    )
    assert right.verdict.passed, right.summary
    assert parity.verdict is Verdict.FAIL
    assert parity.suspect is not None
    scope = norms[1].name.rpartition("/")[0] if name.endswith("pb") else "stem_bn"
    assert scope in parity.suspect.value, parity.suspect
