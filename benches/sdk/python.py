"""`fetch` of `obol_agent` beside the platform's `http.client`, in turns, one call after another on connections that are kept."""

import http.client
import os
import subprocess
import sys
import time
from urllib.parse import urlsplit

from obol_agent import Agent

ORIGIN = os.environ["URL_OF_SERVER"]
CALLS = int(os.environ.get("CALLS", "5000"))
WARM_UP = 500

agent = Agent(routes=[{"audience": "https://api.example", "url": ORIGIN, "tools": ["search"]}])
connection = http.client.HTTPConnection("127.0.0.1", urlsplit(ORIGIN).port or 80)


def platform() -> bytes:
    connection.request("GET", "/x")
    return connection.getresponse().read()


def own() -> bytes:
    return agent.fetch(ORIGIN + "/x").read()


took: dict[str, list[float]] = {"platform": [], "agent": []}
for call in range(WARM_UP + CALLS):
    for name, act in (("platform", platform), ("agent", own)):
        began = time.perf_counter_ns()
        assert act() == b"ok"
        if call >= WARM_UP:
            took[name].append((time.perf_counter_ns() - began) / 1_000)
for name, times in took.items():
    times.sort()
    print(f"python  {name:9} p50 {times[len(times) // 2]:.0f} µs, p99 {times[len(times) * 99 // 100]:.0f} µs")
print(f"python  added     p50 {took['agent'][CALLS // 2] - took['platform'][CALLS // 2]:.0f} µs")


def import_ms() -> float:
    """Of a fresh interpreter, without what the interpreter itself takes to start."""
    said = subprocess.run([sys.executable, "-X", "importtime", "-c", "import obol_agent"], check=True, capture_output=True, text=True)
    line = next(line for line in said.stderr.splitlines() if line.rsplit("|", 1)[-1].strip() == "obol_agent")
    return int(line.split("|")[1]) / 1_000


print(f"python  import    p50 {sorted(import_ms() for _ in range(21))[10]:.0f} ms")
