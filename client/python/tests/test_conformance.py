"""The rule book's cases (tests/vectors/sdk), against scripted daemons and servers that count: blocking, and with asyncio."""

from __future__ import annotations

import asyncio
import json
import os
import time
import traceback
import unittest
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from world import VECTORS, World

from obol_agent import Agent, AgentError, Approval, ApprovedCall, AsyncAgent, AsyncResponse, Response
from obol_agent._destination import Wanted, find_destination, read_routes, unknown_destination
from obol_agent._url import read_url

ONLY = os.environ.get("ONLY", "")
RESULT_NAMES = {"approvalId": "approval_id", "calls": "calls", "sessionId": "session_id", "agentInstanceId": "agent_instance_id", "algorithmSuite": "algorithm_suite",
                "agentId": "agent_id", "tool": "tool"}


def read(name: str) -> Any:
    return json.loads((VECTORS / "sdk" / name).read_text())


CODES = {error["code"] for error in read("errors.json")}


def destination(routes: Any, one: dict[str, Any]) -> dict[str, str]:
    url = read_url(one["url"])
    wanted = Wanted(one.get("method", "GET"), url, one.get("tool"), one.get("audience"))
    found = find_destination(read_routes(routes, strict=False), wanted)
    if found is None:
        raise unknown_destination(url)
    return {"url": str(found.send), "audience": found.audience, "tool": found.tool}


def approval(given: dict[str, Any]) -> Approval:
    given = {"show_arguments" if name == "showArguments" else name: value for name, value in given.items()}
    if "timeoutMs" in given:
        given["timeout"] = given.pop("timeoutMs") / 1000
    return Approval(on_prompt=lambda prompt: None, **given)


def fetch_options(options: dict[str, Any], is_async: bool) -> dict[str, Any]:
    names = {"idempotencyKey": "idempotency_key", "timeoutMs": "timeout", "approvalId": "approval_id"}
    found = {names.get(name, name): value for name, value in options.items() if name not in ("stream", "url")}
    if isinstance(options.get("approval"), dict):
        found["approval"] = approval(options["approval"])
    if "timeoutMs" in options:
        found["timeout"] = options["timeoutMs"] / 1000
    if options.get("stream"):
        text = options["body"].encode()

        async def pieces() -> Any:
            yield text[:3]
            yield text[3:]

        found["body"] = pieces() if is_async else iter([text[:3], text[3:]])
    return found


def list_options(options: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in options.items() if name in ("purpose", "count")}
    found["calls"] = [ApprovedCall(**call) for call in options["calls"]]
    if "lifetimeSeconds" in options:
        found["lifetime"] = options["lifetimeSeconds"]
    if "timeoutMs" in options:
        found["timeout"] = options["timeoutMs"] / 1000
    return {"on_prompt": lambda prompt: None, **found}


def draw_options(options: dict[str, Any]) -> dict[str, Any]:
    return {"approval_id" if name == "approvalId" else name: value for name, value in options.items()}


class Blocking:
    """How a call is made, and its answer read, by blocking."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.agent = Agent(**options)

    def perform(self, kind: str, options: dict[str, Any]) -> Any:
        if kind == "fetch":
            return self.agent.fetch(options["url"], **fetch_options(options, is_async=False))
        if kind == "register":
            return self.agent.register(on_prompt=lambda prompt: None, **options)
        if kind == "requestApproval":
            return self.agent.request_approval(**list_options(options))
        names = {"dequeueToken": "dequeue_token", "ensureAuthenticated": "ensure_authenticated"}
        return getattr(self.agent, names.get(kind, kind))(**draw_options(options))

    def all(self, kind: str, options: dict[str, Any], times: int) -> list[Any]:
        def one(_: int) -> Any:
            try:
                value = self.perform(kind, options)
                return (value, self.body(value) if isinstance(value, Response) else None)
            except AgentError as error:
                return error

        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(one, range(times)))

    @staticmethod
    def body(response: Response) -> Any:
        try:
            return response.text
        except AgentError as error:
            return error

    def close(self) -> None:
        self.agent.close()


class WithAsyncio:
    """The same with asyncio."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.agent = AsyncAgent(**options)

    async def perform(self, kind: str, options: dict[str, Any]) -> Any:
        try:
            if kind == "fetch":
                response = await self.agent.fetch(options["url"], **fetch_options(options, is_async=True))
                return response, await self.body(response)
            if kind == "register":
                return await self.agent.register(on_prompt=lambda prompt: None, **options), None
            if kind == "requestApproval":
                return await self.agent.request_approval(**list_options(options)), None
            names = {"dequeueToken": "dequeue_token", "ensureAuthenticated": "ensure_authenticated"}
            return await getattr(self.agent, names.get(kind, kind))(**draw_options(options)), None
        except AgentError as error:
            return error

    def all(self, kind: str, options: dict[str, Any], times: int) -> list[Any]:
        async def together() -> list[Any]:
            outcomes = await asyncio.gather(*(self.perform(kind, options) for _ in range(times)))
            await self.agent.close()
            return list(outcomes)

        return asyncio.run(together())

    @staticmethod
    async def body(response: AsyncResponse) -> Any:
        try:
            return await response.text()
        except AgentError as error:
            return error

    def close(self) -> None:
        pass


