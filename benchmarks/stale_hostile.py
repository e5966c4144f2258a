"""Scripts of the stale-hit campaign that depend on what is easily overlooked: links, installed versions, PATH, the home, times.

Paths: ``@`` lies outside the project, ``~`` in the home, ``%`` in a directory on PATH, ``^`` in the site directory.
"""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from stale_corpus import HEAD, MODULE, Case, Undo, case, write_json, write_sqlite, write_text
from stale_distributions import Distribution

if TYPE_CHECKING:
    from stale_scene import Scene

__all__ = ["HOSTILE"]

_LIBRARY = Distribution(
    "fakelib",
    files={"fakelib/__init__.py": MODULE, "fakelib/inner.py": "K = 1\n", "fakelib/data.txt": "K = 1\n"},
)
_READS = (
    "import fakelib\nsave(fakelib.f(3), (pathlib.Path(fakelib.__file__).parent / 'data.txt').read_text())\n"
)
_PLUGIN = Distribution(
    "plugone", files={"plugone.py": MODULE}, entry_points="[fake.plugins]\none = plugone:f\n"
)
_PLUGIN_TWO = Distribution(
    "plugtwo", files={"plugtwo.py": MODULE}, entry_points="[fake.plugins]\ntwo = plugtwo:f\n"
)
_FAKEOPT = Distribution("fakeopt", files={"fakeopt.py": MODULE})
_C_SOURCE = "int f(int x) { return x + %d; }\n"


def build_library(path: Path, constant: int) -> None:
    """Compile a shared library whose function adds a constant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".c")
    source.write_text(_C_SOURCE % constant)
    made = path.with_suffix(".new")
    subprocess.run([shutil.which("cc") or "cc", "-shared", "-fPIC", "-o", made, source], check=True)
    source.unlink()
    made.replace(path)


def write_library(path: Path, seed: int) -> None:
    build_library(path, seed)


def write_zipped_module(path: Path, seed: int) -> None:
    """Write an archive with one module."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("zipped.py", f"VALUE = {seed}\n")


def _file_changes(path: Path) -> Undo:
    """Return how to put a path back as it is now."""
    if path.is_symlink():
        target = path.readlink()

        def relink() -> None:
            path.unlink(missing_ok=True)
            path.symlink_to(target)

        return relink
    content, info = (path.read_bytes(), path.stat()) if path.exists() else (None, None)

    def restore() -> None:
        if content is None or info is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)
            path.chmod(info.st_mode & 0o7777)
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))

    return restore


def change_mode(scene: Scene) -> Undo:
    """Another set of permission bits."""
    path = scene.path("tool.sh")
    undo = _file_changes(path)
    path.chmod(scene.rng.choice([0o600, 0o711, 0o755]))
    return undo


def earlier_library(scene: Scene) -> Undo:
    """A library of the same name in an earlier directory of LD_LIBRARY_PATH."""
    path = scene.path("@early/libfake.so")
    undo = _file_changes(path)
    build_library(path, scene.rng.randrange(20, 29))
    return undo


def move_branch(scene: Scene) -> Undo:
    """The branch has another commit."""
    path = scene.path(".git/refs/heads/main")
    undo = _file_changes(path)
    path.write_text(f"{scene.rng.randrange(16**40):040x}\n")
    return undo


def switch_branch(scene: Scene) -> Undo:
    """Another branch is checked out."""
    path = scene.path(".git/HEAD")
    undo = _file_changes(path)
    path.write_text("ref: refs/heads/other\n")
    return undo


def lay_out_repository(scene: Scene) -> None:
    """A repository with two branches and no objects, enough to ask for its head."""
    for name, text in {
        ".git/HEAD": "ref: refs/heads/main\n",
        ".git/refs/heads/main": "1" * 40 + "\n",
        ".git/refs/heads/other": "2" * 40 + "\n",
        ".git/objects/info/keep": "",
        ".git/config": "[core]\n\trepositoryformatversion = 0\n\tbare = false\n",
    }.items():
        scene.write(name, text.encode())


def lay_out_hard_link(scene: Scene) -> None:
    """Two names of one file."""
    os.link(scene.path("b.txt"), scene.path("a.txt"))


