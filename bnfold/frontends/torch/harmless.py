"""What an exported program may hold: operations that only compute, and texts that only name and count.

PyTorch evaluates some of the texts in a program: sizes as formulas, guards as Python, the shape of its arguments by
importing classes, and an operation's name as a path into its modules. So what is handed to it is written anew, out of
what was recognised here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bnfold.errors import CorruptModelError, InferenceModeError, UnsupportedOpError
from bnfold.frontends.signature import listed
from bnfold.frontends.torch.archive import Tree, as_written

__all__ = ["Argument", "argument", "graphs", "layer_of", "op_of", "program_of", "tensors"]

Argument = Mapping[str, Any]

_OP = re.compile(r"torch\.ops\.(?:aten|prims)\.([A-Za-z0-9_]+)\.[A-Za-z0-9_]+")
_PLAIN = re.compile(
    r"_operator\.(?:add|sub|mul|neg|pos|floordiv|truediv|mod|pow|lt|le|eq|ne|ge|gt|and_|or_|not_|getitem|abs)"
    r"|math\.(?:ceil|floor|trunc|sqrt)"
    r"|torch\.sym_(?:int|float|not|max|min|ite|sum|sqrt)|torch\._sym_sqrt"
    r"|torch\.ops\.higher_order\.(?:cond|wrap_with_set_grad_enabled|wrap_with_autocast)"
)
_REACHING_OUT = frozenset({"from_file", "save", "_print", "warn", "wait", "record_stream", "manual_seed", "seed"})

_SYMBOL = r"[a-z]{1,4}\d{1,9}"
_FORMULA = re.compile(
    rf"(?:'{_SYMBOL}'|\b{_SYMBOL}\b|\d{{1,18}}(?:\.\d{{1,18}})?(?![\w.])|[-+*/%(), =<>&|~]"
    r"|\b(?:Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|Abs|ceiling|floor|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Equality"
    r"|Unequality|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|Piecewise|ExprCondPair|FloorDiv|ModularIndexing"
    r"|Where|PythonMod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|PowByNatural|FloatTrueDiv|IntTrueDiv|TruncToFloat"
    r"|TruncToInt|RoundToInt|RoundDecimal|ToFloat|Identity|positive|integer|nonnegative|negative|precision|true|false"
    r"|True|False)\b)*"
)
_POWER = re.compile(r"\*\*|Pow\(|PowByNatural\(")
_MOST_POWERS = 8
_LONGEST_FORMULA = 4000
_DEEPEST = 400

_VERIFIERS = frozenset({"TRAINING", "ATEN"})
_SAVE_AGAIN = "Export and save the program again, with torch.export.export and torch.export.save."
_MODE = "Put the network in evaluation mode with model.eval(), and export it again."


def program_of(program: Tree, where: str) -> Tree:
    """Return a program with nothing in it but what was recognised: same operations, same values, plain arguments.

    Args:
        program: As the archive holds it.
        where: What to call it in errors.

    Raises:
        UnsupportedOpError: If an operation reaches out, or is not PyTorch's own.
        InferenceModeError: If it computes gradients.
        CorruptModelError: If it is not a program as PyTorch writes it.
    """
    with as_written(where):
        _demand_shallow(program, where)
        found = _program(program, where)
        _demand_harmless(found, where)
        return found


def _program(program: Tree, where: str) -> Tree:
    module = program["graph_module"]
    if module["graph"].get("custom_obj_values"):
        raise UnsupportedOpError(
            f"{where} holds objects that are no tensors, which only running code from the file could bring back",
            hint="Export the network without them: what is no tensor belongs outside of it.",
        )
    inputs, given = _fed(module["graph"]["inputs"], module["signature"]["input_specs"], where)
    outputs, taken = _computed(module["graph"]["outputs"], module["signature"]["output_specs"], where)
    graph = {
        **_graph(module["graph"]),
        "inputs": inputs,
        "outputs": outputs,
        "is_single_tensor_return": False,
    }
    users = sum("user_input" in spec for spec in given)
    answers = sum("user_output" in spec for spec in taken)
    ranges = {
        name: {"min_val": _whole(limits.get("min_val")), "max_val": _whole(limits.get("max_val"))}
        for name, limits in program.get("range_constraints", {}).items()
        if re.fullmatch(_SYMBOL, name)
    }
    version = program["schema_version"]
    verifiers = [name for name in program.get("verifiers", ()) if name in _VERIFIERS]
    return {
        "graph_module": {
            "graph": graph,
            "signature": {"input_specs": given, "output_specs": taken},
            "module_call_graph": [{"fqn": "", "signature": _calling(users, answers)}],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": {
            str(name): number for name, number in program.get("opset_version", {}).items() if isinstance(number, int)
        },
        "range_constraints": ranges,
        "schema_version": {"major": _whole(version["major"]), "minor": _whole(version["minor"])},
        "verifiers": verifiers,
        "torch_version": str(program.get("torch_version", ""))[:40],
        "guards_code": [],
    }


def _whole(number: object) -> int | None:
    if number is None or (isinstance(number, int) and not isinstance(number, bool)):
        return number
    raise TypeError(f"{number!r} is no whole number")


def _fed(inputs: Sequence[Tree], specs: Sequence[Tree], where: str) -> tuple[list[Tree], list[Tree]]:
    """Return what a program is given, without what is fixed; a network's own tensors first, as in the file."""
    kept, given = [], []
    for value, spec in zip(inputs, specs, strict=True):
        (kind,) = spec
        if kind == "constant_input":  # a number or None, which the program was written for
            continue
        if kind not in ("user_input", "parameter", "buffer", "tensor_constant"):
            raise UnsupportedOpError(f"{where} takes a {kind.replace('_', ' ')}, which is no tensor", hint=_SAVE_AGAIN)
        if set(value) != {"as_tensor"}:
            name = next(iter(value.values()), "")
            raise UnsupportedOpError(
                f"{where} takes the input {name.get('as_name', name) if isinstance(name, dict) else name}, "
                "which is a number and no tensor",
                hint="Export the network with that number fixed, or as a tensor.",
            )
        kept.append(value)
        given.append(spec)
    return kept, given


