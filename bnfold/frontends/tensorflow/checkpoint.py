"""Checkpoints of TensorFlow 1: a meta graph with the whole training program, and the values of its variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bnfold.errors import CorruptModelError
from bnfold.frontends.loaded import Loaded, Request
from bnfold.frontends.tensorflow.beforehand import demand_bounded, demand_harmless_ends, read_own
from bnfold.frontends.tensorflow.convert import loaded_from
from bnfold.frontends.tensorflow.guests import quiet, tensorflow
from bnfold.frontends.tensorflow.messages import read_graph
from bnfold.frontends.tensorflow.net import Net, Value, data_inputs, is_variable, value_of
from bnfold.frontends.tensorflow.reading import read_message
from bnfold.frontends.tensorflow.stored import Stored

__all__ = ["load", "newest", "stored_in"]

_AGAIN = "Get the file again: it is empty, incomplete or damaged."
_WHAT = "a checkpoint"
_SUFFIX = re.compile(r"\.(meta|index|data-\d+-of-\d+)$")


def load(path: Path, request: Request) -> Loaded:
    """Turn a checkpoint with its meta graph into an ONNX model in inference mode.

    Args:
        path: The ``.meta`` file, the prefix that the checkpoint's files have in common, one of those files, or the
            folder that holds them: then its ``checkpoint`` file names the newest.
        request: ``outputs`` names what to compute where the program leaves it open.

    Raises:
        CorruptModelError: If a file is missing or damaged.
        SignatureError: If outputs or inputs are ambiguous or do not exist.
        InferenceModeError: If it cannot be put in inference mode.
        UnsupportedOpError: If an operation may do harm or has no ONNX form.
        MissingExtraError: If TensorFlow is not installed.
    """
    prefix = newest(path) if path.is_dir() else path.with_name(_SUFFIX.sub("", path.name))
    meta = prefix.with_name(f"{prefix.name}.meta")
    if not meta.is_file():
        raise CorruptModelError(
            f"{prefix.name} is a checkpoint without its graph: {meta.name} is not there",
            hint="Put the .meta file of the same run beside it.",
        )
    if not (prefix.is_file() or prefix.with_name(f"{prefix.name}.index").is_file()):
        raise CorruptModelError(
            f"{meta.name} is a graph without values: {prefix.name}.index is not there",
            hint="Put the .index and .data files of the same run beside it.",
        )
    own = read_own(meta, "MetaGraph")
    if own is not None:
        demand_bounded(own.graph_def, meta.stat().st_size)
        demand_harmless_ends(own.graph_def, request.outputs, request.inputs, _WHAT)
    del own
    messages = tensorflow("tensorflow.core.protobuf.meta_graph_pb2")
    meta_graph = read_message(meta, messages.MetaGraphDef(), "a meta graph")
    if not meta_graph.graph_def.node:
        raise CorruptModelError(f"{meta.name} is no meta graph: it has no nodes", hint=_AGAIN)
    net = Net.of(meta_graph.graph_def)
    return loaded_from(
        net,
        stored_in(prefix, net, meta_graph.saver_def.restore_op_name),
        request,
        artifact=_WHAT,
        file_format="checkpoint",
        framework=f"TensorFlow {meta_graph.meta_info_def.tensorflow_version}".strip(),
        description=f"TF1 checkpoint {prefix.name}",
    )


def newest(folder: Path) -> Path:
    """Return the prefix of a folder's newest checkpoint; TensorFlow is not asked.

    Raises:
        CorruptModelError: If there is none with a graph, or the folder does not say which it is.
    """
    state = folder / "checkpoint"
    if state.is_file():
        found = _state(state)
        # The path is that of the machine that trained, so only its last part counts where it leads elsewhere.
        for prefix in (folder / found, folder / Path(found).name):
            inside = prefix.resolve().is_relative_to(folder.resolve())
            if inside and prefix.with_name(f"{prefix.name}.meta").is_file():
                return prefix
    metas = sorted(folder.glob("*.meta"), key=_step)
    if not metas:
        raise CorruptModelError(
            f"the folder {folder.name} holds no checkpoint with a .meta file",
            hint="Give the folder in which training wrote its checkpoints.",
        )
    return metas[-1].with_suffix("")


def _state(path: Path) -> str:
    try:
        return str(read_graph(path, "State", text=True).model_checkpoint_path)
    except CorruptModelError as error:
        raise CorruptModelError(
            f"the file checkpoint does not say which checkpoint is the newest: {str(error).partition(': ')[2]}",
            hint="Give the prefix of one checkpoint instead of the folder.",
        ) from error


def _step(meta: Path) -> tuple[int, str]:
    number = re.search(r"-(\d+)\.meta$", meta.name)
    return int(number[1]) if number else -1, meta.name


def stored_in(prefix: Path, net: Net, restore: str) -> Stored:
    """Return the values of a checkpoint.

    Args:
        prefix: What the names of its files begin with.
        net: The program, whose restore operations say which variable is stored under which name.
        restore: The node that restores all variables, from the meta graph's ``saver_def``; it may be empty.

    Raises:
        CorruptModelError: If the checkpoint cannot be read.
    """
    tf = tensorflow()
    try:
        with quiet():
            reader = tf.train.load_checkpoint(str(prefix))
            shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise _unreadable(prefix, error) from error

    def read(name: str) -> Value:
        key, _, piece = name.partition("\0")
        try:
            with quiet():
                value = np.asarray(reader.get_tensor(key))
        except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
            raise _unreadable(prefix, error) from error
        return value[_region(piece)[0]] if piece else value

    names = _restored(net, restore)
    for name in set(names.values()):
        key, _, piece = name.partition("\0")
        if piece and key in shapes:
            shapes[name] = _region(piece)[1]
    return Stored(shapes, read, names, f"the checkpoint {prefix.name}")


def _unreadable(prefix: Path, error: Exception) -> CorruptModelError:
    words = " ".join(str(error).split())[:200]
    return CorruptModelError(f"the checkpoint {prefix.name} cannot be read: {words}", hint=_AGAIN)


def _restored(net: Net, restore: str) -> Mapping[str, str]:
    """Return the names that variables are stored under, as the program's own restore operations say.

    The name of a piece of a partitioned variable is followed by the piece.
    """
    begin = net.ancestors([restore], control=True) if restore in net.nodes else set(net.nodes)
    found: dict[str, str] = {}
    for name in net.nodes:
        node = net.nodes[name]
        if name not in begin or node.op not in ("Assign", "AssignVariableOp"):
            continue
        (target, _), (source, port) = data_inputs(node)[:2]
        while net.nodes[source].op in ("Identity", "Reshape"):
            source, port = data_inputs(net.nodes[source])[0]
        origin = net.nodes[source]
        if origin.op != "RestoreV2" or not is_variable(net.nodes[target]):
            continue
        _, keys, pieces = (net.nodes[other] for other, _ in data_inputs(origin)[:3])
        if keys.op != "Const" or pieces.op != "Const":
            continue
        key, piece = (np.ravel(value_of(const))[port].decode(errors="replace") for const in (keys, pieces))
        found.setdefault(target, f"{key}\0{piece}" if piece else key)
    return found


def _region(piece: str) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """Return what ``"10 4 0,5:0,4"`` means: the first five rows of a 10 x 4 tensor, and their shape."""
    *sizes, parts = piece.split()
    slices: list[slice] = []
    for size, part in zip(sizes, parts.split(":"), strict=True):
        if part == "-":
            slices.append(slice(0, int(size)))
        else:
            start, length = (int(number) for number in part.split(","))
            slices.append(slice(start, start + length))
    return tuple(slices), tuple(one.stop - one.start for one in slices)
