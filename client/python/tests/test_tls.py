"""TLS: a server whose certificate holds is called, one whose certificate does not is sent nothing."""

from __future__ import annotations

import asyncio
import http.server
import shutil
import ssl
import subprocess
import tempfile
import threading
import unittest
from typing import Any

from world import World

from obol_agent import Agent, AgentError, AsyncAgent


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tokens: list[str] = []

    def do_GET(self) -> None:
        self.tokens.append(self.headers["Authorization"])
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that refuses the certificate ends the connection."""


class Tls(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="obol-tls-")
        self.addCleanup(shutil.rmtree, folder)
        key, self.certificate = f"{folder}/key.pem", f"{folder}/cert.pem"
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", self.certificate]
        subprocess.run(made + named, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        server = Server(("127.0.0.1", 0), Answering)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.port = server.server_address[1]
        Answering.tokens.clear()
        world = World()
        self.addCleanup(world.end)
        self.socket = world.open({"servers": {}})["agentSocket"]

    def outcomes(self, host: str, trusted: bool) -> list[str]:
        """Of two calls on one connection, blocking and with asyncio."""
        origin = f"https://{host}:{self.port}"
        options: dict[str, Any] = {"socket": self.socket, "routes": [{"audience": origin, "tools": ["search"]}]}
        if trusted:
            options["tls"] = ssl.create_default_context(cafile=self.certificate)

        async def calls() -> str:
            async with AsyncAgent(**options) as agent:
                return "".join([await (await agent.fetch(origin)).text() for _ in range(2)])

        def blocking() -> str:
            with Agent(**options) as agent:
                return "".join([agent.fetch(origin).text for _ in range(2)])

        found = []
        for act in (blocking, lambda: asyncio.run(calls())):
            try:
                found.append(act())
            except AgentError as error:
                found.append(error.code)
        return found

    def test_a_server_whose_certificate_holds_is_called(self) -> None:
        self.assertEqual(self.outcomes("localhost", trusted=True), ["okok", "okok"])
        self.assertEqual(len(set(Answering.tokens)), 4)

    def test_one_that_nobody_vouches_for_is_sent_nothing(self) -> None:
        self.assertEqual(self.outcomes("localhost", trusted=False), ["UNREACHABLE", "UNREACHABLE"])
        self.assertEqual(Answering.tokens, [])

    def test_one_of_another_name_is_sent_nothing(self) -> None:
        self.assertEqual(self.outcomes("127.0.0.1", trusted=True), ["UNREACHABLE", "UNREACHABLE"])
        self.assertEqual(Answering.tokens, [])


if __name__ == "__main__":
    unittest.main()
