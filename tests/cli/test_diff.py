"""``bnfold diff``: what it prints, and what the shell gets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.cli.reference import pages
from tests.cli.program import CONV_BN, TWO_BN, Ended, bnfold, files, model, written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, a copy of it, and one that was folded and changed by hand."""
    written(tmp_path / "a.onnx", TWO_BN)
    written(tmp_path / "same.onnx", TWO_BN)
    changed = model(TWO_BN)
    changed.graph.node[0].output[0] = "n"
    del changed.graph.node[1]
    changed.graph.node[1].op_type = "Tanh"
    kept = [tensor for tensor in changed.graph.initializer if tensor.name == "W" or tensor.name.endswith("2")]
    del changed.graph.initializer[:]
    changed.graph.initializer.extend(kept)
    array = numpy_helper.to_array(kept[0]).copy()
    array[0, 0, 0, 0] = np.nextafter(array[0, 0, 0, 0], np.float32(9))
    (weight,) = (tensor for tensor in changed.graph.initializer if tensor.name == "W")
    weight.CopyFrom(numpy_helper.from_array(array, "W"))
    changed.metadata_props.add(key="note", value="by hand")
    onnx.save(changed, tmp_path / "b.onnx")
    return tmp_path


def test_the_screen_of_a_comparison(folder: Path) -> None:
    ended = bnfold("diff", "a.onnx", "b.onnx", cwd=folder)
    assert (ended.code, ended.err) == (1, "")
    assert ended.out == (
        "  A            a.onnx   4 nodes\n"
        "  B            b.onnx   3 nodes\n"
        "  operations   BatchNormalization 2 → 1 · Sigmoid 1 → 0 · Tanh 0 → 1\n"
        "  batch norms  1 gone · 1 as they were\n"
        "               gone  batchnormalization_1\n"
        "  nodes        1 gone · 2 changed\n"
        "               changed  Conv conv_0: outputs\n"
        "               changed  Sigmoid sigmoid_2: operation Sigmoid → Tanh\n"
        "  weights      4 gone · 1 changed · 4 as they were\n"
        "               changed  W   float32 [4, 3, 3, 3]   1 of 108 values, 1 ulp, by 2.38e-07 at most\n"
        "               gone  gamma   float32 [4]\n"
        "               gone  beta   float32 [4]\n"
        "               gone  mean   float32 [4]\n"
        "               gone  var   float32 [4]\n"
        "  file         new  metadata note: by hand\n"
        "  result       DIFFERENT\n"
    )


def test_equal_files_are_said_to_be(folder: Path) -> None:
    assert bnfold("diff", "a.onnx", "same.onnx", cwd=folder) == Ended(
        0, "  A            a.onnx   4 nodes\n  B            same.onnx   4 nodes\n  result       EQUAL\n", ""
    )


def test_a_file_that_was_folded_again_is_the_same_model(folder: Path) -> None:
    stamped = onnx.load(folder / "same.onnx")
    stamped.metadata_props.add(key="bnfold", value="{}")
    onnx.save(stamped, folder / "same.onnx")
    ended = bnfold("diff", "a.onnx", "same.onnx", cwd=folder)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith("  file         new  metadata bnfold: {}\n  result       SAME MODEL\n")


def test_quiet_only_the_exit_code_tells(folder: Path) -> None:
    assert bnfold("diff", "-q", "a.onnx", "b.onnx", cwd=folder) == Ended(1, "", "")


@pytest.mark.parametrize("other", ["same.onnx", "b.onnx"])
def test_the_json_follows_the_published_schema(folder: Path, repository: Path, other: str) -> None:
    ended = bnfold("diff", "a.onnx", other, "--format", "json", cwd=folder)
    found = json.loads(ended.out, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    schema = json.loads((repository / "docs" / "difference.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(found)
    assert next(iter(found)) == "schema"
    assert found["equal"] is (other == "same.onnx")
    assert ended.code == (0 if found["equal"] else 1)


def test_the_published_schema_is_current(repository: Path) -> None:
    current = (repository / "docs" / "difference.schema.json").read_text("utf-8") == pages()["difference.schema.json"]
    assert current, "write the pages again with: python -m bnfold.cli.reference docs"


def test_long_lists_are_cut_and_verbose_shows_all(tmp_path: Path) -> None:
    text = CONV_BN.replace(
        "y = Relu(n)", "".join(f"r{i} = Relu({f'r{i - 1}' if i else 'n'})" for i in range(20)) + "y = Relu(r19)"
    )
    one, other = model(text), model(text)
    for node in other.graph.node[2:]:
        node.op_type = "Sigmoid"
    onnx.save(one, tmp_path / "a.onnx")
    onnx.save(other, tmp_path / "b.onnx")
    short = bnfold("diff", "a.onnx", "b.onnx", cwd=tmp_path).out
    assert short.count("operation Relu → Sigmoid") == 8
    assert "and 13 more; -v shows all" in short
    long = bnfold("diff", "a.onnx", "b.onnx", "-v", cwd=tmp_path).out
    assert long.count("operation Relu → Sigmoid") == 21
    assert "more; -v" not in long


def test_names_are_shown_without_control_characters(tmp_path: Path) -> None:
    one, other = model(CONV_BN), model(CONV_BN)
    for changed in (one, other):
        changed.graph.node[2].name = "\x1b[31mred\u202e"
    other.graph.node[2].op_type = "Sigmoid"
    onnx.save(one, tmp_path / "a.onnx")
    onnx.save(other, tmp_path / "b.onnx")
    out = bnfold("diff", "a.onnx", "b.onnx", cwd=tmp_path).out
    assert "\\x1b[31mred\\u202e: operation Relu → Sigmoid" in out
    assert "\x1b" not in out


NO_FILE = "error[unknown-format]: no such file: none.onnx\n  hint: Check the path for a typing mistake.\n"
NO_MODEL = "error[unknown-format]: text.onnx is no ONNX model: its 5 bytes are not in ONNX's binary format\n"
NAME_IT = "  hint: Name the file that the ONNX exporter wrote.\n"
ONE_IS_MISSING = "error[usage]: B is missing\n  hint: See: bnfold diff --help\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("a.onnx", "none.onnx"), 3, NO_FILE),
        (("text.onnx", "a.onnx"), 3, NO_MODEL + NAME_IT),
        (("a.onnx",), 2, ONE_IS_MISSING),
    ],
)
def test_what_cannot_be_compared_is_said(folder: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    (folder / "text.onnx").write_text("hello")
    before = files(folder)
    assert bnfold("diff", *arguments, cwd=folder) == Ended(code, "", says)
    assert files(folder) == before


def test_nothing_is_run_and_no_framework_is_read(folder: Path) -> None:
    ask = (
        "import sys\nfrom bnfold.cli import main\nsys.argv = ['bnfold', 'diff', 'a.onnx', 'b.onnx']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'onnxruntime', 'tensorflow', 'keras', 'h5py', 'jinja2'}, loaded\n"
    )
    ended = bnfold(cwd=folder, code=(sys.executable, "-c", ask))
    assert (ended.code, ended.err) == (0, "")
