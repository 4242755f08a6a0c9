"""What the commands write and print when all is well, and when the proof fails."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.cli.program import COMMAND, CONV_BN, TWO_BN, Ended, bnfold, environment, files, model, op_types, written

# A folding that is wrong: one bias is off by one. Nothing of it is known to what judges it.
WRONG = """
import sys
import numpy as np
from onnx import numpy_helper
from bnfold import fold
from bnfold.cli import main
right = fold.apply

def wrong(unfolded, plan, **named):
    folded = right(unfolded, plan)
    for tensor in folded.model.graph.initializer:
        if list(tensor.dims) == [4] and plan.folds:
            array = numpy_helper.to_array(tensor).copy()
            array[0] += 1.0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return {}

fold.apply = wrong
main()
"""
TAKEN_BACK = WRONG.format("folded")
REFUTED = WRONG.format("fold.Folded(folded.model, ())").replace(" and plan.folds", "")
ACCUSED = WRONG.format("fold.Folded(folded.model, ())")


def run(path: Path, feeds: dict[str, Any]) -> list[Any]:
    """Run a model in onnxruntime with its optimisation off: the original's and the user's runtime."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two models."""
    written(tmp_path / "one.onnx")
    written(tmp_path / "two.onnx", TWO_BN)
    return tmp_path


@pytest.mark.parametrize("command", ["convert", "fold"])
def test_the_folded_model_computes_the_same_without_its_batch_norm(folder: Path, command: str) -> None:
    (folder / "out.onnx").write_bytes(b"what was there before")
    ended = bnfold(command, "one.onnx", "-o", "out.onnx", cwd=folder)
    assert (ended.code, ended.err) == (0, "")
    assert op_types(folder / "out.onnx") == ["Conv", "Relu"]
    feeds = {"x": np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)}
    np.testing.assert_allclose(run(folder / "out.onnx", feeds), run(folder / "one.onnx", feeds), rtol=1e-4, atol=1e-5)


def test_the_screen_of_a_good_run(folder: Path) -> None:
    ended = bnfold("fold", "two.onnx", "-o", "out.onnx", cwd=folder)
    lines = ended.out.splitlines()
    assert lines[:5] == [
        "  two.onnx     ONNX · IR 8 · opset 17 · 140 parameters",
        "  fold         1 of 2 batch norms   1 into Conv before",
        "  kept         1 × no-rule: Neither neighbour can take it in: the operation there is not linear, or",
        "               has no rule.",
        "               batchnormalization_3",
    ]
    assert lines[-10:] == [
        "  result       PASS (more accurate)" if "more accurate" in ended.out else "  result       PASS",
        "               ┌────────────────────┬──────────┬────────┐",
        "               │                    │ unfolded │ folded │",
        "               ├────────────────────┼──────────┼────────┤",
        "               │ BatchNormalization │        2 │      1 │",
        "               │ nodes              │        4 │      3 │",
        "               │ inputs             │        1 │      1 │",
        "               │ size               │    987 B │  859 B │",
        "               └────────────────────┴──────────┴────────┘",
        "  wrote out.onnx",
    ]


def test_a_pipe_gets_no_control_characters_and_no_spaces_at_the_ends(folder: Path) -> None:
    ended = bnfold("fold", "two.onnx", "-o", "out.onnx", "-v", cwd=folder)
    assert "\x1b" not in ended.out + ended.err
    assert [line for line in ended.out.splitlines() if line != line.rstrip()] == []


def test_quiet_prints_nothing(folder: Path) -> None:
    assert bnfold("fold", "one.onnx", "-o", "out.onnx", "--quiet", cwd=folder) == Ended(0, "", "")


def test_a_terminal_without_unicode_is_no_obstacle(folder: Path) -> None:
    ended = bnfold("fold", "two.onnx", "-o", "out.onnx", cwd=folder, env={"PYTHONIOENCODING": "ascii"})
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.isascii()


