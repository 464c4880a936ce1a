"""The bytes of a file, decompressed if its first bytes say that it is compressed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zipfile
import zlib
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final

_BUFFER_BYTES: Final = 1024 * 1024
_MAGIC: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_MAGIC_BYTES: Final = 8


class Stream(io.RawIOBase):
    """Decompressed bytes of a file. Damaged data ends it: ``damage`` then tells why, what came before is kept."""

    def __init__(self, path: Path) -> None:
        """Raises: OSError."""
        self._file = path.open("rb")
        self.compression = compression_of(self._file.read(_MAGIC_BYTES))
        self._file.seek(0)
        self._inner: Any = self._file
        if self.compression:
            self._inner = _decompressor(self.compression, self._file)
        self.damage = ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self.damage:
            return 0
        try:
            block = self._inner.read1(len(buffer))
        except (EOFError, OSError, zlib.error, lzma.LZMAError, _zstd_error()) as error:
            if not self.compression:
                raise
            self.damage = f"the {self.compression} data is damaged or cut off: {_why(error)}"
            return 0
        buffer[: len(block)] = block
        return len(block)

    def seek_to(self, position: int) -> None:
        """Go on reading at this byte of an uncompressed file."""
        self._file.seek(position)

    @property
    def file_position(self) -> int:
        """How far the file itself was read."""
        return self._file.tell()

    def buffered(self) -> io.BufferedReader:
        return io.BufferedReader(self, _BUFFER_BYTES)

    def close(self) -> None:
        self._file.close()
        super().close()


def compression_of(head: bytes) -> str:
    """How data that begins with ``head`` is compressed; "" when it is not."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def unpacked(data: bytes, limit: int) -> tuple[bytes, str]:
    """Compressed ``data`` as far as it can be decompressed and up to ``limit`` bytes, and why not all of it ("")."""
    parts: list[bytes] = []
    compression = compression_of(data)
    file = _decompressor(compression, io.BytesIO(data))
    try:
        while limit > 0 and (block := file.read1(min(limit, _BUFFER_BYTES))):
            parts.append(block)
            limit -= len(block)
    except (EOFError, OSError, zlib.error, lzma.LZMAError, _zstd_error()) as error:
        return b"".join(parts), f"the {compression} data is damaged or cut off: {_why(error)}"
    return b"".join(parts), ""


def _decompressor(compression: str, file: IO[bytes]) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=file)
    if compression == "bzip2":
        return bz2.BZ2File(file)
    if compression == "xz":
        return lzma.LZMAFile(file)
    return _zstd().ZstdFile(file)


def zip_module() -> Any:
    """``zipfile``, also for members that are compressed with zstd."""
    return import_module("zipfile" if sys.version_info >= (3, 14) else "backports.zstd.zipfile")


def zip_errors() -> tuple[type[Exception], ...]:
    """What it raises for a damaged archive."""
    return zipfile.BadZipFile, zip_module().BadZipFile, _zstd_error(), zlib.error, EOFError


def _zstd() -> Any:
    # The standard library's module from Python 3.14 on; before, its backport.
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def _zstd_error() -> type[Exception]:
    return _zstd().ZstdError


def _why(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "it ends too early"
    return " ".join(str(error).split())[:120] or type(error).__name__
