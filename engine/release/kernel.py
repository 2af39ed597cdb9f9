"""Two doors of Linux that a process may shut behind itself without any right: seccomp and Landlock.

Both are called through `ctypes`, because no library that we use wraps them. Numbers are the kernel's
(include/uapi/linux/{seccomp,filter,audit,landlock}.h and the architectures' system call tables).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
# Classic BPF: load a word of struct seccomp_data, jump if equal / greater or equal, return.
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_X32 = 0x40000000  # the other numbering of x86_64's calls: nothing of ours uses it

# What opening a checkpoint never needs: sockets, other programs, other processes, mounts, namespaces, the
# kernel's own interfaces. io_uring is here because it opens sockets past the filter.
_FORBIDDEN = [
    "socket",
    "socketpair",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "execve",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kill",
    "tkill",
    "pidfd_open",
    "pidfd_getfd",
    "pidfd_send_signal",
    "mount",
    "umount2",
    "move_mount",
    "open_tree",
    "fsopen",
    "pivot_root",
    "chroot",
    "setns",
    "unshare",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "keyctl",
    "add_key",
    "request_key",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "reboot",
    "swapon",
    "swapoff",
    "personality",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
]
_COMMON = {  # the same on every architecture since Linux 5.0
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "pidfd_open": 434, "pidfd_getfd": 438, "fchmodat2": 452,
}  # fmt: skip
_X86_64 = {
    "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "sendmsg": 46, "bind": 49, "listen": 50,
    "socketpair": 53, "execve": 59, "kill": 62, "chmod": 90, "fchmod": 91,
    "chown": 92, "fchown": 93, "lchown": 94, "ptrace": 101, "personality": 135, "pivot_root": 155,
    "chroot": 161, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169,
    "init_module": 175, "delete_module": 176, "tkill": 200, "kexec_load": 246, "add_key": 248,
    "request_key": 249, "keyctl": 250, "fchownat": 260, "fchmodat": 268, "unshare": 272, "accept4": 288, "perf_event_open": 298, "sendmmsg": 307,
    "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "finit_module": 313,
    "kexec_file_load": 320, "bpf": 321, "execveat": 322, "userfaultfd": 323,
}  # fmt: skip
_AARCH64 = {
    "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "fchmod": 52, "fchmodat": 53, "fchownat": 54,
    "fchown": 55, "personality": 92, "unshare": 97,
    "kexec_load": 104, "init_module": 105, "delete_module": 106, "ptrace": 117, "kill": 129, "tkill": 130,
    "reboot": 142, "socket": 198, "socketpair": 199, "bind": 200, "listen": 201, "accept": 202, "connect": 203,
    "sendto": 206, "sendmsg": 211, "add_key": 217, "request_key": 218, "keyctl": 219, "execve": 221,
    "swapon": 224, "swapoff": 225, "perf_event_open": 241, "accept4": 242, "setns": 268, "sendmmsg": 269,
    "process_vm_readv": 270, "process_vm_writev": 271, "finit_module": 273, "bpf": 280, "execveat": 281,
    "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip
_MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_PATH_BENEATH = 1
_O_PATH = 0x200000
# LANDLOCK_ACCESS_FS_*: write a file; remove and make entries of every kind; since ABI 2 refer, 3 truncate, 5 ioctl
_WRITE_FILE, _TRUNCATE, _REFER, _DEVICE = 1 << 1, 1 << 14, 1 << 13, 1 << 15
_CHANGES = sum(1 << bit for bit in range(4, 13))


def no_new_privileges() -> None:
    """Set-user-id programs give nothing any more; both doors ask for it."""
    _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def forbid_calls() -> bool:
    """Answer EPERM to every system call of `_FORBIDDEN` in this process and its children, for ever.

    Returns:
        Whether the filter is in force; False on another kernel or architecture.
    """
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        return False
    program = _filter(*machine)
    raw = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(raw)))
    return bool(_libc().prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), header, 0, 0) == 0)


def _filter(architecture: int, table: dict[str, int]) -> bytes:
    """The BPF program: another architecture's calls kill, the forbidden ones fail, all others pass."""
    known = {**_COMMON, **table}
    numbers = sorted(known[name] for name in _FORBIDDEN if name in known)  # aarch64 never had some of them
    refuse = len(numbers) + 1  # jumps count from the next instruction; the refusal lies behind the last one
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, refuse, 0, _X32),
        *((_EQUAL, refuse - at, 0, number) for at, number in enumerate(numbers, 1)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def write_only_below(folder: Path) -> bool:
    """Let this process and its children change files below `folder` alone (and write to /dev/null).

    Returns:
        Whether Landlock is in force; False where the kernel has none.
    """
    libc = _libc()
    if sys.platform != "linux":
        return False
    abi = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if abi < 1:
        return False
    rights = _WRITE_FILE | _CHANGES | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    rights |= _DEVICE if abi >= 5 else 0
    wanted = ctypes.create_string_buffer(struct.pack("Q", rights), 8)
    rules = libc.syscall(_LANDLOCK_CREATE, wanted, ctypes.c_size_t(8), ctypes.c_uint32(0))
    if rules < 0:
        return False
    try:
        null = _WRITE_FILE | (rights & (_TRUNCATE | _DEVICE))
        allowed = _allow(libc, rules, folder, rights) and _allow(libc, rules, Path(os.devnull), null)
        return bool(allowed and libc.syscall(_LANDLOCK_RESTRICT, ctypes.c_int(rules), ctypes.c_uint32(0)) == 0)
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> bool:
    handle = os.open(path, _O_PATH | os.O_CLOEXEC)
    try:
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, handle), 12)
        done = libc.syscall(
            _LANDLOCK_ADD, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0)
        )
        return bool(done == 0)
    finally:
        os.close(handle)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc
