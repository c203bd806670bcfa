"""The examples, with the libraries that they are for, against a scripted sidecar and API that count."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import unittest

from world import World

HERE = pathlib.Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
MCP_SERVER = [sys.executable, str(HERE / "mcp_server.py"), "{A}"]

#: What each prints and how many tokens it takes.
EXPECTED = {
    "first.py": ([], "200 found\n", 1),
    "langchain_tool.py": ([], "found\n", 1),
    "openai_tools.py": ([], "found\nUNKNOWN_DESTINATION: no token goes to ", 1),
    "httpx_client.py": ([], "found\nfound\n", 2),
    "requests_session.py": ([], "found\n", 1),
    "mcp_client.py": (MCP_SERVER, "found rows of march\nfound rows of may\n", 2),
}


def model() -> tuple[subprocess.Popen[str], dict[str, str]]:
    """A model's service, and where the examples find it."""
    server = subprocess.Popen([sys.executable, str(HERE / "model_server.py")], stdout=subprocess.PIPE, text=True)
    assert server.stdout
    return server, {"OPENAI_BASE_URL": server.stdout.readline().strip(), "OPENAI_API_KEY": "none"}


class Examples(unittest.TestCase):
    def test_each_is_here(self) -> None:
        self.assertEqual({path.name for path in EXAMPLES.glob("*.py")}, set(EXPECTED))

    def test_each_does_what_it_says(self) -> None:
        server, of_model = model()
        self.addCleanup(server.communicate)
        self.addCleanup(server.kill)
        for name, (arguments, said, tokens) in EXPECTED.items():
            with self.subTest(name):
                world = World()
                self.addCleanup(world.end)
                places = world.open({"servers": {"A": [{"body": "found"}]}})
                environment = {**os.environ, **of_model, "API": places["servers"]["A"], "OBOL_ENDPOINT_SOCKET": places["agentSocket"]}
                command = [sys.executable, str(EXAMPLES / name), *world.filled(arguments)]
                run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
                self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
                self.assertTrue(run.stdout.startswith(said), run.stdout)
                self.assertNotIn("tok_", run.stdout + run.stderr)
                counts = world.counts()
                self.assertEqual((counts["violations"], len(counts["drawn"])), ([], tokens))
                self.assertEqual([request["token"] for request in counts["servers"]["A"]], [True] * tokens)


if __name__ == "__main__":
    unittest.main()
