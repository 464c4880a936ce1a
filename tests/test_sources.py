"""Which files sources lead to, and what is said of those that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from halo_mcp.config import Settings
from halo_mcp.datasets import Datasets, parse_sources
from halo_mcp.errors import BadArgument, HaloError, SourceError, SourceNotFound, SourceUnreadable
from halo_mcp.index.local import LocalStore
from halo_mcp.index.sources import list_sources
from halo_mcp.index.work import Work
from tests.builders import agent, span, write_lines

UNUSABLE: Final = ("x\0y", "a" * 5000, "~nosuchuser/x", "a[" + "b" * 5000 + "]*", "x\0*")


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A directory with one file of its own and one link that leads out of it."""
    directory = (tmp_path / "allowed").resolve()
    directory.mkdir()
    write_lines(directory / "inside.jsonl", agent("root"))
    secret = write_lines(tmp_path / "secret.jsonl", agent("root", trace="secret"))
    (directory / "link.jsonl").symlink_to(secret)
    (directory / "near.jsonl").symlink_to(write_lines(directory / "near.log", agent("root")))
    return directory


def names(*arguments: Path | str, roots: tuple[Path, ...] = ()) -> list[str]:
    return [Path(file.path).name for file in list_sources([str(argument) for argument in arguments], roots)]


def one_sentence(error: HaloError) -> str:
    text = str(error)
    assert "\n" not in text
    assert "\0" not in text
    assert len(text) < 700
    return text


# --- what is a file ---------------------------------------------------------------------------------------------------
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "pipe.jsonl")
    for name in ("pipe.jsonl", "link.jsonl"):
        with pytest.raises(SourceUnreadable, match="it is a pipe, socket or device, not a file"):
            list_sources([str(tmp_path / name)])


def test_a_device_is_refused() -> None:
    with pytest.raises(SourceUnreadable, match="/dev/null cannot be read: it is a pipe"):
        list_sources([os.devnull])


def test_a_pipe_inside_a_directory_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    write_lines(tmp_path / "a.jsonl", agent("root"))
    assert names(tmp_path) == ["a.jsonl"]
    assert names(tmp_path / "*.jsonl") == ["a.jsonl"]


# --- roots ------------------------------------------------------------------------------------------------------------
def test_without_roots_links_lead_anywhere(allowed: Path) -> None:
    assert names(allowed) == ["inside.jsonl", "link.jsonl", "near.jsonl"]


def test_with_roots_links_that_lead_out_are_left_out_of_directories_and_globs(allowed: Path) -> None:
    assert names(allowed, roots=(allowed,)) == ["inside.jsonl", "near.jsonl"]
    assert names(allowed / "*.jsonl", roots=(allowed,)) == ["inside.jsonl", "near.jsonl"]
    assert names(allowed, roots=(allowed, allowed.parent)) == ["inside.jsonl", "link.jsonl", "near.jsonl"]


def test_with_roots_a_named_file_that_leads_out_is_refused(allowed: Path) -> None:
    with pytest.raises(SourceUnreadable, match="it leads out of the allowed directories"):
        list_sources([str(allowed / "link.jsonl")], (allowed,))


def test_a_directory_of_links_that_lead_out_holds_no_file(allowed: Path) -> None:
    (allowed / "near.jsonl").unlink()
    (allowed / "inside.jsonl").unlink()
    with pytest.raises(SourceNotFound):
        list_sources([str(allowed)], (allowed,))


def test_a_client_reads_only_what_lies_under_the_roots(allowed: Path, tmp_path: Path) -> None:
    datasets = Datasets({}, Settings(tmp_path / "index", roots=(allowed,)))
    _, store = datasets.get(datasets.open(str(allowed)))
    store.refresh(Work())
    assert [Path(source.name).name for source in store.info().sources] == ["inside.jsonl", "near.jsonl"]
    datasets.close()


def test_what_clients_open_is_bounded_in_number_and_length_of_names(allowed: Path, tmp_path: Path) -> None:
    datasets = Datasets({}, Settings(index_dir=tmp_path / "index", roots=(allowed,)))
    with pytest.raises(BadArgument, match="up to 64 characters"):
        datasets.open(f"{'n' * 65}={allowed}")
    for number in range(100):
        datasets.open(f"n{number}={allowed}")
    assert datasets.open(f"n7={allowed}") == "n7"
    with pytest.raises(BadArgument, match="100 files are open"):
        datasets.open(f"more={allowed}")
    assert len(datasets.names) == 100


def test_the_command_line_is_not_bound_by_the_roots(allowed: Path, tmp_path: Path) -> None:
    datasets = Datasets({"mine": [str(allowed)]}, Settings(tmp_path / "index", roots=(allowed,)))
    assert datasets.open(f"mine={allowed}") == "mine"
    _, store = datasets.get("mine")
    store.refresh(Work())
    assert "link.jsonl" in {Path(source.name).name for source in store.info().sources}
    datasets.close()


# --- paths that nothing can be at -------------------------------------------------------------------------------------
@pytest.mark.parametrize("argument", UNUSABLE, ids=range(len(UNUSABLE)))
def test_an_impossible_source_is_an_error_of_one_sentence(argument: str, tmp_path: Path) -> None:
    ((name, paths),) = parse_sources([argument]).items()
    with pytest.raises(SourceError) as caught:
        LocalStore(name, paths, tmp_path / "index").refresh(Work())
    one_sentence(caught.value)


@pytest.mark.parametrize("argument", UNUSABLE, ids=range(len(UNUSABLE)))
def test_a_client_cannot_open_an_impossible_path(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    datasets = Datasets({}, Settings(tmp_path / "index", roots=(tmp_path.resolve(),)))
    for given in (argument, f"name={argument}"):
        with pytest.raises(BadArgument) as caught:
            datasets.open(given)
        one_sentence(caught.value)
    assert datasets.names == []


def test_a_directory_without_permission_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("halo_mcp.index.sources.os.scandir", refuse)
    with pytest.raises(SourceUnreadable, match="Permission denied"):
        list_sources([str(tmp_path)])


def test_a_path_behind_a_directory_without_permission_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    datasets = Datasets({}, Settings(tmp_path / "index", roots=(tmp_path.resolve(),)))
    with pytest.raises(BadArgument, match="cannot be opened: Permission denied"):
        datasets.open(str(tmp_path / "closed" / "a.jsonl"))
    with pytest.raises(SourceUnreadable, match="Permission denied"):
        list_sources([str(tmp_path / "closed" / "a.jsonl")])


def test_a_file_that_links_lead_to_by_several_paths_is_listed_once(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", span("s1"))
    (tmp_path / "b.jsonl").symlink_to(file)
    (tmp_path / "c.jsonl").hardlink_to(file)
    assert [Path(one.path).name for one in list_sources([str(tmp_path), str(tmp_path / "b.jsonl")])] == ["a.jsonl"]
