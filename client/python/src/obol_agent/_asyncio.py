"""Waiting with asyncio: one connection to each daemon, requests one behind the other without waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ._blocking import (
    FIRST_PATIENCE_SECS,
    FIRST_PAUSE_SECS,
    HELLO_SECS,
    IDLE_SECS,
    LONGEST_PAUSE_SECS,
    MAX_IDLE,
    connect_problem,
    had_less_time,
    late_connection,
)
from ._deadline import Deadline
from ._endpoint import check_peer, may_pass, trusted_users, unreachable
from ._errors import AgentError, Lost, Unanswered, Unsent
from ._frames import Decoder, encode, hello, result, welcomed
from ._http import Answer, Prepared, exchange
from ._url import Url

if TYPE_CHECKING:
    import socket
    import ssl

    from ._core import Places

#: Requests that wait for an answer on one connection; the daemon takes 128.
MAX_IN_FLIGHT = 100
MAX_BUFFER_BYTES = 1 << 20
#: HTTP connections of one agent; more calls wait for one of them.
MAX_CONNECTIONS = 256


async def _within(future: asyncio.Future[Any], secs: float) -> bool:
    """Whether it is done in time; it goes on if not."""
    if not future.done():
        await asyncio.wait({future}, timeout=secs)
    return future.done()


class _Link(asyncio.Protocol):
    """One connection to a daemon. Knows which requests wait for an answer."""

    def __init__(self) -> None:
        self.over = False
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._decoder = Decoder()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next = 1
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.push(data):
                self._take(message)
        except AgentError as error:
            self.end(error)

    def _take(self, message: dict[str, Any]) -> None:
        if not self.greeted.done():
            welcomed(message)
            self.greeted.set_result(None)
            return
        waiting = self._waiting.pop(message.get("id"), None)  # type: ignore[arg-type]
        if waiting and not waiting.done():
            waiting.set_result(message)

    def connection_lost(self, error: Exception | None) -> None:
        self.end(Lost())

    def end(self, error: Exception) -> None:
        if self.over:
            return
        self.over = True
        if self._transport:
            self._transport.close()
        everybody: list[asyncio.Future[Any]] = [self.greeted, *self._waiting.values()]
        for waiting in everybody:
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # Who waits for it hears of it.
        self._waiting.clear()

    def write(self, frame: bytes) -> None:
        assert self._transport is not None
        self._transport.write(frame)

    async def call(self, method: str, params: dict[str, Any], secs: float) -> dict[str, Any]:
        if self.over:
            raise Lost
        identity, self._next = self._next, self._next + 1
        frame = encode({"jsonrpc": "2.0", "id": identity, "method": method, "params": params})
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[identity] = answer
        self.write(frame)
        try:
            if not await _within(answer, secs):
                raise TimeoutError
            return answer.result()
        finally:
            self._waiting.pop(identity, None)
            answer.cancel()


class AsyncDaemon:
    def __init__(self, path: str, user: int | None, client: str, label: str) -> None:
        self.path, self._user, self._client, self._label = path, user, client, label
        self._known = self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def _at_home(self) -> None:
        """Connections belong to the event loop that they were made in."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._link = loop, None
            self._places, self._opening = asyncio.Semaphore(MAX_IN_FLIGHT), asyncio.Lock()

    _link: _Link | None = None

    async def call(self, method: str, params: dict[str, Any], deadline: Deadline, *, repeat: bool) -> dict[str, Any]:
        self._at_home()
        if self._places.locked():
            try:
                await asyncio.wait_for(self._places.acquire(), deadline.left())
            except (TimeoutError, asyncio.TimeoutError):
                raise self._timed_out() from None
        else:
            await self._places.acquire()
        try:
            while True:
                try:
                    link = await self._connected(deadline)
                    return result(await link.call(method, params, deadline.left()))
                except TimeoutError:
                    raise self._timed_out() from None
                except Lost:
                    if not repeat:
                        raise
                    await asyncio.sleep(min(FIRST_PAUSE_SECS, deadline.left()))
        finally:
            self._places.release()

    async def _connected(self, deadline: Deadline) -> _Link:
        if self._closed:
            raise AgentError("CLOSED", "the agent was closed; make a new one")
        if self._link and not self._link.over:
            return self._link
        began, pause = time.monotonic(), FIRST_PAUSE_SECS
        while True:
            try:
                async with self._opening:
                    if not self._link or self._link.over:
                        self._link = await self._open(deadline)
                    return self._link
            except TimeoutError:
                raise self._timed_out() from None
            except (OSError, Lost) as error:
                patience = deadline.left() if self._known else FIRST_PATIENCE_SECS - (time.monotonic() - began)
                passes = isinstance(error, Lost) or may_pass(error)
                if not passes or min(patience, deadline.left()) <= pause:
                    raise unreachable(error, self.path, self._label) from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECS)

    async def _open(self, deadline: Deadline) -> _Link:
        trusted = trusted_users(self.path, self._user)
        loop = asyncio.get_running_loop()
        transport, link = await loop.create_unix_connection(_Link, self.path)
        try:
            sock: socket.socket = transport.get_extra_info("socket")
            check_peer(sock, self.path, trusted)
            link.write(hello(self._client))
            if not await _within(link.greeted, min(HELLO_SECS, deadline.left())):
                raise TimeoutError
            link.greeted.result()
        except BaseException:
            transport.close()
            raise
        self._known = True
        return link

    def _timed_out(self) -> AgentError:
        return AgentError("TIMEOUT", f"{self._label} did not answer in time; check its log, or allow more with `timeout`")

    def close(self) -> None:
        self._closed = True
        if self._link:
            self._link.end(AgentError("CLOSED", "the agent was closed"))


