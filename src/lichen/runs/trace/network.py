"""Peers outside the run.

What the processes of a run say to each other over the loopback or local sockets is no dependency; a database that was there
before is. A connection is inside when somebody in the run bound the address, or bound "any free port" and the address
has such a port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["outside_peers"]

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_HARMLESS_SOCKETS = (
    "/run/nscd/", "/var/run/nscd/", "/dev/log", "/run/systemd/", "/run/dbus/", "/var/run/dbus/", "/tmp/.X11-unix/",  # noqa: S108
    "/run/user/", "\0/tmp/.X11-unix/", "\0/tmp/dbus-", "/run/udev/", "/var/run/syslog",
)  # fmt: skip


def outside_peers(connects: Iterable[tuple[int, Any]], binds: Iterable[tuple[int, Any]]) -> tuple[str, ...]:
    """Name the peers that are not part of the run.

    Args:
        connects: (address family, address) of every connection made or datagram sent.
        binds: The same of every address the run took for itself.

    Returns:
        ``host:port`` or ``unix:path``, sorted.
    """
    ports, paths, any_port = set(), set(), False
    for family, address in binds:
        if family in (_AF_INET, _AF_INET6) and isinstance(address, tuple) and len(address) > 1:
            ports.add(address[1])
            any_port = any_port or address[1] == 0
        elif family == _AF_UNIX:
            paths.add(str(address))
    low, high = _ephemeral_ports()
    found = set()
    for family, address in connects:
        if family in (_AF_INET, _AF_INET6) and isinstance(address, tuple) and len(address) > 1:
            host, port = str(address[0]), address[1]
            inside = port in ports or (any_port and isinstance(port, int) and low <= port <= high)
            if not (is_loopback(host) and inside):
                found.add(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        elif family == _AF_UNIX:
            path = str(address)
            if path not in paths and path.strip("\0") and not path.startswith(_HARMLESS_SOCKETS):
                found.add("unix:" + path.replace("\0", "@"))
    return tuple(sorted(found))


def is_loopback(host: str) -> bool:
    """Say whether a host name or address means this machine."""
    if host in ("localhost", "", "0.0.0.0", "::"):  # noqa: S104 - compared, never bound
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _ephemeral_ports() -> tuple[int, int]:
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 32768, 60999
