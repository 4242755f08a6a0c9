"""The service's threads share the places that they take memory from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Each thread holds memory of its own while all of them are there, and then the C library counts its places.
COUNT = """
import ctypes, sys, threading
from service.memory import take_little
if sys.argv[2] == "few":
    take_little()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
meet = threading.Barrier(13)
def hold():
    assert library.malloc(1000)
    meet.wait(60)
crew = [threading.Thread(target=hold) for _ in range(12)]
for one in crew:
    one.start()
meet.wait(60)
library.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(library.fopen(sys.argv[1].encode(), b"w"))
assert library.malloc_info(0, file) == 0
library.fclose(file)
"""


def _places(path: Path, how: str) -> int:
    subprocess.run(
        [sys.executable, "-c", COUNT, str(path), how], cwd=Path(__file__).parents[2], check=True, timeout=180
    )
    return path.read_text().count("<heap nr=")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's C library is told")
def test_threads_take_memory_from_few_places(tmp_path: Path) -> None:
    assert _places(tmp_path / "few.xml", "few") <= 2
    assert _places(tmp_path / "many.xml", "many") > 2  # else there is nothing to be told any more
