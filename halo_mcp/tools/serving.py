"""What the tools find in a running server; its lifespan makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from halo_mcp.datasets import Datasets
from halo_mcp.jobs import Jobs

if TYPE_CHECKING:
    from halo_mcp.tools.investigation import Investigator


@dataclass(frozen=True, slots=True)
class Serving:
    """The lifespan context."""

    datasets: Datasets
    jobs: Jobs
    investigator: Investigator
