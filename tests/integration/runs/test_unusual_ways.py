"""Variables and files that a run gets at by ways on which no name is asked for, or past the C library that is watched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.runs.conftest import Person

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="without a C compiler native programs are not watched"
)
WITH_ENVIRON = '#include <string.h>\n#include <stdio.h>\nextern char **environ;\nint main() { for (char **e = environ; *e; e++) if (!strncmp(*e, "FOO", 3)) puts(*e); }\n'


def told(person: Person, *command: str) -> tuple[str, str]:
    """Run a command that may answer; return whether it was answered, and what it printed."""
    report = person.run("--exit-ok", "--", *command)
    assert report["reusable"] or report["status"] == "hit", report.get("reasons")
    return report["status"], person.output.strip()


@needs_compiler
@pytest.mark.parametrize(
    "command",
    [
        ("awk", "-f", "t.awk", "in"),
        ("bash", "indirect.sh"),
        ("bash", "prefix.sh"),
        ("bash", "sources.sh"),
        ("sh", "evaluates.sh"),
        (sys.executable, "pipes.py"),
        (sys.executable, "raw.py"),
        (sys.executable, "table.py"),
        (sys.executable, "file.py"),
        ("./native",),
    ],
    ids=lambda command: command[-1].rpartition("/")[2],
)
def test_a_variable_whose_name_nobody_asked_for(person: Person, command: tuple[str, ...]) -> None:
    for name, text in {
        "in": "2\n",
        "t.awk": '{print $1, ENVIRON["FOO"]}\n',
        "indirect.sh": "a=F; b=OO; c=$a$b; echo ${!c}\n",
        "prefix.sh": "for v in ${!FOO*}; do echo $v ${!v}; done\n",
        "sources.sh": "where=.; . $where/settings\n",
        "settings": "echo $FOO\n",
        "evaluates.sh": 'eval "$(printf "echo %sFOO" \\$)"\n',
        "pipes.py": 'import subprocess\nn = "F" + "OO"\nsubprocess.run(["sh"], input=f"echo ${n}\\n", text=True)\n',
        "raw.py": 'import posix\nprint(posix.environ.get(b"FOO"))\n',
        "table.py": 'import os\nprint(os.environ._data.get(b"FOO"))\n',
        "file.py": 'text = open("/proc/self/environ").read()\nprint([x for x in text.split(chr(0)) if x[:3] == "FOO"])\n',
        "native.c": WITH_ENVIRON,
    }.items():
        person.write(name, text)
    if command == ("./native",):
        subprocess.run(["cc", "-o", "native", "native.c"], cwd=person.directory, check=True)
    status, first = told(person, *command)
    assert status == "trained"
    assert told(person, *command) == ("hit", first)
    person.variables["FOO"] = "1"
    status, printed = told(person, *command)
    assert (status, printed == first) == ("trained", False)


@needs_compiler
def test_usual_shell_scripts_do_not_depend_on_all_variables(person: Person) -> None:
    person.write("run.sh", "set -euo pipefail\nexport LR=1\nlocal_name=x\necho $LR $local_name\n")
    assert told(person, "bash", "run.sh")[0] == "trained"
    person.variables["UNRELATED"] = "1"
    assert told(person, "bash", "run.sh") == ("hit", "1 x")


@needs_compiler
@pytest.mark.parametrize(
    "text",
    [
        "import ctypes, os; l = ctypes.CDLL('libc.so.6'); print(os.read(l.open(b'x', 0), 9))",
        "import ctypes; l = ctypes.CDLL('libm.so.6'); l.getenv.restype = ctypes.c_char_p; print(l.getenv(b'FOO'))",
        "import ctypes; l = ctypes.CDLL(None); print(l.shmget(0x4C494348, 4096, 0))",
    ],
)
def test_what_is_called_past_the_watch_answers_nobody(person: Person, text: str) -> None:
    person.write("x", "1")
    person.write("main.py", text)
    report = person.run("--exit-ok", "--", sys.executable, "main.py")
    assert not report["reusable"]
    assert any("unwatched" in reason["text"] for reason in report["reasons"])


@needs_compiler
def test_a_function_of_the_usual_kind_is_no_obstacle(person: Person) -> None:
    person.write("x", "1")
    text = "import ctypes, os\nl = ctypes.CDLL('libc.so.6'); l.malloc_trim(0)\nprint(os.read(ctypes.CDLL(None).open(b'x', 0), 9))"
    person.write("main.py", text)
    assert told(person, sys.executable, "main.py") == ("trained", "b'1'")
    person.write("x", "2")
    assert told(person, sys.executable, "main.py") == ("trained", "b'2'")


@needs_compiler
def test_a_file_that_a_spawned_program_finds_open(person: Person) -> None:
    text = 'import os\np = os.posix_spawn("/bin/cat", ["cat"], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 0, "x", os.O_RDONLY, 0)])\nos.waitpid(p, 0)\n'
    person.write("x", "1")
    person.write("main.py", text)
    assert told(person, sys.executable, "main.py") == ("trained", "1")
    assert told(person, sys.executable, "main.py") == ("hit", "1")
    person.write("x", "2")
    assert told(person, sys.executable, "main.py") == ("trained", "2")
