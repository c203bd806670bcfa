"""What a caller asks for, as plain values."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from ._approval import Approval, read_approval, read_approval_id
from ._errors import wrong
from ._http import Body

_NOT_THE_CALLERS = re.compile(
    r"authorization|tbac-pop|host|connection|content-length|expect|idempotency-key|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade"
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_METHOD = re.compile(r"[A-Z]{1,20}")

Redirect = Literal["follow", "manual", "error"]
HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]]
#: Of a query or a form; several values of one name as a list.
Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]


class Request(NamedTuple):
    url: str
    method: str
    headers: list[tuple[str, str]]
    body: Body
    redirect: Redirect
    idempotent: bool
    tool: str | None
    audience: str | None
    #: How a human is asked, where the call takes a yes.
    approval: Approval | None
    #: A yes from before.
    approval_id: str | None

    def __repr__(self) -> str:
        return f"Request({self.method})"

    @property
    def stream(self) -> bool:
        return self.body is not None and not isinstance(self.body, bytes)


def _read_headers(given: HeadersLike | None) -> list[tuple[str, str]]:
    items = given.items() if isinstance(given, Mapping) else (given or ())
    headers = []
    for name, value in items:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not _VALUE.fullmatch(str(value)):
            raise wrong("headers: names of letters, digits and -, values without line breaks")
        name = name.lower()
        if _NOT_THE_CALLERS.fullmatch(name):
            how = ", from idempotency_key" if name == "idempotency-key" else ""
            raise wrong(f"headers: {name} is set by fetch itself{how}")
        try:
            str(value).encode("latin-1")
        except UnicodeEncodeError:
            raise wrong(f"headers: {name} holds a character that headers do not") from None
        headers.append((name, str(value).strip(" \t")))
    return headers


def _urlencoded(pairs: Pairs) -> str:
    from urllib.parse import urlencode

    try:
        return urlencode(list(pairs.items()) if isinstance(pairs, Mapping) else list(pairs), doseq=True)
    except (TypeError, ValueError):
        raise wrong("params and data: a dict, or pairs of a name and a value") from None


def _with_params(url: str, params: Pairs | None) -> str:
    """With a query behind that which is there."""
    if not params:
        return url
    place, _, _ = url.partition("#")
    return f"{place}{'&' if '?' in place else '?'}{_urlencoded(params)}"


def _read_body(body: Any, json_value: Any, data: Pairs | None) -> tuple[Body, str | None]:
    if sum(given is not None for given in (body, json_value, data)) > 1:
        raise wrong("one of body, json and data, not several")
    if data is not None:
        return _urlencoded(data).encode(), "application/x-www-form-urlencoded"
    if json_value is not None:
        return json.dumps(json_value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode(), "application/json"
    if isinstance(body, str):
        return body.encode(), "text/plain;charset=UTF-8"
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body), None
    if isinstance(body, Mapping):
        raise wrong("body: bytes, text, or something to iterate over; a dict goes into json, or into data as a form")
    if body is None or isinstance(body, (bytes, AsyncIterable, Iterable)):
        return body, None
    raise wrong("body: bytes, text, or something to iterate over")


def read_request(
    url: Any, method: str, *, params: Pairs | None, headers: HeadersLike | None, body: Any, json: Any, data: Pairs | None, tool: str | None, audience: str | None,
    idempotency_key: str | None, redirect: Redirect, approval: Any, approval_id: str | None,
) -> Request:
    method = method.upper() if isinstance(method, str) else ""
    if not _METHOD.fullmatch(method) or method in ("CONNECT", "TRACE", "TRACK"):
        raise wrong("method: GET, POST and the like")
    if redirect not in ("follow", "manual", "error"):
        raise wrong("redirect: one of follow, manual, error")
    if idempotency_key is not None and not (isinstance(idempotency_key, str) and _KEY.fullmatch(idempotency_key)):
        raise wrong("idempotency_key: 1 to 255 visible ASCII characters")
    written = _read_headers(headers)
    read, kind = _read_body(body, json, data)
    if read is not None and method in ("GET", "HEAD"):
        raise wrong(f"a {method} has no body")
    given = {name for name, _ in written}
    defaults = {"content-type": kind, "accept": "*/*", "user-agent": "obol-agent-python/0.1.0"}
    written += [(name, value) for name, value in defaults.items() if value and name not in given]
    if idempotency_key is not None:
        written.append(("idempotency-key", idempotency_key))
    asks, approval_id = read_approval(approval), read_approval_id(approval_id)
    place, has_key = _with_params(str(url), params), idempotency_key is not None
    return Request(place, method, written, read, redirect, has_key, tool, audience, asks, approval_id)
