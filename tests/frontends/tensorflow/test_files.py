"""Files and folders of TensorFlow 1 as they lie on disk: whole, renamed, incomplete, damaged, hostile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnfold.errors import BnfoldError, CorruptModelError, SignatureError, UnsupportedOpError
from bnfold.frontends.loaded import Request
from bnfold.frontends.tensorflow import checkpoint, frozen_graph
from bnfold.frontends.tensorflow.guests import quiet, tensorflow
from bnfold.frontends.tensorflow.saved_model_v1 import load_v1_saved_model
from tests.frontends.tensorflow.programs import Written, averaged_norm, dense, flow, loss_of, write
from tests.frontends.tensorflow.test_inference_mode import agree, run_onnx

pytestmark = pytest.mark.tensorflow

X = np.random.default_rng(4).normal(size=(5, 6)).astype(np.float32)


def v1() -> Any:
    return tensorflow().compat.v1


def network() -> list[Any]:
    x = v1().placeholder("float32", [None, 6], name="x")
    train = v1().placeholder("bool", name="train")
    h = averaged_norm(dense(x, 5, "one"), lambda a, b: v1().cond(train, a, b), "bn")
    logits = dense(tensorflow().nn.relu(h), 3, "out")
    loss_of(logits)
    return [tensorflow().nn.softmax(logits, name="probabilities")]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write(tmp_path_factory.mktemp("files"), network)


@pytest.fixture
def copy(program: Written, tmp_path: Path) -> Path:
    """The checkpoint's files in a folder of their own, to be damaged."""
    return Path(shutil.copytree(program.prefix.parent, tmp_path / "copy"))


@pytest.mark.parametrize("form", ["", "model.ckpt-3", "model.ckpt-3.meta", "model.ckpt-3.index"])
def test_a_checkpoint_is_its_folder_its_prefix_or_any_of_its_files(program: Written, form: str) -> None:
    loaded = checkpoint.load(program.prefix.parent / form, Request())
    agree(run_onnx(loaded, {"x:0": X}), program.oracle({"x:0": X}, {"train:0": False}))
    assert [spec.name for spec in loaded.outputs] == ["probabilities:0"]
    assert loaded.framework == f"TensorFlow {tensorflow().__version__}"
    assert (loaded.format, loaded.description) == ("checkpoint", "TF1 checkpoint model.ckpt-3")


