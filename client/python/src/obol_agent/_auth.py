"""``ObolAuth`` for httpx and requests: each request gets a token of its own, if it goes where one may go.

A token is taken off the request as soon as it was sent, so that a redirect that the library follows carries none.
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
from ._url import read_url

if TYPE_CHECKING or find_spec("httpx") is None:
    _Base = object
else:
    from httpx import Auth as _Base

_CARRIED = ("Authorization", "TBAC-PoP")


class ObolAuth(_Base):
    """``auth=ObolAuth(agent)`` of an httpx client or a requests session.

    ``tool`` and ``audience`` are needed where the session's routes leave a choice. Redirects that the library follows, and anything else
    that it sends again by itself, go without a token; ``fetch`` has rules for these.
    """

    requires_request_body = True
    requires_response_body = False

    def __init__(self, agent: Agent | AsyncAgent, *, tool: str | None = None, audience: str | None = None) -> None:
        self._agent, self._tool, self._audience = agent, tool, audience

    def __call__(self, request: Any) -> Any:
        """As requests calls it."""
        body = request.body
        plain = body.encode() if isinstance(body, str) else body
        destination = run(self._authorize(request, plain))

        def answered(response: Any, *_: Any, **__: Any) -> None:
            _take_off(response.request.headers)
            run(self._look_at(response, destination))

        request.register_hook("response", answered)
        return request

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """As httpx calls it."""
        if isinstance(self._agent, AsyncAgent):
            raise wrong("ObolAuth: an httpx.Client takes an Agent, an httpx.AsyncClient an AsyncAgent")
        destination = run(self._authorize(request, request.read() or None))
        trace = request.extensions.get("trace")

        def sent(event: str, info: Any) -> None:
            if event.endswith("send_request_headers.complete"):
                _take_off(request.headers)
            if trace:
                trace(event, info)

        request.extensions = {**request.extensions, "trace": sent}
        response = yield request
        run(self._look_at(response, destination))

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """As httpx.AsyncClient calls it."""
        if isinstance(self._agent, Agent):
            raise wrong("ObolAuth: an httpx.Client takes an Agent, an httpx.AsyncClient an AsyncAgent")
        destination = await self._authorize(request, await request.aread() or None)
        trace = request.extensions.get("trace")

        async def sent(event: str, info: Any) -> None:
            if event.endswith("send_request_headers.complete"):
                _take_off(request.headers)
            if trace:
                await trace(event, info)

        request.extensions = {**request.extensions, "trace": sent}
        response = yield request
        await self._look_at(response, destination)

    async def _authorize(self, request: Any, body: Any) -> Destination:
        core = self._agent._core
        deadline = core.deadline(None)
        url = read_url(str(request.url))
        destination = await core.destination(Wanted(request.method.upper(), url, self._tool, self._audience), deadline)
        if destination.send != url:
            raise wrong("ObolAuth: this destination is behind a gateway; use fetch")
        if destination.sealed:
            raise _sealed(destination.tool)
        pop_for = arguments_hash(body) if body is None or isinstance(body, bytes) else None
        token = await core.draw(destination.tool, destination.audience, pop_for, deadline, cannot_seal=_sealed)
        request.headers["Authorization"] = token.authorization()
        if token.proof:
            request.headers["TBAC-PoP"] = token.proof
        return destination

    async def _look_at(self, response: Any, destination: Destination) -> None:
        """Has it told where somebody else spent the token; the answer is given all the same."""
        if response.status_code == 401 and challenge(response.headers.get("WWW-Authenticate")) == STOLEN:
            await self._agent._core.tell_stolen(destination.tool, destination.audience)


def _take_off(headers: Any) -> None:
    for name in _CARRIED:
        headers.pop(name, None)


def _sealed(tool: str) -> AgentError:
    return AgentError("CHANNEL_UNSUPPORTED", f"{tool} takes sealed bodies, which this library's requests cannot be; use fetch")
