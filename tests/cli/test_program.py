"""The program from the outside: what stands where, and what it answers to what it does not understand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.program import COMMAND, bnfold, environment, written

HEAVY = {"onnx", "numpy", "onnxruntime", "tensorflow", "keras", "h5py", "tf2onnx", "rich"}
COMMANDS = ["convert", "fold", "inspect", "verify", "rules", "explain"]


def _imported(arguments: list[str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bnfold", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert _imported(arguments) & HEAVY == set()


def test_importing_the_package_is_light() -> None:
    ask = "import bnfold, sys; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout.replace("'", '"'))) & (HEAVY | {"click"}) == set()


def test_the_installed_script_is_the_same_program(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("bnfold")
    if not script.exists():
        pytest.skip("the package is not installed")
    assert bnfold("--version", cwd=tmp_path, code=[str(script)]) == bnfold("--version", cwd=tmp_path)


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    for arguments in (["--version"], ["convert", "--version"]):
        ended = bnfold(*arguments, cwd=tmp_path)
        assert (ended.code, ended.out, ended.err) == (0, "bnfold 0.1.0\n", "")


def test_without_a_command_it_says_what_there_is(tmp_path: Path) -> None:
    ended = bnfold(cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("Usage: bnfold [OPTIONS] COMMAND [ARGS]...\n")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ("convret", "no such command: convret", "Did you mean convert?"),
        ("xyzzy", "no such command: xyzzy", "See: bnfold --help"),
        ("convert a -o b --outptu c", "no such option: --outptu", "Did you mean --output or --outputs?"),
        ("convert a -o b --verify fats", "--verify: 'fats' is none of full, fast, off", "Did you mean fast?"),
        ("verify a b --verify off", "--verify: 'off' is none of full, fast", "See: bnfold verify --help"),
        ("--format jsn rules", "--format: 'jsn' is none of text, json", "Did you mean json?"),
        ("convert a", "--output is missing", "See: bnfold convert --help"),
        ("convert -o b", "SRC is missing", "See: bnfold convert --help"),
        ("fold -o b", "IN.onnx … is missing", "See: bnfold fold --help"),
        ("verify a", "B is missing", "See: bnfold verify --help"),
        ("convert a -o b --set x", "--set: 'x' is not of the form NAME=VALUE", "See: bnfold convert --help"),
        (
            "convert a -o b --builder x",
            "--builder: 'x' is not of the form FILE.py:FUNCTION",
            "See: bnfold convert --help",
        ),
        ("convert a -o b --opset x", "--opset: 'x' is not a valid integer range", "See: bnfold convert --help"),
        ("rules --seed 1", "no such option: --seed", "See: bnfold rules --help"),
        ("explain paded-shift", "nothing is called paded-shift", "Did you mean padded-shift?"),
        ("explain xyzzy", "nothing is called xyzzy", "List the rules with: bnfold rules"),
        ("fold a b -o c", "--output is for one input, and there are 2", "Use: --out-dir DIR"),
        (
            "fold a",
            "give either --output or --out-dir",
            "Say where to write: -o OUT.onnx for one input, --out-dir DIR for several.",
        ),
        (
            "fold x/a y/a --out-dir .",
            "two inputs have the name a, and would be written to the same file",
            "Fold them one by one.",
        ),
        (
            "fold a b --out-dir . --report r",
            "--report is for one input, and there are 2",
            "Use: --format json, which prints one report a line.",
        ),
        (
            "fold a -o - --format json",
            "--output -: the model and the report cannot both go to standard output",
            "Use: --report FILE",
        ),
        ("fold a -o b --report -", "--report: standard output is chosen with --format json", "Use: --format json"),
        ("fold a -o b --report ./b", "--report: b is the file of the model", "Give the report a path of its own."),
    ],
)
def test_a_mistake_gets_the_next_step(tmp_path: Path, arguments: str, message: str, hint: str) -> None:
    ended = bnfold(*arguments.split(), cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (2, "", f"error[usage]: {message}\n  hint: {hint}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_defect(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "rules"], stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_reason_is_explained(tmp_path: Path) -> None:
    ended = bnfold("explain", "padded-shift", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "padded-shift (reason)\n"
        "  The convolution pads with zeros after the batch norm, so its border never sees the shift.\n"
        "  Pad before the batch norm, or train without padding.\n"
    )


def test_rules_are_listed_for_people_and_for_programs(tmp_path: Path) -> None:
    listed = json.loads(bnfold("rules", "--format", "json", cwd=tmp_path).out)
    assert {"id": "conv-output", "kind": "absorber"}.items() <= next(
        r for r in listed if r["id"] == "conv-output"
    ).items()
    text = bnfold("rules", cwd=tmp_path).out
    names = [row["op_type"] if row["kind"] in {"source", "carrier"} else row["id"] for row in listed]
    assert [name for name in names if f"  {name} " not in text] == []


def test_everything_that_is_listed_is_explained(tmp_path: Path) -> None:
    listed = json.loads(bnfold("--format", "json", "rules", cwd=tmp_path).out)
    explained = json.loads(bnfold("explain", "conv-output", "--format", "json", cwd=tmp_path).out)
    row = next(row for row in listed if row["id"] == "conv-output")
    assert [item["says"] for item in explained] == [f"Conv: {row['algebra']}"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete_commands(tmp_path: Path, shell: str) -> None:
    ended = bnfold(cwd=tmp_path, env={"_BNFOLD_COMPLETE": f"{shell}_source"})
    assert ended.code == 0
    assert "_BNFOLD_COMPLETE" in ended.out


def test_global_options_stand_before_or_after_the_command(tmp_path: Path) -> None:
    written(tmp_path / "a.onnx")
    before = bnfold("--format", "json", "--seed", "9", "inspect", "a.onnx", cwd=tmp_path)
    after = bnfold("inspect", "a.onnx", "--seed", "9", "--format", "json", cwd=tmp_path)
    both = bnfold("--seed", "8", "inspect", "a.onnx", "--seed", "9", "--format", "json", cwd=tmp_path)
    seeds = [json.loads(ended.out)["seed"] for ended in (before, after, both)]
    assert seeds == [9, 9, 9]


@pytest.mark.parametrize(("number", "source", "exit_code"), [(1, "a.onnx", 0), (2, "a.onnx", 0), (2, "gone.onnx", 3)])
def test_a_closed_stream_is_no_defect(tmp_path: Path, number: int, source: str, exit_code: int) -> None:
    written(tmp_path / "a.onnx")
    for arguments in (["inspect", source], ["fold", source, "-o", "out.onnx"]):
        assert bnfold(*arguments, cwd=tmp_path, before=lambda: os.close(number)).code == exit_code
    assert (tmp_path / "out.onnx").exists() == (exit_code == 0)


def test_rules_are_grouped_by_kind_and_fit_a_terminal(tmp_path: Path) -> None:
    for width in (80, 120):
        lines = bnfold("rules", cwd=tmp_path, env={"COLUMNS": str(width)}).out.splitlines()
        assert max(map(cell_len, lines)) <= width
        assert [line.partition(":")[0] for line in lines if line[:1].strip()] == [
            "Sources",
            "Carriers",
            "Absorbers",
            "Forms",
        ]
        assert "  Neg                     −x = (−1, 0)" in lines


def test_an_operation_is_explained_by_all_rules_about_it(tmp_path: Path) -> None:
    ended = bnfold("explain", "Conv", cwd=tmp_path)
    heads = [line for line in ended.out.splitlines() if line[:1].strip()]
    assert heads == ["conv-output (absorber)", "conv-input (absorber)", "conv-branches (absorber)"]
    assert "    padded-shift: padded by auto_pad\n" in ended.out
    both = bnfold("explain", "mul", cwd=tmp_path).out
    assert [line for line in both.splitlines() if line[:1].strip()][:2] == ["mul (source)", "mul (carrier)"]
    narrow = bnfold("explain", "conv", cwd=tmp_path, env={"COLUMNS": "60"}).out
    assert max(map(len, narrow.splitlines())) <= 60


def test_every_form_that_a_fold_may_take_is_explained(tmp_path: Path) -> None:
    from bnfold.fold.stage import STAGES

    for form in {stage.form for stage in STAGES} - {""}:
        ended = bnfold("explain", form, cwd=tmp_path)
        assert (ended.code, ended.out.splitlines()[0]) == (0, f"{form} (form)")
