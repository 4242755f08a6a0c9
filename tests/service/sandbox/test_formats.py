"""Models of every kind are still converted by a child that may do next to nothing."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from service.sandbox import Level, Limits
from tests.service.sandbox.children import ISOLATING, Room, at_level, run_child

MODELS = Path(__file__).parents[3] / "models"
BOTH = [pytest.param(level, "torch_conv/digits.onnx", id=f"{level}-onnx") for level in ISOLATING]
# What TensorFlow reads takes seconds: each kind once. Keras files are sent to the service itself elsewhere.
ONCE = [
    pytest.param(level, name, id=f"{level}-{name}", marks=pytest.mark.tensorflow)
    for level, name in (
        (Level.LANDLOCK, "tf_keras_dense/tuned.h5"),
        (Level.BUBBLEWRAP, "keras_depthwise/saved_model"),
        (Level.LANDLOCK, "tf1_cond/frozen_v2.pb"),
    )
]


@pytest.mark.parametrize(("level", "name"), [*BOTH, *ONCE])
def test_a_model_is_folded_and_proven(level: Level, name: str, tmp_path: Path) -> None:
    room, source = Room.made(tmp_path), MODELS / name
    upload = room.folder / "upload" / (source.name if source.is_file() else "model.tar")
    if source.is_file():
        shutil.copy(source, upload)
    else:
        with tarfile.open(upload, "w") as archive:
            archive.add(source, arcname="m")
    (room.folder / "job.json").write_text(json.dumps({"upload": upload.name, "options": {}}), "utf-8")
    limits = Limits(memory=2**34, file_size=2**31, cpu_seconds=600)
    ended = run_child(at_level(level), room, [str(room.folder)], module="service.child", limits=limits, seconds=900)
    assert ended.returncode == 0, ended.stderr
    outcome: dict[str, Any] = json.loads((room.folder / "out" / "outcome.json").read_bytes())
    assert outcome["kind"] == "done", outcome
    report = json.loads((room.folder / "out" / "report.json").read_bytes())
    assert "folded" in {batch_norm["outcome"] for batch_norm in report["batch_norms"]}
    assert (room.folder / "out" / "model.onnx").stat().st_size > 0
