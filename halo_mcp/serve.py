"""``halo-mcp serve``. Kept apart from the other verbs, and on argparse: clients wait for it, and typer takes 0.1 s."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from halo_mcp.arenas import share_arenas
from halo_mcp.config import (
    DEFAULT_ADDRESS,
    HttpSettings,
    http_option,
    http_options,
    load_ask_settings,
    load_http_settings,
    load_settings,
)
from halo_mcp.datasets import Datasets, parse_sources
from halo_mcp.engine.settings import load_llm_settings
from halo_mcp.errors import BadArgument, HaloError
from halo_mcp.tools.repository import repository_at

_CLOSE_S: Final = 2.0


def parser() -> argparse.ArgumentParser:
    """The options of the verb."""
    result = argparse.ArgumentParser(
        prog="halo-mcp serve", description="Serve traces to MCP clients, over standard input and output or over HTTP."
    )
    result.add_argument(
        "sources",
        nargs="*",
        metavar="[NAME=]SOURCE",
        help="trace files, globs, directories; NAME= makes several datasets",
    )
    result.add_argument("--index-dir", type=Path, help="where indexes live [env: HALO_MCP_INDEX_DIR]")
    result.add_argument("--deadline-s", type=float, help="seconds one question may take [env: HALO_MCP_DEADLINE_S]")
    result.add_argument(
        "--root",
        type=Path,
        action="append",
        default=[],
        help="directory under which clients may open further files; may be repeated [env: HALO_MCP_ROOTS]",
    )
    result.add_argument("--prices", type=Path, help="JSON file: model -> USD per million tokens [env: HALO_MCP_PRICES]")
    result.add_argument(
        "--soft-rules",
        metavar="NAME,...",
        help="which soft-error rules count as failures; none, or names [env: HALO_MCP_SOFT_RULES]",
    )
    result.add_argument(
        "--redact",
        action="store_true",
        default=None,
        help="mask credentials in everything that leaves, see docs/privacy.md [env: HALO_MCP_REDACT]",
    )
    result.add_argument(
        "--no-payloads",
        action="store_true",
        default=None,
        help="serve names, times, tokens and statuses, and no text of spans [env: HALO_MCP_NO_PAYLOADS]",
    )
    result.add_argument(
        "--repo-path",
        type=Path,
        metavar="DIR",
        help="source code of the traced agent, for the agent behind ask [env: HALO_MCP_REPO_PATH]",
    )
    result.add_argument(
        "--disable",
        metavar="TOOL",
        action="append",
        default=[],
        help="do not offer this tool; may be repeated [env: HALO_MCP_DISABLE]",
    )
    result.add_argument(
        "--enable",
        metavar="TOOL",
        action="append",
        default=[],
        help="offer a tool that is off by default where others can connect [env: HALO_MCP_ENABLE]",
    )
    result.add_argument(
        "--http",
        nargs="?",
        const=DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help=f"serve over HTTP there instead (default {DEFAULT_ADDRESS}; port 0: a free one) [env: HALO_MCP_HTTP]",
    )
    result.add_argument(
        "--labels",
        metavar="[NAME=]FILE",
        action="append",
        default=[],
        help="CSV or JSON lines with verdicts by trace or task id; may be repeated [env: HALO_MCP_LABELS]",
    )
    for what in ("outcome", "task"):
        result.add_argument(
            f"--{what}-attribute",
            metavar="KEY",
            action="append",
            default=[],
            help=f"attribute that says the {what}; may be repeated [env: HALO_MCP_{what.upper()}_ATTRIBUTE]",
        )
    result.add_argument(
        "--pass-score", type=float, metavar="X", help="a score from X on passes [env: HALO_MCP_PASS_SCORE]"
    )
    group = result.add_argument_group("with --http", "each has a variable HALO_MCP_HTTP_...; lists take commas")
    for item in http_options():
        several: dict[str, Any] = {"action": "append", "default": []} if item.metadata["kind"] == "list" else {}
        words = _help(item.metadata["help"], item.default)
        group.add_argument(http_option(item.name), dest=item.name, help=words, **several)
    return result


def _help(words: str, default: Any) -> str:
    return (f"{words} (default {default:,})" if isinstance(default, int | float) else words).replace("%", "%%")


def _http_settings(given: argparse.Namespace) -> HttpSettings | None:
    """None: serve over stdio. Raises: BadArgument."""
    options = {item.name: getattr(given, item.name) for item in http_options()}
    address = given.http or os.environ.get("HALO_MCP_HTTP", "").strip()
    if address:
        return load_http_settings(address, options)
    for name, value in options.items():
        if value not in (None, []):
            raise BadArgument(f"{http_option(name)} is for serving over HTTP: add --http.")
    return None


def main(arguments: Sequence[str]) -> int:
    """Serve until the client leaves; returns the exit code."""
    given = parser().parse_args(arguments)
    share_arenas()
    try:
        settings = load_settings(
            index_dir=given.index_dir,
            deadline_s=given.deadline_s,
            roots=given.root,
            soft_rules=given.soft_rules,
            prices=given.prices,
            redact=given.redact,
            no_payloads=given.no_payloads,
            enable=given.enable,
            disable=given.disable,
            repo_path=given.repo_path,
            labels=given.labels,
            outcome_attribute=given.outcome_attribute,
            task_attribute=given.task_attribute,
            pass_score=given.pass_score,
        )
        http = _http_settings(given)
        llm, asking = load_llm_settings(), load_ask_settings()
        repository = repository_at(settings.repo_path)
        datasets = Datasets(parse_sources(given.sources), settings, llm)
    except HaloError as error:
        sys.stderr.write(f"halo-mcp: {error}\n")
        return 1
    import anyio

    from halo_mcp.server import create_server
    from halo_mcp.transports import serve_http, serve_stdio

    try:
        server = create_server(datasets, llm, asking, repository, for_others=http is not None and not http.local)
        if http is None:
            anyio.run(serve_stdio, server)
        else:
            anyio.run(serve_http, server, http)
    except HaloError as error:
        sys.stderr.write(f"halo-mcp: {error}\n")
        return 1
    finally:
        _close(datasets)
    if http is not None:
        # Threads that work on what was cancelled may not have noticed yet; waiting for them could take for ever.
        sys.stderr.flush()
        os._exit(0)
    return 0


def _close(datasets: Datasets) -> None:
    """Close what is open; a store that is still read is left to the end of the process."""
    closing = threading.Thread(target=datasets.close, daemon=True)
    closing.start()
    closing.join(_CLOSE_S)
