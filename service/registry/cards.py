"""What the service remembers of a folded model beside the file itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Card", "TensorCard", "links_of", "summary_of"]


class TensorCard(BaseModel):
    """An input or an output: -1 stands for an axis of any size."""

    model_config = ConfigDict(frozen=True)

    name: str
    datatype: str
    shape: tuple[int, ...]


class Card(BaseModel):
    """One version of a kept model. It is written once and never changed.

    Attributes:
        name: Under which it is served.
        version: 1, 2, 3 …: another content under the same name is another version.
        created: When, in UTC.
        upload: The name that the uploaded file had.
        sha256: Of the folded file.
        bytes: Its size.
        report: sha256 of the report as JSON.
        page: sha256 of the report as HTML.
        job: That made it.
        sandbox: How the process that made it was confined.
        unrunnable: Why it cannot be served; empty where it can.
        inputs: What the model takes, as onnxruntime sees it.
        outputs: What it answers.
        summary: The short form of the report.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    created: str
    upload: str
    sha256: str
    bytes: int
    report: str
    page: str
    job: str
    sandbox: str
    unrunnable: str
    inputs: tuple[TensorCard, ...]
    outputs: tuple[TensorCard, ...]
    summary: dict[str, Any]

    @property
    def may_be_rewritten(self) -> bool:
        """Whether it was proved that onnxruntime's default level computes what the model computes."""
        return self.summary.get("default_level") == "pass"


def links_of(card: Card) -> dict[str, str]:
    """Return where to find a model and what belongs to it, as paths of this service."""
    version = f"/models/{card.name}/versions/{card.version}"
    return {
        "self": version,
        "model": f"{version}/model.onnx",
        "report": f"{version}/report",
        "page": f"{version}/report.html",
        "triton": f"{version}/triton.zip",
        "infer": f"/v2/models/{card.name}/versions/{card.version}/infer",
        "job": f"/jobs/{card.job}",
    }


def summary_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the short form of a report: the source, what was folded, what stays and why, and the verdict."""
    batch_norms = report["batch_norms"]
    outcomes = [batch_norm["outcome"] for batch_norm in batch_norms]
    return {
        "source": {name: report["source"][name] for name in ("format", "framework", "description", "sha256", "bytes")},
        "verdict": report["verdict"],
        "default_level": _at_default_level(report.get("parity")),
        "batch_norms": {
            "total": len(outcomes),
            "folded": outcomes.count("folded"),
            "kept": [
                {"name": batch_norm["name"], "outcome": batch_norm["outcome"], **_why(batch_norm["kept"])}
                for batch_norm in batch_norms
                if batch_norm["outcome"] != "folded"
            ],
        },
        "before": report["before"],
        "after": report["after"],
        "versions": report["versions"],
    }


def _at_default_level(parity: Mapping[str, Any] | None) -> str | None:
    """Return whether onnxruntime may rewrite the model as it does at its default level; None where nobody tried."""
    verdicts = [one["verdict"] for one in parity["rewritten"]] if parity else []
    if not verdicts:
        return None
    return next((found for found in ("fail", "inconclusive") if found in verdicts), "pass")


def _why(kept: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: kept[name] for name in ("reason", "says", "detail", "remedy")} if kept else {}
