"""``halo-mcp install``: what it writes, what it leaves alone, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tomllib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from halo_mcp.cli import run
from halo_mcp.clients import CLIENTS, Client, Command, Machine, is_ours
from halo_mcp.errors import BadArgument, BadClientConfig
from halo_mcp.install import absolute_sources, carry_out, plan, this_command

HALO: Final = Command("/opt/bin/halo-mcp")
ENVIRONMENT: Final = ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME", "APPDATA")

every_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
every_place = pytest.mark.parametrize(
    "client, scope",
    [pytest.param(client, scope, id=f"{name}-{scope}") for name, client in CLIENTS.items() for scope in client.places],
)


class Home:
    """A user's machine, with nothing on it, and the command line run there."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.project = directory / "project"
        self.project.mkdir()
        self._capture = capture

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        """What the command said, on the stream that goes with its exit code."""
        self._capture.readouterr()
        assert run(["install", *map(str, arguments)]) == code
        out, err = self._capture.readouterr()
        assert (out if code else err) == ""
        return err if code else out

    def place(self, client: Client, scope: Any = "user") -> Path:
        return client.places[scope](Machine(self.directory, self.project, environ={}))

    def servers(self, client: Client, scope: Any = "user") -> dict[str, Any]:
        return parsed(client, self.place(client, scope).read_bytes())[client.key]

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.directory.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    made = Home(tmp_path, capsys)
    monkeypatch.chdir(made.project)
    return made


def parsed(client: Client, content: bytes | str) -> dict[str, Any]:
    text = content if isinstance(content, str) else content.decode()
    return json.loads(text) if client.format == "json" else tomllib.loads(text)


def existing(client: Client, **servers: Any) -> str:
    """A configuration that someone uses, in the client's format."""
    content: dict[str, Any] = {
        "theme": "dark",
        client.key: {"files": {"command": "files-mcp", "args": ["/"]}, **servers},
    }
    return json.dumps(content, indent=4) if client.format == "json" else "# mine\n" + tomlkit.dumps(content)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


# --- a machine without a configuration ---------------------------------------------------------------------------


@every_place
def test_where_there_was_nothing_stands_what_print_shows(home: Home, client: Client, scope: str) -> None:
    shown = home(client.name, "traces.jsonl", "--print")
    assert home.files() == {}
    said = home(client.name, "traces.jsonl", "--scope", scope)
    assert home.place(client, scope).read_text(encoding="utf-8") == shown
    assert list(home.files()) == [home.place(client, scope)]
    assert str(home.place(client, scope)) in said
    assert "there is no" in said  # nobody has written the traces yet
    assert client.afterwards in said


@every_client
def test_the_entry_names_an_absolute_program_and_absolute_sources(home: Home, client: Client) -> None:
    (home.project / "old.jsonl").touch()
    home(client.name, "before=old.jsonl", "new/*.jsonl")
    entry = home.servers(client)["halo"]
    assert entry["args"][-3:] == ["serve", f"before={home.project}/old.jsonl", f"{home.project}/new/*.jsonl"]
    assert Path(entry["command"]).is_absolute()
    assert os.access(entry["command"], os.X_OK)
    assert is_ours(entry)


def test_without_sources_the_client_may_open_files_under_this_directory(home: Home) -> None:
    home("cursor")
    assert home.servers(CLIENTS["cursor"])["halo"]["args"][-2:] == ["--root", str(home.project)]


def test_json_says_what_was_done(home: Home) -> None:
    done = json.loads(home("codex", "t.jsonl", "--name", "traces", "--json"))
    place = home.place(CLIENTS["codex"])
    assert (done["client"], done["name"], done["path"], done["changed"]) == ("codex", "traces", str(place), True)
    assert done["entry"] == home.servers(CLIENTS["codex"])["traces"]
    assert done["backup"] is None
    assert done["missing_sources"] == [str(home.project / "t.jsonl")]


