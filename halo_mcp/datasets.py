"""Datasets by name: what the command line named, and what a client opened under an allowed root."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from halo_mcp.config import Settings
from halo_mcp.engine.settings import LLMSettings
from halo_mcp.errors import BadArgument, UnknownDataset, shown, why_unusable
from halo_mcp.sandbox.workers import Workers

if TYPE_CHECKING:
    from halo_mcp.index.store import SpanStore
    from halo_mcp.index.work import Work

_NAME_CHARS: Final = 64
_MOST_OPENED: Final = 100
"""Of files that clients open: their names stand in many answers, and each dataset that was asked costs memory."""
_NAMED: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)


def parse_sources(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Dataset names with their sources, from ``[NAME=]SOURCE`` arguments.

    Arguments without a name form one dataset together (a shell expands ``traces/*.jsonl`` into many), named after the
    single source or else "traces". The same name may be given several times.
    """
    datasets: dict[str, list[str]] = {}
    unnamed: list[str] = []
    for argument in arguments:
        match = None if _exists(argument) else _NAMED.fullmatch(argument)
        if match:
            datasets.setdefault(match[1], []).append(match[2])
        else:
            unnamed.append(argument)
    if unnamed:
        name = _name_of(unnamed[0]) if len(unnamed) == 1 else "traces"
        datasets = {name: [*unnamed, *datasets.pop(name, [])], **datasets}
    return datasets


def labels_by_dataset(labels: Sequence[str], datasets: Sequence[str]) -> dict[str, list[str]]:
    """The files of labels of each dataset, from ``[NAME=]FILE``; "" has those for every dataset.

    Raises: BadArgument.
    """
    found: dict[str, list[str]] = {}
    for given in labels:
        match = None if _exists(given) else _NAMED.fullmatch(given)
        if match and match[1] not in datasets:
            raise BadArgument(
                f"--labels {shown(given)}: there is no file of this name, and no dataset {match[1]!r}. Datasets are: "
                f"{', '.join(datasets) or 'none'}."
            )
        name, path = (match[1], match[2]) if match else ("", given)
        found.setdefault(name, []).append(path)
    return found


def _name_of(source: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(source).stem or Path(os.path.abspath(source)).name).strip("-.") or (
        "traces"
    )


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # whoever reads the source says why
        return False


def _resolved(path: str) -> Path:
    """Raises: BadArgument."""
    try:
        return Path(path).expanduser().resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, an unknown ~user
        raise _cannot_open(path, error) from error


def _cannot_open(path: str, error: Exception) -> BadArgument:
    return BadArgument(f"{shown(path)!r} cannot be opened: {why_unusable(error)}. Check the path; give it in full.")


class Datasets:
    """The stores of one server. Opening one is free; its index is built at the first question."""

    def __init__(self, sources: dict[str, list[str]], settings: Settings, llm: LLMSettings | None = None) -> None:
        """``llm``: which model may be asked; None: none."""
        self.settings = settings
        self.llm = replace(llm or LLMSettings(), mask=settings.privacy.of_json)
        self.workers = Workers()
        self._sources = dict(sources)
        self._labels = labels_by_dataset(settings.labels, list(sources))
        self._opened_by_client: set[str] = set()
        self._stores: dict[str, SpanStore] = {}
        self._opening = threading.Lock()

    @property
    def names(self) -> list[str]:
        """In the order given; the first is the default."""
        return list(self._sources)

    def sources(self, name: str) -> list[str]:
        return self._sources[name]

    def get(self, name: str) -> tuple[str, SpanStore]:
        """The dataset's name and store; "" means the first. Raises: UnknownDataset."""
        if not name and self._sources:
            name = self.names[0]
        if name not in self._sources:
            raise UnknownDataset(name, self.names)
        with self._opening:
            if name not in self._stores:
                from halo_mcp.index.local import LocalStore

                roots = self.settings.roots if name in self._opened_by_client else ()
                outcomes = self.settings.outcomes([*self._labels.get("", []), *self._labels.get(name, [])])
                self._stores[name] = LocalStore(
                    name,
                    self._sources[name],
                    self.settings.index_dir,
                    roots,
                    self.settings.soft_rules,
                    self.settings.privacy,
                    outcomes,
                )
            return name, self._stores[name]

    def open(self, argument: str) -> str:
        """Add a dataset from ``[NAME=]PATH``; returns its name. The path must lie under an allowed root.

        Raises: BadArgument.
        """
        ((name, [path]),) = parse_sources([argument]).items()
        resolved = _resolved(path)
        if not any(resolved.is_relative_to(root) for root in self.settings.roots):
            allowed = ", ".join(map(str, self.settings.roots)) or "none"
            raise BadArgument(
                f"{shown(path)} may not be opened: allowed directories are {allowed}. Start the server with --root DIR "
                "(or HALO_MCP_ROOTS), or name the file on its command line."
            )
        try:
            exists = resolved.exists()
        except (OSError, ValueError) as error:
            raise _cannot_open(path, error) from error
        if not exists:
            raise BadArgument(f"There is no file or directory {shown(path)} to open. Check the path; give it in full.")
        if len(name) > _NAME_CHARS:
            raise BadArgument(f"A dataset's name has up to {_NAME_CHARS} characters: open with a shorter NAME=.")
        with self._opening:  # two clients may choose the same name
            known = self._sources.get(name)
            if known is not None and [_resolved(source) for source in known] != [resolved]:
                raise BadArgument(
                    f"Dataset {name!r} is already loaded from {', '.join(known)}; open with another NAME=."
                )
            if known is None:
                if len(self._opened_by_client) >= _MOST_OPENED:
                    raise BadArgument(
                        f"{_MOST_OPENED} files are open, as many as may be: use one of the datasets that list_datasets "
                        "names, or restart the server."
                    )
                self._opened_by_client.add(name)
                self._sources[name] = [str(resolved)]
        return name

    def drop(self, name: str, work: Work) -> int:
        """Remove a dataset's index and converted copies; returns the bytes freed.

        Raises: UnknownDataset, IndexFailure, Cancelled, DeadlineExceeded.
        """
        from halo_mcp.index.local import LocalStore

        _, store = self.get(name)
        return store.drop(work) if isinstance(store, LocalStore) else 0

    def close(self) -> None:
        self.workers.close()
        for store in self._stores.values():
            store.close()
        self._stores.clear()
