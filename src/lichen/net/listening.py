"""Taking an address of this machine to listen on, for every server here."""

from __future__ import annotations

import socket
from typing import Final

from lichen.errors import UsageError

__all__ = ["BACKLOG", "bind"]

BACKLOG: Final = 1_024
"""Connections that may wait to be accepted."""


def bind(host: str, port: int) -> socket.socket:
    """Take an address.

    Args:
        host: Address or name of this machine.
        port: Port; 0 for any that is free.

    Raises:
        UsageError: It is taken, or not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            remedy="Choose another --port, or stop the program that has it.",
        ) from error
    listening.setblocking(False)
    return listening
