"""Thirty small scripts that depend on things in as many ways, for the stale-hit campaign.

Each case writes ``out/result.txt`` as a function of everything it reads, so any relevant change shows in its output. ``K = 1`` lines are
what mutations of code change; data files are rewritten by the writer of their format from a new seed.
"""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stale_distributions import Distribution

if TYPE_CHECKING:
    from stale_scene import Scene

Writer = Callable[[Path, int], None]
Undo = Callable[[], None]

HEAD = "import hashlib, os, pathlib\nK = 1\ndef save(*parts):\n    os.makedirs('out', exist_ok=True)\n    text = repr((K,) + parts)\n    open('out/result.txt', 'w').write(text + hashlib.sha256(text.encode()).hexdigest())\n    print('accuracy:', len(text))\n"


def numbers(seed: int, count: int = 60) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(1000) for _ in range(count)]


def write_csv(path: Path, seed: int) -> None:
    rows = numbers(seed)
    path.write_text("a,b\n" + "".join(f"{x},{y}\n" for x, y in zip(rows[::2], rows[1::2], strict=True)))


def write_json(path: Path, seed: int) -> None:
    path.write_text(json.dumps({"values": numbers(seed), "seed": seed}))


def write_text(path: Path, seed: int) -> None:
    path.write_text(" ".join(map(str, numbers(seed))))


def write_parquet(path: Path, seed: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": numbers(seed)}), path)


def write_hdf5(path: Path, seed: int) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["a"] = numbers(seed)


def write_safetensors(path: Path, seed: int) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"a": np.array(numbers(seed), dtype=np.int64)}, path)


def write_npy(path: Path, seed: int) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.save(file, np.array(numbers(seed)))


def write_sqlite(path: Path, seed: int) -> None:
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a INTEGER)")
    connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in numbers(seed)])
    connection.commit()
    connection.close()


def write_gzip(path: Path, seed: int) -> None:
    with gzip.open(path, "wt") as file:
        file.write(" ".join(map(str, numbers(seed))))


