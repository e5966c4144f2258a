"""A command under supervision on a real terminal: what it sees, what the keyboard does, what is left behind."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DRIVER = str(Path(__file__).with_name("supervise_driver.py"))
PATIENCE_SECONDS = 30


class Terminal:
    """A terminal with a keyboard, a screen and a program that has it as its controlling terminal."""

    def __init__(self, words: list[str], columns: int = 80, rows: int = 24) -> None:
        self.controller, self.end = pty.openpty()
        self.resize(columns, rows)
        self.modes = termios.tcgetattr(self.end)
        self._screen = bytearray()
        self._changed = threading.Condition()
        self._is_open = True
        words = ["setsid", "--ctty", *words]
        self.process = subprocess.Popen(words, stdin=self.end, stdout=self.end, stderr=self.end)
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while self._is_open:
            if not select.select([self.controller], [], [], 0.02)[0]:
                continue
            try:
                chunk = os.read(self.controller, 65536)
            except OSError:
                return
            with self._changed:
                self._screen += chunk
                self._changed.notify_all()

    @property
    def screen(self) -> bytes:
        return bytes(self._screen)

    def wait_for(self, pattern: bytes, count: int = 1) -> None:
        with self._changed:
            seen = self._changed.wait_for(
                lambda: len(re.findall(pattern, self._screen)) >= count, PATIENCE_SECONDS
            )
        assert seen, f"waited in vain for {pattern!r} on\n{self.screen.decode(errors='replace')}"

    def press(self, keys: bytes) -> None:
        os.write(self.controller, keys)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def hang_up(self) -> None:
        """Close the window."""
        if self._is_open:
            self._is_open = False
            self._reader.join()
            os.close(self.end)
            os.close(self.controller)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.hang_up()


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.json"


@pytest.fixture
def supervised(report: Path) -> Callable[..., list[str]]:
    return lambda *command: [sys.executable, DRIVER, str(report), "--", *command]


@pytest.fixture
def opened() -> Iterator[Callable[[list[str]], Terminal]]:
    terminals: list[Terminal] = []

    def open_terminal(words: list[str]) -> Terminal:
        terminals.append(Terminal(words))
        return terminals[-1]

    yield open_terminal
    for terminal in terminals:
        terminal.close()


Opened = Callable[[list[str]], Terminal]
Supervised = Callable[..., list[str]]


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-u", "-c", code)


# --- what the command sees ---------------------------------------------------------------------------------------


def test_the_command_has_a_terminal_on_all_streams(opened: Opened, supervised: Supervised) -> None:
    terminal = opened(
        supervised(*python("import os; print([os.isatty(n) for n in range(3)], os.ttyname(0))"))
    )
    assert terminal.wait() == 0
    terminal.wait_for(rb"\[True, True, True\] /dev/pts/\d+\r\n")


def test_output_on_the_screen_is_byte_for_byte_that_of_a_plain_run(
    opened: Opened, supervised: Supervised, report: Path
) -> None:
    code = (
        "import sys\n"
        "for i in range(50):\n"
        "    sys.stderr.write(f'\\r{i}%|####|'); sys.stderr.flush()\n"
        "    if i % 10 == 0: print(f'\\x1b[32mepoch {i}\\x1b[0m\\ttab'); sys.stdout.flush()\n"
        "sys.stdout.buffer.write(bytes(range(32, 256)) + b'end\\n')\n"
    )
    plain, watched = opened([*python(code)]), opened(supervised(*python(code)))
    assert (plain.wait(), watched.wait()) == (0, 0)
    plain.wait_for(b"end\r\n")
    watched.wait_for(b"end\r\n")
    assert watched.screen == plain.screen
    said = json.loads(report.read_text())
    assert said["merged"]
    assert said["stdout"].encode(errors="surrogateescape") == plain.screen.replace(b"\r\n", b"\n")


def test_the_window_has_the_real_size_and_follows_it(opened: Opened, supervised: Supervised) -> None:
    code = (
        "import os, signal, time\n"
        "def show(*_): print('size', *os.get_terminal_size(1), *os.get_terminal_size(0))\n"
        "signal.signal(signal.SIGWINCH, show)\n"
        "show()\n"
        "while True: time.sleep(0.01)\n"
    )
    terminal = opened(supervised(*python(code)))
    terminal.wait_for(rb"size 80 24 80 24")
    terminal.resize(132, 50)
    terminal.wait_for(rb"size 132 50 132 50")
    terminal.resize(40, 10)
    terminal.wait_for(rb"size 40 10 40 10")


def test_the_keyboard_reaches_the_command_directly(opened: Opened, supervised: Supervised) -> None:
    terminal = opened(supervised("bash", "-c", "read -p 'name? ' name; echo hello $name"))
    terminal.wait_for(rb"name\? ")
    terminal.press(b"ann\n")
    terminal.wait_for(rb"hello ann")
    assert terminal.wait() == 0


def test_a_password_is_read_without_showing_and_without_being_kept(
    opened: Opened, supervised: Supervised, report: Path
) -> None:
    code = "import getpass; print('got', len(getpass.getpass('word: ')))"
    terminal = opened(supervised(*python(code)))
    terminal.wait_for(rb"word: ")
    terminal.press(b"hunter2\n")
    terminal.wait_for(rb"got 7")
    assert terminal.wait() == 0
    assert b"hunter2" not in terminal.screen
    assert "hunter2" not in report.read_text()


def test_standard_error_keeps_its_terminal_when_output_goes_into_a_pipe(
    opened: Opened, supervised: Supervised, report: Path
) -> None:
    command = python("import os, sys; print([os.isatty(n) for n in (1, 2)]); print('bar', file=sys.stderr)")
    words = supervised(*command)
    terminal = opened(["bash", "-c", '"$@" | cat', "bash", *words])
    assert terminal.wait() == 0
    terminal.wait_for(rb"\[False, True\]")
    said = json.loads(report.read_text())
    assert (said["merged"], said["stdout"], said["stderr"]) == (False, "[False, True]\n", "bar\n")


# --- interrupts --------------------------------------------------------------------------------------------------

# Not a shell that starts a program: one that is interrupted at that moment may miss it, with or without supervision.
WAIT = "print('ready'); import time; time.sleep(60)"

# Counts in the handler that the kernel calls: two signals in quick succession are one to a handler written in Python.
COUNT = """
import os, select, signal, sys
reader, writer = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(writer)
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
print('ready', flush=True)
got = b''
while select.select([reader], [], [], 0.3 if got else 30)[0]:
    got += os.read(reader, 9)
