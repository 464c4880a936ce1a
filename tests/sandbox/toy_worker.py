"""A worker that does whatever a test asks of it: ``python -I toy_worker.py MEMORY_BYTES [broken|slow|crash]``."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from halo_mcp.sandbox.confine import confine, system_paths
from halo_mcp.sandbox.frames import Channel

sys.path.pop(0)


def do(channel: Channel, frame: dict[str, Any]) -> Any:
    match frame["do"]:
        case "echo":
            return frame["value"]
        case "spin":
            while True:
                pass
        case "grow":
            kept: list[bytearray] = []
            while True:
                kept.append(bytearray(b"x" * (8 << 20)))
        case "exit":
            os._exit(7)
        case "ask":
            channel.send({"call": "host", "value": frame["value"]})
            return channel.receive()["answer"]
        case "flood":
            return "x" * frame["chars"]
        case "lie":
            os.write(channel._out.fileno(), struct.pack(">I", 5) + b"hello")  # pyright: ignore[reportPrivateUsage]
            return None
        case "read":
            return Path(frame["path"]).read_text()
        case "write":
            return Path(frame["path"]).write_text("x")
        case "run":
            return subprocess.run(["true"], check=False).returncode
        case _:
            return tried(frame["do"])


def tried(what: str) -> str:
    import socket

    assert what == "connect"
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", 9))
    return "connected"


def main() -> None:
    manner = sys.argv[2] if len(sys.argv) > 2 else ""
    channel = Channel(1 << 20)
    if manner == "crash":
        os.abort()
    if manner == "slow":
        time.sleep(60)
    if manner == "broken":
        channel.send({"unavailable": "this machine lacks a part"})
        return
    applied = confine(system_paths(), int(sys.argv[1]))
    channel.listen()
    channel.send({"ready": True, "confined": applied, "pid": os.getpid()})
    while True:
        frame = channel.receive()
        try:
            channel.send({"value": do(channel, frame)})
        except Exception as error:
            channel.send({"error": f"{type(error).__name__}: {error}"})


main()