def write_zip(path: Path, seed: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", " ".join(map(str, numbers(seed))))


@dataclass(frozen=True)
class Case:
    """One script with what it depends on.

    Args:
        name: Of the case.
        argv: After the interpreter; ``{outside}`` is a data directory outside the project.
        code: Source by path.
        data: Writer by path; paths that begin with ``@`` lie outside the project.
        listed: Directories that are listed, where a new file matters.
        absent: Paths looked for; content that is valid there.
        variables: Variables read.
        program: First word, when it is not Python.
        links: Symbolic links, with the targets each may have; the first to begin with.
        preset: Variables that are set from the beginning.
        distributions: Installed in the interpreter's environment.
        optional: Distributions that are not installed, and may be.
        interpreter: ``""`` (the campaign's), ``venv`` (a private environment) or ``user`` (the base one, with packages in the home).
        prepare: Makes what files and links cannot say; called once, with the scene.
        reads_stdin: The script reads a file from standard input.
        sees_times: The script looks at modification times.
        library_path: ``LD_LIBRARY_PATH`` leads to two directories outside the project.
        own: Mutations of this case alone, by class; each takes the scene and returns how to take it back.
    """

    name: str
    argv: tuple[str, ...]
    code: dict[str, str]
    data: Mapping[str, Writer] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    absent: dict[str, str] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    program: str | None = None
    links: dict[str, tuple[str, ...]] = field(default_factory=dict)
    preset: dict[str, str] = field(default_factory=dict)
    distributions: tuple[Distribution, ...] = ()
    optional: tuple[Distribution, ...] = ()
    interpreter: str = ""
    prepare: Callable[[Scene], None] | None = None
    reads_stdin: bool = False
    sees_times: bool = False
    library_path: bool = False
    own: dict[str, Callable[[Scene], Undo]] = field(default_factory=dict)


def case(
    name: str, body: str, *, argv: tuple[str, ...] = (), code: dict[str, str] | None = None, **more: object
) -> Case:
    return Case(name, ("main.py", *argv), {"main.py": HEAD + body, **(code or {})}, **more)  # type: ignore[arg-type]


MODULE = "K = 1\ndef f(x):\n    return x * K + 7\n"

CASES: tuple[Case, ...] = (
    case("plain_open", "save(open('d.txt').read())\n", data={"d.txt": write_text}),
    case("pandas_csv", "import pandas as pd\nsave(int(pd.read_csv('d.csv').a.sum()))\n", data={"d.csv": write_csv}),
    case("pandas_parquet", "import pandas as pd\nsave(int(pd.read_parquet('d.parquet').a.sum()))\n", data={"d.parquet": write_parquet}),
    case("pyarrow_memory_map", "import pyarrow.parquet as pq\nsave(pq.read_table('d.parquet', memory_map=True).column('a').to_pylist())\n", data={"d.parquet": write_parquet}),
    case("pyarrow_dataset", "import pyarrow.dataset as ds\nsave(ds.dataset('parts', format='parquet').to_table().column('a').to_pylist())\n", data={"parts/one.parquet": write_parquet, "parts/two.parquet": write_parquet}),
    case("h5py", "import h5py\nwith h5py.File('d.h5') as f:\n    save([int(x) for x in f['a'][:]])\n", data={"d.h5": write_hdf5}),
    case("safetensors", "from safetensors.numpy import load_file\nsave(load_file('d.safetensors')['a'].tolist())\n", data={"d.safetensors": write_safetensors}),
    case("numpy_load", "import numpy as np\nsave(np.load('d.npy').tolist())\n", data={"d.npy": write_npy}),
    case("numpy_memmap", "import numpy as np\nsave(int(np.load('d.npy', mmap_mode='r').sum()))\n", data={"d.npy": write_npy}),
    case("sqlite", "import sqlite3\nc = sqlite3.connect('file:d.db?mode=ro', uri=True)\nsave(c.execute('SELECT SUM(a) FROM t').fetchone())\n", data={"d.db": write_sqlite}),
    case("gzip_zip", "import gzip, zipfile\nsave(gzip.open('d.gz', 'rt').read(), zipfile.ZipFile('d.zip').read('a.txt'))\n", data={"d.gz": write_gzip, "d.zip": write_zip}),
    case("module", "from helper import f\nsave(f(len(open('d.txt').read())))\n", code={"helper.py": MODULE}, data={"d.txt": write_text}),
    case("package", "from pkg.inner.deep import f\nsave(f(3))\n", code={"pkg/__init__.py": "K = 1\n", "pkg/inner/__init__.py": "", "pkg/inner/deep.py": "import pkg\n" + MODULE + "K = K + pkg.K\n"}),
    case("plugins", "import importlib, sys\nsys.path.insert(0, 'plugins')\nsave([importlib.import_module(p.stem).f(2) for p in sorted(pathlib.Path('plugins').glob('*.py'))])\n", code={"plugins/a_plugin.py": MODULE, "plugins/b_plugin.py": MODULE}, listed=("plugins",)),
    case("exec_source", "scope = {}\nexec(open('rules.txt').read(), scope)\nsave(scope['f'](4))\n", code={"rules.txt": MODULE}),
    case("subprocess_cat", "import subprocess\nsave(subprocess.run(['cat', 'd.txt'], capture_output=True, text=True).stdout)\n", data={"d.txt": write_text}),
    case("shell_pipe", "import subprocess\nsave(subprocess.run('cat d.txt | tr 1 x | sort', shell=True, capture_output=True, text=True).stdout)\n", data={"d.txt": write_text}),
    case("python_child", "import subprocess, sys\nsave(subprocess.run([sys.executable, 'child.py'], capture_output=True, text=True).stdout)\n", code={"child.py": "K = 1\nprint(K, open('d.txt').read())\n"}, data={"d.txt": write_text}),
    case("multiprocessing", "import multiprocessing as mp\nfrom helper import read\nif __name__ == '__main__':\n    with mp.get_context('fork').Pool(2) as pool:\n        save(pool.map(read, ['a.txt', 'b.txt']))\n", code={"helper.py": "K = 1\ndef read(p):\n    return K, open(p).read()\n"}, data={"a.txt": write_text, "b.txt": write_text}),
    case("loky", "from joblib import Parallel, delayed\nfrom helper import read\nif __name__ == '__main__':\n    save(Parallel(n_jobs=2)(delayed(read)(p) for p in ['a.txt', 'b.txt']))\n", code={"helper.py": "K = 1\ndef read(p):\n    return K, open(p).read()\n"}, data={"a.txt": write_text, "b.txt": write_text}),
    case("listing", "save(sorted(os.listdir('items')))\n", data={"items/x.txt": write_text, "items/y.txt": write_text}, listed=("items",)),
    case("walk_glob", "import glob\nsave(sorted(glob.glob('tree/**/*.txt', recursive=True)), [open(p).read() for p in sorted(glob.glob('tree/**/*.txt', recursive=True))])\n", data={"tree/x.txt": write_text, "tree/deep/y.txt": write_text}, listed=("tree", "tree/deep")),
    case("optional_config", "import json\nextra = json.load(open('config.json')) if os.path.exists('config.json') else {}\ntry:\n    more = open('more.txt').read()\nexcept FileNotFoundError:\n    more = ''\nsave(extra, more)\n", absent={"config.json": '{"x": 1}', "more.txt": "more"}),
    case("pathlib_optional", "p = pathlib.Path('maybe')\nsave(p.is_dir(), (p / 'inner.txt').is_file(), os.access('flag', os.R_OK))\n", absent={"flag": "1", "maybe": "a file"}),
    case("variables", "save(os.environ.get('MODE'), os.getenv('SCALE', '1'), 'DEBUG' in os.environ)\n", variables=("MODE", "SCALE", "DEBUG")),
    case("optional_import", "try:\n    import extras\n    e = extras.VALUE\nexcept ImportError:\n    e = None\nimport json\nsave(e, json.dumps(1))\n", absent={"extras.py": "VALUE = 5\n", "json.py": "def dumps(x): return 'shadowed'\n"}),
    case("outside", "import sys\nsave(open(sys.argv[1] + '/d.txt').read())\n", argv=("{outside}",), data={"@d.txt": write_text}),
    case("outside_native", "import sys\nimport pyarrow.parquet as pq\nsave(pq.read_table(sys.argv[1] + '/d.parquet').column('a').to_pylist())\n", argv=("{outside}",), data={"@d.parquet": write_parquet}),
    case("threads_and_size", "import threading\nfound = []\nts = [threading.Thread(target=lambda p=p: found.append((p, open(p).read()))) for p in ('a.txt', 'b.txt')]\n[t.start() for t in ts]; [t.join() for t in ts]\nsave(sorted(found), os.path.getsize('c.txt'))\n", data={"a.txt": write_text, "b.txt": write_text, "c.txt": write_text}),
    Case("bash", ("main.sh",), {"main.sh": "K=1\nmkdir -p out\nif [ -f extra.txt ]; then cat extra.txt; fi\nread -r line < d.txt\necho \"$K $line $(cat e.txt)\" > out/result.txt\n"}, data={"d.txt": write_text, "e.txt": write_text}, absent={"extra.txt": "x"}, program="bash"),
)  # fmt: skip
