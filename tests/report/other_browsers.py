"""Firefox and WebKit through their automation protocols, as far as a test of a page needs it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.processes import Processes
from tests.sweeps.helpers import wait_until


class Tab(Protocol):
    """A page in a browser."""

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, which may be a promise."""

    def perform(self, source: dict[str, Any]) -> None:
        """Move the mouse or press keys: an input source of WebDriver with its actions."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class FirefoxTab:
    """A tab of Firefox, through WebDriver BiDi: JSON messages in a WebSocket."""

    def __init__(self, connection: Any, file: Path) -> None:
        self._connection = connection
        self._number = 0
        self._send("session.new", {"capabilities": {}})
        # The first tab of a headless Firefox never has the focus, so that keys press no buttons.
        self._context = self._send("browsingContext.create", {"type": "tab"})["context"]
        place = {"context": self._context, "url": file.as_uri(), "wait": "complete"}
        self._send("browsingContext.navigate", place)

    def _send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._connection.send(json.dumps(message))
        while (answer := json.loads(self._connection.recv(timeout=60))).get("id") != self._number:
            pass
        assert answer["type"] == "success", answer
        result: dict[str, Any] = answer["result"]
        return result

    def evaluate(self, expression: str) -> Any:
        target = {"context": self._context}
        params = {"expression": expression, "target": target, "awaitPromise": True}
        answer = self._send("script.evaluate", params)
        assert answer["type"] == "success", answer
        return answer["result"].get("value")

    def perform(self, source: dict[str, Any]) -> None:
        self._send("input.performActions", {"context": self._context, "actions": [source]})


def press(tab: Tab, selector: str, key: str) -> None:
    """Focus an element and press a key, as WebDriver encodes it."""
    tab.evaluate(f"document.querySelector({selector!r}).focus()")
    strokes = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
    tab.perform({"type": "key", "id": "keys", "actions": strokes})


def drag(tab: Tab, selector: str, points: Sequence[tuple[float, float]]) -> None:
    """Drag the mouse along points of an element, from (0, 0) to (1, 1)."""
    box = f"document.querySelector({selector!r}).getBoundingClientRect()"
    left, top, width, height = (
        tab.evaluate(f"{box}.{name}") for name in ("left", "top", "width", "height")
    )
    first, *others = [
        {"type": "pointerMove", "x": round(left + x * width), "y": round(top + y * height)}
        for x, y in points
    ]
    actions = [
        first,
        {"type": "pointerDown", "button": 0},
        *others,
        {"type": "pointerUp", "button": 0},
    ]
    tab.perform({"type": "pointer", "id": "mouse", "actions": actions})


@contextmanager
def firefox(processes: Processes, file: Path, profile: Path) -> Iterator[Tab]:
    """Open a file in a headless Firefox; skip the test if it is not installed."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("needs Firefox: on Debian, apt-get install firefox-esr")
    client = pytest.importorskip("websockets.sync.client", reason="needs websockets")
    port, active = free_port(), profile / "WebDriverBiDiServer.json"
    profile.mkdir()
    options = ["--headless", "--no-remote", f"--remote-debugging-port={port}"]
    env = {**os.environ, "HOME": str(profile)}
    words = [program, *options, "--profile", str(profile)]
    processes.start(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(active.exists)
    with client.connect(f"ws://127.0.0.1:{port}/session", max_size=None) as connection:
        yield FirefoxTab(connection, file)


class WebKitTab:
    """A tab of WebKitGTK, through WebDriver: JSON in HTTP requests."""

    def __init__(self, address: str, file: Path) -> None:
        self._address = address
        options = {"webkitgtk:browserOptions": {"args": ["--automation"]}}
        created = self._post("", {"capabilities": {"alwaysMatch": options}})
        self._address = f"{address}/{created['sessionId']}"
        self._post("/url", {"url": file.as_uri()})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, data, kind)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def evaluate(self, expression: str) -> Any:
        script = f"const done = arguments[0]; Promise.resolve({expression}).then(done);"
        return self._post("/execute/async", {"script": script, "args": []})

    def perform(self, source: dict[str, Any]) -> None:
        self._post("/actions", {"actions": [source]})


@contextmanager
def webkit(processes: Processes, file: Path) -> Iterator[Tab]:
    """Open a file in WebKitGTK; skip the test if it is not installed."""
    driver, display = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")
    if driver is None or display is None:
        pytest.skip("needs WebKit: on Debian, apt-get install webkit2gtk-driver xvfb")
    screen, port = f":{100 + free_port() % 900}", free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes.start([display, screen, "-nolisten", "tcp"], **quiet)
    wait_until(Path(f"/tmp/.X11-unix/X{screen[1:]}").exists)
    env = {**os.environ, "DISPLAY": screen, "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1"}
    processes.start([driver, f"--port={port}"], env=env, **quiet)
    wait_until(lambda: is_open(port))
    yield WebKitTab(f"http://127.0.0.1:{port}/session", file)
