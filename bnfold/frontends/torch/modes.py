"""Training mode out of an exported program: batch norms on their running statistics, dropout off, nothing random."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bnfold.errors import InferenceModeError, UnsupportedOpError
from bnfold.frontends.loaded import ModeChange
from bnfold.frontends.signature import listed
from bnfold.frontends.torch.archive import Tree, as_written
from bnfold.frontends.torch.harmless import argument, graphs, layer_of, op_of, tensors

__all__ = ["BATCH_NORMS", "buffers", "in_inference_mode", "trains"]

BATCH_NORMS = frozenset(
    {
        "batch_norm",
        "native_batch_norm",
        "cudnn_batch_norm",
        "miopen_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_functional",
        "_native_batch_norm_legit_no_training",
        "_batch_norm_with_update",
        "_batch_norm_with_update_functional",
        "_batch_norm_no_update",
    }
)
"""Operations that normalise by channels, with the statistics of a batch or with running ones."""

_ALWAYS_TRAINS = frozenset({"_batch_norm_with_update", "_batch_norm_with_update_functional"})
_WITHOUT_TRAINING = "torch.ops.aten._native_batch_norm_legit_no_training.default"
_DROPOUT = frozenset(
    {"dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout", "rrelu",
     "rrelu_with_noise", "rrelu_with_noise_functional", "lstm", "gru", "rnn_tanh", "rnn_relu"}
)  # fmt: skip
_RANDOM = frozenset(
    {"bernoulli", "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "normal",
     "normal_functional", "uniform", "multinomial", "poisson", "exponential", "geometric", "cauchy", "log_normal",
     "random", "binomial", "native_dropout", "dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"}
)  # fmt: skip
_FLAGS = ("training", "train", "use_input_stats")
_COUNTER = "num_batches_tracked"
_CAUTION = "what the program does only while training in other ways, such as outputs of its own, is still in it"
_MODE = "Put the network in evaluation mode with model.eval(), and export it again."


def in_inference_mode(program: Tree, where: str) -> tuple[Tree, tuple[ModeChange, ...]]:
    """Return a program in inference mode, and what was done to it.

    Args:
        program: As ``harmless.program_of`` returns it; it stays as it is.
        where: What to call it in errors.

    Raises:
        InferenceModeError: If a batch norm has no running statistics, or something random is left.
        UnsupportedOpError: If it remembers something from one call to the next.
    """
    with as_written(where):
        return _in_inference_mode(copy.deepcopy(program), where)


def _in_inference_mode(found: Tree, where: str) -> tuple[Tree, tuple[ModeChange, ...]]:
    module = found["graph_module"]
    changes: list[ModeChange] = []
    without: list[str] = []
    for graph in graphs(module["graph"]):
        for node in graph["nodes"]:
            change = _switched(node, without)
            if change is not None:
                changes.append(change)
    if without:
        raise InferenceModeError(
            f"{where}: {len(without)} batch norm{'s have' if len(without) > 1 else ' has'} no running statistics in "
            f"the file, and normalises with those of each batch: {listed(without)}",
            hint="Train the network with track_running_stats=True, and export it in evaluation mode.",
        )
    _forget(module, where)
    live = _live(module["graph"])
    random = [_named(node) for node in live if _draws(node)]
    if random:
        raise InferenceModeError(
            f"{where}: the outputs depend on {len(random)} "
            f"operation{'s that draw' if len(random) > 1 else ' that draws'} at random: {listed(random)}",
            hint=_MODE,
        )
    if changes and any(change.kind == "training-mode" for change in changes):
        first = next(index for index, change in enumerate(changes) if change.kind == "training-mode")
        one = changes[first]
        changes[first] = ModeChange(one.kind, one.name, one.before, one.after, f"{one.proof}; {_CAUTION}")
    return found, tuple(changes)


def trains(node: Tree) -> bool:
    """Say whether a batch norm normalises with the statistics of the batch it is given."""
    if op_of(node) in _ALWAYS_TRAINS:
        return True
    return any((argument(node, flag) or {}).get("as_bool") for flag in _FLAGS)


def buffers(module: Tree) -> dict[str, str]:
    """Return the paths of a network's own tensors by the names that its program gives them."""
    found = {}
    for spec in module["signature"]["input_specs"]:
        for kind, key in (("parameter", "parameter_name"), ("buffer", "buffer_name"),
                ("tensor_constant", "tensor_constant_name")):  # fmt: skip
            if kind in spec:
                found[spec[kind]["arg"]["name"]] = spec[kind][key]
    return found