def test_the_newest_checkpoint_is_found_where_the_folder_was_moved(copy: Path) -> None:
    (copy / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-3"\n')
    assert checkpoint.load(copy, Request()).description == "TF1 checkpoint model.ckpt-3"


def test_without_the_checkpoint_file_the_last_step_is_the_newest(copy: Path) -> None:
    (copy / "checkpoint").unlink()
    for file in list(copy.glob("model.ckpt-3.*")):
        shutil.copy(file, file.with_name(file.name.replace("ckpt-3", "ckpt-20")))
    assert checkpoint.load(copy, Request()).description == "TF1 checkpoint model.ckpt-20"


def test_a_folder_without_meta_graph_says_so(tmp_path: Path) -> None:
    with pytest.raises(CorruptModelError, match=re.escape("holds no checkpoint with a .meta file")):
        checkpoint.load(tmp_path, Request())


def test_a_meta_graph_without_values_says_what_is_missing(copy: Path) -> None:
    (copy / "model.ckpt-3.index").unlink()
    with pytest.raises(CorruptModelError) as caught:
        checkpoint.load(copy / "model.ckpt-3.meta", Request())
    assert str(caught.value) == "model.ckpt-3.meta is a graph without values: model.ckpt-3.index is not there"
    assert caught.value.hint == "Put the .index and .data files of the same run beside it."


@pytest.mark.parametrize("suffix", ["meta", "index", "data-00000-of-00001"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "random"])
def test_a_damaged_file_of_a_checkpoint_is_corrupt(copy: Path, suffix: str, damage: str) -> None:
    path = copy / f"model.ckpt-3.{suffix}"
    content = path.read_bytes()
    noise = np.random.default_rng(1).bytes(len(content))
    path.write_bytes({"empty": b"", "truncated": content[: len(content) // 3], "random": noise}[damage])
    with pytest.raises(CorruptModelError):
        checkpoint.load(copy, Request())


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_frozen_graph_ends_in_an_error_of_ours(program: Written, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(program.frozen.read_bytes())
    path = tmp_path / "damaged.pb"
    for position in rng.integers(0, len(content), 40):
        content[position] = rng.integers(0, 256)
    path.write_bytes(content)
    with pytest.raises(BnfoldError):
        frozen_graph.load(path, Request())


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"no graph at all", b"\x0a\xff\xff\xff\xff\x0f"])
def test_what_is_no_graph_is_corrupt(tmp_path: Path, content: bytes) -> None:
    for name in ("graph.pb", "graph.pbtxt"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(CorruptModelError):
            frozen_graph.load(path, Request())


def test_every_truncation_of_a_frozen_graph_is_refused(program: Written, tmp_path: Path) -> None:
    content = program.frozen.read_bytes()
    path = tmp_path / "short.pb"
    for length in np.linspace(1, len(content) - 1, 12).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises(BnfoldError):
            frozen_graph.load(path, Request(outputs=("probabilities",)))


def graph_of(*nodes: Any) -> Any:
    graph = v1().GraphDef()
    graph.versions.producer = 1882
    graph.node.extend(nodes)
    return graph


def test_nodes_that_feed_themselves_are_corrupt(tmp_path: Path) -> None:
    a, b = v1().NodeDef(name="a", op="Relu", input=["b"]), v1().NodeDef(name="b", op="Relu", input=["a"])
    path = tmp_path / "ring.pb"
    path.write_bytes(graph_of(a, b).SerializeToString())
    with pytest.raises(CorruptModelError) as caught:
        frozen_graph.load(path, Request(outputs=("a",)))
    assert str(caught.value) == "2 nodes feed themselves, a among them"


def test_a_node_that_reads_too_little_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "short.pb"
    x = v1().NodeDef(name="x", op="Placeholder")
    path.write_bytes(graph_of(x, v1().NodeDef(name="y", op="Switch", input=["x"])).SerializeToString())
    with pytest.raises(CorruptModelError) as caught:
        frozen_graph.load(path, Request(outputs=("y",)))
    assert str(caught.value) == "the node y reads 1 tensors, and Switch takes 2"


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    call = v1().NodeDef(name="again", op="again", input=["x"])
    graph = graph_of(v1().NodeDef(name="x", op="Placeholder"), call)
    function = graph.library.function.add()
    function.signature.name = "again"
    function.signature.input_arg.add(name="x", type=1)
    function.signature.output_arg.add(name="y", type=1)
    function.node_def.add(name="inner", op="again", input=["x"])
    function.ret["y"] = "inner:y:0"
    path = tmp_path / "endless.pb"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(UnsupportedOpError) as caught:
        frozen_graph.load(path, Request(outputs=("again",)))
    assert str(caught.value) == "functions of the graph call each other more than 64 deep"


def test_a_constant_that_claims_terabytes_is_corrupt(tmp_path: Path) -> None:
    const = v1().NodeDef(name="c", op="Const")
    const.attr["dtype"].type = 1
    const.attr["value"].tensor.dtype = 1
    const.attr["value"].tensor.tensor_shape.dim.add(size=1 << 40)
    const.attr["value"].tensor.float_val.append(1.0)
    x = v1().NodeDef(name="x", op="Placeholder")
    x.attr["dtype"].type = 1
    add = v1().NodeDef(name="y", op="AddV2", input=["x", "c"])
    add.attr["T"].type = 1
    path = tmp_path / "huge.pb"
    path.write_bytes(graph_of(const, x, add).SerializeToString())
    with pytest.raises(CorruptModelError) as caught:
        frozen_graph.load(path, Request(outputs=("y",)))
    assert str(caught.value) == "the constant c says that it holds 1099511627776 elements"


@pytest.mark.parametrize("op", ["ReadFile", "WriteFile", "PyFunc", "EagerPyFunc"])
def test_operations_that_could_do_harm_are_refused_by_name(tmp_path: Path, op: str) -> None:
    x = v1().NodeDef(name="x", op="Placeholder")
    x.attr["dtype"].type = 7
    bad = v1().NodeDef(name="bad", op=op, input=["x", "x"] if op == "WriteFile" else ["x"])
    if op.endswith("PyFunc"):
        bad.attr["Tin"].list.type.append(7)
        bad.attr["Tout"].list.type.append(7)
    path = tmp_path / "hostile.pb"
    path.write_bytes(graph_of(x, bad).SerializeToString())
    with pytest.raises(UnsupportedOpError) as caught:
        frozen_graph.load(path, Request(outputs=("bad",)))
    assert str(caught.value) == (
        f"the graph reads files, runs code or talks to others, and such operations are not converted: {op} at bad"
    )


def test_an_output_that_is_not_there_names_its_neighbours(program: Written) -> None:
    with pytest.raises(SignatureError) as caught:
        frozen_graph.load(program.frozen, Request(outputs=("probabilitie",)))
    assert str(caught.value) == "the graph has no tensor probabilitie; close to it are probabilities"
    assert caught.value.hint == "Name a tensor of the graph, for example: --outputs probabilities"


def test_two_heads_are_a_choice_for_the_user(tmp_path: Path) -> None:
    def heads() -> list[Any]:
        h = dense(v1().placeholder("float32", [None, 6], name="x"), 5, "one")
        return [dense(h, 3, "logits"), dense(h, 2, "aux")]

    path = write(tmp_path, heads).frozen
    with pytest.raises(SignatureError) as caught:
        frozen_graph.load(path, Request())
    assert str(caught.value) == ("a frozen graph has no signature; 2 tensors could be its outputs: logits/z:0, aux/z:0")
    assert caught.value.hint == "Name the outputs, for example: --outputs logits/z:0"
    both = frozen_graph.load(path, Request(outputs=("aux/z:0", "logits/z:0")))
    assert [spec.name for spec in both.outputs] == ["aux/z:0", "logits/z:0"]


def test_a_graph_as_text_is_read(program: Written, tmp_path: Path) -> None:
    text_format = tensorflow("google.protobuf.text_format")
    graph = v1().GraphDef.FromString(program.frozen.read_bytes())
    path = tmp_path / "graph.pbtxt"
    path.write_text(text_format.MessageToString(graph))
    loaded = frozen_graph.load(path, Request())
    assert loaded.format == "frozen-graph-text"
    agree(run_onnx(loaded, {"x:0": X}), program.oracle({"x:0": X}, {"train:0": False}))


def test_a_tensor_inside_may_be_the_input(program: Written) -> None:
    loaded = checkpoint.load(program.prefix, Request(inputs=("one/z:0",)))
    z = X @ program.values["one/weights"] + program.values["one/biases"]
    assert [(spec.name, spec.shape) for spec in loaded.inputs] == [("one/z:0", ("batch", 5))]
    agree(run_onnx(loaded, {"one/z:0": z}), program.oracle({"x:0": X}, {"train:0": False}))


def test_variables_that_were_saved_under_other_names_and_in_pieces_are_found(tmp_path: Path) -> None:
    with flow(1), quiet(), tensorflow().Graph().as_default():
        x = v1().placeholder("float32", [None, 6], name="x")
        pieces = v1().get_variable("w", [6, 4], partitioner=v1().fixed_size_partitioner(3))
        bias = v1().get_variable("b", [4])
        y = v1().nn.bias_add(v1().matmul(x, tensorflow().convert_to_tensor(pieces)), bias, name="y")
        with v1().Session() as session:
            session.run(v1().global_variables_initializer())
            saver = v1().train.Saver({"kernel": list(pieces), "renamed/bias": bias})
            saver.save(session, str(tmp_path / "model"))
            expected = session.run(y, {x: X})
    loaded = checkpoint.load(tmp_path / "model", Request())
    agree(run_onnx(loaded, {"x:0": X}), [expected])
    assert loaded.run is not None
    agree(list(loaded.run({"x:0": X}).values()), [expected])


@pytest.mark.parametrize("version", [1, 2])
def test_a_saved_model_of_tensorflow_1_has_the_names_of_its_signature(tmp_path: Path, version: int) -> None:
    folder = tmp_path / "saved"
    with flow(version), quiet(), tensorflow().Graph().as_default():
        (probabilities,) = network()
        graph = v1().get_default_graph()
        with v1().Session() as session:
            session.run(v1().global_variables_initializer())
            x = graph.get_tensor_by_name("x:0")
            v1().saved_model.simple_save(session, str(folder), {"pixels": x}, {"scores": probabilities})
            expected = session.run(probabilities, {x: X, "train:0": False})
    loaded = load_v1_saved_model(folder, Request())
    assert [spec.name for spec in loaded.inputs] == ["pixels"]
    assert [spec.name for spec in loaded.outputs] == ["scores"]
    agree(run_onnx(loaded, {"pixels": X}), [expected])
    assert loaded.run is not None
    agree([loaded.run({"pixels": X})["scores"]], [expected])
    with pytest.raises(SignatureError) as caught:
        load_v1_saved_model(folder, Request(signature="classify"))
    assert str(caught.value) == "the SavedModel saved has no signature classify; it has serving_default"


def test_bytes_are_the_same_in_every_run_and_nothing_is_printed(program: Written, repository: Path) -> None:
    code = (
        "import hashlib, sys; from pathlib import Path\n"
        "from bnfold.frontends.loaded import Request\n"
        "from bnfold.frontends.tensorflow import frozen_graph\n"
        "loaded = frozen_graph.load(Path(sys.argv[1]), Request())\n"
        "import numpy as np\n"
        "loaded.run({'x:0': np.zeros((2, 6), np.float32)})\n"
        "print(hashlib.sha256(loaded.model.SerializeToString()).hexdigest())\n"
    )
    found = []
    for seed in ("1", "2"):
        environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
        done = subprocess.run(
            [sys.executable, "-W", "always::UserWarning", "-c", code, str(program.frozen)],
            capture_output=True,
            text=True,
            check=True,
            cwd=repository,
            env={**environment, "PYTHONHASHSEED": seed},
        )
        assert done.stderr == ""
        found.append(done.stdout)
    assert found[0] == found[1]
    assert len(found[0]) == 65


def test_the_meta_graph_of_an_old_training_program_converts(real_files: Path, tmp_path: Path) -> None:
    """A meta graph that a current TensorFlow does not import; its variables get random values."""
    meta_graph = v1().MetaGraphDef.FromString((real_files / "MSD_vgg.meta").read_bytes())
    rng = np.random.default_rng(7)
    with flow(1), quiet(), tensorflow().Graph().as_default(), v1().Session() as session:
        variables = []
        for node in meta_graph.graph_def.node:
            if node.op == "VariableV2":
                shape = [dimension.size for dimension in node.attr["shape"].shape.dim]
                value: Any = rng.normal(scale=0.2, size=shape).astype(np.float32)
                value = np.abs(value) + 0.5 if "variance" in node.name else value
                variables.append(v1().Variable(value, name=node.name))
        session.run(v1().global_variables_initializer())
        v1().train.Saver(variables).save(session, str(tmp_path / "vgg"), write_meta_graph=False)
    shutil.copy(real_files / "MSD_vgg.meta", tmp_path / "vgg.meta")
    loaded = checkpoint.load(tmp_path / "vgg", Request())
    assert loaded.framework == "TensorFlow 1.12.0"
    norms = [node.name for node in loaded.model.graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == 6
    switches = [change for change in loaded.mode if change.kind == "switch"]
    assert [(change.name, change.after) for change in switches] == [("model/Placeholder_2", "False")]
    assert switches[0].proof == "True leaves 6 batch-statistics nodes and 5 random ones, False leaves 0"
    (spec,) = loaded.inputs
    feeds = {spec.name: rng.normal(size=[2 if isinstance(n, str) or n is None else n for n in spec.shape])}
    feeds = {name: value.astype(spec.dtype) for name, value in feeds.items()}
    assert loaded.run is not None
    agree(run_onnx(loaded, feeds), list(loaded.run(feeds).values()))
