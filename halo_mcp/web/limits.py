"""How much one client may ask for: requests over time, and calls and streams at the same time. Knows no HTTP."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, Literal

from halo_mcp.config import HttpSettings

Use = Literal["reading", "call", "stream"]
"""A request whose body arrives; one that is worked on; one that waits for events."""
_REMEMBERED: Final = 10_000
"""Clients whose requests are counted; beyond that, those who could send a full burst again are forgotten."""


class TooMuch(Exception):
    """A limit is met: ``by_all`` by all clients together, else by this one. Try again after ``after_s`` seconds."""

    def __init__(self, message: str, after_s: float, by_all: bool = False) -> None:
        super().__init__(message)
        self.after_s = max(1, math.ceil(after_s))
        self.by_all = by_all


class Limits:
    """Counts per client. Used by one event loop. ``clock`` is monotonic, in seconds."""

    def __init__(self, settings: HttpSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._full_at: dict[str, float] = {}
        """When the client may send a full burst again: a bucket of tokens as one number."""
        self._uses: Counter[tuple[str, Use]] = Counter()
        self._most: dict[Use, int] = {
            "reading": settings.max_calls,
            "call": settings.max_calls,
            "stream": settings.max_streams,
        }

    def request(self, client: str) -> None:
        """Count one request. Raises: TooMuch."""
        now, each = self._clock(), 1 / self._settings.rate_per_s
        full_at = max(self._full_at.get(client, now), now) + each
        wait = full_at - now - self._settings.burst * each
        if wait > each * 1e-6:
            raise TooMuch(
                f"Too many requests: {self._settings.rate_per_s:g} a second, and {self._settings.burst} at once, are "
                "allowed.",
                wait,
            )
        self._full_at[client] = full_at
        if len(self._full_at) > _REMEMBERED:
            self._full_at = {name: at for name, at in self._full_at.items() if at > now}

    @contextmanager
    def using(self, client: str, use: Use) -> Generator[None]:
        """One more request at the same time, until the block ends. Raises: TooMuch."""
        key = (client, use)
        if use == "call" and sum(n for (_, kind), n in self._uses.items() if kind == "call") >= self._most_together:
            raise TooMuch("The server is busy with as many calls as it may work on; try again.", 1, by_all=True)
        if self._uses[key] >= self._most[use]:
            what = "open event streams" if use == "stream" else "calls at the same time"
            raise TooMuch(f"Too many {what}: {self._most[use]} are allowed. Wait for one to end.", 1)
        self._uses[key] += 1
        try:
            yield
        finally:
            self._uses[key] -= 1
            if not self._uses[key]:
                del self._uses[key]

    @property
    def _most_together(self) -> int:
        return self._settings.max_server_calls
