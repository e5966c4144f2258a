"""What is Lichen's own and so no part of a run, and memory that outlives a run as files do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import lichen
from lichen.runs.trace.tracer import Tracer

if TYPE_CHECKING:
    from tests.integration.trace.conftest import Project

WITHOUT_COMPILER = ("audit", "inotify")


def test_lichen_itself_is_no_code_of_a_run(project: Project) -> None:
    result = project.script(
        "import lichen, lichen.runs.records.metrics\nlichen.log(accuracy=1)", means=WITHOUT_COMPILER
    )
    assert result.status == 0, result.stderr
    package = str(Path(lichen.__file__).parent)
    assert not [name for name in result.trace.modules.values() if name.startswith(package)]
    assert not [access.path for access in result.trace.accesses if access.path.startswith(package)]


def test_lichen_is_code_where_it_is_the_project(project: Project) -> None:
    package = Path(lichen.__file__).parent
    own = Tracer(package.parent, scratch_directory=project.scratch)
    other = Tracer(project.root, scratch_directory=project.scratch)
    assert str(package) in other._own
    assert str(package) not in own._own


@pytest.mark.parametrize("means", [None, WITHOUT_COMPILER], ids=["all-means", "without-compiler"])
def test_what_lies_in_shared_memory_is_seen(project: Project, means: tuple[str, ...] | None) -> None:
    left = Path(f"/dev/shm/lichen-test-{os.getpid()}")
    result = project.script(f"open({str(left)!r}, 'w').write('x')", means=means)
    try:
        assert str(left) in result.names("write")
        again = project.script(f"open({str(left)!r}).read()", means=means)
        assert str(left) in again.names("read")
    finally:
        left.unlink()


@pytest.mark.usefixtures("needs_preload")
def test_shared_memory_by_name_is_seen(project: Project) -> None:
    name = f"lichen-test-{os.getpid()}"
    kept = project.script(
        f"""
        from multiprocessing import resource_tracker, shared_memory
        memory = shared_memory.SharedMemory({name!r}, create=True, size=10)
        resource_tracker.unregister(memory._name, "shared_memory")
        memory.close()
        """
    )
    assert f"/dev/shm/{name}" in kept.names("write"), kept.stderr
    passing = project.script(
        f"""
        from multiprocessing import shared_memory
        memory = shared_memory.SharedMemory({name!r})
        memory.close()
        memory.unlink()
        """
    )
    assert f"/dev/shm/{name}" in passing.names("read", "update", "write"), passing.stderr


@pytest.mark.parametrize("mode", [0o700, 0o1777])
def test_what_others_do_where_everybody_writes_is_not_the_runs_work(tmp_path: Path, mode: int) -> None:
    folder, root = tmp_path / "folder", tmp_path / "project"
    for directory in (folder, root):
        directory.mkdir()
    (folder / "held").write_text("4")
    folder.chmod(mode)
    script = root / "main.py"
    script.write_text(
        "import sys\nfile = open(sys.stdin.readline().strip())\nprint('open', flush=True)\nsys.stdin.readline()\n"
    )
    command = [sys.executable, str(script)]
    tracer = Tracer(root, means=WITHOUT_COMPILER, scratch_directory=tmp_path / "scratch", command=command)
    environment = tracer.environment(os.environ)
    tracer.start()
    with subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        print(folder / "held", file=process.stdin, flush=True)
        assert process.stdout.readline() == "open\n"
        tracer.poll()  # sees the file open, and so learns of its directory
        (folder / "theirs").write_text("by somebody else while the run goes on")
        print(file=process.stdin, flush=True)
    writes = {access.path for access in tracer.finish().accesses if access.kind == "write"}
    assert (str(folder / "theirs") in writes) == (mode == 0o700)
