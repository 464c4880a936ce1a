"""A trace file that grows while it is read, and is rotated in every way that log files are."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import anyio

GROW_EVERY_S: Final = 1.0
APPENDS_KEPT: Final = 8
"""Between two rotations."""
GONE_S: Final = 0.2


class MovingSource:
    """One file. Every generation begins with the sample's traces under new ids, so old ids lead nowhere."""

    def __init__(self, path: Path, sample: Sequence[bytes], seed: int = 1) -> None:
        """``sample``: lines of spans whose trace ids are 32 hexadecimal digits."""
        self.path = path
        self.appends = 0
        self.rotations = 0
        self._sample = sample
        self._random = random.Random(seed)
        self._generation = 0
        self._lines = self._renamed()
        path.write_bytes(self._next(120))

    async def move(self) -> None:
        """Grow and rotate until cancelled."""
        ways: Sequence[Callable[[], object]] = (self.replace, self.truncate_and_go_on, self.delete_and_write_anew)
        while True:
            for way in ways:
                for _ in range(APPENDS_KEPT):
                    await anyio.sleep(GROW_EVERY_S * self._random.uniform(0.5, 1.5))
                    await self.append()
                if way == self.delete_and_write_anew:
                    self.path.unlink()
                    await anyio.sleep(GONE_S)
                way()
                self.rotations += 1

    async def append(self) -> None:
        """Some lines, now and then one that is no span, or one whose second half comes later."""
        text = self._next(self._random.randint(1, 30))
        if self._random.random() < 0.2:
            text += b'{"no": "span"\n'
        cut = self._random.randrange(len(text)) if self._random.random() < 0.3 else len(text)
        self._write(text[:cut])
        if cut < len(text):
            await anyio.sleep(GROW_EVERY_S * 0.3)
            self._write(text[cut:])
        self.appends += 1

    def replace(self) -> None:
        """As logrotate's ``create``: another file takes the name."""
        self._lines = self._renamed()
        other = self.path.with_suffix(".next")
        other.write_bytes(self._next(120))
        os.replace(other, self.path)

    def truncate_and_go_on(self) -> None:
        """As logrotate's ``copytruncate``: the same file, from its beginning."""
        self._lines = self._renamed()
        os.truncate(self.path, 0)
        self._write(self._next(120))

    def delete_and_write_anew(self) -> None:
        self._lines = self._renamed()
        self.path.write_bytes(self._next(120))

    def _write(self, text: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(text)

    def _next(self, count: int) -> bytes:
        return b"".join(next(self._lines) + b"\n" for _ in range(count))

    def _renamed(self) -> Iterator[bytes]:
        """The sample over and over; the ids begin with the number of the generation and of the round."""
        self._generation += 1
        generation, around = self._generation, 0
        while True:
            mark = b'"trace_id":"%04x%04x' % (generation, around)
            for line in self._sample:
                begin = line.index(b'"trace_id":"')
                yield line[:begin] + mark + line[begin + len(mark) :]
            around += 1
