"""``ObolAuth`` in the real httpx and requests: a token of its own for each request, and for nothing else."""

from __future__ import annotations

import asyncio
import unittest
from typing import Any

import httpx
import requests
from world import World

from obol_agent import Agent, AgentError, AsyncAgent, ObolAuth


class Auth(unittest.TestCase):
    def opened(self, steps: list[Any], **more: Any) -> str:
        self.world = World()
        self.addCleanup(self.world.end)
        places = self.world.open({"servers": {"A": steps, "B": []}, **more})
        self.origin, self.other = places["servers"]["A"], places["servers"]["B"]
        self.options: dict[str, Any] = {"socket": places["agentSocket"], "routes": [{"audience": self.origin, "tools": ["search"]}]}
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

    def session(self) -> requests.Session:
        session = requests.Session()
        session.auth = ObolAuth(self.agent)
        self.addCleanup(session.close)
        return session

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
