"""The build: the interpreter of run_code is made once, recorded, and missing with a reason where it cannot be made."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import hatch_build
from tests.sandbox.interpreter import needs_interpreter


@pytest.fixture(name="guest")
def _guest(tmp_path: Path) -> Path:
    """The sources, and nothing made from them."""
    for name in hatch_build.SOURCES:
        shutil.copy(hatch_build.GUEST / name, tmp_path)
    return tmp_path


def record(guest: Path) -> dict[str, str]:
    return json.loads((guest / "halo_py.json").read_text())


@needs_interpreter
def test_the_interpreter_is_built_from_the_sources_that_are_here_and_its_hash_is_recorded() -> None:
    """In CI this fails when the build went through without it."""
    made = record(hatch_build.GUEST)
    assert "missing" not in made, made
    artefact = (hatch_build.GUEST / "halo_py.wasm").read_bytes()
    assert hashlib.sha256(artefact).hexdigest() == made["sha256"]
    assert made["componentize_py"] == hatch_build.COMPONENTIZE_PY
    before = (hatch_build.GUEST / "halo_py.wasm").stat().st_mtime_ns
    hatch_build.make_guest()
    assert (hatch_build.GUEST / "halo_py.wasm").stat().st_mtime_ns == before


def test_a_build_that_fails_leaves_the_reason_instead_of_an_interpreter(
    guest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (guest / "halo_py.wasm").write_bytes(b"of another time")
    monkeypatch.setattr(hatch_build, "COMMAND", "raise SystemExit('no such world')")
    monkeypatch.setattr(hatch_build, "has_wheel", lambda: True)
    hatch_build.make_guest(guest)
    assert record(guest)["missing"] == "componentize-py failed: no such world"
    assert not (guest / "halo_py.wasm").exists()
    assert "run_code will not be available: componentize-py failed" in capsys.readouterr().err


def test_a_platform_without_componentize_py_needs_nothing_and_says_so(
    guest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert hatch_build.guest_requirements() == []
    hatch_build.make_guest(guest)
    assert record(guest)["missing"].startswith("componentize-py has no build for this platform")


@pytest.mark.parametrize(
    "system, machine, libc, there",
    [
        ("Linux", "x86_64", ("glibc", "2.36"), True),
        ("Linux", "aarch64", ("glibc", "2.28"), True),
        ("Linux", "x86_64", ("glibc", "2.17"), False),
        ("Linux", "riscv64", ("glibc", "2.36"), False),
        ("Darwin", "arm64", ("", ""), True),
        ("Windows", "ARM64", ("", ""), False),
    ],
)
def test_componentize_py_is_asked_for_where_it_has_a_wheel(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, libc: tuple[str, str], there: bool
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.libc_ver", lambda: libc)
    assert bool(hatch_build.guest_requirements()) is there


def test_nothing_is_made_again_until_a_source_changes(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hatch_build, "has_wheel", lambda: True)
    monkeypatch.setattr(hatch_build, "COMMAND", "import sys; open(sys.argv[-1], 'wb').write(b'first')")
    hatch_build.make_guest(guest)
    monkeypatch.setattr(hatch_build, "COMMAND", "import sys; open(sys.argv[-1], 'wb').write(b'second')")
    hatch_build.make_guest(guest)
    assert (guest / "halo_py.wasm").read_bytes() == b"first"
    (guest / "guest_app.py").write_text("# another")
    hatch_build.make_guest(guest)
    assert (guest / "halo_py.wasm").read_bytes() == b"second"
    assert record(guest)["sha256"] == hashlib.sha256(b"second").hexdigest()
