"""What a caller lets a piece of work spend: time, and patience. Shared by every scan and build."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from copy import copy

from halo_mcp.errors import Cancelled, DeadlineExceeded

ProgressListener = Callable[[float, float, str], None]
"""Called with (done, total, message); any thread; must return at once."""


class Work:
    """A stop flag, a deadline and a progress listener for one call.

    ``check()`` is called between small steps; nothing here interrupts a step that is running.
    """

    def __init__(self, *, deadline_s: float | None = None, on_progress: ProgressListener | None = None) -> None:
        self.deadline_s = deadline_s
        self._ends_at = None if deadline_s is None else time.monotonic() + deadline_s
        self._stop = threading.Event()
        self._listener = on_progress
        self._on_stop: list[Callable[[], None]] = []

    def stop(self) -> None:
        """Ask the work to end; safe from any thread, any number of times."""
        self._stop.set()
        for callback in list(self._on_stop):
            callback()

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the work is stopped (now, if it already is)."""
        self._on_stop.append(callback)
        if self._stop.is_set():
            callback()

    def off_stop(self, callback: Callable[[], None]) -> None:
        """Forget a callback, and what it holds. It may be running now, when the work is being stopped."""
        self._on_stop.remove(callback)

    def renewed(self, deadline_s: float) -> Work:
        """The same caller's work with a deadline that starts now; stopping this one stops it too."""
        later = Work(deadline_s=deadline_s, on_progress=self._listener)
        self.on_stop(later.stop)
        return later

    def part(self, start: float, stop: float) -> Work:
        """The same work, whose progress from 0 to 1 is shown as that from ``start`` to ``stop``."""
        part = copy(self)
        listener = self._listener
        if listener is not None:

            def report(done: float, total: float, message: str) -> None:
                listener(start + (stop - start) * (done / total if total else 0.0), 1.0, message)

            part._listener = report
        return part

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline, at least 0; None without one."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    @property
    def expired(self) -> bool:
        """True when the deadline has passed."""
        return self._ends_at is not None and time.monotonic() >= self._ends_at

    def check(self) -> None:
        """Raises: Cancelled when stopped, DeadlineExceeded when out of time."""
        if self._stop.is_set():
            raise Cancelled
        if self.expired:
            raise DeadlineExceeded(self.deadline_s or 0.0)

    def report(self, done: float, total: float, message: str) -> None:
        if self._listener is not None:
            self._listener(done, total, message)
