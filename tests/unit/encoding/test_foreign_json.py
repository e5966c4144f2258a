"""JSON of others: read, or a ValueError and nothing else."""

import ast
from pathlib import Path

import pytest

import lichen
from lichen.encoding.foreign_json import read_json

_OWN = {
    "encoding/canonical.py", "encoding/foreign_json.py", "encoding/statement.py", "archive/standalone/texts.py",
    "runs/work/manifest.py", "content/weights/safetensors_file.py",  # each of these catches RecursionError itself
    "ledger/audit/scratch.py", "ledger/audit/stored.py", "ledger/views.py", "runs/reuse/lookup.py",
    "runs/reuse/local_index.py", "runs/records/flags.py", "runs/queries/find.py",  # columns that Lichen's own views wrote
    "runs/records/recording.py",  # a statement made a moment before
}  # fmt: skip


def test_json_is_read() -> None:
    assert read_json('{"a": [1]}') == read_json(b'{"a": [1]}') == {"a": [1]}


@pytest.mark.parametrize(
    "data", ["", "{", b"\xff", "[" * 200_000, '{"a":' * 200_000, b"[" * 200_000, "1" * 5000]
)
def test_what_is_none_is_a_value_error(data: str | bytes) -> None:
    with pytest.raises(ValueError):
        read_json(data)


def test_nothing_else_reads_json_of_others() -> None:
    root = Path(lichen.__file__).parent
    direct = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("load", "loads")
        and isinstance(node.value, ast.Name) and node.value.id == "json"
    }  # fmt: skip
    assert direct == _OWN
