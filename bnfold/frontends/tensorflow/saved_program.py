"""SavedModels of TensorFlow 2 whose signature trains, or may: put in inference mode like programs of TensorFlow 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.frontends.loaded import Array, Loaded, Request, Runner
from bnfold.frontends.signature import require_known
from bnfold.frontends.sniff import Format
from bnfold.frontends.tensorflow.checkpoint import stored_in
from bnfold.frontends.tensorflow.convert import loaded_from
from bnfold.frontends.tensorflow.dropout import is_random
from bnfold.frontends.tensorflow.functions import without_calls
from bnfold.frontends.tensorflow.guests import quiet, tensorflow
from bnfold.frontends.tensorflow.inference_graph import Inference
from bnfold.frontends.tensorflow.mode_inputs import deciders
from bnfold.frontends.tensorflow.moments import FUSED, training_nodes
from bnfold.frontends.tensorflow.net import Net, attribute, is_variable, node_of, ref_of
from bnfold.frontends.tensorflow.stored import Stored, constants_of

__all__ = ["Program", "load_program", "program_of"]


@dataclass(frozen=True, slots=True)
class Program:
    """A signature as a net.

    Attributes:
        net: What its outputs need; they have nodes of their own, which stay when calls are spelled out.
        whole: The same, calls spelled out.
        name: The signature's name.
        inputs: The tensors to feed, by their names in the signature.
        outputs: The tensors to compute, by their names in the signature.
    """

    net: Net
    whole: Net
    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def trains(self) -> bool:
        """Return whether something is left of training, or an input of a single value switches something."""
        bodies = [node for name in self.whole.called() for node in self.whole.library[name].node_def]
        if any(is_random(node) for node in (*self.whole.nodes.values(), *bodies)) or training_nodes(self.whole):
            return True
        if any(node.op in FUSED and attribute(node, "is_training").b for node in bodies):
            return True
        leaves = {leaf for found in deciders(self.whole) for leaf in found}
        return any(self.whole.nodes[leaf].op.startswith("Placeholder") for leaf in leaves)


def program_of(graph: Any, name: str) -> Program:
    """Return a signature of a SavedModel as a net.

    Args:
        graph: The SavedModel's meta graph.
        name: The signature's name.

    Raises:
        CorruptModelError: If nodes or functions are missing.
        UnsupportedOpError: If functions call each other without end.
    """
    net = Net.of(graph.graph_def)
    signature = graph.signature_def[name]
    outputs: dict[str, str] = {}
    for key, info in sorted(signature.outputs.items()):
        mark = f"signature/{key}"
        net.nodes[mark] = node_of("Identity", mark, [ref_of(info.name)], T=info.dtype)
        outputs[key] = f"{mark}:0"
    net = net.cut(net.ancestors([ref_of(tensor)[0] for tensor in outputs.values()]))
    inputs = {key: info.name for key, info in sorted(signature.inputs.items())}
    return Program(net, without_calls(net), name, inputs, outputs)


def load_program(path: Path, graph: Any, program: Program, request: Request, load: Callable[[], Any]) -> Loaded:
    """Put a signature in inference mode and convert it.

    Args:
        path: The SavedModel's folder.
        graph: Its meta graph.
        program: The signature.
        request: What the user named.
        load: Returns the signature's function, as TensorFlow loads it.

    Raises:
        CorruptModelError: If the values of variables cannot be read.
        SignatureError: If inputs or outputs do not exist.
        InferenceModeError: If it cannot be put in inference mode.
        UnsupportedOpError: If an operation may do harm or has no ONNX form.
    """
    require_known("input", request.inputs, tuple(program.inputs), option="--inputs")
    require_known("output", request.outputs, tuple(program.outputs), option="--outputs")
    chosen = {key: program.outputs[key] for key in request.outputs or program.outputs}
    names = {tensor: key for key, tensor in program.inputs.items()}
    names |= {tensor: f"{key}_output" if key in program.inputs else key for key, tensor in chosen.items()}

    def original(inference: Inference) -> Runner | None:
        fed = {f"{node}:{port}": value for (node, port), value in inference.fed.items()}
        if not inference.faithful or not set(fed) <= set(program.inputs.values()):
            return None
        modes = {key: fed[tensor] for key, tensor in program.inputs.items() if tensor in fed}
        return _runner(load, modes, {key: names[tensor] for key, tensor in chosen.items()})

    return loaded_from(
        program.net,
        _with_loaded(_stored(path, graph), program.net, load),
        replace(
            request,
            outputs=tuple(chosen.values()),
            inputs=tuple(program.inputs[key] for key in request.inputs),
            set_values={program.inputs[key]: value for key, value in request.set_values.items()},
        ),
        artifact="a SavedModel",
        file_format=Format.SAVED_MODEL.value,
        framework=f"TensorFlow {graph.meta_info_def.tensorflow_version}".strip(),
        description=f"SavedModel, signature {program.name}",
        names=names,
        original=original,
    )


def _stored(path: Path, graph: Any) -> Stored:
    """Return the values of the variables: the function that restores them says under which name each is stored."""
    whole = Net.of(graph.graph_def)
    prefix = path / "variables" / "variables"
    if not prefix.with_name("variables.index").is_file():
        return constants_of(whole)
    restore = ref_of(graph.saver_def.restore_op_name)[0]
    return stored_in(prefix, without_calls(whole.cut(whole.ancestors([restore], control=True))), "")


def _with_loaded(stored: Stored, net: Net, load: Callable[[], Any]) -> Stored:
    """Return the stored values with those that TensorFlow's own loader finds for variables that no operation restores.

    Some programs restore into variables of their own, and only the loader knows which those stand for. It names them,
    and a name that several variables have says nothing.
    """
    lost = [node for node in net.nodes.values() if is_variable(node) and stored.name_of(node.name) is None]
    if not lost:
        return stored
    names = Counter(attribute(node, "shared_name").s.decode() for node in net.nodes.values() if is_variable(node))
    variables = [(variable.name.partition(":")[0], variable) for variable in load().graph.variables]
    counts = Counter(name for name, _ in variables)
    found = {f"loaded {name}": variable for name, variable in variables if counts[name] == names[name] == 1}
    keys = {node.name: f"loaded {attribute(node, 'shared_name').s.decode()}" for node in lost}

    def read(name: str) -> Array:
        return np.asarray(found[name].numpy()) if name in found else stored.read(name)

    shapes = {**stored.shapes, **{name: tuple(variable.shape) for name, variable in found.items()}}
    return replace(stored, shapes=shapes, names={**stored.names, **keys}, read=read)


def _runner(load: Callable[[], Any], modes: Mapping[str, Array], outputs: Mapping[str, str]) -> Runner:
    """Return a function that runs the signature itself, with its mode inputs fed.

    Args:
        load: Returns the signature's function; it is called once, and only where something is run.
        modes: Values of its mode inputs.
        outputs: The ONNX name of every output that is computed, by its name in the signature.
    """
    loaded: list[Any] = []

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        tf = tensorflow()
        if not loaded:
            loaded.append(load())
        function = loaded[0]
        specs = function.structured_input_signature[1]
        given = {**feeds, **modes}
        with quiet():
            values = function(
                **{key: tf.convert_to_tensor(np.asarray(given[key]), spec.dtype) for key, spec in specs.items()}
            )
        return {onnx_name: np.asarray(values[key]) for key, onnx_name in outputs.items()}

    return run
