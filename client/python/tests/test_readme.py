"""The lines of README.md run as they stand, but for the API's name."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import unittest
from typing import Any

from world import World

README = pathlib.Path(__file__).parents[1] / "README.md"


class Readme(unittest.TestCase):
    def test_the_lines_for_an_agent(self) -> None:
        lines = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL))
        world = World()
        self.addCleanup(world.end)
        routes = [[{"audience": "{A}", "tools": ["search"]}]]
        places = world.open({"servers": {"A": [{"body": "found"}]}, "authenticator": {"routes": routes}})
        os.environ |= {"OBOL_ENDPOINT_SOCKET": places["agentSocket"], "OBOL_AUTH_SOCKET": places["authSocket"]}
        seen: dict[str, Any] = {"send": lambda query, authorization: f"{query} with {authorization[:9]}"}
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(lines.replace("https://api.example", places["servers"]["A"]), seen)
        self.addCleanup(seen["agent"].close)
        self.assertEqual(said.getvalue(), "200 found\nToken('mcp:git_push', redacted)\n")
        self.assertTrue(seen["status"].session_active)
        self.assertEqual(seen["info"].algorithm_suite, 2)
        self.assertEqual(seen["search"]("rows"), "rows with TBAC tok_")
        counts = world.counts()
        self.assertEqual(counts["violations"], [])
        self.assertEqual([drawn["tool"] for drawn in counts["drawn"]], ["search", "mcp:git_push", "search", "search"])


if __name__ == "__main__":
    unittest.main()
