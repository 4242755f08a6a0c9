"""A report as people read it in a terminal."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from bnfold.frontends.loaded import TensorSpec
from bnfold.parity.verdict import Verdict
from bnfold.report.conclusion import at_default_level, worst_output
from bnfold.report.record import Absorbed, BatchNorm, Inlined, Measure, OwnAnswer, Report
from bnfold.report.render_layout import FEW, LABEL, file_rows, grid, plural, shown, size, some
from bnfold.report.render_proof import behaviour_rows, fault_rows, layer_table, original_table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from bnfold.parity.verdict import Comparison, Parity

__all__ = ["FORMS", "render", "render_line", "took_in", "verdict_in_words"]

_GATE = 11
_NARROW = 60

_VERDICTS: Mapping[str, tuple[str, str]] = {
    "pass": ("PASS", "green"),
    "pass-more-accurate": ("PASS (more accurate)", "green"),
    "rolled-back": ("ROLLED BACK", "yellow"),
    "inconclusive": ("INCONCLUSIVE", "yellow"),
    "fail": ("FAIL", "red"),
    "not-verified": ("NOT VERIFIED", "yellow"),
}

FORMS: Mapping[str, str] = {
    "scale-only": "an Add is left in its place; its scale went into layers",
    "max-form": "an activation became a Max or a Min with constants",
    "bias-map": "a layer's bias became one a position",
    "branches": "parallel layers became one",
}
"""What changed besides weights, by the form of a fold."""
_ON_THE_WAY = frozenset({"add-output", "mul-constant", "constant"})

Row = tuple[str, "Text | RenderableType"]


def render(report: Report, *, width: int = 100, verbose: bool = False) -> RenderableType:
    """Return what the terminal shows of a report.

    Args:
        report: What to show.
        width: Columns of the terminal.
        verbose: Whether to show every batch norm, every output and every version, and not only the worst.
    """
    from rich.console import Group
    from rich.padding import Padding

    table = grid()
    for label, content in _rows(report, verbose=verbose):
        table.add_row("", shown(label), content)
    parts: list[RenderableType] = [table]
    if report.after is not None:
        indent = LABEL + 3 if width >= _NARROW else 2
        parts.append(Padding(_table(report, report.before, report.after), (0, 0, 0, indent), expand=False))
    if report.layers is not None and (report.command == "verify" or verbose):
        parts.append(layer_table(report, report.layers, verbose=verbose))
        parts += [original_table(report.layers, verbose=verbose)] if report.layers.original else []
    if verbose:
        parts.append(_provenance(report))
    return Group(*parts)


def _provenance(report: Report) -> RenderableType:
    table = grid()
    table.add_row("", "sha256", shown(report.source.sha256))
    table.add_row("", "versions", shown(" · ".join(f"{name} {version}" for name, version in report.versions.items())))
    table.add_row("", "seed", shown(str(report.seed)))
    return table


def render_line(report: Report) -> Text:
    """Return a report in one line, for one of many files."""
    folded, total = len(report.folded), len(report.batch_norms)
    line = shown(f"  {PurePath(report.source.path).name}   {folded} of {total} batch norms folded   ")
    return line.append_text(verdict_in_words(report))


def verdict_in_words(report: Report) -> Text:
    """Return the verdict as it is shown, in its colour."""
    said, color = _VERDICTS[report.verdict]
    count = f" {sum(len(piece.sources) for piece in report.rolled_back)}" if report.rolled_back else ""
    return shown(said + count, f"bold {color}")


def _rows(report: Report, *, verbose: bool) -> Iterator[Row]:
    yield from _source_rows(report)
    yield from _mode_rows(report)
    if report.inlined:
        yield "functions", shown(_inlined(report.inlined))
    for pair in report.paired:
        yield f"{pair.kind}s", shown(f"{pair.other} of B is taken for {pair.name} of A")
    if report.command == "inspect":
        yield from _signature_rows(report)
    if report.command != "verify":
        yield from _fold_rows(report, verbose=verbose)
    if report.parity is not None:
        yield from _parity_rows(report, report.parity, verbose=verbose)
    if report.own is not None and (report.own.agrees is not True or report.mode):
        yield "by itself", _own(report.own)
    if report.reproduction:
        yield "repro", shown(f"{report.reproduction}: the smallest piece that shows it, with its inputs and show.py")
    if report.command != "inspect":
        yield "result", verdict_in_words(report)


def _own(own: OwnAnswer) -> Text:
    """Say whether the artifact answers the same when its own framework runs it as it is."""
    if own.agrees is None:
        return shown(f"not told: {own.why}")
    if own.agrees:
        return shown(f"agrees: run as it is, it answers the same   largest difference {own.error or 0:.2g}")
    far = "another shape" if own.error is None else f"off by {own.error:.2g} of the largest value"
    return shown(f"differs: run as it is, it is {far}   {own.why}", "yellow")


def _source_rows(report: Report) -> Iterator[Row]:
    for source, measured in ((report.source, report.before), (report.other, report.after)):
        if source is None or measured is None:
            continue
        facts = [source.description, *([source.framework] if source.framework not in source.description else [])]
        facts.append(f"{size(measured.parameters, '')} parameters")
        inner = sum(count for op, count in measured.ops.items() if op in {"If", "Loop", "Scan"})
        facts += [plural(inner, "conditional")] if inner else []
        yield from file_rows(source.path, facts)


def _mode_rows(report: Report) -> Iterator[Row]:
    """Say what was done to reach inference mode; what was done many times in the same way is said once."""
    groups: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for change in report.mode:
        groups[change.kind, change.before, change.after, change.proof].append(change.name)
    label = "mode"
    for (kind, before, after, proof), names in groups.items():
        said = (
            f"{some(names)} ({before}) → {after}" if len(names) <= FEW else f"{len(names)} × {kind}: {before} → {after}"
        )
        yield label, shown(f"{said}   {proof}".rstrip())
        label = ""


def _signature_rows(report: Report) -> Iterator[Row]:
    for label, specs in (("inputs", report.signature.inputs), ("outputs", report.signature.outputs)):
        for number, spec in enumerate(specs):
            yield "" if number else label, shown(_spec(spec))


_BESIDE = "conv-branches"
"""The rule by which a branch goes into the convolution beside it."""

_CHAIN = "layer-chain"
"""The rule by which a layer goes into the one right behind it, or in front."""


def _fold_rows(report: Report, *, verbose: bool) -> Iterator[Row]:
    if report.command == "convert" and report.source.format != "onnx":
        yield "convert", shown(f"opset {report.before.opset}{_took(report, 'read')}")
    folded, total = report.folded, len(report.batch_norms)
    would = "can be folded" if report.command == "inspect" else ""
    where = _where([step for batch_norm in folded for step in took_in(batch_norm.into)])
    parts = [f"{len(folded)} of {plural(total, 'batch norm')} {would}".rstrip() if total else "no BatchNormalization"]
    parts += [where] if where else []
    yield "fold", shown("   ".join(parts) + _took(report, "fold"))
    # Batch norms that an exporter spelled out as Mul and Add arrive here, and branches without a batch norm.
    beside = [row for row in report.affines if any(step.rule == _BESIDE for step in row.into)]
    chained = [row for row in report.affines if any(step.rule == _CHAIN for step in row.into)]
    constant = [row for row in report.affines if row not in beside and row not in chained]
    if constant:
        ops = Counter(affine.op_type for affine in constant)
        said = " and ".join(f"{count} constant {op}" for op, count in sorted(ops.items()))
        where = _where([step for affine in constant for step in took_in(affine.into)])
        yield "", shown("   ".join([f"{said} {would}".rstrip(), where]))
    if beside:
        noun = "parallel branch" if len(beside) == 1 else "parallel branches"
        yield "", shown(" ".join(f"{len(beside)} {noun} {would}".split()) + "   into the Conv beside")
    if chained:
        yield "", shown(f"{plural(len(chained), 'layer')} {would}".rstrip() + "   into the layer next to it")
    for form, count in Counter(batch_norm.form for batch_norm in folded if batch_norm.form).items():
        yield "", shown(f"{count} × {form}: {FORMS.get(form, 'more than weights changes')}")
    if verbose or report.command == "inspect":
        for batch_norm in folded:
            form = f"   {batch_norm.form}" if batch_norm.form else ""
            yield "", shown(f"{batch_norm.name} → {_into(batch_norm.into, verbose=verbose)}{form}", "dim")
        for affine in report.affines:
            yield "", shown(f"{affine.op_type} {affine.name} → {_into(affine.into, verbose=verbose)}", "dim")
    for number, piece in enumerate(report.rolled_back):
        yield "" if number else "put back", shown(f"{some(piece.sources)}: {piece.detail}", "yellow")
    yield from _kept_rows(report, verbose=verbose)


def _kept_rows(report: Report, *, verbose: bool) -> Iterator[Row]:
    groups: dict[str, list[BatchNorm]] = defaultdict(list)
    for batch_norm in report.batch_norms:
        if batch_norm.kept is not None and batch_norm.outcome == "kept":
            groups[batch_norm.kept.reason].append(batch_norm)
    for members in groups.values():
        kept = members[0].kept
        assert kept is not None
        yield "kept", shown(f"{len(members)} × {kept.reason}: {kept.says}", "yellow")
        if not (verbose or report.command == "inspect"):
            yield "", shown(some([member.name for member in members]))
        else:
            for member in members:
                yield from (("", line) for line in _why(member))
        for remedy in dict.fromkeys(member.kept.remedy for member in members if member.kept is not None):
            yield "", shown(f"hint: {remedy}", "dim")


def _why(member: BatchNorm) -> Iterator[Text]:
    """Say of one batch norm what was in the way on either side, as far as that is more than its name."""
    refusals = [refusal for refusal in (member.kept, *member.also) if refusal is not None and refusal.detail]
    if not refusals:
        yield shown(member.name, "dim")
    for refusal in refusals:
        yield shown(f"{member.name}: {refusal.detail} ({refusal.reason})", "dim")


def _parity_rows(report: Report, parity: Parity, *, verbose: bool) -> Iterator[Row]:
    inner = grid(_GATE, indent=0)
    for gate, said in _gates(report, parity, verbose=verbose):
        inner.add_row(shown(gate), said)
    yield "verify", inner


def _gates(report: Report, parity: Parity, *, verbose: bool) -> Iterator[tuple[str, Text]]:
    for finding in parity.static:
        yield "static", shown(f"{finding.verdict.says}   {finding.check}: {finding.detail}")
    if parity.regions:
        worst = max(parity.regions, key=lambda region: region.eta / region.limit)
        passed = sum(region.verdict.passed for region in parity.regions)
        bound = f"worst η {worst.eta:.2g} (limit {worst.limit:.2g}) {some(worst.sources, limit=1)}"
        yield "each fold", shown(f"{passed}/{len(parity.regions)}   {bound}")
        for region in parity.regions if verbose else ():
            yield (
                "",
                shown(
                    f"{', '.join(region.sources)}: η {region.eta:.2g} on {region.probe}, {region.compared} values",
                    "dim",
                ),
            )
    for gate, comparisons in (("translation", parity.translation), ("whole", parity.folding)):
        worst_one = worst_output(comparisons)
        for comparison in comparisons if verbose or worst_one is None else [worst_one]:
            yield gate, shown(_compared(report, comparison, gate, several=len(comparisons) > 1))
    yield from _rewritten(parity, verbose=verbose)
    yield from behaviour_rows(report, parity, verbose=verbose)
    laws: dict[str, list[str]] = defaultdict(list)
    for law in parity.laws:
        broken = f" {law.figure:.2g} (limit {law.limit:.2g})" if not law.verdict.passed else ""
        detail = f": {law.detail}" if law.detail and (verbose or broken) else ""
        laws[law.verdict.says].append(f"{law.name}{broken}{detail}")
    for verdict, names in laws.items():
        yield "laws", shown(f"{verdict}   {', '.join(names)}")
    if parity.suspect is not None:
        yield from fault_rows(parity.suspect)
    if parity.detail:
        yield "", shown(parity.detail)
    if verbose:
        if math.isfinite(parity.amplification):
            yield "", shown(f"a small change of the input grows {parity.amplification:.3g} times on its way", "dim")
        yield "", shown(f"run by {' and '.join(parity.engines)}", "dim")
        for probe in parity.probes:
            shapes = ", ".join(f"{name} {shape}" for name, shape in probe.shapes)
            unused = "" if probe.used else "; not accepted by the model"
            yield "", shown(f"fed {probe.name}: {probe.origin}; {shapes}{unused}", "dim")


def _compared(report: Report, comparison: Comparison, gate: str, *, several: bool) -> str:
    judged, measure = ("original", "ONNX") if gate == "translation" else ("folded", "unfolded")
    if report.command == "verify" and gate == "whole":
        judged, measure = "B", "A"
    elif report.source.format == "onnx" and report.inlined:
        measure = "without functions" if gate == "translation" else "unfolded"
    elif report.source.format == "onnx":
        measure = "original"
    head = "PASS" if comparison.verdict.passed else comparison.verdict.says
    head += f"   {comparison.output}" if several else ""
    if comparison.detail and not comparison.verdict.passed:
        return f"{head}   {comparison.detail}"
    if comparison.kind != "float":
        return f"{head}   {comparison.differing} of {comparison.compared} elements differ"
    errors = f"{measure} {comparison.unfolded:.2g}, {judged} {comparison.candidate:.2g}"
    return f"{head}   error against float64: {errors}"


def _rewritten(parity: Parity, *, verbose: bool) -> Iterator[tuple[str, Text]]:
    """Say what onnxruntime's own graph optimization does to the folded model; in short only where that is wrong."""
    level = at_default_level(parity)
    if level is None:
        return
    if level.verdict is Verdict.FAIL:
        said = f"DIFFERS at its default level   {level.output}: {level.detail}"
        yield "onnxruntime", shown(f"{said}. The file is right: run it with ORT_DISABLE_ALL.", "yellow")
    elif verbose and not level.verdict.passed:
        yield "onnxruntime", shown(f"not known at its default level: {level.detail}", "dim")
    elif verbose:
        error = f", error {level.candidate:.2g} against float64" if level.kind == "float" else ""
        yield "onnxruntime", shown(f"agrees at its default level, too{error}", "dim")


