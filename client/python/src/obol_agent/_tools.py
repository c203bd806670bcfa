"""A decorator for functions that are tools: each call gets a token of its own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from ._agent import Agent, AsyncAgent

F = TypeVar("F", bound=Callable[..., Any])


def tool(agent: Agent | AsyncAgent, name: str | None = None, **options: Any) -> Callable[[F], F]:
    """Gives each call of a function a fresh token as the argument ``token``; it is unusable after the call.

    The tool is called as the function if it has no other ``name``; ``options`` are those of ``dequeue_token``. A coroutine function
    takes an ``AsyncAgent``, any other an ``Agent``.
    """

    def decorate(function: F) -> F:
        tool_name = name or function.__name__
        if inspect.iscoroutinefunction(function) != isinstance(agent, AsyncAgent):
            raise TypeError("a coroutine function takes an AsyncAgent, any other function an Agent")
        if isinstance(agent, AsyncAgent):

            @functools.wraps(function)
            async def call(*args: Any, **kwargs: Any) -> Any:
                async with agent.token(tool_name, **options) as token:
                    return await function(*args, token=token, **kwargs)
        else:

            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                with agent.token(tool_name, **options) as token:
                    return function(*args, token=token, **kwargs)

        return _without_token(call, function)  # type: ignore[return-value]

    return decorate


def _without_token(call: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Whoever makes a schema from the signature must not see the token."""
    signature = inspect.signature(function)
    seen = [parameter for parameter in signature.parameters.values() if parameter.name != "token"]
    call.__signature__ = signature.replace(parameters=seen)  # type: ignore[attr-defined]
    call.__annotations__ = {who: kind for who, kind in function.__annotations__.items() if who != "token"}
    return call
