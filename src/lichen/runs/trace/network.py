"""Peers outside the run.

What the processes of a run say to each other over the loopback or local sockets is no dependency; a database that was there
before is. A connection is inside when somebody in the run bound the address, or bound "any free port" and the address
has such a port.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["outside_peers"]

_AF_UNIX, _AF_NETLINK = 1, 16
_INTERNET = (2, 10)
_HARMLESS_SOCKETS = (
    "/run/nscd/", "/var/run/nscd/", "/dev/log", "/run/systemd/", "/run/dbus/", "/var/run/dbus/", "/tmp/.X11-unix/",  # noqa: S108
    "/run/user/", "\0/tmp/.X11-unix/", "\0/tmp/dbus-", "/run/udev/", "/var/run/syslog",
)  # fmt: skip


def outside_peers(
    connects: Iterable[tuple[int, Any]],
    binds: Iterable[tuple[int, Any]],
    visitors: Iterable[tuple[int, Any]] = (),
) -> tuple[str, ...]:
    """Name the peers that are not part of the run.

    Args:
        connects: (address family, address) of every connection made or datagram sent.
        binds: The same of every address the run took for itself.
        visitors: The same of every peer that connected to the run; one on this machine is taken for a part of it.

    Returns:
        ``host:port``, ``unix:path`` or ``family-number``, sorted.
    """
    ports, paths = set(), set()
    for family, address in binds:
        if family in _INTERNET and isinstance(address, tuple) and len(address) > 1:
            ports.add(address[1])
        elif family == _AF_UNIX:
            paths.add(_path(address))
    low, high = _ephemeral_ports()
    found = set()
    for family, address in connects:
        if family in _INTERNET and isinstance(address, tuple) and len(address) > 1:
            host, port = str(address[0]), address[1]
            inside = port in ports or (0 in ports and isinstance(port, int) and low <= port <= high)
            if not (is_loopback(host) and inside):
                found.add(_name(host, port))
        elif family == _AF_UNIX:
            path = _path(address)
            if path not in paths and path.strip("\0") and not path.startswith(_HARMLESS_SOCKETS):
                found.add("unix:" + path.replace("\0", "@"))
        elif family not in (0, _AF_NETLINK):
            found.add(f"family-{family}")
    for family, address in visitors:
        if family in _INTERNET and not is_loopback(str(address[0])):
            found.add(_name(str(address[0]), address[1]))
    return tuple(sorted(found))


def _name(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _path(address: object) -> str:
    """A local socket's name; a relative one is compared by its last part, because processes differ in directory."""
    text = str(address)
    return text if text.startswith(("/", "\0")) else text.rpartition("/")[2]


def is_loopback(host: str) -> bool:
    """Say whether a host name or address means this machine."""
    if host in ("localhost", "", "0.0.0.0", "::"):  # noqa: S104 - compared, never bound
        return True
    try:
        import ipaddress

        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _ephemeral_ports() -> tuple[int, int]:
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 32768, 60999
