"""Makes the fixtures of ``conftest_cli`` known, and that module itself importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest_cli import newcomer, project, terminal

__all__ = ["newcomer", "project", "terminal"]
