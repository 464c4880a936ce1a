"""Where questions to the server-side agent are kept: state and transcript of each run. Knows files, not agents."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from halo_mcp.errors import BadArgument, UnknownRun

_RUN_ID: Final = re.compile(r"[0-9a-f]{16}")
_DAMAGED: Final = "The saved state of run {} cannot be read, so it cannot go on: ask again."


class RunFiles:
    """The files of all runs, under one directory that is made when it is needed.

    States have no suffix that traces have: the directory can be served as a dataset.
    """

    def __init__(self, index_dir: Path) -> None:
        self._directory = index_dir / "runs"

    def transcript(self, run_id: str) -> Path:
        """JSON lines of canonical spans, one file per run; may not exist yet. Raises: UnknownRun."""
        return self._path(run_id, "jsonl")

    def ids(self) -> list[str]:
        """Of the runs that have a transcript, the newest first."""
        try:
            found = [(path.stat().st_mtime_ns, path.stem) for path in self._directory.glob("*.jsonl")]
        except OSError:
            return []
        return [run_id for _, run_id in sorted(found, reverse=True) if _RUN_ID.fullmatch(run_id)]

    def exists(self, run_id: str) -> bool:
        try:
            return self._path(run_id, "state").exists() or self.transcript(run_id).exists()
        except UnknownRun:
            return False

    def save(self, run_id: str, saved: Mapping[str, Any]) -> None:
        """Replace the saved state of a run as a whole. Raises: OSError."""
        path = self._path(run_id, "state")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not orjson: it refuses the halves of surrogate pairs that models sometimes send.
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(saved), encoding="utf-8")
        temporary.replace(path)

    def copy_transcript(self, run_id: str, target: Path) -> None:
        """Append the record of a run to a file, but for the lines that it has already. Raises: UnknownRun, OSError."""
        with target.open("a+b") as file:
            file.seek(0)
            there = {line.rstrip(b"\n") for line in file}
            lines = self.transcript(run_id).read_bytes().splitlines()
            file.writelines(line + b"\n" for line in lines if line not in there)

    def load(self, run_id: str) -> dict[str, Any]:
        """What was saved last. Raises: UnknownRun, BadArgument."""
        try:
            saved: Any = json.loads(self._path(run_id, "state").read_bytes())
        except OSError:
            raise UnknownRun(run_id) from None
        except (ValueError, RecursionError):
            raise BadArgument(_DAMAGED.format(run_id)) from None
        if not isinstance(saved, dict) or not saved.keys() >= {"question", "dataset", "filters", "state"}:
            raise BadArgument(_DAMAGED.format(run_id))
        return cast("dict[str, Any]", saved)

    @contextmanager
    def working_on(self, run_id: str) -> Generator[None, None, None]:
        """Hold a run, over all processes. Raises: BadArgument when it is held; UnknownRun."""
        from filelock import FileLock, Timeout

        path = self._path(run_id, "lock")
        lock = FileLock(path, thread_local=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise BadArgument(f"Run {run_id} is being worked on: wait until that ends, or stop it.") from None
        except OSError:
            pass  # where nothing can be written there is no saved run to share
        try:
            yield
        finally:
            lock.release()

    def _path(self, run_id: str, suffix: str) -> Path:
        # Ids come from clients: nothing else may become part of a path.
        if not _RUN_ID.fullmatch(run_id):
            raise UnknownRun(run_id)
        return self._directory / f"{run_id}.{suffix}"
