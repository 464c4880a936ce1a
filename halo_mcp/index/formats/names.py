"""Names of what is no converter's: files that are indexed as they are, and files that nothing knows."""

from __future__ import annotations

from typing import Final

CANONICAL: Final = "canonical"
UNKNOWN: Final = "unknown"
