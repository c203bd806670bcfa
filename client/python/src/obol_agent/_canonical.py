"""The hash of a call's arguments, over which a proof of possession is made: SHA-256 of their canonical form (RFC 8785)."""

from __future__ import annotations

import json
from typing import Any

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_EXACT = 2**53


class _NoForm(ValueError):
    pass


def _decimal(text: str) -> tuple[str, int]:
    """A number without its sign, as digits that neither begin nor end with 0, and the power of ten of the last one."""
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).rstrip("0")
    if not digits:
        return "", 0
    return digits.lstrip("0"), int(exponent or 0) - len(fraction) + len(whole + fraction) - len(digits)


class _Number(str):
    """A number as it is written canonically."""


def _number(text: str) -> _Number:
    bare = text.removeprefix("-")
    if len(text) > 400 or len(bare.lower().partition("e")[2]) > 6:
        raise _NoForm
    number = float(bare)
    digits, last = _decimal(repr(number))
    if number > MAX_EXACT or (digits, last) != _decimal(bare):
        raise _NoForm
    return _Number(("-" if text[0] == "-" and digits else "") + _written(digits, last))


def _written(digits: str, last: int) -> str:
    """As ECMAScript writes it. `last`: the power of ten of the last digit; nothing here is as large as 10^21."""
    if not digits:
        return "0"
    point = len(digits) + last
    if last >= 0:
        return digits + "0" * last
    if point > 0:
        return f"{digits[:point]}.{digits[point:]}"
    if point > -6:
        return "0." + "0" * -point + digits
    return f"{digits[0]}{'.' if len(digits) > 1 else ''}{digits[1:]}e{point - 1}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _NoForm
    return members


def _refuse(_: str) -> Any:
    raise _NoForm


def _write(value: Any, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise _NoForm
    if isinstance(value, _Number):
        return value
    if isinstance(value, list):
        return "[" + ",".join(_write(item, depth + 1) for item in value) + "]"
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{_write(value[name], depth + 1)}" for name in names) + "}"
    return json.dumps(value, ensure_ascii=False)


def _hash(form: bytes) -> str:
    from base64 import urlsafe_b64encode
    from hashlib import sha256

    return urlsafe_b64encode(sha256(form).digest()).rstrip(b"=").decode()


#: Of `{}`.
_NONE = "RBNvo1WzZ4oRRq0W9-hknpT7T8If536DEMBg9hyq_4o"
_SPACE = b" \t\n\r"


def canonical(body: bytes) -> bytes | None:
    """The canonical form of a JSON object that is written like this; None where it is not one, or has none."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object, parse_int=_number, parse_float=_number, parse_constant=_refuse)
        return _write(value, 1).encode() if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        return None


def arguments_hash(body: bytes | None) -> str | None:
    """``popFor`` for this body; None where its arguments have no canonical form."""
    if body is None:
        return _NONE
    if len(body) > MAX_BYTES or not body.lstrip(_SPACE).startswith(b"{"):
        return None
    form = canonical(body)
    return None if form is None else _hash(form)


def is_json_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body.decode()), dict)
    except (ValueError, RecursionError):
        return False
