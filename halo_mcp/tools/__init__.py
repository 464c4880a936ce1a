"""The MCP tools: one module per family, each tool a plain function over a store."""
