"""The command line: parse, call, print, exit code."""

from bnfold.cli.root import main

__all__ = ["main"]
