"""Source arguments held open: listed, indexed, and kept up with while the files grow or change."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from halo_mcp.errors import HaloError, IndexFailure, NotTraces, SourceChanged, SourceUnreadable
from halo_mcp.index.build import update_index
from halo_mcp.index.columns import FailureColumns
from halo_mcp.index.damage import is_damaged
from halo_mcp.index.failure_rules import DEFAULT_RULES
from halo_mcp.index.formats.sniff import why_not_traces
from halo_mcp.index.labels import read_labels, stated
from halo_mcp.index.outcomes import USUAL, OutcomeOptions
from halo_mcp.index.privacy import OPEN, Privacy
from halo_mcp.index.segments import IndexDirectory, Listed, Manifest
from halo_mcp.index.snapshot import Snapshot
from halo_mcp.index.sources import list_sources
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    from halo_mcp.index.store import SpanStore

_OPEN_ATTEMPTS: Final = 3


class OpenedSources:
    """Source arguments as one dataset. Opening is free; ``refresh`` lists, indexes and opens."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        index_root: Path,
        roots: Sequence[Path] = (),
        soft_rules: tuple[str, ...] = DEFAULT_RULES,
        privacy: Privacy = OPEN,
        outcomes: OutcomeOptions = USUAL,
    ) -> None:
        """``soft_rules``: names of the soft-error rules that count as failures."""
        self._outcomes = outcomes
        self.name = name
        self.arguments = tuple(arguments)
        self.privacy = privacy
        self._index_root = index_root
        self._roots = tuple(roots)
        self._failures = FailureColumns(soft_rules)
        self._refreshing = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._listed: list[Listed] = []
        self._labels: list[Listed] = []
        """The files of labels as they were when they were read."""

    @cached_property
    def _directory(self) -> IndexDirectory:
        key = "\n".join(sorted(os.path.abspath(os.path.expanduser(argument)) for argument in self.arguments))
        return IndexDirectory(self._index_root, key + self._outcomes.keys.index_key, self.name)

    def refresh(self, work: Work) -> None:
        """Raises: SourceError, BadLabelFile, IndexFailure, Cancelled, DeadlineExceeded."""
        listed, labels = self._list(), self._list_labels()
        if self._is_current(listed, labels):
            return
        while not self._refreshing.acquire(timeout=0.1):
            work.check()
        try:
            if self._is_current(listed, labels):
                return
            self._update(work)
        finally:
            self._refreshing.release()

    def _is_current(self, listed: list[Listed], labels: list[Listed]) -> bool:
        """Whether the open state is that of these files, and fit to be asked."""
        usable = self._snapshot is not None and not self._snapshot.worn
        return usable and (listed, labels) == (self._listed, self._labels)

    def _list(self) -> list[Listed]:
        return list_sources(self.arguments, self._roots)

    def _list_labels(self) -> list[Listed]:
        return [stated(path) for path in self._outcomes.labels]

    def _update(self, work: Work) -> None:
        for attempt in range(_OPEN_ATTEMPTS):
            manifest, listed = update_index(self._directory, self._list, work, self._outcomes.keys)
            labels = self._list_labels()
            known = self._snapshot
            if known and not known.worn and (manifest, labels) == (known.manifest, self._labels):
                self._listed = listed  # another call has taken it in meanwhile
                return
            try:
                self._open(manifest, listed, labels)
                return
            except IndexFailure:
                # Damaged, or another process has merged these segments meanwhile; only the former is thrown away.
                if attempt + 1 == _OPEN_ATTEMPTS:
                    raise
                self._directory.discard(manifest, work)

    def pinned(self) -> Self:
        """This store as it is now: what another call takes in meanwhile does not show."""
        return copy(self)

    def forget(self) -> None:
        """Take nothing for granted at the next refresh: the sources changed in a way that their size did not show."""
        self._listed = []
        self._directory.discard_any()

    def mend(self, seen: SpanStore, error: HaloError, work: Work) -> bool:
        """Whether asking again may help after ``error``, met by a call on ``seen``, a pinned state of this store.

        What the error puts in doubt, a changed source or a damaged file of the index, is read anew at the next refresh,
        unless another call has seen to that. Raises: IndexFailure, Cancelled, DeadlineExceeded.
        """
        if not isinstance(error, SourceChanged):
            return self._drop_damaged(work)
        if isinstance(seen, OpenedSources) and seen._snapshot is self._snapshot and self._snapshot is not None:
            self._listed = []
            self._directory.discard(self._snapshot.manifest, work, error.source)
        return True

    def _drop_damaged(self, work: Work) -> bool:
        """Whether a file of the open or of the published index was damaged; it is built anew then."""
        opened, published = self._snapshot and self._snapshot.manifest, self._directory.read_manifest()
        for manifest in (opened, None if published == opened else published):
            if manifest is not None and is_damaged(self._directory.path, manifest, work):
                self._listed = []
                self._directory.discard(manifest, work)
                return True
        return False

    def drop(self, work: Work) -> int:
        """Remove the index and the converted copies, and return the bytes freed; the next refresh makes them again.

        Raises: IndexFailure, Cancelled, DeadlineExceeded.
        """
        self.close()
        self._listed = []
        return self._directory.drop(work)

    def _open(self, manifest: Manifest, listed: list[Listed], labels: list[Listed]) -> None:
        _check_usable(manifest)
        pass_score = self._outcomes.pass_score
        files = [read_labels(path, pass_score) for path in self._outcomes.labels]
        snapshot = Snapshot(self._directory, manifest, self._snapshot, self._failures, self.privacy, files, pass_score)
        older, self._snapshot, self._listed, self._labels = self._snapshot, snapshot, listed, labels
        if older is not None:
            older.forget_answers()

    @property
    def _current(self) -> Snapshot:
        if self._snapshot is None:
            self.refresh(Work())
        assert self._snapshot is not None
        return self._snapshot

    def close(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None


def _check_usable(manifest: Manifest) -> None:
    """Raises NotTraces when no source holds a span, about the first source."""
    if any(segment.span_count for segment in manifest.segments) or not manifest.sources:
        return
    first = manifest.sources[0]
    if first.copied:
        why = next(iter(first.report.reasons), f"its format is {first.report.format}, and it has none")
        raise NotTraces(first.path, why)
    try:
        reason = why_not_traces(Path(first.path))
    except OSError as error:
        raise SourceUnreadable(first.path, error.strerror or str(error)) from error
    raise NotTraces(first.path, reason)
