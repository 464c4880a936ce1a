"""Settings that all tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("halo", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("halo")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
