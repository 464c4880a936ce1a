"""halo-mcp: an MCP server that answers questions about agent traces."""

__version__ = "0.1.0"
