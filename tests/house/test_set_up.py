"""The set-up can be repeated anywhere: pinned, hashed, complete; and the wheel holds bnfold and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.house.tree import PACKAGES, ROOT, imports, modules, pyproject

PIN = re.compile(
    r"^([a-z0-9._-]+)==(\S+)(?: ; ([^\\]+?))? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


@pytest.fixture(scope="module")
def constraints() -> str:
    """The text of the constraints file."""
    return (ROOT / "constraints.txt").read_text("utf-8")


# PyTorch is large, and comes in a build for each accelerator: who reads its files chooses one.
APART = frozenset({"torch"})


def _requirements(*, apart: bool = False) -> list[Requirement]:
    project = pyproject()["project"]
    groups = project["optional-dependencies"].items()
    extras = [line for extra, lines in groups if apart or extra not in APART for line in lines]
    found = [
        Requirement(line) for line in [*project["dependencies"], *extras, *pyproject()["build-system"]["requires"]]
    ]
    return [requirement for requirement in found if requirement.name != project["name"]]


def test_every_pin_has_its_hash_and_nothing_else_stands_in_the_file(constraints: str) -> None:
    rest = PIN.sub("", constraints)
    assert [line for line in rest.splitlines() if line.strip() and not line.lstrip().startswith("#")] == []
    assert constraints.count("==") >= len(_requirements())


def test_constraints_name_no_place(constraints: str) -> None:
    assert "://" not in constraints
    assert " @ " not in constraints


@pytest.mark.parametrize("requirement", _requirements(), ids=str)
def test_dependency_is_pinned_within_its_bounds(requirement: Requirement, constraints: str) -> None:
    pins = {canonicalize_name(name): Version(version) for name, version, _, _ in PIN.findall(constraints)}
    assert canonicalize_name(requirement.name) in pins
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_extra_all_is_every_other_extra() -> None:
    extras = pyproject()["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    assert Requirement(everything).extras == set(extras) - {"all"} - APART


def test_base_install_is_light() -> None:
    assert sorted(Requirement(line).name for line in pyproject()["project"]["dependencies"]) == [
        "click",
        "jinja2",
        "ml-dtypes",
        "numpy",
        "onnx",
        "onnxruntime",
        "protobuf",
        "rich",
    ]


def test_every_library_that_is_imported_is_asked_for() -> None:
    asked_for = {canonicalize_name(requirement.name) for requirement in _requirements(apart=True)}
    provided_by = packages_distributions()
    missing = set()
    for module in modules():
        for imported in imports(module):
            top = imported.name.partition(".")[0]
            if top in sys.stdlib_module_names or top in PACKAGES:
                continue
            if not asked_for & {canonicalize_name(name) for name in provided_by.get(top, [top])}:
                missing.add(f"{module.path} imports {top}")
    assert missing == set()


def test_wheel_holds_bnfold_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    ours = (path for path in (ROOT / "bnfold").rglob("*") if path.suffix in {".py", ".j2", ".css"})
    packaged = {path.relative_to(ROOT).as_posix() for path in ours}
    version = pyproject()["project"]["version"]
    assert {name for name in names if not name.startswith(f"bnfold-{version}.dist-info/")} >= packaged
    assert {name.partition("/")[0] for name in names} == {"bnfold", f"bnfold-{version}.dist-info"}
    assert "bnfold/py.typed" in names


@pytest.mark.parametrize("target", ["setup", "demo", "test", "lint", "serve"])
def test_make_target_exists(target: str) -> None:
    # With the stamp named old, make plans the target's own line and no set-up.
    plan = ["make", "--dry-run", "--assume-old=.venv/.installed", target]
    done = subprocess.run(plan, cwd=ROOT, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_set_up_says_what_is_missing_when_there_is_no_python(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(["make", "setup", "PYTHON="], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "bnfold needs Python 3.11, 3.12 or 3.13, and none is on the path."
    assert not (tmp_path / ".venv").exists()


def test_changelog_has_a_place_for_what_comes_next() -> None:
    headings = re.findall(r"^## .*$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[:1] == ["## [Unreleased]"]
