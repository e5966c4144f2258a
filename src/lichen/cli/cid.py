"""`lichen cid`: what IPFS calls files and directories, without a ledger."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, pass_invocation

__all__ = ["cid_command"]

_STANDARD_INPUT = "-"


@click.command(
    "cid",
    epilog=examples(
        "lichen cid model.pkl data/",
        "lichen cid --tensors model.safetensors",
        "cat model.pkl | lichen cid -",
    ),
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--hidden", is_flag=True, help="Count entries whose name starts with a dot, as `ipfs add --hidden`."
)
@click.option(
    "--tensors",
    is_flag=True,
    help="Also print the digest of the tensors in each file, the same in every format.",
)
@json_option
@pass_invocation
def cid_command(invocation: Invocation, /, paths: tuple[str, ...], *, hidden: bool, tensors: bool) -> None:
    """Print the content ids of files and directories.

    They are those of `ipfs add --cid-version=1`: raw leaves of 262,144 bytes, nodes of at most 174 links. `-` is the
    standard input. Nothing is stored, and no ledger is needed.
    """
    from lichen.content.files import show_path

    told = []
    for path in paths:
        named = _named(invocation, path, hidden)
        if tensors and named["kind"] == "file" and path != _STANDARD_INPUT:
            named |= _tensors(path)
        told.append(named)
        if invocation.as_json:
            continue
        invocation.output.line(f"{named['cid']}  {show_path(path)}")
        if "tensor_digest" in named:
            invocation.output.line(
                f"  tensors {named['tensor_digest']}: {named['tensor_count']:,} in {named['file_format']}"
            )
        if named.get("left_out"):
            invocation.output.note(
                f"{show_path(path)}: {named['left_out']:,} hidden entries were left out; --hidden counts them"
            )
    if invocation.as_json:
        invocation.output.json(told)


def _named(invocation: Invocation, path: str, hidden: bool) -> dict[str, Any]:
    from lichen.content.directory import hash_directory
    from lichen.content.unixfs import PROFILE, fill_from_reader, hash_file, hash_stream

    named: dict[str, Any] = {"path": path, "profile": PROFILE}
    if path == _STANDARD_INPUT:
        names = hash_stream(fill_from_reader(sys.stdin.buffer))
    elif os.path.isdir(path):  # noqa: PTH112 - names that cannot be decoded are taken as well
        directory = hash_directory(path, hidden=hidden)
        return named | {
            "kind": "directory", "cid": str(directory.cid), "size_bytes": directory.size_bytes,
            "file_count": len(directory.files), "left_out": len(directory.left_out),
        }  # fmt: skip
    else:
        with invocation.output.progress(f"reading {path}:") as progress:
            names = hash_file(path, progress=progress)
    return named | {
        "kind": "file", "cid": str(names.cid), "sha256": names.sha256.hex(), "size_bytes": names.size_bytes,
    }  # fmt: skip


def _tensors(path: str) -> dict[str, Any]:
    from lichen.content.weights import tensor_digest

    found = tensor_digest(path)
    return {
        "tensor_digest": found.digest.hex(), "tensor_count": found.tensor_count, "tensor_bytes": found.size_bytes,
        "file_format": found.file_format,
    }  # fmt: skip
