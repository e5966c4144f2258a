"""Join the files of `lichen.archive.standalone` into the one program that travels with every archive.

Each file is taken as it stands, without its docstring, its imports and its list of public names; what they import from the
standard library comes first. So the program can be read in one go, and the repository keeps short files.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import Final

__all__ = ["PARTS", "verifier_source"]

PARTS: Final = (
    "faults",
    "texts",
    "ed25519",
    "trees",
    "notes",
    "shapes",
    "members",
    "registry",
    "replay",
    "cars",
    "files",
    "workers",
    "check",
    "program",
)
"""Files in the order in which they are joined: each uses only what comes before it."""

_FOLDER: Final = Path(__file__).with_name("standalone")
_HEAD: Final = '''#!/usr/bin/env python3
"""Check an archive of a ledger with nothing but Python 3.9 or newer: `python3 verify_ledger.py ARCHIVE`.

Everything is derived again from the entries: every signature, the log's tree and its tiles, every seal and checkpoint, whose
key spoke for whom and when, the rules of each kind of record, the state, the artefacts. The first entry that does not
hold is named, and why. This file imports nothing but the standard library, and shares no code with the program that wrote the
archive.
"""
'''
_TAIL: Final = '\n\nif __name__ == "__main__":\n    sys.exit(main())\n'


@functools.cache
def verifier_source() -> str:
    """Return the whole program.

    Returns:
        Text of ``verify_ledger.py``, ASCII.
    """
    imports: set[str] = set()
    bodies = []
    defined: dict[str, str] = {}
    for part in PARTS:
        text = (_FOLDER / f"{part}.py").read_text(encoding="utf-8")
        body = _body(text, imports)
        for name in _names(body):
            assert name not in defined, (
                f"{name} stands in {defined[name]} and in {part}: one would hide the other"
            )
            defined[name] = part
        title = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
        bodies.append(f"\n\n# ==== {part}: {title} ====\n\n\n{body}")
    listed = "\n".join(sorted(imports, key=lambda line: (line.startswith("from "), line)))
    return f"{_HEAD}\nfrom __future__ import annotations\n\n{listed}\n{''.join(bodies)}{_TAIL}"


def _body(text: str, imports: set[str]) -> str:
    """Take a file's own definitions; note what it imports from the standard library."""
    lines = text.splitlines()
    dropped: set[int] = set()
    for node in ast.parse(text).body:
        is_import = isinstance(node, ast.Import | ast.ImportFrom)
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_public_list = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if is_import or is_docstring or is_public_list:
            dropped |= set(range(node.lineno - 1, node.end_lineno or node.lineno))
        source = ast.unparse(node)
        if is_import and "__future__" not in source and "lichen." not in source:
            imports.add(source)
    kept = [line for number, line in enumerate(lines) if number not in dropped]
    return "\n".join(kept).strip("\n")


def _names(body: str) -> set[str]:
    """Names that a piece of source defines at its top level."""
    names = set()
    for node in ast.parse(body).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {
                each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
            }
    return names
