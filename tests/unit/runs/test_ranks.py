"""Launchers tell ranks by variables; what looks like one and is none is not taken for one."""

from __future__ import annotations

import pytest

from lichen.runs.distributed.ranks import detect_rank

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "6b2f",
    "TORCHELASTIC_RESTART_COUNT": "0",
}
OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "PMIX_NAMESPACE": "prterun-node1-77@1",
    "PMIX_RANK": "3",
}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "PMI_PORT": "node1:41234"}
PMIX = {
    "PMIX_RANK": "3",
    "PMIX_NAMESPACE": "slurm.pmix.9.0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
}
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "16",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
}
LAUNCHERS = {"torchrun": TORCHRUN, "openmpi": OPENMPI, "pmi": MPICH, "pmix": PMIX, "slurm": SLURM}
INDEX = {
    "torchrun": "RANK",
    "openmpi": "OMPI_COMM_WORLD_RANK",
    "pmi": "PMI_RANK",
    "pmix": "PMIX_RANK",
    "slurm": "SLURM_PROCID",
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_rank_is_found(launcher: str) -> None:
    rank = detect_rank(LAUNCHERS[launcher])
    assert rank is not None
    assert (rank.index, rank.count, rank.local_index, rank.launcher) == (3, 8, 1, launcher)
    assert not rank.is_first


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_of_a_launch_share_its_name(launcher: str) -> None:
    first = detect_rank({**LAUNCHERS[launcher], INDEX[launcher]: "0"})
    other = detect_rank(LAUNCHERS[launcher])
    assert first is not None
    assert other is not None
    assert first.is_first
    assert first.launch == other.launch


@pytest.mark.parametrize(
    ("launcher", "change"),
    [
        ("torchrun", {"TORCHELASTIC_RUN_ID": "7c30"}),
        ("torchrun", {"TORCHELASTIC_RESTART_COUNT": "1"}),
        ("openmpi", {"PMIX_NAMESPACE": "prterun-node1-78@1"}),
        ("pmi", {"PMI_PORT": "node1:41235"}),
        ("pmix", {"PMIX_NAMESPACE": "slurm.pmix.10.0"}),
        ("slurm", {"SLURM_JOB_ID": "4712"}),
        ("slurm", {"SLURM_STEP_ID": "1"}),
        ("slurm", {"SLURM_RESTART_COUNT": "1"}),
    ],
)
def test_another_launch_has_another_name(launcher: str, change: dict[str, str]) -> None:
    one, other = detect_rank(LAUNCHERS[launcher]), detect_rank({**LAUNCHERS[launcher], **change})
    assert one is not None
    assert other is not None
    assert one.launch != other.launch


@pytest.mark.parametrize("launcher", ["torchrun", "openmpi", "pmix", "slurm"])
def test_a_name_with_an_id_of_the_launch_is_unique(launcher: str) -> None:
    rank = detect_rank(LAUNCHERS[launcher])
    assert rank is not None
    assert rank.is_unique


def test_torchrun_without_an_id_is_named_after_its_process_or_its_address() -> None:
    static = {**TORCHRUN, "TORCHELASTIC_RUN_ID": "none"}
    several_machines, one_machine = detect_rank(static), detect_rank({**static, "LOCAL_WORLD_SIZE": "8"})
    assert several_machines is not None
    assert one_machine is not None
    assert not several_machines.is_unique
    assert one_machine.is_unique


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "0"},
        {"WORLD_SIZE": "8"},
        {"RANK": "8", "WORLD_SIZE": "8"},
        {"RANK": "-1", "WORLD_SIZE": "8"},
        {"RANK": "first", "WORLD_SIZE": "8"},
        {"RANK": "0", "WORLD_SIZE": "99999999999999"},
        {"RANK": "²", "WORLD_SIZE": "8"},
        {name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    ],
    ids=str,
)
def test_what_is_alone_or_contradicts_itself_is_no_rank(environment: dict[str, str]) -> None:
    assert detect_rank(environment) is None


def test_the_innermost_launcher_counts() -> None:
    rank = detect_rank({**SLURM, **TORCHRUN})
    assert rank is not None
    assert rank.launcher == "torchrun"
