"""Bearer tokens from a file, or made for one run."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mcp.server.auth.provider import AccessToken

from halo_mcp.errors import BadArgument, shown, why_unusable

LEAST_CHARS: Final = 20
"""Of a token: what is shorter can be guessed."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, section 2.1."""


class StaticTokens:
    """The SDK's TokenVerifier over a list of tokens. It keeps their hashes, which are compared in constant time."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._digests = [_digest(token) for token in tokens]

    async def verify_token(self, token: str) -> AccessToken | None:
        given = _digest(token)
        matches = [hmac.compare_digest(given, known) for known in self._digests]
        if True not in matches:
            return None
        return AccessToken(token="", client_id=f"token {matches.index(True) + 1}", scopes=[])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_token() -> str:
    return secrets.token_urlsafe(32)


def read_tokens(path: Path) -> list[str]:
    """The tokens of a file, one a line; blank lines and lines that begin with # are left out. Raises: BadArgument."""
    try:
        text = path.read_text(encoding="utf-8")
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise BadArgument(f"The token file {shown(str(path))} cannot be read: {why_unusable(error)}.") from error
    if sys.platform != "win32" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        sys.stderr.write(f"halo-mcp: other users may read {shown(str(path))}: chmod 600 it.\n")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    found = [(number, line) for number, line in lines if line and not line.startswith("#")]
    for number, token in found:  # never shown: it is a secret
        if len(token) < LEAST_CHARS or not _TOKEN.fullmatch(token):
            raise BadArgument(
                f"Line {number} of {shown(str(path))} is no token: give at least {LEAST_CHARS} characters of "
                "A-Z a-z 0-9 - . _ ~ + /, for example from `openssl rand -hex 32`."
            )
    if not found:
        raise BadArgument(f"There is no token in {shown(str(path))}: write one on a line, `openssl rand -hex 32`.")
    return [token for _, token in found]