def _computed(outputs: Sequence[Tree], specs: Sequence[Tree], where: str) -> tuple[list[Tree], list[Tree]]:
    """Return what a program answers: its tensors. What it writes back is told apart by who reads the program."""
    kept, taken = [], []
    for value, spec in zip(outputs, specs, strict=True):
        (kind,) = spec
        if kind in ("gradient_to_parameter", "gradient_to_user_input", "loss_output", "parameter_mutation"):
            raise InferenceModeError(
                f"{where} is a step of training: among its outputs is a {kind.replace('_', ' ')}", hint=_MODE
            )
        if kind not in ("user_output", "buffer_mutation", "user_input_mutation"):
            raise UnsupportedOpError(
                f"{where} returns a {kind.replace('_', ' ')}, which is no tensor", hint=_SAVE_AGAIN
            )
        if kind == "user_output" and set(value) != {"as_tensor"}:
            continue  # a number or None: a size that it counted, or nothing
        kept.append(value)
        taken.append(spec)
    return kept, taken


def _calling(inputs: int, outputs: int) -> Tree:
    """Return how a program is called: with so many tensors, for so many."""
    leaf: Tree = {"type": None, "context": None, "children_spec": []}

    def of(kind: str, context: str, children: Sequence[Tree]) -> Tree:
        return {"type": f"builtins.{kind}", "context": context, "children_spec": list(children)}

    arguments = of("tuple", "null", [of("tuple", "null", [leaf] * inputs), of("dict", "[]", [])])
    return {
        "inputs": [],
        "outputs": [],
        "in_spec": json.dumps([1, arguments]),
        "out_spec": json.dumps([1, of("tuple", "null", [leaf] * outputs)]),
        "forward_arg_names": None,
    }


def _graph(graph: Tree) -> Tree:
    return {
        "inputs": graph["inputs"],
        "outputs": graph["outputs"],
        "nodes": [_node(node) for node in graph["nodes"]],
        "tensor_values": graph["tensor_values"],
        "sym_int_values": graph.get("sym_int_values", {}),
        "sym_bool_values": graph.get("sym_bool_values", {}),
        "sym_float_values": graph.get("sym_float_values", {}),
        "is_single_tensor_return": bool(graph.get("is_single_tensor_return")),
        "custom_obj_values": {},
    }


def _node(node: Tree) -> Tree:
    stack = node.get("metadata", {}).get("nn_module_stack")
    return {
        "target": node["target"],
        "inputs": [
            {"name": given["name"], "arg": _argument(given["arg"]), "kind": given.get("kind")}
            for given in node["inputs"]
        ],
        "outputs": node["outputs"],
        "metadata": {"nn_module_stack": stack} if isinstance(stack, str) and stack else {},
        "is_hop_single_tensor_return": node.get("is_hop_single_tensor_return"),
        "name": node.get("name"),
    }


