"""Debian's Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = "/usr/bin/chromium"
WAIT_S = 30
FLAGS = (
    "--headless=new",
    # Tests run as root in a container, where its sandbox cannot be set up.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-port=0",
)
_MESSAGES = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


class Chromium:
    """One tab of a browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session = ""
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        # What the browser has to complain about, as in its console.
        self.complaints: list[str] = []

    async def begin(self) -> None:
        """Open the tab."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            await self.call(f"{domain}.enable")

    async def listen(self) -> None:
        """Take what the browser says, until it hangs up."""
        async for message in self._socket:
            told = json.loads(message.data)
            future = self._waiting.pop(told.get("id", 0), None)
            if future is not None and not future.done():
                future.set_result(told)
            elif told.get("method") == "Page.loadEventFired":
                self._loaded.set()
            elif told.get("method") in _MESSAGES:
                self.complaints.append(json.dumps(told["params"]))

    async def call(self, method: str, **params: Any) -> Any:
        """One command; fails when the browser refuses it."""
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        async with asyncio.timeout(WAIT_S):
            await self._socket.send_json(message)
            told = await future
        assert "error" not in told, (method, told)
        return told["result"]

    async def look(self, *, width: int, dark: bool) -> None:
        """How wide the window is, and whether people want it dark."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, url: str) -> None:
        """Go there, and wait until all of it is loaded."""
        self._loaded.clear()
        told = await self.call("Page.navigate", url=url)
        assert "errorText" not in told, told
        async with asyncio.timeout(WAIT_S):
            await self._loaded.wait()

    async def ask(self, expression: str) -> Any:
        """What an expression is worth on the page."""
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def press(self, key: str) -> None:
        """A key, such as Tab."""
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def roles(self) -> list[tuple[str, str]]:
        """(role, name) of all that a screen reader is told."""
        tree = await self.call("Accessibility.getFullAXTree")
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in tree["nodes"]
            if not node["ignored"]
        ]

    async def picture(self, path: Path) -> None:
        """All of the page as a PNG."""
        told = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))


@contextlib.asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Chromium]:
    """A browser with a profile of its own while the block runs."""
    log = folder / "chromium.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
    try:
        url = await _address(process, folder / "profile" / "DevToolsActivePort", log)
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            tab = Chromium(socket)
            listening = asyncio.create_task(tab.listen())
            await tab.begin()
            yield tab
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(WAIT_S):
            await process.wait()


async def _address(process: asyncio.subprocess.Process, note: Path, log: Path) -> str:
    async with asyncio.timeout(WAIT_S):
        while not (note.exists() and len(lines := note.read_text().splitlines()) == 2):
            assert process.returncode is None, log.read_text()[-2000:]
            await asyncio.sleep(0.05)
    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