def _switched(node: Tree, without: list[str]) -> ModeChange | None:
    """Put one operation in inference mode, and say so; None where there is nothing to do."""
    op = op_of(node).removesuffix("_") or op_of(node)
    if op in BATCH_NORMS or op == "instance_norm":
        return _normalised(node, op, without)
    if op in _DROPOUT:
        given = next((given for given in node["inputs"] if given["name"] in _FLAGS), None)
        on = given is not None and given["arg"] != {"as_bool": False}
        if given is not None and on:
            given["arg"] = {"as_bool": False}
            rate = argument(node, "p") or argument(node, "dropout") or {}
            number = rate.get("as_float", rate.get("as_int"))
            if number == 0:
                return None
            before = op if number is None else f"{op} {number:g}"
            return ModeChange("dropout", _named(node), before, "off", "train=True became False")
        return None
    for given in node["inputs"]:
        number = given["arg"].get("as_float", given["arg"].get("as_int", 0))
        if given["name"] == "dropout_p" and number:
            given["arg"] = {"as_float": 0.0}
            return ModeChange("dropout", _named(node), f"dropout of attention {number:g}", "off", "dropout_p became 0")
        if given["name"] in _FLAGS and given["arg"].get("as_bool"):
            raise InferenceModeError(
                f"the operation {op_of(node)} at {_named(node)} is in training mode, and is not known in another",
                hint=_MODE,
            )
    return None


def _normalised(node: Tree, op: str, without: list[str]) -> ModeChange | None:
    if not trains(node):
        return None
    running = argument(node, "running_mean")
    if running is None or "as_tensor" not in running:
        if op != "instance_norm":  # which has its own statistics for every image, and needs no others
            without.append(_named(node))
        return None
    for given in node["inputs"]:
        if given["name"] in _FLAGS:
            given["arg"] = {"as_bool": False}
    if op not in ("batch_norm", "instance_norm"):
        # The forms that PyTorch lowers to return new statistics too, which nothing updates in inference mode.
        order = ("input", "weight", "bias", "running_mean", "running_var", "momentum", "eps")
        node["inputs"] = [
            given for name in order for given in node["inputs"] if given["name"] in (name, *_OTHER_NAMES.get(name, ()))
        ]
        for given, name in zip(node["inputs"], order, strict=True):
            given["name"] = name
        node["target"], node["outputs"] = _WITHOUT_TRAINING, node["outputs"][:3]
    before = "statistics of each batch"
    return ModeChange("training-mode", _named(node), before, "running statistics", "training=True became False")


_OTHER_NAMES: Mapping[str, Sequence[str]] = {"momentum": ("exponential_average_factor",), "eps": ("epsilon",)}


def _forget(module: Tree, where: str) -> None:
    """Take out what counts batches and updates statistics, in place.

    Raises:
        UnsupportedOpError: If something else is kept for the next call.
    """
    graph, own = module["graph"], buffers(module)
    statistics = {
        own.get(name)
        for inner in graphs(graph)
        for node in inner["nodes"]
        if op_of(node) in BATCH_NORMS | {"instance_norm"}
        for key in ("running_mean", "running_var")
        for name in tensors(argument(node, key) or {})
    }
    specs, values, kept = [], [], set[str]()
    for spec, value in zip(module["signature"]["output_specs"], graph["outputs"], strict=True):
        changed = spec.get("buffer_mutation", {}).get("buffer_name")
        if changed is not None and changed not in statistics and not changed.endswith(_COUNTER):
            kept.add(changed)
        if "user_output" in spec:
            specs.append(spec)
            values.append(value)
    module["signature"]["output_specs"], graph["outputs"] = specs, values
    used = {name for node in graph["nodes"] for given in node["inputs"] for name in tensors(given["arg"])}
    used |= set(tensors(graph["outputs"]))
    nodes = []
    for node in graph["nodes"]:
        changed = _changed(node)
        path = own.get(changed or "")
        if path is not None and path.endswith(_COUNTER) and used.isdisjoint(tensors(node["outputs"])):
            continue
        if path is not None:
            kept.add(path)
        nodes.append(node)
    graph["nodes"] = nodes
    if kept:
        raise UnsupportedOpError(
            f"{where} remembers something from one call to the next, which an ONNX model cannot: "
            f"{listed(sorted(kept))}",
            hint="Make it an input and an output of the network, and export it again.",
        )
    if not values:
        raise UnsupportedOpError(
            f"{where} returns no tensor", hint="Let its forward return a tensor, and export it again."
        )


def _changed(node: Tree) -> str | None:
    """Return the tensor that an operation writes to, which PyTorch marks by the end of its name."""
    op = op_of(node)
    if not op.endswith("_") or op.endswith("__") or not node["inputs"]:
        return None
    return next(tensors(node["inputs"][0]["arg"]), None)


def _live(graph: Tree) -> Iterator[Tree]:
    """Yield the operations that the outputs depend on, those inside branches with them."""
    wanted = set(tensors(graph["outputs"]))
    for node in reversed(graph["nodes"]):
        written = _changed(node)
        if wanted.isdisjoint(tensors(node["outputs"])) and written not in wanted:
            continue
        yield node
        for given in node["inputs"]:
            wanted.update(tensors(given["arg"]))
            if "as_graph" in given["arg"]:
                yield from _live(given["arg"]["as_graph"]["graph"])


def _draws(node: Tree) -> bool:
    op = op_of(node)
    if op.removesuffix("_") not in _RANDOM:
        return False
    given: Any = next((given["arg"] for given in node["inputs"] if given["name"] in _FLAGS), None)
    return bool(given != {"as_bool": False})


def _named(node: Tree) -> str:
    return layer_of(node) or str(node.get("name") or op_of(node))
