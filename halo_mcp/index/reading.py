"""Reading source bytes: plain reads, never a memory map, so that a file truncated under us cannot kill the process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from halo_mcp.errors import SourceChanged, SourceUnreadable
from halo_mcp.index.formats.canonical import parse_record
from halo_mcp.index.ids import normalize_id
from halo_mcp.index.privacy import OPEN, Privacy
from halo_mcp.index.segments import SourceState
from halo_mcp.index.sources import modified_nano
from halo_mcp.index.span import Json

if TYPE_CHECKING:
    from halo_mcp.index.places import Places

_GAP_BYTES = 64 * 1024
_RUN_BYTES = 8 * 1024 * 1024


class Sources:
    """The source files of an index, by number. Opened per call, so that a file replaced on disk is seen."""

    def __init__(self, states: Sequence[SourceState], privacy: Privacy = OPEN) -> None:
        self._states = states
        self._privacy = privacy

    def path(self, source_no: int) -> str:
        return self._states[source_no].path

    def open(self, source_no: int) -> FileIO:
        """Raises: SourceUnreadable; SourceChanged when the file is another, shrank, or was written without growing."""
        state = self._states[source_no]
        try:
            file = FileIO(state.indexed_path)
        except OSError as error:
            if state.copied:  # converted anew, or removed with the index
                raise SourceChanged(state.path) from error
            raise SourceUnreadable(state.path, error.strerror or str(error)) from error
        stat = os.fstat(file.fileno())
        if state.copied:  # which only ever grows: a source that did more than grow gets another copy
            if stat.st_size < state.copied.covered_bytes:
                file.close()
                raise SourceChanged(state.path)
            return file
        rewritten = stat.st_size == state.size and modified_nano(Path(state.path), stat) != state.mtime_ns
        if stat.st_ino != state.inode or stat.st_size < state.covered_bytes or rewritten:
            file.close()
            raise SourceChanged(state.path)
        return file

    def read_into(self, file: FileIO, source_no: int, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``. Raises: SourceChanged when the file is shorter; SourceUnreadable."""
        done = 0
        try:
            file.seek(offset)
            while done < len(buffer):
                count = file.readinto(buffer[done:])
                if not count:
                    raise SourceChanged(self.path(source_no))
                done += count
        except OSError as error:
            raise SourceUnreadable(self.path(source_no), error.strerror or str(error)) from error

    def texts(self, places: Places) -> Iterator[bytes]:
        """The bytes at each place, in order, masked; neighbours are read together.

        Raises: SourceChanged, SourceUnreadable.
        """
        # Plain lists: a trace has few spans, for which numpy costs more than it saves.
        stands = list(zip(places.source_no.tolist(), places.offset.tolist(), places.length.tolist(), strict=True))
        first = 0
        while first < len(stands):
            last = _end_of_run(stands, first)
            source_no, start, _ = stands[first]
            block = self._read(source_no, start, stands[last - 1][1] + stands[last - 1][2] - start)
            for _, offset, length in stands[first:last]:
                yield self._privacy.of_bytes(block[offset - start : offset - start + length])
            first = last

    def _read(self, source_no: int, offset: int, size: int) -> bytes:
        with self.open(source_no) as file:
            try:
                file.seek(offset)
                block = file.read(size)
                while len(block) < size and (more := file.read(size - len(block))):
                    block += more
            except OSError as error:
                raise SourceUnreadable(self.path(source_no), error.strerror or str(error)) from error
        if len(block) < size:
            raise SourceChanged(self.path(source_no))
        return block

    def record(self, source_no: int, text: bytes, trace_id: str) -> dict[str, Json]:
        """The parsed span in ``text``, which must belong to ``trace_id``. Raises: SourceChanged."""
        record = parse_record(text)
        found = "" if record is None else normalize_id(record.get("trace_id"))
        if record is None or found not in (trace_id, self._privacy.of_text(trace_id)):
            raise SourceChanged(self.path(source_no))
        return dict(record)


def _end_of_run(stands: Sequence[tuple[int, int, int]], first: int) -> int:
    """Up to where places can be read at once with the one at ``first``: near each other, and not too much."""
    source_no, start, length = stands[first]
    end = start + length
    for index in range(first + 1, len(stands)):
        other, offset, length = stands[index]
        if other != source_no or offset - end > _GAP_BYTES or offset + length - start > _RUN_BYTES:
            return index
        end = offset + length
    return len(stands)
