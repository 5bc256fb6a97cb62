"""A process that gives up system calls: sockets, other programs, other processes, changing files.

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

# (AUDIT_ARCH, the number of seccomp, the column of CALLS)
MACHINES = {"x86_64": (0xC000003E, 317, 0), "aarch64": (0xC00000B7, 277, 1)}
# Numbers by name on x86-64 and AArch64; https://github.com/torvalds/linux, syscall tables
CALLS: dict[str, tuple[int | None, int | None]] = {
    # sockets
    "socket": (41, 198), "socketpair": (53, 199), "bind": (49, 200), "listen": (50, 201),
    "connect": (42, 203), "sendto": (44, 206), "sendmsg": (46, 211),
    # memory, messages and keys that processes share; devices
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191),
    "semtimedop": (220, 192), "mq_open": (240, 180), "mq_unlink": (241, 181), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "ioctl": (16, 29),
    # other programs and processes
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "clone": (56, 220), "clone3": (435, 435), "unshare": (272, 97), "setns": (308, 268),
    # signals to others, their memory, and limits
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "setpriority": (141, 140),
    "setrlimit": (160, 164), "prlimit64": (302, 261), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    # files opened to be written, their names, and what is said of them
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "creat": (85, None),
    "open_by_handle_at": (304, 265), "memfd_create": (319, 279), "truncate": (76, 45), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34),
    "rmdir": (84, None), "link": (86, None), "linkat": (265, 37), "unlink": (87, None),
    "unlinkat": (263, 35), "symlink": (88, None), "symlinkat": (266, 36), "mknod": (133, None),
    "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "setxattrat": (463, 463), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "removexattrat": (466, 466), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "file_setattr": (469, 469), "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # the system itself
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fspick": (433, 433),
    "mount_setattr": (442, 442), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "fanotify_init": (300, 262), "bpf": (321, 280), "io_uring_setup": (425, 425), "iopl": (172, None),
    "ioperm": (173, None), "modify_ldt": (154, None),
}  # fmt: skip
# What is answered where it is not EPERM: glibc has an older way, and Python takes a file for no terminal.
ANSWERS = {"clone3": errno.ENOSYS, "openat2": errno.ENOSYS, "ioctl": errno.ENOTTY}
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
    arch, seccomp, column = MACHINES[machine]
    numbers = {name: n for name, both in CALLS.items() if (n := both[column]) is not None}
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
            yield (RETURN, 0, 0, FAIL | ANSWERS.get(name, errno.EPERM))
    yield (RETURN, 0, 0, ALLOW)


def _by_bits(number: int, argument: int, bits: int, denied_with: bool) -> Iterable[Instruction]:
    """A call that is denied with one of the bits in an argument, or without all of them."""
    yield (EQUAL, 0, 4, number)
    yield (LOAD, 0, 0, 16 + 8 * argument)
    yield (ANY_BIT, *((0, 1) if denied_with else (1, 0)), bits)
    yield (RETURN, 0, 0, FAIL | errno.EPERM)
    yield (RETURN, 0, 0, ALLOW)
