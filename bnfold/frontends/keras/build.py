"""A Keras model built from its file, or from an architecture or a builder where the file holds only weights."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.errors import BnfoldError, CorruptModelError, SourceError, UnsupportedOpError
from bnfold.frontends.keras.archive import Artifact, open_weights, read_text
from bnfold.frontends.keras.asked_for import demand_room
from bnfold.frontends.keras.bounded import weights_bounded_by
from bnfold.frontends.keras.config import (
    Config,
    LayerEntry,
    generation,
    in_inference_mode,
    parse,
    refuse_code,
    with_plain_names,
)
from bnfold.frontends.keras.guests import keras_of, quiet
from bnfold.frontends.keras.operations import with_modules, with_operations
from bnfold.frontends.keras.own_classes import with_inputs
from bnfold.frontends.keras.users_code import Custom, built_by, custom_of, in_scope
from bnfold.frontends.keras.weights import Slot, match_layers, read_named
from bnfold.frontends.loaded import ModeChange, Request
from bnfold.frontends.own_code import first_line

__all__ = ["Built", "build", "refuse_beforehand"]

_SAVE_AGAIN = "Save the model again with Keras itself."
_BUILDER_HINT = (
    "Give the file that defines what Keras does not know, with --custom file.py, "
    "or a function that builds the model, with --builder file.py:function"
)
_WEIGHTS_ONLY_HINT = (
    "Add the architecture with --architecture model.json (what model.to_json() wrote) "
    "or a function that builds the model with --builder file.py:function"
)


@dataclass(frozen=True, slots=True)
class Built:
    """A Keras model with its weights.

    Attributes:
        model: The model, of ``keras`` or ``tf_keras``.
        generation: 3 or 2.
        changes: Calls that said ``training=True`` and do not any more.
    """

    model: Any
    generation: int
    changes: tuple[ModeChange, ...] = ()


def refuse_beforehand(artifact: Artifact, request: Request) -> None:
    """Refuse what can be refused by the configuration alone, before TensorFlow is imported.

    What the caller's own code brings is left to ``build``.

    Raises:
        BnfoldError: What ``build`` raises.
    """
    if request.builder is not None or request.custom:
        return
    if request.architecture is not None:
        if not request.architecture.is_file():
            return
        config = parse(read_text(request.architecture, "a model's architecture"), request.architecture.name)
    elif artifact.config is not None:
        config = with_operations(artifact.config)
    else:
        raise _only_weights(artifact)
    refuse_code(config, trust=request.trust, custom=())
    demand_room(config, artifact.path)


def _only_weights(artifact: Artifact) -> SourceError:
    return SourceError(f"{artifact.path.name} holds only weights of layers, no model", hint=_WEIGHTS_ONLY_HINT)


def build(artifact: Artifact, request: Request, *, as_it_is: bool = False) -> Built:
    """Return the model of a Keras file, its weights loaded by name wherever the file has names.

    A model of a class of its own, which takes what it is given, is called on inputs of the shapes it was built for.

    Args:
        artifact: The file.
        request: ``architecture`` or ``builder`` where the file holds only weights.
        as_it_is: Whether layers that the file calls with ``training=True`` stay so.

    Raises:
        SourceError: If the file holds only weights and the request does not say what they belong to, or if the given
            architecture or builder does not fit them.
        UnsupportedOpError: If the configuration names code that is not Keras's own, or Keras cannot build it.
        CorruptModelError: If weights are missing or have other shapes than the configuration says.
    """
    built = _built(artifact, request, as_it_is=as_it_is)
    return replace(built, model=with_inputs(built.model, built.generation))


def _built(artifact: Artifact, request: Request, *, as_it_is: bool) -> Built:
    if request.builder is not None:
        built = _built_by(request.builder)
        _load_weights(artifact, built, SourceError)
        return built
    custom = custom_of(request.custom)
    if artifact.config is None or request.architecture is not None:
        if request.architecture is None:
            raise _only_weights(artifact)
        return _build_from_architecture(artifact, request.architecture, custom, trust=request.trust)
    plain = with_plain_names(with_operations(artifact.config, custom), custom)
    refuse_code(plain, trust=request.trust, custom=custom)
    config, changed = (plain, ()) if as_it_is else in_inference_mode(plain)
    which = artifact.generation
    with weights_bounded_by(artifact.path, which), in_scope(custom, which):
        if artifact.container == "zip":
            model = _load_archive(artifact, config if changed or custom else None, trust=request.trust)
            return Built(model, which, _changes(changed, which))
        model = _from_config(config, which, artifact.path.name, trust=request.trust)
    built = Built(model, which, _changes(changed, which))
    _load_weights(artifact, built, CorruptModelError)
    return built


def _changes(layers: Sequence[LayerEntry], which: int) -> tuple[ModeChange, ...]:
    return tuple(
        ModeChange(
            kind="training-mode",
            name=layer.path,
            before="training=True",
            after="training=False",
            proof=_why(layer, which),
        )
        for layer in layers
    )


def _why(layer: LayerEntry, which: int) -> str:
    """Say what a call with ``training=True`` does in the network's own predict."""
    if which >= 3:
        return "Keras 3's own predict ignores training=True too"
    if "BatchNormalization" not in layer.class_name:
        return "called with training=True in the network itself"
    if layer.config.get("trainable") is False:
        return "it is frozen, so the network's own predict uses moving statistics too"
    return "the network's own predict normalises with the statistics of each batch here"


