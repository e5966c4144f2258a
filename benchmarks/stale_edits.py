"""Edits while a recorded run is under way, each at a moment that is certain and not only likely.

The scripts here say where they are, in a line on standard error, and go on when a signal tells them to: neither is a file, a
variable or an input, so nothing of it is among what a run is recognised by. The four moments:

* *before the first open*: Lichen has looked at the state before the run, the script has opened nothing yet;
* *between open and end*: what was read once will be read again;
* *after the last read*: nothing will be read any more, the script has still to end;
* *after the exit*: the script is gone, and Lichen, held by a signal, has hashed nothing yet.

Some edits are taken back at a later moment, so that what a script saw was never there before or after. Whatever is recorded as
reusable must then be what the plain command makes of the state that is on disk.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stale_corpus import MODULE, Case, Writer, case, write_hdf5, write_parquet, write_sqlite, write_text
from stale_scene import LICHEN, Scene, Truth, campaign_environment, digest

__all__ = ["MOMENTS", "SCRIPTS", "Edit", "EditedScene", "edits_planned"]

BEGUN, OPENED, READ, EXITED = "begun", "opened", "read", "exited"
MOMENTS = {
    BEGUN: "before the first open",
    OPENED: "between open and end",
    READ: "after the last read",
    EXITED: "after the exit",
}
Content = bytes | str | None
WAYS = ("in place", "in place, times kept", "by renaming", "through a mapping")
ANSWER_SECONDS_MAX = 60
_BACK_SHARE = 0.35  # of the edits, which are taken back

STATIONS = (
    "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\ndef at(station):\n"
    "    os.write(2, f'@{station} {os.getpid()}\\n'.encode())\n"
    f"    if signal.sigtimedwait({{signal.SIGUSR1}}, {ANSWER_SECONDS_MAX}) is None:\n        raise SystemExit('nobody answered')\n"
)


def write_line(path: Path, seed: int) -> None:
    """Write a file whose size does not depend on the seed."""
    path.write_text(f"line {seed:010d}\n")


def write_other(path: Path, seed: int) -> None:
    """Write another file than `write_line` of the same seed does."""
    write_line(path, seed + 1_000_000)


def _script(name: str, reads: str, before: str = "", **more: object) -> Case:
    """Make a script that reads everything twice, with the stations around and between."""
    body = (
        f"{before}def look():\n    try:\n        return {reads}\n    except OSError as error:\n        return type(error).__name__\nat('{BEGUN}')\nfirst = look()\nat('{OPENED}')\nsecond = look()\n"
        f"at('{READ}')\nsave(first, second)\n"
    )
    return case(name, STATIONS + body, **more)  # type: ignore[arg-type]


_TWO: dict[str, Writer] = {"one.txt": write_line, "two.txt": write_other}

SCRIPTS: tuple[Case, ...] = (
    _script("edited_text", "open('d.txt').read()", data={"d.txt": write_line}),
    _script(
        "edited_names",
        "sorted(os.listdir('items')), os.path.exists('flag'), pathlib.Path('items/x.txt').read_text()",
        data={"items/x.txt": write_line}, listed=("items",), absent={"flag": "set"},
    ),
    _script("edited_module", "__import__('helper').f(1)", code={"helper.py": MODULE}),
    _script(
        "edited_mapping", "mapped[:].decode()", data={"d.txt": write_line},
        before="import mmap\nfile = None\nclass Mapped:\n    def __getitem__(self, part):\n        global file\n"
        "        file = file or mmap.mmap(os.open('d.txt', os.O_RDONLY), 0, access=mmap.ACCESS_READ)\n        return file[part]\nmapped = Mapped()\n",
    ),
    _script("edited_parquet", "pq.read_table('d.parquet', memory_map=True).column('a').to_pylist()", before="import pyarrow.parquet as pq\n", data={"d.parquet": write_parquet}),
    _script("edited_hdf5", "[int(n) for n in h5py.File('d.h5')['a'][:]]", before="import h5py\n", data={"d.h5": write_hdf5}),
    _script("edited_sqlite", "sqlite3.connect('file:d.db?mode=ro', uri=True).execute('SELECT SUM(a) FROM t').fetchone()", before="import sqlite3\n", data={"d.db": write_sqlite}),
    _script("edited_program", "subprocess.run(['cat', 'd.txt'], capture_output=True, text=True).stdout", before="import subprocess\n", data={"d.txt": write_line}),
    _script("edited_size", "os.path.getsize('d.txt'), os.access('d.txt', os.X_OK), os.path.isdir('part')", data={"d.txt": write_text}, absent={"part": "file"}),
    _script("edited_times", "os.stat('d.txt').st_mtime_ns, oct(os.stat('e.txt').st_mode)", data={"d.txt": write_line, "e.txt": write_line}, sees_times=True),
    _script("edited_link", "open('current').read()", links={"current": ("one.txt", "two.txt", "")}, data=_TWO),
    _script("edited_link_resolved", "open(os.path.realpath('current')).read()", links={"current": ("one.txt", "two.txt", "")}, data=_TWO),
    _script("edited_link_read", "open(os.readlink('current')).read()", links={"current": ("one.txt", "two.txt", "")}, data=_TWO),
    _script("edited_link_above", "open(os.path.realpath('current') + '/d.txt').read()", links={"current": ("one", "two", "")}, data={"one/d.txt": write_line, "two/d.txt": write_other}),
    _script("edited_outside", "open(sys.argv[1] + '/d.txt').read()", before="import sys\n", data={"@d.txt": write_line}, argv=("{outside}",)),
)  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """One edit of one file.

    Args:
        target: The file, as the scene names it.
        content: What it becomes: bytes of a file, text that a symbolic link holds, or None, which removes it.
        moment: When.
        way: How.
        back: When it is taken back; None when it stays.
    """

    target: str
    content: Content
    moment: str
    way: str
    back: str | None


def _contents(writer: Writer, seed: int) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "made"
        writer(path, seed)
        return path.read_bytes()


def _changes(script: Case, number: int) -> list[tuple[str, Callable[[Path], Content]]]:
    """What may be edited of a script's world, with what it becomes."""
    changes: list[tuple[str, Callable[[Path], Content]]] = [
        (name, lambda _, writer=writer: _contents(writer, number + 2))  # type: ignore[misc]
        for name, writer in script.data.items()
    ]
    changes += [(f"{name}/{number}.txt", lambda _: b"new") for name in script.listed]
    changes += [
        (name, lambda path, content=content: None if path.exists() else content.encode())  # type: ignore[misc]
        for name, content in script.absent.items()
    ]
    if "helper.py" in script.code:
        changes.append(("helper.py", lambda _: MODULE.replace("K = 1", f"K = {number % 90 + 10}").encode()))
    changes += [
        (name, lambda path, targets=targets: _other_target(path, targets, number))  # type: ignore[misc]
        for name, targets in script.links.items()
    ]
    changes.append(("main.py", lambda path: path.read_bytes() + f"# {number}\n".encode()))
    return changes


