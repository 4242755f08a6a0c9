"""``python -m service key``: make a key, and the entry that stands for it in the file of keys."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from service.access.keys import entry, is_tenant, new_key
from service.callers import SCOPES

__all__ = ["issue"]

_NAME = re.compile(r"[A-Za-z0-9._ @:+-]{0,100}")


def issue(arguments: Sequence[str]) -> int:
    """Print the entry on standard output, the key on standard error, and return the exit code.

    So ``python -m service key --tenant T >> keys.toml`` shows the key once, and writes it nowhere.
    """
    parser = argparse.ArgumentParser(
        prog="python -m service key",
        description="Make an API key. The entry for the file of keys is printed on standard output, "
        "the key itself on standard error: it is not kept anywhere.",
        epilog="For example: python -m service key --tenant team-a --scopes fold,infer >> keys.toml",
    )
    parser.add_argument("--tenant", required=True, metavar="T", help="whose models and jobs it sees")
    parser.add_argument(
        "--scopes",
        default="fold,infer,read",
        metavar="A,B",
        help=f"what it may do, of {', '.join(SCOPES)}; the default is %(default)s",
    )
    parser.add_argument("--name", default="", metavar="N", help="what it is called in the log")
    told = parser.parse_args(arguments)
    scopes = [scope.strip() for scope in told.scopes.split(",") if scope.strip()]
    if not is_tenant(told.tenant):
        parser.error(f"{told.tenant!r} is no tenant: take 1 to 64 letters, digits and any of . _ @ : + -")
    if not scopes or not set(scopes) <= set(SCOPES):
        parser.error(f"--scopes {told.scopes}: take some of {', '.join(SCOPES)}, separated by commas")
    if _NAME.fullmatch(told.name) is None:
        parser.error(f"{told.name!r} is no name: take up to 100 letters, digits, spaces and any of . _ @ : + -")
    key = new_key()
    sys.stdout.write(f"\n{entry(key, told.tenant, scopes, told.name)}")
    sys.stdout.flush()
    sys.stderr.write(f"The key, which is shown only now: {key}\n")
    return 0
