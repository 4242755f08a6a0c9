"""A frozen TensorFlow graph in inference mode becomes ONNX, with every batch norm still in place.

tf2onnx would like to multiply batch norms into convolutions on the way. What it folds can be neither counted nor
verified, so the three places where it does so are taken out of its list of steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import onnx

from bnfold.errors import SourceError, UnsupportedOpError
from bnfold.frontends.tensorflow.canonical import make_canonical
from bnfold.frontends.tensorflow.guests import native_quiet, quiet, tensorflow, tf2onnx
from bnfold.frontends.tensorflow.steps import multiply_steps_at_once

__all__ = ["DEFAULT_OPSET", "to_onnx"]

DEFAULT_OPSET = 17
_OLDEST_OPSET = 13
_NEWEST_OPSET = 18
_LONGEST_LIST = 8

# tf2onnx counts the names that it invents in a variable of its module.
_one_at_a_time = Lock()


def to_onnx(
    graph_def: Any,  # TensorFlow's GraphDef, which has no types of its own
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int | None = None,
) -> onnx.ModelProto:
    """Return the ONNX model of a frozen graph that is in inference mode already.

    The same graph gives the same bytes in every run.

    Args:
        graph_def: A ``GraphDef`` without variables.
        inputs: Names of the tensors to feed, for example ``"x:0"``; the ONNX inputs have the same names.
        outputs: Names of the tensors to compute; the ONNX outputs have the same names.
        opset: ONNX opset to convert to; None means ``DEFAULT_OPSET``.

    Raises:
        MissingExtraError: If TensorFlow or tf2onnx is not installed.
        UnsupportedOpError: If an operation has no ONNX form, or the opset cannot be converted to.
    """
    opset = DEFAULT_OPSET if opset is None else opset
    if not _OLDEST_OPSET <= opset <= _NEWEST_OPSET:
        raise UnsupportedOpError(
            f"TensorFlow graphs are converted to the ONNX opsets {_OLDEST_OPSET} to {_NEWEST_OPSET}, not to {opset}",
            hint=f"Leave the opset out: the default is {DEFAULT_OPSET}.",
        )
    tf = tensorflow()
    tfonnx = tf2onnx("tf2onnx.tfonnx")
    names = tf2onnx("tf2onnx.utils")
    with _one_at_a_time, quiet():
        names.INTERNAL_NAME = 1
        try:
            with tf.Graph().as_default() as graph:
                tf.import_graph_def(_inlined(graph_def, inputs, outputs), name="")
                converted = _simplified(
                    lambda: tfonnx.process_tf_graph(
                        graph,
                        opset=opset,
                        input_names=list(inputs),
                        output_names=list(outputs),
                        continue_on_error=False,
                    )
                )
                model: onnx.ModelProto = converted.make_model("")
        except Exception as error:  # tf2onnx raises whatever its steps run into
            raise _refused(error, graph_def) from error
    _demand_onnx_ops(model)
    multiply_steps_at_once(model)
    make_canonical(model, {node.name for node in graph_def.node})
    _name_free_axes(model)
    return model


def _inlined(graph_def: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return the graph with the calls of its functions spelled out; a graph without functions as it is.

    Only these two of grappler's steps are named, so none of those runs that multiply constants into weights.
    """
    if not graph_def.library.function:
        return graph_def
    tf = tensorflow()
    optimizer = tensorflow("tensorflow.python.grappler.tf_optimizer")
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.optimizers[:] = ["function", "dependency"]
    config.graph_options.rewrite_options.min_graph_nodes = -1
    with tf.Graph().as_default():
        meta_graph = tf.compat.v1.train.export_meta_graph(graph_def=graph_def)
    meta_graph.collection_def["train_op"].node_list.value.extend([*inputs, *outputs])
    with native_quiet():
        return optimizer.OptimizeGraph(config, meta_graph)


def _simplified(convert: Callable[[], Any]) -> Any:
    """Convert, and take tf2onnx's steps for a finished graph.

    To go on behind a step that fails, tf2onnx copies the whole graph, weights included, in front of every step. So that
    is asked for only where one has failed.
    """
    steps = tf2onnx("tf2onnx.optimizer")
    converted = convert()
    try:
        return steps.optimize_graph(converted, catch_errors=False, optimizers=_steps())
    except Exception:  # a step raises whatever it runs into
        return steps.optimize_graph(convert(), catch_errors=True, optimizers=_steps())