def _other_target(path: Path, targets: tuple[str, ...], number: int) -> Content:
    """Where a link may point as well; that it is gone is one of the possibilities."""
    others = [target for target in targets if target != (_content_of(path) or "")]
    return others[number // len(MOMENTS) % len(others)] or None


def _content_of(path: Path) -> Content:
    if path.is_symlink():
        return str(path.readlink())
    return path.read_bytes() if path.exists() else None


def edits_planned(scene: EditedScene, number: int, moment: str) -> Edit:
    """Choose an edit for a moment; a script itself is edited only when it has been opened."""
    rng = scene.rng
    changes = _changes(scene.case, number)
    if moment == BEGUN or rng.random() < 0.8:
        changes = changes[:-1]
    target, content = rng.choice(changes)
    later = list(MOMENTS)[list(MOMENTS).index(moment) :]
    back = rng.choice(later) if rng.random() < _BACK_SHARE else None
    return Edit(target, content(scene.path(target)), moment, rng.choice(WAYS), back)


def put(path: Path, content: Content, way: str) -> None:
    """Give a file other content, or take it away."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    times = path.stat() if path.is_file() else None
    if isinstance(content, str) or path.is_symlink() or way == "by renaming":
        new = path.parent.parent / f"{path.name}.new"
        if isinstance(content, str):
            new.symlink_to(content)
        else:
            new.write_bytes(content)
        new.replace(path)
    elif way == "through a mapping" and times is not None and 0 < times.st_size == len(content):
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[:] = content
    else:
        path.write_bytes(content)
    if way == "in place, times kept" and times is not None and not path.is_symlink():
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@dataclass
class EditedScene(Scene):
    """A scene whose script says where it is and waits for an answer.

    Args:
        acts: What to do at which moment, while the script waits; for the next run under Lichen.
        seen: Moments at which something was done in that run.
    """

    acts: dict[str, Callable[[], None]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def record_edited(self, edit: Edit) -> dict[str, object]:
        """Record a run, and edit meanwhile.

        Raises:
            RuntimeError: The moment did not come; then nothing was tried.
        """
        path = self.path(edit.target)
        before = _content_of(path)
        ways: list[tuple[str, Content]] = [(edit.moment, edit.content)]
        if edit.back is not None:
            ways.append((edit.back, before))

        def act_at(moment: str) -> Callable[[], None]:
            def act() -> None:
                for when, content in ways:
                    if when == moment:
                        put(path, content, edit.way)

            return act

        self.acts = {moment: act_at(moment) for moment, _ in ways}
        self.seen = []
        told = self.record()
        self.acts = {}
        if (
            edit.moment not in self.seen
        ):  # the moment to take it back may not come: an edit can end a script early
            raise RuntimeError(f"{self.case.name}: nothing was edited {MOMENTS[edit.moment]}")
        return told

    def lichen(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a Lichen command in the project, answering its script."""
        return self._conducted([LICHEN, *words], self.acts, self.full_environment())

    def run_plainly(self) -> Truth:
        """Run the script without Lichen, answering at once."""
        self.clear_outputs()
        environment = {**self.full_environment(), "PYTHONDONTWRITEBYTECODE": "1"}
        done = self._conducted(self.command(), {}, environment)
        truth = Truth(done.returncode, self.outcome(), digest(done.stdout.encode()))
        self.clear_outputs()
        return truth

    def _conducted(
        self, command: list[str], acts: dict[str, Callable[[], None]], environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; do what is to be done at each station of its script, and tell it to go on."""
        said: list[str] = []
        process = subprocess.Popen(
            command, cwd=self.project, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        printed: list[str] = []
        reading = threading.Thread(
            target=lambda stream: printed.append(stream.read()), args=(process.stdout,)
        )
        reading.start()
        try:
            for line in process.stderr:
                if line.startswith("@"):
                    station, pid = line[1:].split()
                    self._answer(station, int(pid), process.pid, acts)
                else:
                    said.append(line)
            process.wait(ANSWER_SECONDS_MAX)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            reading.join()
            process.stdout.close()
            process.stderr.close()
        return subprocess.CompletedProcess(command, process.returncode, "".join(printed), "".join(said))

    def _answer(self, station: str, script: int, lichen: int, acts: dict[str, Callable[[], None]]) -> None:
        """Act, and let the script go on; behind its last station, hold Lichen until the script is gone."""
        if station in acts:
            acts[station]()
            self.seen.append(station)
        if station != READ or EXITED not in acts:
            os.kill(script, signal.SIGUSR1)
            return
        with _held(lichen):
            os.kill(script, signal.SIGUSR1)
            _wait_for(lambda: _state(script) in ("Z", "X", ""))
            acts[EXITED]()
            self.seen.append(EXITED)


@contextlib.contextmanager
def _held(process: int) -> Iterator[None]:
    """Hold a process by a signal."""
    os.kill(process, signal.SIGSTOP)
    try:
        _wait_for(lambda: _state(process) == "T")
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def _state(process: int) -> str:
    """State of a process as the kernel has it; empty when it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + ANSWER_SECONDS_MAX
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("the moment did not come")
        time.sleep(0.002)


def edits_during_runs(
    root: Path, first: int, count: int, seed: int, names: Collection[str] = ()
) -> Iterator[tuple[EditedScene, Edit, dict[str, object]]]:
    """Edit while recorded runs are under way, moment after moment and script after script.

    Args:
        root: Directory to work in; it is removed.
        first: Number of the first edit; numbers decide on moments and scripts.
        count: How many edits.
        seed: Of the random choices.
        names: Only these scripts; all of them when empty.

    Yields:
        The scene as the edit left it, the edit, and the report of the run.

    Raises:
        RuntimeError: A script cannot be reused even when nobody edits, or a moment did not come.
    """
    scripts = [script for script in SCRIPTS if not names or script.name in names]
    scenes: dict[str, EditedScene] = {}
    for number in range(first, first + count):
        script = scripts[number // len(MOMENTS) % len(scripts)]
        if script.name not in scenes:
            rng, directory = random.Random(f"{seed}/{first}/{script.name}"), root / script.name
            scenes[script.name] = EditedScene(script, directory, rng, campaign_environment(directory))
            scenes[script.name].lay_out()
            if not (told := scenes[script.name].record())["reusable"]:
                raise RuntimeError(f"{script.name} may not answer even unedited: {told['reasons']}")
        scene = scenes[script.name]
        edit = edits_planned(scene, number, list(MOMENTS)[number % len(MOMENTS)])
        yield scene, edit, scene.record_edited(edit)
    shutil.rmtree(root)