def test_the_report_is_written_and_printed_alike_and_follows_the_published_schema(
    folder: Path, repository: Path
) -> None:
    ended = bnfold("fold", "two.onnx", "-o", "out.onnx", "--report", "r.json", "--format", "json", cwd=folder)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (folder / "r.json").read_text("utf-8")
    report = json.loads(ended.out)
    jsonschema.validate(report, json.loads((repository / "docs" / "report.schema.json").read_text("utf-8")))
    assert report["source"]["sha256"] == hashlib.sha256((folder / "two.onnx").read_bytes()).hexdigest()
    assert [(row["name"], row["outcome"]) for row in report["batch_norms"]] == [
        ("batchnormalization_1", "folded"),
        ("batchnormalization_3", "kept"),
    ]
    assert report["before"]["ops"] == {"BatchNormalization": 2, "Conv": 1, "Sigmoid": 1}
    assert report["after"]["ops"] == {"BatchNormalization": 1, "Conv": 1, "Sigmoid": 1}
    assert report["verdict"].startswith("pass")
    assert [row["step"] for row in report["timings"]] == ["read", "inference mode", "fold", "verify"]


def test_stdout_takes_the_model_and_stderr_the_screen(folder: Path) -> None:
    assert bnfold("fold", "one.onnx", "-o", "out.onnx", cwd=folder).code == 0
    done = subprocess.run(
        [*COMMAND, "fold", "one.onnx", "-o", "-"], cwd=folder, env=environment(), capture_output=True, check=True
    )
    assert done.stdout == (folder / "out.onnx").read_bytes()
    assert b"1 of 1 batch norm" in done.stderr
    assert not (folder / "-").exists()


def test_the_same_input_gives_the_same_bytes(folder: Path) -> None:
    outputs = []
    for number in range(2):
        # Nothing that may differ between two runs is in the model: hash seeds, the time, the path.
        env = {"PYTHONHASHSEED": str(number)}
        assert bnfold("fold", "two.onnx", "-o", f"out{number}.onnx", cwd=folder, env=env).code == 0
        outputs.append((folder / f"out{number}.onnx").read_bytes())
    assert outputs[0] == outputs[1]


def test_folding_twice_is_folding_once(folder: Path) -> None:
    assert bnfold("fold", "two.onnx", "-o", "first.onnx", cwd=folder).code == 0
    assert bnfold("fold", "first.onnx", "-o", "second.onnx", cwd=folder).code == 0
    assert (folder / "first.onnx").read_bytes() == (folder / "second.onnx").read_bytes()


def test_the_model_says_what_was_done_to_it_and_keeps_what_it_said(folder: Path) -> None:
    named = model(CONV_BN)
    named.metadata_props.add(key="author", value="us")
    onnx.save(named, folder / "named.onnx")
    assert bnfold("fold", "named.onnx", "-o", "out.onnx", cwd=folder).code == 0
    metadata = {entry.key: entry.value for entry in onnx.load(folder / "out.onnx").metadata_props}
    assert metadata["author"] == "us"
    short = json.loads(metadata["bnfold"])
    assert short["source_sha256"] == hashlib.sha256((folder / "named.onnx").read_bytes()).hexdigest()
    assert short["verdict"].startswith("pass")
    assert short["versions"]["bnfold"] == "0.1.0"


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--fold", "none"], 2),
        (["--keep", "batchnormalization_1"], 2),
        (["--keep", "batch*"], 2),
        (["--keep", "n"], 2),
        (["--keep", "batchnormalization_3"], 1),
        ([], 1),
    ],
)
def test_batch_norms_are_kept_on_request(folder: Path, options: list[str], left: int) -> None:
    ended = bnfold("fold", "two.onnx", "-o", "out.onnx", *options, cwd=folder)
    assert (ended.code, ended.err) == (0, "")
    assert op_types(folder / "out.onnx").count("BatchNormalization") == left


def test_a_name_to_keep_that_names_nothing_is_a_mistake(folder: Path) -> None:
    ended = bnfold("fold", "two.onnx", "-o", "out.onnx", "--keep", "batchnorm_1", cwd=folder)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == (
        "error[signature]: --keep batchnorm_1 names none of the 2 batch norms\n"
        "  hint: Name one of them, for example: batchnormalization_1, batchnormalization_3.\n"
    )
    assert not (folder / "out.onnx").exists()