def _build_from_architecture(artifact: Artifact, path: Path, custom: Custom, *, trust: bool) -> Built:
    if not path.is_file():
        raise SourceError(f"there is no architecture {path}", hint="Give the JSON file that model.to_json() wrote.")
    config = with_plain_names(parse(read_text(path, "a model's architecture"), path.name), custom)
    refuse_code(config, trust=trust, custom=custom)
    config, changed = in_inference_mode(config)
    which = generation(config, str(config.get("keras_version", "")))
    with weights_bounded_by(artifact.path, which), in_scope(custom, which):
        model = _from_config(config, which, path.name, trust=trust)
    built = Built(model, which, _changes(changed, which))
    _load_weights(artifact, built, SourceError)
    return built


def _load_archive(artifact: Artifact, config: Config | None, *, trust: bool) -> Any:
    """Load a ``.keras`` archive, with another configuration where one is given."""
    keras = keras_of(artifact.generation)
    with quiet(), _named(artifact.path, "model.keras") as named:
        path = named if config is None else _with_config(named, config)
        try:
            return keras.models.load_model(str(path), compile=False, safe_mode=not trust)
        except Exception as error:
            raise _refusal(error, artifact.path.name, artifact.generation) from error


def _with_config(path: Path, config: Config) -> Path:
    changed = path.with_name("changed.keras")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(changed, "w") as copy:
        for member in archive.namelist():
            text = json.dumps(config).encode() if member == "config.json" else archive.read(member)
            copy.writestr(member, text)
    return changed


def _refusal(error: Exception, name: str, which: int) -> BnfoldError:
    said = first_line(error)
    if isinstance(error, OSError | KeyError) or "could not be loaded" in said or "objects could not" in said:
        return CorruptModelError(f"the weights in {name} do not fit the model in it: {said}", hint=_SAVE_AGAIN)
    return UnsupportedOpError(f"Keras {which} cannot build the model in {name}: {said}", hint=_BUILDER_HINT)


@contextmanager
def _named(path: Path, name: str) -> Iterator[Path]:
    """Show a file under another name: Keras decides by the name's ending how to read it."""
    if path.name.endswith(name.removeprefix("model")):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        other = Path(folder, name)
        try:
            other.symlink_to(path.resolve())
        except OSError:  # not everybody may make links
            shutil.copyfile(path, other)
        yield other


def _from_config(config: Config, which: int, name: str, *, trust: bool) -> Any:
    keras = keras_of(which)
    with quiet():
        try:
            if which == 2:
                from tf_keras.src.saving.serialization_lib import SafeModeScope

                with SafeModeScope(safe_mode=not trust):
                    return keras.models.model_from_json(json.dumps(config))
            return _from_config_3(config, trust=trust)
        except Exception as error:
            raise UnsupportedOpError(
                f"Keras {which} cannot build the model in {name}: {first_line(error)}", hint=_BUILDER_HINT
            ) from error


def _from_config_3(config: Config, *, trust: bool) -> Any:
    from keras.src.legacy.saving import json_utils, saving_options, saving_utils
    from keras.src.saving import serialization_lib

    config = with_modules(json_utils.decode(json.dumps({**config, "compile_config": None})))
    with serialization_lib.SafeModeScope(not trust):
        if "module" in config:
            return serialization_lib.deserialize_keras_object(config)
        # How Keras 3 itself reads what it wrote into HDF5.
        with saving_options.keras_option_scope(use_legacy_config=True):
            return saving_utils.model_from_config(config)


def _generation_of(model: Any, builder: str) -> int:
    roots = {cls.__module__.partition(".")[0] for cls in type(model).__mro__ if cls.__name__ == "Model"}
    for root, which in (("tf_keras", 2), ("keras", 3)):
        if root in roots:
            return which
    raise SourceError(
        f"{builder} returned {type(model).__name__}, which is not a Keras model",
        hint="Make the function return the model.",
    )


