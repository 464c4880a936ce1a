"""Whether the files of an index are still what was written: asked only after one of them could not be used."""

from __future__ import annotations

from pathlib import Path

from halo_mcp.index.duck import bounded, connect, quoted
from halo_mcp.index.segments import Manifest
from halo_mcp.index.work import Work


def is_damaged(directory: Path, manifest: Manifest, work: Work) -> bool:
    """Whether a segment is missing, or holds a block that is not what its checksum says. Reads all of them.

    Raises: Cancelled, DeadlineExceeded.
    """
    import duckdb

    paths = [directory / segment.file for segment in manifest.segments]
    if not all(path.is_file() for path in paths):
        return True
    connection = connect()
    try:
        for path in paths:
            with bounded(connection, work):
                connection.execute(f"ATTACH {quoted(str(path))} AS seg (READ_ONLY)")
                listed = connection.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'seg'")
                for (table,) in listed.fetchall():
                    connection.execute(f"SELECT bit_xor(hash(t)) FROM seg.{table} AS t").fetchall()
                connection.execute("DETACH seg")
    except duckdb.OutOfMemoryException:
        return False
    except duckdb.Error:
        return True
    finally:
        connection.close()
    return False