def lay_out_bytecode(scene: Scene) -> None:
    """A module of which only bytecode is there."""
    _compile_helper(scene, 1)


def _compile_helper(scene: Scene, constant: int) -> None:
    source = scene.path("source_of_helper.txt")
    source.write_text(MODULE.replace("K = 1", f"K = {constant}"))
    py_compile.compile(str(source), cfile=str(scene.path("helper.pyc")), doraise=True)
    source.unlink()


def change_bytecode(scene: Scene) -> Undo:
    """Bytecode compiled from another source."""
    undo = _file_changes(scene.path("helper.pyc"))
    _compile_helper(scene, scene.rng.randrange(2, 9))
    return undo


_ITEMS = {"items/x.txt": write_text, "items/y.txt": write_text}
_RUNS = {"run-1/d.txt": write_text, "run-2/d.txt": write_text}
_CURRENT = {"current": ("run-1", "run-2")}
_TOOL = {"%late/tool": "#!/bin/sh\nK=1\necho $K\n"}
_TOOL_ABSENT = {"%early/tool": "#!/bin/sh\necho earlier\n"}

HOSTILE: tuple[Case, ...] = (
    # Installed distributions.
    case("dist_module", _READS, distributions=(_LIBRARY,), interpreter="venv"),
    case("dist_version", "from importlib.metadata import version\nsave(version('fakelib'))\n", distributions=(_LIBRARY,), interpreter="venv"),
    case("dist_plugins", "from importlib.metadata import entry_points\nsave(sorted((e.name, e.load()(2)) for e in entry_points(group='fake.plugins')))\n", distributions=(_PLUGIN,), optional=(_PLUGIN_TWO,), interpreter="venv"),
    case("dist_listed", "import pkgutil, fakelib\nsave(sorted(m.name for m in pkgutil.iter_modules(fakelib.__path__)))\n", distributions=(_LIBRARY,), interpreter="venv", absent={"^fakelib/extra.py": "VALUE = 1\n"}),
    case("dist_folder", "import fakelib\nsave(sorted(n for n in os.listdir(os.path.dirname(fakelib.__file__)) if n != '__pycache__'))\n", distributions=(_LIBRARY,), interpreter="venv", absent={"^fakelib/extra.txt": "1"}),
    case("dist_optional", "try:\n    import fakeopt\n    v = fakeopt.f(2)\nexcept ImportError:\n    v = None\nsave(v)\n", optional=(_FAKEOPT,), interpreter="venv"),
    case("dist_editable", _READS, distributions=(Distribution("fakelib", files=_LIBRARY.files, origin="editable"),), interpreter="venv"),
    case("dist_local", _READS, distributions=(Distribution("fakelib", files=_LIBRARY.files, origin="local"),), interpreter="venv"),
    case("dist_appended_path", "import sys\nsys.path.append('lib')\nimport fakeopt\nsave(fakeopt.f(4))\n", code={"lib/fakeopt.py": MODULE}, optional=(Distribution("fakeopt", files={"fakeopt.py": MODULE.replace("+ 7", "+ 8")}),), interpreter="venv"),
    case("dist_child", "import subprocess, sys\nsave(subprocess.run([sys.executable, '-c', 'import fakelib; print(fakelib.f(5))'], capture_output=True, text=True).stdout)\n", distributions=(_LIBRARY,), interpreter="venv"),
    case("site_start", "import builtins\nsave(getattr(builtins, 'INJECTED', 0), os.environ.get('FROM_PTH'))\n", interpreter="venv", absent={"^sitecustomize.py": "import builtins\nbuiltins.INJECTED = 1\n", "^usercustomize.py": "1/0\n", "^zz_start.pth": "import os; os.environ['FROM_PTH'] = '1'\n", "^zz_path.pth": "/nowhere\n"}),
    case("site_path_file", "try:\n    import later\n    v = later.f(1)\nexcept ImportError:\n    v = None\nsave(v)\n", code={"@more/later.py": MODULE}, interpreter="venv", own={"add_path_file": lambda scene: _add(scene, "^zz_more.pth", f"{scene.root}/outside/more\n")}),
    case("user_site", "try:\n    import fakeopt\n    v = fakeopt.f(2)\nexcept ImportError:\n    v = None\nsave(v)\n", interpreter="user", optional=(_FAKEOPT,)),
    case("user_site_installed", _READS, distributions=(_LIBRARY,), interpreter="user"),
    # Links.
    case("link_opened", "save(open('current/d.txt').read())\n", data=_RUNS, links=_CURRENT),
    case("link_resolved", "save(open(os.path.realpath('current') + '/d.txt').read())\n", data=_RUNS, links=_CURRENT),
    case("link_read", "save(os.readlink('current'))\n", data=_RUNS, links=_CURRENT),
    case("link_name", "save(os.path.basename(os.path.realpath('current')), pathlib.Path('current').resolve().name)\n", data=_RUNS, links=_CURRENT),
    case("link_listed", "save(sorted(os.listdir('current')))\n", data={**_RUNS, "run-2/more.txt": write_text}, links=_CURRENT),
    case("link_native", "import subprocess\nsave(subprocess.run(['readlink', '-f', 'current'], capture_output=True, text=True).stdout[-6:])\n", data=_RUNS, links=_CURRENT),
    case("link_outside", "save(open('@/d.txt').read())\n".replace("'@", "OUT + '/current").replace("save(", "import sys\nOUT = sys.argv[1]\nsave("), argv=("{outside}",), data={f"@{name}": writer for name, writer in _RUNS.items()}, links={"@current": ("run-1", "run-2")}),
    case("hard_link", "save(open('a.txt').read())\n", data={"b.txt": write_text}, prepare=lay_out_hard_link),
    # Ways of opening.
    case("directory_descriptor", "d = os.open('items', os.O_RDONLY | os.O_DIRECTORY)\nsave(os.fdopen(os.open('x.txt', os.O_RDONLY, dir_fd=d)).read(), os.stat('y.txt', dir_fd=d).st_size)\n", data=_ITEMS),
    case("path_descriptor", "d = os.open('items', os.O_PATH)\nsave(os.fdopen(os.open('x.txt', os.O_RDONLY, dir_fd=d)).read())\n", data=_ITEMS),
    case("listed_descriptor", "d = os.open('items', os.O_RDONLY)\nsave(sorted(os.listdir(d)))\n", data=_ITEMS, listed=("items",)),
    case("fwalk", "save([(sorted(f), [os.stat(x, dir_fd=fd).st_size for x in sorted(f)]) for _, _, f, fd in os.fwalk('items')])\n", data=_ITEMS, listed=("items",)),
    case("reopened", "d = os.open('d.txt', os.O_PATH)\nsave(open(f'/proc/self/fd/{d}').read())\n", data={"d.txt": write_text}),
    case("through_proc", "save(open('/proc/self/cwd/d.txt').read(), sorted(os.listdir('/proc/self/cwd/items')))\n", data={"d.txt": write_text, **_ITEMS}, listed=("items",)),
    case("scanned_sizes", "save(sorted((e.name, e.stat().st_size) for e in os.scandir('items')))\n", data=_ITEMS, listed=("items",)),
    case("path_sizes", "save(sorted((p.name, p.stat().st_size) for p in pathlib.Path('items').iterdir()))\n", data=_ITEMS, listed=("items",)),
    case("mapped", "import mmap\nwith open('d.txt', 'rb') as f:\n    save(bytes(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)))\n", data={"d.txt": write_text}),
    case("copied", "import shutil\nos.makedirs('out', exist_ok=True)\nshutil.copyfile('d.txt', 'out/copy.txt')\nsave(open('out/copy.txt').read())\n", data={"d.txt": write_text}),
    case("sqlite_default", "import sqlite3\nsave(sqlite3.connect('d.db').execute('SELECT SUM(a) FROM t').fetchone())\n", data={"d.db": write_sqlite}),
    case("zip_import", "import sys\nsys.path.insert(0, 'lib.zip')\nimport zipped\nsave(zipped.VALUE)\n", data={"lib.zip": write_zipped_module}),
    # Modules.
    case("bytecode_only", "import helper\nsave(helper.f(2))\n", prepare=lay_out_bytecode, own={"change_bytecode": change_bytecode}),
    case("namespace_package", "from ns.mod import f\nsave(f(2))\n", code={"ns/mod.py": MODULE}, absent={"ns/__init__.py": "raise SystemExit(3)\n", "ns.py": "def f(x): return 0\n"}),
    case("optional_part", "try:\n    from pk.mod import fast\nexcept ImportError:\n    fast = None\nimport importlib.util\nsave(fast is None, importlib.util.find_spec('pk.more') is None, importlib.util.find_spec('lone') is None)\n", code={"pk/__init__.py": "", "pk/mod/__init__.py": ""}, absent={"pk/mod/fast.py": "", "pk/mod/fast/__init__.py": "", "pk/more.py": "", "lone.py": ""}),
    case("extension_first", "import helper\nsave(helper.f(2))\n", code={"helper.py": MODULE}, absent={"helper.cpython-311-x86_64-linux-gnu.so": "no library", "helper/__init__.py": "def f(x): return 0\n"}),
    Case("run_as_module", ("-m", "tool"), {"tool/__main__.py": HEAD + "from .inner import f\nsave(f(2))\n", "tool/inner.py": MODULE, "tool/__init__.py": ""}, absent={"tool.py": "raise SystemExit(3)\n"}),
    case("script_folder", "save((pathlib.Path(__file__).parent / 'd.json').read_text())\n", data={"d.json": write_json}),
    # Programs and libraries.
    case("tool_on_path", "import subprocess\nsave(subprocess.run(['tool'], capture_output=True, text=True).stdout)\n", code=_TOOL, absent=_TOOL_ABSENT),
    case("tool_by_shell", "import subprocess\nsave(subprocess.run('tool', shell=True, capture_output=True, text=True).stdout)\n", code=_TOOL, absent=_TOOL_ABSENT),
    case("tool_looked_up", "import shutil\nsave(os.path.basename(os.path.dirname(shutil.which('tool') or '/none/x')))\n", code=_TOOL, absent=_TOOL_ABSENT),
    Case("tool_in_bash", ("main.sh",), {"main.sh": "K=1\nmkdir -p out\ntool > out/result.txt\necho $K >> out/result.txt\n", **_TOOL}, absent=_TOOL_ABSENT, program="bash"),
    case("own_program", "import subprocess\nsave(subprocess.run(['./own.py'], capture_output=True, text=True).stdout)\n", code={"own.py": "#!/usr/bin/env python3\nK = 1\nprint(K)\n"}),
    case("library", "import ctypes\nsave(ctypes.CDLL('./libfake.so').f(1))\n", data={"libfake.so": write_library}),
    case("library_on_path", "import ctypes\nsave(ctypes.CDLL('libfake.so').f(1))\n", data={"@late/libfake.so": write_library}, library_path=True, own={"earlier_library": earlier_library}),
    case("git_head", "import subprocess\nsave(subprocess.run(['git', 'rev-parse', 'HEAD'], capture_output=True, text=True).stdout)\n", prepare=lay_out_repository, own={"move_branch": move_branch, "switch_branch": switch_branch}),
    case("git_branches", "save(sorted(os.listdir('.git/refs/heads')))\n", prepare=lay_out_repository, absent={".git/refs/heads/new": "3" * 40 + "\n"}),
    Case("sizes_by_find", ("main.sh",), {"main.sh": "K=1\nmkdir -p out\nfind items -type f -size +200c | sort > out/result.txt\ndu -b items/x.txt >> out/result.txt\necho $K >> out/result.txt\n"}, data=_ITEMS, listed=("items",), program="bash"),
    Case("newer_in_bash", ("main.sh",), {"main.sh": "K=1\nmkdir -p out\nif [ a.txt -nt b.txt ]; then echo a; else echo b; fi > out/result.txt\necho $K >> out/result.txt\n"}, data={"a.txt": write_text, "b.txt": write_text}, program="bash", sees_times=True),
    # Surroundings of the process.
    case("home_settings", "import json, netrc\np = pathlib.Path.home() / '.config/tool.json'\ntry:\n    n = sorted(netrc.netrc().hosts)\nexcept FileNotFoundError:\n    n = None\nsave(json.loads(p.read_text()), n)\n", data={"~.config/tool.json": write_json}, absent={"~.netrc": "machine example login a password b\n"}),
    case("standard_input", "import sys\nsave(sys.stdin.read())\n", reads_stdin=True),
    case("input_function", "save(input())\n", reads_stdin=True),
    case("input_of_child", "import subprocess\nsave(subprocess.run(['cat'], capture_output=True, text=True).stdout)\n", reads_stdin=True),
    case("time_zone", "import time\nsave(time.strftime('%H:%M', time.localtime(0)))\n", variables=("TZ",), preset={"TZ": "UTC"}),
    case("flags", "import sys\nsave(sys.flags.optimize, sys.flags.utf8_mode, sys.flags.dev_mode, sys.stdout.encoding, sys.stdout.errors, [str(w) for w in sys.warnoptions], sys.flags.safe_path, sys.flags.int_max_str_digits, hash('x'))\n", variables=("PYTHONUTF8", "PYTHONOPTIMIZE", "PYTHONDEVMODE", "PYTHONSAFEPATH", "PYTHONHASHSEED"), preset={"PYTHONHASHSEED": "0"}, own={"set_encoding": lambda scene: _set(scene, "PYTHONIOENCODING", ["latin-1", "ascii:replace"]), "set_warnings": lambda scene: _set(scene, "PYTHONWARNINGS", ["error", "ignore"]), "set_locale": lambda scene: _set(scene, "LANG", ["C", "C.UTF-8"]), "set_digits": lambda scene: _set(scene, "PYTHONINTMAXSTRDIGITS", ["0", "1000"])}),
    case("prefixed_variables", "save(sorted((k, v) for k, v in os.environ.items() if k.startswith('APP_')))\n", variables=("APP_A", "APP_B")),
    Case("bash_variables", ("main.sh",), {"main.sh": "K=1\nmkdir -p out\necho $K ${MODE:-none} \"$SCALE\" > out/result.txt\n"}, variables=("MODE", "SCALE"), program="bash"),
    case("native_variable", "import ctypes\ng = ctypes.CDLL(None).getenv\ng.restype = ctypes.c_char_p\nsave(g(b'MODE'))\n", variables=("MODE",)),
    case("times", "save(os.path.getmtime('a.txt'), pathlib.Path('b.txt').stat().st_mtime)\n", data={"a.txt": write_text, "b.txt": write_text}, sees_times=True),
    case("newest", "save(max(os.listdir('items'), key=lambda n: os.stat('items/' + n).st_mtime_ns))\n", data=_ITEMS, listed=("items",), sees_times=True),
    case("scanned_times", "save(max((e.stat().st_mtime_ns, e.name) for e in os.scandir('items')))\n", data=_ITEMS, listed=("items",), sees_times=True),
    case("zipped", "import io, zipfile\nz = zipfile.ZipFile(io.BytesIO(), 'w')\nz.write('a.txt')\nsave(z.infolist()[0].date_time, z.infolist()[0].CRC)\n", data={"a.txt": write_text}, sees_times=True),
    case("archived", "import io, tarfile\nt = tarfile.open(fileobj=io.BytesIO(), mode='w')\nt.add('items')\nsave(sorted((m.name, m.mtime, m.mode) for m in t.getmembers()))\n", data=_ITEMS, listed=("items",), sees_times=True),
    case("permissions", "save(os.access('tool.sh', os.X_OK), oct(os.stat('tool.sh').st_mode))\n", data={"tool.sh": write_text}, own={"change_mode": change_mode}),
    case("whole_status", "s = os.stat('a.txt')\nsave(s[6], s[8])\n", data={"a.txt": write_text}, sees_times=True),
)  # fmt: skip


def _add(scene: Scene, name: str, text: str) -> Undo:
    undo = _file_changes(scene.path(name))
    scene.write(name, text.encode())
    return undo


def _set(scene: Scene, name: str, values: list[str]) -> Undo:
    before = dict(scene.variables)

    def undo() -> None:
        scene.variables.clear()
        scene.variables.update(before)

    scene.variables[name] = scene.rng.choice(values)
    return undo
