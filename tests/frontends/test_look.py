"""Files of frameworks looked at: judged by the programs that wrote them, and by TensorFlow's own reading."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest

from bnfold.errors import BnfoldError, CorruptModelError
from bnfold.frontends import look
from bnfold.frontends.glance import Vectors, diagnosed
from bnfold.frontends.sniff import Format, sniff
from bnfold.frontends.tensorflow.bundle import open_bundle
from bnfold.frontends.tensorflow.messages import array_of, read_graph


def test_a_real_training_graph_shows_its_mode_input_and_six_batch_norms(real_files: Path) -> None:
    seen = look(real_files / "MSD_vgg.meta")
    assert (seen.format, seen.framework) == ("meta-graph", "TensorFlow 1.12.0")
    assert [(port.name, port.dtype, port.shape) for port in (*seen.inputs, *seen.outputs)] == [
        ("model/Placeholder:0", "float32", (None, 187, 96)),
        ("model/Sigmoid:0", "float32", (None, 50)),
    ]
    assert [(mode.name, mode.kind, mode.default) for mode in seen.mode_inputs] == [
        ("model/Placeholder_2:0", "bool placeholder", "")
    ]
    assert [(one.name, one.channels, one.statistics) for one in seen.batch_norms] == [
        ("model/batch_normalization", 1, "switched"),
        *((f"model/batch_normalization_{number}", 128, "switched") for number in range(1, 6)),
    ]


def test_a_real_keras_file_shows_its_layers_and_channels_that_are_dead(real_files: Path) -> None:
    import h5py

    path = real_files / "gender_mini_XCEPTION.21-0.95.hdf5"
    seen = look(path)
    assert len(seen.batch_norms) == 14
    assert {one.statistics for one in seen.batch_norms} == {"moving"}
    assert seen.batch_norms[0].behind == "Conv2D conv2d_1"
    dead = 0
    with h5py.File(path) as file:
        weights = file["model_weights"]
        for name in weights:
            if name.startswith("batch_normalization"):
                dead += int((np.asarray(weights[name][f"{name}/moving_variance:0"]) < 1e-10).sum())
    (suspicion,) = seen.suspicions
    assert suspicion.about == ("batch_normalization_1",)
    assert suspicion.says.startswith(f"{dead} channels in 1 of 14 batch norms have a variance below 1e-10: ")


def test_a_network_without_batch_norms_has_none(real_files: Path) -> None:
    seen = look(real_files / "fc-layers.pb")
    assert (seen.batch_norms, seen.mode_inputs, seen.suspicions) == ((), (), ())
    assert [port.name for port in (*seen.inputs, *seen.outputs)] == ["X:0", "output:0"]
    assert seen.parameters == 269_322


MODELS = {
    "models/tf1_cond/frozen_v1.pb": (["hidden1/bn", "hidden2/bn"], "switched", ["phase_train:0"]),
    "models/tf1_cond/frozen_v2.pb": (["hidden1/bn", "hidden2/bn"], "switched", ["phase_train:0"]),
    "models/tf1_cond/v1": (["hidden1/bn", "hidden2/bn"], "switched", ["phase_train:0"]),
    "models/tf1_cond/v2/model.ckpt-540": (["hidden1/bn", "hidden2/bn"], "switched", ["phase_train:0"]),
    "models/tf1_batch_statistics": (["input_norm", "layer1", "layer2"], "batch", []),
    "models/tf1_layers/frozen.pb": (
        ["fc1/batch_norm", "fc2/batch_norm", "fc3/batch_norm"],
        "switched",
        ["is_training:0"],
    ),
    "models/keras_depthwise/saved_model": (
        [f"depthwise_digits_1/{name}_1" for name in ("image_bn", "stem_bn", "dw_bn", "pw_bn", "sep1_bn", "sep2_bn")],
        "moving",
        [],
    ),
}


@pytest.mark.parametrize(("name", "expected"), MODELS.items(), ids=MODELS)
def test_trained_programs_show_what_their_scripts_wrote(
    repository: Path, name: str, expected: tuple[list[str], str, list[str]]
) -> None:
    seen = look(repository / name)
    assert [one.name for one in seen.batch_norms] == expected[0]
    assert {one.statistics for one in seen.batch_norms} == {expected[1]}
    assert {one.epsilon for one in seen.batch_norms} == {0.001}
    assert [mode.name for mode in seen.mode_inputs] == expected[2]
    count = len(expected[0])
    said = f"{count} of {count} batch norms normalise with the statistics of each batch: the graph is in training mode "
    in_training = [one.says for one in seen.suspicions if "training mode" in one.says]
    assert in_training == ([f"{said}there"] if expected[1] == "batch" else [])


def test_weights_without_names_are_not_taken_for_batch_norms(repository: Path) -> None:
    seen = look(repository / "models/keras_dense/tuned.weights.h5")
    assert (seen.batch_norms, seen.inputs, seen.outputs) == ((), (), ())
    assert seen.open_questions == (
        "It holds weights only: --architecture or --builder says at the conversion what they belong to.",
        "Its weights are numbered, not named: which of them belong to batch norms is in the architecture.",
    )


def test_statistics_are_diagnosed() -> None:
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    healthy = Vectors("healthy", ones, zeros, ones, 2 * ones)
    fresh = Vectors("fresh", ones, zeros, zeros, ones)
    broken = Vectors("broken", ones, np.array([0, np.nan, 0, 0]), ones, ones)
    negative = Vectors("negative", ones, zeros, ones, np.array([1, -1e-9, 1, 1]))
    dead = Vectors("dead", ones, zeros, ones, np.array([1, 0, 1e-11, 1]))
    assert diagnosed([healthy]) == ()
    assert diagnosed([Vectors("nothing known")]) == ()
    found = diagnosed([healthy, fresh, broken, negative, dead])
    assert [(one.about, one.says.partition(":")[0]) for one in found] == [
        (("broken", "negative"), "2 of 5 batch norms hold NaN, infinity or a negative variance"),
        (("fresh",), "1 of 5 batch norms have mean 0 and variance 1 in every channel"),
        (("dead",), "2 channels in 1 of 5 batch norms have a variance below 1e-10"),
    ]


@pytest.mark.parametrize("name", ["models/tf1_cond/frozen_v1.pb", "models/tf1_cond/v1/model.ckpt-540.meta"])
def test_a_graph_that_reads_what_is_not_there_is_damaged(repository: Path, tmp_path: Path, name: str) -> None:
    content = (repository / name).read_bytes().replace(b"hidden1/bn/batchnorm/Rsqrt", b"hidden1/bn/batchnorm/Rsqrx", 1)
    path = tmp_path / Path(name).name
    path.write_bytes(content)
    with pytest.raises(CorruptModelError, match=r"which is not in the graph$"):
        look(path)


def test_a_checkpoint_that_breaks_off_is_damaged(repository: Path, tmp_path: Path) -> None:
    source = repository / "models" / "tf1_layers"
    for file in source.glob("model.ckpt-902.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert look(tmp_path / "model.ckpt-902").suspicions == look(source / "model.ckpt-902").suspicions
    values = tmp_path / "model.ckpt-902.data-00000-of-00001"
    values.write_bytes(values.read_bytes()[:1000])
    with pytest.raises(CorruptModelError) as caught:
        look(tmp_path / "model.ckpt-902")
    assert (
        str(caught.value) == "model.ckpt-902.data-00000-of-00001 ends before the values of fc1/batch_norm/moving_mean"
    )
    index = tmp_path / "model.ckpt-902.index"
    whole = index.read_bytes()
    draw = random.Random(11)
    for _ in range(300):
        content = bytearray(whole if draw.random() < 0.8 else whole[: draw.randrange(len(whole))])
        for _flip in range(draw.choice((0, 1, 3))):
            if content:
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        index.write_bytes(content)
        with contextlib.suppress(BnfoldError, OSError):
            open_bundle(tmp_path / "model.ckpt-902")


FLIPPED = [*(name for name in MODELS if name.endswith(".pb")), "models/keras_dense/tuned.keras",
    "models/tf_keras_dense/phase1.h5", "models/tf1_cond/v2/model.ckpt-540.meta"]  # fmt: skip


@pytest.mark.parametrize("name", FLIPPED)
def test_a_damaged_file_is_described_or_refused_and_nothing_else(repository: Path, tmp_path: Path, name: str) -> None:
    whole = (repository / name).read_bytes()
    path = tmp_path / Path(name).name
    draw = random.Random(7)
    refused = 0
    for _ in range(120):
        content = bytearray(whole[: draw.randrange(len(whole))] if draw.random() < 0.2 else whole)
        for _flip in range(draw.choice((1, 2, 20))):
            if content:
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            if sniff(path) is not Format.ONNX:
                look(path)
        except (BnfoldError, OSError):
            refused += 1
    assert refused > 0


@pytest.mark.tensorflow
class TestAgainstTensorFlow:
    """What TensorFlow itself reads and writes."""

    def test_constants_are_read_as_tensorflow_reads_them(self, repository: Path, tmp_path: Path) -> None:
        import tensorflow as tf

        graph = tf.Graph()
        draw = np.random.default_rng(5)
        with graph.as_default():
            for dtype in (
                "float16",
                "float32",
                "float64",
                "int8",
                "uint8",
                "int16",
                "uint16",
                "int32",
                "int64",
                "bool",
            ):
                for shape in ((), (1,), (3,), (2, 3), (0,), (4, 1, 2)):
                    tf.constant(draw.normal(size=shape).astype(dtype), name=f"{dtype}_{len(shape)}")
                    tf.constant(np.ones(shape, dtype))
                    tf.compat.v1.constant(1, dtype=dtype, shape=shape) if dtype != "bool" else None
        graphs = [graph.as_graph_def()]
        names = ("models/tf1_cond/frozen_v1.pb", "models/tf1_layers/frozen.pb")
        graphs += [tf.compat.v1.GraphDef.FromString((repository / name).read_bytes()) for name in names]
        compared = 0
        for theirs in graphs:
            path = tmp_path / "graph.pb"
            path.write_bytes(theirs.SerializeToString())
            ours = read_graph(path, "Graph")
            for one, other in zip(theirs.node, ours.node, strict=True):
                if one.op == "Const" and one.attr["dtype"].type != tf.string.as_datatype_enum:
                    expected = tf.make_ndarray(one.attr["value"].tensor)
                    value = array_of(other.attr["value"].tensor)
                    assert value is not None
                    assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
                    np.testing.assert_array_equal(value, expected)
                    compared += 1
        assert compared > 150

    @pytest.mark.parametrize(
        "name",
        [
            "models/tf1_cond/v1/model.ckpt-540",
            "models/tf1_cond/v2/model.ckpt-540",
            "models/tf1_layers/model.ckpt-902",
            "models/tf1_batch_statistics/my_net.ckpt",
            "models/keras_depthwise/saved_model/variables/variables",
        ],
    )
    def test_checkpoints_are_read_as_tensorflow_reads_them(self, repository: Path, name: str) -> None:
        import tensorflow as tf

        theirs, ours = tf.train.load_checkpoint(str(repository / name)), open_bundle(repository / name)
        assert set(ours.entries) == set(theirs.get_variable_to_shape_map())
        compared = 0
        for key in ours.entries:
            value = ours.read(key)
            if value is not None:
                np.testing.assert_array_equal(value, theirs.get_tensor(key))
                compared += 1
        assert compared > 10

    def test_statistics_that_no_update_ever_reached_are_seen_in_a_checkpoint(self, tmp_path: Path) -> None:
        import tensorflow as tf

        v1 = tf.compat.v1
        graph = tf.Graph()
        with graph.as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None, 3], name="x")
            for name, mean in (("one", 0.0), ("two", 0.25)):
                with v1.variable_scope(name):
                    made = [
                        v1.get_variable(key, initializer=tf.fill([3], value), use_resource=False)
                        for key, value in (
                            ("moving_mean", mean),
                            ("moving_variance", 1.0),
                            ("gamma", 2.0),
                            ("beta", 0.0),
                        )
                    ]
                    x = v1.nn.batch_normalization(x, made[0], made[1], made[3], made[2], 1e-3)
            v1.identity(v1.matmul(x, tf.ones([3, 2])), name="logits")
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(tmp_path / "net.ckpt"))
        seen = look(tmp_path / "net.ckpt")
        assert [(one.name, one.channels, one.statistics) for one in seen.batch_norms] == [
            ("one", 3, "moving"),
            ("two", 3, "moving"),
        ]
        assert [(one.about, one.says) for one in seen.suspicions] == [
            (
                ("one",),
                "1 of 2 batch norms have mean 0 and variance 1 in every channel: their statistics were never updated",
            )
        ]

    def test_graphs_as_text_and_the_ways_to_be_in_training_mode(self, tmp_path: Path) -> None:
        import tensorflow as tf

        v1 = tf.compat.v1
        graph = tf.Graph()
        with graph.as_default():
            x = v1.placeholder(tf.float32, [None, 8, 8, 3], name="image")
            train = v1.placeholder_with_default(input=True, shape=[], name="train")
            ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
            h = tf.nn.conv2d(x, tf.constant(np.ones((3, 3, 3, 4)), tf.float32), 1, "SAME", name="conv")
            kept = v1.nn.fused_batch_norm(
                h, ones, zeros, ones, 2 * ones, is_training=False, name="bn_kept/FusedBatchNormV3"
            )[0]
            batch = v1.nn.fused_batch_norm(kept, ones + 1, zeros, is_training=True, name="bn_batch/FusedBatchNormV3")[0]
            mean, variance = tf.nn.moments(batch, [3], keepdims=True)
            layer_norm = (batch - mean) * tf.math.rsqrt(variance + 1e-5)
            dropped = tf.cond(train, lambda: layer_norm * 2.0, lambda: layer_norm)
            tf.reshape(dropped, [-1, 256], name="flat")
            v1.matmul(graph.get_tensor_by_name("flat:0"), tf.ones([256, 2]), name="logits")
        binary, text = tmp_path / "net.pb", tmp_path / "net.pbtxt"
        binary.write_bytes(graph.as_graph_def().SerializeToString())
        text.write_text(str(graph.as_graph_def()))
        for path, kind in ((binary, "frozen-graph"), (text, "frozen-graph-text")):
            seen = look(path)
            assert seen.format == kind
            assert [(one.name, one.channels, one.statistics) for one in seen.batch_norms] == [
                ("bn_kept", 4, "moving"),
                ("bn_batch", 4, "batch"),
            ]
            assert seen.batch_norms[0].behind == "Conv2D conv"
            assert [port.name for port in (*seen.inputs, *seen.outputs)] == ["image:0", "logits:0"]
            assert [(mode.name, mode.default) for mode in seen.mode_inputs] == [("train:0", "True")]
            assert [one.about for one in seen.suspicions] == [("bn_batch",)]
