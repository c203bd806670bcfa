"""Where a request may go with a token, and with which: the routes of the session decide, and nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ._errors import AgentError, wrong
from ._url import Url, read_url

MAX_ROUTES = 100_000


class Route(NamedTuple):
    audience: str
    tools: tuple[str, ...]
    origin: str
    prefix: list[str]
    method: str | None
    pattern: list[str] | None
    via: Url | None
    sealed: bool


class Destination(NamedTuple):
    audience: str
    tool: str
    #: Where the request goes: the URL, or that of its gateway.
    send: Url
    #: The session says that this tool's bodies are sealed.
    sealed: bool


class Wanted(NamedTuple):
    method: str
    url: Url
    tool: str | None = None
    audience: str | None = None


def _segments(path: str) -> list[str]:
    return path.split("/")[1:]


def _read_base(text: str) -> Url:
    url = read_url(text)
    if url.query:
        raise wrong("the URL of a route has no query")
    return url


def _read_route(route: Any) -> Route:
    def optional(name: str) -> str | None:
        value = route.get(name)
        if value is not None and not (isinstance(value, str) and value):
            raise wrong(f"a route's {name} is text")
        return value

    tools = route.get("tools") if isinstance(route, dict) else None
    if not isinstance(tools, (list, tuple)) or not tools or not all(isinstance(tool, str) and tool for tool in tools):
        raise wrong("a route has an `audience`, `tools`, and maybe `url`, `method`, `path` and `via`")
    audience = optional("audience")
    if audience is None:
        raise wrong("a route has an `audience`")
    base, path, via = _read_base(optional("url") or audience), optional("path"), optional("via")
    prefix = _segments(base.path)
    if prefix[-1] == "":
        prefix.pop()
    pattern = _segments(read_url(f"https://pattern/{path.removeprefix('/')}").path) if path else None
    return Route(audience, tuple(tools), base.origin, prefix, optional("method"), pattern, _read_base(via) if via else None,
                 route.get("sealed") is True)


def read_routes(routes: Any, strict: bool) -> list[Route]:
    """Those that name destinations. Of the session's, one whose audience is not a URL names none; of an argument, that is an error."""
    if not isinstance(routes, (list, tuple)) or len(routes) > MAX_ROUTES:
        raise wrong(f"routes: a list of at most {MAX_ROUTES}")
    found = []
    for route in routes:
        try:
            found.append(_read_route(route))
        except AgentError:
            named = not isinstance(route, dict) or route.get("url") or not isinstance(route.get("audience"), str)
            if strict and (named or route["audience"].lower().startswith(("http:", "https:"))):
                raise
    return found


def matches(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    """Whether segments match a pattern: ``*`` is one that is not empty, ``**`` any number."""

    def skip(places: set[int]) -> set[int]:
        for place in sorted(places):
            while place < len(pattern) and pattern[place] == "**":
                place += 1
                places.add(place)
        return places

    reached = skip({0})
    for segment in segments:
        after = set()
        for place in reached:
            part = pattern[place] if place < len(pattern) else None
            if part == "**":
                after.add(place)
            elif part == segment if part != "*" else segment != "":
                after.add(place + 1)
        reached = skip(after)
    return len(pattern) in reached


def _candidates(routes: Sequence[Route], method: str, url: Url) -> list[Route]:
    origin, segments = url.origin, _segments(url.path)
    found = [
        route
        for route in routes
        if route.origin == origin
        and segments[: len(route.prefix)] == route.prefix
        and route.method in (None, method)
        and (route.pattern is None or matches(route.pattern, segments))
    ]
    longest = max((len(route.prefix) for route in found), default=0)
    found = [route for route in found if len(route.prefix) == longest]
    return [route for route in found if route.pattern] or found


def find_destination(routes: Sequence[Route], wanted: Wanted) -> Destination | None:
    """Where the request goes, or None where nothing matches."""
    pairs: dict[tuple[str, str], Route] = {}
    for route in _candidates(routes, wanted.method, wanted.url):
        if wanted.audience in (None, route.audience):
            for name in route.tools:
                if wanted.tool in (None, name):
                    pairs.setdefault((route.audience, name), route)
    if not pairs:
        return None
    if len(pairs) > 1:
        names = ", ".join(f"{tool} ({audience})" for audience, tool in list(pairs)[:10])
        raise AgentError("TOOL_REQUIRED", f"several tools are granted there; name one with `tool`: {names}")
    ((audience, tool), route), = pairs.items()
    return Destination(audience, tool, _gated(wanted.url, route.via), route.sealed)


def _gated(url: Url, via: Url | None) -> Url:
    return via._replace(path=via.path.removesuffix("/") + url.path, query=url.query) if via else url


def unknown_destination(url: Url) -> AgentError:
    return AgentError(
        "UNKNOWN_DESTINATION",
        f"no token goes to {url.origin}: the session names no such destination, or not for this path, method and tool; "
        "ask for a grant, or name it with `routes` if the session was made by hand",
    )
