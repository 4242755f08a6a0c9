"""The pages of ``docs/`` that are read from the rules: what folds, with examples, and why something stays."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bnfold.cli.rules import KINDS, Row, rows
from bnfold.rules import RULES, Absorber, Carrier, Example, Reason, Source
from bnfold.rules.chains import CHAIN_ALGEBRA, CHAIN_EXAMPLES, CHAIN_RULE

__all__ = ["rule_pages"]

_USUAL_OPSET = Example("", "").opset
_GENERATED = "Generated from the code by `python -m bnfold.cli.reference docs`; a test checks that it is current."
_RULES = """\
A batch norm in inference mode is an affine map per channel, `y = s·x + o`, and so is a Mul, Add, Sub, Div or Neg with a
constant. A *source* is such a node. An *absorber* is a layer that takes the map into its weights, on the side of its
output (the map stands behind it) or of its input (the map stands in front). A *carrier* is a node that the map may pass
on its way there, in both directions; its scale and its shift travel by themselves. A *form* is what becomes of a batch
norm that no weights can take in as a whole.

The examples are ONNX text, and they are tests: each runs in float64, folded and unfolded, and must agree to 1e-12.
Those marked *kept* must stay, for the reason named. Weights without values are drawn at random."""
_REASONS = """\
A batch norm that is not folded is kept, and the report names one of these reasons. Kept is no failure: the model
computes what it did before, and so does that batch norm. Where both neighbours refuse, the reason that comes first here
is reported. `bnfold explain padded-shift` prints one."""


@dataclass(frozen=True, slots=True)
class _Section:
    """One rule on the page: its heading, where links to it lead, and what it declares."""

    heading: str
    anchor: str
    kind: str
    op_type: str
    algebra: str
    examples: tuple[Example, ...]


def rule_pages() -> Mapping[str, str]:
    """Return the pages by their file names."""
    sections = tuple(_sections())
    return {"rules.md": _rules_page(sections), "reasons.md": _reasons_page(sections)}


def _sections() -> Iterable[_Section]:
    rules: list[tuple[str, Source | Carrier | Absorber]] = [
        *(("source", source) for source in RULES.sources.values()),
        *(("carrier", carrier) for carrier in RULES.carriers.values()),
        *(("absorber", absorber) for absorber in RULES.absorbers.values()),
    ]
    for kind, rule in rules:
        # An operation can be a source and a carrier: Mul is both.
        absorbs = isinstance(rule, Absorber)
        heading = rule.id if isinstance(rule, Absorber) else f"{rule.op_type} ({kind})"
        anchor = heading if absorbs else f"{rule.op_type.lower()}-{kind}"
        yield _Section(heading, anchor, kind, rule.op_type, rule.algebra, rule.examples)
    yield _Section(CHAIN_RULE, CHAIN_RULE, "absorber", "Conv, Gemm or MatMul", CHAIN_ALGEBRA, CHAIN_EXAMPLES)


def _rules_page(sections: Sequence[_Section]) -> str:
    parts = ["# What folds", _GENERATED, _RULES]
    listed = rows()
    for kind, says in KINDS.items():
        of_kind = [section for section in sections if section.kind == kind]
        anchors = {section.anchor for section in of_kind}
        parts += [f"## {kind.capitalize()}s", f"{says.partition(': ')[2]}.".capitalize()]
        parts.append(_table([_line(row, anchors) for row in listed if row.kind == kind]))
        for section in of_kind:
            parts += [f"### {section.heading}", f"{section.op_type}: {section.algebra}."]
            parts += map(_example, section.examples)
    return "\n\n".join(parts) + "\n"


def _line(row: Row, anchors: Collection[str]) -> tuple[str, str]:
    name = row.op_type if row.kind in {"source", "carrier"} else row.id
    anchor = f"{row.op_type.lower()}-{row.kind}" if row.kind in {"source", "carrier"} else row.id
    return f"[{name}](#{anchor})" if anchor in anchors else name, row.algebra


def _table(lines: Iterable[tuple[str, str]]) -> str:
    shown = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "\n".join(["| rule | algebra |", "| --- | --- |", *(f"| {line} |" for line in shown)])


def _example(example: Example) -> str:
    kept = "" if example.refused is None else f" *Kept*: [{example.refused.id}](reasons.md#{example.refused.id})."
    first, _, rest = example.graph.strip().partition("\n")
    graph = f"{first}\n{textwrap.indent(textwrap.dedent(rest), '    ')}".strip()
    version = "" if example.opset == _USUAL_OPSET else f" Opset {example.opset}."
    return f"{example.title[:1].upper()}{example.title[1:]}.{version}{kept}\n\n```\n{graph}\n```"


def _reasons_page(sections: Iterable[_Section]) -> str:
    parts = ["# Why something stays", _GENERATED, _REASONS]
    for reason in Reason:
        seen = dict.fromkeys(
            f"[{section.heading}](rules.md#{section.anchor})"
            for section in sections
            for example in section.examples
            if example.refused is reason
        )
        parts += [f"## {reason.id}", reason.says, f"What to do: {reason.remedy}"]
        if seen:
            parts.append(f"Examples: {', '.join(seen)}.")
    return "\n\n".join(parts) + "\n"
