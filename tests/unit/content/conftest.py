"""Acting as a user whom permissions bind, even when the tests run as root; and waiting for a file system's clock."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def public_directory():
    """A directory that every user may enter and write to; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def ordinary_user():
    """Gives a context in which this process is bound by permissions."""

    @contextlib.contextmanager
    def become():
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return become


@pytest.fixture
def next_tick():
    """Gives a function that waits until a file system's clock has moved; many stand still for ten milliseconds."""
    return lambda: time.sleep(0.02)
