"""A child that confines itself, and ends."""

from __future__ import annotations

import sys

from service.sandbox import confine

if __name__ == "__main__":
    confine(sys.argv[1:])
