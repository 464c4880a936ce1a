"""Faults as tests state them: what a client gets, and what the next call gets. A table in docs/reliability.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

_Test = TypeVar("_Test", bound=Callable[..., object])


class Fault(NamedTuple):
    """One row of the table."""

    what: str
    client: str
    """What the call gets that meets the fault."""
    then: str
    """What the next call gets."""
    test: str
    """Its file and name, as pytest takes it."""


FAULTS: list[Fault] = []


def fault(what: str, *, client: str, then: str = "the same answer as ever") -> Callable[[_Test], _Test]:
    """Put a test into the table."""

    def noted(test: _Test) -> _Test:
        path = f"{test.__module__.replace('.', '/')}.py"
        FAULTS.append(Fault(what, client, then, f"{path}::{test.__name__}"))
        return test

    return noted
