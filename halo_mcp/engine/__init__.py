"""The server-side agent: a loop over a language model, its subagents, budgets and compaction.

Knows models; knows neither MCP nor files nor the index. Its tools are handed to it as callables.
"""
