"""The wheel: built from a copy of the package, installed where nothing else is, and used there."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import venv
import zipfile
from typing import Any

from world import World

PACKAGE = pathlib.Path(__file__).parents[1]
#: What takes long to import, and is not needed to begin with.
SLOW_TO_IMPORT = {"asyncio", "ctypes", "email", "http.client", "inspect", "logging", "ssl", "urllib.request"}

USE = """
import sys
from obol_agent import Agent, AgentError
socket, origin, *sealed = sys.argv[1:]
agent = Agent(socket=socket, routes=[{"audience": origin, "tools": ["search"], **({"sealed": True} if sealed else {})}])
for _ in range(2):
    try:
        print(agent.fetch(origin + "/x", method="POST", json={}).text)
    except AgentError as error:
        print(error.code, "obol-agent[channel]" in str(error))
"""


def run(*command: Any) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="obol-wheel-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        source = cls.folder / "source"
        shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", cls.folder, source)
        (cls.wheel,) = cls.folder.glob("*.whl")
        venv.create(cls.folder / "env", with_pip=False)
        cls.python = cls.folder / "env/bin/python"
        run(sys.executable, "-m", "pip", "--python", cls.python, "install", "--quiet", "--no-index", "--no-deps", cls.wheel)

    def test_the_wheel_holds_the_package_and_its_types_and_asks_for_nothing(self) -> None:
        with zipfile.ZipFile(self.wheel) as wheel:
            names = wheel.namelist()
            (metadata,) = (wheel.read(name).decode() for name in names if name.endswith("METADATA"))
        self.assertIn("obol_agent/py.typed", names)
        self.assertTrue(all(name.startswith(("obol_agent/", "obol_agent-")) for name in names), names)
        self.assertNotIn("test", " ".join(names))
        needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]
        self.assertEqual(needed, ['Requires-Dist: cryptography>=42; extra == "channel"'])

    def used(self, *more: str, **world: Any) -> tuple[str, dict[str, Any]]:
        scripted = World()
        self.addCleanup(scripted.end)
        places = scripted.open({"servers": {"A": []}, **world})
        said = run(self.python, "-c", USE, places["agentSocket"], places["servers"]["A"], *more)
        return said, scripted.counts()

    def test_it_works_where_nothing_else_is_installed(self) -> None:
        said, counts = self.used()
        self.assertEqual((said, len(counts["drawn"]), counts["violations"]), ("ok\nok\n", 2, []))
        self.assertEqual(counts["tqs"], {"tokenStatus": 1, "dequeueToken": 2})

    def test_a_tool_with_sealed_bodies_is_refused_before_anything_is_drawn(self) -> None:
        tqs: dict[str, Any] = {"dequeueToken": [{"token": {"channel": "AES-256-GCM"}}]}
        said, counts = self.used("sealed", tqs=tqs)
        self.assertEqual((said, counts["drawn"], counts["tqs"]), ("CHANNEL_UNSUPPORTED True\n" * 2, [], {}))
        # Where the route does not say so, the sidecar does; it is asked once.
        said, counts = self.used(tqs=tqs)
        self.assertEqual((said, counts["drawn"], counts["tqs"]), ("CHANNEL_UNSUPPORTED True\n" * 2, [], {"tokenStatus": 1}))
        # Where it cannot say so, one draw finds out.
        said, counts = self.used(tqs={**tqs, "tokenStatus": [{"error": {"code": "INVALID_ARGUMENT"}}]})
        self.assertEqual((said, len(counts["drawn"]), counts["servers"]["A"]), ("CHANNEL_UNSUPPORTED True\n" * 2, 1, []))

    def test_importing_it_brings_in_little(self) -> None:
        """What takes long to import comes once it is used. How long that is now is printed, and depends on the machine."""
        command = [str(self.python), "-X", "importtime", "-c", "import obol_agent"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()
        names = {line.split("|")[2].strip() for line in lines if line.count("|") == 2}
        self.assertIn("obol_agent", names)
        micros = int(next(line.split("|")[1] for line in lines if line.endswith("| obol_agent")))
        print(f"import obol_agent: {micros / 1000:.1f} ms", file=sys.stderr)
        self.assertEqual(names & SLOW_TO_IMPORT, set())


class Types(unittest.TestCase):
    def test_mypy_finds_nothing_in_strict_mode(self) -> None:
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, "src/obol_agent"]
            checked = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)


if __name__ == "__main__":
    unittest.main()
