"""Put a system call filter around a command: every path it hands to the kernel is shown to the tracer first.

Run as ``python -I -S lichen_seccomp_launch.py SOCKET COMMAND...``. The filter stays through fork and exec, also for programs
without a C library. It needs no privilege, but forbids gaining any: set-user-id programs do not work below it.

Source: Linux ``seccomp_unotify(2)`` and ``seccomp(2)``; the filter language is classic BPF.
"""

# Runs on Python 3.8 and imports only what comes with it.
# ruff: noqa: UP031
# mypy: allow-untyped-defs

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys

X86_64 = 0xC000003E
AARCH64 = 0xC00000B7
NUMBERS = {
    "x86_64": {
        "open": 2, "stat": 4, "lstat": 6, "access": 21, "chdir": 80, "connect": 42, "bind": 49, "execve": 59, "truncate": 76, "rename": 82,
        "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88, "readlink": 89, "openat": 257,
        "mkdirat": 258, "newfstatat": 262, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
        "readlinkat": 267, "faccessat": 269, "renameat2": 316, "execveat": 322, "statx": 332, "openat2": 437, "faccessat2": 439,
    },
    "aarch64": {
        "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38, "truncate": 45, "faccessat": 48, "chdir": 49,
        "openat": 56, "readlinkat": 78, "newfstatat": 79, "bind": 200, "connect": 203, "execve": 221, "renameat2": 276,
        "execveat": 281, "statx": 291, "openat2": 437, "faccessat2": 439,
    },
}  # fmt: skip
"""System calls that are shown, by machine."""
IO_URING_SETUP = 425
SECCOMP = {"x86_64": 317, "aarch64": 277}

SET_MODE_FILTER = 1
NEW_LISTENER = 1 << 3
WAIT_KILLABLE = 1 << 5
NO_NEW_PRIVILEGES = 38
ALLOW, NOTIFY, REFUSE = 0x7FFF0000, 0x7FC00000, 0x00050000
NO_SUCH_CALL = 38


def program(machine: str) -> bytes:
    """Assemble the filter: notify about the listed calls, refuse io_uring (its opens would be unseen), allow the rest."""
    load, equal, answer = 0x20, 0x15, 0x06
    calls = sorted(NUMBERS[machine].values())
    lines = [
        (load, 0, 0, 4),  # machine
        (equal, 1, 0, X86_64 if machine == "x86_64" else AARCH64),
        (answer, 0, 0, ALLOW),
        (load, 0, 0, 0),  # number of the call
    ]
    end = len(lines) + len(calls) + 3  # place of the last line
    lines += [(equal, end - place - 1, 0, call) for place, call in enumerate(calls, start=len(lines))]
    lines += [
        (equal, 1, 0, IO_URING_SETUP),
        (answer, 0, 0, ALLOW),
        (answer, 0, 0, REFUSE | NO_SUCH_CALL),
        (answer, 0, 0, NOTIFY),
    ]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def install() -> int:
    """Install the filter in this process and return the descriptor that tells of calls; -1 when the kernel refuses."""
    machine = platform.machine()
    if machine not in NUMBERS:
        return -1
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program(machine))
    header = struct.pack("<HxxxxxxQ", (len(code) - 1) // 8, ctypes.addressof(code))
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return -1
    for flags in (NEW_LISTENER | WAIT_KILLABLE, NEW_LISTENER):
        descriptor = libc.syscall(
            ctypes.c_long(SECCOMP[machine]), ctypes.c_long(SET_MODE_FILTER), ctypes.c_long(flags), header
        )
        if descriptor >= 0:
            return int(descriptor)
    return -1


def main() -> None:
    """Connect, install, hand the descriptor over, and become the command."""
    address, command = sys.argv[1], sys.argv[2:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tracer:
            tracer.connect(address)
            descriptor = install()  # connecting later would be shown to a tracer that does not listen yet
            if descriptor >= 0:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
                tracer.sendmsg([b"x"], rights)
                tracer.recv(1)
                os.close(descriptor)
    except OSError:
        pass  # the command runs all the same; the tracer notices that nobody came
    try:
        os.execvp(command[0], command)  # noqa: S606 - the user's own command
    except OSError as error:
        sys.stderr.write("lichen: %s cannot be started: %s\n" % (command[0], error.strerror))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
