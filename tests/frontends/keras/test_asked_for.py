"""The weights that a configuration is counted to ask for: never more than it has, nearly all where that is plain."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from bnfold.errors import CorruptModelError
from bnfold.frontends.keras.archive import open_weights, read_artifact
from bnfold.frontends.keras.asked_for import demand_room, weights_asked_for
from tests.frontends.keras.networks import Saved


def held(path: Path) -> int:
    """Return how many numbers a file holds as weights."""
    found = [0]

    def count(place: str, item: Any) -> None:
        if hasattr(item, "shape") and "optimizer" not in place:
            found[0] += math.prod(item.shape)

    with open_weights(read_artifact(path)) as group:
        group.visititems(count)
    return found[0]


def asked(config: dict[str, Any]) -> int:
    return sum(math.prod(shape) for _, shape in weights_asked_for(config))


@pytest.mark.tensorflow
def test_no_network_is_counted_to_have_more_weights_than_it_has(files: dict[str, Saved], repository: Path) -> None:
    trained = [path for ending in ("keras", "h5") for path in (repository / "models").rglob(f"*.{ending}")]
    written = [saved.path for saved in files.values() if saved.path.suffix != ".json"]
    counted = 0
    for path in (*trained, *written):
        if (config := read_artifact(path).config) is not None:
            assert 0 < asked(config) <= held(path), path.name
            counted += 1
    assert counted > 5


def test_a_chain_of_plain_layers_is_counted_whole(repository: Path) -> None:
    path = repository / "models/keras_dense/tuned.keras"
    config = read_artifact(path).config
    assert config is not None
    # What is left are the four vectors of each batch norm.
    assert 0.9 * held(path) < asked(config) <= held(path)


def model(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "m", "layers": list(layers)}}


def layer(class_name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": "a", **config}}


@pytest.mark.parametrize(
    ("bomb", "shape"),
    [
        (layer("Dense", units=2e9), [1, 2000000000]),
        (layer("Dense", units="2000000000"), [1, 2000000000]),
        (layer("Dense", units=10**40), [1, 4611686018427387904]),
        (layer("LSTM", units=1000), [1000, 4000]),
        (layer("GRUCell", units=1000), [1000, 3000]),
        (layer("Embedding", input_dim=10**6, output_dim=2), [1000000, 2]),
        (layer("Conv3D", filters=1, kernel_size=[200, 200, 200]), [200, 200, 200, 1, 1]),
        (layer("Conv2DTranspose", filters=1, kernel_size=2000), [2000, 2000, 1, 1]),
        (layer("DepthwiseConv2D", kernel_size=3, depth_multiplier=10**6), [3, 3, 1, 1000000]),
        (layer("ConvLSTM2D", filters=1000, kernel_size=1), [1, 1, 1000, 4000]),
        (layer("TimeDistributed", layer=layer("Dense", units=10**7)), [1, 10000000]),
        ({**layer("Dense", units=1), "build_config": {"input_shape": [None, 10**7]}}, [10000000, 1]),
        (model(layer("Dense", units=10**7)) | {"name": "inner"}, [1, 10000000]),
    ],
)  # fmt: skip
def test_a_layer_that_asks_for_too_much_is_refused(tmp_path: Path, bomb: dict[str, Any], shape: list[int]) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(b"x" * 1000)
    with pytest.raises(CorruptModelError) as raised:
        demand_room(model(bomb), path)
    assert str(raised.value) == (
        f"m.keras has 1000 bytes, and in its configuration layer 'a' has a weight of shape {shape} "
        "of more than 1048576 numbers"
    )
    assert raised.value.hint == "Save the model again with Keras itself."


def test_layers_that_only_ask_for_too_much_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(b"x")
    with pytest.raises(CorruptModelError) as raised:
        demand_room(model(*[layer("Dense", units=1000)] * 3), path)
    assert str(raised.value) == (
        "m.keras has 1 bytes, and in its configuration the layers have weights of more than 1048576 numbers"
    )


@pytest.mark.parametrize(
    "strange", [None, True, -5, 0, 0.5, "x", [], {}, float("nan"), float("inf"), [[1]], {"a": 1}], ids=repr
)
def test_sizes_that_are_none_count_as_nothing_much(tmp_path: Path, strange: Any) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(b"x")
    kinds = ("Dense", "Conv2D", "SeparableConv2D", "LSTM", "Embedding", "MultiHeadAttention", "InputLayer")
    keys = ("units", "filters", "kernel_size", "input_dim", "output_dim", "groups", "depth_multiplier", "num_heads",
        "key_dim", "batch_shape", "batch_input_shape", "data_format")  # fmt: skip
    for kind in kinds:
        told = {**layer(kind, **dict.fromkeys(keys, strange)), "build_config": {"input_shape": strange}}
        demand_room(model({**told, "inbound_nodes": strange}, told), path)
