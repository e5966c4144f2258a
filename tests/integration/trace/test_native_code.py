"""Files read by native libraries and by programs that are no Python."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.trace.conftest import Project

WITHOUT_COMPILER = ("audit", "inotify")

LIBRARIES = {
    "pyarrow-parquet": (
        "pyarrow",
        "import pyarrow as pa, pyarrow.parquet as pq; pq.write_table(pa.table({'a': [1]}), {path!r})",
        "import pyarrow.parquet as pq; pq.read_table({path!r}); pq.write_table(pq.read_table({path!r}), 'out')",
    ),
    "pyarrow-dataset": (
        "pyarrow",
        "import os, pyarrow as pa, pyarrow.parquet as pq; os.mkdir({path!r}); pq.write_table(pa.table({'a': [1]}), {path!r} + '/p.parquet')",
        "import pyarrow.dataset as ds; ds.dataset({path!r}).to_table()",
    ),
    "pandas-parquet": (
        "pyarrow",
        "import pandas as pd; pd.DataFrame({'a': [1]}).to_parquet({path!r})",
        "import pandas as pd; pd.read_parquet({path!r}).to_parquet('out')",
    ),
    "h5py": (
        "h5py",
        "import h5py; h5py.File({path!r}, 'w')['a'] = [1]",
        "import h5py; h5py.File({path!r}, 'r')['a'][:]; h5py.File('out', 'w')['a'] = [1]",
    ),
    "safetensors": (
        "safetensors",
        "import numpy as np; from safetensors.numpy import save_file; save_file({'a': np.zeros(2)}, {path!r})",
        "from safetensors import safe_open; safe_open({path!r}, 'np').get_tensor('a')",
    ),
}


@pytest.mark.usefixtures("needs_preload")
@pytest.mark.parametrize("outside", [False, True], ids=["in-project", "elsewhere"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_native_libraries(project: Project, tmp_path: Path, name: str, outside: bool) -> None:
    package, make, use = LIBRARIES[name]
    pytest.importorskip(package)
    path = str((tmp_path if outside else project.root) / "input.data")
    subprocess.run([sys.executable, "-c", make.replace("{path!r}", repr(path))], check=True, cwd=project.root)
    result = project.script(use.replace("{path!r}", repr(path)))
    assert result.status == 0, result.stderr
    assert result.trace.complete, result.trace.reasons
    if name == "pyarrow-dataset":
        assert project_name(path, project) in result.names("list")
        path += "/p.parquet"
    assert project_name(path, project) in result.names("read")
    if "'out'" in use:
        assert result.names("write") == {"out"}


def project_name(path: str, project: Project) -> str:
    return path.removeprefix(f"{project.root}/")


@pytest.mark.parametrize("name", ["pandas-parquet", "h5py", "safetensors"])
def test_native_libraries_without_compiler_are_seen_in_the_project_but_not_believed(
    project: Project, name: str
) -> None:
    package, make, use = LIBRARIES[name]
    pytest.importorskip(package)
    path = str(project.root / "input.data")
    subprocess.run([sys.executable, "-c", make.replace("{path!r}", repr(path))], check=True, cwd=project.root)
    result = project.script(use.replace("{path!r}", repr(path)), means=WITHOUT_COMPILER)
    assert "input.data" in result.names("read")
    assert not result.trace.complete
    assert all(reason.startswith("native-io: ") for reason in result.trace.reasons)


@pytest.mark.parametrize("means", [None, WITHOUT_COMPILER], ids=["all-means", "without-compiler"])
def test_cat_by_name(project: Project, means: tuple[str, ...] | None, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("hello")
    project.write("inside.txt", "hi")
    result = project.script(
        f"import subprocess\nprint(subprocess.check_output(['cat', 'inside.txt', {str(outside)!r}]).decode())",
        means=means,
    )
    assert result.stdout == "hihello\n"
    assert result.trace.complete, result.trace.reasons
    assert {"inside.txt", str(outside)} <= result.names("read")
    assert any(path.endswith("/cat") for path in result.trace.execs)


@pytest.mark.usefixtures("needs_preload")
def test_shell_pipes_and_redirections(project: Project) -> None:
    project.write("a.txt", "b\na\n")
    project.write("b.txt", "c\n")
    result = project.script(
        "import subprocess\nsubprocess.run('cat < a.txt | sort -r - b.txt | tee sorted.txt > copy.txt; [ -e flag ]', shell=True)"
    )
    assert result.trace.complete, result.trace.reasons
    assert {"a.txt", "b.txt"} <= result.names("read")
    assert result.names("write") == {"sorted.txt", "copy.txt"}
    assert "flag" in result.names("absent")
    assert "LC_ALL" in result.trace.variables, "sort depends on it"


def test_shell_pipes_without_compiler_are_not_believed(project: Project) -> None:
    project.write("a.txt", "b\na\n")
    result = project.script(
        "import subprocess\nsubprocess.run('sort < a.txt | uniq', shell=True)", means=WITHOUT_COMPILER
    )
    assert any(reason.startswith("exec-unobserved: ") for reason in result.trace.reasons)
    assert "a.txt" in result.names("read"), "the directory watch sees it all the same"


@pytest.mark.usefixtures("needs_preload")
def test_bash_script_with_python_inside(project: Project) -> None:
    project.write("data.txt", "1")
    project.write("step.py", "import sys; print(open(sys.argv[1]).read())")
    project.write("lib.sh", "export NAME=$OUTER_NAME\n")
    project.write(
        "run.sh", f"set -e\nsource ./lib.sh\nfor f in *.txt; do {sys.executable} step.py $f > out.log; done\n"
    )
    result = project.run("bash", "run.sh", variables={"OUTER_NAME": "x"})
    assert result.status == 0, result.stderr
    assert result.trace.complete, result.trace.reasons
    assert {"run.sh", "lib.sh", "data.txt"} <= result.names("read")
    assert str(project.root) in result.names("list")
    assert result.trace.modules["__main__"] == str(project.root / "step.py")
    assert result.names("write") == {"out.log"}
    assert result.trace.variables["OUTER_NAME"] == "x"


@pytest.mark.usefixtures("needs_preload")
def test_script_started_by_its_own_name(project: Project) -> None:
    tool = project.write("bin/tool", "#!/bin/sh\ncat data.txt\n")
    tool.chmod(0o755)
    project.write("data.txt", "1")
    result = project.script("import subprocess\nsubprocess.run(['bin/tool'])")
    assert result.trace.complete, result.trace.reasons
    assert "bin/tool" in result.names("exec")
    assert {"bin/tool", "data.txt"} <= result.names("read")


@pytest.mark.usefixtures("needs_preload")
def test_tracing_goes_along_into_a_clean_environment(project: Project) -> None:
    project.write("data.txt", "1")
    project.write("child.py", "open('data.txt').read()")
    result = project.script(
        f"""
        import os, subprocess, sys
        subprocess.run([{sys.executable!r}, 'child.py'], env={{}}, check=True)
        subprocess.run(['env', '-i', {sys.executable!r}, 'child.py'], check=True)
        os.environ.pop('LD_PRELOAD', None); os.environ['PYTHONPATH'] = 'src'
        subprocess.run([{sys.executable!r}, 'child.py'], check=True)
        """
    )
    assert result.status == 0, result.stderr
    assert result.trace.complete, result.trace.reasons
    assert "data.txt" in result.names("read")
    assert sum(process.kind == "python" for process in result.trace.processes) == 4


def test_a_clean_environment_without_compiler_is_not_believed(project: Project) -> None:
    project.write("child.py", "open('data.txt', 'w')")
    result = project.script(
        f"import subprocess\nsubprocess.run([{sys.executable!r}, 'child.py'], env={{}}, check=True)",
        means=WITHOUT_COMPILER,
    )
    assert any(reason.startswith("agent-missing: ") for reason in result.trace.reasons)


@pytest.mark.parametrize("option", ["-I", "-E", "-S", "-sE"])
@pytest.mark.parametrize("means", [None, WITHOUT_COMPILER], ids=["all-means", "without-compiler"])
def test_isolated_python_is_not_believed(
    project: Project, option: str, means: tuple[str, ...] | None
) -> None:
    project.write("child.py", "print(1)")
    result = project.script(
        f"import subprocess, sys\nsubprocess.run([sys.executable, {option!r}, 'child.py'])", means=means
    )
    assert any(reason.startswith("isolated-python: ") for reason in result.trace.reasons), (
        result.trace.reasons
    )


@pytest.mark.parametrize("means", [None, WITHOUT_COMPILER], ids=["all-means", "without-compiler"])
def test_python_version_is_harmless(project: Project, means: tuple[str, ...] | None) -> None:
    result = project.script(
        "import subprocess, sys\nsubprocess.run([sys.executable, '--version'])", means=means
    )
    assert result.trace.complete, result.trace.reasons


@pytest.mark.usefixtures("needs_preload")
def test_static_programs_are_not_believed(project: Project) -> None:
    source = project.write(
        "reader.c",
        '#include <stdio.h>\nint main(void) { FILE *f = fopen("data.txt", "r"); return f ? getc(f) - 49 : 9; }\n',
    )
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None
    built = subprocess.run(
        [compiler, "-static", "-o", project.root / "reader", source], capture_output=True, check=False
    )
    if built.returncode:
        pytest.skip("no static C library here")
    project.write("data.txt", "1")
    result = project.script(
        "import subprocess\nprint(subprocess.run(['./reader']).returncode)",
        means=("audit", "preload", "inotify"),
    )
    assert result.stdout == "0\n"
    assert any(reason.startswith("static-program: ") for reason in result.trace.reasons)
    assert "data.txt" in result.names("read"), "the directory watch sees it all the same"
    alone = project.run("./reader")
    assert any(reason.startswith("not-observed: ") for reason in alone.trace.reasons)


@pytest.mark.parametrize("name", ["docker", "ssh", "srun", "sudo"])
@pytest.mark.parametrize("means", [None, WITHOUT_COMPILER], ids=["all-means", "without-compiler"])
def test_work_elsewhere_is_not_believed(project: Project, name: str, means: tuple[str, ...] | None) -> None:
    project.write(f"bin/{name}", "#!/bin/sh\necho done\n").chmod(0o755)
    result = project.script(f"import subprocess\nsubprocess.run(['bin/{name}', 'run', 'image'])", means=means)
    assert any(reason.startswith(("container: ", "remote: ")) for reason in result.trace.reasons), (
        result.trace.reasons
    )


@pytest.mark.usefixtures("needs_preload")
def test_directory_walks_inside_the_c_library(project: Project) -> None:
    source = project.write(
        "walk.c",
        """
        #include <glob.h>
        #include <ftw.h>
        static int visit(const char *p, const struct stat *s, int f) { (void)p; (void)s; (void)f; return 0; }
        int main(void) { glob_t g; glob("data/*.csv", 0, 0, &g); ftw("tree", visit, 5); return 0; }
        """,
    )
    subprocess.run(["cc", "-o", project.root / "walk", source], check=True)
    for name in ("data/a.csv", "tree/x/y"):
        project.write(name)
    result = project.run("./walk")
    assert {"data", "tree", "tree/x"} <= result.names("list")
    assert "walk" in result.names("exec", "read")


@pytest.mark.usefixtures("needs_preload")
def test_names_in_directories_the_c_library_goes_to(project: Project) -> None:
    """``nftw`` changes the working directory inside the C library, a program may do so by the system call itself."""
    source = project.write(
        "go.c",
        """
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <ftw.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static int visit(const char *path, const struct stat *st, int type, struct FTW *at) {
            if (type == FTW_F)
                close(open(path + at->base, O_RDONLY));
            return 0;
        }
        int main(void) {
            close(open("x", O_RDONLY));
            nftw("walked", visit, 4, FTW_CHDIR | FTW_PHYS);
            syscall(SYS_chdir, "other");
            close(open("x", O_RDONLY));
            return 0;
        }
        """,
    )
    for name in ("x", "walked/x", "walked/deep/x", "other/x"):
        project.write(name, name)
    subprocess.run(["cc", "-o", project.root / "go", source], check=True)
    read = project.run(str(project.root / "go")).names("read")
    assert read >= {"x", "walked/x", "walked/deep/x", "other/x"}


@pytest.mark.usefixtures("needs_preload")
def test_native_variables(project: Project) -> None:
    source = project.write(
        "get.c", '#include <stdlib.h>\nint main(void) { return getenv("MODEL_SIZE") ? 3 : 4; }\n'
    )
    subprocess.run(["cc", "-o", project.root / "get", source], check=True)
    result = project.run("./get", variables={"MODEL_SIZE": "7"})
    assert result.status == 3
    assert result.trace.variables["MODEL_SIZE"] == "7"


@pytest.mark.parametrize("means", [None, WITHOUT_COMPILER], ids=["all-means", "without-compiler"])
def test_peers(project: Project, means: tuple[str, ...] | None) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    result = project.script(
        f"""
        import socket, threading
        socket.create_connection(('127.0.0.1', {port})).close()
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9)); s.close()
        """,
        means=means,
    )
    listener.close()
    assert result.trace.network == (f"127.0.0.1:{port}", "192.0.2.1:9")
    inside = project.script(
        """
        import socket, threading
        server = socket.create_server(('127.0.0.1', 0))
        threading.Thread(target=server.accept, daemon=True).start()
        socket.create_connection(server.getsockname()).close()
        server = socket.socket(socket.AF_UNIX); server.bind('own.sock'); server.listen()
        client = socket.socket(socket.AF_UNIX); client.connect('own.sock')
        """,
        means=means,
    )
    assert inside.status == 0, inside.stderr
    assert inside.trace.network == ()


@pytest.mark.usefixtures("needs_preload")
def test_files_that_were_open_before_the_program_began(project: Project) -> None:
    project.write("given.txt", "x")
    project.write("main.py", "import os; print(os.read(7, 9))")
    result = project.run("bash", "-c", f"exec 7< given.txt; exec {sys.executable} main.py")
    assert result.stdout == "b'x'\n"
    assert "given.txt" in result.names("read")


@pytest.mark.usefixtures("needs_preload")
def test_a_traced_run_inside_a_traced_run(project: Project) -> None:
    project.write("data.txt", "x")
    project.write("inner.py", "open('data.txt').read(); open('made.txt', 'w').close()")
    result = project.script(
        f"""
        import os, subprocess, sys
        from lichen.runs.trace.tracer import Tracer
        tracer = Tracer('.', cache_directory={str(project.compiled_cache)!r})
        environment = tracer.environment(os.environ)
        tracer.start()
        subprocess.run([sys.executable, 'inner.py'], env=environment, check=True)
        trace = tracer.finish()
        print(trace.complete, [a.path for a in trace.of_kind('write')] == [os.path.abspath('made.txt')])
        """
    )
    assert result.stdout == "True True\n", result.stderr
    assert result.trace.complete, result.trace.reasons
    assert "data.txt" in result.names("read")
    assert "made.txt" in result.names("write")


@pytest.mark.usefixtures("needs_preload")
def test_standard_input(project: Project) -> None:
    used = project.script("import sys\nprint(len(sys.stdin.read()))", stdin="abc")
    assert used.stdout == "3\n"
    assert used.trace.stdin_used
    assert not project.script("print(1)", stdin="abc").trace.stdin_used
    assert project.script("import subprocess\nsubprocess.run(['cat'])", stdin="abc").trace.stdin_used
    assert project.script("print(open('/dev/stdin').read())", stdin="abc").trace.stdin_used
    assert project.script("import subprocess\nsubprocess.run(['cut', '-c1'])", stdin="abc").trace.stdin_used
    assert not project.script(
        "import subprocess\nsubprocess.run('echo x | cat', shell=True)", stdin=""
    ).trace.stdin_used


@pytest.mark.usefixtures("needs_preload")
def test_ctypes_libraries_are_inputs(project: Project) -> None:
    source = project.write("plugin.c", "int answer(void) { return 42; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", project.root / "plugin.so", source], check=True)
    result = project.script(
        "import ctypes, os\nprint(ctypes.CDLL('./plugin.so').answer(), flush=True)\nos._exit(0)"
    )
    assert result.stdout == "42\n"
    assert "plugin.so" in result.names("read")


def test_two_runs_at_once_do_not_share_their_outputs(project: Project) -> None:
    project.write("other.py", "open('other.txt', 'w').close()")
    waiting = "import os, time\nwhile not os.path.exists('other.txt'): time.sleep(0.01)\nopen('own.txt', 'w').close()"
    both: list[object] = []
    result = project.script(
        waiting,
        means=WITHOUT_COMPILER,
        during=lambda: both.append(project.run("other.py", means=WITHOUT_COMPILER)),
    )
    assert result.status == 0, result.stderr
    assert any(reason.startswith("shared-directory: ") for reason in result.trace.reasons)
    alone = project.run("other.py", means=WITHOUT_COMPILER)
    assert alone.trace.complete, alone.trace.reasons


@pytest.mark.usefixtures("needs_preload")
def test_two_runs_at_once_are_told_apart_by_the_library(project: Project) -> None:
    project.write("other.py", "open('other.txt', 'w').close()")
    waiting = "import os, time\nwhile not os.path.exists('other.txt'): time.sleep(0.01)\nopen('own.txt', 'w').close()"
    result = project.script(waiting, during=lambda: project.run("other.py"))
    assert result.trace.complete, result.trace.reasons
    assert result.names("write") == {"own.txt"}


def test_a_daemon_that_stays_is_told(project: Project) -> None:
    result = project.script(
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            for fd in (0, 1, 2): os.close(fd)
            time.sleep(3)
            os._exit(0)
        """
    )
    assert any(reason.startswith("still-running: ") for reason in result.trace.reasons)
