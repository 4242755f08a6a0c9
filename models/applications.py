"""The networks of keras.applications as a proving ground: every one in three containers, converted and proven.

Each network is built without weights and then given what training leaves: the statistics of its batch norms are those
that images have inside it, gammas and betas are drawn. It is saved as ``.keras``, ``.h5`` and SavedModel, each is
converted by the command line and compared with Keras, and every batch norm is accounted for.

``python models/applications.py`` goes through what is not done yet, prints the table, and fails if something is not as
it should be. ``--fresh`` forgets what was done, ``--write`` puts the table into docs/applications.md, and names of
networks restrict it to them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

HERE = Path(__file__).parent
ROOT = HERE.parent
WORK = ROOT / ".zoo"
PAGE = ROOT / "docs" / "applications.md"
CONTAINERS = (".keras", ".h5", "SavedModel")


@dataclass(frozen=True)
class Network:
    """One network: how large its images are, and which batch norms cannot fold.

    ``kept`` counts them by reason, ``why`` is the algebra behind it.
    """

    name: str
    side: int = 96
    kept: dict[str, int] = field(default_factory=dict)
    why: str = ""


NETWORKS = (
    Network("ResNet50"),
    Network(
        "ResNet50V2",
        kept={"padded-shift": 1},
        why="conv2_block1_preact_bn stands behind the first pooling, which pads with zeros. In front of the padding "
        "its shift would have to be added to the zeros too; behind it stands a ReLU, which its shift cannot pass.",
    ),
    Network("MobileNet"),
    Network("MobileNetV2"),
    Network("MobileNetV3Small"),
    Network("EfficientNetB0"),
    Network("EfficientNetV2B0"),
    Network(
        "DenseNet121",
        kept={"used-elsewhere": 59},
        why="Every layer of a block normalises all features that the layers before it made, so a feature is read by "
        "many batch norms, each with a ReLU behind it. A feature has one constant to give and one of them can have it; "
        "the others stay, and everything else folds.",
    ),
    Network("InceptionV3"),
    Network("Xception"),
    Network("NASNetMobile"),
)


def build(network: Network, folder: Path) -> int:
    """Save a network in every container; return how many batch norms it has."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(1)
    shape = (network.side, network.side, 3)
    model = getattr(keras.applications, network.name)(weights=None, input_shape=shape, classes=10)
    random = np.random.default_rng(1)
    # Smooth images, as photographs are: neighbouring pixels are alike.
    small = random.uniform(0, 255, size=(8, 12, 12, 3)).astype("float32")
    images = keras.ops.image.resize(small, shape[:2], interpolation="bicubic")
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        if layer.scale:
            layer.gamma.assign(random.uniform(0.6, 1.4, size=layer.gamma.shape))
        if layer.center:
            layer.beta.assign(random.normal(0, 0.2, size=layer.beta.shape))
        layer.momentum = 0.0
    model(images, training=True)
    for layer in norms:
        layer.momentum = 0.99
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            layer.adapt(np.asarray(images))
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    (folder / "batch_norms").write_text(str(len(norms)), "ascii")
    model.export(folder / "SavedModel", verbose=False)
    return len(norms)


def path_of(network: Network, container: str) -> Path:
    """Return where a network is in one container."""
    return WORK / network.name / (container if container == "SavedModel" else f"model{container}")


def row_of(network: Network, container: str) -> dict:
    """Convert a network, and return what came of it."""
    report, output = WORK / network.name / "report.json", WORK / network.name / "out.onnx"
    for path in (report, output):
        path.unlink(missing_ok=True)
    started = perf_counter()
    command = [sys.executable, "-m", "bnfold", "convert", str(path_of(network, container)), "-o", str(output)]
    done = subprocess.run(  # noqa: S603 - our own command line
        [*command, "--report", str(report), "--verify", "full"], capture_output=True, text=True, check=False
    )
    row = {"network": network.name, "container": container, "status": done.returncode}
    row["built"] = int((WORK / network.name / "batch_norms").read_text("ascii"))
    row["seconds"] = round(perf_counter() - started, 1)
    if not report.exists():
        return row | {"verdict": "refused", "said": done.stderr.strip()[-600:]}
    told = json.loads(report.read_text("utf-8"))
    kept = Counter(norm["kept"]["reason"] for norm in told["batch_norms"] if norm["kept"])
    return row | {
        "verdict": told["verdict"],
        "said": done.stderr.strip()[-600:] if done.returncode else told["reason"],
        "batch_norms": len(told["batch_norms"]),
        "folded": sum(norm["outcome"] == "folded" for norm in told["batch_norms"]),
        "kept": dict(kept),
        "names": sorted(norm["name"] for norm in told["batch_norms"] if norm["outcome"] != "folded"),
        "nodes": [told["before"]["nodes"], told["after"]["nodes"]],
        "steps": {step["step"]: round(step["seconds"], 1) for step in told["timings"]},
    }


