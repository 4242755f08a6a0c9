"""Names that a caller gives for inputs and outputs: found, or answered with the nearest ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from bnfold.errors import SignatureError

__all__ = ["listed", "nearest", "require_known", "unknown_name"]

_LISTED = 8


def nearest(name: str, candidates: Iterable[str], *, most: int = 3) -> list[str]:
    """Return the candidates that are spelt most like a name, the nearest first.

    A tensor's port (``:0``) and the scopes in front of it (``model/``) are forgiven, as is the case of letters.
    """
    known = list(dict.fromkeys(candidates))
    simple: dict[str, list[str]] = {}
    for candidate in known:
        for form in dict.fromkeys((_simple(candidate), _simple(candidate).rpartition("/")[2])):
            simple.setdefault(form, []).append(candidate)
    close = difflib.get_close_matches(_simple(name), simple, n=most, cutoff=0.6)
    if not close:
        close = difflib.get_close_matches(_simple(name).rpartition("/")[2], simple, n=most, cutoff=0.6)
    return list(dict.fromkeys(candidate for form in close for candidate in simple[form]))[:most]


def unknown_name(what: str, name: str, candidates: Sequence[str], *, option: str = "") -> SignatureError:
    """Return the error for a name that does not exist, with what to write instead.

    Args:
        what: What it should have been, for example ``"output"`` or ``"value"``.
        name: The name that was given.
        candidates: The names there are, the most likely first.
        option: The option that it was given with, for the example in the hint.
    """
    close = nearest(name, candidates)
    count = f"{len(candidates)} {what}{'' if len(candidates) == 1 else 's'}"
    message = f"there is no {what} '{name}' among {count}"
    if len(candidates) <= _LISTED:
        message = f"there is no {what} '{name}'; there {'is' if len(candidates) == 1 else 'are'} {listed(candidates)}"
    if close:
        example = f" {option} {close[0]}" if option else f" {close[0]}"
        others = f" (or {', '.join(close[1:])})" if close[1:] else ""
        return SignatureError(message, hint=f"Did you mean{example}?{others}")
    return SignatureError(message, hint="Look up the names with: bnfold inspect")


def require_known(what: str, names: Iterable[str], candidates: Sequence[str], *, option: str = "") -> None:
    """Raise the error for the first name that is none of the candidates, or is given twice.

    Raises:
        SignatureError: Naming the nearest candidates.
    """
    known, seen = set(candidates), set[str]()
    for name in names:
        if name not in known:
            raise unknown_name(what, name, candidates, option=option)
        if name in seen:
            raise SignatureError(f"{what} '{name}' is named twice", hint="Name each one once.")
        seen.add(name)


def listed(names: Sequence[str]) -> str:
    """Return names as a list for people, cut where it gets long."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) + more) if names else "none"


def _simple(name: str) -> str:
    return name.rpartition(":")[0].lower() if name.rpartition(":")[2].isdigit() and ":" in name else name.lower()
