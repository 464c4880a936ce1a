"""SQL and code that a model wrote, run in worker processes that can be killed. Knows neither MCP nor models.

The host's side is ``process.py`` (any worker) and ``workers.py`` (all workers of a server). Worker scripts run as
``python -I script.py``, where neither the current directory nor PYTHONPATH counts. So each puts the directory above
``halo_mcp`` first on ``sys.path``, imports from ``halo_mcp.sandbox.frames`` and ``halo_mcp.sandbox.confine`` (which
need nothing but the standard library), and takes it off again: what it imports of ``halo_mcp`` later is then found
beside those, and no other package is found anywhere else than without this.
"""