def _built_by(builder: str) -> Built:
    """Return the builder's model; where it calls layers with training=True, one like it that does not."""
    model = built_by(builder)
    which = _generation_of(model, builder)
    try:
        config, changed = in_inference_mode(parse(model.to_json(), "the built model"))
    except UnsupportedOpError:
        raise
    except Exception:  # a model of the user's own classes need not have a configuration
        return Built(model, which)
    if not changed:
        return Built(model, which)
    try:
        return Built(_from_config(config, which, builder, trust=False), which, _changes(changed, which))
    except UnsupportedOpError:
        return Built(model, which)  # tracing tells whether it stays in training mode


def _load_weights(artifact: Artifact, built: Built, error: type[SourceError]) -> None:
    if not built.model.built or not built.model.weights:
        raise SourceError(
            "the model that the builder returned has no weights yet",
            hint="Give its first layer an input shape, or call the model once on an example.",
        )
    if artifact.layout == "names":
        _load_named(artifact, built, error)
    elif artifact.layout == "slots":
        _load_slots(artifact, built, error)
    else:
        raise SourceError(
            f"{artifact.path.name} keeps its weights as .npz, which is read only together with its own configuration",
            hint="Save it again with Keras's default weights, or convert it without --builder and --architecture.",
        )


def _load_named(artifact: Artifact, built: Built, error: type[SourceError]) -> None:
    with open_weights(artifact) as group:
        stored = read_named(group)
    variables = {layer.name: _variables(layer) for layer in built.model.layers if _variables(layer)}
    slots = {
        layer: [Slot(name, tuple(variable.shape)) for name, variable in found.items()]
        for layer, found in variables.items()
    }
    for layer, values in match_layers(stored, slots, error, artifact.path.name).items():
        for name, value in values.items():
            variables[layer][name].assign(value)
    for layer in built.model._flatten_layers():  # noqa: SLF001  # the same in both generations
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()  # what a layer computes from its weights, such as a Normalization's square root


def _variables(layer: Any) -> Mapping[str, Any]:
    """Return a layer's variables by a name that tells them apart, in the order of the layer."""
    found: dict[str, Any] = {}
    for variable in [*layer.trainable_weights, *layer.non_trainable_weights]:
        name = getattr(variable, "path", None) or variable.name
        name = name.removesuffix(":0")
        assert name not in found, name
        found[name] = variable
    return found


def _load_slots(artifact: Artifact, built: Built, error: type[SourceError]) -> None:
    """Load numbered weights with Keras, then save them again and compare: nothing may be left over or out of place."""
    with quiet(), tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        ending = "model.keras" if artifact.container == "zip" else "model.weights.h5"
        with _named(artifact.path, ending) as path:
            try:
                built.model.load_weights(str(path))
            except Exception as problem:
                raise error(
                    f"the weights in {artifact.path.name} do not fit the model: {first_line(problem)}",
                    hint=_WEIGHTS_ONLY_HINT,
                ) from problem
        again = Path(folder, "again.weights.h5")
        built.model.save_weights(str(again))
        with open_weights(Artifact(again, "hdf5", "slots", "", None)) as group:
            ours = _tree(group)
        with open_weights(artifact) as group:
            theirs = _tree(group)
    differing = sorted(set(ours.values) ^ set(theirs.values)) or sorted(
        place for place, value in ours.values.items() if not np.array_equal(value, theirs.values[place], equal_nan=True)
    )
    if differing:
        raise error(
            f"the weights in {artifact.path.name} do not fit the model: {differing[0]} "
            f"{'differs' if differing[0] in ours.values and differing[0] in theirs.values else 'is on one side only'}"
            f" ({len(differing)} in all)",
            hint=_WEIGHTS_ONLY_HINT,
        )
    for place, name in theirs.names.items():
        if set(ours.names.values()) == set(theirs.names.values()) and ours.names.get(place, name) != name:
            raise error(
                f"the weights in {artifact.path.name} are in another order than the model's layers: "
                f"{place} is {name!r} in the file and {ours.names[place]!r} in the model",
                hint=_WEIGHTS_ONLY_HINT,
            )


@dataclass(frozen=True, slots=True)
class _Tree:
    values: dict[str, Any]
    names: dict[str, str]


def _tree(group: Any) -> _Tree:
    tree = _Tree({}, {})

    def visit(place: str, item: Any) -> None:
        if place.partition("/")[0] in ("optimizer", "metrics", "compile_metrics", "loss_tracker", "_metrics"):
            return
        if hasattr(item, "shape"):
            tree.values[place] = np.asarray(item)
        elif "name" in item.attrs and place != "vars":
            tree.names[place] = str(item.attrs["name"])

    group.visititems(visit)
    return tree
