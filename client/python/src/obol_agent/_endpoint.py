"""Where the daemons' sockets are, and whether they are those of somebody to trust.

Trusted are this process's own user, root, the one that ``OBOL_ENDPOINT_USER`` or the argument ``user`` names, and the owner of the
socket's folder where root alone decides about everything above it (``/run/obol``). The socket's owner is looked at before
connecting; the kernel's word on who listens decides, before a byte is sent.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Mapping

from ._errors import AgentError, wrong

MAX_PATH_BYTES = 107
_WRITABLE_BY_OTHERS = 0o022
_SYSTEMS = "/run/obol/agent.sock"


def _named(text: str, where: str) -> str:
    place = text.removeprefix("unix://")
    if not place or "\0" in place or len(os.fsencode(place)) > MAX_PATH_BYTES:
        raise wrong(f"{where}: the path of a socket, at most {MAX_PATH_BYTES} bytes long")
    return os.path.abspath(place)


def agent_socket(option: str | None, environment: Mapping[str, str]) -> str:
    """The agent's socket: the argument, the variable, the user's, the system's."""
    if option:
        return _named(option, "socket")
    if environment.get("OBOL_ENDPOINT_SOCKET"):
        return _named(environment["OBOL_ENDPOINT_SOCKET"], "OBOL_ENDPOINT_SOCKET")
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    users = os.path.join(runtime, "obol/agent.sock")
    if os.path.isabs(runtime) and (os.path.exists(users) or not os.path.exists(_SYSTEMS)):
        return _named(users, "XDG_RUNTIME_DIR")
    return _SYSTEMS


def auth_socket(option: str | None, environment: Mapping[str, str], agent: str) -> str:
    """The authenticator's: the argument, the variable, beside the agent's."""
    if option:
        return _named(option, "auth_socket")
    if environment.get("OBOL_AUTH_SOCKET"):
        return _named(environment["OBOL_AUTH_SOCKET"], "OBOL_AUTH_SOCKET")
    return os.path.join(os.path.dirname(agent), "auth.sock")


def user_number(option: str | int | None, environment: Mapping[str, str]) -> int | None:
    """The number of a user who is named by number or by name; None if nobody is named."""
    user = str(environment.get("OBOL_ENDPOINT_USER", "") if option is None else option)
    if not user:
        return None
    if user.isascii() and user.isdigit() and int(user) < 2**32 - 1:
        return int(user)
    import pwd

    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise wrong(f"user: there is no user {user!r} on this machine") from None


def _above(place: str) -> list[str]:
    places = []
    while place != "/":
        place = os.path.dirname(place)
        places.append(place)
    return places


def _only_root_decides(folder: str) -> bool:
    for height, place in enumerate(_above(folder)):
        entry, target = os.lstat(place), os.stat(place)
        closed = not target.st_mode & _WRITABLE_BY_OTHERS or (height > 0 and target.st_mode & stat.S_ISVTX)
        if entry.st_uid != 0 or target.st_uid != 0 or not closed:
            return False
    return True


def _keeper(folder: str) -> int | None:
    """The user whom root gave this folder; None where anybody but root could have put it there."""
    entry = os.lstat(folder)
    if not stat.S_ISDIR(entry.st_mode):
        return None
    return entry.st_uid if _only_root_decides(folder) and _only_root_decides(os.path.realpath(folder)) else None


def _foreign(path: str, what: str, uid: int) -> AgentError:
    return AgentError(
        "UNTRUSTED_DAEMON",
        f"the {what} {path} is of user #{uid}, neither this user nor root; if that is the daemon's user, say so with "
        f"OBOL_ENDPOINT_USER={uid}",
    )


def trusted_users(path: str, user: int | None) -> frozenset[int | None]:
    """Who may serve at this path. Raises where what is there is not a socket of such a user; OSError passes through."""
    found = os.stat(path)
    if not stat.S_ISSOCK(found.st_mode):
        raise AgentError("DAEMON_UNREACHABLE", f"{path} is not a socket; check where the daemon listens")
    trusted = frozenset({os.geteuid(), 0, user, _keeper(os.path.dirname(path))})
    if found.st_uid not in trusted:
        raise _foreign(path, "socket", found.st_uid)
    return trusted


def check_peer(sock: socket.socket, path: str, trusted: frozenset[int | None]) -> None:
    """Before a byte is sent: who listens, by the kernel's word."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        raise AgentError("UNTRUSTED_DAEMON", "this system cannot tell which user is behind a socket")
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    if uid not in trusted:
        raise _foreign(path, "process behind", uid)


def unreachable(error: Exception, path: str, label: str) -> AgentError:
    reasons: dict[type[Exception], str] = {
        FileNotFoundError: "there is no socket",
        ConnectionRefusedError: "nothing listens",
        PermissionError: "this user may not connect",
    }
    what = reasons.get(type(error), "no connection")
    return AgentError("DAEMON_UNREACHABLE", f"{what} at {path}; start {label}, or say where it listens")


def may_pass(error: Exception) -> bool:
    """Whether the daemon may just be restarting."""
    return isinstance(error, (FileNotFoundError, ConnectionError))
