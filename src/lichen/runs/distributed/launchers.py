"""Variables by which launchers of distributed runs tell processes apart; see ``ranks`` for what they mean."""

from __future__ import annotations

import re

__all__ = ["LAUNCHER_VARIABLE"]

LAUNCHER_VARIABLE = re.compile(
    r"(RANK|LOCAL_RANK|GROUP_RANK|ROLE_RANK|MASTER_ADDR|MASTER_PORT|(TORCHELASTIC|SLURM|OMPI|PMIX?|MPI|PRTE|HYDRA)_.*)"
)
"""Variables that a launcher sets and that differ from rank to rank, or from launch to launch of the same work."""
