"""The least that a server can be: what the SDK alone takes to start."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("bare")


@server.tool()
def nothing() -> str:
    """Says nothing."""
    return ""


if __name__ == "__main__":
    server.run("stdio")
