"""What is told of a program from its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.runs.trace.programs import is_written_script

PIP = """#!/srv/venv/bin/python3.12
# -*- coding: utf-8 -*-
import re
import sys
from tool.cli import main
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main())
"""
UV = """#!/srv/venv/bin/python
# -*- coding: utf-8 -*-
import sys
from tool.cli import main
if __name__ == "__main__":
    if sys.argv[0].endswith("-script.pyw"):
        sys.argv[0] = sys.argv[0][:-11]
    elif sys.argv[0].endswith(".exe"):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit(main())
"""


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("#!/bin/sh\necho 1\n", True),
        ("#!/usr/bin/env python3\nprint(1)\n", True),
        (PIP, False),
        (UV, False),
        (PIP.replace("sys.exit(main())", "sys.exit(main() + 1)"), True),
        (PIP + "# " + "x" * 1000, True),
        ("\x7fELF", False),
        ("", False),
    ],
    ids=["shell", "python", "pip", "uv", "wrapper-edited", "wrapper-and-more", "binary", "empty"],
)
def test_scripts_are_told_from_what_installers_lay_down(tmp_path: Path, text: str, written: bool) -> None:
    program = tmp_path / "tool"
    program.write_text(text)
    assert is_written_script(str(program)) is written


def test_a_program_that_is_gone_is_no_script(tmp_path: Path) -> None:
    assert not is_written_script(str(tmp_path / "gone"))
