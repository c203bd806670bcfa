"""``ObolAuth`` for httpx and requests: each request gets a token of its own, if it goes where one may go.

A token is given out for one sending. httpx copies the headers when it sends, so there it is taken off the request at that moment.
requests hands them to whatever sends, and sends again what it is told to; there the header is a text that shows nothing of the
token and gives it out once, to whoever writes it to a connection. So a redirect that the library follows carries none, and no error
that holds the request shows one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ._agent import Agent, AsyncAgent
from ._blocking import run
from ._call import STOLEN, challenge
from ._canonical import arguments_hash
from ._destination import Destination, Wanted
from ._errors import AgentError, wrong
from ._token import Token
from ._url import read_url

if TYPE_CHECKING or find_spec("httpx") is None:
    _Base = object
else:
    from httpx import Auth as _Base

_CARRIED = ("Authorization", "TBAC-PoP")
#: What httpx's transports say just before they write a request, from headers of their own.
_SENDING = "send_request_headers.started"


class ObolAuth(_Base):
    """``auth=ObolAuth(agent)`` of an httpx client or a requests session.

    ``tool`` and ``audience`` are needed where the session's routes leave a choice. Redirects that the library follows go without a
    token. Where requests is told to send again by itself, that is ``OUTCOME_UNKNOWN``; ``fetch`` has rules for what may be.
    """

    requires_request_body = True
    requires_response_body = False

    def __init__(self, agent: Agent | AsyncAgent, *, tool: str | None = None, audience: str | None = None) -> None:
        self._agent, self._tool, self._audience = agent, tool, audience

    def __call__(self, request: Any) -> Any:
        """As requests calls it."""
        body = request.body
        plain = body.encode() if isinstance(body, str) else body
        destination, token = run(self._draw(request, plain))
        once = _Once(token.authorization())
        request.headers["Authorization"] = once
        if token.proof:
            request.headers["TBAC-PoP"] = _Once(token.proof)

        def answered(response: Any, *_: Any, **__: Any) -> None:
            carried = response.request.headers.get("Authorization") is once
            _take_off(response.request.headers)
            if carried:
                run(self._look_at(response, destination))

        request.register_hook("response", answered)
        return request

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """As httpx calls it."""
        if isinstance(self._agent, AsyncAgent):
            raise wrong("ObolAuth: an httpx.Client takes an Agent, an httpx.AsyncClient an AsyncAgent")
        destination, token = run(self._draw(request, request.read() or None))
        _put_on(request.headers, token)
        trace = request.extensions.get("trace")

        def sending(event: str, info: Any) -> None:
            if event.endswith(_SENDING):
                _take_off(request.headers)
            if trace:
                trace(event, info)

        request.extensions = {**request.extensions, "trace": sending}
        try:
            response = yield request
        finally:
            _take_off(request.headers)
        if not response.history:
            run(self._look_at(response, destination))

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """As httpx.AsyncClient calls it."""
        if isinstance(self._agent, Agent):
            raise wrong("ObolAuth: an httpx.Client takes an Agent, an httpx.AsyncClient an AsyncAgent")
        destination, token = await self._draw(request, await request.aread() or None)
        _put_on(request.headers, token)
        trace = request.extensions.get("trace")

        async def sending(event: str, info: Any) -> None:
            if event.endswith(_SENDING):
                _take_off(request.headers)
            if trace:
                await trace(event, info)

        request.extensions = {**request.extensions, "trace": sending}
        try:
            response = yield request
        finally:
            _take_off(request.headers)
        if not response.history:
            await self._look_at(response, destination)

    async def _draw(self, request: Any, body: Any) -> tuple[Destination, Token]:
        core = self._agent._core
        deadline = core.deadline(None)
        url = read_url(str(request.url))
        destination = await core.destination(Wanted(request.method.upper(), url, self._tool, self._audience), deadline)
        if destination.send != url:
            raise wrong("ObolAuth: this destination is behind a gateway; use fetch")
        if destination.sealed:
            raise _sealed(destination.tool)
        pop_for = arguments_hash(body) if body is None or isinstance(body, bytes) else None
        return destination, await core.draw(destination.tool, destination.audience, pop_for, deadline, cannot_seal=_sealed)

    async def _look_at(self, response: Any, destination: Destination) -> None:
        """Has it told where somebody else spent the token; the answer is given all the same."""
        if response.status_code == 401 and challenge(response.headers.get("WWW-Authenticate")) == STOLEN:
            await self._agent._core.tell_stolen(destination.tool, destination.audience)


class _Once(str):
    """The value of a header, as ``http.client`` takes it: encoded where it is written, once. To everybody else it is the text ``redacted``."""

    __slots__ = ("_left",)
    _left: list[str]

    def __new__(cls, value: str) -> _Once:
        once = super().__new__(cls, "redacted")
        once._left = [value]
        return once

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        try:
            return self._left.pop().encode(encoding, errors)
        except IndexError:
            raise _sent_again() from None

    def __reduce__(self) -> tuple[Any, ...]:
        return (str, (str(self),))  # A copy that is written down has nothing to give out.


def _put_on(headers: Any, token: Token) -> None:
    headers["Authorization"] = token.authorization()
    if token.proof:
        headers["TBAC-PoP"] = token.proof


def _take_off(headers: Any) -> None:
    for name in _CARRIED:
        headers.pop(name, None)


def _sealed(tool: str) -> AgentError:
    return AgentError("CHANNEL_UNSUPPORTED", f"{tool} takes sealed bodies, which this library's requests cannot be; use fetch")


def _sent_again() -> AgentError:
    return AgentError(
        "OUTCOME_UNKNOWN",
        "requests was about to send again what may have been carried out, with a token that is spent; nothing more was sent. "
        "Give the adapter max_retries=0 and look whether it was, or use fetch, which repeats what may be with a fresh token",
    )
