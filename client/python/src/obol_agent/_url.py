"""URLs, read strictly from their text, so that no two readers take one for different places.

The rules are numbered in tests/vectors/sdk/README.md; nothing here depends on a lenient parser.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ._errors import wrong

MAX_CHARACTERS = 8_192
_FORM = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.ASCII | re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:]+\]|[0-9A-Za-z._-]+)(?::([1-9][0-9]{0,4}))?")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")
_NOT_PLAIN = re.compile(r"[^!$%&'()*+,\-./0-9:;=?@A-Z_a-z~]")
_ESCAPE = re.compile(r"%(?:[0-9A-Fa-f]{2})?")
_REFUSED_ESCAPE = re.compile(r"%(?:2F|5C|25|[01][0-9A-F]|7F)")
_LIKE_DOTS = re.compile(r"\.{1,2}(?:\Z|[;:]|%3[AB])")
_FOR_IPV4 = re.compile(r"::ffff:[0-9a-f]{1,4}:[0-9a-f]{1,4}|::ffff:[0-9.]+")
_UNRESERVED = re.compile(r"[0-9A-Za-z._~-]")
_QUAD = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.|\Z)){4}")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Url(NamedTuple):
    """Normalised. ``host`` is as in a URL; ``path`` begins with ``/``; ``query`` is empty or begins with ``?``."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def netloc(self) -> str:
        return self.host if self.port == _DEFAULT_PORTS[self.scheme] else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    def __str__(self) -> str:
        return self.origin + self.path + self.query


def read_url(text: str) -> Url:
    if len(text) > MAX_CHARACTERS:
        raise wrong(f"the URL is longer than {MAX_CHARACTERS} characters")
    if _FORBIDDEN.search(text):
        raise wrong("the URL holds a control character, a backslash or half a character")
    parts = _FORM.fullmatch(text)
    if not parts:
        raise wrong("the URL must begin with https:// and a host, or with http:// and a host on loopback")
    scheme = parts[1].lower()
    host, port = _read_authority(parts[2], scheme)
    if scheme == "http" and not is_loopback(host):
        raise wrong("the URL must begin with https://; http is for loopback only")
    return Url(scheme, host, port, _read_path(parts[3]), _escaped(parts[4] or ""))


def _read_authority(text: str, scheme: str) -> tuple[str, int]:
    parts = _AUTHORITY.fullmatch(text)
    host = _read_host(parts[1].lower()) if parts else None
    port = int(parts[2] or _DEFAULT_PORTS[scheme]) if parts else 0
    if host is None or port > 65_535:
        raise wrong("the URL needs a plain host and maybe a port: no user, no dot at its end, other scripts as xn--")
    return host, port


def _read_host(host: str) -> str | None:
    if host.startswith("["):
        import ipaddress

        try:
            address = ipaddress.IPv6Address(host[1:-1]).compressed
        except ValueError:
            return None
        # Some write one that stands for an IPv4 address so, and others so.
        return None if _FOR_IPV4.fullmatch(address) else f"[{address}]"
    labels = host.split(".")
    if len(host) > 253 or not all(1 <= len(label) <= 63 for label in labels):
        return None
    numeric = labels[-1].isdigit() or labels[-1].startswith("0x")
    return None if numeric and not _QUAD.fullmatch(host) else host


def _read_path(text: str) -> str:
    path = _ESCAPE.sub(_one_form, _escaped(text or "/"))
    if not _is_utf8(path):
        raise wrong("the URL has a path that is not UTF-8 once it is decoded")
    if _REFUSED_ESCAPE.search(path):
        raise wrong("the URL holds an encoded slash, backslash, percent sign or control character in its path")
    segments = path.split("/")[1:]
    if "" in segments[:-1]:
        raise wrong("the URL has an empty segment in its path")
    if any(_LIKE_DOTS.match(segment) for segment in segments):
        raise wrong("the URL has a segment . or .. in its path, or one that could be read as such")
    return path


def _is_utf8(path: str) -> bool:
    from urllib.parse import unquote_to_bytes

    try:
        return bool(unquote_to_bytes(path).decode()) if "%" in path else True
    except UnicodeDecodeError:
        return False


def _one_form(found: re.Match[str]) -> str:
    if len(found[0]) != 3:
        raise wrong("the URL has a % in its path without two hex digits behind it")
    sign = chr(int(found[0][1:], 16))
    return sign if _UNRESERVED.fullmatch(sign) else found[0].upper()


def _escaped(text: str) -> str:
    """Writes what may not stand in a path or a query as ``%XX``."""
    return _NOT_PLAIN.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)


def is_loopback(host: str) -> bool:
    return host in ("localhost", "[::1]") or (host.startswith("127.") and _QUAD.fullmatch(host) is not None)


def resolve(location: str, start: Url) -> str | None:
    """What ``Location`` leads to from here, as text that has yet to be read. None where there is no telling."""
    if not location or not re.fullmatch(r"[!-\[\]-~]+", location):
        return None
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location):
        return location
    if location.startswith("//"):
        return f"{start.scheme}:{location}"
    if location.startswith("/"):
        return start.origin + location
    if location.startswith("?"):
        return start.origin + start.path + location
    if location.startswith("#"):
        return str(start)
    return start.origin + start.path[: start.path.rindex("/") + 1] + location