print('got', *(signal.Signals(number).name for number in got), flush=True)
sys.exit(10 + len(got))
"""


@pytest.mark.parametrize(("key", "name"), [(b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")])
@pytest.mark.parametrize("through", ["terminal", "pipe"])
def test_a_key_that_interrupts_does_so_once(
    opened: Opened, supervised: Supervised, report: Path, key: bytes, name: str, through: str
) -> None:
    words = supervised(*python(COUNT))
    if through == "pipe":  # the reader ignores the key, so that it is there to show what comes
        script = 'set -o pipefail; "$@" | (trap "" INT QUIT; cat)'
        words = ["bash", "-c", f"trap : INT QUIT; {script}; exit $?", "bash", *words]
    terminal = opened(words)
    terminal.wait_for(b"ready")
    terminal.press(key)
    assert terminal.wait() == 11
    terminal.wait_for(f"got {name}\r".encode())
    assert json.loads(report.read_text())["interrupted"]


def test_a_signal_sent_to_the_supervisor_of_a_foreground_job_arrives_once(
    opened: Opened, supervised: Supervised
) -> None:
    terminal = opened(supervised(*python(COUNT)))
    terminal.wait_for(b"ready")
    os.kill(terminal.pid, signal.SIGINT)
    assert terminal.wait() == 11
    terminal.wait_for(rb"got SIGINT\r")


@pytest.mark.parametrize("name", ["SIGTERM", "key"])
def test_with_another_thread_signals_still_arrive_once(opened: Opened, report: Path, name: str) -> None:
    terminal = opened([sys.executable, DRIVER, str(report), "--thread", "--", *python(COUNT)])
    terminal.wait_for(b"ready")
    if name == "key":
        terminal.press(b"\x03")
    else:
        os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.wait() == 11


def test_an_interrupted_command_ends_the_supervisor_by_the_same_signal(
    opened: Opened, supervised: Supervised, report: Path
) -> None:
    terminal = opened(supervised(*python(WAIT)))
    terminal.wait_for(b"ready")
    terminal.press(b"\x03")
    assert terminal.wait() == -signal.SIGINT
    said = json.loads(report.read_text())
    assert (said["exit_status"], said["signal"], said["interrupted"]) == (130, signal.SIGINT, True)
    assert "KeyboardInterrupt" in said["stdout"]


def test_a_shell_script_stops_at_an_interrupt_as_without_supervision(
    opened: Opened, supervised: Supervised
) -> None:
    terminal = opened(["bash", "-c", '"$@"; echo went on', "bash", *supervised(*python(WAIT))])
    terminal.wait_for(b"ready")
    terminal.press(b"\x03")
    assert terminal.wait() == -signal.SIGINT
    assert b"went on" not in terminal.screen


def test_a_terminal_that_goes_away_ends_the_command(
    opened: Opened, supervised: Supervised, tmp_path: Path
) -> None:
    script = f"trap 'echo hangup > {tmp_path}/hangup; exit' HUP; echo ready; while :; do sleep 0.02; done"
    terminal = opened(supervised("sh", "-c", script))
    terminal.wait_for(b"ready")
    terminal.hang_up()
    end = time.monotonic() + PATIENCE_SECONDS
    while not (tmp_path / "hangup").exists():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- job control -------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(opened: Opened, tmp_path: Path) -> Terminal:
    """An interactive shell with job control and a plain prompt."""
    terminal = opened(["env", "PS1=prompt> ", "HISTFILE=", "bash", "--norc", "--noprofile", "-i"])
    terminal.wait_for(b"prompt> ")
    terminal.press(b"bind 'set enable-bracketed-paste off'\n")
    terminal.wait_for(b"prompt> ", 2)
    return terminal


def quoted(words: list[str]) -> bytes:
    return shlex.join(words).encode()


# Not a shell's loop: a shell that is suspended while it starts a program waits for that program, which is suspended too.
LOOP = "import time\nfor i in range(1, 1000): print(f'tick {i}'); time.sleep(0.02)"


def test_suspending_and_resuming_works_as_for_any_job(
    shell: Terminal, supervised: Supervised, report: Path
) -> None:
    shell.press(quoted(supervised(*python(LOOP))) + b"\n")
    shell.wait_for(b"tick 5\r")
    shell.press(b"\x1a")
    shell.wait_for(rb"Stopped")
    shell.wait_for(b"prompt> ", 3)
    ticks = len(re.findall(rb"tick \d+\r", shell.screen))
    shell.press(b"sleep 0.3; echo still $?\n")
    shell.wait_for(rb"still 0")
    assert len(re.findall(rb"tick \d+\r", shell.screen)) == ticks  # nothing ran meanwhile
    shell.press(b"fg\n")
    shell.wait_for(b"tick %d\r" % (ticks + 5))
    shell.press(b"\x03")
    shell.wait_for(b"prompt> ", 5)
    shell.press(b"echo status $?\n")
    shell.wait_for(rb"status 130")
    assert json.loads(report.read_text())["interrupted"]


def test_a_background_job_that_reads_the_keyboard_is_stopped_as_ever(
    shell: Terminal, supervised: Supervised
) -> None:
    shell.press(quoted(supervised("sh", "-c", "echo asking; read line; echo read $line")) + b" &\n")
    shell.wait_for(rb"asking")
    shell.wait_for(rb"\d\r?\n?.*prompt> ")
    end = time.monotonic() + PATIENCE_SECONDS
    while b"Stopped" not in shell.screen:
        assert time.monotonic() < end
        shell.press(b"jobs\n")
        time.sleep(0.1)
    shell.press(b"fg\n")
    shell.press(b"word\n")
    shell.wait_for(rb"read word")


def test_a_background_job_goes_on_writing(shell: Terminal, supervised: Supervised) -> None:
    shell.press(quoted(supervised("sh", "-c", "sleep 0.2; echo from behind; exit 3")) + b" &\n")
    shell.wait_for(rb"from behind\r\n")
    shell.press(b"wait %1; echo status $?\n")
    shell.wait_for(rb"status 3")


def test_a_command_held_by_somebody_else_does_not_suspend_us(
    shell: Terminal, supervised: Supervised, tmp_path: Path
) -> None:
    script = f"import os\nopen('{tmp_path}/pid', 'w').write(str(os.getpid()))\n{LOOP}"
    shell.press(quoted(supervised(*python(script))) + b"\n")
    shell.wait_for(b"tick 3\r")
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.3)
    seen = len(shell.screen)
    os.kill(pid, signal.SIGCONT)
    end = time.monotonic() + PATIENCE_SECONDS
    while len(shell.screen) < seen + 20:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert b"Stopped" not in shell.screen
    shell.press(b"\x03")
    shell.wait_for(b"prompt> ", 3)


# --- what is left behind -----------------------------------------------------------------------------------------

RAW = """
import os, sys, termios, tty, time
saved = termios.tcgetattr(1)
tty.setraw(1)
os.write(1, b'raw')
key = os.read(0, 1)
os.write(1, b'key %r' % key)
if sys.argv[1:] == ['restore']:
    termios.tcsetattr(1, termios.TCSADRAIN, saved)
    print(); print('restored'); input()
