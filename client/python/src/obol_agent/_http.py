"""HTTP/1.1 without sockets: how a request is written, and an answer read, over any stream that can ``read`` and ``write``.

A request is sent once. Nothing here follows, repeats or guesses, because that decides whether a token was spent. The code awaits
its stream; where that blocks instead, it never really waits (see ``_blocking``).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from ._deadline import Deadline
from ._errors import AgentError, Unanswered
from ._url import Url

MAX_HEAD_BYTES = 65_536
MAX_LINE_BYTES = 1_024
MAX_INTERIM = 10
READ_BYTES = 65_536
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\r\n]*))?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_NO_BODY = frozenset({204, 205, 304})

Body = bytes | None | Iterable[bytes | str] | AsyncIterable[bytes | str]


class Stream(Protocol):
    """A connection. What was sent counts as sent from the first byte on."""

    async def read(self, secs: float) -> bytes: ...

    async def write(self, data: bytes, secs: float) -> None: ...

    def close(self) -> None: ...

    def keep(self) -> None:
        """It can be used again."""


class Headers(Mapping[str, str]):
    """Of an answer. Names in any case; several of one name are joined with a comma."""

    __slots__ = ("_items",)

    def __init__(self, items: list[tuple[str, str]]) -> None:
        self._items = [(name.lower(), value) for name, value in items]

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._items))

    def __len__(self) -> int:
        return len({name for name, _ in self._items})

    def __repr__(self) -> str:
        return f"Headers({list(self)})"

    def get_all(self, name: str) -> list[str]:
        return [value for given, value in self._items if given == name.lower()]

    def replaced(self, changes: dict[str, str | None]) -> Headers:
        kept = [(name, value) for name, value in self._items if name not in changes]
        return Headers(kept + [(name, value) for name, value in changes.items() if value is not None])


class Prepared(NamedTuple):
    """A request as it is sent."""

    url: Url
    method: str
    headers: list[tuple[str, str]]
    body: Body

    def __repr__(self) -> str:
        return f"Prepared({self.method} {self.url.origin})"


def write_head(request: Prepared) -> bytes:
    lines = [f"{request.method} {request.url.path}{request.url.query} HTTP/1.1", f"Host: {request.url.netloc}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    if isinstance(request.body, bytes):
        lines.append(f"Content-Length: {len(request.body)}")
    elif request.body is not None:
        lines.append("Transfer-Encoding: chunked")
    elif request.method not in ("GET", "HEAD", "OPTIONS", "DELETE"):
        lines.append("Content-Length: 0")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def exchange(stream: Stream, request: Prepared, deadline: Deadline) -> Answer:
    """Sends, and gives the answer once its head is there."""
    try:
        head = write_head(request)
        if request.body is None or isinstance(request.body, bytes):
            await stream.write(head + (request.body or b""), deadline.left())
        else:
            await stream.write(head, deadline.left())
            await _write_chunks(stream, request.body, deadline)
        return await _read_head(stream, request.method, deadline)
    except BaseException:
        stream.close()
        raise


async def _write_chunks(stream: Stream, body: Iterable[bytes | str] | AsyncIterable[bytes | str], deadline: Deadline) -> None:
    if isinstance(body, AsyncIterable):
        async for piece in body:
            await _write_chunk(stream, piece, deadline)
    else:
        for piece in body:
            await _write_chunk(stream, piece, deadline)
    await stream.write(b"0\r\n\r\n", deadline.left())


async def _write_chunk(stream: Stream, piece: bytes | str, deadline: Deadline) -> None:
    if isinstance(piece, str):
        piece = piece.encode()
    if piece:
        await stream.write(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)), deadline.left())


async def _read_head(stream: Stream, method: str, deadline: Deadline) -> Answer:
    buffer = b""
    for _ in range(MAX_INTERIM):
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > MAX_HEAD_BYTES:
                raise Unanswered("the answer's head is too long")
            buffer += await _more(stream, deadline.left())
        head, buffer = buffer[:end], buffer[end + 4 :]
        answer = _parse_head(head, stream, method, deadline.secs)
        if answer.status >= 200:
            answer.begin(buffer)
            return answer
        if answer.status == 101:
            break
    raise Unanswered("the answer is not HTTP")


async def _more(stream: Stream, secs: float) -> bytes:
    piece = await stream.read(secs)
    if not piece:
        raise Unanswered("the connection ended")
    return piece


def _parse_head(head: bytes, stream: Stream, method: str, pause_secs: float) -> Answer:
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    headers = []
    for line in lines:
        header = _HEADER.fullmatch(line)
        if not header:
            raise Unanswered("the answer is not HTTP")
        headers.append((header[1].decode("latin-1"), header[2].decode("latin-1")))
    if not status:
        raise Unanswered("the answer is not HTTP")
    answer = Answer(stream, int(status[2]), (status[3] or b"").decode("latin-1"), Headers(headers), pause_secs)
    answer.frame(method, status[1] == b"1")
    return answer


class Answer:
    """An answer whose head is there."""

    def __init__(self, stream: Stream, status: int, reason: str, headers: Headers, pause_secs: float) -> None:
        self._stream, self._pause_secs = stream, pause_secs
        self._buffer = b""
        #: Bytes that are still to come; None: in chunks; -1: until the end of the connection.
        self._left: int | None = 0
        self._in_chunk = 0
        self._keep = False
        self._over = False
        self._decoder: Any = None
        self._peeked: list[bytes] = []
        self.status, self.reason, self.headers = status, reason, headers

    def only(self, name: str) -> str | None:
        """The only value of a header; None where there is none, or several."""
        values = self.headers.get_all(name)
        return values[0] if len(values) == 1 else None

    def frame(self, method: str, persistent: bool) -> None:
        """How long the body is."""
        lengths, codings = self.headers.get_all("content-length"), self.headers.get_all("transfer-encoding")
        options = {option.strip().lower() for value in self.headers.get_all("connection") for option in value.split(",")}
        self._keep = persistent and "close" not in options
        if method == "HEAD" or self.status in _NO_BODY or self.status < 200:
            self._left = 0
        elif codings:
            if [coding.lower() for coding in codings] != ["chunked"] or lengths:
                raise Unanswered("the answer is not HTTP")
            self._left = None
        elif lengths:
            if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
                raise Unanswered("the answer is not HTTP")
            self._left = int(lengths[0])
        else:
            self._left, self._keep = -1, False
        coding = ",".join(self.headers.get_all("content-encoding")).lower()
        if coding in ("gzip", "x-gzip", "deflate") and self._left != 0:
            self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def begin(self, rest: bytes) -> None:
        """What came behind the head."""
        self._buffer = rest
        if self._left == 0:
            self._finish()
        elif self._left is not None and self._left == len(rest) and self._decoder is None:
            self._peeked, self._buffer = [rest], b""
            self._left = 0
            self._finish()

    def _finish(self) -> None:
        if not self._over:
            self._over = True
            if self._keep and not self._buffer:
                self._stream.keep()
            else:
                self._stream.close()

    def drop(self) -> None:
        """Lets go of it."""
        self._decoder = None
        if not self._over:
            self._over = True
            self._stream.close()

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        if self._peeked:
            return self._peeked.pop(0)
        return await self._read()

    async def _read(self) -> bytes:
        while not self._over or self._is_packed():
            try:
                piece = await (self._decoded() if self._decoder is not None else self._raw())
            except (Unanswered, zlib.error):
                self.drop()
                raise Unanswered("the answer was cut or stood still") from None
            except BaseException:
                self.drop()
                raise
            if piece:
                return piece
        return b""

    async def _decoded(self) -> bytes:
        """The next piece of what was packed, never much at once however little it was packed into."""
        while self._is_packed():
            packed = self._decoder.unconsumed_tail or (b"" if self._over else await self._raw())
            piece: bytes = self._decoder.decompress(packed, READ_BYTES)
            if piece:
                return piece
            if not packed and self._is_packed():
                raise Unanswered("the answer was cut")
        # What stands behind it belongs to nothing.
        while not self._over and await self._raw():
            pass
        return b""

    def _is_packed(self) -> bool:
        return self._decoder is not None and not self._decoder.eof

    async def whole(self, limit: int) -> bytes | None:
        """All of the body, or None if it is longer than this."""
        length = sum(map(len, self._peeked))
        while length <= limit and (piece := await self._read()):
            self._peeked.append(piece)
            length += len(piece)
        return b"".join(self._peeked) if length <= limit else None

    async def _raw(self) -> bytes:
        if self._left is None:
            return await self._chunk()
        if self._left == 0:
            self._finish()
            return b""
        piece = self._buffer or await self._stream.read(self._pause_secs)
        self._buffer = b""
        if self._left < 0:
            if not piece:
                self._finish()
            return piece
        if not piece:
            raise Unanswered("the connection ended")
        piece, self._buffer = piece[: self._left], piece[self._left :]
        self._left -= len(piece)
        if self._left == 0:
            self._finish()
        return piece

    async def _chunk(self) -> bytes:
        if self._in_chunk == 0:
            size = re.fullmatch(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n]*)?", await self._line())
            if not size:
                raise Unanswered("the answer is not HTTP")
            self._in_chunk = int(size[1], 16)
            if self._in_chunk == 0:
                for _ in range(100):
                    if not await self._line():
                        break
                self._finish()
                return b""
        piece = self._buffer or await _more(self._stream, self._pause_secs)
        piece, self._buffer = piece[: self._in_chunk], piece[self._in_chunk :]
        self._in_chunk -= len(piece)
        if self._in_chunk == 0 and await self._line():
            raise Unanswered("the answer is not HTTP")
        return piece

    async def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_LINE_BYTES:
                raise Unanswered("the answer is not HTTP")
            self._buffer += await _more(self._stream, self._pause_secs)
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line


def cut() -> AgentError:
    return AgentError("OUTCOME_UNKNOWN", "the answer was cut off or stalled; the call was carried out, at least in part")