@pytest.mark.parametrize(
    "name, platform, place",
    [
        ("claude-desktop", "darwin", "Library/Application Support/Claude/claude_desktop_config.json"),
        ("claude-desktop", "win32", "AppData/Roaming/Claude/claude_desktop_config.json"),
        ("claude-desktop", "linux", ".config/Claude/claude_desktop_config.json"),
        ("vscode", "darwin", "Library/Application Support/Code/User/mcp.json"),
        ("vscode", "win32", "AppData/Roaming/Code/User/mcp.json"),
        ("vscode", "linux", ".config/Code/User/mcp.json"),
        ("claude-code", "linux", ".claude.json"),
        ("cursor", "win32", ".cursor/mcp.json"),
        ("codex", "darwin", ".codex/config.toml"),
    ],
)
def test_every_client_is_looked_for_where_it_lives(name: str, platform: str, place: str) -> None:
    machine = Machine(Path("/home/ann"), Path("/work"), platform, {})
    assert CLIENTS[name].places["user"](machine) == Path("/home/ann") / place


@pytest.mark.parametrize(
    "name, variable, place",
    [
        ("claude-code", "CLAUDE_CONFIG_DIR", ".claude.json"),
        ("codex", "CODEX_HOME", "config.toml"),
        ("claude-desktop", "XDG_CONFIG_HOME", "Claude/claude_desktop_config.json"),
        ("vscode", "XDG_CONFIG_HOME", "Code/User/mcp.json"),
    ],
)
def test_a_client_that_was_moved_is_found(name: str, variable: str, place: str) -> None:
    machine = Machine(Path("/home/ann"), Path("/work"), "linux", {variable: "/elsewhere"})
    assert CLIENTS[name].places["user"](machine) == Path("/elsewhere") / place


# --- a configuration that is in use ------------------------------------------------------------------------------


@every_client
def test_everything_else_stays_and_the_file_as_it_was_is_kept(home: Home, client: Client) -> None:
    place = written(home.place(client), existing(client))
    place.chmod(0o640)
    before = place.read_bytes()
    said = home(client.name, "t.jsonl")
    after = parsed(client, place.read_bytes())
    assert after[client.key].pop("halo")["args"][-1] == str(home.project / "t.jsonl")
    assert after == parsed(client, before)
    (backup,) = place.parent.glob("*.bak")
    assert backup.read_bytes() == before
    assert str(backup) in said
    assert stat.S_IMODE(place.stat().st_mode) == stat.S_IMODE(backup.stat().st_mode) == 0o640
    assert set(home.files()) == {place, backup}


@every_client
def test_a_second_time_changes_nothing(home: Home, client: Client) -> None:
    written(home.place(client), existing(client))
    home(client.name, "t.jsonl")
    files = home.files()
    assert "nothing was changed" in home(client.name, "t.jsonl")
    assert home.files() == files


@every_client
def test_other_sources_replace_the_old_ones_and_what_the_user_set_stays(home: Home, client: Client) -> None:
    mine = {"command": "/old/halo-mcp", "args": ["serve", "/a"], "env": {"HALO_MCP_MODEL": "m"}, "tool_timeout_sec": 9}
    written(home.place(client), existing(client, halo=mine))
    home(client.name, "b.jsonl")
    entry = home.servers(client)["halo"]
    assert entry["args"][-1] == str(home.project / "b.jsonl")
    assert entry["command"] != "/old/halo-mcp"
    assert (entry["env"], entry["tool_timeout_sec"]) == (mine["env"], 9)
    assert list(home.servers(client)) == ["files", "halo"]


@every_client
def test_another_server_of_the_same_name_is_not_touched(home: Home, client: Client) -> None:
    written(home.place(client), existing(client, halo={"command": "halo-lights", "args": ["serve"]}))
    files = home.files()
    assert "--name" in home(client.name, "t.jsonl", code=1)
    assert home.files() == files
    home(client.name, "t.jsonl", "--name", "halo-traces")
    assert list(home.servers(client)) == ["files", "halo", "halo-traces"]


def test_comments_and_order_of_toml_stay(home: Home) -> None:
    text = (
        '# who I am\nmodel = "m" # the good one\n\n[mcp_servers.files] # mine\ncommand = "files-mcp"\n\n[tui]\nx = 1\n'
    )
    place = written(home.place(CLIENTS["codex"]), text)
    home("codex", "t.jsonl")
    after = place.read_text(encoding="utf-8")
    assert [line for line in after.splitlines() if line in text.splitlines()] == text.splitlines()