"""


def modes(terminal: Terminal) -> list[object]:
    return termios.tcgetattr(terminal.end)


@pytest.mark.parametrize("ending", ["restore", "leave"])
def test_modes_set_by_a_full_screen_program_reach_the_keyboard_and_are_put_back(
    opened: Opened, supervised: Supervised, ending: str
) -> None:
    terminal = opened(supervised(sys.executable, "-u", "-c", RAW, ending))
    terminal.wait_for(b"raw")
    end = time.monotonic() + PATIENCE_SECONDS
    while modes(terminal)[3] & termios.ICANON:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert not modes(terminal)[1] & termios.OPOST
    terminal.press(b"\x03")  # in raw mode a character like any other
    terminal.wait_for(rb"key b'\\x03'")
    if ending == "restore":
        terminal.wait_for(b"restored\r\n")
        assert modes(terminal) == terminal.modes
        terminal.press(b"\n")
    assert terminal.wait() == 0
    assert modes(terminal) == terminal.modes


def test_a_supervisor_that_is_killed_leaves_the_terminal_as_it_was(
    opened: Opened, supervised: Supervised
) -> None:
    terminal = opened(supervised("sh", "-c", "echo ready; sleep 60 >/dev/null 2>&1"))
    terminal.wait_for(b"ready")
    assert modes(terminal) == terminal.modes
    os.kill(terminal.pid, signal.SIGKILL)
    assert terminal.wait() == -signal.SIGKILL
    assert modes(terminal) == terminal.modes


def test_a_command_that_does_not_exist_leaves_the_terminal_as_it_was(
    opened: Opened, supervised: Supervised
) -> None:
    terminal = opened(supervised("no-such-command-here"))
    assert terminal.wait() == 127
    terminal.wait_for(rb"no-such-command-here: command not found")
    assert modes(terminal) == terminal.modes


def test_a_terminal_that_is_not_the_controlling_one_is_still_a_terminal(
    supervised: Supervised, report: Path
) -> None:
    controller, end = pty.openpty()
    words = supervised(*python("import os; print(os.isatty(1))"))
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=end, stderr=end, start_new_session=True
    )
    os.close(end)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert os.read(controller, 100) == b"True\r\n"
    os.close(controller)
