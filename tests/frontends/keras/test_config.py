"""A configuration is judged as JSON, before any of it is built."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bnfold.errors import CorruptModelError, UnsupportedOpError
from bnfold.frontends.keras import known
from bnfold.frontends.keras.config import generation, in_inference_mode, layers, parse, refuse_code


def layer(class_name: str, name: str, **settings: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": {"name": name, **settings}, "name": name}


def model(*inner: dict[str, Any], class_name: str = "Functional") -> dict[str, Any]:
    return {"module": "keras", "class_name": class_name, "config": {"name": "net", "layers": list(inner)}}


CUSTOM = {"module": "mine.layers", "class_name": "Swish", "config": {"name": "act"}, "registered_name": "mine>Swish"}
REFUSED = [
    pytest.param(
        layer("Lambda", "square"),
        "layer 'square' is of class Lambda, which runs code that is stored in or named by the file",
        "Look at where the file comes from, and run its code with --trust",
        id="lambda",
    ),
    pytest.param(
        layer("TFSMLayer", "other", filepath="/elsewhere"),
        "layer 'other' is of class TFSMLayer, which runs code that is stored in or named by the file",
        "Look at where the file comes from, and run its code with --trust",
        id="saved-model-layer",
    ),
    pytest.param(
        CUSTOM,
        "layer 'act' is of class 'Swish' (of mine.layers), which is not one of Keras's own layers",
        "Give the Python file that defines it: --custom file.py",
        id="custom",
    ),
    pytest.param(
        {"module": None, "class_name": "Swish", "config": {"name": "act"}, "registered_name": "mine>Swish"},
        "layer 'act' is of class 'Swish' (of mine), which is not one of Keras's own layers",
        "Give the Python file that defines it: --custom file.py",
        id="registered",
    ),
    pytest.param(
        {"class_name": "Swish", "config": {"name": "act"}},
        "layer 'act' is of class 'Swish', which is not one of Keras's own layers",
        "Give the Python file that defines it: --custom file.py",
        id="legacy",
    ),
    pytest.param(
        layer("TimeDistributed", "steps", layer=CUSTOM),
        "layer 'act' is of class 'Swish' (of mine.layers), which is not one of Keras's own layers",
        "Give the Python file that defines it: --custom file.py",
        id="wrapped",
    ),
    pytest.param(
        model(CUSTOM),
        "layer 'act' is of class 'Swish' (of mine.layers), which is not one of Keras's own layers",
        "Give the Python file that defines it: --custom file.py",
        id="nested",
    ),
    pytest.param(
        layer("Dense", "d", activation={"module": "builtins", "class_name": "function", "config": "mine",
            "registered_name": "function"}),
        "layer 'd' uses the function 'mine', which is not one of Keras's own",
        "Give the Python file that defines it: --custom file.py",
        id="function",
    ),
    pytest.param(
        layer("Dense", "d", activation={"module": "os", "class_name": "function", "config": "system"}),
        "layer 'd' uses the function 'system', which is not one of Keras's own",
        "Give the Python file that defines it: --custom file.py",
        id="system",
    ),
    pytest.param(
        layer("Dense", "d", kernel_initializer={"module": "subprocess", "class_name": "Popen", "config": {}}),
        "layer 'd' uses 'Popen' (of subprocess), which is not one of Keras's own classes",
        "Give the Python file that defines it: --custom file.py",
        id="popen",
    ),
    pytest.param(
        layer("Dense", "d", kernel_initializer={"module": "keras.utils", "class_name": "get_file", "config": {}}),
        "layer 'd' uses 'get_file' (of keras.utils), which is not one of Keras's own classes",
        "Give the Python file that defines it: --custom file.py",
        id="own-but-not-pure",
    ),
    pytest.param(
        layer("Activation", "d", activation={"class_name": "__lambda__", "config": {"code": "4wEAAA=="}}),
        "layer 'd' holds a lambda: code that is stored in the file",
        "Look at where the file comes from, and run its code with --trust",
        id="bytecode",
    ),
    pytest.param(
        layer("TFOpLambda", "tf.io", function="io.write_file"),
        "layer 'tf.io' calls TensorFlow's function 'io.write_file', which is not known to only compute",
        "Look at where the file comes from, and run its code with --trust",
        id="tensorflow-function",
    ),
    pytest.param(
        layer("TFOpLambda", "tf.x", function="experimental.dlpack"),
        "layer 'tf.x' calls TensorFlow's function 'experimental.dlpack', which is not known to only compute",
        "Look at where the file comes from, and run its code with --trust",
        id="tensorflow-prefix",
    ),
    pytest.param(
        layer("StringLookup", "words", vocabulary="/etc/hostname"),
        "layer 'words' (StringLookup) reads its vocabulary from another file, /etc/hostname",
        "Save the model with Keras's native format, which keeps the vocabulary inside.",
        id="vocabulary",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("inner", "message", "hint"), REFUSED)
def test_what_is_not_keras_own_is_refused_by_name(inner: dict[str, Any], message: str, hint: str) -> None:
    config = model(layer("InputLayer", "x"), inner)
    with pytest.raises(UnsupportedOpError) as refused:
        refuse_code(config, trust=False)
    assert str(refused.value) == message
    assert refused.value.hint == hint
    refuse_code(config, trust=True)


def test_what_keras_brings_is_let_through() -> None:
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
    zeros: dict[str, Any] = {
        "module": "keras.initializers",
        "class_name": "Zeros",
        "config": {},
        "registered_name": None,
    }
    refuse_code(
        model(
            layer("Dense", "d", dtype=policy, bias_initializer=zeros, activation="relu"),
            layer("Activation", "a", activation={"module": "builtins", "class_name": "function", "config": "gelu"}),
            {"module": "keras.src.ops.numpy", "class_name": "Multiply", "config": {"name": "m"}, "name": "m"},
            layer("TFOpLambda", "t", function="math.multiply"),
            layer("TFOpLambda", "u", function="__operators__.add"),
            model(layer("BatchNormalization", "bn", gamma_regularizer={"class_name": "L1L2", "config": {}})),
        ),
        trust=False,
    )


def test_what_compiles_a_model_is_never_built_and_not_judged() -> None:
    config = {**model(layer("Dense", "d")), "compile_config": {"loss": {"module": "mine", "class_name": "Loss"}}}
    refuse_code(config, trust=False)


@pytest.mark.tensorflow
@pytest.mark.parametrize("which", [2, 3])
def test_every_layer_of_both_generations_is_known(which: int) -> None:
    from bnfold.frontends.keras.guests import keras_of

    keras = keras_of(which)
    own = {
        name
        for name, value in vars(keras.layers).items()
        if isinstance(value, type) and issubclass(value, keras.layers.Layer)
    }
    assert own - known.LAYERS - known.CODE == set()


def test_baked_training_is_switched_off_and_told() -> None:
    new = {**layer("BatchNormalization", "bn3"), "inbound_nodes": [{"args": [], "kwargs": {"training": True}}]}
    old = {**layer("Dropout", "drop2"), "inbound_nodes": [[["x", 0, 0, {"training": True}]]]}
    off = {**layer("BatchNormalization", "off"), "inbound_nodes": [{"args": [], "kwargs": {"training": False}}]}
    config = model(new, model(old, off))
    changed, told = in_inference_mode(config)
    assert [entry.path for entry in told] == ["bn3", "net/drop2"]
    assert "true" not in json.dumps(changed)
    assert json.dumps(config).count("true") == 2


def test_a_stateful_layer_is_refused() -> None:
    with pytest.raises(UnsupportedOpError) as refused:
        in_inference_mode(model(layer("LSTM", "memory", stateful=True)))
    assert str(refused.value) == "layer 'memory' (LSTM) is stateful: its output depends on the batches before"
    assert refused.value.hint == "Rebuild the model with stateful=False, load its weights and save it again."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "the model's configuration in m.h5 is nested too deeply to be a network"),
        ('{"class_name":"A","x":' * 500 + "1" + "}" * 500,
            "the model's configuration in m.h5 is nested too deeply to be a network"),
        ("{", ("the model's configuration in m.h5 is not valid JSON: Expecting property name enclosed in double "
            "quotes: line 1 column 2 (char 1)")),
        ("[]", "the model's configuration in m.h5 does not name the class of a model"),
        ('{"class_name": 3}', "the model's configuration in m.h5 does not name the class of a model"),
    ],
    ids=["deep", "deep-objects", "cut", "list", "number"],
)  # fmt: skip
def test_a_broken_configuration_is_refused(text: str, message: str) -> None:
    with pytest.raises(CorruptModelError) as refused:
        parse(text, "m.h5")
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("version", "config", "expected"),
    [
        ("2.20.1", {"class_name": "Model"}, 2),
        ("3.15.1", {"class_name": "Model"}, 3),
        ("", {"class_name": "Model", "config": {"layers": [layer("InputLayer", "x", batch_input_shape=[None, 3])]}}, 2),
        ("", {"class_name": "Model", "config": {"layers": [layer("InputLayer", "x", batch_shape=[None, 3])]}}, 3),
        ("", {"class_name": "Functional", "module": "tf_keras.src.engine.functional"}, 2),
        ("", {"class_name": "Sequential", "module": "keras"}, 3),
        ("", {"class_name": "Sequential"}, 2),
    ],
)
def test_the_generation_is_the_version_or_else_the_spelling(
    version: str, config: dict[str, Any], expected: int
) -> None:
    assert generation(config, version) == expected


def test_layers_are_found_inside_models_and_wrappers() -> None:
    inner = model(layer("InputLayer", "in"), layer("BatchNormalization", "bn"), class_name="Sequential")
    inner["config"]["name"] = "inner"
    found = list(layers(model(layer("Dense", "d"), layer("Dense", "e"), layer("TimeDistributed", "t", layer=inner))))
    assert [entry.path for entry in found] == ["d", "e", "t", "t/inner", "t/inner/bn"]
    assert found[1].models == (("layers", "Dense", 1),)
    assert found[4].models == (
        ("layers", "TimeDistributed", 0), ("layer", "Sequential", 0), ("layers", "BatchNormalization", 0)
    )  # fmt: skip


def test_the_bare_list_of_an_early_sequential_model_is_read() -> None:
    found = list(layers({"class_name": "Sequential", "config": [layer("Dense", "d"), layer("Dense", "e")]}))
    assert [entry.path for entry in found] == ["d", "e"]
