"""The filter decides as it should about every call of both machines, run here as the kernel would run it."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from service.sandbox.seccomp import Instruction, filter_program
from service.sandbox.syscalls import LAST_KNOWN, MACHINES, Calls

OWN = 4711
KILL, ALLOW = "kill", "allow"
THREAD, NAMESPACE = 0x00010000, 0x10000000
BOTH = pytest.mark.parametrize("machine", ["x86_64", "aarch64"])

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def decision(program: list[Instruction], number: int, *arguments: int, architecture: int) -> str:
    """Run a filter on one call, by the rules of the classic packet filter."""
    words = {0: number & 0xFFFFFFFF, 4: architecture}
    for position in range(6):
        value = arguments[position] if position < len(arguments) else 0
        words[16 + 8 * position], words[20 + 8 * position] = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    taken, at = 0, 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        match code:
            case 0x20:
                taken = words[operand]
            case 0x06:
                return _said(operand)
            case 0x15 | 0x35 | 0x25 | 0x45:
                held = {
                    0x15: taken == operand,
                    0x35: taken >= operand,
                    0x25: taken > operand,
                    0x45: bool(taken & operand),
                }
                at += if_true if held[code] else if_false
            case _:
                raise AssertionError(f"{code:#x} is no instruction that is used")


def _said(result: int) -> str:
    kind, value = result & 0xFFFF0000, result & 0xFFFF
    return {0x80000000: KILL, 0x7FFF0000: ALLOW}.get(kind) or errno.errorcode[value]


def decide(machine: str, number: int, *arguments: int) -> str:
    calls = MACHINES[machine]
    return decision(filter_program(calls, OWN), number, *arguments, architecture=calls.architecture)


def _numbers(calls: Calls) -> dict[str, int]:
    return {**calls.allowed, **calls.weighed, **calls.attributes}


@BOTH
def test_what_is_listed_is_allowed_and_all_else_is_not(machine: str) -> None:
    calls = MACHINES[machine]
    for number in range(LAST_KNOWN + 100):
        said = decide(machine, number)
        if number in calls.allowed.values():
            assert said == ALLOW, number
        elif number in calls.attributes.values():
            assert said == errno.errorcode[errno.EOPNOTSUPP], number
        elif number not in calls.weighed.values():
            assert said == ("EPERM" if number <= LAST_KNOWN else "ENOSYS"), number


@BOTH
def test_only_threads_are_started(machine: str) -> None:
    clone = MACHINES[machine].weighed["clone"]
    assert decide(machine, clone, THREAD | 0x3D0F00) == ALLOW
    assert decide(machine, clone, 17) == "EPERM"
    assert decide(machine, clone, NAMESPACE | 17) == "EPERM"
    assert decide(machine, clone, THREAD << 32) == "EPERM"
    assert decide(machine, MACHINES[machine].weighed["clone3"], THREAD) == "ENOSYS"


@BOTH
def test_only_the_process_itself_is_signalled_and_limited(machine: str) -> None:
    calls = MACHINES[machine].weighed
    for name in ("kill", "tgkill"):
        assert decide(machine, calls[name], OWN) == ALLOW
        for other in (0, 1, OWN + 1, 2**32 - 1, 2**64 - 1):
            assert decide(machine, calls[name], other) == "EPERM"
    assert decide(machine, calls["prlimit64"], 0) == decide(machine, calls["prlimit64"], OWN) == ALLOW
    assert decide(machine, calls["prlimit64"], 1) == "EPERM"


@BOTH
def test_some_questions_about_the_process_are_answered(machine: str) -> None:
    calls = MACHINES[machine].weighed
    assert decide(machine, calls["prctl"], 15) == ALLOW  # the name of a thread
    for option in (1, 4, 8, 22, 24, 28, 35, 36, 47, 52):
        assert decide(machine, calls["prctl"], option) == "EINVAL", option
    assert decide(machine, calls["ioctl"], 0, 0x5401) == ALLOW  # whether it is a terminal
    for request in (0x5412, 0x541C, 0x8901, 0x8902, 0x5452, 0x40049409):
        assert decide(machine, calls["ioctl"], 0, request) == "ENOTTY", request
    assert decide(machine, calls["fcntl"], 0, 3) == ALLOW
    for request in (8, 10, 15, 1026):
        assert decide(machine, calls["fcntl"], 0, request) == "EINVAL", request
    assert decide(machine, calls["seccomp"]) == "EPERM"


def test_calls_of_other_machines_end_the_process() -> None:
    program = filter_program(MACHINES["x86_64"], OWN)
    assert decision(program, 39, architecture=0x40000003) == KILL  # 32 bits
    assert decision(program, 39, architecture=MACHINES["aarch64"].architecture) == KILL
    for number in (39, 0, 0x3FFFFFFF):
        assert decide("x86_64", 0x40000000 | number) == KILL  # x32
        assert decide("x86_64", 0x80000000 | number) == KILL
    assert decide("x86_64", -1) == KILL


@BOTH
def test_the_filter_is_one_that_the_kernel_takes(machine: str) -> None:
    program = filter_program(MACHINES[machine], OWN)
    assert len(program) < 4096
    for at, (code, if_true, if_false, operand) in enumerate(program):
        assert 0 <= operand < 2**32
        assert max(if_true, if_false) < 256
        assert at + 1 + max(if_true, if_false) < len(program) or code == 0x06
    assert program[-1][0] == 0x06


@BOTH
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    text = header.read_text("ascii")
    told = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    told.setdefault("newfstatat", told.get("fstatat", -1))
    known = {name: number for name, number in _numbers(MACHINES[machine]).items() if name in told}
    assert len(known) > 120
    assert known == {name: told[name] for name in known}
    assert max(known.values()) <= LAST_KNOWN


def test_both_machines_allow_the_same() -> None:
    first, second = (set(_numbers(MACHINES[machine])) for machine in ("x86_64", "aarch64"))
    # Those that newer machines never had: each of them has a successor that both have.
    assert second - first == set()
    assert first - second == {
        "open", "stat", "lstat", "poll", "access", "pipe", "select", "dup2", "pause", "alarm", "getdents", "rename",
        "mkdir", "rmdir", "creat", "unlink", "readlink", "getpgrp", "arch_prctl", "time", "epoll_create", "epoll_wait",
        "eventfd",
    }  # fmt: skip
