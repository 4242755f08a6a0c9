"""Models for the tests of the page, and how a file is dropped on it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.service.server import post, wait_for

if TYPE_CHECKING:
    import httpx
    from playwright.sync_api import Page

__all__ = ["HOSTILE", "LONG", "drop", "every_kind", "hostile_model", "sent"]

HOSTILE = "<img src=x onerror=window.ran=1>"
LONG = "a_layer_with_a_name_that_goes_on_" * 8

_DROP = """([place, content, name]) => {
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const happens = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: carried });
    document.querySelector(place).dispatchEvent(happens);
  }
}"""
_KINDS = {
    "half": TensorProto.FLOAT16,
    "double": TensorProto.DOUBLE,
    "flag": TensorProto.BOOL,
    "small": TensorProto.INT8,
    "large": TensorProto.INT64,
    "unsigned": TensorProto.UINT32,
    "text": TensorProto.STRING,
}


def drop(page: Page, content: bytes, name: str, place: str = "#drop") -> None:
    """Drop a file as a person does with a mouse."""
    page.evaluate(_DROP, [place, base64.b64encode(content).decode("ascii"), name])


def sent(client: httpx.Client, content: bytes, name: str = "network.onnx", **fields: str) -> dict[str, Any]:
    """Fold a file without the page, however long it takes, and return its job, with its model or its error."""
    answer = post(client, content, name, **fields)
    body: dict[str, Any] = answer.json()
    if answer.status_code == 200:
        job = body["job"]
    elif answer.status_code == 202:
        job = body["id"]
    else:
        job = answer.headers["link"].partition(">")[0].rpartition("/")[2]

    def ended() -> Any:
        found = client.get(f"/jobs/{job}").json()
        return found if found["finished"] else None

    result: dict[str, Any] = wait_for(ended, 120)
    return result


def hostile_model() -> bytes:
    """Return a model all of whose names are markup that runs something; one of its two batch norms cannot be folded."""
    rng = np.random.default_rng(3)
    weights = {
        "w": rng.normal(size=(4, 3, 1, 1)),
        **{
            f"{name}{part}": rng.uniform(0.5, 1.5, size)
            for part, size in (("1", 4), ("2", 3))
            for name in ("g", "b", "m", "v")
        },
    }
    nodes = [
        helper.make_node("Conv", [HOSTILE, "w"], ["c"], name=f"conv{HOSTILE}"),
        helper.make_node("BatchNormalization", ["c", "g1", "b1", "m1", "v1"], [f"y{HOSTILE}"], name=f"folds{HOSTILE}"),
        helper.make_node("BatchNormalization", [HOSTILE, "g2", "b2", "m2", "v2"], ["n"], name=f"stays{HOSTILE}{LONG}"),
        helper.make_node("Relu", ["n"], ["z"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(HOSTILE, TensorProto.FLOAT, ["batch", 3, 2, 2])],
        [
            helper.make_tensor_value_info(f"y{HOSTILE}", TensorProto.FLOAT, ["batch", 4, 2, 2]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 3, 2, 2]),
        ],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return _written(graph)


def every_kind() -> bytes:
    """Return a model that answers what it is asked, with an input of each kind that a page has to write by itself."""
    return _written(
        helper.make_graph(
            [helper.make_node("Identity", [name], [f"{name}_out"]) for name in _KINDS],
            "g",
            [helper.make_tensor_value_info(name, kind, [3]) for name, kind in _KINDS.items()],
            [helper.make_tensor_value_info(f"{name}_out", kind, [3]) for name, kind in _KINDS.items()],
        )
    )


def _written(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content
