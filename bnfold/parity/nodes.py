"""How one node is computed: by a kernel of ours, by onnx's reference, by its definition's body, or by a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper
from onnx.defs import SchemaError

from bnfold.errors import UnsupportedOpError
from bnfold.parity.kernels import KERNELS, Array, Call, computes_with, is_plain_resize, widen

__all__ = ["STANDARD", "Computation", "Foreign", "attributes_of", "computation", "round_outputs"]

STANDARD = frozenset({"", "ai.onnx"})

Foreign = Callable[[NodeProto, Sequence[Any]], Sequence[Array]]
"""Computes a node of a domain that onnx does not define."""

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_RENAMED = {"Scatter": "ScatterElements"}
"""Operations that live on under another name."""


@dataclass(frozen=True, slots=True)
class Computation:
    """One node, ready to run on float64 inputs."""

    run: Callable[[Sequence[Any]], Sequence[Any]]
    schema: Any = None


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values; floats have the exact float32 value, tensors are arrays."""
    return {attribute.name: _value(attribute) for attribute in node.attribute}


def _value(attribute: AttributeProto) -> Any:
    kind = attribute.type
    if kind == AttributeProto.TENSOR:
        return np.asarray(numpy_helper.to_array(attribute.t))
    if kind == AttributeProto.STRING:
        return attribute.s.decode("utf-8", errors="replace")
    if kind == AttributeProto.STRINGS:
        return [item.decode("utf-8", errors="replace") for item in attribute.strings]
    return helper.get_attribute_value(attribute)


def computation(
    node: NodeProto, versions: Mapping[str, int], foreign: Foreign | None
) -> Computation | FunctionProto | Callable[[Sequence[Any]], FunctionProto]:
    """Find out how to compute a node; a function is its definition's body.

    Raises:
        UnsupportedOpError: If nobody knows.
    """
    domain = "" if node.domain in STANDARD else node.domain
    version = versions.get(domain, onnx.defs.onnx_opset_version() if not domain else 1)
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, domain)
    except SchemaError:
        schema = None
    if not domain and node.op_type in _RANDOM:
        raise UnsupportedOpError(
            f"{node.op_type} {node.name!r} draws random numbers, so the model has no reference",
            hint="Remove the sampling, or name outputs in front of it.",
        )
    if not domain and node.op_type == "Optional":  # a value, or none: what holds it is no sequence
        return Computation(lambda inputs: [inputs[0] if inputs else None], schema)
    ours = node.op_type in KERNELS and (node.op_type != "Resize" or is_plain_resize(attributes_of(node)))
    if not domain and ours:
        since = version if schema is None else int(schema.since_version)
        defaults = {} if schema is None else _defaults(schema)
        call = Call(node.op_type, since, {**defaults, **attributes_of(node)}, tuple(node.output))
        kernel = KERNELS[node.op_type]
        return Computation(lambda inputs: kernel(call, inputs), schema)
    implementation = _implementation(node, domain, version)
    if implementation is not None:
        return Computation(lambda inputs: [_widened(value) for value in implementation(inputs)], schema)
    if schema is not None and schema.has_function:
        return _with_defaults(schema.function_body, schema)
    if schema is not None and schema.has_context_dependent_function:

        def body(inputs: Sequence[Any]) -> FunctionProto:
            types = [_type_of(value).SerializeToString() for value in inputs]
            function = FunctionProto()
            function.ParseFromString(schema.get_context_dependent_function(node.SerializeToString(), types))
            return _with_defaults(function, schema)

        return body
    if foreign is not None:
        return Computation(lambda inputs: [_widened(value) for value in foreign(node, inputs)], schema)
    raise UnsupportedOpError(
        f"the float64 reference does not know {domain + '::' if domain else ''}{node.op_type} (version {version})",
        hint="Report the model: an operation that onnxruntime runs should have a reference.",
    )


