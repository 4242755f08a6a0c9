"""Which calls of the system a confined process may make, with their numbers on each machine.

What is not listed is refused, whatever it does: a list of what is dangerous would be short of what comes next year.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LAST_KNOWN", "MACHINES", "Calls"]

LAST_KNOWN = 450
"""Calls with higher numbers are newer than this list: they are answered as by a system that does not have them."""


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of one machine, by name.

    Attributes:
        architecture: How the system says which machine a call is made for (``AUDIT_ARCH_*``).
        allowed: May be made with whatever arguments.
        weighed: May be made with some arguments.
        attributes: Concern extended attributes, which no file here has.
    """

    architecture: int
    allowed: Mapping[str, int]
    weighed: Mapping[str, int]
    attributes: Mapping[str, int]


def _read(text: str) -> dict[str, int]:
    return {name: int(number) for name, _, number in (entry.partition("=") for entry in text.split())}


_X86_64 = Calls(
    architecture=0xC000003E,
    allowed=_read(
        """
        read=0 write=1 open=2 close=3 stat=4 fstat=5 lstat=6 poll=7 lseek=8 mmap=9 mprotect=10 munmap=11 brk=12
        rt_sigaction=13 rt_sigprocmask=14 rt_sigreturn=15 pread64=17 pwrite64=18 readv=19 writev=20 access=21 pipe=22
        select=23 sched_yield=24 mremap=25 msync=26 madvise=28 dup=32 dup2=33 pause=34 nanosleep=35 getitimer=36
        alarm=37 setitimer=38 getpid=39 sendfile=40 exit=60 wait4=61 uname=63 flock=73 fsync=74 fdatasync=75
        ftruncate=77 getdents=78 getcwd=79 chdir=80 fchdir=81 rename=82 mkdir=83 rmdir=84 creat=85 unlink=87
        readlink=89 umask=95 gettimeofday=96 getrlimit=97 getrusage=98 sysinfo=99 times=100 getuid=102 getgid=104
        geteuid=107 getegid=108 getppid=110 getpgrp=111 getgroups=115 getresuid=118 getresgid=120 getpgid=121
        getsid=124 capget=125 rt_sigpending=127 rt_sigtimedwait=128 rt_sigsuspend=130 sigaltstack=131 statfs=137
        fstatfs=138 getpriority=140 sched_getparam=143 sched_getscheduler=145 sched_get_priority_max=146
        sched_get_priority_min=147 sched_rr_get_interval=148 arch_prctl=158 setrlimit=160 gettid=186 readahead=187
        time=201 futex=202 sched_getaffinity=204 getdents64=217 set_tid_address=218 restart_syscall=219 fadvise64=221
        timer_create=222 timer_settime=223 timer_gettime=224 timer_getoverrun=225 timer_delete=226 clock_gettime=228
        clock_getres=229 clock_nanosleep=230 exit_group=231 epoll_create=213 epoll_create1=291 epoll_ctl=233
        epoll_wait=232 epoll_pwait=281 epoll_pwait2=441 waitid=247 openat=257 mkdirat=258 newfstatat=262 unlinkat=263
        renameat=264 readlinkat=267 faccessat=269 pselect6=270 ppoll=271 set_robust_list=273 sync_file_range=277
        timerfd_create=283 timerfd_settime=286 timerfd_gettime=287 eventfd=284 eventfd2=290 fallocate=285 dup3=292
        pipe2=293 preadv=295 pwritev=296 getcpu=309 renameat2=316 getrandom=318 membarrier=324 copy_file_range=326
        preadv2=327 pwritev2=328 statx=332 rseq=334 close_range=436 openat2=437 faccessat2=439 futex_waitv=449
        get_mempolicy=239 sched_getattr=315 mlock=149 munlock=150
        """
    ),
    weighed=_read(
        """
        clone=56 clone3=435 kill=62 tgkill=234 prctl=157 prlimit64=302 ioctl=16 fcntl=72 seccomp=317
        """
    ),
    attributes=_read(
        """
        setxattr=188 lsetxattr=189 fsetxattr=190 getxattr=191 lgetxattr=192 fgetxattr=193 listxattr=194 llistxattr=195
        flistxattr=196 removexattr=197 lremovexattr=198 fremovexattr=199
        """
    ),
)

_AARCH64 = Calls(
    architecture=0xC00000B7,
    allowed=_read(
        """
        read=63 write=64 close=57 fstat=80 lseek=62 mmap=222 mprotect=226 munmap=215 brk=214 rt_sigaction=134
        rt_sigprocmask=135 rt_sigreturn=139 pread64=67 pwrite64=68 readv=65 writev=66 sched_yield=124 mremap=216
        msync=227 madvise=233 dup=23 nanosleep=101 getitimer=102 setitimer=103 getpid=172 sendfile=71 exit=93
        wait4=260 uname=160 flock=32 fsync=82 fdatasync=83 ftruncate=46 getcwd=17 chdir=49 fchdir=50 umask=166
        gettimeofday=169 getrlimit=163 getrusage=165 sysinfo=179 times=153 getuid=174 getgid=176 geteuid=175
        getegid=177 getppid=173 getgroups=158 getresuid=148 getresgid=150 getpgid=155 getsid=156 capget=90
        rt_sigpending=136 rt_sigtimedwait=137 rt_sigsuspend=133 sigaltstack=132 statfs=43 fstatfs=44 getpriority=141
        sched_getparam=121 sched_getscheduler=120 sched_get_priority_max=125 sched_get_priority_min=126
        sched_rr_get_interval=127 setrlimit=164 gettid=178 readahead=213 futex=98 sched_getaffinity=123 getdents64=61
        set_tid_address=96 restart_syscall=128 fadvise64=223 timer_create=107 timer_settime=110 timer_gettime=108
        timer_getoverrun=109 timer_delete=111 clock_gettime=113 clock_getres=114 clock_nanosleep=115 exit_group=94
        epoll_create1=20 epoll_ctl=21 epoll_pwait=22 epoll_pwait2=441 waitid=95 openat=56 mkdirat=34 newfstatat=79
        unlinkat=35 renameat=38 readlinkat=78 faccessat=48 pselect6=72 ppoll=73 set_robust_list=99 sync_file_range=84
        timerfd_create=85 timerfd_settime=86 timerfd_gettime=87 eventfd2=19 fallocate=47 dup3=24 pipe2=59 preadv=69
        pwritev=70 getcpu=168 renameat2=276 getrandom=278 membarrier=283 copy_file_range=285 preadv2=286 pwritev2=287
        statx=291 rseq=293 close_range=436 openat2=437 faccessat2=439 futex_waitv=449 get_mempolicy=236
        sched_getattr=275 mlock=228 munlock=229
        """
    ),
    weighed=_read(
        """
        clone=220 clone3=435 kill=129 tgkill=131 prctl=167 prlimit64=261 ioctl=29 fcntl=25 seccomp=277
        """
    ),
    attributes=_read(
        """
        setxattr=5 lsetxattr=6 fsetxattr=7 getxattr=8 lgetxattr=9 fgetxattr=10 listxattr=11 llistxattr=12
        flistxattr=13 removexattr=14 lremovexattr=15 fremovexattr=16
        """
    ),
)

MACHINES: Mapping[str, Calls] = {"x86_64": _X86_64, "aarch64": _AARCH64, "arm64": _AARCH64}
"""By what the system calls the machine that it runs on."""
