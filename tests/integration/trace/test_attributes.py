"""What a run does to files beside their content: an answer would not do it again."""

from __future__ import annotations

import os
import stat

import pytest

from .conftest import Project, Result

MEANS = [("audit",), ("audit", "preload")]


def blamed(result: Result) -> bool:
    """Say whether the run is said to have changed attributes."""
    return any(reason.startswith("attributes: ") for reason in result.trace.reasons)


@pytest.mark.parametrize("means", MEANS, ids=["audit", "preload"])
@pytest.mark.usefixtures("needs_preload")
def test_permissions_changed_from_python(project: Project, means: tuple[str, ...]) -> None:
    file = project.write("tool.sh", "echo 1\n")
    changing = f"import os; os.chmod({str(file)!r}, 0o755)"
    assert blamed(project.script(changing, means=means))
    assert stat.S_IMODE(file.stat().st_mode) == 0o755
    assert not blamed(project.script(changing, means=means))  # they stand so already


@pytest.mark.usefixtures("needs_preload")
def test_permissions_changed_by_a_program(project: Project) -> None:
    project.write("tool.sh", "echo 1\n")
    changing = 'import subprocess; subprocess.run(["chmod", "755", "tool.sh"], check=True)'
    assert blamed(project.script(changing))
    assert not blamed(project.script(changing))


@pytest.mark.usefixtures("needs_preload")
def test_what_the_run_made_itself_may_get_any_permissions(project: Project) -> None:
    made = 'import os, subprocess; open("o", "w").close(); os.chmod("o", 0o755); subprocess.run(["chmod", "700", "o"])'
    result = project.script(made)
    assert result.trace.complete, result.trace.reasons


@pytest.mark.usefixtures("needs_preload")
def test_extended_attributes_of_what_was_there(project: Project) -> None:
    file = project.write("data.csv", "1")
    try:
        os.setxattr(file, "user.before", b"1")
    except OSError:
        pytest.skip("this file system keeps no attributes")
    assert blamed(project.script('import os; os.setxattr("data.csv", "user.kind", b"1")'))
    assert blamed(project.script('import os; os.getxattr("data.csv", "user.before")'))
    assert not blamed(project.script('import shutil; shutil.copy("data.csv", "copy.csv")'))
    assert blamed(project.script('import os; os.removexattr("data.csv", "user.before")'))


@pytest.mark.usefixtures("needs_preload")
@pytest.mark.parametrize(
    "make",
    ['import os; os.mkfifo("pipe")', 'import subprocess; subprocess.run(["mkfifo", "pipe"], check=True)'],
    ids=["python", "program"],
)
def test_a_named_pipe_that_stays_is_seen(project: Project, make: str) -> None:
    result = project.script(make)
    assert "pipe" in result.names("write")
    (project.root / "pipe").unlink()
    assert "pipe" not in project.script(f"{make}; import os; os.remove('pipe')").names("write")
