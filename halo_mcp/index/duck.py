"""DuckDB connections as halo-mcp uses them: bounded, watched, cancellable. Imports duckdb only when called."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from halo_mcp.errors import IndexFailure, Interrupted
from halo_mcp.index.work import Work

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

MEMORY_LIMIT: Final = "1GB"
"""DuckDB's own budget before it spills to disk. Below about 700 MB it writes tables with one thread only."""


def connect(directory: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A private in-memory database; spills into ``directory``, or nowhere."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": "" if directory is None else str(directory / "spill"),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    return duckdb.connect(":memory:", config=config)


def quoted(text: str) -> str:
    """``text`` as an SQL string literal: for constants, and for the few statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def fetch_arrays(result: duckdb.DuckDBPyConnection) -> dict[str, NDArray[Any]]:
    """All rows of a result, as one array per column; there must be no NULLs."""
    import numpy as np

    columns = cast("dict[str, Any]", result.fetchnumpy())  # pyright: ignore[reportUnknownMemberType]
    return {name: np.asarray(column) for name, column in columns.items()}


@contextmanager
def failing_as_index(directory: Path) -> Generator[None, None, None]:
    """Turn what DuckDB cannot do into IndexFailure; interruptions and refused input stay as they are."""
    import duckdb

    try:
        yield
    except (duckdb.InterruptException, duckdb.InvalidInputException):
        raise
    except duckdb.Error as error:
        reason = str(error).strip() or type(error).__name__
        raise IndexFailure(str(directory), reason.splitlines()[0][:300]) from error
    except OSError as error:
        raise IndexFailure(str(directory), error.strerror or str(error)) from error


@contextmanager
def watched(
    connection: duckdb.DuckDBPyConnection, work: Work, message: str, share: tuple[float, float]
) -> Generator[None, None, None]:
    """Run statements so that stopping ``work`` interrupts them; reports progress between ``share[0]`` and ``share[1]``.

    Raises: Cancelled, DeadlineExceeded.
    """
    import duckdb

    finished = threading.Event()
    low, high = share

    def follow() -> None:
        while not finished.wait(0.25):
            if work.stopped or work.expired:
                connection.interrupt()
                continue
            progress = max(0.0, min(100.0, connection.query_progress()))
            work.report(low + (high - low) * progress / 100, 1.0, message)

    work.check()
    work.report(low, 1.0, message)
    follower = threading.Thread(target=follow, name="halo-mcp-progress", daemon=True)
    follower.start()
    try:
        yield
    except duckdb.InterruptException:
        work.check()
        raise
    finally:
        finished.set()
        follower.join()


@contextmanager
def bounded(cursor: duckdb.DuckDBPyConnection, work: Work) -> Generator[None, None, None]:
    """Run one query; it is interrupted when ``work`` is stopped or out of time.

    Raises: Cancelled, DeadlineExceeded.
    """
    import duckdb

    def interrupt() -> None:
        with suppress(duckdb.ConnectionException):  # it was closed since
            cursor.interrupt()

    work.check()
    work.on_stop(interrupt)
    timer = None if work.seconds_left is None else threading.Timer(work.seconds_left, interrupt)
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        work.check()
        raise Interrupted("The query was interrupted.") from error
    finally:
        if timer is not None:
            timer.cancel()
            timer.join()  # a daemon thread that is still waking up when the process ends can abort it
        work.off_stop(interrupt)  # the work may live longer than what the query reads
