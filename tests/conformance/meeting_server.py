"""``halo-mcp serve`` whose list_datasets waits until three calls are at work at the same time.

``python -m tests.conformance.meeting_server SOURCE...``
"""

from __future__ import annotations

import sys
import threading
from typing import Final

from halo_mcp import serve
from halo_mcp.errors import BadArgument
from halo_mcp.index.local import LocalStore
from halo_mcp.index.store import StoreInfo

CALLS: Final = 3
TOO_LONG_S: Final = 20

_info = LocalStore.info
_meeting = threading.Barrier(CALLS)


def _info_for_three(store: LocalStore) -> StoreInfo:
    try:
        _meeting.wait(TOO_LONG_S)
    except threading.BrokenBarrierError:
        raise BadArgument("The other calls did not come while this one was at work.") from None
    return _info(store)


if __name__ == "__main__":
    setattr(LocalStore, "info", _info_for_three)  # noqa: B010  # the types would not allow it
    sys.exit(serve.main(sys.argv[1:]))
