"""A real headless Chromium, driven over its DevTools protocol, for tests of the pages that owlcap writes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tools.fetch_chromium import NAMES, TARGET

FLAGS = """
--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-extensions --remote-debugging-port=0
"""
START_S = 60.0
CALL_S = 60.0


def find_browser() -> list[str] | None:
    """The command of a Chromium on this machine: $OWLCAP_CHROMIUM, on the PATH, or the fetched one."""
    named = os.environ.get("OWLCAP_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if named:
        return [named]
    fetched = TARGET / "chromium"
    # That build is one process: its helpers need what a bare machine lacks.
    return [str(fetched), "--single-process", "--no-zygote"] if fetched.exists() else None


class Browser:
    """One tab. `problems` are uncaught errors and error messages of the console, `requests` every address asked for."""

    def __init__(self, folder: Path) -> None:
        command = find_browser()
        assert command is not None
        env = os.environ | {"LD_LIBRARY_PATH": str(TARGET / "lib"), "FONTCONFIG_PATH": str(TARGET)}
        self._process = subprocess.Popen(
            [*command, *FLAGS.split(), f"--user-data-dir={folder}", "about:blank"],
            env=env if command[0].startswith(str(TARGET)) else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._socket = connect(self._address(), max_size=None, open_timeout=START_S)
        self._ids = itertools.count(1)
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=CALL_S))
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer}"
                return answer["result"]
            self._events.append(answer)

    def open(self, page: Path, width: int = 1280, dark: bool = False) -> None:
        """Load a file into the tab, forgetting the events of the page before."""
        self.look(width, dark)
        self._events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(json.loads(self._socket.recv(timeout=CALL_S)))

    def look(self, width: int, dark: bool = False, height: int = 900) -> None:
        """Set the window's size and whether the reader likes dark pages."""
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release one key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def point(self, x: float, y: float) -> None:
        """Move the mouse to a place in the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    @property
    def problems(self) -> list[str]:
        """Of the page that is open."""
        found = []
        for event in self._events:
            details = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(details["exceptionDetails"]["text"])
            elif event.get("method") == "Log.entryAdded" and details["entry"]["level"] == "error":
                found.append(details["entry"]["text"])
            elif event.get("method") == "Runtime.consoleAPICalled" and details["type"] == "error":
                found.append(str(details["args"]))
        return found

    @property
    def requests(self) -> list[str]:
        """Of the page that is open; pictures within the page are not counted."""
        asked = (event for event in self._events if event.get("method") == "Network.requestWillBeSent")
        urls = [event["params"]["request"]["url"] for event in asked]
        return [url for url in urls if not url.startswith("data:")]

    def close(self) -> None:
        """End the browser, whatever state it is in."""
        try:
            self._session = None
            self.call("Browser.close")
            self._socket.close()
            self._process.wait(timeout=START_S)
        finally:
            self._process.kill()
            self._process.wait()

    def _address(self) -> str:
        """Read from what the browser says as it starts; what it says later is read and dropped."""
        assert self._process.stderr is not None
        too_long = threading.Timer(START_S, self._process.kill)
        too_long.start()
        said = []
        for line in self._process.stderr:
            said.append(line)
            if match := re.search(r"DevTools listening on (ws://\S+)", line):
                too_long.cancel()
                threading.Thread(target=self._process.stderr.read, daemon=True).start()
                return match[1]
        raise AssertionError(f"the browser did not start: {''.join(said)}")
