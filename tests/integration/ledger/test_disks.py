"""Full, read-only and failing disks: reported, nothing acknowledged that is not durable, and it works again afterwards."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from faults import disks
from faults.site import Site

from lichen.errors import LichenError


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A new ledger, closed."""
    made = Site(tmp_path / "site")
    made.create().close()
    return made


def sound_after(site: Site, told: dict[str, Any]) -> None:
    found = disks.check_durable(site, told["acknowledged"])
    assert (found["lost"], found["problem"]) == ([], None)


# full


@pytest.mark.slow
@pytest.mark.parametrize("room_bytes", [0, 30_000, 120_000])
def test_a_file_that_may_not_grow(site: Site, room_bytes: int) -> None:
    largest = max(path.stat().st_size for path in site.directory.iterdir())
    told = disks.append_on(site.root, "--appends", "60", "--file-bytes", str(largest + room_bytes))
    assert told["errors"], "the limit was meant to be reached"
    assert {code for code, _ in told["errors"]} == {"storage"}
    assert len(told["acknowledged"]) < 60
    sound_after(site, told)


@pytest.mark.slow
@pytest.mark.skipif(not disks.can_mount(), reason="this user may not mount anything, even in a namespace")
def test_a_file_system_that_is_full(site: Site) -> None:
    """The file system disappears with the namespace, so what it held is copied out of it by the same shell."""
    small, copy = site.root.parent / "small", site.root.parent / "copy"
    small.mkdir()
    script = (
        'mount -t tmpfs -o size=700k none "$1" && cp -r "$2/." "$1" && shift 2 && '
        'copy=$1 && shift && "$@"; status=$?; cp -r "$0/." "$copy"; exit $status'
    )
    before = ["unshare", "-Urm", "sh", "-c", script, str(small), str(small), str(site.root), str(copy)]
    copy.mkdir()
    told = disks.append_on(small, "--appends", "200", before=before)
    assert told["errors"]
    assert {code for code, _ in told["errors"]} == {"storage"}
    assert all("no room left" in message for _, message in told["errors"]), told["errors"][0]
    assert 0 < len(told["acknowledged"]) < 200
    sound_after(Site(copy), told)


# read-only


@pytest.mark.slow
@pytest.mark.skipif(not disks.can_mount(), reason="this user may not mount anything, even in a namespace")
def test_a_directory_that_cannot_be_written(site: Site) -> None:
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    before = ["unshare", "-Urm", "sh", "-c", script, str(site.directory)]
    told = disks.append_on(site.root, "--appends", "3", before=before)
    assert told["acknowledged"] == {}
    assert {code for code, _ in told["errors"]} == {"storage"}, told["errors"]
    sound_after(site, told)


# failing


@pytest.fixture(scope="module")
def failing_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that loses what was not synced."""
    if disks.compiler() is None:
        pytest.skip("there is no C compiler for the disk that fails")
    try:
        return disks.build_failing_disk(tmp_path_factory.mktemp("shim"))
    except RuntimeError as error:
        pytest.skip(str(error))


def append_and_lose_power(site: Site, library: Path, fails: str, *words: str, **more: str) -> dict[str, Any]:
    for path in list(site.directory.iterdir()):
        shutil.copy(path, f"{path}.durable")
    told = disks.append_on(
        site.root,
        *words,
        environment={
            "LD_PRELOAD": str(library),
            "FAULTS_UNDER": str(site.directory),
            "FAULTS_FAIL": fails,
            **more,
        },
    )
    disks.restore_durable(site)
    return told


def test_the_failing_disk_loses_what_was_not_synced(site: Site, failing_disk: Path) -> None:
    """Otherwise the tests below would show nothing."""
    told = append_and_lose_power(site, failing_disk, "", "--appends", "12", FAULTS_LIE="1")
    assert len(told["acknowledged"]) == 12
    with pytest.raises(LichenError):
        disks.check_durable(site, told["acknowledged"])


@pytest.mark.slow
@pytest.mark.parametrize("reopen", [False, True])
@pytest.mark.parametrize("fold", [0, 5])
def test_nothing_is_acknowledged_on_a_failed_fsync_or_the_retry_after_it(
    site: Site, failing_disk: Path, reopen: bool, fold: int
) -> None:
    """After a failed fsync the kernel holds lost pages for clean, so only what is written once more may count."""
    rng = random.Random(f"{reopen} {fold}")
    fails = ",".join(str(number) for number in sorted(rng.sample(range(1, 45), 12)))
    words = ["--appends", "30", "--fold-every", str(fold), *(["--reopen"] if reopen else [])]
    told = append_and_lose_power(site, failing_disk, fails, *words)
    assert any(code == "storage" and "I/O" in message for code, message in told["errors"])
    assert 0 < len(told["acknowledged"]) < 30
    sound_after(site, told)


@pytest.mark.slow
def test_every_single_fsync_may_fail(site: Site, failing_disk: Path, tmp_path: Path) -> None:
    reported = 0
    for number in range(1, 9):
        copy = Site(tmp_path / f"copy-{number}")
        shutil.copytree(site.root, copy.root)
        told = append_and_lose_power(copy, failing_disk, str(number), "--appends", "6", "--fold-every", "2")
        assert len(told["errors"]) <= 1, (number, told["errors"])
        assert len(told["acknowledged"]) >= 5
        reported += len(told["errors"])
        sound_after(copy, told)
    assert reported >= 4, "a failure when views are filled concerns no append; the others are reported"
