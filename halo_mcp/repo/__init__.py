"""The agent's source code, read-only: files, text search, git history, and whether ``path:line`` citations hold.

Knows the files under one root and the ``git`` and ``rg`` programs; neither MCP nor models nor traces.
"""
