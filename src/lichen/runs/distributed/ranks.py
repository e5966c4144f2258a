"""Which process of a distributed run this is, as its launcher tells by variables.

| launcher | variables | what sets one launch apart from the next |
|---|---|---|
| torchrun | ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` | ``TORCHELASTIC_RUN_ID`` and restart count, else parent or address |
| Open MPI | ``OMPI_COMM_WORLD_RANK``, ``…_SIZE`` | ``PMIX_NAMESPACE``, ``OMPI_MCA_ess_base_jobid`` |
| PMIx, PMI (MPICH, Intel MPI) | ``PMIX_RANK``; ``PMI_RANK``, ``PMI_SIZE`` | ``PMIX_NAMESPACE``; job id, port |
| Slurm | ``SLURM_PROCID``, ``SLURM_STEP_NUM_TASKS`` | job, step and restart count |

The innermost launcher counts, so the order of the table is the order of asking. A Slurm batch script has the
variables of a rank too, and is none: only what ``srun`` starts has a step. One process alone is no distributed run.

Source: documentation of torchrun ("environment variables"), Open MPI 5 (``mpirun``), PMIx 4, Slurm (``srun``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lichen.runs.process.processes import this_process

__all__ = ["Rank", "detect_rank"]

RANK_COUNT_MAX: Final = 1_000_000


@dataclass(frozen=True)
class Rank:
    """A process of a distributed run.

    Args:
        index: 0 <= index < count; 0 records.
        count: Processes in the run; at least 2.
        local_index: Index among those on this machine, when known.
        launcher: ``torchrun``, ``openmpi``, ``pmix``, ``pmi`` or ``slurm``.
        launch: Name that all processes of this launch share, and as far as ``is_unique`` no other launch.
        is_unique: False when a later launch can have the same name.
    """

    index: int
    count: int
    local_index: int | None
    launcher: str
    launch: str
    is_unique: bool

    @property
    def is_first(self) -> bool:
        """Whether this one records the run."""
        return self.index == 0


def detect_rank(environment: Mapping[str, str] | None = None) -> Rank | None:
    """Find out which process of a distributed run this is.

    Args:
        environment: Variables to look at; ours by default.

    Returns:
        None for a process that is alone, or whose variables contradict each other.
    """
    variables = os.environ if environment is None else environment
    for launcher, index_name, count_names, local_names, naming in _LAUNCHERS:
        index = _number(variables, index_name)
        count = next((n for n in (_number(variables, name) for name in count_names) if n is not None), None)
        if index is None or count is None:
            continue
        if launcher == "slurm" and _number(variables, "SLURM_STEP_ID") is None:
            continue
        if not (index < count <= RANK_COUNT_MAX and count > 1):
            return None
        local = next((n for n in (_number(variables, name) for name in local_names) if n is not None), None)
        parts, is_unique = naming(variables)
        launch = hashlib.sha256("\0".join((launcher, str(count), *parts)).encode("utf-8", "surrogateescape"))
        return Rank(index, count, local, launcher, launch.hexdigest()[:32], is_unique)
    return None


_Naming = Callable[[Mapping[str, str]], tuple[list[str], bool]]


def _name_torchrun(variables: Mapping[str, str]) -> tuple[list[str], bool]:
    run_id = variables.get("TORCHELASTIC_RUN_ID", "none")
    address = [variables.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT")]
    restart = variables.get("TORCHELASTIC_RESTART_COUNT", "0")
    if run_id != "none":
        return [run_id, restart, *address], True
    local_count = _number(variables, "LOCAL_WORLD_SIZE")
    if local_count is not None and local_count == _number(variables, "WORLD_SIZE"):
        # All on this machine and started by one process, which no other launch has.
        here = this_process()
        return [here.place, str(os.getppid()), restart, *address], True
    return [variables.get("SLURM_JOB_ID", ""), restart, *address], False


def _name_openmpi(variables: Mapping[str, str]) -> tuple[list[str], bool]:
    names = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMIX_SERVER_URI41", "OMPI_MCA_orte_hnp_uri")
    parts = [variables[name] for name in names if name in variables]
    return parts, bool(parts)


def _name_pmix(variables: Mapping[str, str]) -> tuple[list[str], bool]:
    namespace = variables.get("PMIX_NAMESPACE", "")
    return [namespace, variables.get("SLURM_JOB_ID", "")], bool(namespace)


def _name_pmi(variables: Mapping[str, str]) -> tuple[list[str], bool]:
    job = variables.get("PMI_JOBID", variables.get("PMI_KVS", ""))
    slurm = [variables.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
    return [job, variables.get("PMI_PORT", ""), *slurm], bool(job or all(slurm))


def _name_slurm(variables: Mapping[str, str]) -> tuple[list[str], bool]:
    names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return [variables.get(name, "") for name in names], bool(variables.get("SLURM_JOB_ID"))


_LAUNCHERS: Final[tuple[tuple[str, str, tuple[str, ...], tuple[str, ...], _Naming], ...]] = (
    ("torchrun", "RANK", ("WORLD_SIZE",), ("LOCAL_RANK",), _name_torchrun),
    (
        "openmpi",
        "OMPI_COMM_WORLD_RANK",
        ("OMPI_COMM_WORLD_SIZE",),
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        _name_openmpi,
    ),
    ("pmix", "PMIX_RANK", ("PMIX_SIZE", "SLURM_STEP_NUM_TASKS"), ("SLURM_LOCALID",), _name_pmix),
    ("pmi", "PMI_RANK", ("PMI_SIZE",), ("MPI_LOCALRANKID", "SLURM_LOCALID"), _name_pmi),
    ("slurm", "SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), ("SLURM_LOCALID",), _name_slurm),
)


def _number(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None
