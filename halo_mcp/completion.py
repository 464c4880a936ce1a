"""Values for arguments of prompts and resources while a user types them: names of datasets, tools and services, ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from mcp_types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from halo_mcp.datasets import Datasets
from halo_mcp.errors import HaloError
from halo_mcp.index.store import GroupKey
from halo_mcp.index.work import Work
from halo_mcp.runs import RunFiles
from halo_mcp.tools.agent_tools import in_worker
from halo_mcp.tools.client import asking_client
from halo_mcp.tools.params import ALL_TRACES

MOST: Final = 100
"""As many as the protocol allows."""
SECONDS: Final = 2.0
"""Whoever types does not wait longer; an index that takes longer is built by the first question instead."""
_DATASETS: Final = ("dataset", "before", "after")
_NAMES: Final[dict[str, GroupKey]] = {"tool_name": "tool_name", "service_name": "service_name"}


class Completer:
    """Completes arguments over these datasets. An argument it does not know has no values."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    async def __call__(
        self,
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion:
        """The first values that begin with what was typed, sorted by use or name."""
        dataset = (context.arguments or {}).get("dataset", "") if context else ""
        try:
            values = await in_worker(partial(self._values, argument.name, argument.value, dataset))
        except HaloError:  # no such dataset, or not in time: nothing to offer
            values = list[str]()
        return Completion(values=list(values[:MOST]), has_more=len(values) > MOST)

    def _values(self, name: str, typed: str, dataset: str, work: Work) -> Sequence[str]:
        if name in _DATASETS:
            return _beginning(self._datasets.names, typed)
        if name == "run_id":
            if not self._datasets.settings.privacy.payloads or asking_client():  # they may be of other clients
                return []
            return _beginning(RunFiles(self._datasets.settings.index_dir).ids(), typed)
        if name != "trace_id" and name not in _NAMES:
            return []
        limited = work.renewed(SECONDS)
        _, store = self._datasets.get(dataset)
        store.refresh(limited)
        if name == "trace_id":
            return store.trace_ids(typed.strip(), MOST + 1, limited)
        counts = store.count(ALL_TRACES, _NAMES[name], limited)
        # Masked first: with every letter typed, the number of values would tell the next one of a masked name.
        mask = self._datasets.settings.privacy.of_text
        return _beginning([mask(count.value) for count in counts if count.value], typed)


def _beginning(values: Sequence[str], typed: str) -> list[str]:
    return [value for value in values if value.casefold().startswith(typed.casefold())]