def test_the_users_own_inputs_are_fed(folder: Path) -> None:
    np.savez(folder / "d.npz", x=np.random.default_rng(1).normal(size=(4, 3, 8, 8)))
    ended = bnfold("fold", "one.onnx", "-o", "out.onnx", "--data", "d.npz", "--format", "json", cwd=folder)
    assert (ended.code, ended.err) == (0, "")
    first = json.loads(ended.out)["parity"]["probes"][0]
    assert (first["origin"], first["shapes"]) == ("the user's arrays", [["x", [4, 3, 8, 8]]])


@pytest.mark.parametrize("level", ["fast", "full"])
def test_the_level_of_verification_is_the_one_that_was_asked_for(folder: Path, level: str) -> None:
    ended = bnfold("fold", "one.onnx", "-o", "out.onnx", "--verify", level, "--format", "json", cwd=folder)
    assert json.loads(ended.out)["parity"]["level"] == level


def test_without_verification_the_result_says_so(folder: Path) -> None:
    ended = bnfold("fold", "one.onnx", "-o", "out.onnx", "--verify", "off", cwd=folder)
    assert ended.code == 0
    assert "  result       NOT VERIFIED\n" in ended.out
    metadata = {entry.key: entry.value for entry in onnx.load(folder / "out.onnx").metadata_props}
    assert json.loads(metadata["bnfold"])["verdict"] == "not-verified"


def test_a_fold_that_fails_its_own_check_is_taken_back_and_the_rest_is_written(folder: Path) -> None:
    code = [sys.executable, "-c", TAKEN_BACK]
    ended = bnfold("fold", "two.onnx", "-o", "out.onnx", "--report", "r.json", cwd=folder, code=code)
    assert (ended.code, ended.err) == (0, "")
    assert "  put back     batchnormalization_1: backward error " in ended.out
    assert "  result       ROLLED BACK 1\n" in ended.out
    assert op_types(folder / "out.onnx") == op_types(folder / "two.onnx")
    report = json.loads((folder / "r.json").read_text("utf-8"))
    assert report["verdict"] == "rolled-back"
    assert [piece["sources"] for piece in report["rolled_back"]] == [["batchnormalization_1"]]
    first = report["batch_norms"][0]
    assert (first["outcome"], first["kept"]["reason"]) == ("rolled-back", "unverified")


def test_a_fold_that_only_the_whole_accuses_is_found_and_taken_back(folder: Path) -> None:
    code = [sys.executable, "-c", ACCUSED]
    ended = bnfold("fold", "two.onnx", "-o", "out.onnx", "--repro", "case", cwd=folder, code=code)
    assert (ended.code, ended.err) == (0, "")
    assert (
        "  put back     batchnormalization_1: with it and what was folded before it, the whole is wrong:\n"
        "               output y: error "
    ) in ended.out
    assert "  repro        case: the smallest piece that shows it, with its inputs and show.py\n" in ended.out
    assert "  result       ROLLED BACK 1\n" in ended.out
    assert op_types(folder / "out.onnx") == op_types(folder / "two.onnx")
    shown = subprocess.run([sys.executable, "case/show.py"], cwd=folder, capture_output=True, text=True, check=True)
    before, after = (float(line.split(" is off by ")[1].split(";")[0]) for line in shown.stdout.splitlines())
    assert before < 1e-4
    assert after > 0.1
    again = bnfold("verify", "before.onnx", "after.onnx", "--data", "feeds.npz", cwd=folder / "case")
    assert again.code == 1
    assert again.err.startswith("error[parity]: output ")


@pytest.mark.parametrize("command", ["convert", "fold"])
def test_a_refuted_model_is_not_written(folder: Path, command: str) -> None:
    (folder / "out.onnx").write_bytes(b"what was there before")
    code = [sys.executable, "-c", REFUTED]
    ended = bnfold(command, "one.onnx", "-o", "out.onnx", "--report", "r.json", cwd=folder, code=code)
    assert ended.code == 1
    assert ended.err.startswith("error[parity]: output y: error ")
    assert ended.err.endswith(
        "  hint: Report the model, with what the same command prints with -v; --force writes it as *.unverified.onnx.\n"
    )
    assert "  result       FAIL\n" in ended.out
    assert "wrote" not in ended.out
    assert (folder / "out.onnx").read_bytes() == b"what was there before"
    # The account is there all the same: it says what failed.
    assert json.loads((folder / "r.json").read_text("utf-8"))["verdict"] == "fail"


