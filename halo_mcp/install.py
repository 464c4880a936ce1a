"""``halo-mcp install``: put this server into a client's configuration, and leave everything else in it as it was.

What to write is decided without writing (``plan``); ``carry_out`` writes it, or nothing.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
import sys
import sysconfig
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import glob
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from halo_mcp.clients import Client, Command, Entry, as_json, is_ours
from halo_mcp.datasets import parse_sources
from halo_mcp.errors import BadArgument, BadClientConfig, why_unusable

_PROGRAM: Final = "halo-mcp"
_ANY_WRITE: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_CACHED: Final = re.compile(r"(?:archive|environments|builds)-v\d+")
"""Directories of uv's cache that hold the environments of ``uvx``; they come and go."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be written where."""

    path: Path
    entry: Entry
    before: bytes | None
    """The file as it was read; None when there is none."""
    after: bytes
    """The same as ``before`` when the server is in it already."""

    @property
    def changes(self) -> bool:
        return self.before != self.after


def absolute_sources(arguments: Sequence[str], directory: Path) -> list[str]:
    """``[NAME=]SOURCE`` arguments as a server in any other working directory needs them; URLs stay as they are."""
    absolute: list[str] = []
    for argument in arguments:
        ((name, (source,)),) = parse_sources([argument]).items()
        named = f"{name}=" if source != argument else ""
        absolute.append(named + _absolute(source, directory))
    return absolute


def _absolute(source: str, directory: Path) -> str:
    if "://" in source:
        return source
    try:
        return str(directory / Path(source).expanduser())
    except (RuntimeError, ValueError) as error:
        raise BadArgument(f"{source!r} is no path that can be used: {why_unusable(error)}.") from error


def missing_sources(absolute: Sequence[str]) -> list[str]:
    """Those of ``absolute_sources`` that no file matches now: they may come later, or be misspelt."""
    paths = [path for argument in absolute for (path,) in parse_sources([argument]).values()]
    return [path for path in paths if "://" not in path and not _matches(path)]


def _matches(path: str) -> bool:
    try:
        return Path(path).exists() or bool(glob(path, recursive=True))
    except (OSError, ValueError):
        return False


def this_command() -> Command:
    """How a client that knows nothing of this shell's PATH starts this very installation. Raises: BadArgument."""
    started = Path(sys.argv[0]).absolute()
    if any(_CACHED.fullmatch(part) for part in Path(sys.prefix).parts):
        return _through_uvx()
    name = f"{_PROGRAM}.exe" if sys.platform == "win32" else _PROGRAM
    found = shutil.which(_PROGRAM)
    for candidate in (started, Path(sysconfig.get_path("scripts")) / name, *([Path(found)] if found else [])):
        if candidate.name.lower() in (name, _PROGRAM) and candidate.is_file():
            return Command(str(candidate.absolute()))
    return Command(sys.executable, ("-m", "halo_mcp"))


def _through_uvx() -> Command:
    """The environment that ``uvx`` made for this run may be gone tomorrow: the client asks for it again."""
    beside = os.environ.get("UV", "")
    uvx = shutil.which("uvx") or (shutil.which("uvx", path=str(Path(beside).parent)) if beside else None)
    if uvx is None:
        raise BadArgument(
            "halo-mcp runs from a temporary environment and uvx is not on PATH: install it with `uv tool install "
            "halo-mcp`, then call halo-mcp install again."
        )
    try:
        origin = _origin(distribution(_PROGRAM))
    except PackageNotFoundError:
        origin = ""
    return Command(str(Path(uvx).absolute()), ("--from", origin, _PROGRAM) if origin else (_PROGRAM,))


def _origin(installed: Distribution) -> str:
    """The directory or repository that a distribution was installed from (PEP 610); "" for a package index."""
    text = installed.read_text("direct_url.json")
    if not text:
        return ""
    facts = cast("dict[str, Any]", json.loads(text))
    url = str(facts.get("url", ""))
    if not (vcs := facts.get("vcs_info")):
        from urllib.parse import unquote, urlsplit
        from urllib.request import url2pathname

        return url2pathname(unquote(urlsplit(url).path)) if url.startswith("file:") else url
    return f"{vcs['vcs']}+{url}@{vcs.get('requested_revision') or vcs['commit_id']}"


