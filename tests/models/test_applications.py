"""Networks of keras.applications, small ones: each in a container of its own, proven against Keras, none forgotten.

All of them, in every container, are gone through by ``make zoo``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnfold.frontends.keras.guests import keras_of, quiet
from bnfold.pipeline import Options, convert

pytestmark = pytest.mark.tensorflow


def _mobile_net(keras: Any) -> Any:
    return keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), alpha=0.25, classes=5)


def _mobile_net_2(keras: Any) -> Any:
    return keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=5)


def _seasoned(network: Any) -> list[str]:
    """Give a network statistics as if it were trained; return the names of its batch norms."""
    random = np.random.default_rng(6)
    names = []
    for layer in network.layers:
        if type(layer).__name__ == "BatchNormalization":
            names.append(layer.name)
            size = layer.moving_mean.shape
            layer.set_weights(
                [
                    random.uniform(0.6, 1.4, size),
                    random.normal(0, 0.2, size),
                    random.normal(0, 0.3, size),
                    random.uniform(0.3, 1.5, size),
                ]
            )
    return names


@pytest.mark.parametrize(
    ("make", "container"), [(_mobile_net, "m.h5"), (_mobile_net_2, "m.keras"), (_mobile_net, "saved")]
)
def test_every_batch_norm_of_a_network_folds_and_the_result_is_proven(
    tmp_path: Path, make: Any, container: str
) -> None:
    keras = keras_of(3)
    path = tmp_path / container
    with quiet():
        keras.backend.clear_session()
        network = make(keras)
        names = _seasoned(network)
        if path.suffix:
            network.save(path)
        else:
            network.export(path, verbose=False)
    assert len(names) > 20
    report = convert(path, Options(verify="fast")).report
    assert [norm.name for norm in report.batch_norms if norm.outcome != "folded"] == []
    found = [norm.name.rpartition("/")[2] for norm in report.batch_norms]
    if not path.suffix:
        found = [re.sub(r"_\d+$", "", name) if name not in names else name for name in found]  # Keras traces it twice
    assert sorted(found) == sorted(names)
    assert report.verdict in ("pass", "pass-more-accurate")
    assert report.own is not None
    assert report.own.agrees is True
