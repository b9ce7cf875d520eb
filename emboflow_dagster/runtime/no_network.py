"""Takes the network away from the calling process and all that it starts, for good.

A seccomp filter: no socket but those of this machine's own files (``AF_UNIX``), and nothing that could make
one otherwise. It needs no privilege, works in a container, and cannot be taken back.
"""

import ctypes
import platform
import socket
import struct
from typing import Final

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ERRNO with EPERM
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_X32: Final = 0x40000000
#: Machine to its AUDIT_ARCH, and its numbers of socket and io_uring_setup.
_MACHINES: Final = {"x86_64": (0xC000003E, 41, 425), "aarch64": (0xC00000B7, 198, 425)}


def available() -> bool:
    """Whether this machine's processor is one whose system calls are known here."""
    return platform.machine() in _MACHINES and hasattr(socket, "AF_UNIX")


def cut_off() -> None:
    """Refuse every socket of the network from now on (``EPERM``).

    Raises:
        OSError: The kernel has no such filters, or the processor is not known.
    """
    if not available():
        raise OSError(f"the network cannot be taken away on {platform.machine()}")
    audit_arch, socket_call, io_uring = _MACHINES[platform.machine()]
    program = b"".join(
        struct.pack("=HBBI", code, yes, no, value)
        for code, yes, no, value in (
            (_LOAD, 0, 0, _ARCHITECTURE),
            (_EQUAL, 0, 6, audit_arch),  # 32-bit calls have other numbers: refused whole
            (_LOAD, 0, 0, _NUMBER),
            (_AT_LEAST, 4, 0, _X32),
            (_EQUAL, 3, 0, io_uring),
            (_EQUAL, 0, 3, socket_call),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (_EQUAL, 1, 0, socket.AF_UNIX),
            (_RETURN, 0, 0, _REFUSE),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: number of instructions, then a pointer to them.
    prog = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    holder = ctypes.create_string_buffer(prog, len(prog))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(holder), 0, 0),
    ):
        if libc.prctl(*(ctypes.c_ulong(number) for number in arguments)) != 0:
            raise OSError(ctypes.get_errno(), "the network cannot be taken away here")
