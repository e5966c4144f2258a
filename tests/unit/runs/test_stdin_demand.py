"""Piped input is taken only when somebody waits for it, whatever the way of waiting."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = str(Path(__file__).with_name("supervise_driver.py"))
PATIENCE_SECONDS = 30
DATA = b"one\ntwo\nthree\n"

pytestmark = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "aarch64"} or not Path("/proc/self/syscall").exists(),
    reason="this machine does not say who waits for input, so it is always passed on",
)


def supervised(report: Path, *command: str) -> list[str]:
    return [sys.executable, DRIVER, str(report), "--", *command]


def feed(words: list[str], data: bytes = DATA) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, input=data, capture_output=True, check=False, timeout=PATIENCE_SECONDS)


READERS = {
    "read": "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())",
    "read late": "import sys, time; time.sleep(0.4); sys.stdout.buffer.write(sys.stdin.buffer.read())",
    "readv": (
        "import os\nwhile True:\n b = bytearray(5); n = os.readv(0, [b])\n if not n: break\n os.write(1, b[:n])"
    ),
    "another name": "import sys; sys.stdout.write(open('/dev/stdin').read())",
    "another number": "import os\nfd = os.dup(0); os.close(0)\nwhile d := os.read(fd, 9): os.write(1, d)",
    "another thread": (
        "import sys, threading\n"
        "t = threading.Thread(target=lambda: sys.stdout.write(sys.stdin.read())); t.start(); t.join()"
    ),
    "poll": (
        "import os, select\np = select.poll(); p.register(1, 0); p.register(0, select.POLLIN)\n"
        "while p.poll(10000):\n d = os.read(0, 9)\n if not d: break\n os.write(1, d)"
    ),
    "select": (
        "import os, select\n"
        "while select.select([0], [], [], 10)[0]:\n d = os.read(0, 9)\n if not d: break\n os.write(1, d)"
    ),
    "epoll": (
        "import os, select\np = select.epoll(); p.register(0, select.EPOLLIN)\n"
        "while p.poll(10):\n d = os.read(0, 9)\n if not d: break\n os.write(1, d)"
    ),
    "not blocking": (
        "import os, time\nos.set_blocking(0, False)\n"
        "while True:\n"
        " try: d = os.read(0, 9)\n"
        " except BlockingIOError: time.sleep(0.01); continue\n"
        " if not d: break\n"
        " os.write(1, d)"
    ),
    "asyncio": (
        "import asyncio, sys\n"
        "async def main():\n"
        " r = asyncio.StreamReader(); loop = asyncio.get_running_loop()\n"
        " await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(r), sys.stdin)\n"
        " sys.stdout.buffer.write(await r.read())\n"
        "asyncio.run(main())"
    ),
    "grandchild": "import subprocess; subprocess.run(['cat'])",
    "splice": "import os\nwhile n := os.splice(0, 1, 9): pass",
}


@pytest.mark.parametrize("name", READERS)
def test_whoever_waits_for_input_gets_it(tmp_path: Path, name: str) -> None:
    done = feed(supervised(tmp_path / "report", sys.executable, "-c", READERS[name]))
    assert (done.stdout, done.stderr, done.returncode) == (DATA, b"", 0)
    said = json.loads((tmp_path / "report").read_text())
    assert (said["stdin_bytes"], said["stdin_complete"]) == (len(DATA), True)
    assert said["stdin_sha256"] == hashlib.sha256(DATA).hexdigest()


NON_READERS = {
    "nothing": "pass",
    "work": "import time\nend = time.monotonic() + 0.5\nwhile time.monotonic() < end: sum(range(999))",
    "sleep": "import time; time.sleep(0.5)",
    "workers": "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as p: print(sum(p.map(abs, range(99))))",
    "other pipe": "import os, threading\nr, w = os.pipe(); threading.Timer(0.4, os.close, [w]).start(); os.read(r, 1)",
    "child": "import subprocess; subprocess.run(['sleep', '0.4'])",
}


@pytest.mark.parametrize("name", NON_READERS)
def test_input_that_nobody_reads_stays_in_its_pipe(tmp_path: Path, name: str) -> None:
    source, sink = os.pipe()
    os.write(sink, DATA)
    os.close(sink)
    words = supervised(tmp_path / "report", sys.executable, "-c", NON_READERS[name])
    with os.fdopen(source, "rb") as pipe:
        done = subprocess.run(words, stdin=pipe, capture_output=True, check=False, timeout=PATIENCE_SECONDS)
        assert pipe.read() == DATA
    assert done.returncode == 0
    said = json.loads((tmp_path / "report").read_text())
    assert (said["stdin_kind"], said["stdin_sha256"], said["stdin_complete"]) == ("pipe", None, True)


def test_a_script_fed_to_a_shell_is_not_swallowed(tmp_path: Path) -> None:
    script = f'for n in 1 2; do "{sys.executable}" "{DRIVER}" {tmp_path}/report -- echo run $n; done\necho end of script\n'
    assert feed(["bash"], script.encode()).stdout == b"run 1\nrun 2\nend of script\n"


def test_a_loop_over_piped_lines_sees_them_all(tmp_path: Path) -> None:
    script = f'while read n; do "{sys.executable}" "{DRIVER}" {tmp_path}/report -- echo run $n; done'
    assert feed(["bash", "-c", script], b"1\n2\n3\n").stdout == b"run 1\nrun 2\nrun 3\n"