@pytest.mark.parametrize(
    "text",
    ['{\r\n\t"theme": "dark"\r\n}\r\n', '{\n    "theme": "dark"\n}', '\N{BYTE ORDER MARK}{"theme": "dark"}', "", " \n"],
)
def test_a_file_as_editors_leave_it_is_taken(home: Home, text: str) -> None:
    place = written(home.place(CLIENTS["cursor"]), text)
    home("cursor", "t.jsonl")
    after = place.read_bytes().decode()
    assert list(json.loads(after)) == [*(["theme"] if "theme" in text else []), "mcpServers"]
    assert ("\r\n" in after, "\n\t" in after) == ("\r\n" in text, "\t" in text)


def test_a_link_to_the_file_stays_a_link(home: Home) -> None:
    client = CLIENTS["cursor"]
    real = written(home.directory / "dotfiles" / "cursor.json", existing(client))
    link = home.place(client)
    link.parent.mkdir()
    link.symlink_to(real)
    home("cursor", "t.jsonl")
    assert link.is_symlink()
    assert list(json.loads(real.read_text())["mcpServers"]) == ["files", "halo"]


# --- what cannot be done -----------------------------------------------------------------------------------------

DAMAGED: Final = {
    "cut off": ('{"mcpServers": {"files"', '[mcp_servers.files\ncommand = "x"'),
    "no object": ("[1, 2]", "= 1"),
    "servers are no table": ('{"KEY": [1]}', "mcp_servers = [1]"),
    "with comments": ('{\n  // mine\n  "KEY": {}\n}', ""),
    "trailing comma": ('{"KEY": {"a": {"command": "x"},}}', ""),
    "a member twice": ('{"KEY": {}, "KEY": {}}', "[mcp_servers.a]\n[mcp_servers.a]"),
    "no JSON number": ('{"x": NaN}', ""),
    "too large a number": ('{"x": 1e999}', ""),
    "a table that takes no other": ("", 'mcp_servers = {a = {command = "x"}}'),
    "nested too deeply": ("[" * 100_000, ""),
}