def done_with(network: Network, container: str) -> dict:
    """Build a network where that is not done yet, convert it, and return what came of it."""
    if not (WORK / network.name / "SavedModel").exists():
        command = [sys.executable, __file__, "--build", network.name]
        output = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet())  # noqa: S603 - itself
        if output.returncode:
            raise SystemExit(f"{network.name} could not be built:\n{output.stderr[-2000:]}")
    return row_of(network, container)


def wrong_with(network: Network, row: dict) -> str:
    """Return what is not as it should be; empty where everything is."""
    if row["status"] or row["verdict"] not in ("pass", "pass-more-accurate"):
        return f"{row['verdict']}: {row['said']}"
    if row["batch_norms"] != row["built"]:
        return f"{row['batch_norms']} batch norms arrived, of {row['built']}"
    if row["kept"] != network.kept:
        return f"kept {row['kept']}, expected {network.kept}"
    return ""


def page(rows: list[dict]) -> str:
    """Return the table as a page."""
    lines = [
        "# The networks of keras.applications",
        "",
        "Made by `make zoo`. Each network was built without weights, given the statistics that images have inside it,",
        "saved in three containers, converted, and compared with the original, run by its own framework on images of",
        "the size given, with `--verify full`. Every batch norm of every network is in the table: it folded, or it is",
        "kept for the reason given. `pass-more-accurate` says that the folded model is nearer to the float64 reference",
        "than the original is.",
        "",
        "| network | images | container | batch norms | folded | kept | nodes | verdict |",
        "|---|---|---|---:|---:|---|---:|---|",
    ]
    for row in rows:
        network = next(one for one in NETWORKS if one.name == row["network"])
        kept = ", ".join(f"{count} × {reason}" for reason, count in sorted(row.get("kept", {}).items())) or "–"
        nodes = " → ".join(map(str, row.get("nodes", ["–"])))
        cells = (row["network"], f"{network.side}²", row["container"], row.get("batch_norms", "–"),
            row.get("folded", "–"), kept, nodes, row["verdict"])  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    reasons = [
        f"- **{one.name}**: {one.why}" for one in NETWORKS if one.why and any(r["network"] == one.name for r in rows)
    ]
    if reasons:
        lines += ["", "Why batch norms stay:", "", *reasons]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Do what is left to do and print the table; return the exit code."""
    known = {network.name: network for network in NETWORKS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(known))
    parser.add_argument("--container", action="append", choices=CONTAINERS, help="only this one; may be repeated")
    parser.add_argument("--fresh", action="store_true", help="forget what was done before")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--build", metavar="NETWORK", choices=known, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.build:
        print(build(known[told.build], WORK / told.build))
        return 0
    unknown = sorted(set(told.networks) - set(known))
    if unknown:
        parser.error(f"no such network: {', '.join(unknown)}; there are {', '.join(known)}")
    if told.fresh:
        shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(exist_ok=True)
    (WORK / ".gitignore").write_text("*\n", "utf-8")
    done = WORK / "done.jsonl"
    rows = [json.loads(line) for line in done.read_text("utf-8").splitlines()] if done.exists() else []
    wrong = 0
    for network in (known[name] for name in told.networks or known):
        for container in told.container or CONTAINERS:
            row = next((r for r in rows if (r["network"], r["container"]) == (network.name, container)), None)
            if row is None:
                row = done_with(network, container)
                rows.append(row)
                with done.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            problem = wrong_with(network, row)
            wrong += bool(problem)
            counts = f"{row.get('folded', 0)} of {row.get('batch_norms', 0)} folded"
            said = problem or "as expected"
            print(f"{network.name:18} {container:11} {row['seconds']:6} s  {counts:18} {said}", flush=True)
        shutil.rmtree(WORK / network.name, ignore_errors=True)  # much, and made again when it is needed
    order = {name: at for at, name in enumerate(known)}
    rows.sort(key=lambda row: (order[row["network"]], CONTAINERS.index(row["container"])))
    if told.write:
        PAGE.write_text(page(rows), "utf-8")
    return 1 if wrong else 0


def quiet() -> dict[str, str]:
    """Return an environment in which TensorFlow says little and uses no accelerator."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}


if __name__ == "__main__":
    sys.exit(main())
