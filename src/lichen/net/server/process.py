"""The ledger's server as a process: it tells the service about its end before anything else, so that nothing taken is lost.

On SIGTERM or SIGINT nothing more is taken; what was taken is finished and answered, the block is sealed, then it ends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lichen.net.http_process import Patience, serve_http
from lichen.net.server.app import LedgerApplication
from lichen.net.server.problem import CONTENT_TYPE, Problem

if TYPE_CHECKING:
    import socket

    from lichen.net.server.service import Service

__all__ = ["serve"]

SWITCH_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter while another wants it. The writer computes for milliseconds on end; with Python's 5 ms
each answer that is sent, and each request that is read, would wait so long for its turn."""


def serve(service: Service, listening: socket.socket, on_ready: Callable[[], object] | None = None) -> None:
    """Serve until told to stop; the service is closed then.

    Args:
        service: The ledger.
        listening: Bound socket; closed at the end.
        on_ready: Called when requests are answered.
    """
    settings = service.settings
    patience = Patience(
        head_seconds=settings.header_seconds,
        taking_seconds=settings.body_seconds,
        shutdown_seconds=settings.shutdown_seconds,
    )
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        serve_http(
            LedgerApplication(service),
            listening,
            _refusal,
            patience,
            has_lifespan=True,
            on_ready=on_ready,
            on_stop=service.drain,
        )
    finally:
        sys.setswitchinterval(before)


def _refusal(status: int, code: str, detail: str) -> tuple[str, bytes]:
    return CONTENT_TYPE, Problem(status, code, detail).body()
