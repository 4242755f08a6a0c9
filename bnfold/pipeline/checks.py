"""What cannot work is refused, before the long work where it can be."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.errors import CorruptModelError, SignatureError
from bnfold.fold import FoldPlan
from bnfold.frontends.loaded import Loaded
from bnfold.frontends.sniff import Format
from bnfold.pipeline.options import Options
from bnfold.rules import BATCH_NORM, Reason

if TYPE_CHECKING:
    import onnx

__all__ = ["check_batch", "check_idle", "check_keep", "check_numbers"]

_WITHOUT_AVERAGES = frozenset(
    found.value for found in (Format.ONNX, Format.KERAS, Format.KERAS_H5, Format.KERAS_WEIGHTS)
)
_BROKEN = frozenset({Reason.NON_FINITE, Reason.VARIANCE_NOT_POSITIVE})


def check_idle(options: Options, loaded: Loaded, path: Path) -> None:
    """Refuse what would have no effect: an option that is ignored is a promise that is broken.

    Raises:
        SignatureError: If a file is given what only other formats need.
    """
    if options.ema != "auto" and loaded.format in _WITHOUT_AVERAGES:
        raise SignatureError(
            f"{path} keeps no moving averages of its weights beside them, so --ema {options.ema} has no effect",
            hint="Leave --ema out.",
        )
    if loaded.format != Format.ONNX.value:
        return
    for name in ("opset", "architecture", "builder", "custom"):
        told = getattr(options, name)
        if told is not None:
            raise SignatureError(
                f"{path} is an ONNX file and stays as it was exported, so --{name} {told} has no effect",
                hint=f"Leave --{name} out.",
            )


def check_keep(plan: FoldPlan, patterns: Collection[str]) -> None:
    """Refuse a pattern that names nothing: a typing mistake would fold what its author wanted kept.

    Raises:
        SignatureError: If a pattern names no node and no value that folding looks at.
    """
    subjects = [fold.subject for fold in plan.folds]
    subjects += [kept.subject for kept in (*plan.kept, *plan.plain, *plan.apart)]
    names = [name for subject in subjects for name in (subject.name, subject.output)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            known = sorted({subject.name for subject in subjects if subject.op_type == BATCH_NORM})
            near = difflib.get_close_matches(pattern, known, n=3) or known[:3]
            raise SignatureError(
                f"--keep {pattern} names none of the {len(known)} batch norms",
                hint=f"Name one of them, for example: {', '.join(near)}." if near else "Leave --keep out.",
            )


def check_numbers(plan: FoldPlan, path: Path) -> None:
    """Refuse batch norms without finite statistics: they give no numbers, so there is nothing to fold or to prove.

    Raises:
        CorruptModelError: If a parameter is NaN or infinite, or a variance is not positive.
    """
    broken = [kept.refusal for kept in plan.kept if kept.refusal.reason in _BROKEN]
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise CorruptModelError(f"{path}: {broken[0].detail}{more}", hint=broken[0].reason.remedy)


def check_batch(options: Options, model: onnx.ModelProto) -> None:
    """Refuse sizes of the batch for a model that takes only one.

    Raises:
        SignatureError: If the batch is fixed, and another size was asked for.
    """
    if not options.batch:
        return
    defaults = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        sizes = value.type.tensor_type.shape.dim
        fixed = sizes[0].dim_value if sizes and value.name not in defaults else 0
        other = next((batch for batch in options.batch if fixed and batch != fixed), None)
        if other is not None:
            raise SignatureError(
                f"the first axis of the input {value.name} is fixed at {fixed}, so --batch {other} has no effect",
                hint="Leave --batch out.",
            )
