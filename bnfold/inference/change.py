"""What was done to put a model in inference mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Change", "named"]

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was done to put a model in inference mode, with the evidence for it.

    Attributes:
        kind: ``"switch"`` (an input or a condition was pinned), ``"dropout"`` or ``"training-mode"`` (an attribute was
            flipped).
        name: The input or node it was done to.
        before: What it was, for example ``"bool input"``.
        after: What it is now, for example ``"False"``.
        proof: Why that is inference, in one line with numbers. May be empty.
    """

    kind: str
    name: str
    before: str
    after: str
    proof: str = ""


def named(names: Sequence[str]) -> str:
    """Return names for a message, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + more
