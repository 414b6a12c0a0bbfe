"""The server's side of a websocket (RFC 6455), as much as pysc2 uses."""

import base64
import hashlib
import re
import socket
import struct

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CLOSE, _PING = 8, 9


class Websocket:
    """One connection. Raises EOFError once the other side is gone."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        """Wait so long for the one client, and shake hands."""
        with socket.create_server((host, port)) as listening:
            listening.settimeout(seconds)
            self._socket, _ = listening.accept()
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._read(1)
        key = re.search(rb"Sec-WebSocket-Key: *(\S+)", head, re.IGNORECASE)
        assert key is not None
        accepted = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
        self._socket.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accepted + b"\r\n\r\n"
        )

    def receive(self) -> bytes:
        message, final = b"", False
        while not final:
            first, second = self._read(2)
            final, kind, length = bool(first & 128), first & 15, second & 127
            if length > 125:
                (length,) = struct.unpack(
                    *((">H", self._read(2)) if length == 126 else (">Q", self._read(8)))
                )
            mask, data = self._read(4), self._read(length)  # a client masks what it sends
            whole = (mask * (length // 4 + 1))[:length]
            data = (int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")).to_bytes(length, "big")
            if kind == _CLOSE:
                raise EOFError
            if kind < _CLOSE:
                message += data
            elif kind == _PING:
                final = False
        return message

    def send(self, message: bytes) -> None:
        """As one binary frame."""
        length = len(message)
        if length < 126:
            head = struct.pack(">BB", 0x82, length)
        elif length < 1 << 16:
            head = struct.pack(">BBH", 0x82, 126, length)
        else:
            head = struct.pack(">BBQ", 0x82, 127, length)
        self._socket.sendall(head + message)

    def close(self) -> None:
        self._socket.close()

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data
