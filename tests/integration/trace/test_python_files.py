"""Files that Python code reads, writes, lists and looks for in vain, seen with and without the preload library."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.content.columns import MANY, columns

if TYPE_CHECKING:
    from tests.integration.trace.conftest import Project

pytestmark = pytest.mark.parametrize(
    "means", [None, ("audit", "inotify")], ids=["all-means", "without-compiler"]
)


def test_reading_and_writing(project: Project, means: tuple[str, ...] | None) -> None:
    data = project.write("data.csv", "a\n1\n")
    result = project.script("open('out.txt', 'w').write(open('data.csv').read())", means=means)
    assert result.status == 0
    assert result.trace.complete, result.trace.reasons
    assert result.names("read") == {"main.py", "data.csv"}
    assert result.names("write") == {"out.txt"}
    status = data.stat()
    seen = result.access("data.csv", "read").stat
    assert seen is not None
    assert (seen.inode, seen.size_bytes, seen.mtime_ns, seen.ctime_ns) == (
        status.st_ino, 4, status.st_mtime_ns, status.st_ctime_ns
    )  # fmt: skip
    assert result.access("out.txt", "write").stat is None


def test_what_the_run_wrote_itself_is_no_input(project: Project, means: tuple[str, ...] | None) -> None:
    result = project.script(
        """
        import os, tempfile
        with open('half.txt', 'w') as f: f.write('x')
        open('half.txt').read()
        os.path.exists('half.txt'); os.listdir('.')
        with tempfile.NamedTemporaryFile('w', dir='.') as f: open(f.name).read()
        os.makedirs('deep/er'); open('deep/er/file', 'w').close(); open('deep/er/file').read(); os.listdir('deep')
        """,
        means=means,
    )
    assert result.trace.complete, result.trace.reasons
    assert result.names("read") == {"main.py"}
    assert result.names("write") == {"half.txt", "deep/er/file"}
    assert result.names("list") == {str(project.root)}
    assert result.access(str(project.root), "list").names == ("main.py",)


def test_order_tells_reading_before_writing_from_after(
    project: Project, means: tuple[str, ...] | None
) -> None:
    project.write("counter", "1")
    project.write("log", "one\n")
    project.write("table", "abc")
    project.write("still", "abc")
    result = project.script(
        """
        n = int(open('counter').read()); open('counter', 'w').write(str(n + 1))
        open('log', 'a').write('two\\n')
        f = open('table', 'r+'); f.seek(1); f.write('X'); f.close()
        f = open('still', 'r+'); f.read(); f.close()
        """,
        means=means,
    )
    assert result.access("counter", "read").order < result.access("counter", "write").order
    assert result.access("log", "append").stat is not None
    assert result.names("update") == {"table"}
    assert "still" in result.names("read"), "opened for update, never changed"
    assert {Path(path).name for path in result.trace.read_then_written()} == {"counter", "table"}


def test_absent_paths_and_what_became_of_them(project: Project, means: tuple[str, ...] | None) -> None:
    result = project.script(
        """
        import os, pathlib, glob
        os.path.exists('gone-exists'); os.path.isfile('gone-isfile'); pathlib.Path('gone-path').exists()
        os.access('gone-access', os.R_OK); glob.glob('gone-dir/*.csv'); os.path.lexists('gone-lexists')
        for name in ('gone-open',):
            try: open(name)
            except FileNotFoundError: pass
        try: os.stat('gone-stat')
        except FileNotFoundError: pass
        if not os.path.isdir('out'): os.mkdir('out')
        if not os.path.exists('result'): open('result', 'w').close()
        """,
        means=means,
    )
    assert result.trace.complete, result.trace.reasons
    assert result.names("absent") >= {
        "gone-exists", "gone-isfile", "gone-path", "gone-access", "gone-dir", "gone-lexists", "gone-open", "gone-stat",
    }  # fmt: skip
    assert result.access("out", "absent").detail == "made-directory"
    assert result.access("result", "absent").detail == "made-file"
    assert result.access("gone-open", "absent").detail == ""


def test_looks_say_how_close_they_were(project: Project, means: tuple[str, ...] | None) -> None:
    for name in ("exists", "size", "times", "direct", "entry"):
        project.write(name, "x" * 10)
    result = project.script(
        """
        import os, pathlib
        os.path.exists('exists'); os.path.getsize('size'); os.path.getmtime('times'); pathlib.Path('direct').stat()
        """,
        means=means,
    )
    assert [result.access(name, "stat").detail for name in ("exists", "size", "times", "direct")] == [
        "type", "status", "times", "times",
    ]  # fmt: skip


@pytest.mark.usefixtures("needs_preload")
def test_sizes_seen_through_directory_entries(project: Project, means: tuple[str, ...] | None) -> None:
    if means is not None:
        pytest.skip("only the preload library sees them")
    project.write("data/a.bin", "x" * 10)
    result = project.script(
        "import os\nprint(sum(e.stat().st_size for e in os.scandir('data')))", means=means
    )
    assert result.stdout == "10\n"
    assert result.access("data/a.bin", "stat").detail == "status"


def test_listings(project: Project, means: tuple[str, ...] | None) -> None:
    for name in ("data/b.csv", "data/a.csv", "data/sub/c.csv", "other/x"):
        project.write(name)
    result = project.script(
        """
        import glob, os, pathlib
        glob.glob('data/**/*.csv', recursive=True)
        list(pathlib.Path('other').iterdir())
        """,
        means=means,
    )
    assert result.names("list") == {"data", "data/sub", "other"}
    assert result.access("data", "list").names == ("a.csv", "b.csv", "sub")


def test_a_listing_is_told_as_it_was_before_the_run_changed_the_directory(
    project: Project, means: tuple[str, ...] | None
) -> None:
    project.write("data/a.csv")
    project.write("data/old.csv")
    result = project.script(
        """
        import os
        os.listdir('data')
        open('data/new.csv', 'w').close(); os.mkdir('data/made'); os.remove('data/old.csv')
        """,
        means=means,
    )
    assert result.access("data", "list").names == ("a.csv", "old.csv")
    assert result.access("data/old.csv", "write").detail == "deleted"


def test_the_import_system_lists_for_itself(project: Project, means: tuple[str, ...] | None) -> None:
    project.write("helper.py")
    result = project.script(
        "import helper, importlib.metadata\nimportlib.metadata.version('pytest')", means=means
    )
    assert result.names("list") == set()


def test_renames_carry_what_was_written(project: Project, means: tuple[str, ...] | None) -> None:
    project.write("old.txt", "before")
    result = project.script(
        """
        import os
        with open('model.tmp', 'w') as f: f.write('x')
        os.replace('model.tmp', 'model.bin')
        os.mkdir('staging'); open('staging/part', 'w').close(); os.rename('staging', 'final')
        os.rename('old.txt', 'kept.txt')
        """,
        means=means,
    )
    written = {result.name(a.path) for a in result.trace.outputs()}
    assert written == {"model.bin", "final/part", "kept.txt"}
    assert "old.txt" in result.names("read"), "its content lives on under another name"
    assert result.access("old.txt", "write").detail == "deleted"


def test_descriptors_and_changed_directories(project: Project, means: tuple[str, ...] | None) -> None:
    for name in ("sub/a", "sub/b", "sub/deep/c"):
        project.write(name, "x")
    (project.root / "link").symlink_to(project.root / "sub/deep")
    result = project.script(
        """
        import os
        fd = os.open('sub', os.O_RDONLY | os.O_DIRECTORY)
        os.close(os.open('a', os.O_RDONLY, dir_fd=fd)); os.stat('missing-1', dir_fd=fd) if 0 else None
        try: os.stat('missing-2', dir_fd=fd)
        except FileNotFoundError: pass
        os.chdir('sub'); open('b').read(); os.chdir('..')
        open('link/../a').read()
        os.listdir(fd)
        """,
        means=means,
    )
    assert result.names("read") >= {"sub/a", "sub/b"}
    assert "a" not in result.names("read", "absent"), "link/.. is sub, not the project"
    assert "sub/missing-2" in result.names("absent")
    assert "sub" in result.names("list")


def test_equal_names_in_changing_directories(project: Project, means: tuple[str, ...] | None) -> None:
    """The working directory changes by name, by descriptor, and by being renamed; a thread changes it for all."""
    for name in ("a/x", "b/x", "c/x", "e/x", "x"):
        project.write(name, name)
    result = project.script(
        """
        import os, threading
        open('x').read(); os.chdir('a'); open('x').read()
        fd = os.open('../b', os.O_RDONLY | os.O_DIRECTORY); os.fchdir(fd); open('x').read()
        os.chdir('../c'); open('y', 'w').close(); os.rename('../c', '../d'); open('x').read()
        thread = threading.Thread(target=os.chdir, args=('../e',)); thread.start(); thread.join(); open('x').read()
        """,
        means=means,
    )
    assert {name for name in result.names("read") if name.endswith("x")} == {"x", "a/x", "b/x", "e/x"}
    assert not result.names("absent") & {"x", "y"}


def test_sqlite_reads_and_writes(project: Project, means: tuple[str, ...] | None) -> None:
    for name in ("read.db", "written.db", "uri.db"):
        with sqlite3.connect(project.root / name) as connection:
            connection.execute("CREATE TABLE t (x)")
        connection.close()
    result = project.script(
        """
        import sqlite3
        sqlite3.connect('read.db').execute('SELECT * FROM t').fetchall()
        c = sqlite3.connect('written.db'); c.execute('INSERT INTO t VALUES (1)'); c.commit(); c.close()
        sqlite3.connect('file:uri.db?mode=ro', uri=True).execute('SELECT * FROM t').fetchall()
        sqlite3.connect(':memory:')
        sqlite3.connect('new.db').execute('CREATE TABLE t (x)')
        """,
        means=means,
    )
    assert result.trace.complete, result.trace.reasons
    assert {"read.db", "uri.db"} <= result.names("read")
    assert result.names("update") == {"written.db"}
    assert "new.db" in result.names("write")
    assert "read.db-journal" in result.names("absent")


def test_numpy_maps_files(project: Project, means: tuple[str, ...] | None) -> None:
    pytest.importorskip("numpy")
    project.write("a.bin", bytes(80))
    project.write("b.bin", bytes(80))
    result = project.script(
        """
        import numpy as np
        print(np.memmap('a.bin', dtype='f8', mode='r').sum(), np.fromfile('b.bin').sum())
        np.save('c.npy', np.zeros(3)); np.load('c.npy', mmap_mode='r')
        """,
        means=means,
    )
    assert result.trace.complete, result.trace.reasons
    assert result.names("read") == {"main.py", "a.bin", "b.bin"}
    assert result.names("write") == {"c.npy"}
    assert "numpy" in result.trace.distributions


def test_pandas_csv_is_an_ordinary_run(project: Project, means: tuple[str, ...] | None) -> None:
    pytest.importorskip("pandas")
    project.write("data.csv", "a,b\n1,2\n")
    result = project.script("import pandas as pd\npd.read_csv('data.csv').to_csv('out.csv')", means=means)
    assert result.trace.complete, result.trace.reasons
    assert result.names("read") == {"main.py", "data.csv"}
    assert result.names("write") == {"out.csv"}
    assert {"pandas", "numpy"} <= result.trace.distributions.keys()


def test_undecodable_and_odd_names(project: Project, means: tuple[str, ...] | None) -> None:
    names = [b"caf\xe9", "naïve".encode(), b"with\nnewline", b"with\ttab and space"]
    for name in names:
        (project.root / os.fsdecode(name)).write_bytes(b"x")
    result = project.script("import os\nfor n in os.listdir(b'.'):\n    open(n, 'rb').read()", means=means)
    assert {os.fsdecode(name) for name in names} <= result.names("read")


def test_a_link_to_itself(project: Project, means: tuple[str, ...] | None) -> None:
    (project.root / "loop").symlink_to("loop")
    result = project.script(
        "import os\nos.path.exists('loop')\ntry: open('loop')\nexcept OSError as e: print(type(e).__name__)",
        means=means,
    )
    assert result.stdout == "OSError\n"
    assert result.trace.complete, result.trace.reasons


def test_devices_and_pipes(project: Project, means: tuple[str, ...] | None) -> None:
    os.mkfifo(project.root / "pipe")
    quiet = project.script(
        "open('/dev/null').read(); open('/dev/urandom', 'rb').read(1); open('/proc/self/stat').read()",
        means=means,
    )
    assert quiet.trace.complete, quiet.trace.reasons
    assert quiet.names("read") == {"main.py"}
    piped = project.script("import os\nos.open('pipe', os.O_RDONLY | os.O_NONBLOCK)", means=means)
    assert not piped.trace.complete
    assert piped.trace.reasons[0].startswith("fifo: ")


def test_a_hundred_thousand_names_are_not_too_many(project: Project, means: tuple[str, ...] | None) -> None:
    project.write("data/x", "1")
    result = project.script(
        """
        import os
        for i in range(3000): os.path.exists(f'data/{i}')
        for i in range(20000):
            with open('data/x') as f: pass
        """,
        means=means,
    )
    assert result.trace.complete, result.trace.reasons
    assert len(result.names("absent")) >= 3000
    assert len([a for a in result.trace.every_access() if a.path.endswith("/x")]) == 1


def test_very_many_files_are_seen_as_few_are(project: Project, means: tuple[str, ...] | None) -> None:
    """Files written before they are read, read before they are written, removed, and in a directory made or moved by the run."""
    count = 3 * MANY // 2
    for number in range(count):
        project.write(f"data/{number % 7}/{number}", str(number))
    project.write("data/old/moved", "1")
    result = project.script(
        f"""
        import os
        os.mkdir('made')
        for number in range({MANY}):
            with open(f'made/{{number}}', 'w') as file: file.write('1')
        open('data/0/0', 'w').close()
        open('data/old/moved').close()
        os.rename('data/old', 'data/new')
        for number in range({count}):
            open(f'data/{{number % 7}}/{{number}}').close()
        for number in range({MANY}):
            open(f'made/{{number}}').close()
        open('data/new/moved').close()
        open('data/1/1', 'a').close()
        open('data/2/2', 'w').write('2')
        os.remove('data/3/3')
        """,
        means=means,
    )
    assert result.trace.complete, result.trace.reasons
    data = {f"data/{number % 7}/{number}" for number in range(count)}
    assert result.names("read") == {"main.py", "data/old/moved", *data} - {"data/0/0"}
    assert result.access("data/2/2", "write").detail == ""
    assert result.access("data/3/3", "write").detail == "deleted"
    assert {f"made/{number}" for number in range(MANY)} <= result.names("write")
    for number in (5, 6, count - 1):
        status = (project.root / f"data/{number % 7}/{number}").stat()
        seen = result.access(f"data/{number % 7}/{number}", "read").stat
        assert seen is not None
        assert (seen.inode, seen.ctime_ns) == (status.st_ino, status.st_ctime_ns)
    if means is None and columns() is not None and result.access("data/5/5", "read").by == {"preload"}:
        assert len(result.trace.plain) == count - 4, "all but those that something else happened to"
