"""What the commands that serve have in common: where they listen, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    import socket

    from lichen.cli.output import Output

__all__ = ["address_options", "listening_at", "needs_web", "tell_unencrypted", "url_of"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def address_options(port: int) -> Callable[[_Function], _Function]:
    """Add ``--host`` and ``--port`` to a command.

    Args:
        port: The port when none is given.
    """
    host_option = click.option(
        "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on."
    )
    port_option = click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=port,
        show_default=True,
        help="Port to listen on; 0 for any.",
    )
    return lambda function: host_option(port_option(function))


@contextmanager
def needs_web() -> Iterator[None]:
    """Say which extra is missing when a package for serving is not installed.

    Raises:
        UsageError: It is not.
    """
    from lichen.errors import UsageError

    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"serving needs the package {error.name}", remedy="Install it with: pip install 'lichen[web]'"
        ) from error


@contextmanager
def listening_at(host: str, port: int) -> Iterator[socket.socket]:
    """Take an address, and let warnings of the server go to standard error; the socket is closed at the end.

    Args:
        host: Address or name of this machine.
        port: Port; 0 for any that is free.

    Raises:
        UsageError: It is taken, or not of this machine.
    """
    import logging

    from lichen.net.listening import bind

    logging.basicConfig(format="lichen: %(message)s", level=logging.WARNING)
    with bind(host, port) as listening:
        yield listening


def url_of(host: str, listening: socket.socket) -> str:
    """Where a server is reached from this machine, without a slash at the end."""
    address = f"[{host}]" if ":" in host else host
    return f"http://{address}:{listening.getsockname()[1]}"


def tell_unencrypted(output: Output, host: str) -> None:
    """Say that what passes over the network can be read, where it leaves this machine; and see that all is printed."""
    import sys

    if host not in _LOOPBACK:
        output.line("what passes over the network is signed but not encrypted: use a proxy with TLS in front")
    sys.stdout.flush()
