"""A child that was taken over: it tries everything that a stranger's code would, and says what became of it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from service.sandbox import confine

Attempts = Iterator[tuple[str, Callable[[], object]]]
X86 = platform.machine() == "x86_64"
LIBC = ctypes.CDLL(None, use_errno=True)

# Calls that must not reach the kernel, on x86_64 and aarch64. All arguments are 0: none would do harm if it did.
RAW = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "sendmsg": (46, 211),
    "ptrace": (101, 117), "execve": (59, 221), "execveat": (322, 281), "clone3": (435, 435),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fspick": (433, 433),
    "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_setup": (206, 0),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "personality": (135, 92),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "kcmp": (312, 272), "process_madvise": (440, 440),
    "kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "fanotify_init": (300, 262),
    "inotify_init1": (294, 26), "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "swapon": (167, 224), "syslog": (103, 116),
    "sethostname": (170, 161), "settimeofday": (164, 170), "clock_settime": (227, 112), "acct": (163, 89),
    "quotactl": (179, 60), "setuid": (105, 146), "setgid": (106, 144), "setgroups": (116, 159), "capset": (126, 91),
    "truncate": (76, 45), "link": (265, 37), "symlink": (266, 36), "mknod": (259, 33), "chmod": (268, 53),
    "fchmod": (91, 52), "chown": (260, 54), "utime": (280, 88), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "setpriority": (141, 140),
    "ioprio_set": (251, 30), "splice": (275, 76), "vmsplice": (278, 75), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "seccomp": (317, 277), "sync": (162, 81),
}  # fmt: skip


def main() -> None:
    what, told = confine(sys.argv[1:])
    attempts: Callable[[dict[str, Any]], Attempts] = globals()[what]
    json.dump({name: _tried(attempt) for name, attempt in attempts(json.loads(told))}, sys.stdout)


def _tried(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except (subprocess.SubprocessError, ValueError) as error:  # the latter where a limit cannot be raised
        return str(error)
    return "done"


def files(told: dict[str, Any]) -> Attempts:
    """What lies outside of the child's folder, and what it must leave as it is."""
    outside, folder, service = Path(told["outside"]), Path(told["folder"]), told["service"]
    secret, marker = outside / "secret", outside / "marker"
    yield "read the sibling's secret", secret.read_bytes
    yield "list the sibling's folder", lambda: os.listdir(outside)  # noqa: PTH208
    yield "read it by a way around", (folder / "upload" / ".." / ".." / "outside" / "secret").read_bytes
    yield "read it through the service's root", Path(f"/proc/{service}/root{secret}").read_bytes
    yield "read it through its own root", Path(f"/proc/self/root{secret}").read_bytes
    yield "read the accounts", Path("/etc/passwd").read_bytes
    yield "read the passwords", Path("/etc/shadow").read_bytes
    yield "read the service's environment", Path(f"/proc/{service}/environ").read_bytes
    yield "read the service's command", Path(f"/proc/{service}/cmdline").read_bytes
    yield "read the service's memory", lambda: Path(f"/proc/{service}/mem").open("rb").close()
    yield "list the service's files", lambda: os.listdir(f"/proc/{service}/fd")  # noqa: PTH208
    yield "list the home", lambda: os.listdir("/root")  # noqa: PTH208
    yield "leave a marker", lambda: marker.write_bytes(b"x")
    yield "make a folder", marker.mkdir
    yield "append to the secret", lambda: secret.open("ab").close()
    yield "empty the secret", lambda: os.truncate(secret, 0)
    yield "remove the secret", secret.unlink
    yield "take the secret", lambda: secret.rename(folder / "out" / "secret")
    yield "link the secret", lambda: (folder / "out" / "secret").hardlink_to(secret)
    yield "open the secret to all", lambda: secret.chmod(0o777)
    yield "date the secret back", lambda: os.utime(secret, (0, 0))
    yield "make a nameless file outside", lambda: os.close(os.open(outside, os.O_TMPFILE | os.O_RDWR))
    yield "point to the secret", lambda: (folder / "out" / "model.onnx").symlink_to(secret)
    yield "leave a pipe", lambda: os.mkfifo(folder / "out" / "outcome.json")
    yield "leave a device", lambda: os.mknod(folder / "out" / "zero", 0o20666, os.makedev(1, 5))
    yield "change its orders", lambda: (folder / "job.json").write_text("[]", "ascii")
    yield "change the upload", lambda: (folder / "upload" / "model").write_text("x", "ascii")
    yield "put a file beside the upload", lambda: (folder / "upload" / "other").write_text("x", "ascii")
    yield "take the results' folder away", lambda: (folder / "out").rename(folder / "gone")
    yield "put a file beside the orders", lambda: (folder / "log").write_text("x", "ascii")
    for shared in ("/tmp", "/var/tmp", "/dev/shm", "/", "/dev", "/run"):
        yield f"write to {shared}", partial(_write_and_remove, Path(shared) / "bnfold-marker")
    yield "write to a program", lambda: Path(os.__file__).open("r+b").close()
    yield "write to the code", lambda: _write_and_remove(Path(__file__).parent / "bnfold-marker")
    yield "read the memory of the machine", lambda: Path("/dev/mem").open("rb").close()
    yield "change what the kernel does", lambda: Path("/proc/sys/kernel/core_pattern").open("r+b").close()
    yield "change its own memory", lambda: Path("/proc/self/mem").open("r+b").close()


def network(told: dict[str, Any]) -> Attempts:
    """Whatever leads to other programs and machines."""
    for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG"):
        if hasattr(socket, family):
            yield family, partial(_socket, getattr(socket, family))
    yield "socketpair", socket.socketpair
    yield "connect", lambda: socket.create_connection(("127.0.0.1", told["port"]), 10).close()


