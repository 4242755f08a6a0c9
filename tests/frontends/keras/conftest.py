"""One small network in every container that Keras writes, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnfold.frontends.keras.guests import keras_of, quiet
from tests.frontends.keras.networks import Saved, built, save, separable


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    """A network with four batch norms by container and generation, such as ``"3.keras"``, and its weights alone."""
    folder = tmp_path_factory.mktemp("keras")
    found: dict[str, Saved] = {}
    for generation in (2, 3):
        model = built(separable, generation)
        for suffix in (".keras", ".h5"):
            found[f"{generation}{suffix}"] = save(model, folder / f"k{generation}{suffix}")
        whole = found[f"{generation}.keras"]
        with quiet():
            for name in [f"k{generation}.weights.h5", *(["k2-named.h5"] if generation == 2 else [])]:
                model.save_weights(folder / name)
                found[name] = Saved(folder / name, whole.feeds, whole.expected)
        (folder / f"k{generation}.json").write_text(model.to_json(), "utf-8")
        found[f"k{generation}.json"] = Saved(folder / f"k{generation}.json", whole.feeds, whole.expected)
    keras_of(3).backend.clear_session()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the test's own, on a path without the test's name."""
    inner = tmp_path / "files"
    inner.mkdir()
    return inner
