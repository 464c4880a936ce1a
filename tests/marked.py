"""Documents with a part that is made from the code, between two markers."""

from __future__ import annotations


def with_part(document: str, begin: str, part: str, end: str) -> str:
    """The document with ``part`` between its markers. Raises: ValueError, when it has none."""
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"no markers {begin} and {end}")
    return f"{before}{begin}\n\n{part}\n\n{end}{after}"
