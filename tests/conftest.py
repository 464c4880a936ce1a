"""Settings that all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.node_packages import here
from tests.python_packages import PRODUCERS, python_with

settings.register_profile("halo", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("halo")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", name="python")
def _python() -> Path:
    """An interpreter that has the packages of others that write traces."""
    return here(lambda: python_with(PRODUCERS))
