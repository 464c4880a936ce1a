"""What stands between a socket and the MCP server: who may speak to it, how much, and how it ends."""
