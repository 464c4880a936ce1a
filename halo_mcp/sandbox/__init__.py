"""SQL and code that a model wrote, run in worker processes that can be killed. Knows neither MCP nor models.

The host's side is ``process.py`` (any worker) and ``workers.py`` (all workers of a server). Worker scripts run as
``python -I script.py``, where neither the current directory nor PYTHONPATH counts: each appends the directory above
``halo_mcp`` to ``sys.path`` and then imports ``halo_mcp.sandbox.frames`` and ``halo_mcp.sandbox.confine``, which need
nothing but the standard library.
"""