def _table(report: Report, before: Measure, after: Measure) -> Table:
    from rich import box
    from rich.table import Table

    titles = ("A", "B") if report.command == "verify" else ("unfolded", "folded")
    table = Table(box=box.SQUARE, header_style="")
    table.add_column("")
    for title in titles:
        table.add_column(title, justify="right")
    ops = ["BatchNormalization"]
    changed = [op for op in sorted({*before.ops, *after.ops}) if before.ops.get(op, 0) != after.ops.get(op, 0)]
    for op in [*ops, *(op for op in changed if op not in ops)]:
        table.add_row(op, str(before.ops.get(op, 0)), str(after.ops.get(op, 0)))
    table.add_row("nodes", str(before.nodes), str(after.nodes))
    table.add_row("inputs", str(before.inputs), str(after.inputs))
    table.add_row("size", size(before.bytes), size(after.bytes))
    return table


def _where(steps: Sequence[Absorbed]) -> str:
    counts = Counter((step.op_type, "before" if step.side == "output" else "after") for step in steps)
    return " · ".join(f"{count} into {op} {place}" for (op, place), count in counts.most_common())


def took_in(into: Sequence[Absorbed]) -> Sequence[Absorbed]:
    """Return the layers that took a map in; a constant that changed on the way to one belongs to it."""
    return [step for step in into if step.rule not in _ON_THE_WAY] or into


def _into(into: Sequence[Absorbed], *, verbose: bool) -> str:
    """Say which nodes took a map in; the rules by which they did are for those who want every detail."""
    if verbose:
        return ", ".join(f"{step.op_type} {step.node} ({step.rule})" for step in into)
    by_operation: dict[str, list[str]] = defaultdict(list)
    for step in took_in(into):
        by_operation[step.op_type].append(step.node)
    return " · ".join(f"{op_type} {', '.join(nodes)}" for op_type, nodes in by_operation.items())


def _inlined(functions: Sequence[Inlined]) -> str:
    names = [f"{function.name} ({plural(function.calls, 'call')})" for function in functions]
    because = "so that batch norms can be folded"
    return f"{some(names)} → {'its' if len(names) == 1 else 'their'} nodes   {because}"


def _took(report: Report, step: str) -> str:
    seconds = sum(timing.seconds for timing in report.timings if timing.step == step)
    return f"   {seconds:.1f} s" if seconds >= 0.05 else ""


def _spec(spec: TensorSpec) -> str:
    shape = ", ".join("?" if axis is None else str(axis) for axis in spec.shape)
    return f"{spec.name}   {spec.dtype} ({shape})"
