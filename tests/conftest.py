"""Settings that all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.example_packages import python_with_packages

settings.register_profile("halo", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("halo")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", name="python")
def _python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the packages of others that write traces."""
    return python_with_packages(tmp_path_factory.mktemp("examples"))
