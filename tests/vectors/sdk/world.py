#!/usr/bin/env python3
"""The world of one case: a scripted sidecar, authenticator and HTTP servers that count what they see.

Reads a line of JSON for each step and answers with one; README.md beside this file says which. Python's standard library is
enough, but for sealed bodies, which take `cryptography`.
"""

import base64
import json
import os
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time

MAX_FRAME_BYTES = 65_536
SEALED_TYPE = "application/vnd.obol.sealed"
NUMBERS = {
    "QUEUE_EMPTY": -32001, "POLICY_DENY": -32002, "NO_SESSION": -32003, "SESSION_FLUSHED": -32004, "OVERLOADED": -32005,
    "UNAVAILABLE": -32006, "NOT_REGISTERED": -32007, "APPROVAL_PENDING": -32008, "APPROVAL_DENIED": -32009,
    "APPROVAL_EXPIRED": -32010, "SUSPENDED": -32011, "REVOKED": -32012, "AUTHORITY_UNREACHABLE": -32013,
    "AUTHORITY_REFUSED": -32014, "CLOCK_SKEW": -32015, "APPROVAL_REQUIRED": -32016, "METHOD_NOT_ALLOWED": -32601, "INVALID_ARGUMENT": -32602,
}


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def utc(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def read_exactly(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise ConnectionError("closed")
        data += piece
    return data


class Script:
    """Steps in order; the last one is repeated. Without any, `default`."""

    def __init__(self, steps, default):
        self.steps = list(steps or [default])
        self.lock = threading.Lock()

    def next(self):
        with self.lock:
            return self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]


class Listener:
    """Accepts connections and serves each in a thread, until it is closed. Can be away for a while."""

    def __init__(self, bind, serve):
        self.bind, self.serve = bind, serve
        self.lock, self.open, self.closed = threading.Lock(), set(), False
        self.listener = None
        self.listen()

    def listen(self):
        self.listener = self.bind()
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.open.add(connection)
            threading.Thread(target=self.run, args=(connection,), daemon=True).start()

    def run(self, connection):
        try:
            self.serve(connection)
        except (OSError, ValueError):
            pass  # The client went away, or sent what is no message: there is nobody to answer.
        finally:
            with self.lock:
                self.open.discard(connection)
            connection.close()

    def hang_up(self):
        with self.lock:
            for connection in self.open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # It ended by itself.

    def away(self, seconds):
        """Ends everything; listens again after so long."""
        self.stop_listening()
        self.hang_up()
        threading.Timer(seconds, lambda: self.closed or self.listen()).start()

    def stop_listening(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # Not every kind of socket can be shut down while it listens.
        self.listener.close()

    def close(self):
        self.closed = True
        self.stop_listening()
        self.hang_up()


def unix(path):
    def bind():
        if os.path.exists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1024)
        return listener

    return bind


def loopback(port):
    def bind():
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(1024)
        return listener

    return bind


class Daemon:
    """A daemon on a Unix socket, in the codec `json`: answers each method by its script, and counts the calls."""

    def __init__(self, path, scripts, special):
        self.scripts, self.special = scripts, special
        self.lock, self.calls, self.told, self.asked = threading.Lock(), {}, [], []
        self.listener = Listener(unix(path), self.serve)

    def serve(self, connection):
        writing = threading.Lock()
        hello = self.receive(connection)
        if hello.get("obol") != 1 or hello.get("codec") != "json" or not hello.get("client"):
            raise ValueError("not a hello")
        connection.sendall(self.frame({"obol": 1, "codec": "json", "server": "world/1"}))
        while True:
            request = self.receive(connection)
            threading.Thread(target=self.answer, args=(connection, writing, request), daemon=True).start()

    def answer(self, connection, writing, request):
        method, params = request["method"], request.get("params") or {}
        with self.lock:
            self.calls[method] = self.calls.get(method, 0) + 1
            if method == "tokenStolen":
                self.told.append(params)
            if method == "requestApproval":
                self.asked.append(params)
        script = self.scripts.get(method)
        step = script.next() if script else {"error": {"code": "METHOD_NOT_ALLOWED"}}
        time.sleep(step.get("afterMs", 0) / 1000)
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        if step.get("silent"):
            return
        if "awayMs" in step:
            self.listener.away(step["awayMs"] / 1000)
            return
        if step.get("hangUp"):
            connection.shutdown(socket.SHUT_RDWR)
            return
        if "error" in step:
            error = dict(step["error"])
            code = error.pop("code")
            message = error.pop("message", f"scripted {code}")
            answer["error"] = {"code": NUMBERS[code], "message": message, "data": {"code": code, **error}}
        else:
            answer["result"] = self.special(method, step, params)
        frame = bytes.fromhex(step["raw"]) if "raw" in step else self.frame(answer)[: step.get("cut")]
        try:
            with writing:
                connection.sendall(frame)
            if "cut" in step:
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The client went away.

    @staticmethod
    def receive(connection):
        (length,) = struct.unpack(">I", read_exactly(connection, 4))
        if not 1 <= length <= MAX_FRAME_BYTES:
            raise ValueError("a frame of that length ends the connection")
        return json.loads(read_exactly(connection, length))

    @staticmethod
    def frame(message):
        body = json.dumps(message).encode()
        return struct.pack(">I", len(body)) + body


class Ledger:
    """Which tokens were drawn, and where each was seen."""

    def __init__(self):
        self.lock, self.drawn, self.seen, self.violations = threading.Lock(), {}, {}, []

    def draw(self, step, params):
        wanted = step.get("token") or {}
        with self.lock:
            token = f"tok_{len(self.drawn):04}_{os.urandom(16).hex()}"
            drawn = {"token": token, "params": params, "pop": None, "channel": None}
            approval = params.get("approvalId")
            if approval and approval in [earlier["params"].get("approvalId") for earlier in self.drawn.values()]:
                self.violations.append("a yes was drawn twice")
            self.drawn[token] = drawn
        result = {"token": token, "tool": params.get("tool"), "expiresAt": int(time.time()) + 60}
        if wanted.get("pop"):
            drawn["pop"] = base64url(os.urandom(64))
            result["pop"] = {"alg": "Ed25519", "sig": drawn["pop"]}
        if wanted.get("channel"):
            channel = {name: os.urandom(size) for name, size in
                       [("requestKey", 32), ("requestAad", 40), ("responseKey", 32), ("responseIv", 12), ("responseAad", 40)]}
            drawn["channel"] = {"alg": wanted["channel"], **channel}
            result["channel"] = {"alg": wanted["channel"], **{name: base64url(part) for name, part in channel.items()}}
        return result

    def wrong(self, what):
        with self.lock:
            self.violations.append(what)

    def present(self, server, request):
        """Notes a request; gives what was drawn with its token, if it has one."""
        values = [value for name, value in request["headers"] if name == "authorization"]
        proofs = [value for name, value in request["headers"] if name == "tbac-pop"]
        if not values:
            return None
        token = values[0].removeprefix("TBAC ")
        drawn = self.drawn.get(token)
        if len(values) > 1 or not values[0].startswith("TBAC ") or drawn is None:
            self.wrong(f"{server}: not one token that was drawn")
            return None
        with self.lock:
            earlier = self.seen.get(token)
            self.seen[token] = server
        if earlier:
            self.wrong(f"a token was sent twice: to {earlier}, then to {server}")
        if proofs != ([drawn["pop"]] if drawn["pop"] else []):
            self.wrong(f"{server}: the proof of possession is not the token's")
        request["tool"] = drawn["params"].get("tool")
        return drawn


def aead(algorithm, key):
    from cryptography.hazmat.primitives.ciphers import aead as ciphers

    return (ciphers.ChaCha20Poly1305 if algorithm == "ChaCha20-Poly1305" else ciphers.AESGCM)(key)


class HttpServer:
    """An HTTP/1.1 server on loopback that answers by its script and keeps what it saw."""

    def __init__(self, name, steps, ledger, fill):
        self.name, self.ledger, self.fill = name, ledger, fill
        self.script = Script(steps, {"status": 200, "body": "ok"})
        self.lock, self.requests, self.connections = threading.Lock(), [], 0
        self.listener = Listener(loopback(0), self.serve)
        self.port = self.listener.listener.getsockname()[1]

    def serve(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = connection.makefile("rb")
        with self.lock:
            self.connections += 1
        # The first byte of a request takes a step: some end before the whole request is there.
        while reader.peek(1):
            step = self.script.next()
            if "cutRequest" in step:
                return self.cut_short(reader.read(step["cutRequest"]))
            request = self.read(reader)
            if request is None:
                return
            hosts = [value for name, value in request["headers"] if name == "host"]
            if hosts not in ([f"127.0.0.1:{self.port}"], [f"localhost:{self.port}"]):
                self.ledger.wrong(f"{self.name}: not one Host, or another server's")
            drawn = self.ledger.present(self.name, request)
            body = request["body"]
            if drawn and drawn["channel"]:
                body = self.open_body(drawn["channel"], request)
            kept = {**request, "body": body.decode("utf-8", "replace"), "token": bool(drawn)}
            kept["headers"] = {name: value for name, value in request["headers"] if name != "authorization"}
            with self.lock:
                self.requests.append(kept)
            if not self.answer(connection, step, request, drawn):
                return

    def cut_short(self, data):
        """Notes what was there of a request; a token, where all of it was."""
        head, _, _ = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        if head == data:
            headers = headers[:-1]  # The last one may not be whole.
        method, target, *_ = [*first.split(" "), "", ""]
        request = {"method": method, "target": target, "headers": headers, "body": "", "cut": len(data)}
        drawn = self.ledger.present(self.name, request) if any(name == "authorization" for name, _ in headers) else None
        kept = {name: value for name, value in headers if name != "authorization"}
        with self.lock:
            self.requests.append({**request, "headers": kept, "token": bool(drawn)})

    @staticmethod
    def read(reader):
        line = reader.readline(65_536).decode("latin-1").split()
        if len(line) != 3:
            return None
        headers = []
        while True:
            header = reader.readline(65_536).decode("latin-1").rstrip("\r\n")
            if not header:
                break
            name, _, value = header.partition(":")
            headers.append((name.lower(), value.strip()))
        given = dict(headers)
        body = b""
        if given.get("transfer-encoding") == "chunked":
            while size := int(reader.readline().split(b";")[0], 16):
                body += reader.read(size)
                reader.readline()
            reader.readline()
        else:
            body = reader.read(int(given.get("content-length", 0)))
        return {"method": line[0], "target": line[1], "headers": headers, "body": body}

    def open_body(self, channel, request):
        types = [value for name, value in request["headers"] if name == "content-type"]
        body = request["body"]
        try:
            if types != [SEALED_TYPE]:
                raise ValueError("its type")
            return aead(channel["alg"], channel["requestKey"]).decrypt(body[:12], body[12:], channel["requestAad"])
        except Exception:  # noqa: BLE001: whatever is wrong with it, it is not what was agreed on.
            self.ledger.wrong(f"{self.name}: a body that is not sealed for its token")
            return body

    def answer(self, connection, step, request, drawn):
        """Answers; false where the connection is over."""
        time.sleep(step.get("afterMs", 0) / 1000)
        if step.get("silent"):
            time.sleep(30)
            return False
        answer = self.whole(step, drawn)
        if request["method"] == "HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        if "cut" in step:
            connection.sendall(answer[: step["cut"]])
            return False
        if "dripMs" in step:
            for place in range(len(answer)):
                connection.sendall(answer[place : place + 1])
                time.sleep(step["dripMs"] / 1000)
            return True
        connection.sendall(answer)
        return not step.get("close")

    def whole(self, step, drawn):
        """The answer as bytes."""
        token = drawn["token"] if drawn else ""
        step = json.loads(json.dumps(step).replace("{token}", token))
        if "raw" in step:
            return self.fill(step["raw"]).encode("latin-1")
        status, headers = step.get("status", 200), dict(step.get("headers", {}))
        body = step.get("body", "ok").encode() * step.get("times", 1)
        if "problem" in step:
            body = json.dumps({"type": "about:blank", "status": status, "code": step["problem"]}).encode()
            headers.setdefault("Content-Type", "application/problem+json")
            if status == 401:
                headers.setdefault("WWW-Authenticate", f'TBAC error="{step["problem"]}", failed_check="SCRIPTED"')
        if "seal" in step and drawn and drawn["channel"]:
            channel = drawn["channel"]
            iv = channel["responseIv"] if step["seal"] == "given" else os.urandom(12)
            body = iv + aead(channel["alg"], channel["responseKey"]).encrypt(iv, body, channel["responseAad"])
            if step["seal"] == "spoilt":
                body = body[:-1] + bytes([body[-1] ^ 1])
            headers |= {"TBAC-Sealed-Type": headers.get("Content-Type", "application/json"), "Content-Type": SEALED_TYPE}
        headers.setdefault("Content-Length", str(len(body)))
        lines = [f"{name}: {self.fill(value)}" for name, value in headers.items()]
        return ("\r\n".join([f"HTTP/1.1 {status} Scripted", *lines]) + "\r\n\r\n").encode() + body


class World:
    """All of it, for one case."""

    def __init__(self, case):
        self.folder = tempfile.mkdtemp(prefix="obol-world-")
        self.ledger, self.servers = Ledger(), {}
        for name, steps in (case.get("servers") or {}).items():
            self.servers[name] = HttpServer(name, [] if steps == "closed" else steps, self.ledger, self.fill)
        for name, steps in (case.get("servers") or {}).items():
            if steps == "closed":
                self.servers[name].listener.close()
        self.tqs = self.sidecar(case.get("tqs") or {})
        self.authenticator = self.with_authenticator(case["authenticator"]) if case.get("authenticator") is not None else None

    def fill(self, text):
        for name, server in self.servers.items():
            text = text.replace(f"{{{name}}}", f"http://127.0.0.1:{server.port}").replace(f"{{{name}.port}}", str(server.port))
        return text

    def filled(self, value):
        return json.loads(self.fill(json.dumps(value)))

    def sidecar(self, script):
        scripts = {method: Script(script.get(method), {}) for method in ("dequeueToken", "tokenStatus", "sessionInfo")}
        established = time.time() - script.get("establishedSecondsAgo", 600)
        seals = any("channel" in step.get("token", {}) for step in script.get("dequeueToken") or [])

        def answer(method, step, params):
            if method == "dequeueToken":
                return step.get("result") or self.ledger.draw(step, params)
            if method == "tokenStatus":
                sealed = {"sealed": True} if "tool" in params and seals else {}
                return step.get("result") or {"queueDepth": 9, "ttl": 60, "sessionActive": True, "renewalPending": False, **sealed}
            return step.get("result") or {
                "sessionId": "0000019d00000001", "agentInstanceId": "agt_scripted", "establishedAt": utc(established),
                "algorithmSuite": 2, "expiresAt": utc(time.time() + 900)}

        return Daemon(os.path.join(self.folder, "agent.sock"), scripts, answer)

    def with_authenticator(self, script):
        methods = ("register", "registrationStatus", "authenticate", "ensureAuthenticated", "authStatus", "tokenStolen",
                   "requestApproval", "approvalStatus")
        scripts = {method: Script(script.get(method), {}) for method in methods}
        pages = [self.filled(page) for page in script.get("routes", [[]])]
        approvals, lock = {}, threading.Lock()

        def approval(state, params):
            """How a human's yes stands; a request of its own for each that is asked for."""
            with lock:
                known = params.get("approvalId") or f"apr_{len(approvals) + 1:04}"
                calls = approvals.setdefault(known, [f"{known}.{place + 1}" for place, _ in enumerate(params.get("calls", []))])
            return {"approvalId": known, "state": state, "calls": calls, "expiresAt": utc(time.time() + 300)}

        def answer(method, step, params):
            if "result" in step:
                return self.filled(step["result"])
            if method in ("requestApproval", "approvalStatus"):
                return approval(step.get("state", "waiting" if method == "requestApproval" else "approved"), params)
            if method == "tokenStolen":
                return {}
            session = {"sessionId": "0000019d00000001", "agentInstanceId": "agt_scripted", "algorithmSuite": 2,
                       "expiresAt": utc(time.time() + 900)}
            registration = {"state": "active", "words": "babad-dabab-fafas-gajat-hobum", "agentId": "agt_scripted",
                            "approvalExpiresAt": utc(time.time() + 86_400)}
            if method in ("register", "registrationStatus"):
                return registration
            if method == "authStatus":
                page = params.get("from", 0)
                more = {"next": page + 1} if page + 1 < len(pages) else {}
                return {"version": "0.1.0", "pid": 1, "uid": os.getuid(), "uptimeSeconds": 1, "authority": "http://127.0.0.1#00",
                        "state": "authenticated", "registration": registration, "session": session, "routes": pages[page], **more}
            return session

        return Daemon(os.path.join(self.folder, "auth.sock"), scripts, answer)

    def places(self):
        return {
            "agentSocket": os.path.join(self.folder, "agent.sock"),
            "authSocket": os.path.join(self.folder, "auth.sock"),
            "servers": {name: f"http://127.0.0.1:{server.port}" for name, server in self.servers.items()},
        }

    def counts(self):
        return {
            "drawn": [drawn["params"] for drawn in self.ledger.drawn.values()],
            "tqs": self.tqs.calls,
            "authenticator": self.authenticator.calls if self.authenticator else {},
            "told": self.authenticator.told if self.authenticator else [],
            "asked": self.authenticator.asked if self.authenticator else [],
            "servers": {name: [{**request} for request in server.requests] for name, server in self.servers.items()},
            "connections": {name: server.connections for name, server in self.servers.items()},
            "violations": self.ledger.violations,
        }

    def close(self):
        daemons = [daemon.listener for daemon in (self.tqs, self.authenticator) if daemon]
        for listener in [*daemons, *(server.listener for server in self.servers.values())]:
            listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    world = None
    for line in sys.stdin:
        step = json.loads(line)
        if "open" in step:
            world = World(step["open"])
            answer = world.places()
        elif step == "counts":
            answer = world.counts()
        else:
            answer = {**world.counts(), "closed": True}
            world.close()
        print(json.dumps(answer), flush=True)
    if world:
        world.close()


if __name__ == "__main__":
    main()
