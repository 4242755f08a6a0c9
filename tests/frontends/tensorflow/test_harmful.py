"""One list says which operations reach beyond computing, whatever kind of file they stand in."""

from __future__ import annotations

import pytest

from bnfold.frontends.tensorflow.guests import quiet, tensorflow
from bnfold.frontends.tensorflow.harmful import reaches_out


@pytest.mark.parametrize("op", ["PyFunc", "PyFuncStateless", "EagerPyFunc", "NumpyFunction", "LoadLibrary", "ReadFile",
    "WriteFile", "MatchingFiles", "PrintV2", "WholeFileReaderV2", "ReaderReadUpToV2", "TFRecordDatasetV2", "SqlDataset",
    "OneShotIterator", "DebugIdentityV2", "CopyHost", "_Send", "_HostRecv", "RemoteCall", "RpcServerStart", "RpcClient",
    "InitializeTableFromTextFileV2", "LookupTableExportV2", "WriteSummary", "CreateSummaryDbWriter", "ImmutableConst",
    "RecordInput", "FixedUnigramCandidateSampler", "Skipgram", "CalibrationStatisticsSaver", "SaveSlices",
    "DTensorRestoreV2", "CollectiveReduceV2", "_NcclBroadcastSend", "XlaLaunchV2", "_XlaHostComputeMlir",
    "XlaCustomCallV2", "TPUExecute", "DataServiceDatasetV2", "SleepOp", "ImportEvent"])  # fmt: skip
@pytest.mark.parametrize("checkpoints", [True, False])
def test_operations_that_reach_out_are_known(op: str, *, checkpoints: bool) -> None:
    assert reaches_out(op, checkpoints=checkpoints)


@pytest.mark.parametrize("op", ["SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename"])
def test_checkpoints_are_kept_beside_a_network_and_never_inside_it(op: str) -> None:
    assert not reaches_out(op, checkpoints=False)
    assert reaches_out(op, checkpoints=True)


@pytest.mark.parametrize("op", ["Conv2D", "Reshape", "StatefulPartitionedCall", "Assert", "ReadVariableOp", "While",
    "TensorListReserve", "Sendable", "Print", "FusedBatchNormV3", "RandomUniform", "DeepCopy", "XlaConvV2",
    "HashTableV2", "LookupTableFindV2", "ReadVariableXlaSplitND"])  # fmt: skip
def test_operations_that_compute_or_keep_values_are_let_through(op: str) -> None:
    assert not reaches_out(op, checkpoints=True)


@pytest.mark.tensorflow
def test_no_operation_of_tensorflow_that_is_told_a_file_is_let_through() -> None:
    pywrap = tensorflow("tensorflow.python.client.pywrap_tf_session")
    op_defs = tensorflow("tensorflow.core.framework.op_def_pb2").OpList()
    with quiet():
        op_defs.ParseFromString(pywrap.TF_GetBuffer(pywrap.TF_GetAllOpList()))
    told = {
        op.name
        for op in op_defs.op
        if any(
            word in field.name.split("_")
            for field in (*op.input_arg, *op.attr)
            for word in ("file", "filename", "filenames", "path", "directory", "address", "url", "prefix", "dirname")
        )
    }
    assert len(told) > 40
    assert {op for op in told if not reaches_out(op, checkpoints=True)} == set()
