"""The binding to NVIDIA's library, against a library of that interface which the test compiles."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lichen.energy.gpu import GpuSource
from lichen.energy.nvml import NvmlDriver
from lichen.errors import MeterError

COMPILER = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")

SOURCE = r"""
#include <string.h>
#include <stddef.h>
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu; unsigned compute; } info;
static int cards[2] = {11, 22};
int nvmlInit_v2(void) { return INIT_STATUS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = CARD_COUNT; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = &cards[index]; return index < 2 ? 0 : 2; }
static int which(void *handle) { return *(int *)handle; }
int nvmlDeviceGetName(void *handle, char *buffer, unsigned size) {
    strncpy(buffer, which(handle) == 11 ? "NVIDIA L4" : "Tesla P100", size); return 0; }
int nvmlDeviceGetUUID(void *handle, char *buffer, unsigned size) {
    strncpy(buffer, which(handle) == 11 ? "GPU-11" : "GPU-22", size); return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *value) {
    if (which(handle) == 22) return 3;
    *value = 5000000000123ULL; return 0; }
int nvmlDeviceGetPowerUsage(void *handle, unsigned *value) { *value = 30000 + which(handle); return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *value) { *value = 72000; return 0; }
int RUNNING(void *handle, unsigned *count, info *infos) {
    if (*count < 2) return 7;
    infos[0].pid = 4242; infos[1].pid = 99; *count = 2; return 0; }
"""


def library(
    folder: Path, *, status: int = 0, cards: int = 2, running: str = "nvmlDeviceGetComputeRunningProcesses_v3"
) -> str:
    source, made = folder / "nvml.c", folder / "libfake-nvml.so"
    source.write_text(SOURCE)
    flags = [f"-DINIT_STATUS={status}", f"-DCARD_COUNT={cards}", f"-DRUNNING={running}"]
    assert COMPILER is not None
    subprocess.run([COMPILER, "-shared", "-fPIC", *flags, "-o", made, source], check=True)
    return str(made)


@needs_compiler
def test_every_question_is_asked_in_the_library_s_own_types(tmp_path: Path) -> None:
    driver = NvmlDriver(library(tmp_path))
    assert driver.device_count == 2
    assert [driver.name(index) for index in (0, 1)] == ["NVIDIA L4", "Tesla P100"]
    assert driver.uuid(1) == "GPU-22"
    assert driver.energy_millijoules(0) == 5_000_000_000_123
    assert driver.energy_millijoules(1) is None
    assert driver.power_milliwatts(1) == 30_022
    assert driver.power_limit_milliwatts(0) == 72_000
    assert driver.process_ids(0) == frozenset({4242, 99})


@needs_compiler
def test_older_drivers_have_older_functions(tmp_path: Path) -> None:
    assert NvmlDriver(library(tmp_path, running="nvmlDeviceGetComputeRunningProcesses_v2")).process_ids(
        0
    ) == frozenset({4242, 99})


@needs_compiler
def test_a_driver_without_process_lists_says_nothing_of_users(tmp_path: Path) -> None:
    assert NvmlDriver(library(tmp_path, running="somethingElse")).process_ids(0) is None


@needs_compiler
def test_a_source_finds_the_cards(tmp_path: Path) -> None:
    source = GpuSource.detect(NvmlDriver(library(tmp_path)), {"CUDA_VISIBLE_DEVICES": "GPU-11"})
    assert source.device == "NVIDIA L4 x1"


@needs_compiler
@pytest.mark.parametrize(("status", "cards", "text"), [(4, 2, "code 4"), (9, 2, "code 9"), (0, 0, "no card")])
def test_a_library_that_does_not_start_is_an_error(
    tmp_path: Path, status: int, cards: int, text: str
) -> None:
    with pytest.raises(MeterError, match=text):
        NvmlDriver(library(tmp_path, status=status, cards=cards))


def test_no_library_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match="no NVIDIA driver"):
        NvmlDriver(str(tmp_path / "libnothing.so"))
