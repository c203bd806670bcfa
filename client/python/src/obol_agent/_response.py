"""What a call is answered. The body comes as it comes, or all at once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from ._call import Done
from ._errors import Unanswered, wrong
from ._http import cut

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

MAX_WHOLE_BYTES = 1 << 30


class _Head:
    """Status and headers; how far the body was read."""

    def __init__(self, done: Done) -> None:
        self.status, self.reason, self.headers = done.answer.status, done.answer.reason, done.headers
        self.url, self.redirected = done.url, done.redirected
        self._answer = done.answer
        self._whole = done.plain

    @property
    def status_code(self) -> int:
        return self.status

    @property
    def ok(self) -> bool:
        return 200 <= self.status <= 299

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self.status}]>"

    async def _next(self) -> bytes:
        try:
            return await self._answer.read()
        except Unanswered:
            raise cut() from None

    async def _all(self) -> bytes:
        if self._whole is None:
            try:
                whole = await self._answer.whole(MAX_WHOLE_BYTES)
            except Unanswered:
                raise cut() from None
            if whole is None:
                self._answer.drop()
                raise wrong(f"the answer is longer than {MAX_WHOLE_BYTES} bytes; read it with iter_bytes")
            self._whole = whole
        return self._whole

    def _decoded(self, body: bytes) -> str:
        _, _, charset = self.headers.get("content-type", "").lower().partition("charset=")
        try:
            return body.decode(charset.split(";")[0].strip().strip('"') or "utf-8", "replace")
        except LookupError:
            return body.decode("utf-8", "replace")


class Response(_Head):
    """The answer to a blocking call."""

    def read(self) -> bytes:
        from ._blocking import run

        return run(self._all())

    @property
    def content(self) -> bytes:
        return self.read()

    @property
    def text(self) -> str:
        return self._decoded(self.read())

    def json(self) -> Any:
        return json.loads(self.read())

    def iter_bytes(self) -> Iterator[bytes]:
        """The body in pieces, as they come."""
        from ._blocking import run

        if self._whole is not None:
            yield self._whole
            return
        while piece := run(self._next()):
            yield piece

    def close(self) -> None:
        self._answer.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncResponse(_Head):
    """The answer to a call with asyncio."""

    async def read(self) -> bytes:
        return await self._all()

    async def text(self) -> str:
        return self._decoded(await self._all())

    async def json(self) -> Any:
        return json.loads(await self._all())

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """The body in pieces, as they come."""
        if self._whole is not None:
            yield self._whole
            return
        while piece := await self._next():
            yield piece

    def close(self) -> None:
        self._answer.drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
