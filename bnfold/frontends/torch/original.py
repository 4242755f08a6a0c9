"""The exported program in PyTorch's own hands: loaded from an archive written anew, and run as it is."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bnfold.errors import CorruptModelError
from bnfold.frontends.loaded import Array, Runner
from bnfold.frontends.torch.archive import Packed, Payload, Tree
from bnfold.frontends.torch.guests import quiet, torch

__all__ = ["exported", "runner"]

_NAME = "model"
_SAVE_AGAIN = "Export and save the program again, with the PyTorch that is installed here."


def exported(packed: Packed, program: Tree) -> Any:
    """Return PyTorch's own object for a program.

    PyTorch reads an archive that is written here: the program as it was recognised, raw numbers, and nothing else, so
    there is nothing in it to unpickle, to compile or to load.

    Args:
        packed: The archive, for its numbers.
        program: What ``harmless.program_of`` or ``modes.in_inference_mode`` returned.

    Raises:
        CorruptModelError: If PyTorch does not accept it.
        MissingExtraError: If PyTorch is not installed.
    """
    library = torch()
    archives = torch("torch.export.pt2_archive")
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        place = str(Path(folder) / f"{_NAME}.pt2")
        with quiet():
            with archives.PT2ArchiveWriter(place) as out:
                _write(out, packed, program)
            try:
                return library.export.load(place)
            except Exception as error:  # whatever a damaged program runs into
                raise _not_accepted(packed, error) from error


def _write(out: Any, packed: Packed, program: Tree) -> None:
    moved: dict[str, str] = {}
    tables = (
        ("data/weights/", f"{_NAME}_weights_config.json", "weight_", packed.weights),
        ("data/constants/", f"{_NAME}_constants_config.json", "tensor_", packed.constants),
    )
    for folder, config, prefix, payloads in tables:
        told = {}
        for name, payload in payloads.items():
            member = moved.setdefault(payload.member, f"{prefix}{len(moved)}")
            parameter = name in _parameters(program)
            told[name] = {
                "path_name": member,
                "is_param": parameter,
                "use_pickle": False,
                "tensor_meta": _described(payload, parameter=parameter),
            }
        out.write_string(f"{folder}{config}", json.dumps({"config": told}))
        members = [member for member in moved if any(one.member == member for one in payloads.values())]
        for member, content in packed.contents(members):
            out.write_bytes(f"{folder}{moved[member]}", content)
    out.write_string(f"models/{_NAME}.json", json.dumps(program))
    out.write_bytes(f"data/sample_inputs/{_NAME}.pt", b"")
    out.write_string("byteorder", "little")


def _parameters(program: Tree) -> set[str]:
    specs = program["graph_module"]["signature"]["input_specs"]
    return {spec["parameter"]["parameter_name"] for spec in specs if "parameter" in spec}


def _described(payload: Payload, *, parameter: bool) -> Tree:
    def whole(numbers: Sequence[int]) -> list[Tree]:
        return [{"as_int": number} for number in numbers]

    return {
        "dtype": payload.described["dtype"],
        "sizes": whole(payload.sizes),
        "strides": whole(payload.strides),
        "storage_offset": {"as_int": payload.offset},
        "requires_grad": parameter and payload.dtype.kind in "fc",
        "device": {"type": "cpu", "index": None},
        "layout": 7,
    }


def _not_accepted(packed: Packed, error: Exception) -> CorruptModelError:
    words = " ".join(str(error).split())[:300] or type(error).__name__
    return CorruptModelError(
        f"PyTorch {torch().__version__} does not accept the program in {packed.path.name}"
        f"{f', which PyTorch {packed.version} saved' if packed.version else ''}: {words}",
        hint=_SAVE_AGAIN,
    )


def runner(packed: Packed, program: Any, inputs: Sequence[str], outputs: Mapping[str, int]) -> Runner:
    """Return a function that runs a program itself, operation by operation.

    Args:
        packed: The archive it came from.
        program: What ``exported`` returned.
        inputs: The ONNX names of its inputs, in order.
        outputs: The places of its outputs among all of them, by their ONNX names.
    """
    library = torch()
    with quiet():
        module = program.module()

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with quiet(), library.no_grad():
            try:
                found = module(*(_tensor(library, np.asarray(feeds[name])) for name in inputs))
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
                raise _not_run(packed, error) from error
        return {name: _array(library, found[place]) for name, place in outputs.items()}

    return run


def _not_run(packed: Packed, error: Exception) -> CorruptModelError:
    words = " ".join(str(error).split())[:300] or type(error).__name__
    return CorruptModelError(
        f"the program in {packed.path.name} does not run in PyTorch: {words}",
        hint="Give inputs with --data that it takes, or export it again with the axes open that vary.",
    )


def _tensor(library: Any, value: Array) -> Any:
    if value.dtype == ml_dtypes.bfloat16:
        return library.from_numpy(np.array(value.view(np.int16))).view(library.bfloat16)
    return library.from_numpy(np.array(value))


def _array(library: Any, tensor: Any) -> Array:
    found = tensor.detach().contiguous()
    if found.dtype == library.bfloat16:
        bits: Array = found.view(library.int16).numpy().view(ml_dtypes.bfloat16)
        return bits
    result: Array = found.numpy()
    return result
