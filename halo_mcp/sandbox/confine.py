"""What a worker gives up on Linux before it runs anything of a model's. Standard library only.

No new privileges, Landlock (files: nothing but reading below given paths; no TCP, no signals outwards), seccomp on
x86-64 (no sockets, processes, mounts, kernel interfaces) and resource limits. Landlock and seccomp bind the calling
thread and those it starts later: call ``confine`` on the main thread, before any other exists.

Numbers and layouts: linux/landlock.h, linux/seccomp.h, linux/filter.h, asm/unistd_64.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_ADD_RULE: Final = 445
_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_FILE_RIGHTS: Final = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
"""All rights on files that a Landlock version knows; later versions know ``_ALL_FILE_RIGHTS``."""
_ALL_FILE_RIGHTS: Final = 0xFFFF
_READ_FILE: Final = 0b0100
_READ_DIRECTORY: Final = 0b1000
_NET_RIGHTS: Final = 0b11
"""TCP bind and connect, from version 4 on."""
_SCOPES: Final = 0b11
"""Abstract UNIX sockets and signals, from version 6 on."""

_DENIED: Final = (
    *(41, 42, 43, 44, 46, 49, 50, 53, 288),  # socket, connect, accept, send, bind, listen, socketpair, accept4
    *(57, 58, 59, 322),  # fork, vfork, execve, execveat; threads are made with clone and stay possible
    *(62, 109, 112),  # kill, setpgid, setsid
    *(86, 88, 265, 266),  # links
    *(101, 310, 311, 438),  # ptrace, process_vm_readv and _writev, pidfd_getfd
    *(155, 161, 165, 166, 272, 308),  # pivot_root, chroot, mount, umount, unshare, setns
    *(169, 175, 246, 313),  # reboot, kernel modules, kexec
    *(248, 250),  # keyrings
    *(298, 304, 319, 321, 323, 425),  # perf, open_by_handle_at, memfd, bpf, userfaultfd, io_uring
)
_AUDIT_ARCH_X86_64: Final = 0xC000003E
_X32_CALLS: Final = 0x40000000
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_EPERM: Final = 0x00050001


def system_paths() -> tuple[str, ...]:
    """Where Python, its packages and the system's libraries are read from."""
    return (
        *{sys.base_prefix, sys.base_exec_prefix, sys.prefix, os.path.dirname(os.path.dirname(__file__))},
        *("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache"),
    )


def confine(readable: Iterable[str], memory_bytes: int) -> dict[str, Any]:
    """Give up all but reading below ``readable``; address space up to ``memory_bytes``.

    Returns what was applied: ``landlock`` (its version; 0 where it is missing), ``seccomp`` and ``rlimits`` (whether).
    Off Linux only the resource limits that the system has; on Windows nothing.
    """
    applied: dict[str, Any] = {"landlock": 0, "seccomp": False, "rlimits": _limit(memory_bytes)}
    if sys.platform != "linux":
        return applied
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return applied
    applied["landlock"] = _landlock(libc, readable)
    if platform.machine() == "x86_64" and struct.calcsize("P") == 8:
        applied["seccomp"] = _seccomp(libc, _DENIED)
    return applied


def _limit(memory_bytes: int) -> bool:
    if sys.platform == "win32":
        return False
    import resource

    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        _, most = resource.getrlimit(limit)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        try:
            resource.setrlimit(limit, (value, value))
        except (ValueError, OSError):  # macOS refuses RLIMIT_AS
            return False
    return True


def _landlock(libc: Any, readable: Iterable[str]) -> int:
    version: int = libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    if version < 1:
        return 0
    rights = _FILE_RIGHTS.get(version, _ALL_FILE_RIGHTS)
    known = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("QQQ", rights, _NET_RIGHTS, _SCOPES)[:known]
    rules: int = libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(known), 0)
    if rules < 0:
        return 0
    try:
        for path in readable:
            _allow_reading(libc, rules, path)
        return version if libc.syscall(_LANDLOCK_RESTRICT_SELF, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _allow_reading(libc: Any, rules: int, path: str) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no permission
    try:
        rights = _READ_FILE | _READ_DIRECTORY if os.path.isdir(path) else _READ_FILE
        libc.syscall(_LANDLOCK_ADD_RULE, rules, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, opened), 0)
    finally:
        os.close(opened)


def _seccomp(libc: Any, denied: Sequence[int]) -> bool:
    """Deny these calls with EPERM; whatever is no x86-64 call kills the process."""

    def step(code: int, if_true: int, if_false: int, value: int) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    steps = [
        step(load, 0, 0, 4),  # the architecture
        *(step(equal, 1, 0, _AUDIT_ARCH_X86_64), step(give, 0, 0, _KILL)),
        step(load, 0, 0, 0),  # the number of the call
        *(step(at_least, 0, 1, _X32_CALLS), step(give, 0, 0, _KILL)),
    ]
    for number in denied:
        steps += [step(equal, 0, 1, number), step(give, 0, 0, _EPERM)]
    steps.append(step(give, 0, 0, _ALLOW))
    program = ctypes.create_string_buffer(b"".join(steps))
    header = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(program))
    return libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(header), 0, 0) == 0
