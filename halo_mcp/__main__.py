"""Entry point of ``halo-mcp`` and ``python -m halo_mcp``."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line. ``serve`` takes a short way in, because clients wait for it to start."""
    if sys.argv[1:2] == ["serve"]:
        # Collecting garbage while importing finds nothing and takes a tenth of the start-up time.
        gc.disable()
        import halo_mcp.server  # pyright: ignore[reportUnusedImport]  # noqa: F401
        from halo_mcp.serve import main as serve

        gc.freeze()
        gc.enable()
        sys.exit(serve(sys.argv[2:]))
    from halo_mcp.cli import run

    sys.exit(run())


if __name__ == "__main__":
    main()
