"""The files that every child needs, whatever it works on: the interpreter, libraries, and facts of the machine."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["CODE", "DEVICES", "FACTS", "libraries", "outermost"]

CODE = Path(__file__).resolve().parents[2]
"""The folder that ``service`` lies in. Only some of what is in it may be read: a store may lie there, too."""

_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/nix/store", "/gnu/store")
# Where libraries are, and what time it is. Not who has an account on the machine, or what else it is called.
_SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")

FACTS = tuple(
    map(
        Path,
        (
            "/sys/devices/system/cpu",
            "/sys/devices/system/node",
            "/proc/self",
            "/proc/cpuinfo",
            "/proc/meminfo",
            "/proc/stat",
            "/proc/filesystems",
            "/proc/sys/vm/overcommit_memory",
            "/proc/sys/kernel/cap_last_cap",
        ),
    )
)
"""What libraries ask about the processors, the memory and the process itself."""

DEVICES = tuple(map(Path, ("/dev/zero", "/dev/urandom", "/dev/random", "/sys/bus/pci/devices")))
"""What is there without namespaces, too: onnxruntime looks for graphics cards, and warns where it must not look."""


@functools.cache
def libraries() -> tuple[Path, ...]:
    """Return the folders and files that hold programs and libraries, each that exists, none inside another.

    Where a child finds its modules a child is asked: this process may look into further folders, such as the one that
    it was started in, and a store may lie there.
    """
    import subprocess

    import bnfold

    ask = [sys.executable, "-P", "-s", "-c", "import json, sys; print(json.dumps(sys.path))"]
    told = subprocess.run(ask, env=_bare(), stdin=subprocess.DEVNULL, capture_output=True, check=True)  # noqa: S603
    assert bnfold.__file__ is not None
    packages = [CODE / "service", Path(bnfold.__file__).resolve().parent]
    around = {folder.resolve() for package in packages for folder in package.parents}
    searched = [Path(entry) for entry in json.loads(told.stdout) if entry and Path(entry).resolve() not in around]
    loaded = [Path(entry) for entry in os.environ.get("LD_LIBRARY_PATH", "").split(":") if entry.startswith("/")]
    found = [*map(Path, _SYSTEM), *map(Path, (sys.prefix, sys.base_prefix)), *searched, *loaded, *packages]
    return tuple(outermost([*found, *map(Path, _SETTINGS)]))


def _bare() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that exist and lie in no other of them."""
    there = sorted({Path(os.path.abspath(path)) for path in paths if path.exists()})  # noqa: PTH100  (links stay)
    return [path for path in there if not any(other in path.parents for other in there)]
