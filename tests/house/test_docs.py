"""The documents lead where they say, and the commands in them exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bnfold.cli.reference import pages
from tests.house.tree import ROOT, tracked_files

README = ROOT / "README.md"
DOCUMENTS = [path for path in tracked_files() if path.suffix == ".md"]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TARGETS = frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _called(program: str) -> list[str]:
    """Return every call of a program in the fenced blocks of the documents, without its name."""
    lines = [
        line.partition("  #")[0].strip().removeprefix("$ ").removeprefix(".venv/bin/")
        for path in DOCUMENTS
        for block in FENCE.findall(path.read_text("utf-8"))
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return sorted({line.removeprefix(f"{program} ") for line in lines if line.startswith(f"{program} ")})


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(document: Path) -> None:
    links = [link for link in LINK.findall(document.read_text("utf-8")) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("call", [call for call in _called("bnfold") if "[" not in call])
def test_bnfold_understands_the_commands_in_the_documents(call: str) -> None:
    from bnfold.cli.root import root

    name, *words = [word for word in shlex.split(call) if word not in {"--quiet", "-q", "-v"}]
    if name in {"--help", "--version"}:
        return
    command = root.commands[name]
    context = click.Context(command)
    values, _, _ = command.make_parser(context).parse_args(words)
    for parameter in command.params:
        if isinstance(parameter.type, click.Choice) and values.get(parameter.name or ""):
            parameter.type.convert(values[parameter.name or ""], parameter, context)


def _fenced(language: str, beginning: str) -> str:
    """Return the one block of the README that begins like this."""
    (block,) = re.findall(
        rf"^```{language}\n({re.escape(beginning)}.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return str(block)


def _masked(text: str) -> str:
    """Return what does not depend on the machine: no times and figures, and not which layer is the worst by them."""
    unnamed = re.sub(r"(\(limit \d+\)) .*", r"\1", text)
    untimed = re.sub(r" {3}[\d.]+ s$", "", unnamed, flags=re.MULTILINE)
    return re.sub(r"\d[\d.]*(?:e-\d+)?", "#", untimed)


@pytest.mark.tensorflow
def test_the_run_in_the_readme_is_what_happens(tmp_path: Path) -> None:
    command, _, shown = _fenced("", "$ bnfold convert").partition("\n")
    (tmp_path / "models").symlink_to(ROOT / "models")
    run = [sys.executable, "-m", *shlex.split(command.removeprefix("$ "))]
    environment = os.environ | {"COLUMNS": "100", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(run, cwd=tmp_path, env=environment, check=True, capture_output=True, encoding="utf-8")
    printed = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
    assert _masked(printed) == _masked(shown)


def test_the_python_in_the_readme_runs(tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_bytes((ROOT / "models" / "torch_conv" / "digits.onnx").read_bytes())
    run = [sys.executable, "-c", _fenced("python", "import bnfold")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout in {"pass\n", "pass-more-accurate\n"}
    assert (tmp_path / "folded.onnx").exists()


@pytest.mark.parametrize("call", _called("make"))
def test_make_knows_the_targets_in_the_documents(call: str) -> None:
    assert call.split(maxsplit=1)[0] in TARGETS


@pytest.mark.parametrize("name", sorted(pages()))
def test_generated_page_is_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text("utf-8") == pages()[name], "run: python -m bnfold.cli.reference docs"
