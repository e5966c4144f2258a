"""A traced program must not notice: same output, same errors, same environment, on every Python there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.runs.trace.preload import build_library

if TYPE_CHECKING:
    from tests.integration.trace.conftest import Project

BOTH = pytest.mark.parametrize("means", [None, ("audit", "inotify")], ids=["all-means", "without-compiler"])
PYTHONS = sorted(
    {
        str(path.resolve())
        for folder in (*Path.home().glob(".pyenv/versions/*/bin"), Path("/usr/bin"))
        for path in folder.glob("python3.*")
        if re.fullmatch(r"python3\.\d+t?", path.name)
    }
)


def untraced(project: Project, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    base = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COLUMNS")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project.root,
        env=base | variables,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@BOTH
@pytest.mark.parametrize(
    "text",
    [
        "open('nowhere')",
        "import os; os.environ['MISSING']",
        "import nowhere",
        "import sys; sys.exit('bye')",
        "print('a'); raise ValueError('b')",
        "import os; print(os.listdir('nowhere'))",
        "open(3.5)",
        "open('a\\0b')",
        "import subprocess; subprocess.run(['nowhere'])",
        "import os; os.execv('/nowhere', ['x'])",
        "def f(): f()\nf()",
        "import warnings; warnings.warn('careful')",
        "import os; print(os.stat, type(os.environ), os.open, type(os.environ).__mro__[0])",
        "import sys; print([m for m in sys.modules if 'lichen' in m or m == 'sitecustomize'], len(sys.path))",
        "import os, shutil; print(shutil.rmtree.avoids_symlink_attacks, os.stat in os.supports_dir_fd, len(os.supports_fd) > 1)",
        "import os, stat; print(os.stat('main.py', follow_symlinks=False).st_size, os.access('main.py', os.R_OK, follow_symlinks=True))",
        "import inspect, os; print(inspect.signature(os.stat))",
    ],
)
def test_output_is_the_same(project: Project, means: tuple[str, ...] | None, text: str) -> None:
    project.write("main.py", text)
    plain = untraced(project, "main.py")
    traced = project.run("main.py", means=means)
    assert (traced.stdout, traced.stderr, traced.status) == (plain.stdout, plain.stderr, plain.returncode)


@BOTH
def test_functions_can_be_pickled_and_bound(project: Project, means: tuple[str, ...] | None) -> None:
    result = project.script(
        """
        import os, pickle, copy
        assert pickle.loads(pickle.dumps(os.stat)) is os.stat and copy.deepcopy(os.stat) is os.stat
        class Accessor:
            stat = os.stat
        print(Accessor().stat('main.py').st_size > 0)
        """,
        means=means,
    )
    assert result.stdout == "True\n", result.stderr


@BOTH
def test_the_next_sitecustomize_runs(project: Project, means: tuple[str, ...] | None) -> None:
    project.write("site/sitecustomize.py", "import sys\nsys.marker = (__name__, __file__)\nopen('site/read')")
    project.write("site/read", "x")
    result = project.script(
        "import sys, sitecustomize\nprint(sys.marker[0], sitecustomize.__file__)",
        means=means,
        variables={"PYTHONPATH": str(project.root / "site")},
    )
    assert result.stdout == f"sitecustomize {project.root}/site/sitecustomize.py\n", result.stderr
    assert "site/read" in result.names("read")
    assert result.trace.modules["sitecustomize"] == str(project.root / "site/sitecustomize.py")


@BOTH
def test_a_broken_sitecustomize_breaks_as_before(project: Project, means: tuple[str, ...] | None) -> None:
    project.write("site/sitecustomize.py", "raise RuntimeError('broken')")
    project.write("main.py", "print('ran')")
    variables = {"PYTHONPATH": str(project.root / "site")}
    plain = untraced(project, "main.py", **variables)
    traced = project.run("main.py", means=means, variables=variables)
    assert traced.stdout == plain.stdout
    assert traced.stderr == plain.stderr


@BOTH
def test_python_path_is_kept(project: Project, means: tuple[str, ...] | None) -> None:
    project.write("one/a.py", "")
    text = "import a, sys; print([p for p in sys.path if p.endswith('one')])"
    project.write("main.py", text)
    variables = {"PYTHONPATH": f"{project.root}/one:"}
    plain = untraced(project, "main.py", **variables)
    assert project.run("main.py", means=means, variables=variables).stdout == plain.stdout


@BOTH
def test_descriptors_are_not_taken(project: Project, means: tuple[str, ...] | None) -> None:
    project.write("main.py", "import os; print(len(os.listdir('/proc/self/fd')))")
    taken = int(project.run("main.py", means=means).stdout) - int(untraced(project, "main.py").stdout)
    has_library = means is None and build_library(project.compiled_cache) is not None
    assert taken <= (0 if has_library or sys.version_info >= (3, 13) else 1), "mmap keeps one before 3.13"


@BOTH
def test_closing_every_descriptor_is_safe(project: Project, means: tuple[str, ...] | None) -> None:
    result = project.script(
        """
        import os
        os.closerange(3, 100)
        files = [open(f'out{n}', 'w') for n in range(5)]
        for n in range(3000): os.path.exists('x' * 50 + str(n))  # several chunks of the log
        for f in files: f.write('kept'); f.close()
        print([open(f'out{n}').read() for n in range(5)])
        """,
        means=means,
    )
    assert result.stdout == "['kept', 'kept', 'kept', 'kept', 'kept']\n", result.stderr
    assert len(result.names("absent")) == 3000


@BOTH
def test_a_full_disk_ends_the_log_not_the_program(project: Project, means: tuple[str, ...] | None) -> None:
    result = project.script(
        """
        import resource, os
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for n in range(30000): os.path.exists('x' * 150 + str(n))
        print('done')
        """,
        means=means,
    )
    assert result.stdout == "done\n", result.stderr
    assert not result.trace.complete


@BOTH
@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: Path(path).name)
def test_every_python_is_traced(project: Project, python: str, means: tuple[str, ...] | None) -> None:
    project.write("data", "x")
    project.write("pkg/__init__.py", "")
    project.write(
        "main.py",
        """
        import os, pathlib, shutil, subprocess, sys, pkg
        pathlib.Path('data').read_text(); pathlib.Path('nothing').exists(); os.environ.get('FLAG')
        env = dict(os.environ)
        subprocess.check_call([sys.executable, '-c', "open('out', 'w').close()"], env=env)
        os.makedirs('t/u'); shutil.rmtree('t'); list(pathlib.Path('pkg').glob('*.py'))
        print(os.stat('data').st_size, flush=True)
        """,
    )
    result = project.run(python, "main.py", means=means, variables={"UNTOUCHED": "1"})
    assert result.stdout == "1\n", result.stderr
    assert result.stderr == ""
    if re.search(r"python3\.[67]$", python):
        assert not result.trace.complete, "it has no audit hooks"
        return
    assert result.trace.complete, result.trace.reasons
    assert "data" in result.names("read")
    assert "nothing" in result.names("absent")
    assert result.names("write") == {"out"}
    assert "pkg" in result.names("list")
    assert result.trace.modules["pkg"] == str(project.root / "pkg/__init__.py")
    assert "FLAG" in result.trace.variables
    assert "UNTOUCHED" not in result.trace.variables
