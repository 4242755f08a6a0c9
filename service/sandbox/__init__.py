"""What keeps a foreign file from doing harm: each is read, and each model is run, in a child that may do very little.

Applied in this order, before anything heavy or foreign is touched: the child dies with the service, runs into limits,
gains no privileges, reaches only the files that it needs (Landlock), and may make only harmless calls of the system
(seccomp); around it, where the machine allows it, namespaces of its own (bubblewrap). ``docs/sandbox.md`` says more.
"""

from __future__ import annotations

from service.sandbox.confining import NOT_CONFINED, confine
from service.sandbox.levels import Choice, Level, choose, level_for
from service.sandbox.limits import Limits
from service.sandbox.starting import child_command, child_environment, ended

__all__ = [
    "NOT_CONFINED",
    "Choice",
    "Level",
    "Limits",
    "child_command",
    "child_environment",
    "choose",
    "confine",
    "ended",
    "level_for",
]
