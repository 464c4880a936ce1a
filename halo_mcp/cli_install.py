"""``halo-mcp install``: the configuration of MCP clients."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, cast

import typer

from halo_mcp.clients import CLIENTS, SERVER_NAME, Client, Machine, Scope
from halo_mcp.errors import BadArgument
from halo_mcp.install import Plan, absolute_sources, carry_out, missing_sources, plan, this_command
from halo_mcp.terminal import Json, app, printable

_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


@app.command()
def install(
    client: Annotated[str, typer.Argument(metavar="CLIENT", help=", ".join(CLIENTS))],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]SOURCE...", help="what to serve; none: let the client open files under this directory"
        ),
    ] = None,
    only_print: Annotated[bool, typer.Option("--print", help="print it for pasting, write nothing")] = False,
    scope: Annotated[str, typer.Option(metavar="user|project", help="for all projects, or for this one")] = "user",
    path: Annotated[Path | None, typer.Option(metavar="FILE", help="another configuration file")] = None,
    name: Annotated[str, typer.Option(help="what the client calls the server")] = SERVER_NAME,
    as_json: Json = False,
) -> None:
    """Write halo-mcp into the configuration of an MCP client; the file as it was is kept beside it."""
    known = _client(client)
    if not 0 < len(name) <= 32 or not _NAME_CHARS.issuperset(name):
        raise BadArgument(f"--name {name!r} cannot be used: up to 32 letters, digits, _ and -.")
    here = Path.cwd()
    try:
        target = path.expanduser().absolute() if path else _place(known, scope, Machine(Path.home(), here))
    except RuntimeError as error:  # a ~user that nobody is, no home directory
        raise BadArgument(f"The configuration file cannot be found: {error} Name it with --path.") from error
    served = absolute_sources(sources or [], here) or ["--root", str(here)]
    entry = known.entry(this_command(), served)
    if only_print:
        typer.echo(known.block(name, entry), nl=False)
        return
    planned = plan(known, target, name, entry)
    backup = carry_out(planned)
    missing = missing_sources(served) if sources else []
    typer.echo(
        json.dumps(_data(known, name, planned, backup, missing), ensure_ascii=False)
        if as_json
        else printable(_text(known, name, planned, backup, missing))
    )


def _client(name: str) -> Client:
    if name not in CLIENTS:
        raise BadArgument(f"There is no client {name!r}: give one of {', '.join(CLIENTS)}.")
    return CLIENTS[name]


def _place(client: Client, scope: str, machine: Machine) -> Path:
    if scope not in client.places:
        raise BadArgument(f"--scope {scope!r} is not known for {client.title}: give {' or '.join(client.places)}.")
    return client.places[cast("Scope", scope)](machine)


def _text(client: Client, name: str, planned: Plan, backup: Path | None, missing: list[str]) -> str:
    command = shlex.join([planned.entry["command"], *planned.entry["args"]])
    lines = [
        f"Wrote server {name!r} into {planned.path}"
        if planned.changes
        else f"{planned.path} has server {name!r} already; nothing was changed",
        f"{client.title} starts it with: {command}",
    ]
    if backup:
        lines.append(f"The file as it was: {backup}")
    lines += [f"Note: there is no {path} yet." for path in missing]
    if planned.changes:
        lines.append(client.afterwards)
    return "\n".join(lines)


def _data(client: Client, name: str, planned: Plan, backup: Path | None, missing: list[str]) -> dict[str, object]:
    return {
        "client": client.name,
        "name": name,
        "path": str(planned.path),
        "changed": planned.changes,
        "backup": str(backup) if backup else None,
        "entry": planned.entry,
        "missing_sources": missing,
    }
