"""Python processes that fork, spawn, exec, end hard, run in threads; and the code they import."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.trace.conftest import Project

BOTH = pytest.mark.parametrize("means", [None, ("audit", "inotify")], ids=["all-means", "without-compiler"])


@BOTH
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(project: Project, means: tuple[str, ...] | None, method: str) -> None:
    for number in range(3):
        project.write(f"in{number}", str(number))
    result = project.script(
        f"""
        import multiprocessing as mp
        def arrive(barrier):
            barrier.wait()  # the pool ends its workers with a signal: not while one is still starting
        def work(n):
            value = open(f'in{{n}}').read()
            open(f'out{{n}}', 'w').write(value)
            return int(value)
        if __name__ == '__main__':
            context = mp.get_context({method!r})
            with context.Pool(2, arrive, (context.Barrier(2),)) as pool:
                print(sum(pool.map(work, range(3))))
        """,
        means=means,
    )
    assert result.stdout == "3\n"
    assert result.trace.complete, result.trace.reasons
    assert {"in0", "in1", "in2"} <= result.names("read")
    assert result.names("write") == {"out0", "out1", "out2"}


@BOTH
def test_loky(project: Project, means: tuple[str, ...] | None) -> None:
    pytest.importorskip("joblib")
    for number in range(3):
        project.write(f"in{number}", str(number))
    result = project.script(
        """
        import joblib
        def work(n):
            return int(open(f'in{n}').read())
        print(sum(joblib.Parallel(2)(joblib.delayed(work)(n) for n in range(3))))
        """,
        means=means,
    )
    assert result.stdout == "3\n", result.stderr
    assert result.trace.complete, result.trace.reasons
    assert {"in0", "in1", "in2"} <= result.names("read")
    assert "joblib" in result.trace.distributions


@BOTH
@pytest.mark.parametrize("end", ["os._exit(7)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_hard_ends(project: Project, means: tuple[str, ...] | None, end: str) -> None:
    project.write("data", "x")
    project.write("helper.py", "")
    result = project.script(
        f"import os, helper\nopen('data').read(); open('out', 'w').close()\n{end}", means=means
    )
    assert result.status in (7, -9, -6)
    assert result.trace.complete, result.trace.reasons
    assert {"data"} <= result.names("read")
    assert result.names("write") >= {"out"}
    assert str(project.root / "helper.py") in result.trace.modules.values()


@BOTH
def test_killed_processes_take_no_records_of_others_along(
    project: Project, means: tuple[str, ...] | None
) -> None:
    """Children and parent read the same files; the children are killed in the midst of writing records of them."""
    (project.root / "d").mkdir()
    for number in range(600):
        project.write(f"d/{number}", "x")
    result = project.script(
        """
        import os, time
        for start in range(0, 600, 100):
            children = []
            for _ in range(3):
                pid = os.fork()
                if not pid:
                    while True:
                        for n in range(start, start + 100):
                            open(f'd/{n}').close()
                children.append(pid)
            time.sleep(0.001 * (start // 100))
            for pid in children:
                os.kill(pid, 9)
            for pid in children:
                os.waitpid(pid, 0)
            for n in range(start, start + 100):
                open(f'd/{n}').close()
        """,
        means=means,
    )
    assert result.status == 0, result.stderr
    assert result.trace.complete, result.trace.reasons
    assert {f"d/{number}" for number in range(600)} <= result.names("read")


@BOTH
def test_exec_in_place(project: Project, means: tuple[str, ...] | None) -> None:
    project.write("first", "x")
    project.write("second", "x")
    project.write("next.py", "open('second').read()")
    result = project.script(
        "import os, sys\nopen('first').read()\nos.execv(sys.executable, [sys.executable, 'next.py'])",
        means=means,
    )
    assert result.status == 0, result.stderr
    assert result.trace.complete, result.trace.reasons
    assert {"first", "second"} <= result.names("read")
    assert str(project.root / "next.py") in result.trace.modules.values() or "next.py" in result.names("read")


@BOTH
def test_threads(project: Project, means: tuple[str, ...] | None) -> None:
    for number in range(40):
        project.write(f"d/{number}", "x")
    result = project.script(
        """
        import threading
        def work(start):
            for n in range(start, 40, 4):
                open(f'd/{n}').read()
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        [t.start() for t in threads]; [t.join() for t in threads]
        """,
        means=means,
    )
    assert {f"d/{number}" for number in range(40)} <= result.names("read")


@BOTH
def test_a_thousand_children(project: Project, means: tuple[str, ...] | None) -> None:
    project.write("data", "x")
    result = project.script(
        """
        import os
        for n in range(200):
            pid = os.fork()
            if not pid:
                open('data').read()
                os._exit(0)
            os.waitpid(pid, 0)
        """,
        means=means,
    )
    assert result.trace.complete, result.trace.reasons
    assert "data" in result.names("read")
    assert len(result.trace.accesses) < 10


@BOTH
def test_code_is_found_behind_warm_bytecode(project: Project, means: tuple[str, ...] | None) -> None:
    project.write("pkg/__init__.py", "from . import inner")
    project.write("pkg/inner.py", "VALUE = 1")
    project.write("pkg/unused.py", "")
    project.write("single.py", "")
    text = "import pkg, single"
    project.write("main.py", text)
    subprocess.run([sys.executable, "main.py"], cwd=project.root, check=True, env={"PATH": os.defpath})
    assert (project.root / "pkg/__pycache__").is_dir()
    result = project.script(text, means=means)
    assert result.trace.complete, result.trace.reasons
    assert {name: result.name(path) for name, path in result.trace.modules.items()} == {
        "__main__": "main.py", "pkg": "pkg/__init__.py", "pkg.inner": "pkg/inner.py", "single": "single.py",
    }  # fmt: skip
    absent = {result.name(a.path) for a in result.trace.of_kind("absent")}
    assert {"single/__init__.py", "single.so", "pkg/inner/__init__.py"} <= absent, (
        "they would have been imported instead"
    )
    assert str(project.root) in result.trace.module_directories
    assert {"pkg", "single"} <= set(result.trace.imports)


@BOTH
def test_an_environment_under_the_own_one_is_described_by_versions(
    project: Project, tmp_path: Path, means: tuple[str, ...] | None
) -> None:
    site = tmp_path / "base/lib/python3/site-packages"
    (site / "overlaid-2.1.dist-info").mkdir(parents=True)
    (site / "overlaid.py").write_text("VALUE = 1")
    (site / "overlaid-2.1.dist-info/RECORD").write_text("overlaid.py,,\noverlaid-2.1.dist-info/RECORD,,\n")
    variables = {"PYTHONPATH": str(site)}
    result = project.script("import overlaid", means=means, variables=variables)
    assert "overlaid" in result.trace.modules, "no environment's: only its bytes say what it is"
    (tmp_path / "base/pyvenv.cfg").write_text("")
    result = project.script("import overlaid", means=means, variables=variables)
    assert "overlaid" not in result.trace.modules
    assert result.trace.distributions["overlaid"] == "2.1"


@BOTH
def test_modules_that_were_not_there(project: Project, means: tuple[str, ...] | None) -> None:
    result = project.script("try: import fast_version\nexcept ImportError: pass", means=means)
    assert "fast_version" in result.trace.imports
    assert str(project.root) in result.trace.module_directories


@BOTH
def test_a_library_installed_later_would_be_noticed(project: Project, means: tuple[str, ...] | None) -> None:
    result = project.script("try: import fast_version, cv3\nexcept ImportError: pass", means=means)
    assert result.trace.distributions["fast_version"] == "-"
    absent = {Path(a.path).name for a in result.trace.of_kind("absent")}
    assert {"fast_version", "fast_version.py"} <= absent


@BOTH
def test_stale_bytecode_is_not_believed(project: Project, means: tuple[str, ...] | None) -> None:
    source = project.write("depth.py", "DEPTH = 4\n")
    project.write("main.py", "import depth; print(depth.DEPTH)")
    subprocess.run([sys.executable, "main.py"], cwd=project.root, check=True, env={"PATH": os.defpath})
    before = source.stat()
    source.write_text("DEPTH = 6\n")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    result = project.run("main.py", means=means)
    assert result.stdout == "4\n", "Python itself is deceived"
    assert any(reason.startswith("stale-bytecode: ") for reason in result.trace.reasons)
    source.write_text("DEPTH = 4\n")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert project.run("main.py", means=means).trace.complete, "touched, but the same text"


@BOTH
def test_package_run_by_name(project: Project, means: tuple[str, ...] | None) -> None:
    project.write("tool/__init__.py")
    project.write("tool/__main__.py", "open('data').read()")
    project.write("data", "x")
    result = project.run(sys.executable, "-m", "tool", means=means)
    assert result.status == 0, result.stderr
    assert result.trace.complete, result.trace.reasons
    assert {result.name(path) for path in result.trace.modules.values()} == {
        "tool/__init__.py",
        "tool/__main__.py",
    }
    assert "data" in result.names("read")


@BOTH
def test_modules_in_an_archive(project: Project, means: tuple[str, ...] | None) -> None:
    with zipfile.ZipFile(project.root / "lib.zip", "w") as archive:
        archive.writestr("zipped.py", "VALUE = 5")
    result = project.script(
        "import sys; sys.path.insert(0, 'lib.zip')\nimport zipped; print(zipped.VALUE)", means=means
    )
    assert result.stdout == "5\n"
    assert result.name(result.trace.modules["zipped"]) == "lib.zip"


@BOTH
def test_code_outside_the_project(project: Project, tmp_path: Path, means: tuple[str, ...] | None) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/shared.py").write_text("VALUE = 1")
    result = project.script(
        "import shared", means=means, variables={"PYTHONPATH": str(tmp_path / "elsewhere")}
    )
    assert result.status == 0, result.stderr
    assert result.trace.modules["shared"] == str(tmp_path / "elsewhere/shared.py")
    assert str(tmp_path / "elsewhere") in result.trace.module_directories


@BOTH
def test_editable_install_is_code(project: Project, means: tuple[str, ...] | None, tmp_path: Path) -> None:
    source = tmp_path / "elsewhere" / "src" / "toolbox" / "__init__.py"
    source.parent.mkdir(parents=True)
    source.write_text("DEPTH = 4\n")
    result = project.script(
        f"""
        import sys
        sys.path.append({str(source.parents[1])!r})  # as the file that an editable install leaves does
        import toolbox
        """,
        means=means,
    )
    assert result.status == 0, result.stderr
    assert result.trace.modules["toolbox"] == str(source)
    assert "toolbox" not in result.trace.distributions


@BOTH
def test_variables_of_project_and_library(project: Project, means: tuple[str, ...] | None) -> None:
    result = project.script(
        """
        import os, subprocess, tempfile
        os.environ.get('BY_GET'); os.getenv('BY_GETENV'); 'BY_IN' in os.environ; os.environ.setdefault('BY_DEFAULT', '1')
        try: os.environ['BY_ITEM']
        except KeyError: pass
        os.path.expandvars('$BY_EXPAND'); os.environb.get(b'BY_BYTES')
        subprocess.run(['true'], env=dict(os.environ, EXTRA='1'))
        subprocess.run(['true'], env={**os.environ, 'MORE': '2'})
        subprocess.run(['true'], env=os.environ.copy())
        subprocess.run(['true'], env=os.environ)
        """,
        means=means,
        variables={"BY_GET": "1", "UNTOUCHED": "x", "EXTRA": "before"},
    )
    assert result.status == 0, result.stderr
    variables = result.trace.variables
    assert variables["BY_GET"] == "1"
    for name in ("BY_GETENV", "BY_IN", "BY_DEFAULT", "BY_ITEM", "BY_EXPAND", "BY_BYTES"):
        assert variables[name] is None, name
    assert "UNTOUCHED" not in variables, "handing the environment on is no dependency on all of it"


@BOTH
@pytest.mark.parametrize(
    "text",
    [
        "[v for k, v in os.environ.items() if k.startswith('APP_')]",
        "sorted(os.environ)",
        "settings = dict(os.environ)",
        "print(len(list(os.environ.values())))",
    ],
)
def test_whole_environment(project: Project, means: tuple[str, ...] | None, text: str) -> None:
    result = project.script(f"import os\n{text}", means=means, variables={"APP_SIZE": "3", "SHLVL": "9"})
    assert result.trace.variables["APP_SIZE"] == "3"
    assert "SHLVL" not in result.trace.variables
    assert not [name for name in result.trace.variables if name.startswith("LICHEN_")]


@BOTH
def test_copy_that_is_handed_on_and_read(project: Project, means: tuple[str, ...] | None) -> None:
    result = project.script(
        """
        import os, subprocess
        env = dict(os.environ)
        rate = env.get('RATE')
        subprocess.run(['true'], env=env)
        """,
        means=means,
        variables={"RATE": "0.1", "UNTOUCHED": "x"},
    )
    assert result.trace.variables["RATE"] == "0.1"
    assert "UNTOUCHED" not in result.trace.variables


@BOTH
def test_environment_facts(project: Project, means: tuple[str, ...] | None) -> None:
    pytest.importorskip("numpy")
    result = project.script("import numpy\nnumpy.ones((2, 2)) @ numpy.ones((2, 2))", means=means)
    assert result.trace.environment["implementation"] == sys.implementation.name
    assert result.trace.environment["version"] == ".".join(map(str, sys.version_info[:3]))
    assert "blas" in result.trace.environment
    assert result.trace.interpreter == sys.executable


@BOTH
def test_metrics_come_through(project: Project, means: tuple[str, ...] | None) -> None:
    result = project.script(
        """
        import json, os
        with open(os.environ['LICHEN_RUN_DIR'] + '/metrics.jsonl', 'a') as f:
            f.write('{"step": 1, "accuracy": 0.5}\\n{"step": 2, "accuracy": 0.75}\\n{"torn')
        """,
        means=means,
    )
    assert result.trace.metrics == ({"step": 1, "accuracy": 0.5}, {"step": 2, "accuracy": 0.75})
    assert result.names("write", "append") == set()
