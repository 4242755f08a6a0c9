"""The messages of the protocol over gRPC, by name, number and type, as its clients have them.

They are declared here and made when this is imported, so that no generated file has to be kept in step with anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["METHODS", "SERVICE", "message"]

SERVICE = "inference.GRPCInferenceService"

METHODS = (
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelInfer",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
)
"""Each takes a message of its name with ``Request`` behind it, and answers with one with ``Response``."""

_PACKAGE = "inference"
_MODEL = "1 name string, 2 version string"
_LOAD = "1 repository_name string, 2 model_name string, 3 parameters <ModelRepositoryParameter>"
_LOADED = "1 model_name string, 2 isLoaded bool"

# NUMBER NAME TYPE; [TYPE] is repeated, <TYPE> a map from texts, and what begins with "|" is one of a choice.
_MESSAGES: Mapping[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 name string, 2 version string, 3 extensions [string]",
    "ModelReadyRequest": _MODEL,
    "ModelReadyResponse": "1 ready bool",
    "ModelMetadataRequest": _MODEL,
    "TensorMetadata": "1 name string, 2 datatype string, 3 shape [int64]",
    "ModelMetadataResponse": "1 name string, 2 versions [string], 3 platform string, 4 inputs [TensorMetadata], "
    "5 outputs [TensorMetadata]",
    "InferParameter": "1 bool_param |bool, 2 int64_param |int64, 3 string_param |string, 4 double_param |double, "
    "5 uint64_param |uint64",
    "InferTensorContents": "1 bool_contents [bool], 2 int_contents [int32], 3 int64_contents [int64], "
    "4 uint_contents [uint32], 5 uint64_contents [uint64], 6 fp32_contents [float], 7 fp64_contents [double], "
    "8 bytes_contents [bytes]",
    "InferInputTensor": "1 name string, 2 datatype string, 3 shape [int64], 4 parameters <InferParameter>, "
    "5 contents InferTensorContents",
    "InferRequestedOutputTensor": "1 name string, 2 parameters <InferParameter>",
    "ModelInferRequest": "1 model_name string, 2 model_version string, 3 id string, 4 parameters <InferParameter>, "
    "5 inputs [InferInputTensor], 6 outputs [InferRequestedOutputTensor], 7 raw_input_contents [bytes]",
    "InferOutputTensor": "1 name string, 2 datatype string, 3 shape [int64], 4 parameters <InferParameter>, "
    "5 contents InferTensorContents",
    "ModelInferResponse": "1 model_name string, 2 model_version string, 3 id string, 4 parameters <InferParameter>, "
    "5 outputs [InferOutputTensor], 6 raw_output_contents [bytes]",
    "ModelConfigRequest": _MODEL,
    "ModelInput": "1 name string, 2 data_type int32, 4 dims [int64]",
    "ModelOutput": "1 name string, 2 data_type int32, 3 dims [int64]",
    "ModelConfig": "1 name string, 2 platform string, 4 max_batch_size int32, 5 input [ModelInput], "
    "6 output [ModelOutput], 17 backend string",
    "ModelConfigResponse": "1 config ModelConfig",
    "ModelStatisticsRequest": _MODEL,
    "StatisticDuration": "1 count uint64, 2 ns uint64",
    "InferStatistics": "1 success StatisticDuration, 2 fail StatisticDuration, 3 queue StatisticDuration, "
    "4 compute_input StatisticDuration, 5 compute_infer StatisticDuration, 6 compute_output StatisticDuration, "
    "7 cache_hit StatisticDuration, 8 cache_miss StatisticDuration",
    "InferBatchStatistics": "1 batch_size uint64, 2 compute_input StatisticDuration, "
    "3 compute_infer StatisticDuration, 4 compute_output StatisticDuration",
    "ModelStatistics": "1 name string, 2 version string, 3 last_inference uint64, 4 inference_count uint64, "
    "5 execution_count uint64, 6 inference_stats InferStatistics, 7 batch_stats [InferBatchStatistics]",
    "ModelStatisticsResponse": "1 model_stats [ModelStatistics]",
    "RepositoryIndexRequest": "1 repository_name string, 2 ready bool",
    "ModelIndex": "1 name string, 2 version string, 3 state string, 4 reason string",
    "RepositoryIndexResponse": "1 models [ModelIndex]",
    "ModelRepositoryParameter": "1 bool_param |bool, 2 int64_param |int64, 3 string_param |string, "
    "4 bytes_param |bytes",
    "RepositoryModelLoadRequest": _LOAD,
    "RepositoryModelLoadResponse": _LOADED,
    "RepositoryModelUnloadRequest": _LOAD,
    "RepositoryModelUnloadResponse": _LOADED,
}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}


def message(name: str) -> Any:
    """Return the class of a message."""
    return _CLASSES[name]


def _set_type(field: Any, kind: str, label: int) -> None:
    field.label = label
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"


def _describe(declared: Any, text: str) -> None:
    for one in filter(None, text.split(", ")):
        number, name, kind = one.split()
        field = declared.field.add(name=name, number=int(number))
        if kind.startswith("<"):
            entry = declared.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
            entry.options.map_entry = True
            _set_type(entry.field.add(name="key", number=1), "string", _Field.LABEL_OPTIONAL)
            _set_type(entry.field.add(name="value", number=2), kind[1:-1], _Field.LABEL_OPTIONAL)
            _set_type(field, f"{declared.name}.{entry.name}", _Field.LABEL_REPEATED)
        elif kind.startswith("["):
            _set_type(field, kind[1:-1], _Field.LABEL_REPEATED)
        else:
            _set_type(field, kind.lstrip("|"), _Field.LABEL_OPTIONAL)
            if kind.startswith("|"):
                if not declared.oneof_decl:
                    declared.oneof_decl.add(name="parameter_choice")
                field.oneof_index = 0


def _made() -> Mapping[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="bnfold/inference.proto", package=_PACKAGE, syntax="proto3")
    for name, text in _MESSAGES.items():
        _describe(file.message_type.add(name=name), text)
    pool = descriptor_pool.DescriptorPool()  # one of our own: another library may have declared the same names
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASSES = _made()
