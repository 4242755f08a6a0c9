"""Exported programs of PyTorch: read with distrust, put in inference mode, exported, and run to compare with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnfold.errors import SignatureError
from bnfold.frontends.loaded import Array, Loaded, Request, Runner
from bnfold.frontends.signature import require_known
from bnfold.frontends.sniff import Format
from bnfold.frontends.tensorflow.io_names import specs_of
from bnfold.frontends.torch.archive import Packed, Tree, as_written, read_archive
from bnfold.frontends.torch.harmless import program_of
from bnfold.frontends.torch.modes import in_inference_mode
from bnfold.frontends.torch.original import exported, runner
from bnfold.frontends.torch.to_onnx import to_onnx

__all__ = ["input_names", "load", "output_names"]


def load(path: Path, request: Request) -> Loaded:
    """Turn an exported program into an ONNX model in inference mode, every batch norm under its module's path.

    Args:
        path: The ``.pt2`` file that ``torch.export.save`` wrote.
        request: ``signature`` chooses one of several programs; ``outputs`` may name fewer outputs than it has.

    Raises:
        CorruptModelError: If it breaks off, or is not what PyTorch writes.
        UnsupportedOpError: If it holds what only running code from the file could bring back, or an operation that has
            no ONNX form.
        InferenceModeError: If it trains, and cannot be put in inference mode.
        SignatureError: If the request names inputs or outputs that it does not have.
        MissingExtraError: If PyTorch is not installed.
    """
    if request.set_values:
        raise SignatureError(
            f"{path.name} is an exported program, which has no mode inputs to set: "
            f"{', '.join(sorted(request.set_values))}",
            hint="Leave out --set: what belongs to training is switched off by itself.",
        )
    packed = read_archive(path, request.signature)
    plain = program_of(packed.program, path.name)
    program, changes = in_inference_mode(plain, path.name)
    with as_written(path.name):
        inputs, outputs = input_names(program), output_names(packed.program)
    outputs = _distinct(inputs, outputs)
    require_known("input", request.inputs, inputs, option="--inputs")
    require_known("output", request.outputs, outputs, option="--outputs")
    chosen = request.outputs or outputs
    kept = _only(program, [outputs.index(name) for name in chosen])
    loaded = exported(packed, kept)
    numbers = {name: place for place, name in enumerate(chosen)}
    places = {name: outputs.index(name) for name in chosen}
    model = to_onnx(packed, loaded, inputs, chosen, request.opset)
    return Loaded(
        model=model,
        format=Format.TORCH_EXPORT.value,
        framework=f"PyTorch {packed.version}".strip(),
        description=Format.TORCH_EXPORT.described,
        inputs=specs_of(model.graph.input),
        outputs=specs_of(model.graph.output),
        mode=changes,
        run=runner(packed, loaded, inputs, numbers),
        own=_as_it_is(packed, plain, inputs, places) if changes else None,
    )


def _as_it_is(packed: Packed, plain: Tree, inputs: Sequence[str], outputs: Mapping[str, int]) -> Runner:
    """Return what runs a program in the mode that it was exported in; it is loaded when it is first run."""

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return runner(packed, exported(packed, plain), inputs, outputs)(feeds)

    return run


def input_names(program: Tree) -> tuple[str, ...]:
    """Return the names of the tensors that a program is fed, in order."""
    specs = program["graph_module"]["signature"]["input_specs"]
    return tuple(spec["user_input"]["arg"]["as_tensor"]["name"] for spec in specs if "user_input" in spec)


def output_names(program: Tree) -> tuple[str, ...]:
    """Return names for the tensors that a program answers: keys where it answers by them, and numbers otherwise.

    Args:
        program: As the archive holds it.
    """
    module = program["graph_module"]
    values = [
        value
        for value, spec in zip(module["graph"]["outputs"], module["signature"]["output_specs"], strict=True)
        if "user_output" in spec
    ]
    try:
        paths = list(_leaves(json.loads(module["module_call_graph"][0]["signature"]["out_spec"])[1], ""))
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        paths = []
    if len(paths) != len(values):
        paths = [""] * len(values) if len(values) == 1 else [str(place) for place in range(len(values))]
    names: list[str] = []
    for path, value in zip(paths, values, strict=True):
        if "as_tensor" in value:
            plain = path if path and not path[0].isdigit() else f"output_{path}".rstrip("_")
            number, free = 1, plain
            while free in names:
                number += 1
                free = f"{plain}_{number}"
            names.append(free)
    return ("output",) if len(names) == 1 and names[0].startswith("output_") else tuple(names)


def _leaves(tree: Any, path: str) -> Iterator[str]:
    """Yield the paths of the leaves of what a program returns, as PyTorch writes its shape down."""
    if tree["type"] is None:
        yield path
        return
    children = tree["children_spec"]
    keys: Sequence[object] = range(len(children))
    if tree["type"] in ("builtins.dict", "collections.OrderedDict"):
        keys = json.loads(tree["context"])
    for key, child in zip(keys, children, strict=True):
        yield from _leaves(child, f"{path}_{key}" if path else str(key))


def _distinct(inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}_output" if name in inputs else name for name in outputs)


def _only(program: Tree, places: Sequence[int]) -> Tree:
    """Return a program that answers some of its outputs."""
    module = program["graph_module"]
    if list(places) == list(range(len(module["graph"]["outputs"]))):
        return program
    entry = module["module_call_graph"][0]
    calling = entry["signature"]
    version, spec = json.loads(calling["out_spec"])
    spec["children_spec"] = [spec["children_spec"][place] for place in places]
    graph = {**module["graph"], "outputs": [module["graph"]["outputs"][place] for place in places]}
    signature = {
        **module["signature"],
        "output_specs": [module["signature"]["output_specs"][place] for place in places],
    }
    calling = {**calling, "out_spec": json.dumps([version, spec])}
    return {
        **program,
        "graph_module": {
            **module,
            "graph": graph,
            "signature": signature,
            "module_call_graph": [{**entry, "signature": calling}],
        },
    }
