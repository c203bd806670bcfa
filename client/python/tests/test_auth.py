"""``ObolAuth`` in the real httpx and requests: a token of its own for each request, and for nothing else."""

from __future__ import annotations

import asyncio
import copy
import pickle
import traceback
import unittest
from collections.abc import Callable
from typing import Any

import httpx
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry
from world import World

from obol_agent import Agent, AgentError, AsyncAgent, ObolAuth

ROUTES = [[{"audience": "{A}", "tools": ["search"]}]]
STOLEN = {"status": 401, "problem": "TOKEN_REPLAYED"}
BUSY = {"status": 503, "headers": {"Retry-After": "0"}, "body": ""}
#: Where a transport sends again by itself: what the server does first, and who sends again after that.
AGAIN: list[tuple[dict[str, Any], Any]] = [
    ({"status": 503, "body": ""}, Retry(total=3, status_forcelist=[503], allowed_methods=None, backoff_factor=0)),
    (BUSY, 3),
    ({"cut": 0}, Retry(total=3, read=3, allowed_methods=None, backoff_factor=0)),
    ({"cut": 5}, 3),
]


class Auth(unittest.TestCase):
    def opened(self, steps: list[Any], **more: Any) -> str:
        self.world = World()
        self.addCleanup(self.world.end)
        places = self.world.open({"servers": {"A": steps, "B": []}, **more})
        self.origin, self.other = places["servers"]["A"], places["servers"]["B"]
        routes = [{"audience": self.origin, "tools": ["search"]}]
        self.options: dict[str, Any] = {"socket": places["agentSocket"], "auth_socket": places["authSocket"], "routes": routes}
        self.agent = Agent(**self.options)
        self.addCleanup(self.agent.close)
        return self.origin + "/x"

    def seen(self) -> list[Any]:
        counts = self.world.counts()
        self.assertEqual(counts["violations"], [])
        return [(request["target"], request["token"]) for request in counts["servers"]["A"]]

    def client(self, **options: Any) -> httpx.Client:
        client = httpx.Client(auth=ObolAuth(self.agent), **options)
        self.addCleanup(client.close)
        return client

    def session(self, again: Any = 0, auth: Any = None) -> requests.Session:
        session = requests.Session()
        session.auth = auth or ObolAuth(self.agent)
        session.mount("http://", HTTPAdapter(max_retries=again))
        self.addCleanup(session.close)
        return session

    def calls(self, **options: Any) -> dict[str, Callable[[str], Any]]:
        """A call by each library."""

        def with_asyncio(url: str) -> Any:
            async def call() -> Any:
                transport = httpx.AsyncHTTPTransport(retries=2)
                async with AsyncAgent(**self.options) as agent, httpx.AsyncClient(auth=ObolAuth(agent), transport=transport, **options) as client:
                    return await client.post(url, json={"q": 1})

            return asyncio.run(call())

        def with_httpx(url: str) -> Any:
            return self.client(transport=httpx.HTTPTransport(retries=2), **options).post(url, json={"q": 1})

        return {"requests": lambda url: self.session().post(url, json={"q": 1}), "httpx": with_httpx, "asyncio": with_asyncio}

    def assertSilent(self, error: BaseException) -> None:
        """Neither an error nor the request that it holds shows a token."""
        texts = traceback.format_exception(error)
        found: BaseException | None = error
        while found is not None:
            texts += [repr(found), str(found), repr(found.args), repr(vars(found))]
            request = getattr(found, "request", None)
            if request is not None:
                texts += [repr(request.headers), repr(dict(request.headers)), repr(list(request.headers.items())), repr(vars(request))]
                texts += [f"{name}: {value}" for name, value in request.headers.items()]
                texts += [pickle.dumps(request.headers).decode("latin-1"), repr(copy.deepcopy(request.headers))]
            found = found.__context__ or found.__cause__
        for text in texts:
            self.assertNotIn("tok_", text)

    def test_httpx_draws_for_each_request(self) -> None:
        url = self.opened([])
        client = self.client()
        self.assertEqual([client.get(url).text, client.post(url, json={"q": 1}).text], ["ok", "ok"])
        self.assertEqual(self.seen(), [("/x", True)] * 2)

    def test_requests_draws_for_each_request(self) -> None:
        url = self.opened([])
        session = self.session()
        self.assertEqual([session.get(url).text, session.post(url, json={"q": 1}).text], ["ok", "ok"])
        self.assertEqual(self.seen(), [("/x", True)] * 2)

    def test_httpx_with_asyncio(self) -> None:
        url = self.opened([])

        async def calls() -> list[str]:
            async with AsyncAgent(**self.options) as agent, httpx.AsyncClient(auth=ObolAuth(agent)) as client:
                return [(await client.get(url)).text, (await client.post(url, json={"q": 1})).text]

        self.assertEqual(asyncio.run(calls()), ["ok", "ok"])
        self.assertEqual(self.seen(), [("/x", True)] * 2)

    def test_a_redirect_that_httpx_follows_carries_no_token(self) -> None:
        url = self.opened([{"status": 302, "headers": {"Location": "/y"}}, {}])
        self.assertEqual(self.client(follow_redirects=True).get(url).text, "ok")
        self.assertEqual(self.seen(), [("/x", True), ("/y", False)])

    def test_a_redirect_that_httpx_follows_with_asyncio_carries_no_token(self) -> None:
        url = self.opened([{"status": 302, "headers": {"Location": "/y"}}, {}])

        async def call() -> str:
            async with AsyncAgent(**self.options) as agent:
                async with httpx.AsyncClient(auth=ObolAuth(agent), follow_redirects=True) as client:
                    return (await client.get(url)).text

        self.assertEqual(asyncio.run(call()), "ok")
        self.assertEqual(self.seen(), [("/x", True), ("/y", False)])

    def test_a_redirect_that_requests_follows_carries_no_token(self) -> None:
        for location in ("/y", "{B}/y"):
            url = self.opened([{"status": 302, "headers": {"Location": location}}, {}])
            self.assertEqual(self.session().get(url).text, "ok")
            self.assertEqual(self.seen()[0], ("/x", True))
            self.assertFalse(any(token for _, token in self.seen()[1:]))
            self.assertFalse(any(request["token"] for request in self.world.counts()["servers"]["B"]))

    def test_requests_sends_no_token_twice_whatever_its_transport_is_told(self) -> None:
        for step, again in AGAIN:
            for method in ("GET", "PUT", "POST"):
                with self.subTest(step=step, again=again, method=method):
                    url = self.opened([step, STOLEN], authenticator={"routes": ROUTES})
                    try:
                        self.session(again).request(method, url, json={"q": 1})
                    except AgentError as error:
                        self.assertEqual(error.code, "OUTCOME_UNKNOWN")
                        self.assertSilent(error)
                    except requests.ConnectionError as error:
                        self.assertEqual(method, "POST", "what urllib3 does not send again by itself")
                        self.assertSilent(error)
                    counts = self.world.counts()
                    self.assertEqual((self.seen(), counts["told"]), ([("/x", True)], []))

    def test_control_a_token_by_hand_is_sent_twice_where_requests_is_told_to(self) -> None:
        for step, again in AGAIN:
            url = self.opened([step, {}])
            authorization = self.agent.dequeue_token("search").authorization()
            session = self.session(again, auth=lambda request: request)
            session.get(url, headers={"Authorization": authorization})
            self.assertIn("sent twice", self.world.counts()["violations"][0])

    def test_what_requests_could_not_send_is_not_sent_later(self) -> None:
        self.opened("closed")  # type: ignore[arg-type]
        with self.assertRaises(AgentError) as raised:
            self.session(Retry(connect=3, backoff_factor=0)).post(self.origin + "/x", json={})
        self.assertEqual(raised.exception.code, "OUTCOME_UNKNOWN")
        self.assertSilent(raised.exception)
        self.assertEqual(len(self.world.counts()["drawn"]), 1)

    def test_a_request_that_was_sent_and_is_sent_again_by_hand_carries_no_token(self) -> None:
        url = self.opened([{"cut": 0}, {}])
        session = self.session()
        prepared = session.prepare_request(requests.Request("POST", url, json={"q": 1}))
        twin = prepared.copy()
        with self.assertRaises(requests.ConnectionError):
            session.send(prepared)
        for request in (prepared, twin, prepared.copy()):
            with self.assertRaises(AgentError):
                session.send(request)
        self.assertEqual(session.send(copy.deepcopy(twin)).status_code, 200)
        counts = self.world.counts()
        self.assertEqual([request["token"] for request in counts["servers"]["A"]], [True, False])
        self.assertEqual(counts["violations"], ["A: not one token that was drawn"], "the text of a copy is no token")

    def test_httpx_sends_no_token_twice(self) -> None:
        class Again(httpx.BaseTransport):
            """A transport that sends again whatever went wrong."""

            def __init__(self) -> None:
                self.inner = httpx.HTTPTransport(retries=2)

            def handle_request(self, request: httpx.Request) -> httpx.Response:
                try:
                    return self.inner.handle_request(request)
                except httpx.TransportError:
                    return self.inner.handle_request(request)

            def close(self) -> None:
                self.inner.close()

        for step in ({"cut": 0}, {"cut": 5}):
            url = self.opened([step, {}], authenticator={"routes": ROUTES})
            self.assertEqual(self.client(transport=Again()).post(url, json={}).status_code, 200)
            self.assertEqual((self.seen(), self.world.counts()["told"]), ([("/x", True), ("/x", False)], []))
        for name, call in self.calls().items():
            with self.subTest(name):
                url = self.opened([{"cut": 0}, {}])
                with self.assertRaises((httpx.TransportError, requests.ConnectionError)):
                    call(url)
                self.assertEqual(self.seen(), [("/x", True)])

    def test_no_error_of_a_connection_that_is_cut_shows_a_token(self) -> None:
        for name in self.calls():
            with self.subTest(name):
                url = self.opened([{"cut": 0}], tqs={"dequeueToken": [{"token": {"pop": True}}]})
                with self.assertRaises((httpx.TransportError, requests.ConnectionError)) as raised:
                    self.calls()[name](url)
                self.assertSilent(raised.exception)
                proof = getattr(raised.exception, "request").headers.get("TBAC-PoP")
                self.assertIn(proof, (None, "redacted"))

    def test_no_error_of_a_connection_that_is_refused_shows_a_token(self) -> None:
        for name in self.calls():
            with self.subTest(name):
                self.opened("closed")  # type: ignore[arg-type]
                with self.assertRaises((httpx.ConnectError, requests.ConnectionError)) as raised:
                    self.calls()[name](self.origin + "/x")
                self.assertSilent(raised.exception)
                self.assertEqual(len(self.world.counts()["drawn"]), 1)

    def test_a_token_that_somebody_else_spent_is_told(self) -> None:
        for name in self.calls():
            with self.subTest(name):
                url = self.opened([STOLEN], authenticator={"routes": ROUTES})
                self.assertEqual(self.calls()[name](url).status_code, 401)
                self.assertEqual(len(self.world.counts()["told"]), 1)

    def test_who_is_redirected_to_tells_of_no_theft(self) -> None:
        for name in self.calls():
            with self.subTest(name):
                url = self.opened([{"status": 302, "headers": {"Location": "/y"}, "body": ""}, STOLEN], authenticator={"routes": ROUTES})
                follows = {} if name == "requests" else {"follow_redirects": True}
                self.assertEqual(self.calls(**follows)[name](url).status_code, 401)
                self.assertEqual((self.seen(), self.world.counts()["told"]), ([("/x", True), ("/y", False)], []))

    def test_nothing_goes_to_a_place_that_the_session_does_not_name(self) -> None:
        self.opened([])
        for library in (self.client(), self.session()):
            with self.assertRaises(AgentError) as raised:
                library.get(self.other + "/x")
            self.assertEqual(raised.exception.code, "UNKNOWN_DESTINATION")
        counts = self.world.counts()
        self.assertEqual((counts["drawn"], counts["servers"]["B"]), ([], []))

    def test_a_proof_goes_along(self) -> None:
        url = self.opened([], tqs={"dequeueToken": [{"token": {"pop": True}}]})
        self.client().post(url, json={"q": 1})
        self.session().post(url, data='{"q": 1}')
        counts = self.world.counts()
        self.assertEqual(counts["violations"], [])
        hashes = {drawn["popFor"] for drawn in counts["drawn"]}
        self.assertEqual(len(hashes), 1, "the same arguments, however they are written")

    def test_a_tool_with_sealed_bodies_is_refused(self) -> None:
        url = self.opened([], tqs={"dequeueToken": [{"token": {"channel": "AES-256-GCM"}}]})
        for library in (self.client(), self.session()):
            with self.assertRaises(AgentError) as raised:
                library.post(url, json={})
            self.assertEqual(raised.exception.code, "CHANNEL_UNSUPPORTED")
        self.assertEqual(self.seen(), [])


if __name__ == "__main__":
    unittest.main()