def test_a_refuted_model_is_written_by_force_under_a_name_that_says_so(folder: Path) -> None:
    code = [sys.executable, "-c", REFUTED]
    ended = bnfold("fold", "one.onnx", "-o", "out.onnx", "--force", cwd=folder, code=code)
    assert ended.code == 1
    assert "  wrote out.unverified.onnx\n" in ended.out
    assert not (folder / "out.onnx").exists()
    assert op_types(folder / "out.unverified.onnx") == ["Conv", "Relu"]


def test_a_defect_says_so_and_shows_its_traceback_only_when_asked(folder: Path) -> None:
    code = [sys.executable, "-c", REFUTED.replace("right(unfolded, plan)", "{}['lost']")]
    ended = bnfold("fold", "one.onnx", "-o", "out.onnx", cwd=folder, code=code)
    assert (ended.code, ended.out) == (70, "")
    first, second = ended.err.splitlines()
    assert first == "error[defect]: this is a defect of bnfold, not of your model: KeyError: 'lost'"
    assert second.startswith("  hint: Report it with what the same command prints with -v, the model if you may share")
    loud = bnfold("-v", "fold", "one.onnx", "-o", "out.onnx", cwd=folder, code=code)
    assert loud.code == 70
    assert loud.err.startswith("Traceback (most recent call last):\n")
    assert loud.err.endswith(ended.err)
    assert not (folder / "out.onnx").exists()


NOISY = """
import os, sys
from bnfold import frontends
from bnfold.cli import main
right = frontends.load

def loud(path, request):
    os.write(1, b"to stdout from C\\n")
    os.write(2, b"to stderr from C\\n")
    print("to stdout from Python")
    print("to stderr from Python", file=sys.stderr)
    return right(path, request)

frontends.load = loud
main()
"""


def test_what_a_framework_prints_is_kept_off_the_screen_and_out_of_the_model(folder: Path) -> None:
    code = [sys.executable, "-c", NOISY]
    quiet = bnfold("fold", "one.onnx", "-o", "out.onnx", cwd=folder, code=code)
    assert quiet.code == 0
    assert "from" not in quiet.out + quiet.err
    done = subprocess.run(
        [*code, "fold", "one.onnx", "-o", "-", "-q"], cwd=folder, env=environment(), capture_output=True, check=True
    )
    assert done.stdout == (folder / "out.onnx").read_bytes()


def test_what_a_framework_printed_is_shown_on_a_failure_to_who_asks(folder: Path) -> None:
    (folder / "bad.onnx").write_bytes(b"")
    code = [sys.executable, "-c", NOISY]
    assert "from C" not in bnfold("fold", "bad.onnx", "-o", "out.onnx", cwd=folder, code=code).err
    (folder / "bad.onnx").write_bytes((folder / "one.onnx").read_bytes()[:-50])
    ended = bnfold("convert", "bad.onnx", "-o", "out.onnx", "-v", cwd=folder, code=code)
    assert ended.code == 3
    for line in ("to stdout from C", "to stderr from C", "to stdout from Python", "to stderr from Python"):
        assert line in ended.err


def test_several_models_go_to_a_folder(folder: Path) -> None:
    ended = bnfold("fold", "one.onnx", "two.onnx", "--out-dir", "out", cwd=folder)
    assert (ended.code, ended.err) == (0, "")
    assert [line.partition("folded")[0] for line in ended.out.splitlines()] == [
        "  one.onnx   1 of 1 batch norms ",
        "  two.onnx   1 of 2 batch norms ",
    ]
    assert op_types(folder / "out" / "one.onnx") == ["Conv", "Relu"]
    assert len(list((folder / "out").iterdir())) == 2


