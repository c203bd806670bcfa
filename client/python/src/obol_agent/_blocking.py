"""Waiting by blocking, for any number of threads.

The coroutines here never suspend, so ``run`` takes whatever awaits them to its end in one step. Each call to a daemon has a
connection of its own for its time, out of a few; HTTP connections are kept for the next call.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from ._deadline import LONGEST_PAUSE_SECS as LONGEST_WAIT_SECS
from ._deadline import Deadline
from ._endpoint import check_peer, may_pass, trusted_users, unreachable
from ._errors import MAY_PASS, AgentError, Lost, Unanswered, Unsent
from ._frames import Decoder, encode, hello, nonsense, result, welcomed
from ._http import Answer, Prepared, exchange
from ._url import Url

if TYPE_CHECKING:
    import ssl

    from ._core import Places

#: Connections to one daemon, so calls at once; more wait for one of them.
MAX_DAEMON_CONNECTIONS = 32
HELLO_SECS = 5.0
#: How long a daemon is waited for that this process was never connected to.
FIRST_PATIENCE_SECS = 1.0
FIRST_PAUSE_SECS = 0.02
LONGEST_PAUSE_SECS = 0.32
#: How long an HTTP connection is kept that nothing uses: less than servers keep theirs, for a call on one that ends is ambiguous.
IDLE_SECS = 4.0
MAX_IDLE = 64
READ_BYTES = 65_536

T = TypeVar("T")


def run(act: Coroutine[Any, Any, T]) -> T:
    """Runs what never suspends."""
    try:
        act.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    act.close()
    raise RuntimeError("a body of a blocking call awaits something; use AsyncAgent")


class _Link:
    """One connection to a daemon, for one request at a time."""

    def __init__(self, path: str, user: int | None, client: str, secs: float) -> None:
        trusted = trusted_users(path, user)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._decoder = Decoder()
        self._next = 1
        try:
            self._socket.settimeout(max(0.001, min(secs, HELLO_SECS)))
            self._socket.connect(path)
            check_peer(self._socket, path, trusted)
            self._socket.sendall(hello(client))
            welcomed(self._receive(time.monotonic() + min(secs, HELLO_SECS)))
        except BaseException:
            self.close()
            raise

    def _receive(self, end: float) -> dict[str, Any]:
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            piece = self._socket.recv(READ_BYTES)
            if not piece:
                raise ConnectionResetError
            messages = list(self._decoder.push(piece))
            if len(messages) > 1:
                raise nonsense()
            if messages:
                return messages[0]

    def call(self, method: str, params: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        identity, self._next = self._next, self._next + 1
        frame = encode({"jsonrpc": "2.0", "id": identity, "method": method, "params": params})
        left = deadline.left()
        self._socket.settimeout(max(0.001, left))
        self._socket.sendall(frame)
        message = self._receive(time.monotonic() + left)
        if message.get("id") != identity:
            raise nonsense()
        return message

    def close(self) -> None:
        self._socket.close()


class BlockingDaemon:
    def __init__(self, path: str, user: int | None, client: str, label: str) -> None:
        self.path, self._user, self._client, self._label = path, user, client, label
        self._known = self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._places = threading.Semaphore(MAX_DAEMON_CONNECTIONS)
        self._idle: list[_Link] = []

    async def call(self, method: str, params: dict[str, Any], deadline: Deadline, *, repeat: bool) -> dict[str, Any]:
        if self._pid != os.getpid():
            self._reset()  # A connection of the parent process is the parent's.
        if not self._places.acquire(timeout=deadline.left()):
            raise self._timed_out()
        try:
            while True:
                try:
                    return result(self._once(method, params, deadline))
                except Lost:
                    if not repeat:
                        raise
                    time.sleep(min(FIRST_PAUSE_SECS, deadline.left()))
        finally:
            self._places.release()

    def _once(self, method: str, params: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        link = self._connected(deadline)
        try:
            message = link.call(method, params, deadline)
        except (TimeoutError, AgentError) as error:
            link.close()
            raise self._timed_out() if isinstance(error, TimeoutError) else error from None
        except OSError:
            link.close()
            raise Lost from None
        except BaseException:
            link.close()
            raise
        self._idle.append(link)
        return message

    def _connected(self, deadline: Deadline) -> _Link:
        if self._closed:
            raise AgentError("CLOSED", "the agent was closed; make a new one")
        while self._idle:
            try:
                link = self._idle.pop()
            except IndexError:
                break  # Another thread took it.
            if not _is_readable(link._socket):
                return link
            link.close()
        began, pause = time.monotonic(), FIRST_PAUSE_SECS
        while True:
            try:
                link = _Link(self.path, self._user, self._client, deadline.left())
            except TimeoutError:
                raise self._timed_out() from None
            except OSError as error:
                patience = deadline.left() if self._known else FIRST_PATIENCE_SECS - (time.monotonic() - began)
                if not may_pass(error) or min(patience, deadline.left()) <= pause:
                    raise unreachable(error, self.path, self._label) from None
            else:
                self._known = True
                return link
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECS)

    def _timed_out(self) -> AgentError:
        return AgentError("TIMEOUT", f"{self._label} did not answer in time; check its log, or allow more with `timeout`")

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()


def _is_readable(sock: socket.socket) -> bool:
    """Whether the other end closed an idle connection, or says something unasked."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))


