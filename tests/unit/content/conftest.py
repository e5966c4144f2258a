"""Acting as a user whom permissions bind, even when the tests run as root."""

from __future__ import annotations

import contextlib
import os
import tempfile
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