@pytest.mark.parametrize(
    "client, text",
    [
        pytest.param(client, text.replace("KEY", client.key), id=f"{name}-{why}")
        for name, client in CLIENTS.items()
        for why, texts in DAMAGED.items()
        if (text := texts[client.format == "toml"])
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_block_to_paste(home: Home, client: Client, text: str) -> None:
    place = written(home.place(client), text)
    said = home(client.name, "t.jsonl", code=1)
    assert home.files() == {place: text.encode()}
    assert "is left as it is" in said
    block = said.partition("by hand:\n")[2]
    assert block.strip() == home(client.name, "t.jsonl", "--print").strip()
    assert parsed(client, block)[client.key]["halo"]["command"]


def test_bytes_that_are_no_text_are_refused(home: Home) -> None:
    place = home.place(CLIENTS["cursor"])
    place.parent.mkdir()
    place.write_bytes(b'{"a": "\xff"}')
    assert "is left as it is" in home("cursor", "t.jsonl", code=1)
    assert home.files() == {place: b'{"a": "\xff"}'}


@contextmanager
def as_anyone() -> Generator[None]:
    """Root may write anywhere; for a moment it is not root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@every_client
def test_a_directory_that_may_not_be_written_to_stays_as_it_is(client: Client) -> None:
    with TemporaryDirectory() as name:  # not tmp_path, which only its owner may enter
        path = written(Path(name) / "config", existing(client))
        planned = plan(client, path, "halo", client.entry(HALO, ["/t.jsonl"]))
        path.parent.chmod(0o555)
        try:
            with as_anyone(), pytest.raises(BadArgument, match="cannot be written: Permission denied"):
                carry_out(planned)
            assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [("config", planned.before)]
        finally:
            path.parent.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_nobody_else_can_read_a_configuration_while_it_is_written(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    place = written(home.place(CLIENTS["claude-code"]), '{"key": "secret"}')
    place.chmod(0o600)
    seen: list[int] = []

    def noted(copy: Any) -> Any:
        def wrapped(source: Path, target: Path) -> Any:
            seen.append(target.stat().st_mode & 0o777)
            return copy(source, target)

        return wrapped

    monkeypatch.setattr(shutil, "copymode", noted(shutil.copymode))
    monkeypatch.setattr(shutil, "copy2", noted(shutil.copy2))
    home("claude-code", "t.jsonl")
    assert seen == [0o600, 0o600]
    assert {path.stat().st_mode & 0o777 for path in home.files()} == {0o600}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_pipe_in_the_place_of_a_configuration_is_not_waited_for(home: Home) -> None:
    place = home.place(CLIENTS["cursor"])
    place.parent.mkdir()
    os.mkfifo(place)
    assert "is no file" in home("cursor", "t.jsonl", code=1)


@every_client
def test_a_write_protected_file_stays_as_it_is(home: Home, client: Client) -> None:
    place = written(home.place(client), existing(client))
    place.chmod(0o444)
    assert "is write-protected" in home(client.name, "t.jsonl", code=1)
    assert home.files() == {place: existing(client).encode()}


@every_client
def test_a_write_that_fails_leaves_no_trace(home: Home, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    place = written(home.place(client), existing(client))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert home(client.name, "t.jsonl", code=1).endswith(f"{place} cannot be written: No space left on device.\n")
    assert home.files() == {place: existing(client).encode()}


@every_client
def test_a_place_that_is_no_place_is_an_error(home: Home, client: Client) -> None:
    (home.directory / "file").touch()
    assert "cannot be" in home(client.name, "t.jsonl", "--path", home.directory / "file" / "config", code=1)
    assert "cannot be read" in home(client.name, "t.jsonl", "--path", home.project, code=1)


def test_a_file_that_changes_meanwhile_is_left_alone(tmp_path: Path) -> None:
    client, path = CLIENTS["claude-code"], written(tmp_path / "c.json", "{}")
    planned = plan(client, path, "halo", client.entry(HALO, ["/t.jsonl"]))
    path.write_text('{"new": 1}')
    with pytest.raises(BadArgument, match="changed meanwhile"):
        carry_out(planned)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("c.json", '{"new": 1}')]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["emacs", "t.jsonl"], "give one of claude-code, claude-desktop, cursor, vscode, codex"),
        (["claude-desktop", "t.jsonl", "--scope", "project"], "give user"),
        (["cursor", "t.jsonl", "--scope", "planet"], "give user or project"),
        (["cursor", "t.jsonl", "--name", "a b"], "--name 'a b' cannot be used"),
        (["cursor", "t.jsonl", "--name", ""], "--name '' cannot be used"),
        (["cursor", "~nobody-here/t.jsonl"], "is no path that can be used"),
        (["cursor", "t.jsonl", "--path", "~nobody-here/mcp.json"], "cannot be found"),
    ],
)
def test_a_wrong_argument_says_what_to_give(home: Home, arguments: list[str], said: str) -> None:
    assert said in home(*arguments, code=1)
    assert home.files() == {}


# --- sources and the command -------------------------------------------------------------------------------------


def test_sources_are_the_same_wherever_the_server_starts(tmp_path: Path) -> None:
    (tmp_path / "a=b.jsonl").touch()
    given = ["t.jsonl", "old=t.jsonl", "/abs/x", "old=/abs/x", "d/*.jsonl", "clickhouse://h/db", "ch=clickhouse://h/db"]
    assert absolute_sources(given, tmp_path) == [
        *(f"{tmp_path}/t.jsonl", f"old={tmp_path}/t.jsonl", "/abs/x", "old=/abs/x", f"{tmp_path}/d/*.jsonl"),
        *("clickhouse://h/db", "ch=clickhouse://h/db"),
    ]
    (home,) = absolute_sources(["~/t.jsonl"], tmp_path)
    assert home == str(Path.home() / "t.jsonl")


def uvx_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct_url: str | None) -> Command:
    """The command, asked for in an environment such as ``uvx`` makes."""

    class Installed:
        def read_text(self, _: str) -> str | None:
            return direct_url

    def installed(_: str) -> Installed:
        return Installed()

    monkeypatch.setattr(sys, "prefix", str(tmp_path / "uv" / "archive-v0" / "x1y2"))
    monkeypatch.setattr("halo_mcp.install.distribution", installed)
    uvx = tmp_path / "bin" / "uvx"
    uvx.parent.mkdir()
    uvx.touch(0o755)
    monkeypatch.setenv("PATH", str(uvx.parent))
    return this_command()


@pytest.mark.parametrize(
    "direct_url, arguments",
    [
        (None, ("halo-mcp",)),
        ('{"url": "file:///src/halo%20mcp", "dir_info": {}}', ("--from", "/src/halo mcp", "halo-mcp")),
        (
            '{"url": "https://git.example/h.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}}',
            ("--from", "git+https://git.example/h.git@ab12", "halo-mcp"),
        ),
    ],
)
def test_a_temporary_environment_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct_url: str | None, arguments: tuple[str, ...]
) -> None:
    assert uvx_run(tmp_path, monkeypatch, direct_url) == (str(tmp_path / "bin" / "uvx"), arguments)


def test_a_temporary_environment_without_uvx_says_how_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "uv" / "archive-v0" / "x1y2"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("UV", raising=False)
    with pytest.raises(BadArgument, match="uv tool install"):
        this_command()


def test_the_program_that_was_called_is_the_one_that_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "halo-mcp"
    program.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert this_command() == (str(program), ())


@pytest.mark.parametrize(
    "entry, ours",
    [
        ({"command": "halo-mcp", "args": ["serve", "/t"]}, True),
        ({"command": "C:\\Tools\\halo-mcp.exe", "args": ["serve"]}, True),
        ({"command": "/bin/uvx", "args": ["halo-mcp", "serve", "/t"]}, True),
        ({"command": "python", "args": ["-m", "halo_mcp", "serve", "/t"]}, True),
        ({"command": "halo-mcp-lights", "args": ["serve"]}, False),
        ({"url": "http://127.0.0.1:8000/mcp"}, False),
        ({"command": ["halo-mcp"], "args": "serve"}, False),
        (None, False),
    ],
)
def test_our_own_entries_are_known_however_they_are_written(entry: object, ours: bool) -> None:
    assert is_ours(entry) is ours


# --- whatever stands in the file ---------------------------------------------------------------------------------

keys = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8)
scalars = st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), keys)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
servers = st.dictionaries(
    keys.filter(lambda name: name != "halo"), st.dictionaries(keys, values, max_size=3), max_size=3
)
configurations = st.dictionaries(keys, values, max_size=4)


@given(content=configurations, others=servers, name=st.sampled_from(["cursor", "codex"]))
def test_whatever_else_is_in_a_configuration_is_in_it_afterwards(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], others: dict[str, Any], name: str
) -> None:
    client = CLIENTS[name]
    content = {**content, client.key: others}
    dump: Callable[[Any], str] = json.dumps if client.format == "json" else tomlkit.dumps
    path = tmp_path_factory.mktemp("c") / "config"
    path.write_bytes(dump(content).encode())
    entry = client.entry(HALO, ["/t.jsonl"])
    carry_out(plan(client, path, "halo", entry))
    after = parsed(client, path.read_bytes())
    assert after == {**content, client.key: {**others, "halo": entry}}
    assert not plan(client, path, "halo", entry).changes


@given(text=st.text(st.sampled_from("[]{}=\"'#.,:/\n mcp_servershalo1"), max_size=40))
def test_any_text_is_merged_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("c") / "config"
    path.write_bytes(text.encode())
    for name in ("cursor", "codex"):
        client = CLIENTS[name]
        entry = client.entry(HALO, ["/t.jsonl"])
        try:
            planned = plan(client, path, "halo", entry)
        except BadClientConfig:
            continue
        except BadArgument as error:
            refusal = str(error)
            assert "another server" in refusal
            continue
        after = parsed(client, planned.after)
        assert after[client.key].pop("halo") == entry
        before = parsed(client, text) if text.strip() else {}
        assert after == {client.key: {}, **before}