class _BlockingStream:
    def __init__(self, pool: BlockingConnections, key: tuple[str, str, int], sock: socket.socket) -> None:
        self._pool, self._key, self._socket = pool, key, sock
        self.kept_at = 0.0

    async def read(self, secs: float) -> bytes:
        return self._guarded(lambda: self._socket.recv(READ_BYTES), secs)

    async def write(self, data: bytes, secs: float) -> None:
        self._guarded(lambda: self._socket.sendall(data), secs)

    def _guarded(self, act: Callable[[], T], secs: float) -> T:
        if secs <= 0:
            raise Unanswered("the time was over", timed_out=True)
        try:
            self._socket.settimeout(secs)
            return act()
        except TimeoutError:
            raise Unanswered("the time was over", timed_out=True) from None
        except OSError as error:
            raise Unanswered(type(error).__name__) from None

    def close(self) -> None:
        self._socket.close()

    def keep(self) -> None:
        self.kept_at = time.monotonic()
        self._pool.put(self._key, self)

    def is_fresh(self) -> bool:
        return time.monotonic() - self.kept_at < IDLE_SECS and not _is_readable(self._socket)


class BlockingConnections:
    """HTTP connections, kept by origin for the next call."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._idle: dict[tuple[str, str, int], list[_BlockingStream]] = {}
        self._pid = os.getpid()

    def put(self, key: tuple[str, str, int], stream: _BlockingStream) -> None:
        idle = self._idle.setdefault(key, [])
        if len(idle) < MAX_IDLE and self._pid == os.getpid():
            idle.append(stream)
        else:
            stream.close()

    def take(self, url: Url, deadline: Deadline) -> _BlockingStream:
        if self._pid != os.getpid():
            self._pid, self._idle = os.getpid(), {}
        key = (url.scheme, url.host, url.port)
        idle = self._idle.get(key, [])
        while idle:
            try:
                stream = idle.pop()
            except IndexError:
                break  # Another thread took it.
            if stream.is_fresh():
                return stream
            stream.close()
        return _BlockingStream(self, key, self._connect(url, deadline))

    def _connect(self, url: Url, deadline: Deadline) -> socket.socket:
        host = url.host.strip("[]")
        # `localhost` is this machine, whatever a resolver says.
        hosts = ["127.0.0.1", "::1"] if host == "localhost" else [host]
        for place, name in enumerate(hosts):
            try:
                sock = socket.create_connection((name, url.port), timeout=max(0.001, deadline.left()))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self._secured(sock, host) if url.scheme == "https" else sock
            except (OSError, UnicodeError) as error:
                if deadline.left() <= 0:
                    raise late_connection() from None
                if place + 1 == len(hosts):
                    raise Unsent(connect_problem(error)) from None
        raise Unsent("no address")

    def _secured(self, sock: socket.socket, host: str) -> socket.socket:
        if self._tls is None:
            import ssl

            self._tls = ssl.create_default_context()
        try:
            return self._tls.wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        for idle in self._idle.values():
            while idle:
                idle.pop().close()


def late_connection() -> AgentError:
    return AgentError("TIMEOUT", "could not connect to the server in time; nothing was sent")


def connect_problem(error: Exception) -> str:
    return str(getattr(error, "verify_message", "") or getattr(error, "strerror", "") or type(error).__name__)


def had_less_time(error: BaseException | None, led: Deadline, own: Deadline) -> bool:
    """Whether who asked for all gave up where this caller need not."""
    return getattr(error, "code", None) in MAY_PASS and own.left() > led.left() + LONGEST_WAIT_SECS


class _Flight:
    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.over = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None


class BlockingIo:
    def __init__(self, places: Places, client: str, tls: ssl.SSLContext | None) -> None:
        self.sidecar = BlockingDaemon(places.agent, places.user, client, "the sidecar (`obol tqs`)")
        self.authenticator = BlockingDaemon(places.auth, places.user, client, "the authenticator (`obol authenticator`)")
        self._connections = BlockingConnections(tls)
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}

    async def send(self, request: Prepared, deadline: Deadline) -> Answer:
        return await exchange(self._connections.take(request.url, deadline), request, deadline)

    async def pause(self, secs: float, deadline: Deadline) -> None:
        time.sleep(min(secs, deadline.left()))

    async def shared(self, what: str, act: Callable[[Deadline], Awaitable[Any]], deadline: Deadline) -> Any:
        while True:
            with self._lock:
                flight = self._flights.get(what)
                leads = flight is None
                flight = flight or self._flights.setdefault(what, _Flight(deadline))
            if leads:
                return await self._lead(what, flight, act, deadline)
            if not flight.over.wait(deadline.left()):
                raise AgentError("TIMEOUT", f"{what}: not done in time; see `obol auth status`")
            if flight.error is None:
                return flight.value
            gave_up = getattr(flight.error, "code", None) in ("TIMEOUT", None) or had_less_time(flight.error, flight.deadline, deadline)
            if not gave_up or deadline.left() <= 0:
                raise _copied(flight.error)

    async def _lead(self, what: str, flight: _Flight, act: Callable[[Deadline], Awaitable[Any]], deadline: Deadline) -> Any:
        try:
            flight.value = await act(deadline)
            return flight.value
        except BaseException as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                self._flights.pop(what, None)
            flight.over.set()

    def close(self) -> None:
        self.sidecar.close()
        self.authenticator.close()
        self._connections.close()


def _copied(error: BaseException) -> BaseException:
    """Each thread raises one of its own."""
    return AgentError(error.code, error.message, error.details) if isinstance(error, AgentError) else error