def _steps() -> dict[str, Any]:
    """Return tf2onnx's steps for a finished graph, without what folds weights."""
    steps = tf2onnx("tf2onnx.optimizer")
    back_to_back = tf2onnx("tf2onnx.optimizer.back_to_back_optimizer")
    chosen: dict[str, Any] = dict(steps._get_optimizers())  # noqa: SLF001  # the list has no public name

    transposes: Any = chosen["optimize_transpose"]
    pairs: Any = chosen["remove_back_to_back"]

    class Transposes(transposes):  # type: ignore[misc]  # a guest's class
        """Moves transposes until they cancel, and leaves every weight as it is."""

        def _mul_handler(self, trans: Any, node: Any) -> bool:
            # A constant on the right would be multiplied into the weight of a Conv; on the left it is only moved.
            if len(node.input) == 2 and node.inputs[1].is_const() and not node.inputs[0].is_const():
                self._g.replace_inputs(node, [node.input[1], node.input[0]])
            return bool(super()._mul_handler(trans, node))

        def _add_handler(self, trans: Any, node: Any) -> bool:
            # Its parent would write the constant into a Conv's bias, and reshape it for whoever else reads it.
            return bool(self._handle_node_having_branches(trans, node))

    class BackToBack(pairs):  # type: ignore[misc]
        """Removes pairs of Cast, Transpose, Squeeze and Reshape, but not of Conv and BatchNormalization."""

        def _optimize(self, graph: Any) -> Any:
            functions = back_to_back._func_map  # noqa: SLF001
            folding = functions.pop(("Conv", "BatchNormalization"), None)
            try:
                return super()._optimize(graph)
            finally:
                if folding is not None:
                    functions["Conv", "BatchNormalization"] = folding

    # It keeps whichever of several equal nodes a Python set yields first; make_canonical does the same in an order.
    del chosen["merge_duplication"]
    chosen["optimize_transpose"] = Transposes
    chosen["remove_back_to_back"] = BackToBack
    return chosen


def _refused(error: Exception, graph_def: Any) -> SourceError:
    words = " ".join(str(error).split())
    named = re.search(r"[Oo]p(?: type)? (?:of )?'?(\w+)'? (?:is not|not) (?:implemented|registered|supported)", words)
    if named:
        where = [node.name for node in graph_def.node if node.op == named[1]]
        return UnsupportedOpError(
            f"the operation {named[1]} has no ONNX form" + (f"; it is at {_listed(where)}" if where else ""),
            hint="Name outputs that do not need it, for example: --outputs logits:0",
        )
    return UnsupportedOpError(
        f"the graph of {len(graph_def.node)} nodes cannot be converted to ONNX: {type(error).__name__}: {words[:400]}",
        hint="Name outputs that do not need the operation in question, for example: --outputs logits:0",
    )


def _demand_onnx_ops(model: onnx.ModelProto) -> None:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    unknown: dict[str, list[str]] = {}
    for node in _nodes(model.graph):
        if node.domain == "ai.onnx.ml":
            continue
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, max_inclusive_version=opset):
            unknown.setdefault(node.op_type, []).append(node.name)
    if unknown:
        listed = "; ".join(f"{op_type} at {_listed(where)}" for op_type, where in sorted(unknown.items()))
        raise UnsupportedOpError(
            f"{len(unknown)} operation{'s have' if len(unknown) > 1 else ' has'} no ONNX form: {listed}",
            hint="Name outputs that do not need them, for example: --outputs logits:0",
        )


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found: list[onnx.NodeProto] = []
    graphs = [graph]
    while graphs:
        for node in graphs.pop().node:
            found.append(node)
            for attribute in node.attribute:
                graphs.extend([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs)
    return found


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _LONGEST_LIST
    return ", ".join(sorted(names)[:_LONGEST_LIST]) + (f" and {rest} more" if rest > 0 else "")


def _name_free_axes(model: onnx.ModelProto) -> None:
    """Give the free axes of inputs and outputs names that people can read: the first one is the batch."""
    for value in [*model.graph.input, *model.graph.output]:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.HasField("dim_value"):
                plain = re.sub(r"\W+", "_", value.name.removesuffix(":0"))
                dimension.dim_param = "batch" if axis == 0 else f"{plain}_{axis}"