class Conformance(unittest.TestCase):
    def test_destinations(self) -> None:
        cases = 0
        for group in read("destinations.json"):
            for one in group["cases"]:
                cases += 1
                with self.subTest(group["what"], one=one):
                    if "to" in one:
                        self.assertEqual(destination(group["routes"], one), one["to"])
                    else:
                        with self.assertRaises(AgentError) as raised:
                            destination(group["routes"], one)
                        self.assertEqual(raised.exception.code, one["error"])
        self.assertGreater(cases, 100)

    def test_calls_blocking(self) -> None:
        self.run_file("calls.json", Blocking)

    def test_calls_with_asyncio(self) -> None:
        self.run_file("calls.json", WithAsyncio)

    def test_approvals_blocking(self) -> None:
        self.run_file("approvals.json", Blocking)

    def test_approvals_with_asyncio(self) -> None:
        self.run_file("approvals.json", WithAsyncio)

    def test_attacks_blocking(self) -> None:
        self.run_file("attacks.json", Blocking)

    def test_attacks_with_asyncio(self) -> None:
        self.run_file("attacks.json", WithAsyncio)

    def test_control_a_client_without_rules_is_seen(self) -> None:
        world = World()
        self.addCleanup(world.end)
        places = world.open({"servers": {"A": [], "B": []}})
        with Agent(socket=places["agentSocket"]) as agent:
            token = agent.dequeue_token("search").authorization()
        for name, value in (("A", token), ("B", token), ("A", "TBAC made-up")):
            request = urllib.request.Request(places["servers"][name], headers={"Authorization": value})
            urllib.request.urlopen(request).close()
        elsewhere = urllib.request.Request(places["servers"]["A"], headers={"Host": "evil.test"})
        urllib.request.urlopen(elsewhere).close()
        counts = world.counts()
        self.assertEqual(len(counts["violations"]), 3, counts["violations"])
        self.assertIn("sent twice: to A, then to B", counts["violations"][0])
        self.assertTrue(counts["servers"]["B"][0]["token"])

    def run_file(self, name: str, way: Any) -> None:
        self.world = world = World()
        self.addCleanup(world.end)
        for one in read(name):
            if ONLY in one["what"]:
                with self.subTest(one["what"]):
                    self.run_case(world, one, way)

    def run_case(self, world: World, one: dict[str, Any], way: Any) -> None:
        places = world.open(one["world"])
        options = {**world.filled(one.get("options", {})), "socket": places["agentSocket"], "auth_socket": places["authSocket"]}
        caller = way(options)
        ((kind, call),) = world.filled(one["call"]).items()
        began = time.monotonic()
        try:
            outcomes = caller.all(kind, call, one.get("together", 1))
            took = (time.monotonic() - began) * 1000
            for outcome in outcomes:
                self.check(one["expect"], outcome)
            self.assertSilent(caller.agent)
        finally:
            counts = world.close()
            caller.close()
        self.assertGreaterEqual(took, one.get("atLeastMs", 0))
        self.assertLessEqual(took, one.get("withinMs", 60_000))
        self.check_counts(one, counts)

    def assertSilent(self, value: Any) -> None:
        texts = [repr(value), str(value)]
        if isinstance(value, BaseException):
            texts += traceback.format_exception(value)
            while value is not None:
                texts += [repr(value), repr(value.args), repr(vars(value))]
                value = value.__context__ or value.__cause__
        for text in texts:
            self.assertNotIn("tok_", text)

    def check(self, expect: dict[str, Any], outcome: Any) -> None:
        if isinstance(outcome, AgentError):
            self.assertSilent(outcome)
            self.assertEqual(outcome.code, expect.get("error"), "".join(traceback.format_exception(outcome)))
            self.assertIn(outcome.code, CODES)
            return
        value, body = outcome
        self.assertSilent(value)
        self.assertNotIn("error", expect, f"{expect.get('error')} was expected, not {value!r}")
        if "status" in expect:
            self.assertEqual(value.status, expect["status"])
        if "bodyError" in expect:
            self.assertIsInstance(body, AgentError)
            self.assertEqual(body.code, expect["bodyError"])
        if "body" in expect:
            self.assertEqual(body, expect["body"])
        for member, wanted in expect.get("result", {}).items():
            self.assertEqual(getattr(value, RESULT_NAMES[member]), wanted)

    def check_counts(self, one: dict[str, Any], counts: dict[str, Any]) -> None:
        self.assertEqual(counts["violations"], [])
        if "drawn" in one:
            self.assertEqual(len(counts["drawn"]), one["drawn"], "drawn")
        for server, requests in counts["servers"].items():
            self.assertEqual(len(requests), one.get("servers", {}).get(server, 0), f"requests at {server}")
            for wanted, seen in zip(one.get("seen", {}).get(server, []), requests, strict=False):
                for member, value in wanted.items():
                    if member == "headers":
                        self.assertEqual({name: seen["headers"].get(name) for name in value}, value)
                    else:
                        self.assertEqual(seen[member], value, member)
        for method, times in one.get("authenticator", {}).items():
            self.assertEqual(counts["authenticator"].get(method, 0), times, method)
        for method, times in one.get("tqs", {}).items():
            self.assertEqual(counts["tqs"].get(method, 0), times, method)
        for told in ("told", "asked"):
            if told in one:
                self.assertEqual(counts[told], self.world.filled(one[told]), told)
        if "approvalIds" in one:
            self.assertEqual([drawn.get("approvalId") for drawn in counts["drawn"]], one["approvalIds"])
        if "popFor" in one:
            self.assertEqual([drawn.get("popFor") for drawn in counts["drawn"]], one["popFor"])


if __name__ == "__main__":
    unittest.main()
