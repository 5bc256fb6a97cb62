"""A process that gives up system calls: sockets, other programs, other processes, files opened to be written.

Linux' seccomp with a program of the classic Berkeley packet filter, on x86-64 and AArch64. It needs no
privilege, holds for all threads, and cannot be taken back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable

# (AUDIT_ARCH, the number of seccomp, numbers by name); https://github.com/torvalds/linux, syscall tables
MACHINES: dict[str, tuple[int, int, dict[str, int]]] = {
    "x86_64": (0xC000003E, 317, {
        "open": 2, "socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46, "bind": 49, "listen": 50,
        "socketpair": 53, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "truncate": 76,
        "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88,
        "chmod": 90, "chown": 92, "lchown": 94, "ptrace": 101, "mknod": 133, "pivot_root": 155,
        "setrlimit": 160, "chroot": 161, "mount": 165, "umount2": 166, "reboot": 169, "init_module": 175,
        "setxattr": 188, "lsetxattr": 189, "tkill": 200, "tgkill": 234, "kexec_load": 246, "openat": 257,
        "mkdirat": 258, "mknodat": 259, "fchownat": 260, "unlinkat": 263, "renameat": 264, "linkat": 265,
        "symlinkat": 266, "fchmodat": 268, "unshare": 272, "utimensat": 280, "prlimit64": 302,
        "open_by_handle_at": 304, "setns": 308, "process_vm_writev": 311, "finit_module": 313,
        "renameat2": 316, "bpf": 321, "execveat": 322, "io_uring_setup": 425, "clone3": 435, "openat2": 437,
        "pidfd_getfd": 438, "fchmodat2": 452,
    }),
    "aarch64": (0xC00000B7, 277, {
        "setxattr": 5, "lsetxattr": 6, "mknodat": 33, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36,
        "linkat": 37, "renameat": 38, "umount2": 39, "mount": 40, "pivot_root": 41, "truncate": 45,
        "chroot": 51, "fchmodat": 53, "fchownat": 54, "openat": 56, "utimensat": 88, "unshare": 97,
        "kexec_load": 104, "init_module": 105, "ptrace": 117, "kill": 129, "tkill": 130, "tgkill": 131,
        "reboot": 142, "setrlimit": 164, "socket": 198, "socketpair": 199, "bind": 200, "listen": 201,
        "connect": 203, "sendto": 206, "sendmsg": 211, "clone": 220, "execve": 221, "prlimit64": 261,
        "open_by_handle_at": 265, "setns": 268, "process_vm_writev": 271, "finit_module": 273,
        "renameat2": 276, "bpf": 280, "execveat": 281, "io_uring_setup": 425, "clone3": 435, "openat2": 437,
        "pidfd_getfd": 438, "fchmodat2": 452,
    }),
}  # fmt: skip
# Calls that glibc has an older way for.
ABSENT = ("clone3", "openat2")
CLONE_THREAD = 0x10000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# The argument, and the bits in it with which a call is denied: glibc reads limits by the call that sets them.
BY_ARGUMENT = {"open": (1, WRITING), "openat": (2, WRITING), "prlimit64": (2, 0xFFFFFFFF)}
X32 = 0x40000000  # x86-64's calls under other numbers

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
NO_NEW_PRIVS, SET_FILTER, ALL_THREADS = 38, 1, 1

Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def give_up() -> str | None:
    """Gives up those calls, from now on; None where that is so, else why it is not."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in MACHINES:
        return f"{sys.platform} on {machine} has no filter of system calls here"
    arch, seccomp, numbers = MACHINES[machine]
    code = b"".join(struct.pack("=HBBI", *line) for line in _program(arch, numbers))
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(
        seccomp, SET_FILTER, ALL_THREADS, ctypes.byref(program)
    ):
        return f"this system takes no filter of system calls ({os.strerror(ctypes.get_errno())})"
    return None


def _program(arch: int, numbers: dict[str, int]) -> Iterable[Instruction]:
    """Loads a call's architecture and number, and looks both up; arguments are its words from 16 on."""
    yield (LOAD, 0, 0, 4)
    yield (EQUAL, 1, 0, arch)
    yield (RETURN, 0, 0, FAIL | errno.EPERM)
    yield (LOAD, 0, 0, 0)
    yield (AT_LEAST, 0, 1, X32)
    yield (RETURN, 0, 0, FAIL | errno.EPERM)
    for name, number in numbers.items():
        if name == "clone":  # threads are none that is new
            yield from _by_bits(number, 0, CLONE_THREAD, denied_with=False)
        elif name in BY_ARGUMENT:
            yield from _by_bits(number, *BY_ARGUMENT[name], denied_with=True)
        else:
            yield (EQUAL, 0, 1, number)
            yield (RETURN, 0, 0, FAIL | (errno.ENOSYS if name in ABSENT else errno.EPERM))
    yield (RETURN, 0, 0, ALLOW)


def _by_bits(number: int, argument: int, bits: int, denied_with: bool) -> Iterable[Instruction]:
    """A call that is denied with one of the bits in an argument, or without all of them."""
    yield (EQUAL, 0, 4, number)
    yield (LOAD, 0, 0, 16 + 8 * argument)
    yield (ANY_BIT, *((0, 1) if denied_with else (1, 0)), bits)
    yield (RETURN, 0, 0, FAIL | errno.EPERM)
    yield (RETURN, 0, 0, ALLOW)
