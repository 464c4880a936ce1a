"""How host and worker talk: frames of a 4-byte big-endian length and a JSON object. Standard library only."""

from __future__ import annotations

import json
import os
import struct
import threading
from queue import SimpleQueue
from typing import IO, Any, Final, cast

Frame = dict[str, Any]

_HEADER: Final = struct.Struct(">I")


class FrameError(Exception):
    """What arrived is no frame, or a larger one than may be read."""


def read_frame(stream: IO[bytes], limit: int) -> Frame | None:
    """The next frame; None when the other side is gone. Its length is checked before it is read. Raises: FrameError."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    (length,) = _HEADER.unpack(header)
    if length > limit:
        raise FrameError(f"a frame of {length} bytes; at most {limit} are read")
    body = stream.read(length)
    if len(body) < length:
        return None
    try:
        frame = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError("a frame that is no JSON") from error
    if not isinstance(frame, dict):
        raise FrameError("a frame that is no JSON object")
    return cast("Frame", frame)


def write_frame(stream: IO[bytes], frame: Frame) -> None:
    """Raises: OSError when the other side is gone."""
    body = json.dumps(frame, separators=(",", ":")).encode()
    stream.write(_HEADER.pack(len(body)) + body)
    stream.flush()


class Channel:
    """The worker's end. Takes standard input and output for itself, so that nothing else writes into the protocol."""

    def __init__(self, limit: int) -> None:
        """``limit``: bytes of the longest frame taken from the host."""
        self._limit = limit
        self._in = os.fdopen(os.dup(0), "rb")
        self._out = os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        self._arrived: SimpleQueue[Frame] = SimpleQueue()

    def first(self) -> Frame:
        """The frame that comes before all others, read by the calling thread: no other exists yet."""
        frame = read_frame(self._in, self._limit)
        if frame is None:
            os._exit(0)
        return frame

    def listen(self) -> None:
        """Start reading. A thread does it, which ends the process as soon as the host is gone, whatever runs.

        (A parent-death signal would not do: on Linux it is sent when the *thread* that started the worker ends.)
        Call it once the process is confined: the confinement binds threads that are started later.
        """
        threading.Thread(target=self._read, name="frames", daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                frame = read_frame(self._in, self._limit)
            except FrameError:
                os._exit(3)
            if frame is None:
                os._exit(0)
            self._arrived.put(frame)

    def receive(self) -> Frame:
        """The next frame from the host; waits for it."""
        return self._arrived.get()

    def send(self, frame: Frame) -> None:
        write_frame(self._out, frame)