def test_one_of_several_that_fails_does_not_stop_the_others(folder: Path) -> None:
    (folder / "bad.onnx").write_bytes(b"")
    ended = bnfold("fold", "bad.onnx", "one.onnx", "--out-dir", "out", "--format", "json", cwd=folder)
    assert ended.code == 3
    assert ended.err.startswith("error[unknown-format]: bad.onnx is empty\n")
    assert [json.loads(line)["source"]["path"] for line in ended.out.splitlines()] == ["one.onnx"]
    assert [path.name for path in (folder / "out").iterdir()] == ["one.onnx"]


def test_a_folder_for_which_there_is_nothing_goes_again(folder: Path) -> None:
    (folder / "bad.onnx").write_bytes(b"")
    assert bnfold("fold", "bad.onnx", "--out-dir", "out", cwd=folder).code == 3
    assert not (folder / "out").exists()


def test_a_folder_of_results_that_is_that_of_the_sources_is_refused(folder: Path) -> None:
    before = files(folder)
    ended = bnfold("fold", "one.onnx", "two.onnx", "--out-dir", ".", cwd=folder)
    assert (ended.code, ended.err) == (
        2,
        "error[usage]: --out-dir: one.onnx is the file that is read\n  hint: Write the result to another path.\n",
    )
    assert files(folder) == before


def test_inspect_says_what_would_happen_and_writes_nothing(folder: Path) -> None:
    before = files(folder)
    ended = bnfold("inspect", "two.onnx", cwd=folder)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "  two.onnx     ONNX · IR 8 · opset 17 · 140 parameters\n"
        "  inputs       x   float32 (N, 3, 8, 8)\n"
        "  outputs      y   float32 (N, 4, 6, 6)\n"
        "  fold         1 of 2 batch norms can be folded   1 into Conv before\n"
        "               batchnormalization_1 → Conv conv_0\n"
        "  kept         1 × no-rule: Neither neighbour can take it in: the operation there is not linear, or\n"
        "               has no rule.\n"
        "               batchnormalization_3: its input comes from Sigmoid sigmoid_2 (no-rule)\n"
        "               batchnormalization_3: no layer reads y (edge-of-graph)\n"
        "               hint: Put the batch norm next to a dense or convolution layer.\n"
    )
    assert files(folder) == before


def test_verify_tells_the_same_from_the_different(folder: Path) -> None:
    assert bnfold("fold", "one.onnx", "-o", "out.onnx", cwd=folder).code == 0
    same = bnfold("verify", "one.onnx", "out.onnx", cwd=folder)
    assert (same.code, same.err) == (0, "")
    written(folder / "other.onnx", seed=4)
    different = bnfold("verify", "one.onnx", "other.onnx", "--report", "r.json", cwd=folder)
    assert different.code == 1
    assert different.err.startswith("error[parity]: output y: error ")
    assert json.loads((folder / "r.json").read_text("utf-8"))["verdict"] == "fail"


def test_verify_needs_models_with_the_same_ends(folder: Path) -> None:
    other = model(CONV_BN.replace("float[N,3,8,8] x)", "float[N,3,9,9] z)").replace("Conv(x,", "Conv(z,"))
    onnx.save(other, folder / "other.onnx")
    ended = bnfold("verify", "one.onnx", "other.onnx", cwd=folder)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == (
        "error[signature]: the two models do not have the same inputs: x float[N, 3, 8, 8] here, z float[N, 3, 9, 9] "
        "there\n"
        "  hint: Name the inputs with --inputs, or compare models of the same network.\n"
    )


def test_verify_takes_the_only_input_that_can_be_meant(folder: Path) -> None:
    other = model(CONV_BN.replace("x)", "z)").replace("Conv(x,", "Conv(z,"))
    onnx.save(other, folder / "other.onnx")
    ended = bnfold("verify", "one.onnx", "other.onnx", cwd=folder)
    assert (ended.code, ended.err) == (0, "")
    assert "  inputs       z of B is taken for x of A\n" in ended.out


def test_fold_is_for_onnx(folder: Path, real_files: Path) -> None:
    source = os.path.relpath(real_files / "gender_mini_XCEPTION.21-0.95.hdf5", folder)
    ended = bnfold("fold", source, "-o", "out.onnx", cwd=folder)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == (
        f"error[unknown-format]: {source} is no ONNX file but a Keras model in HDF5\n"
        "  hint: Use bnfold convert, which reads it.\n"
    )
