"""Operations that reach beyond computing: the one list of them, for every kind of TensorFlow file."""

from __future__ import annotations

import re

__all__ = ["reaches_out"]

_REACHES_OUT = re.compile(
    r"""(?x)
    # Other code, other processes, other machines.
    (Eager)?PyFunc(Stateless)? | NumpyFunction | LoadLibrary | RemoteCall | OneShotIterator | Abort | Sleep(Identity)?Op
    | Rpc\w+ | _?(Host)?(Send|Recv) | _?Collective\w+ | _?Nccl\w+ | WorkerHeartbeat | FileSystemSetConfiguration
    | TRTEngineOp | _?Xla(HostCompute|Launch|CustomCall)\w*
    | (Tpu|TPU|DTensor|Lmdb|LMDB|Gcs|BigQuery|Kafka|Kinesis|Bigtable)\w+
    # Files, by whatever name they are called.
    | ReadFile | WriteFile | MatchingFiles | RecordInput | \w*Reader\w* | \w*Dataset\w* | ImmutableConst
    | InitializeTableFromTextFile\w* | LookupTableExport\w* | FixedUnigramCandidateSampler | Skipgram
    | Save | SaveSlices | Restore | RestoreSlice | DistributedSave | LoadAndRemapMatrix | GenerateVocabRemapping
    | (Decode|Encode)ProtoV?\d* | CalibrationStatisticsSaver
    # Logs, which are files too. The first Print writes to the terminal only.
    | PrintV2 | DumpTensor | Debug\w+ | Copy(Host)? | \w*Summary\w* | ImportEvent
    """
)

_OF_CHECKPOINTS = frozenset({"SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename", "ShardedFilespec"})


def reaches_out(op: str, *, checkpoints: bool) -> bool:
    """Tell whether an operation runs other code, reads or writes files, waits, or talks to other machines.

    Args:
        op: Its type.
        checkpoints: Whether reading and writing checkpoints counts. Every SavedModel and every training program has
            operations for it, beside what it computes; what an output depends on has none.
    """
    return _REACHES_OUT.fullmatch(op) is not None or (checkpoints and op in _OF_CHECKPOINTS)
