"""All workers of one server, so that they end with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar, cast


class _Closable(Protocol):
    def close(self) -> None: ...


_Worker = TypeVar("_Worker", bound=_Closable)


class Workers:
    """Whatever drives a worker process, by a key of its user's choice ("sql", "dataset")."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Closable] = {}
        self._lock = threading.Lock()

    def get(self, kind: str, dataset: str, make: Callable[[], _Worker]) -> _Worker:
        """The one kept under this key, made when there is none. ``make`` must be quick: start processes later."""
        with self._lock:
            if (kind, dataset) not in self._kept:
                self._kept[kind, dataset] = make()
            return cast("_Worker", self._kept[kind, dataset])

    def close(self) -> None:
        """End all of them. They start again when they are asked again."""
        with self._lock:
            kept = list(self._kept.values())
        for worker in kept:
            worker.close()
