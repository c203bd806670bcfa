"""An answer that is cut at every byte; a thousand calls at once; sockets of somebody else; what objects show of themselves."""

from __future__ import annotations

import asyncio
import copy
import io
import logging
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from world import World

from obol_agent import Agent, AgentError, AsyncAgent, tool
from obol_agent._endpoint import _keeper as keeper

#: How long the answer `ok` of a scripted server is, and how much of that is its head.
ANSWER_BYTES = 46
HEAD_BYTES = 44
EVERY_BYTE = [{"cut": cut} for cut in range(ANSWER_BYTES + 1)]


class Attacks(unittest.TestCase):
    def opened(self, servers: dict[str, Any], **more: Any) -> str:
        self.world = World()
        self.addCleanup(self.world.end)
        self.places = self.world.open({"servers": servers, **more})
        origin = self.places["servers"].get("A", "https://none.example")
        self.options: dict[str, Any] = {
            "socket": self.places["agentSocket"], "auth_socket": self.places["authSocket"], "timeout": 60.0,
            "routes": [{"audience": origin, "tools": ["search"]}],
        }
        return origin + "/x"

    def agent(self) -> Agent:
        agent = Agent(**self.options)
        self.addCleanup(agent.close)
        return agent

    def test_an_answer_that_is_cut_at_every_byte_post_is_sent_once(self) -> None:
        url = self.opened({"A": EVERY_BYTE})
        agent = self.agent()
        for cut in range(ANSWER_BYTES + 1):
            self.assertEqual(outcome(agent, url, "POST"), "ok" if cut == ANSWER_BYTES else "OUTCOME_UNKNOWN", f"cut at {cut}")
            self.assertEqual(len(self.world.counts()["servers"]["A"]), cut + 1, f"cut at {cut}: sent once")
        self.assertEqual(self.world.counts()["violations"], [])

    def test_an_answer_that_is_cut_at_every_byte_get_has_it_by_a_second_token(self) -> None:
        url = self.opened({"A": [step for cut in EVERY_BYTE for step in ([cut, {}] if cut["cut"] < HEAD_BYTES else [cut])]})
        agent = self.agent()
        for cut in range(ANSWER_BYTES + 1):
            whole = cut < HEAD_BYTES or cut == ANSWER_BYTES
            self.assertEqual(outcome(agent, url, "GET"), "ok" if whole else "OUTCOME_UNKNOWN", f"cut at {cut}")
        counts = self.world.counts()
        self.assertEqual(counts["violations"], [])
        self.assertEqual(len(counts["servers"]["A"]), len(counts["drawn"]))

    def cut_while_it_is_sent(self) -> list[dict[str, Any]]:
        """Steps that cut a request: at its beginning, within its head, and within a body that no buffer holds."""
        return [{"cutRequest": bytes_read} for bytes_read in (0, 1, 20, 60, 120, 300, 70_000, 1 << 20)]

    def test_a_request_that_is_cut_while_it_is_sent_is_not_sent_again(self) -> None:
        steps = self.cut_while_it_is_sent()
        url = self.opened({"A": [*steps, {}]})
        agent = self.agent()
        for place, step in enumerate(steps):
            with self.assertRaises(AgentError) as raised:
                agent.fetch(url, method="POST", body=b"x" * (8 << 20))
            self.assertEqual(raised.exception.code, "OUTCOME_UNKNOWN", step)
            self.assertEqual(len(self.world.counts()["servers"]["A"]), place + 1, step)
        self.assertEqual(outcome(agent, url, "POST"), "ok", "control: what is not cut arrives")
        self.sent_once_each(len(steps) + 1)

    def test_a_request_that_is_cut_while_it_is_sent_is_not_sent_again_with_asyncio(self) -> None:
        steps = self.cut_while_it_is_sent()
        url = self.opened({"A": [*steps, {}]})

        async def calls() -> None:
            async with AsyncAgent(**self.options) as agent:
                for step in steps:
                    with self.assertRaises(AgentError) as raised:
                        await agent.fetch(url, method="POST", body=b"x" * (8 << 20))
                    self.assertEqual(raised.exception.code, "OUTCOME_UNKNOWN", step)
                self.assertEqual(await (await agent.fetch(url, method="POST", body="{}")).text(), "ok", "control: what is not cut arrives")

        asyncio.run(calls())
        self.sent_once_each(len(steps) + 1)

    def sent_once_each(self, times: int) -> None:
        counts = self.world.counts()
        self.assertEqual((counts["violations"], len(counts["drawn"]), len(counts["servers"]["A"])), ([], times, times))

    def test_the_same_with_asyncio(self) -> None:
        url = self.opened({"A": EVERY_BYTE})

        async def calls() -> None:
            async with AsyncAgent(**self.options) as agent:
                for cut in range(ANSWER_BYTES + 1):
                    try:
                        found = await (await agent.fetch(url, method="POST", body="{}")).text()
                    except AgentError as error:
                        found = error.code
                    self.assertEqual(found, "ok" if cut == ANSWER_BYTES else "OUTCOME_UNKNOWN", f"cut at {cut}")

        asyncio.run(calls())
        counts = self.world.counts()
        self.assertEqual((counts["violations"], len(counts["servers"]["A"])), ([], ANSWER_BYTES + 1))

    def test_calls_one_after_the_other_share_a_connection_also_after_a_refusal(self) -> None:
        url = self.opened({"A": [{}, {"status": 404, "body": "no"}, {"status": 204, "body": ""}, {"status": 503, "problem": "UNAVAILABLE", "headers": {"Retry-After": "0"}}, {}]})
        agent = self.agent()
        for _ in range(20):
            agent.fetch(url, method="POST", body="{}").content
        self.connections(21, 1)

    def test_calls_one_after_the_other_share_a_connection_with_asyncio(self) -> None:
        url = self.opened({"A": [{}, {"status": 404, "body": "no"}, {"status": 204, "body": ""}, {"status": 503, "problem": "UNAVAILABLE", "headers": {"Retry-After": "0"}}, {}]})

        async def calls() -> None:
            async with AsyncAgent(**self.options) as agent:
                for _ in range(20):
                    await (await agent.fetch(url, method="POST", body="{}")).text()

        asyncio.run(calls())
        self.connections(21, 1)

    def test_control_a_server_that_ends_each_connection_is_connected_to_each_time(self) -> None:
        url = self.opened({"A": [{"headers": {"Connection": "close"}, "close": True}]})
        agent = self.agent()
        for _ in range(5):
            agent.fetch(url, method="POST", body="{}").content
        self.connections(5, 5)

    def connections(self, calls: int, connections: int) -> None:
        counts = self.world.counts()
        self.assertEqual((counts["violations"], len(counts["servers"]["A"]), counts["connections"]["A"]), ([], calls, connections))

    def test_a_thousand_calls_at_once_with_asyncio(self) -> None:
        url = self.opened({"A": []}, tqs={"dequeueToken": [{"afterMs": 5}]})

        async def calls() -> list[str]:
            async def one(agent: AsyncAgent) -> str:
                return await (await agent.fetch(url)).text()

            async with AsyncAgent(**self.options) as agent:
                return list(await asyncio.gather(*(one(agent) for _ in range(1_000))))

        self.assertEqual(set(asyncio.run(calls())), {"ok"})
        self.thousand()

    def test_a_thousand_calls_at_once_in_threads(self) -> None:
        url = self.opened({"A": []}, tqs={"dequeueToken": [{"afterMs": 5}]})
        agent = self.agent()
        together = threading.Barrier(200)

        def five(_: int) -> list[str]:
            together.wait()
            return [agent.fetch(url).text for _ in range(5)]

        with ThreadPoolExecutor(200) as pool:
            self.assertEqual({body for bodies in pool.map(five, range(200)) for body in bodies}, {"ok"})
        self.thousand()

    def thousand(self) -> None:
        counts = self.world.counts()
        self.assertEqual((counts["violations"], len(counts["drawn"]), len(counts["servers"]["A"])), ([], 1_000, 1_000))

    def test_the_answers_to_a_thousand_draws_go_to_who_asked(self) -> None:
        self.opened({})

        async def draws() -> list[str]:
            async with AsyncAgent(**self.options) as agent:
                return [token.tool for token in await asyncio.gather(*(agent.dequeue_token(f"tool-{n}") for n in range(1_000)))]

        self.assertEqual(asyncio.run(draws()), [f"tool-{number}" for number in range(1_000)])

    def test_who_gives_up_costs_nobody_else_anything(self) -> None:
        url = self.opened({"A": []}, tqs={"dequeueToken": [{"afterMs": 300}, {}]})

        async def calls() -> str:
            async with AsyncAgent(**self.options) as agent:
                with self.assertRaises((TimeoutError, asyncio.TimeoutError)):
                    await asyncio.wait_for(agent.fetch(url), 0.05)
                return await (await agent.fetch(url)).text()

        self.assertEqual(asyncio.run(calls()), "ok")
        self.assertEqual(len(self.world.counts()["servers"]["A"]), 1)

    @unittest.skipUnless(os.geteuid() == 0, "only root can give a file away")
    def test_a_socket_of_another_user_is_not_connected_to_unless_the_user_is_named(self) -> None:
        self.opened({})
        os.chown(self.options["socket"], 54_321, 54_321)
        for agent in (Agent(**self.options), AsyncAgent(**self.options)):
            with self.assertRaises(AgentError) as raised:
                info = agent.session_info()
                asyncio.run(info) if asyncio.iscoroutine(info) else None  # type: ignore[arg-type]
            self.assertEqual(raised.exception.code, "UNTRUSTED_DAEMON")
            self.assertIn("OBOL_ENDPOINT_USER=54321", str(raised.exception))
        self.assertEqual(Agent(**self.options, user=54_321).session_info().agent_instance_id, "agt_scripted")

    @unittest.skipUnless(os.geteuid() == 0, "only root can give a folder away")
    def test_the_owner_of_a_folder_is_trusted_only_where_root_alone_could_put_it_there(self) -> None:
        above = tempfile.mkdtemp(prefix="obol-keeper-")
        self.addCleanup(shutil.rmtree, above)
        folder = os.path.join(above, "obol")
        os.mkdir(folder)
        os.chown(folder, 54_321, 54_321)
        self.assertEqual(keeper(folder), 54_321)
        for mode in (0o770, 0o707, 0o1777):
            os.chmod(above, mode)
            self.assertIsNone(keeper(folder), oct(mode))
        os.chmod(above, 0o700)
        os.chown(above, 54_321, 0)
        self.assertIsNone(keeper(folder), "the folder above is not root's")

    @unittest.skipUnless(os.geteuid() == 0, "only root can become somebody else")
    def test_who_listens_decides_and_not_who_owns_the_socket(self) -> None:
        folder = tempfile.mkdtemp(prefix="obol-peer-")
        self.addCleanup(shutil.rmtree, folder)
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "agent.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        script = "import os,socket; os.setuid(54321); s=socket.socket(fileno=0); s.listen(); c,_=s.accept(); print(c.recv(99))"
        with subprocess.Popen([sys.executable, "-c", script], stdin=listener.fileno(), stdout=subprocess.PIPE) as impostor:
            with self.assertRaises(AgentError) as raised:
                Agent(socket=path, timeout=5.0).session_info()
            listener.close()
            self.assertEqual(raised.exception.code, "UNTRUSTED_DAEMON")
            assert impostor.stdout
            self.assertEqual(impostor.stdout.read(), b"b''\n", "not a byte was sent")

    def test_neither_a_token_nor_an_agent_shows_anything_of_itself(self) -> None:
        self.opened({}, tqs={"dequeueToken": [{"token": {"pop": True, "channel": "AES-256-GCM"}}]})
        agent = self.agent()
        token = agent.dequeue_token("search")
        assert token.channel and token.proof
        secrets = [token.reveal(), token.proof, *list(token.channel.values())[1:]]
        for value in (token, agent, [token], {"token": token}):
            for text in (repr(value), str(value), f"{value}", f"{value!a}"):
                for secret in secrets:
                    self.assertNotIn(secret, text)
        for write in (pickle.dumps, copy.copy, copy.deepcopy):
            with self.assertRaises(TypeError):
                write(token)
        with self.assertRaises(TypeError):
            vars(token)

    def test_no_log_line_holds_a_token(self) -> None:
        url = self.opened({"A": [{"cut": 0}, {"cut": 20}, {}, {"status": 503, "problem": "UNAVAILABLE", "headers": {"Retry-After": "0"}}]})
        lines = io.StringIO()
        handler = logging.StreamHandler(lines)
        logging.getLogger().addHandler(handler)
        self.addCleanup(logging.getLogger().removeHandler, handler)
        logging.getLogger().setLevel(logging.DEBUG)
        self.addCleanup(logging.getLogger().setLevel, logging.WARNING)

        async def calls() -> None:
            asyncio.get_running_loop().slow_callback_duration = 0.0
            async with AsyncAgent(**self.options) as agent:
                for _ in range(3):
                    try:
                        await agent.fetch(url)
                    except AgentError as error:
                        logging.exception("a call", exc_info=error)

        asyncio.run(calls(), debug=True)
        self.assertIn("a call", lines.getvalue())
        self.assertNotIn("tok_", lines.getvalue())

    def test_routes_stay_what_they_are_while_the_authenticator_is_away(self) -> None:
        routes = [[{"audience": "{A}", "tools": ["search"]}]]
        url = self.opened({"A": []}, authenticator={"routes": routes, "authStatus": [{}, {"awayMs": 60_000}]})
        del self.options["routes"]
        agent = self.agent()
        with mock.patch("obol_agent._core.ROUTES_LIFE_SECS", 0.2), mock.patch("obol_agent._core.ROUTES_RETRY_SECS", 0.2):
            for _ in range(3):
                self.assertEqual(agent.fetch(url, timeout=5.0).text, "ok")
                time.sleep(0.3)
        self.assertEqual(self.world.counts()["authenticator"]["authStatus"], 2)

    #: Who asks first gives up in the meantime: more refusals than its time is enough for.
    AWAY_FOR_A_WHILE = {"ensureAuthenticated": [{"afterMs": 400, "error": {"code": "UNAVAILABLE"}}, *[{"error": {"code": "UNAVAILABLE"}}] * 9, {}]}

    def test_who_has_more_time_goes_on_waiting_where_who_asked_first_gives_up(self) -> None:
        self.opened({}, authenticator=self.AWAY_FOR_A_WHILE)
        agent = self.agent()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(agent.ensure_authenticated, timeout=1.0)
            while not self.world.counts()["authenticator"]:
                time.sleep(0.01)
            self.assertEqual(agent.ensure_authenticated(timeout=60.0).agent_instance_id, "agt_scripted")
            error = first.exception()
        self.assertEqual(getattr(error, "code", None), "UNAVAILABLE")
        self.assertEqual(self.world.counts()["authenticator"], {"ensureAuthenticated": 11}, "one of them asked at a time")

    def test_who_has_more_time_goes_on_waiting_with_asyncio(self) -> None:
        self.opened({}, authenticator=self.AWAY_FOR_A_WHILE)

        async def calls() -> list[Any]:
            async with AsyncAgent(**{**self.options, "timeout": 1.0}) as agent:
                return await asyncio.gather(agent.ensure_authenticated(), agent.ensure_authenticated(timeout=60.0), return_exceptions=True)

        first, second = asyncio.run(calls())
        self.assertEqual((getattr(first, "code", None), second.agent_instance_id), ("UNAVAILABLE", "agt_scripted"))
        self.assertEqual(self.world.counts()["authenticator"], {"ensureAuthenticated": 11}, "one of them asked at a time")

    def test_who_cannot_seal_asks_once_for_all_who_wait_and_draws_nothing(self) -> None:
        url = self.opened({"A": []}, tqs={"dequeueToken": [{"token": {"channel": "AES-256-GCM"}}], "tokenStatus": [{"afterMs": 200}]})

        async def calls() -> set[str]:
            async def one(agent: AsyncAgent) -> str:
                with self.assertRaises(AgentError) as raised:
                    await agent.fetch(url)
                return raised.exception.code

            async with AsyncAgent(**self.options) as agent:
                return set(await asyncio.gather(*(one(agent) for _ in range(100))))

        with mock.patch("obol_agent._call.is_supported", return_value=False):
            self.assertEqual(asyncio.run(calls()), {"CHANNEL_UNSUPPORTED"})
        counts = self.world.counts()
        self.assertEqual((counts["tqs"], counts["drawn"], counts["servers"]["A"]), ({"tokenStatus": 1}, [], []))

    def test_a_session_that_is_opened_by_the_draw_is_asked_about_as_well(self) -> None:
        routes = [[{"audience": "{A}", "tools": ["search"]}]]
        none = {"queueDepth": 0, "ttl": 0, "sessionActive": False, "renewalPending": False}
        tqs = {"dequeueToken": [{"error": {"code": "NO_SESSION"}}, {"token": {"channel": "AES-256-GCM"}}], "tokenStatus": [{"result": none}, {}]}
        url = self.opened({"A": []}, authenticator={"routes": routes}, tqs=tqs)
        del self.options["routes"]
        with mock.patch("obol_agent._call.is_supported", return_value=False), self.assertRaises(AgentError) as raised:
            self.agent().fetch(url)
        counts = self.world.counts()
        self.assertEqual((raised.exception.code, counts["drawn"], counts["tqs"]["tokenStatus"]), ("CHANNEL_UNSUPPORTED", [], 2))

    def test_bodies_and_queries_in_every_form_that_people_use(self) -> None:
        url = self.opened({"A": []})
        agent = self.agent()
        agent.fetch(url, params={"q": "a b", "n": [1, 2]})
        agent.fetch(url + "?a=1#part", params=[("b", "&=")])
        agent.fetch(url, method="POST", data={"a": "b c"})
        agent.fetch(url, method="post", json={"a": "ü"})
        with tempfile.TemporaryFile() as file:
            file.write(b"a file")
            file.seek(0)
            agent.fetch(url, method="PUT", body=file)
        for body in ("text", b"bytes", bytearray(b"bytes"), memoryview(b"bytes"), ["te", b"xt"], iter(["te", "xt"]), (piece for piece in (b"te", b"", b"xt"))):
            agent.fetch(url, method="POST", body=body)
        seen = [(one["target"], one["headers"].get("content-type"), one["body"]) for one in self.world.counts()["servers"]["A"]]
        self.assertEqual(seen[:5], [
            ("/x?q=a+b&n=1&n=2", None, ""), ("/x?a=1&b=%26%3D", None, ""), ("/x", "application/x-www-form-urlencoded", "a=b+c"),
            ("/x", "application/json", '{"a":"ü"}'), ("/x", None, "a file"),
        ])
        self.assertEqual([body for _, _, body in seen[5:]], ["text", "bytes", "bytes", "bytes", "text", "text", "text"])
        wrong: list[dict[str, Any]] = [
            {"body": {"a": 1}}, {"body": 7}, {"body": "a", "json": {}}, {"json": {}, "data": {"a": 1}}, {"data": 7}, {"params": "q=1"}, {"method": None},
            {"headers": {b"X-A": "1"}}, {"headers": {"X-A": "1\r\nX-B: 2"}}, {"headers": {"X-\u00fc": "1"}}, {"headers": {"X-A": "\u20ac"}},
            {"idempotency_key": "a b"}, {"timeout": "5"}, {"timeout": float("nan")}, {"redirect": "maybe"}, {"method": "GET\r\nX: y"},
        ]
        for options in wrong:
            with self.subTest(options=options), self.assertRaises(AgentError) as raised:
                agent.fetch(url, **{"method": "POST", **options})
            self.assertEqual(raised.exception.code, "INVALID_ARGUMENT")
        self.assertEqual(len(self.world.counts()["drawn"]), len(seen), "nothing was drawn for what cannot be sent")

    def test_no_proxy_of_the_environment_sees_a_request(self) -> None:
        url = self.opened({"A": [], "B": []})
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
        with mock.patch.dict(os.environ, {**dict.fromkeys(names, self.places["servers"]["B"]), "NO_PROXY": "", "no_proxy": ""}):
            self.assertEqual(self.agent().fetch(url).text, "ok")

            async def call() -> str:
                async with AsyncAgent(**self.options) as agent:
                    return await (await agent.fetch(url)).text()

            self.assertEqual(asyncio.run(call()), "ok")
        counts = self.world.counts()
        self.assertEqual((len(counts["servers"]["A"]), counts["servers"]["B"], counts["violations"]), (2, [], []))

    def test_a_token_is_over_after_its_with(self) -> None:
        self.opened({})
        with self.agent().token("search") as token:
            self.assertTrue(token.authorization().startswith("TBAC tok_"))
        with self.assertRaises(AgentError):
            token.reveal()

    def test_a_tool_gets_a_token_for_each_call_and_hides_it_from_its_signature(self) -> None:
        self.opened({})
        agent, seen = self.agent(), []

        @tool(agent)
        def search(query: str, *, token: Any) -> str:
            seen.append(token.reveal())
            return query

        self.assertEqual([search("a"), search("b")], ["a", "b"])
        self.assertEqual(len(set(seen)), 2)
        import inspect

        self.assertEqual(list(inspect.signature(search).parameters), ["query"])
        with self.assertRaises(TypeError):

            @tool(agent)
            async def wrong(*, token: Any) -> None: ...

    def test_a_process_that_forks_does_not_share_connections(self) -> None:
        url = self.opened({"A": []})
        agent = self.agent()
        self.assertEqual(agent.fetch(url).text, "ok")
        children = []
        for _ in range(8):
            child = os.fork()
            if child == 0:
                os._exit(0 if all(agent.fetch(url).text == "ok" for _ in range(5)) else 1)
            children.append(child)
        self.assertTrue(all(agent.fetch(url).text == "ok" for _ in range(5)))
        self.assertEqual([os.waitpid(child, 0)[1] for child in children], [0] * 8)
        self.assertEqual(self.world.counts()["violations"], [])

    def test_fifty_processes_on_one_sidecar(self) -> None:
        url = self.opened({"A": []})
        script = (
            "import sys; from obol_agent import Agent\n"
            "agent = Agent(routes=[{'audience': sys.argv[1], 'tools': ['search']}])\n"
            "assert all(agent.fetch(sys.argv[2]).text == 'ok' for _ in range(2))"
        )
        command = [sys.executable, "-c", script, self.places["servers"]["A"], url]
        environment = {**os.environ, "OBOL_ENDPOINT_SOCKET": "unix://" + self.options["socket"]}
        running = [subprocess.Popen(command, env=environment) for _ in range(50)]
        self.assertEqual([process.wait() for process in running], [0] * 50)
        counts = self.world.counts()
        self.assertEqual((counts["violations"], len(counts["servers"]["A"])), ([], 100))


def outcome(agent: Agent, url: str, method: str) -> str:
    try:
        return agent.fetch(url, method=method, body="{}" if method == "POST" else None).text
    except AgentError as error:
        return error.code


if __name__ == "__main__":
    unittest.main()
