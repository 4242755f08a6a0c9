"""What a file holds is told from its configuration and weights, without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnfold.frontends.keras.describe import describe
from tests.frontends.keras import networks
from tests.frontends.keras.networks import Saved, built, save

pytestmark = pytest.mark.tensorflow  # to write the files


@pytest.mark.parametrize("network", [networks.separable, networks.nested, networks.time_distributed])
@pytest.mark.parametrize(("generation", "suffix"), [(2, ".keras"), (2, ".h5"), (3, ".keras"), (3, ".h5")])
def test_batch_norms_are_described_with_their_own_weights(
    network: networks.Network, generation: int, suffix: str, tmp_path: Path
) -> None:
    model = built(network, generation)
    path = save(model, tmp_path / f"m{suffix}").path
    found = {layer.name: layer.batch_norm for layer in describe(path).layers if layer.batch_norm is not None}
    layers = {layer.name: layer for layer in model._flatten_layers() if "moving_mean" in dir(layer)}
    assert {name.rpartition("/")[2] for name in found} == set(layers)
    for name, facts in found.items():
        layer = layers[name.rpartition("/")[2]]
        assert facts.epsilon == layer.epsilon
        assert facts.momentum == layer.momentum
        for weight in ("gamma", "beta", "moving_mean", "moving_variance"):
            expected, told = getattr(layer, weight), getattr(facts, weight)
            assert told is not None, (name, weight)
            np.testing.assert_array_equal(told, expected.numpy())


def test_a_missing_gamma_is_told_as_missing(tmp_path: Path) -> None:
    model = built(networks.behind_conv3d, 3)
    (facts,) = [one.batch_norm for one in describe(save(model, tmp_path / "m.keras").path).layers if one.batch_norm]
    assert facts.gamma is None
    assert facts.axis == (-1,)
    assert facts.beta is not None
    np.testing.assert_array_equal(facts.beta, model.get_layer("bn").beta.numpy())


def test_a_file_of_weights_is_described_as_far_as_it_goes(files: dict[str, Saved]) -> None:
    named = describe(files["k2-named.h5"].path)
    assert not named.has_model
    norms = [layer for layer in named.layers if layer.batch_norm is not None]
    assert [layer.name for layer in norms] == ["bn1", "bn2", "bn3", "bn4"]
    assert all(layer.batch_norm is not None and layer.batch_norm.epsilon is None for layer in norms)
    assert norms[0].batch_norm is not None
    assert norms[0].batch_norm.moving_mean is not None
    numbered = describe(files["k3.weights.h5"].path)
    assert "batch_normalization_3" in [layer.name for layer in numbered.layers]


def test_a_real_file_is_described_without_tensorflow_or_keras(real_files: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom bnfold.frontends.keras.describe import describe\n"
        "found = describe(Path(sys.argv[1]))\n"
        "print(found.framework, len([layer for layer in found.layers if layer.batch_norm]))\n"
        "print(sorted({'tensorflow', 'keras', 'tf_keras', 'tf2onnx'} & set(sys.modules)))\n"
    )
    path = real_files / "gender_mini_XCEPTION.21-0.95.hdf5"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "Keras 2.0.5 14\n[]\n"
    assert done.stderr == ""