def _with_defaults(body: FunctionProto, schema: Any) -> FunctionProto:
    """Add the defaults that the definition knows and its body does not."""
    function = FunctionProto()
    function.CopyFrom(body)
    known = {attribute.name for attribute in function.attribute_proto}
    for name, attribute in schema.attributes.items():
        if name not in known and attribute.default_value.type != AttributeProto.UNDEFINED:
            function.attribute_proto.add().CopyFrom(attribute.default_value)
    return function


def _defaults(schema: Any) -> dict[str, Any]:
    return {
        name: _value(attribute.default_value)
        for name, attribute in schema.attributes.items()
        if attribute.default_value.type != AttributeProto.UNDEFINED
    }


def _implementation(node: NodeProto, domain: str, version: int) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
    """Return onnx's own implementation of an operation, if it has one that is no function body."""
    from onnx.reference import ReferenceEvaluator, op_run

    try:
        if domain == "ai.onnx.ml":
            from onnx.reference.ops.aionnxml import load_op as load_ml

            cls = load_ml(domain, node.op_type, version)
        elif not domain:
            from onnx.reference.ops import load_op

            op_type = _RENAMED.get(node.op_type, node.op_type)
            cls = load_op(domain, op_type, version, evaluator_cls=ReferenceEvaluator)
        else:
            return None
    except (NotImplementedError, RuntimeError, ValueError):
        return None
    if not isinstance(cls, type) or not issubclass(cls, op_run.OpRun):
        return None
    settings = {
        "log": lambda *_: None,
        "opsets": {domain: version},
        "verbose": 0,
        "new_ops": None,
        "existing_functions": {},
        "evaluator_cls": ReferenceEvaluator,
    }
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.domain = domain
    copy.op_type = _RENAMED.get(node.op_type, node.op_type)
    instance: Any = cls(copy, settings)

    def run(inputs: Sequence[Any]) -> Sequence[Any]:
        return tuple(instance.run(*inputs))

    return run


def _widened(value: Any) -> Any:
    if isinstance(value, list):
        return [_widened(item) for item in value]
    return widen(np.asarray(value)) if isinstance(value, (np.ndarray, np.generic)) else value


def _type_of(value: Any) -> TypeProto:
    if value is None:
        return TypeProto()
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def round_outputs(node: NodeProto, found: Computation, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
    """Round what a node computed in float64 to the types that its definition gives its outputs.

    Args:
        node: The node.
        found: Its computation.
        inputs: Its inputs in their stored types; they bind the definition's type variables.
        outputs: What it computed.
    """
    bound: dict[str, np.dtype[Any]] = {}
    if found.schema is not None:
        formals = list(found.schema.inputs)
        for position, value in enumerate(inputs):
            if isinstance(value, np.ndarray) and formals:
                bound.setdefault(formals[min(position, len(formals) - 1)].type_str, value.dtype)
    rounded = []
    for position, value in enumerate(outputs):
        if not isinstance(value, np.ndarray) or not computes_with(value):
            rounded.append(value)
            continue
        target = _stored_type(node, found.schema, position, bound)
        with np.errstate(all="ignore"):
            rounded.append(value if target is None else value.astype(target))
    return rounded


def _stored_type(
    node: NodeProto, schema: Any, position: int, bound: Mapping[str, np.dtype[Any]]
) -> np.dtype[Any] | None:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    for name in ("to", "dtype", "output_dtype"):
        if name in attributes and attributes[name].i:
            return np.dtype(helper.tensor_dtype_to_np_dtype(attributes[name].i))
    for name in ("value", "value_float", "value_floats"):
        if node.op_type in {"Constant", "ConstantOfShape"} and name in attributes:
            element = attributes[name].t.data_type if name == "value" else TensorProto.FLOAT
            return np.dtype(helper.tensor_dtype_to_np_dtype(element))
    if schema is None or not schema.outputs:
        return None
    formal = schema.outputs[min(position, len(schema.outputs) - 1)].type_str
    if formal in bound:
        return bound[formal]
    plain = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
    if formal in plain:
        return np.dtype(plain[formal])
    return np.dtype(np.float32) if node.op_type == "ConstantOfShape" else None