def plan(client: Client, path: Path, name: str, entry: Entry) -> Plan:
    """The configuration with the server in it. Members that a user added to its entry stay.

    Raises: BadArgument, BadClientConfig.
    """
    before = _read(path)
    if before is None or not before.strip():
        return Plan(path, entry, before, client.block(name, entry).encode())
    try:
        text = before.decode("utf-8-sig")
        content, merge = (read_json(text), _into_json) if client.format == "json" else (tomllib.loads(text), _into_toml)
        servers = content.get(client.key, {})
        if not isinstance(servers, dict):
            raise ValueError(f"{client.key!r} in it is no table of servers")
        known = cast("dict[str, Any]", servers)
        wanted = {**content, client.key: {**known, name: _merged(known, path, name, entry)}}
        after = merge(text.replace("\r\n", "\n"), wanted, client.key, name) if wanted != content else ""
        written = (after.replace("\n", "\r\n") if "\r\n" in text else after).encode()
    except (ValueError, RecursionError) as error:
        plain = "plain JSON (no comments, nothing twice)" if client.format == "json" else "TOML"
        reason = f"it cannot be read and written back as {plain}: {why_unusable(error)}"
        raise BadClientConfig(str(path), reason, client.block(name, entry)) from error
    return Plan(path, wanted[client.key][name], before, written or before)


def _read(path: Path) -> bytes | None:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
            raise BadArgument(f"{path} is no file. Name another with --path.")
        return path.read_bytes() if path.exists() else None
    except OSError as error:
        raise BadArgument(f"{path} cannot be read: {why_unusable(error)}.") from error


def _merged(servers: Mapping[str, Any], path: Path, name: str, entry: Entry) -> Entry:
    """The server's entry with what the user added to it or set otherwise. Raises: BadArgument."""
    known = servers.get(name)
    if known is None:
        return entry
    if not is_ours(known):
        raise BadArgument(f"{path} has another server named {name!r}: choose a name with --name.")
    return {**entry, **known, "command": entry["command"], "args": entry["args"]}


def read_json(text: str) -> dict[str, Any]:
    """A JSON object of which nothing would be lost by writing it again. Raises: ValueError, RecursionError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            raise ValueError("a member stands in it twice")
        return members

    def no_number(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    value = json.loads(text, object_pairs_hook=unique, parse_constant=no_number)
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    return cast("dict[str, Any]", value)


def _into_json(text: str, wanted: Mapping[str, Any], key: str, name: str) -> str:
    """``wanted``, indented as the text was. Raises: ValueError."""
    del key, name  # members keep their order: nothing else has to be found in the text
    indent = re.search(r"\n([ \t]+)\"", text)
    return as_json(wanted, indent[1] if indent else 2)


def _into_toml(text: str, wanted: Mapping[str, Any], key: str, name: str) -> str:
    """The text with one table more or changed; comments and order stay. Raises: ValueError."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        if key not in document:
            document[key] = tomlkit.table(is_super_table=True)
        servers = cast("dict[str, Any]", document[key])
        if name not in servers:
            servers[name] = tomlkit.table()
        for member, value in wanted[key][name].items():
            if servers[name].get(member) != value:
                servers[name][member] = value
        after = tomlkit.dumps(document)
        kept = tomllib.loads(after) == wanted
    except (TOMLKitError, TypeError) as error:
        raise ValueError(str(error)) from error
    if not kept:  # where tables of servers stand apart from each other, tomlkit can lose one
        raise ValueError("its tables are too mixed")
    return after


def carry_out(planned: Plan) -> Path | None:
    """Write what was planned, as a whole or not at all; returns the copy of the file as it was, if there was one.

    A symbolic link stays one. Raises: BadArgument, when the file changed meanwhile or cannot be written.
    """
    if not planned.changes:
        return None
    target = Path(os.path.realpath(planned.path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    backup: Path | None = None
    try:
        # A rename does not ask for permission to write to what it replaces.
        if planned.before is not None and not target.stat().st_mode & _ANY_WRITE:
            raise BadArgument(f"{planned.path} is write-protected and is left as it is. Use --print, and paste.")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") if planned.before is None else _for_us_only(temporary) as file:
                file.write(planned.after)
                file.flush()
                os.fsync(file.fileno())
            if planned.before is not None:
                shutil.copymode(target, temporary)
                backup = _copied(target)
            if (target.read_bytes() if target.exists() else None) != planned.before:
                raise BadArgument(f"{planned.path} was changed meanwhile and is left as it is. Call again.")
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            if backup is not None:
                backup.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BadArgument(f"{planned.path} cannot be written: {why_unusable(error)}.") from error
    return backup


def _for_us_only(path: Path) -> BinaryIO:
    """A new file that nobody else can read, until it gets the mode of the one that was there: it may hold keys.

    Raises: OSError.
    """
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb")


def _copied(target: Path) -> Path:
    """A copy of the file beside it, under a name that was free."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1_000):
        backup = target.with_name(f"{target.name}.{stamp}{f'-{number}' if number else ''}.bak")
        try:
            _for_us_only(backup).close()
        except FileExistsError:
            continue
        shutil.copy2(target, backup)
        return backup
    raise BadArgument(f"{target} has too many backups of this second beside it.")
