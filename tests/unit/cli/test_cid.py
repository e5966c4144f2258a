"""`lichen cid` prints what `ipfs add --cid-version=1` would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lichen.cli.table import table

VECTORS = Path(__file__).parents[2] / "vectors"


def run(*words: str, expect: int = 0, given: bytes | None = None) -> Result:
    done = CliRunner().invoke(table, ["cid", *words], input=given)
    assert done.exit_code == expect, done.stderr
    return done


def test_a_file_a_directory_and_the_standard_input_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one").write_bytes(b"a")
    Path("two").mkdir()
    Path("two/.hidden").write_bytes(b"b")
    empty = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"  # what `ipfs add` says of nothing
    nothing = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"  # and of an empty directory
    assert run("-", given=b"").stdout == f"{empty}  -\n"
    done = run("one", "two")
    assert [line.split("  ")[1] for line in done.stdout.splitlines()] == ["one", "two"]
    assert f"{nothing}  two" in done.stdout
    assert "1 hidden entries were left out" in done.stderr
    assert run("-", given=b"a").stdout.split()[0] == done.stdout.split()[0]
    (told,) = json.loads(run("--json", "--hidden", "two").stdout)
    assert told["cid"] != nothing
    assert (told["kind"], told["file_count"], told["left_out"], told["profile"]) == (
        "directory", 1, 0, "cidv1-raw-262144-174",
    )  # fmt: skip


def test_the_tensors_of_a_file_are_named_beside_its_bytes() -> None:
    pytest.importorskip("numpy")
    paths = [str(path) for path in sorted((VECTORS / "weights").glob("*.safetensors"))]
    first, second = json.loads(run("--json", "--tensors", *paths).stdout)
    assert first["tensor_digest"] == second["tensor_digest"]
    assert "5 in safetensors" in run("--tensors", paths[0]).stdout


def test_what_has_no_name_is_an_error(tmp_path: Path) -> None:
    assert "there is no file" in run(str(tmp_path / "nothing"), expect=2).stderr
    (tmp_path / "text").write_text("text")
    assert "no file of weights" in run("--tensors", str(tmp_path / "text"), expect=3).stderr
