"""TensorFlow's messages without TensorFlow: as much of them as it takes to look at a graph.

The messages are built at run time in a pool of their own, so that they never meet those that TensorFlow registers.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.errors import CorruptModelError

__all__ = ["array_of", "dtype_name", "is_own", "outputs_of", "parsed", "read_graph"]

Array = npt.NDArray[Any]

_AGAIN = "Get the file again: it is empty, incomplete or damaged."
_PACKAGE = "bnfold.tensorflow"

_MESSAGES = """
Dim: size 1 int64, name 2 string
Shape: dim 2 *Dim, unknown_rank 3 bool
Tensor: dtype 1 Type, tensor_shape 2 Shape, version_number 3 int32, tensor_content 4 bytes, half_val 13 *int32, float_val 5 *float, double_val 6 *double, int_val 7 *int32, string_val 8 *bytes, scomplex_val 9 *float, int64_val 10 *int64, bool_val 11 *bool, dcomplex_val 12 *double, uint32_val 16 *uint32, uint64_val 17 *uint64
Call: name 1 string, attr 2 {Attr
List: s 2 *bytes, i 3 *int64, f 4 *float, b 5 *bool, type 6 *Type, shape 7 *Shape, tensor 8 *Tensor, func 9 *Call
Attr: list 1 List, s 2 bytes, i 3 int64, f 4 float, b 5 bool, type 6 Type, shape 7 Shape, tensor 8 Tensor, placeholder 9 string, func 10 Call
Node: name 1 string, op 2 string, input 3 *string, device 4 string, attr 5 {Attr
Argument: name 1 string, description 2 string, type 3 Type, type_attr 4 string, number_attr 5 string, type_list_attr 6 string
Operation: name 1 string, input_arg 2 *Argument, output_arg 3 *Argument
Function: signature 1 Operation, node_def 3 *Node, ret 4 {string, attr 5 {Attr
Library: function 1 *Function
Versions: producer 1 int32, min_consumer 2 int32
Graph: node 1 *Node, library 2 Library, version 3 int32, versions 4 Versions
About: meta_graph_version 1 string, tags 4 *string, tensorflow_version 5 string
Saver: filename_tensor_name 1 string, save_tensor_name 2 string, restore_op_name 3 string
TensorInfo: name 1 string, dtype 2 Type, tensor_shape 3 Shape
Signature: inputs 1 {TensorInfo, outputs 2 {TensorInfo, method_name 3 string
MetaGraph: meta_info_def 1 About, graph_def 2 Graph, saver_def 3 Saver, signature_def 5 {Signature, object_graph_def 7 Objects
Objects: nodes 1 *bytes
State: model_checkpoint_path 1 string
Header: num_shards 1 int32
Entry: dtype 1 Type, shape 2 Shape, shard_id 3 int32, offset 4 int64, size 5 int64
SavedModel: saved_model_schema_version 1 int64, meta_graphs 2 *MetaGraph
"""  # noqa: E501  # a table, one message a line
"""``name number kind``; ``*`` in front of a kind means a list, ``{`` a map from text."""

_SCALARS = {"double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "bytes": 12}
_SCALARS["uint32"] = 13
_MESSAGE, _ENUM = 11, 14

_TYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    14: "bfloat16",
    15: "qint16",
    16: "quint16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    20: "resource",
    21: "variant",
    22: "uint32",
    23: "uint64",
}
_SPELT = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}
_VALUES = {
    "float32": "float_val",
    "float64": "double_val",
    "int32": "int_val",
    "uint8": "int_val",
    "int16": "int_val",
    "int8": "int_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "uint16": "int_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
}
_SEVERAL = {
    "FusedBatchNorm": ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2"),
    "Switch": ("output_false", "output_true"),
    "RefSwitch": ("output_false", "output_true"),
    "Merge": ("output", "value_index"),
    "RefMerge": ("output", "value_index"),
    "Unique": ("y", "idx"),
    "TopKV2": ("values", "indices"),
    "SoftmaxCrossEntropyWithLogits": ("loss", "backprop"),
    "SparseSoftmaxCrossEntropyWithLogits": ("loss", "backprop"),
}
_SEVERAL["FusedBatchNormV2"] = _SEVERAL["FusedBatchNorm"]
_SEVERAL["FusedBatchNormV3"] = (*_SEVERAL["FusedBatchNorm"], "reserve_space_3")


def read_graph(path: Path, kind: str, *, text: bool = False) -> Any:
    """Return a file's message.

    Args:
        path: The file.
        kind: ``"Graph"``, ``"MetaGraph"``, ``"SavedModel"`` or ``"State"``, of a training run.
        text: Whether it is written as text.

    Raises:
        CorruptModelError: If the file does not hold it.
    """
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError

    content = path.read_bytes()
    message = _classes()[kind]()
    try:
        if text:
            text_format.Parse(content.decode(), message, allow_unknown_field=True)
        else:
            message.ParseFromString(content)
    except (DecodeError, text_format.ParseError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise CorruptModelError(
            f"{path.name} ({len(content)} bytes) is not a whole TensorFlow graph: {' '.join(str(error).split())[:200]}",
            hint=_AGAIN,
        ) from error
    return message


def parsed(content: bytes, kind: str) -> Any:
    """Return a message from its bytes.

    Raises:
        ValueError: If it is not one.
    """
    from google.protobuf.message import DecodeError

    try:
        return _classes()[kind].FromString(content)
    except DecodeError as error:
        raise ValueError(f"a {kind.lower()} does not parse") from error


def is_own(message: Any) -> bool:
    """Return whether a message is one of these, and not one of TensorFlow's."""
    return bool(message.DESCRIPTOR.file.package == _PACKAGE)


def outputs_of(node: Any) -> list[Any] | None:
    """Return the definitions of the outputs of an operation that has several; None for all others."""
    names = _SEVERAL.get(node.op)
    return None if names is None else [_classes()["Argument"](name=name) for name in names]


def dtype_name(number: int) -> str:
    """Return numpy's name of an element type by TensorFlow's number; references count as what they refer to."""
    return _TYPES.get(number % 100, "unknown")


def array_of(tensor: Any) -> Array | None:
    """Return the value of a tensor; None where numpy lacks its type, or it does not hold what its shape says."""
    name = dtype_name(tensor.dtype)
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    count = int(np.prod([float(size) for size in shape])) if shape else 1
    if min(shape, default=0) < 0 or count > 1 << 29 or (name not in _VALUES and name != "float16"):
        return None
    if tensor.tensor_content:
        if len(tensor.tensor_content) != count * np.dtype(name).itemsize:
            return None
        return np.frombuffer(tensor.tensor_content, np.dtype(name).newbyteorder("<")).reshape(shape)
    if name == "float16":
        given = np.array(tensor.half_val, np.uint16).view(np.float16)
    else:
        given = np.array(getattr(tensor, _VALUES[name]), np.int64 if _VALUES[name] == "int_val" else name).astype(name)
    if given.size > count or (not given.size and count):
        return np.zeros(shape, name) if not given.size else None
    # What is written last stands for all that follow.
    filled = np.concatenate([given, np.full(count - given.size, given[-1])]) if given.size < count else given
    return filled.astype(name).reshape(shape)


@cache
def _classes() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="bnfold/tensorflow.proto", package=_PACKAGE, syntax="proto3")
    types = file.enum_type.add(name="Type")
    types.value.add(name="DT_INVALID", number=0)
    for number, name in _TYPES.items():
        spelt = f"DT_{_SPELT.get(name, name.upper())}"
        types.value.add(name=spelt, number=number)
        types.value.add(name=f"{spelt}_REF", number=number + 100)
    for line in _MESSAGES.strip().splitlines():
        name, _, fields = line.partition(": ")
        message = file.message_type.add(name=name)
        if name == "Attr":
            message.oneof_decl.add(name="value")
        for field in fields.split(", "):
            _add_field(message, *field.split(" "))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = message_factory.GetMessageClassesForFiles([file.name], pool)
    return {name.rpartition(".")[2]: cls for name, cls in found.items()}


def _add_field(message: Any, name: str, number: str, kind: str) -> None:
    field = message.field.add(name=name, number=int(number), label=3 if kind[0] in "*{" else 1)
    plain = kind.lstrip("*{")
    if kind.startswith("{"):
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", "1", "string")
        _add_field(entry, "value", "2", plain)
        field.type, field.type_name = _MESSAGE, f".{_PACKAGE}.{message.name}.{entry.name}"
        return
    field.type = _SCALARS.get(plain, _ENUM if plain == "Type" else _MESSAGE)
    if plain not in _SCALARS:
        field.type_name = f".{_PACKAGE}.{plain}"
    if message.name == "Attr":
        field.oneof_index = 0
