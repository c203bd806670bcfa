"""The scripted world of tests/vectors/sdk, as a child process that answers a line with a line."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

VECTORS = pathlib.Path(__file__).parents[3] / "tests" / "vectors"


class World:
    def __init__(self) -> None:
        script = [sys.executable, str(VECTORS / "sdk" / "world.py")]
        self._child = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._opened: dict[str, Any] = {}

    def _say(self, step: Any) -> dict[str, Any]:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.write(json.dumps(step) + "\n")
        self._child.stdin.flush()
        answer: dict[str, Any] = json.loads(self._child.stdout.readline())
        return answer

    def open(self, world: Any) -> dict[str, Any]:
        """Opens a world; gives its places."""
        self._opened = self._say({"open": world})
        return self._opened

    def counts(self) -> dict[str, Any]:
        """What was seen so far."""
        return self._say("counts")

    def close(self) -> dict[str, Any]:
        return self._say("close")

    def filled(self, value: Any) -> Any:
        """``{A}`` and ``{A.port}`` put in, anywhere in a value."""
        text = json.dumps(value)
        for name, origin in self._opened["servers"].items():
            text = text.replace(f"{{{name}}}", origin).replace(f"{{{name}.port}}", str(urlsplit(origin).port))
        return json.loads(text)

    def end(self) -> None:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.close()
        self._child.wait()
        self._child.stdout.close()