def processes(told: dict[str, Any]) -> Attempts:
    """Other processes: to make them, to stop them, to look into them."""
    service, other = told["service"], told["other"]
    yield "fork", _fork
    yield "vfork", lambda: os.posix_spawn("/bin/true", ["/bin/true"], {})
    yield "run a program", lambda: subprocess.run(["/bin/true"], check=True, timeout=30)
    yield "run a shell", lambda: _nonzero(os.system("true"))
    yield "replace itself", lambda: os.execv("/bin/sh", ["/bin/sh", "-c", "echo '{}'"])
    yield "ask whether the service is there", lambda: os.kill(service, 0)
    yield "stop the service", lambda: os.kill(service, signal.SIGCONT)
    yield "signal everybody", lambda: os.kill(-1, signal.SIGCONT)
    yield "signal its group", lambda: os.killpg(0, signal.SIGCONT)
    yield "have a file signal another", lambda: _signal_by_file(other)
    yield "raise its limits", lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    yield "lower another's limits", lambda: resource.prlimit(other, resource.RLIMIT_CORE, (0, 0))
    yield "outlive the service", lambda: _checked(LIBC.prctl(1, 0, 0, 0, 0))
    yield "regain privileges", lambda: _checked(LIBC.prctl(47, 2, 0, 0, 0))
    yield "become root", lambda: os.setresuid(0, 0, 0)
    yield "slow another down", lambda: os.setpriority(os.PRIO_PROCESS, other, 19)
    yield "pin another to a processor", lambda: os.sched_setaffinity(other, {0})
    yield "type on a terminal", lambda: fcntl.ioctl(0, 0x5412, b"x")


def forks(_told: dict[str, Any]) -> Attempts:
    """The least of them."""
    yield "fork", _fork


def raw(_told: dict[str, Any]) -> Attempts:
    """Calls of the system, past all libraries."""
    for name, numbers in RAW.items():
        number = numbers[0 if X86 else 1]
        yield name, partial(_called, number, 0, 0, 0, 0, 0, 0)
    if X86:
        for name, number in {"fork": 57, "vfork": 58}.items():
            yield name, partial(_called, number)
    # Flags of a process of its own, of a namespace, and of a thread in a namespace.
    for name, flags in {"clone": 17, "clone into namespaces": 0x10000000 | 17}.items():
        call = 56 if X86 else 220
        yield name, partial(_called, call, flags, 0, 0, 0, 0)
    yield "tgkill", partial(_called, 234 if X86 else 131, 1, 1, 0)


def needs(told: dict[str, Any]) -> Attempts:
    """What a child must still be able to do."""
    folder = Path(told["folder"])
    yield "read the upload", (folder / "upload" / "model").read_bytes
    yield "write results", lambda: (folder / "out" / "model.onnx").write_bytes(b"x")
    yield "rename results", lambda: (folder / "out" / "model.onnx").rename(folder / "out" / "model.part")
    yield "remove results", (folder / "out" / "model.part").unlink
    yield "make folders", lambda: (folder / "tmp" / "a" / "b").mkdir(parents=True)
    yield "run threads", _threads
    yield "draw random numbers", lambda: os.urandom(16)
    yield "throw away", lambda: Path("/dev/null").write_bytes(b"x")
    yield "import what it did not yet", lambda: __import__("numpy")
    yield "count processors", lambda: os.sched_getaffinity(0)
    yield "signal itself", lambda: os.kill(os.getpid(), 0)
    yield "read of itself", Path("/proc/self/status").read_bytes


def forbidden_number(_told: dict[str, Any]) -> Attempts:
    """A call by the number that another machine has for it: the process must not go on."""
    yield "x32", partial(_called, 0x40000000 + 39)


def dies(_told: dict[str, Any]) -> Attempts:
    """End by a signal, as native code does."""
    yield "abort", os.abort


def forever(_told: dict[str, Any]) -> Attempts:
    """Take processor time without end."""

    def spin() -> None:
        while True:
            pass

    yield "spin", spin


def sleeping(told: dict[str, Any]) -> Attempts:
    """Say that it is there, ignore all signals that can be ignored, and wait."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    (Path(told["folder"]) / "out" / "there").touch()
    yield "sleep", lambda: threading.Event().wait(600)


def memory(_told: dict[str, Any]) -> Attempts:
    """Take more memory than is given."""

    def fill() -> None:
        try:
            bytearray(2**33)
        except MemoryError:
            raise OSError(errno.ENOMEM, "") from None

    yield "fill", fill


def large_file(told: dict[str, Any]) -> Attempts:
    """Write a larger file than is given."""
    yield "write", lambda: (Path(told["folder"]) / "out" / "large").write_bytes(bytes(2**21))


def _write_and_remove(path: Path) -> None:
    path.write_bytes(b"x")
    path.unlink()


def _socket(family: int) -> None:
    kind = socket.SOCK_SEQPACKET if family == getattr(socket, "AF_ALG", -1) else socket.SOCK_STREAM
    try:
        socket.socket(family, kind).close()
    except OSError as error:
        if error.errno in {errno.ESOCKTNOSUPPORT, errno.EPROTONOSUPPORT}:
            socket.socket(family, socket.SOCK_RAW).close()
        else:
            raise


def _fork() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def _signal_by_file(other: int) -> None:
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, other)
    finally:
        os.close(reader)
        os.close(writer)


def _threads() -> None:
    threads = [threading.Thread(target=lambda: None) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _nonzero(status: int) -> None:
    if status != 0:
        raise OSError(errno.EPERM, "")


def _called(number: int, *arguments: int) -> None:
    _checked(LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))


def _checked(result: int) -> None:
    if result == -1:
        raise OSError(ctypes.get_errno(), "")


if __name__ == "__main__":
    main()
