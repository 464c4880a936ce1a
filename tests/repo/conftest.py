"""Real directories and git repositories to look into."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from halo_mcp.repo.tools import open_repository

_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


@dataclass
class Work:
    """A directory under test."""

    path: Path

    def write(self, name: str, content: str | bytes) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=_ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, subject: str, files: Mapping[str, str | bytes], when: str = "2026-03-02T09:00:00+0100") -> str:
        for name, content in files.items():
            self.write(name, content)
        self.git("add", "-A", "-f")
        environment = {**_ENVIRONMENT, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        command = ["git", "commit", "-q", "--allow-empty", "-m", subject]
        subprocess.run(command, cwd=self.path, env=environment, check=True)
        return self.git("rev-parse", "HEAD")

    def call(self, tool: str, **arguments: object) -> Any:
        """The result of a tool opened anew."""
        tools = {each.name: each for each in open_repository(self.path).tools}
        return json.loads(tools[tool].call(arguments))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """A plain directory, beside which there is room."""
    path = tmp_path / "work"
    path.mkdir()
    return Work(path)


@pytest.fixture
def git_work(work: Work) -> Work:
    """A git repository without commits."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    work.git("init", "-q", "-b", "main")
    return work
