"""Measures halo-mcp on generated trace files, beside halo-engine and ripgrep. `python -m benchmarks --help`."""