class _AsyncStream(asyncio.Protocol):
    """A TCP connection. Stops receiving while too much waits to be read."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._over = False
        self._reader: asyncio.Future[None] | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        self._pool: tuple[AsyncConnections, tuple[str, str, int]] | None = None
        self._in_use = False
        self.kept_at = 0.0

    def used(self, pool: AsyncConnections, key: tuple[str, str, int]) -> _AsyncStream:
        """It has a place among those of the pool, until it is closed or kept."""
        self._pool, self._in_use = (pool, key), True
        return self

    def _leave(self) -> None:
        if self._pool and self._in_use:
            self._in_use = False
            self._pool[0].leave()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > MAX_BUFFER_BYTES:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._over = True
        self._drained.set()
        self._wake()

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def _wake(self) -> None:
        if self._reader and not self._reader.done():
            self._reader.set_result(None)

    async def read(self, secs: float) -> bytes:
        if not self._buffer and not self._over:
            self._reader = asyncio.get_running_loop().create_future()
            if secs <= 0 or not await _within(self._reader, secs):
                raise Unanswered("the time was over", timed_out=True)
        data = bytes(self._buffer)
        self._buffer.clear()
        if not self._over:
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes, secs: float) -> None:
        if self._over:
            raise Unanswered("the connection ended")
        self._transport.write(data)
        if not self._drained.is_set():
            try:
                await asyncio.wait_for(self._drained.wait(), secs)
            except (TimeoutError, asyncio.TimeoutError):
                raise Unanswered("the time was over", timed_out=True) from None

    def close(self) -> None:
        self._transport.abort()
        self._leave()

    def keep(self) -> None:
        self.kept_at = time.monotonic()
        if self._pool:
            self._pool[0].put(self._pool[1], self)
            self._leave()

    def is_fresh(self) -> bool:
        return time.monotonic() - self.kept_at < IDLE_SECS and not self._over and not self._buffer


class AsyncConnections:
    """HTTP connections, kept by origin for the next call in the same event loop."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._idle: dict[tuple[str, str, int], list[_AsyncStream]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def put(self, key: tuple[str, str, int], stream: _AsyncStream) -> None:
        idle = self._idle.setdefault(key, [])
        if len(idle) < MAX_IDLE:
            idle.append(stream)
        else:
            stream.close()

    async def take(self, url: Url, deadline: Deadline) -> _AsyncStream:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._idle, self._places = loop, {}, asyncio.Semaphore(MAX_CONNECTIONS)
        places = self._places
        if places.locked():
            try:
                await asyncio.wait_for(places.acquire(), deadline.left())
            except (TimeoutError, asyncio.TimeoutError):
                raise late_connection() from None
        else:
            await places.acquire()
        try:
            return await self._fresh(url, deadline)
        except BaseException:
            places.release()
            raise

    def leave(self) -> None:
        self._places.release()

    async def _fresh(self, url: Url, deadline: Deadline) -> _AsyncStream:
        key = (url.scheme, url.host, url.port)
        idle = self._idle.get(key, [])
        while idle:
            stream = idle.pop()
            if stream.is_fresh():
                return stream.used(self, key)
            stream.close()
        return (await self._connect(url, deadline)).used(self, key)

    async def _connect(self, url: Url, deadline: Deadline) -> _AsyncStream:
        host = url.host.strip("[]")
        tls = self._context() if url.scheme == "https" else None
        # `localhost` is this machine, whatever a resolver says.
        hosts = ["127.0.0.1", "::1"] if host == "localhost" else [host]
        for place, name in enumerate(hosts):
            loop = asyncio.get_running_loop()
            connecting = loop.create_connection(_AsyncStream, name, url.port, ssl=tls, server_hostname=host if tls else None)
            try:
                _, stream = await asyncio.wait_for(connecting, max(0.001, deadline.left()))
                return stream
            except (TimeoutError, asyncio.TimeoutError):
                raise late_connection() from None
            except (OSError, UnicodeError) as error:
                if place + 1 == len(hosts):
                    raise Unsent(connect_problem(error)) from None
        raise Unsent("no address")

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            import ssl

            self._tls = ssl.create_default_context()
        return self._tls

    def close(self) -> None:
        for idle in self._idle.values():
            while idle:
                idle.pop().close()


