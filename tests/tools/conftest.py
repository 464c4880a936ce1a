"""The sample dataset, written once for all tests of a run."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from halo_mcp.demo import DemoTruth, write_demo
from tests.tools.desk import Desk


class Demo(NamedTuple):
    """The sample dataset behind a Desk ("before" is the default dataset), and what is true about it."""

    desk: Desk
    truth: DemoTruth


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    directory = tmp_path_factory.mktemp("demo")
    truth = write_demo(directory)
    runs = ("before", "after")
    files = {run: [directory / f"{run}.jsonl"] for run in runs}
    return Demo(Desk(directory, {**files, "both": [directory / f"{run}.jsonl" for run in runs]}), truth)
