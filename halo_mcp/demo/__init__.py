"""A small sample dataset of agent traces with known failures, and the exact truth about it."""

from halo_mcp.demo.dataset import write_demo
from halo_mcp.demo.truth import DemoTruth, FailureModeTruth, Quote, RunTruth, ToolTruth, truth_markdown

__all__ = ["DemoTruth", "FailureModeTruth", "Quote", "RunTruth", "ToolTruth", "truth_markdown", "write_demo"]
