"""Which input and output of one model is which of another one, where two files call them differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnx import TensorProto, ValueInfoProto

from bnfold.errors import SignatureError
from bnfold.report import Paired

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["pairs"]


def pairs(model: ModelProto, other: ModelProto) -> tuple[Paired, ...]:
    """Return which value of the second model is called differently in the first.

    The same name is the same value. Of the others, those whose names differ only in a ``:0`` or in what stands for a
    slash belong together, and then those that only one can be: of that type and these sizes.

    Raises:
        SignatureError: If what they are fed, or what they answer, cannot be matched.
    """
    return (*_of_kind("input", model, other), *_of_kind("output", model, other))


def _of_kind(kind: str, model: ModelProto, other: ModelProto) -> tuple[Paired, ...]:
    ours, theirs = (_fed(one, kind) for one in (model, other))
    names, others = [value.name for value in ours], [value.name for value in theirs]
    left = [value for value in ours if value.name not in others]
    free = [value for value in theirs if value.name not in names]
    found: dict[str, str] = {}
    for alike in (_plainly, _possibly):
        for value in [value for value in left if value.name not in found]:
            near = [item for item in free if item.name not in found.values() and alike(value, item)]
            back = [item for item in left if item.name not in found and near and alike(item, near[0])]
            if len(near) == len(back) == 1:
                found[value.name] = near[0].name
    if len(names) != len(others) or len(found) != len(left):
        raise SignatureError(
            f"the two models do not have the same {kind}s: {_listed(ours)} here, {_listed(theirs)} there",
            hint=f"Name the {kind}s with --{kind}s, or compare models of the same network.",
        )
    return tuple(Paired(kind, name, found[name]) for name in names if name in found)


def _fed(model: ModelProto, kind: str) -> list[ValueInfoProto]:
    """Return the inputs that have to be fed, or the outputs: what has a default is not fed."""
    defaults = {tensor.name for tensor in model.graph.initializer} if kind == "input" else set()
    return [value for value in getattr(model.graph, kind) if value.name not in defaults]


def _plainly(value: ValueInfoProto, other: ValueInfoProto) -> bool:
    return _plain(value.name) == _plain(other.name)


def _plain(name: str) -> str:
    return name.removesuffix(":0").replace("/", "_").replace(":", "_").lower()


def _possibly(value: ValueInfoProto, other: ValueInfoProto) -> bool:
    """Whether two values may be the same by their types; what is not known does not speak against it."""
    one, two = value.type, other.type
    if one.WhichOneof("value") != two.WhichOneof("value"):
        return False
    a, b = one.tensor_type, two.tensor_type
    if a.elem_type != b.elem_type:
        return False
    if not a.HasField("shape") or not b.HasField("shape"):
        return True
    sizes = [(x.dim_value, y.dim_value) for x, y in zip(a.shape.dim, b.shape.dim, strict=False)]
    return len(a.shape.dim) == len(b.shape.dim) and all(x == y or not x or not y for x, y in sizes)


def _listed(values: Sequence[ValueInfoProto]) -> str:
    return ", ".join(f"{value.name} {_described(value)}".strip() for value in values) or "none"


def _described(value: ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return ""
    sizes = [
        size.dim_param or (str(size.dim_value) if size.HasField("dim_value") else "?") for size in tensor.shape.dim
    ]
    return f"{TensorProto.DataType.Name(tensor.elem_type).lower()}[{', '.join(sizes)}]"
