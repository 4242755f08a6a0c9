"""The command line: parse, call, print, exit code."""

from __future__ import annotations

import gc
import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the program on the command line of this process, and leave with its exit code."""
    # Before the commands are read, and after they have ended, nothing is to be cleaned up: Ctrl-C ends the process.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A short run makes many objects that stay and hardly a ring of them: looking for rings that often is a tenth of it.
    gc.set_threshold(50_000, 20, 20)
    from bnfold.cli.root import run

    sys.exit(run(sys.argv[1:]))
