"""Which client asks, where clients have to say who they are."""

from __future__ import annotations

import json

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import principal_components


def asking_client() -> str:
    """The client whose request is worked on here, also in its worker threads; "" where nobody needs a token.

    With OAuth it is the client, issuer and subject of the access token, else the place of the token in its file.
    """
    token = get_access_token()
    return json.dumps(principal_components(token)) if token else ""
