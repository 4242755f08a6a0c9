"""What holds for every test: quiet frameworks, the same hypothesis examples in every run, real files where they are."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# Read by TensorFlow when it is first imported: no accelerator, no log lines, and the same arithmetic on every CPU.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# Read by onnxruntime when it is first imported: without it, a test run reports to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A shell starts what it runs in the background deaf to Ctrl-C, and the programs that tests stop would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("bnfold", derandomize=True, deadline=None, database=None)
# Other examples every night, and many: HYPOTHESIS_PROFILE=nightly make test
hypothesis.settings.register_profile("nightly", max_examples=5000, deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "bnfold"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_files(repository: Path) -> Path:
    """The folder of real files that others made, which lies beside the repository; without it the test is skipped."""
    folder = repository.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder of real files is not here")
    return folder
