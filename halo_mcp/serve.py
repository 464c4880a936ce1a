"""``halo-mcp serve``. Kept apart from the other verbs, and on argparse: clients wait for it, and typer takes 0.1 s."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from halo_mcp.config import load_ask_settings, load_settings
from halo_mcp.datasets import Datasets, parse_sources
from halo_mcp.engine.settings import load_llm_settings
from halo_mcp.errors import HaloError


def parser() -> argparse.ArgumentParser:
    """The options of the verb."""
    result = argparse.ArgumentParser(
        prog="halo-mcp serve", description="Serve traces to an MCP client over standard input and output."
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
    return result


def main(arguments: Sequence[str]) -> int:
    """Serve until the client leaves; returns the exit code."""
    given = parser().parse_args(arguments)
    try:
        settings = load_settings(
            index_dir=given.index_dir,
            deadline_s=given.deadline_s,
            roots=given.root,
            soft_rules=given.soft_rules,
            prices=given.prices,
            labels=given.labels,
            outcome_attribute=given.outcome_attribute,
            task_attribute=given.task_attribute,
            pass_score=given.pass_score,
        )
        llm, asking = load_llm_settings(), load_ask_settings()
        datasets = Datasets(parse_sources(given.sources), settings, llm)
    except HaloError as error:
        sys.stderr.write(f"halo-mcp: {error}\n")
        return 1
    import anyio

    from halo_mcp.server import create_server
    from halo_mcp.transports import serve_stdio

    try:
        anyio.run(serve_stdio, create_server(datasets, llm, asking))
    finally:
        datasets.close()
    return 0
