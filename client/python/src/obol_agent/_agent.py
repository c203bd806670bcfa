"""``Agent`` and ``AsyncAgent``: what a program holds. No key is in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ._approval import WAIT_SECS, ApprovalLike, ApprovalPrompt, ApprovalRequest, Approved, ApprovedCall, read_approval_id
from ._blocking import BlockingIo, run
from ._canonical import arguments_hash
from ._core import CLIENT, DEFAULT_TIMEOUT_SECS, Core, Places
from ._errors import wrong
from ._register import Prompt, Registering
from ._request import HeadersLike, Pairs, Redirect, read_request
from ._response import AsyncResponse, Response
from ._token import Token

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from typing_extensions import Self


class Registration(NamedTuple):
    agent_id: str
    #: When a human has to approve again, in ISO 8601, where that is known.
    expires_at: str | None


class SessionInfo(NamedTuple):
    session_id: str
    agent_instance_id: str
    established_at: str
    algorithm_suite: int
    expires_at: str
    approval_expires_at: str | None = None


class TokenStatus(NamedTuple):
    queue_depth: int
    #: Seconds.
    ttl: int
    session_active: bool
    renewal_pending: bool
    retry_after_ms: int | None = None
    #: The depth for each tool, where all were asked for.
    tools: Mapping[str, int] | None = None
    #: Whether bodies of the tool that was asked about are sealed.
    sealed: bool = False


def _session(answer: dict[str, Any]) -> SessionInfo:
    names = ("sessionId", "agentInstanceId", "establishedAt", "algorithmSuite", "expiresAt", "approvalExpiresAt")
    return SessionInfo(*(answer.get(name) for name in names))  # type: ignore[arg-type]


def _status(answer: dict[str, Any]) -> TokenStatus:
    names = ("queueDepth", "ttl", "sessionActive", "renewalPending", "retryAfterMs", "tools")
    status = TokenStatus(*(answer.get(name) for name in names))  # type: ignore[arg-type]
    return status._replace(sealed=answer.get("sealed") is True)


def _registration(answer: dict[str, Any]) -> Registration:
    return Registration(answer["agentId"], answer.get("approvalExpiresAt"))


def _pop_for(arguments: Any, pop_for: str | None) -> str | None:
    if arguments is None:
        return pop_for
    import json

    found = arguments_hash(json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode())
    if found is None:
        raise wrong("arguments: an object without numbers beyond 2^53; send such numbers as text")
    return found


class Agent:
    """Calls APIs with single-use tokens, blocking. One for a process is enough; threads may share it."""

    def __init__(
        self, *, socket: str | None = None, auth_socket: str | None = None, user: str | int | None = None,
        routes: Sequence[Mapping[str, Any]] | None = None, timeout: float = DEFAULT_TIMEOUT_SECS, client: str = CLIENT,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._io = BlockingIo(Places(socket, auth_socket, user), client, tls)
        self._core = Core(self._io, routes, timeout)

    def register(
        self, *, name: str | None = None, agent_class: str | None = None, roles: Sequence[str] | None = None,
        tools: Sequence[str] | None = None, ticket: str | None = None, on_prompt: Callable[[Prompt], None] | None = None,
        wait: bool = True, timeout: float | None = None,
    ) -> Registration:
        """Asks to be registered, and waits until a human decided. An active identity returns at once."""
        registering = Registering(
            name=name, agent_class=agent_class, roles=roles, tools=tools, ticket=ticket, on_prompt=on_prompt, wait=wait
        )
        return _registration(run(self._core.register(registering, timeout)))

    def authenticate(self, *, timeout: float | None = None) -> SessionInfo:
        """Opens a new session."""
        return _session(run(self._core.authenticate(self._core.deadline(timeout))))

    def ensure_authenticated(self, *, timeout: float | None = None, **registering: Any) -> SessionInfo:
        """The session there is, or a new one; registers the agent, with the arguments of ``register``, where it is not registered."""
        return _session(run(self._core.ensure_authenticated(Registering(**registering), timeout)))

    def dequeue_token(
        self, tool: str, *, audience: str | None = None, arguments: Mapping[str, Any] | None = None, pop_for: str | None = None,
        approval_id: str | None = None, timeout: float | None = None,
    ) -> Token:
        """One token, for who sends it by themselves."""
        deadline = self._core.deadline(timeout)
        approval_id = read_approval_id(approval_id)
        drawing = self._core.draw(tool, audience, _pop_for(arguments, pop_for), deadline, alone=True, approval_id=approval_id)
        return run(drawing)

    def request_approval(
        self, calls: Sequence[ApprovedCall], *, purpose: str | None = None, lifetime: float | None = None, count: int | None = None,
        timeout: float = WAIT_SECS, on_prompt: Callable[[ApprovalPrompt], None] | None = None,
    ) -> Approved:
        """Asks a human for one yes to several calls, and waits, for ``timeout`` seconds at most.

        ``lifetime``: for how many seconds after the yes they may be made; five minutes if left out, which is the longest. ``count``: how
        often each call may be made that does not say so itself. ``on_prompt`` as for ``Approval``.
        """
        request = ApprovalRequest(calls, purpose=purpose, lifetime=lifetime, count=count, wait=timeout, on_prompt=on_prompt)
        return run(self._core.request_approval(request, self._core.deadline(None)))

    @contextmanager
    def token(self, tool: str, **options: Any) -> Iterator[Token]:
        """A token for the length of a ``with``; it is unusable after it."""
        token = self.dequeue_token(tool, **options)
        try:
            yield token
        finally:
            token.forget()

    def token_status(self, tool: str | None = None, *, timeout: float | None = None) -> TokenStatus:
        return _status(run(self._core.token_status(tool, self._core.deadline(timeout))))

    def session_info(self, *, timeout: float | None = None) -> SessionInfo:
        return _session(run(self._core.session_info(self._core.deadline(timeout))))

    def fetch(
        self, url: Any, *, method: str = "GET", params: Pairs | None = None, headers: HeadersLike | None = None, body: Any = None,
        json: Any = None, data: Pairs | None = None,
        tool: str | None = None, audience: str | None = None, idempotency_key: str | None = None, redirect: Redirect = "follow",
        approval: ApprovalLike = "never", approval_id: str | None = None, timeout: float | None = None,
    ) -> Response:
        """Sends a request with a token.

        ``params`` goes behind the URL's query. The body is ``json``, ``data`` as a form, or ``body`` as it is: bytes, text, or something to
        iterate over, which is sent once. ``approval`` says whether a human is asked where the call takes a yes; ``approval_id`` names a
        yes from before.
        """
        request = read_request(
            url, method, params=params, headers=headers, body=body, json=json, data=data, tool=tool, audience=audience, idempotency_key=idempotency_key,
            redirect=redirect, approval=approval, approval_id=approval_id,
        )
        return Response(run(self._core.fetch(request, self._core.deadline(timeout))))

    def close(self) -> None:
        """Ends its connections."""
        self._io.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Agent({self._io.sidecar.path!r})"


class AsyncAgent:
    """The same with asyncio. One for an event loop is enough."""

    def __init__(
        self, *, socket: str | None = None, auth_socket: str | None = None, user: str | int | None = None,
        routes: Sequence[Mapping[str, Any]] | None = None, timeout: float = DEFAULT_TIMEOUT_SECS, client: str = CLIENT,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        from ._asyncio import AsyncIo

        self._io = AsyncIo(Places(socket, auth_socket, user), client, tls, timeout)
        self._core = Core(self._io, routes, timeout)

    async def register(
        self, *, name: str | None = None, agent_class: str | None = None, roles: Sequence[str] | None = None,
        tools: Sequence[str] | None = None, ticket: str | None = None, on_prompt: Callable[[Prompt], None] | None = None,
        wait: bool = True, timeout: float | None = None,
    ) -> Registration:
        """Asks to be registered, and waits until a human decided. An active identity returns at once."""
        registering = Registering(
            name=name, agent_class=agent_class, roles=roles, tools=tools, ticket=ticket, on_prompt=on_prompt, wait=wait
        )
        return _registration(await self._core.register(registering, timeout))

    async def authenticate(self, *, timeout: float | None = None) -> SessionInfo:
        """Opens a new session."""
        return _session(await self._core.authenticate(self._core.deadline(timeout)))

    async def ensure_authenticated(self, *, timeout: float | None = None, **registering: Any) -> SessionInfo:
        """The session there is, or a new one; registers the agent, with the arguments of ``register``, where it is not registered."""
        return _session(await self._core.ensure_authenticated(Registering(**registering), timeout))

    async def dequeue_token(
        self, tool: str, *, audience: str | None = None, arguments: Mapping[str, Any] | None = None, pop_for: str | None = None,
        approval_id: str | None = None, timeout: float | None = None,
    ) -> Token:
        """One token, for who sends it by themselves."""
        deadline = self._core.deadline(timeout)
        approval_id = read_approval_id(approval_id)
        return await self._core.draw(tool, audience, _pop_for(arguments, pop_for), deadline, alone=True, approval_id=approval_id)

    async def request_approval(
        self, calls: Sequence[ApprovedCall], *, purpose: str | None = None, lifetime: float | None = None, count: int | None = None,
        timeout: float = WAIT_SECS, on_prompt: Callable[[ApprovalPrompt], None] | None = None,
    ) -> Approved:
        """Asks a human for one yes to several calls, and waits, for ``timeout`` seconds at most.

        ``lifetime``: for how many seconds after the yes they may be made; five minutes if left out, which is the longest. ``count``: how
        often each call may be made that does not say so itself. ``on_prompt`` as for ``Approval``.
        """
        request = ApprovalRequest(calls, purpose=purpose, lifetime=lifetime, count=count, wait=timeout, on_prompt=on_prompt)
        return await self._core.request_approval(request, self._core.deadline(None))

    @asynccontextmanager
    async def token(self, tool: str, **options: Any) -> AsyncIterator[Token]:
        """A token for the length of an ``async with``; it is unusable after it."""
        token = await self.dequeue_token(tool, **options)
        try:
            yield token
        finally:
            token.forget()

    async def token_status(self, tool: str | None = None, *, timeout: float | None = None) -> TokenStatus:
        return _status(await self._core.token_status(tool, self._core.deadline(timeout)))

    async def session_info(self, *, timeout: float | None = None) -> SessionInfo:
        return _session(await self._core.session_info(self._core.deadline(timeout)))

    async def fetch(
        self, url: Any, *, method: str = "GET", params: Pairs | None = None, headers: HeadersLike | None = None, body: Any = None,
        json: Any = None, data: Pairs | None = None,
        tool: str | None = None, audience: str | None = None, idempotency_key: str | None = None, redirect: Redirect = "follow",
        approval: ApprovalLike = "never", approval_id: str | None = None, timeout: float | None = None,
    ) -> AsyncResponse:
        """Sends a request with a token.

        ``params`` goes behind the URL's query. The body is ``json``, ``data`` as a form, or ``body`` as it is: bytes, text, or something to
        iterate over, which is sent once. ``approval`` says whether a human is asked where the call takes a yes; ``approval_id`` names a
        yes from before.
        """
        request = read_request(
            url, method, params=params, headers=headers, body=body, json=json, data=data, tool=tool, audience=audience, idempotency_key=idempotency_key,
            redirect=redirect, approval=approval, approval_id=approval_id,
        )
        return AsyncResponse(await self._core.fetch(request, self._core.deadline(timeout)))

    async def close(self) -> None:
        """Ends its connections."""
        self._io.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncAgent({self._io.sidecar.path!r})"
