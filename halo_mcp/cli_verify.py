"""``halo-mcp verify``: does the evidence in a file stand in the traces?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

from halo_mcp.errors import BadArgument, HaloError, shown, why_unusable
from halo_mcp.terminal import Deadline, IndexDir, Json, Redact, Sources, app, printable, reads_traces, show

_UNDECIDED: Final = 2
"""Exit code where there is no verdict: a pipeline must take that neither for success nor for a forged citation."""
_MAX_BYTES: Final = 64 << 20
_LISTS: Final = ("claims", "findings")


@app.command()
@reads_traces
def verify(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON with claims or findings; - reads standard input")],
    sources: Sources,
    index_dir: IndexDir = None,
    deadline_s: Deadline = None,
    redact: Redact = False,
    as_json: Json = False,
) -> None:
    """Check that what a diagnosis cites exists: exit code 0 when all does, 1 when something is missing, 2 when
    something cannot be checked.

    It shows that words are there, not that they mean what a claim says.
    """
    try:
        claims, answer = _read(file)
        data = show(sources, index_dir, deadline_s, "verify_evidence", {"claims": claims, "answer": answer}, as_json)
    except HaloError as error:
        typer.echo(f"halo-mcp: {printable(str(error))}", err=True)
        raise typer.Exit(_UNDECIDED) from None
    raise typer.Exit(1 if data["failed"] else _UNDECIDED if data["undecided"] else 0)


def _read(file: str) -> tuple[list[Any], str]:
    """The claims in the file and the prose beside them. Raises: BadArgument."""
    name = "standard input" if file == "-" else shown(file)
    try:
        text = sys.stdin.buffer.read(_MAX_BYTES + 1) if file == "-" else _head(Path(file))
        if len(text) > _MAX_BYTES:
            raise BadArgument(f"{name} is larger than {_MAX_BYTES >> 20} MB.")
        value: Any = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BadArgument(f"{name} cannot be read as JSON: {why_unusable(error)}.") from error
    if isinstance(value, list):
        return cast("list[Any]", value), ""
    if isinstance(value, dict):
        content = cast("dict[str, Any]", value)
        claims = next((content[key] for key in _LISTS if isinstance(content.get(key), list)), None)
        answer = content.get("answer") if isinstance(content.get("answer"), str) else ""
        if claims is not None or answer:
            return claims or [], answer or ""
    raise BadArgument(
        f"{name} holds no claims: give a list of them, or an object with claims or findings (see docs/evidence.md)."
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as opened:
        return opened.read(_MAX_BYTES + 1)