def _argument(told: Tree) -> Tree:
    if set(told) == {"as_graph"}:
        return {"as_graph": {"name": told["as_graph"]["name"], "graph": _graph(told["as_graph"]["graph"])}}
    return told


def _demand_shallow(tree: object, where: str) -> None:
    stack: list[tuple[object, int]] = [(tree, 0)]
    while stack:
        found, depth = stack.pop()
        if depth > _DEEPEST:
            raise _strange(where, f"it is nested more than {_DEEPEST} deep")
        inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
        stack.extend((one, depth + 1) for one in inner if isinstance(one, dict | list))


def _demand_harmless(program: Tree, where: str) -> None:
    """Refuse operations that do more than compute, and texts that are more than names and formulas."""
    reaching: dict[str, list[str]] = {}
    for graph in graphs(program["graph_module"]["graph"]):
        for node in graph["nodes"]:
            target = node["target"]
            known = _OP.fullmatch(target)
            if (known is None or known[1] in _REACHING_OUT) and not _PLAIN.fullmatch(target):
                reaching.setdefault(target, []).append(str(node.get("name") or target))
    if reaching:
        raise UnsupportedOpError(
            f"{where} holds operations that are not PyTorch's own, or do more than compute: {listed(sorted(reaching))}",
            hint="Export the network without them, or export it to ONNX where they are known.",
        )
    stack: list[object] = [program]
    while stack:
        found = stack.pop()
        if isinstance(found, dict):
            for key in ("as_custom_obj", "as_operator"):
                if key in found:
                    raise UnsupportedOpError(
                        f"{where} hands an operation a {key.removeprefix('as_').replace('_', ' ')}, which is no tensor",
                        hint=_SAVE_AGAIN,
                    )
            if "expr_str" in found:
                _demand_formula(found["expr_str"], where)
            stack.extend(value for value in found.values() if isinstance(value, dict | list))
        elif isinstance(found, list):
            stack.extend(value for value in found if isinstance(value, dict | list))


def _demand_formula(text: object, where: str) -> None:
    if not isinstance(text, str) or len(text) > _LONGEST_FORMULA or not _FORMULA.fullmatch(text):
        raise _strange(where, f"{str(text)[:60]!r} is no formula of sizes")
    powers = [found.end() for found in _POWER.finditer(text)]
    if powers and (len(powers) > _MOST_POWERS or re.search(r"\d{3}", text) or any(_nested(text, at) for at in powers)):
        raise _strange(where, f"{text[:60]!r} may be larger than any size")


def _nested(text: str, start: int) -> bool:
    """Say whether a power stands inside the power whose arguments begin at a place."""
    depth = 1
    for end in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if not depth:
            return _POWER.search(text[start:end]) is not None
    return True


def _strange(where: str, what: str) -> CorruptModelError:
    return CorruptModelError(f"{where} is not a program as PyTorch writes it: {what[:200]}", hint=_SAVE_AGAIN)


def graphs(graph: Tree) -> Iterator[Tree]:
    """Yield a program's graph and the graphs inside it."""
    stack = [graph]
    while stack:
        found = stack.pop()
        yield found
        for node in found["nodes"]:
            stack.extend(given["arg"]["as_graph"]["graph"] for given in node["inputs"] if "as_graph" in given["arg"])


def op_of(node: Tree) -> str:
    """Return an operation's name without its overload, such as ``batch_norm``."""
    known = _OP.fullmatch(node["target"])
    return known[1] if known else str(node["target"])


def argument(node: Tree, name: str) -> Argument | None:
    """Return what a node is given under a name, as JSON says it; None where it is left at its default."""
    return next((given["arg"] for given in node["inputs"] if given["name"] == name), None)


def layer_of(node: Tree) -> str:
    """Return the path of the module that a node was written in; empty where the program does not say."""
    stack = node["metadata"].get("nn_module_stack", "")
    return stack.rpartition(";")[2].split(",")[1] if stack.count(",") >= 2 else ""


def tensors(value: object) -> Iterator[str]:
    """Yield the names of the tensors, and of the sizes, in an argument or an output."""
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, dict):
            for key, inner in found.items():
                if key == "as_tensor" and isinstance(inner, dict):
                    yield inner["name"]
                elif key == "as_name":
                    yield inner
                elif key == "as_tensors":
                    yield from (one["name"] for one in inner)
                elif key == "as_nested_tensors":
                    yield from (one["name"] for row in inner for one in row)
                elif key != "as_graph":
                    stack.append(inner)
        elif isinstance(found, list):
            stack.extend(found)
