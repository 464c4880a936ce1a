"""The verbs that ask about many traces at once."""

from __future__ import annotations
