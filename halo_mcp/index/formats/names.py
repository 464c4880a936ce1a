"""Names of what is no converter's: files that are indexed as they are, and files that nothing knows."""

from __future__ import annotations

from typing import Final

CANONICAL: Final = "canonical"
UNKNOWN: Final = "unknown"

TRAJECTORY_ENDING: Final = ".traj.json"
VERDICT_ENDING: Final = ".report.json"
"""``X.report.json`` holds the verdict on the trajectory ``X.traj.json`` beside it."""
