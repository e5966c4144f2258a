"""What a first run looked for in vain, or by an unusual way, is there or another for the second: no answer of the first may stand."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.runs.conftest import Person

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="without a C compiler native programs are not watched"
)


def outcome(person: Person, *command: str) -> tuple[str, str]:
    """Run a command; return whether it was answered, and what it printed."""
    report = person.run("--exit-ok", "--", *command)
    assert report["reusable"] or report["status"] == "hit", report.get("reasons")
    return report["status"], person.output.strip()


def check_miss(person: Person, name: str, content: str, before: str, after: str) -> None:
    """Run ``main.py`` twice, write a file, run it again: the answer serves until then, and not after."""
    command = (sys.executable, "main.py")
    assert outcome(person, *command) == ("trained", before)
    assert outcome(person, *command) == ("hit", before)
    person.write(name, content)
    assert outcome(person, *command) == ("trained", after)


TRY = "try:\n    {}\n    print('fast')\nexcept ImportError:\n    print('slow')\n"


@pytest.mark.parametrize(
    ("statement", "made"),
    [
        ("from pk import fast", "pk/fast.py"),
        ("import pk.fast", "pk/fast.py"),
        ("import pk.fast", "pk/fast/__init__.py"),
        ("import pk.fast", "pk/fast/data.txt"),
        ("import importlib; importlib.import_module('pk.fast')", "pk/fast.py"),
        ("import plain.fast", "plain/fast.py"),
        ("import plain.fast", "other/plain/fast.py"),
        ("import plain.m; assert 'other' in plain.m.__file__, 'no'", "plain/m.py"),
    ],
)
def test_a_module_of_a_package_that_appears_later(person: Person, statement: str, made: str) -> None:
    person.write("pk/__init__.py")
    person.write("plain/mod.py")
    person.write("other/plain/m.py")
    text = f"import sys; sys.path.append('other'); import plain\n{TRY.format(statement)}"
    if "assert" in statement:
        text = f"import sys; sys.path.append('other'); import plain\n{statement.partition(';')[0]}\nprint('other' in plain.m.__file__)\n"
        person.write("main.py", text)
        check_miss(person, made, "", "True", "False")
        return
    person.write("main.py", text)
    check_miss(person, made, "", "slow", "fast")


def test_an_optional_part_asked_for_by_its_package(person: Person) -> None:
    person.write(
        "pk/__init__.py",
        "try:\n    from . import _c as impl\nexcept ImportError:\n    from . import _py as impl\n",
    )
    person.write("pk/_py.py", "NAME = 'py'")
    person.write("main.py", "import pk; print(pk.impl.NAME)")
    check_miss(person, "pk/_c.py", "NAME = 'c'", "py", "c")


@pytest.mark.parametrize(
    ("name", "made"), [("zzz", "zzz.py"), ("pk.x", "pk/x.py"), ("pk.x", "pk/x/__init__.py")]
)
def test_a_module_that_was_only_asked_for(person: Person, name: str, made: str) -> None:
    person.write("pk/__init__.py")
    person.write("main.py", f"import importlib.util; print(importlib.util.find_spec({name!r}) is None)")
    check_miss(person, made, "", "True", "False")
    (person.directory / made).unlink()
    if made.endswith("__init__.py"):
        (person.directory / made).parent.rmdir()
    assert outcome(person, sys.executable, "main.py") == ("hit", "True")


def test_a_module_that_was_asked_for_and_is_gone(person: Person) -> None:
    person.write("pk/__init__.py")
    there = person.write("pk/x.py")
    person.write("main.py", "import importlib.util; print(importlib.util.find_spec('pk.x') is None)")
    assert outcome(person, sys.executable, "main.py") == ("trained", "False")
    there.unlink()
    assert outcome(person, sys.executable, "main.py") == ("trained", "True")


def test_a_module_that_the_run_makes_itself_is_no_obstacle(person: Person) -> None:
    person.write("pk/__init__.py")
    text = "import importlib, pathlib\nimport pk\ntry:\n    import pk.made\nexcept ImportError:\n    pathlib.Path('pk/made.py').write_text('N = 1')\n    importlib.invalidate_caches()\nimport pk.made\nprint(pk.made.N)\n"
    person.write("main.py", text)
    assert outcome(person, sys.executable, "main.py") == ("trained", "1")
    assert outcome(person, sys.executable, "main.py") == ("hit", "1")
    Path(person.directory / "pk/made.py").unlink()
    assert outcome(person, sys.executable, "main.py") == ("hit", "1")


def lead_elsewhere(person: Person) -> None:
    """Let the link ``cur`` lead to ``v2/in`` instead of ``v1/in``; only the second has ``y``, and what is above differs."""
    link = person.directory / "cur"
    if not link.is_symlink():
        for version in "12":
            person.write(f"v{version}/in/x", version)
            person.write(f"v{version}/above", version)
        person.write("v2/in/y", "there")
        link.symlink_to("v1/in")
    else:
        link.unlink()
        link.symlink_to("v2/in")


@pytest.mark.parametrize(
    "text",
    [
        "import os; os.chdir('cur'); print(os.path.exists('y'))",
        "import os; os.chdir('cur'); print(sorted(os.listdir('.')))",
        "import os; os.chdir(os.open('cur', os.O_RDONLY)); print(sorted(os.listdir('.')))",
        "import os; os.chdir('again'); print(os.path.exists('y'))",
        "import subprocess; print(subprocess.run(['ls'], cwd='cur', capture_output=True).stdout)",
        "print(open('cur/../above').read())",
        "import pathlib; print((pathlib.Path('cur') / '..' / 'above').stat().st_size, open('cur/../../v1/above').read(), pathlib.Path('cur/../in/y').exists())",
    ],
)
def test_a_link_that_was_gone_through(person: Person, text: str) -> None:
    lead_elsewhere(person)
    (person.directory / "again").symlink_to("cur")
    person.write("main.py", text)
    first = outcome(person, sys.executable, "main.py")
    assert first[0] == "trained"
    assert outcome(person, sys.executable, "main.py") == ("hit", first[1])
    lead_elsewhere(person)
    status, printed = outcome(person, sys.executable, "main.py")
    assert (status, printed == first[1]) == ("trained", False)


@needs_compiler
@pytest.mark.parametrize(
    "text", ["cd cur && ls", "cat cur/../above", "cd again; cd -P .; pwd -P | sed 's/.*v/v/'"]
)
def test_a_link_that_a_native_program_went_through(person: Person, text: str) -> None:
    lead_elsewhere(person)
    (person.directory / "again").symlink_to("cur")
    first = outcome(person, "sh", "-c", text)
    assert first[0] == "trained"
    assert outcome(person, "sh", "-c", text) == ("hit", first[1])
    lead_elsewhere(person)
    status, printed = outcome(person, "sh", "-c", text)
    assert (status, printed == first[1]) == ("trained", False)


@needs_compiler
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize(
    ("asked", "changed"),
    [("tag --list", "tag v2"), ("describe --tags", "tag v2"), ("branch --list", "branch more/of-it")],
)
def test_a_new_tag_or_branch(person: Person, asked: str, changed: str) -> None:
    def git(words: str) -> None:
        options = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(
            ["git", *options, *words.split()], cwd=person.directory, check=True, capture_output=True
        )

    for words in ("init", "commit --allow-empty -m one", "tag v1", "commit --allow-empty -m two"):
        git(words)
    first = outcome(person, "git", *asked.split())
    assert first[0] == "trained"
    git("commit-tree -m loose HEAD^{tree}")  # an object more is no change
    assert outcome(person, "git", *asked.split()) == ("hit", first[1])
    git(changed)
    status, printed = outcome(person, "git", *asked.split())
    assert (status, printed == first[1]) == ("trained", False)


@pytest.mark.parametrize(
    "text",
    [
        "print(open('/proc/self/cwd/x').read())",
        "import os; print(os.stat('/proc/self/cwd/x').st_size, os.path.exists('/proc/self/cwd/y'))",
        "import os; print(sorted(n for n in os.listdir('/proc/self/cwd') if n in 'xyz'))",
        "import os; d = os.open('.', os.O_RDONLY); print(open(f'/proc/self/fd/{d}/x').read())",
        "import os; print(open('/proc/self/root' + os.path.abspath('x')).read())",
        "import os; print(open(f'/proc/self/task/{os.getpid()}/cwd/x').read())",
    ],
)
def test_a_file_behind_a_process(person: Person, text: str) -> None:
    person.write("x", "1")
    person.write("main.py", text)
    command = ("--exit-ok", "--", sys.executable, "main.py")
    person.run(*command)
    first = person.output
    person.write("x", "22")
    person.write("y")
    assert person.run(*command)["status"] == "trained"
    assert person.output != first


@needs_compiler
@pytest.mark.parametrize("text", ["cat /proc/self/cwd/x", "ls /proc/self/cwd", "exec 3< .; cat /dev/fd/3/x"])
def test_a_file_that_a_native_program_finds_behind_a_process(person: Person, text: str) -> None:
    person.write("x", "1")
    first = outcome(person, "sh", "-c", text)
    assert first[0] == "trained"
    assert outcome(person, "sh", "-c", text) == ("hit", first[1])
    person.write("x", "22")
    person.write("y")
    status, printed = outcome(person, "sh", "-c", text)
    assert (status, printed == first[1]) == ("trained", False)
