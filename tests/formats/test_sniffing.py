"""Every sample is known to the format that it is of, and to no other. A sample is called FORMAT.ANYTHING.SUFFIX."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from halo_mcp.index.formats.head import read_head
from halo_mcp.index.formats.table import formats
from tests.formats.reading import read_file

SAMPLES = sorted(Path(__file__).with_name("samples").iterdir())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_exactly_one_format_claims_a_sample(sample: Path) -> None:
    head = read_head(sample)
    assert [one.name for one in formats() if one.sniff(head)] == [sample.name.partition(".")[0]]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_a_sample_is_read_in_full_also_when_compressed(sample: Path, tmp_path: Path) -> None:
    plain = read_file(sample, tmp_path / "plain")
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(sample.read_bytes()))
    assert plain.spans
    assert plain.skipped == []
    assert read_file(packed, tmp_path / "packed-index").spans == plain.spans
