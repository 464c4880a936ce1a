"""Which errors a client may be told while files are moved under the server: each says what to do."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Expected(NamedTuple):
    """An error that is a documented answer."""

    words: str
    """A regular expression that the whole text matches."""
    when: str


EXPECTED: Final = (
    Expected(r"There is no file \S+\. Check the path given.*", "the source is deleted and not yet there again"),
    Expected(r"\S+ cannot be read: .*", "the source goes away while it is opened"),
    Expected(r"\S+ holds no spans that halo-mcp can read: .*", "the source was truncated to nothing"),
    Expected(
        r"\S+ was changed or replaced while it was being read\. Call again: it is indexed anew\.",
        "the source was rotated twice within one call",
    ),
    Expected(r"The index was renewed while query_sql opened it\. Call again\.", "so was the index under query_sql"),
    Expected(
        r"(None of these traces is in dataset \S+: )?There is no trace '?\S+ in dataset .*",
        "the trace went with its file",
    ),
    Expected(r"Trace \S+ .*no span.*", "the span was never there, or went with its file"),
    Expected(r"This cursor does not belong to this \w+ call: .*", "the page goes on in a file that is gone"),
    Expected(r"run_code is busy in \d+ sessions, .*", "more clients ran code than may at once"),
    Expected(r"This SQL gives no result: .*\bnothing\b.*", "the statement was wrong"),
)


def expected(text: str) -> Expected | None:
    """The documented answer that an error text is; None when it is none."""
    return next((one for one in EXPECTED if re.fullmatch(one.words, text, re.DOTALL)), None)