class AsyncIo:
    def __init__(self, places: Places, client: str, tls: ssl.SSLContext | None, timeout: float) -> None:
        self.sidecar = AsyncDaemon(places.agent, places.user, client, "the sidecar (`obol tqs`)")
        self.authenticator = AsyncDaemon(places.auth, places.user, client, "the authenticator (`obol authenticator`)")
        self._connections = AsyncConnections(tls)
        self._timeout = timeout
        self._flights: dict[tuple[str, asyncio.AbstractEventLoop], tuple[asyncio.Future[Any], Deadline]] = {}

    async def send(self, request: Prepared, deadline: Deadline) -> Answer:
        return await exchange(await self._connections.take(request.url, deadline), request, deadline)

    async def pause(self, secs: float, deadline: Deadline) -> None:
        await asyncio.sleep(min(secs, deadline.left()))

    async def shared(self, what: str, act: Callable[[Deadline], Awaitable[Any]], deadline: Deadline) -> Any:
        key = (what, asyncio.get_running_loop())
        while True:
            flight, own = self._flights.get(key) or self._leave_ground(key, act, deadline)
            # It goes on for those who are still there when one gives up.
            if not await _within(flight, deadline.left()):
                raise AgentError("TIMEOUT", f"{what}: not done in time; see `obol auth status`")
            error = flight.exception()
            # Who led may have had less time than this caller.
            if had_less_time(error, own, deadline):
                self._landed(key, flight)
                continue
            if isinstance(error, AgentError):
                raise AgentError(error.code, error.message, error.details)
            return flight.result()

    def _leave_ground(
        self, key: tuple[str, asyncio.AbstractEventLoop], act: Callable[[Deadline], Awaitable[Any]], deadline: Deadline
    ) -> tuple[asyncio.Future[Any], Deadline]:
        own = Deadline(max(deadline.left(), self._timeout))
        flight = asyncio.ensure_future(act(own))
        flight.add_done_callback(lambda over: self._landed(key, over))
        self._flights[key] = flight, own
        return flight, own

    def _landed(self, key: tuple[str, asyncio.AbstractEventLoop], flight: asyncio.Future[Any]) -> None:
        if self._flights.get(key, (None,))[0] is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # Who waits for it hears of it; nobody may be left.

    def close(self) -> None:
        self.sidecar.close()
        self.authenticator.close()
        self._connections.close()
