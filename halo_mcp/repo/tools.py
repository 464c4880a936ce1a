"""The tools over a repository, as plain descriptions for whoever runs an agent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from halo_mcp.errors import BadArgument, GitFailed
from halo_mcp.repo import files, git, grep
from halo_mcp.repo.git_process import Git
from halo_mcp.repo.root import Root

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Arguments = Mapping[str, Any]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


A = TypeVar("A", bound=_Arguments)

Pattern = Annotated[str, Field(min_length=1, max_length=2_000)]
Glob = Annotated[str, Field(min_length=1, max_length=500, description="such as *.py, src/**/*.ts or {app,lib}/**")]
SomePath = Annotated[str, Field(min_length=1, max_length=4_096, description="relative to the repository")]
Ref = Annotated[str, Field(min_length=1, max_length=300, description="a commit, tag or branch")]
When = Annotated[str, Field(max_length=40, description="2026-03-02, 2026-03-02T09:00:00Z or '3 days ago'")]
Offset = Annotated[int, Field(ge=1, description="the first line, from 1")]
Limit = Annotated[int, Field(ge=1, le=2_000, description="lines at most")]


class NoArguments(_Arguments):
    pass


class GlobArguments(_Arguments):
    pattern: Glob
    max_results: Annotated[int, Field(ge=1, le=1_000)] = 200


class GrepArguments(_Arguments):
    regex_pattern: Annotated[Pattern, Field(description="RE2 syntax, matched line by line; (?i) ignores case")]
    glob_pattern: Glob | None = None
    max_matches: Annotated[int, Field(ge=1, le=500)] = 50


class ReadArguments(_Arguments):
    path: SomePath
    offset: Offset = 1
    limit: Limit = 500


class LogArguments(_Arguments):
    max_commits: Annotated[int, Field(ge=1, le=500)] = 50
    since: When | None = None
    until: When | None = None
    ref_range: Annotated[str, Field(max_length=600, description="a revision, or FROM..TO; HEAD by default")] | None = (
        None
    )
    path: SomePath | None = None
    pickaxe_string: (
        Annotated[str, Field(max_length=2_000, description="commits that change how often this text occurs")] | None
    ) = None
    pickaxe_regex: (
        Annotated[str, Field(max_length=2_000, description="commits with a changed line that matches")] | None
    ) = None


class ShowArguments(_Arguments):
    ref: Ref
    path: SomePath | None = None
    include_patch: bool = False


class DiffArguments(_Arguments):
    from_ref: Ref
    to_ref: Ref
    path: SomePath | None = None
    stat_only: bool = True


class BlameArguments(_Arguments):
    path: SomePath
    start_line: Annotated[int, Field(ge=1)]
    end_line: Annotated[int, Field(ge=1)]
    ref: Ref | None = None


class GitReadArguments(_Arguments):
    ref: Ref
    path: SomePath
    offset: Offset = 1
    limit: Limit = 500


@dataclass(frozen=True, slots=True)
class RepositoryTool(Generic[A]):
    """A tool: what a model is told, and a synchronous function that may take up to twenty seconds."""

    name: str
    description: str
    arguments: type[A]
    answer: Callable[[A], DataclassInstance]

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments, an object."""
        return self.arguments.model_json_schema()

    def call(self, arguments: Arguments) -> str:
        """The result as JSON. Raises HaloError with a sentence for the model."""
        try:
            checked = self.arguments.model_validate(arguments)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors()
            )
            raise BadArgument(f"{self.name} cannot use these arguments: {wrong}.") from None
        result = self.answer(checked)
        return json.dumps(asdict(result), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Repository:
    """A root and the tools over it."""

    root: Root
    tools: list[RepositoryTool[Any]]
    git_off: str
    """Why there are no git tools, as a sentence; "" when there are."""
    git: Git | None = None


def open_repository(path: Path) -> Repository:
    """The tools over the directory ``path``; those of git where it is in a work tree. Raises BadRepoPath."""
    root = Root(path)
    try:
        git_there = Git(root)
        return Repository(root, [*_file_tools(root), *_git_tools(git_there)], "", git_there)
    except GitFailed as failed:
        return Repository(root, _file_tools(root), str(failed))


def _file_tools(root: Root) -> list[RepositoryTool[Any]]:
    return [
        RepositoryTool(
            "view_repo_tree",
            "Directories and files of the agent's repository, four levels deep. Start here.",
            NoArguments,
            lambda _: files.view_tree(root),
        ),
        RepositoryTool(
            "glob_files",
            "Files of the repository by name, with their sizes. Refine the pattern when has_more.",
            GlobArguments,
            lambda given: files.glob_files(root, given.pattern, given.max_results),
        ),
        RepositoryTool(
            "grep_files",
            "Lines of the repository's text files that match, with path and line number: find the code that writes a "
            "text seen in a trace. Refine when has_more.",
            GrepArguments,
            lambda given: grep.grep(root, given.regex_pattern, given.glob_pattern, given.max_matches),
        ),
        RepositoryTool(
            "read_file",
            "Numbered lines of a text file. When truncated, go on with offset=end_line+1. Cite what it says as "
            "path:line.",
            ReadArguments,
            lambda given: files.read_file(root, given.path, given.offset, given.limit),
        ),
    ]


def _git_tools(repository: Git) -> list[RepositoryTool[Any]]:
    return [
        RepositoryTool(
            "git_log",
            "Commits, newest first: in the time of the traces (since, until), of a path, or those that introduced a "
            "text (pickaxe_string or pickaxe_regex). Cite commits by short_sha.",
            LogArguments,
            lambda given: git.log(repository, **given.model_dump()),
        ),
        RepositoryTool(
            "git_show",
            "One commit: its message and changed files, with include_patch also the patch, against its first parent.",
            ShowArguments,
            lambda given: git.show(repository, given.ref, given.path, given.include_patch),
        ),
        RepositoryTool(
            "git_diff",
            "What changed from one commit to another: files with line counts, with stat_only=false also the patch.",
            DiffArguments,
            lambda given: git.diff(repository, given.from_ref, given.to_ref, given.path, given.stat_only),
        ),
        RepositoryTool(
            "git_blame",
            "For each line of a committed file, the commit that last changed it. At most 2,000 lines.",
            BlameArguments,
            lambda given: git.blame(repository, given.path, given.start_line, given.end_line, given.ref),
        ),
        RepositoryTool(
            "git_read_file",
            "Numbered lines of a file as it was in a commit.",
            GitReadArguments,
            lambda given: git.read_file(repository, given.ref, given.path, given.offset, given.limit),
        ),
    ]
