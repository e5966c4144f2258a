"""Streams that cannot be carried."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.runs.process import standard_streams
from lichen.runs.process.supervise import supervise


def test_where_no_thread_can_be_started_the_command_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(standard_streams, "_check_threads", refuse)
    outcome = supervise(["sh", "-c", f"echo done > {tmp_path}/it; exit 3"])
    assert (outcome.exit_status, (tmp_path / "it").read_text()) == (3, "done\n")
    assert any("stdout could not be recorded" in warning for warning in outcome.warnings)
    assert outcome.stdout_capture.read_bytes() == b""
