"""An OAuth authorization server's public side on a loopback port: metadata, keys, and tokens that it signed."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import jwt
from anyio.streams.buffered import BufferedByteReceiveStream
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "https://traces.example.com/mcp"


class Authority:
    """Its keys: "rsa" (RS256) and "ec" (ES256). ``fetches`` counts how often each path was asked for."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {
            "rsa": rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
        }
        self.issuer = ""
        self.fetches: list[str] = []
        self.keys_url = ""
        """Where its metadata says that its keys are; "": where they are."""
        self.down = False

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What a good token says; None leaves a claim out."""
        now = int(time.time())
        said = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "someone",
            "client_id": "c1",
            "exp": now + 600,
            "iat": now,
            "scope": "traces:read other",
        }
        return {name: value for name, value in {**said, **changes}.items() if value is not None}

    def token(self, key: str = "rsa", *, kid: str | None = None, algorithm: str = "", **changes: Any) -> str:
        algorithm = algorithm or {"rsa": "RS256", "ec": "ES256"}[key]
        return jwt.encode(self.claims(**changes), self.keys[key], algorithm, headers={"kid": kid or key})

    def unsigned(self) -> str:
        return jwt.encode(self.claims(), "", "none", headers={"kid": "rsa"})

    def signed_with_the_public_key_as_a_secret(self) -> str:
        """The classic confusion: HS256 with the key that everyone can fetch. Made by hand: PyJWT refuses to."""
        import hashlib
        import hmac

        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        secret = self.keys["rsa"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        parts = [{"alg": "HS256", "typ": "JWT", "kid": "rsa"}, self.claims()]
        signed = b".".join(_base64(json.dumps(part).encode()) for part in parts)
        return (signed + b"." + _base64(hmac.new(secret, signed, hashlib.sha256).digest())).decode()

    def document(self, path: str) -> Any:
        if path == "/keys":
            algorithms = {"rsa": RSAAlgorithm, "ec": ECAlgorithm}
            made = [(name, algorithms[name].to_jwk(key.public_key(), as_dict=True)) for name, key in self.keys.items()]
            return {"keys": [{**jwk, "kid": name, "use": "sig"} for name, jwk in made]}
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.issuer, "jwks_uri": self.keys_url or f"{self.issuer}/keys"}
        return None

    async def answer(self, socket: anyio.abc.SocketStream) -> None:
        async with socket:
            head = await BufferedByteReceiveStream(socket).receive_until(b"\r\n\r\n", 65_536)
            path = head.split(b" ")[1].decode()
            self.fetches.append(path)
            document = None if self.down else self.document(path)
            status = b"404 Not Found" if document is None else b"200 OK"
            body = json.dumps(document).encode()
            await socket.send(
                b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, len(body), body)
            )


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@asynccontextmanager
async def authority() -> AsyncGenerator[Authority]:
    made = Authority()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    made.issuer = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, made.answer)
        yield made
        group.cancel_scope.cancel()
    await listener.aclose()
