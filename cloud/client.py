"""Calls to the running cloud by the commands, over its API with the pinned transport CA."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from cloud.config import Config
from cloud.errors import CloudError, ConfigError

TIMEOUT_S = 60
# A command that makes many calls waits where it was too fast.
TOO_MANY, AGAIN_S, TRIES_MAX = 429, 1, 10
TOKEN_BYTES_MAX = 4096


class Api:
    """The API of the cloud in a folder."""

    def __init__(
        self, config: Config, token_file: Path | None = None, *, timeout_s: int = TIMEOUT_S
    ) -> None:
        self._config = config
        self._timeout_s = timeout_s
        self._token_file = token_file

    async def get(self, path: str, *, port: str = "api_port") -> Any:
        """Raises: CloudError with the code of the problem; `cloud-silent`."""
        return await self._send("GET", path, port=port)

    async def pages(self, path: str, name: str) -> AsyncIterator[dict[str, Any]]:
        """The lines of a list that comes in pages, under `name` in each. Raises: as `get`."""
        first = 0
        while lines := (await self.get(f"{path}?first={first}"))[name]:
            for line in lines:
                yield line
            first += len(lines)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Raises: as `get`."""
        return await self._call("POST", path, body)

    async def post_report(self, path: str, sealed: bytes) -> Any:
        """A sealed report, at the port of gateways. Raises: as `get`."""
        content = aiohttp.BytesPayload(sealed, content_type="application/cbdc-sync")
        return await self._send("POST", path, port="gateway_port", data=content)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        return await self._send(method, path, port="api_port", json=body)

    async def _send(
        self, method: str, path: str, *, port: str, tries_left: int = TRIES_MAX, **content: Any
    ) -> Any:
        number, tls = self._reach(port)
        headers = {} if self._token_file is None else _bearer(self._token_file)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        url = f"https://{self._config.listen.host}:{number}{path}"
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.request(method, url, ssl=tls, **content) as response,
            ):
                answer = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CloudError("cloud-silent", f"does it run? {error}") from error
        found = _decoded(answer)
        if status == TOO_MANY and tries_left:
            await asyncio.sleep(AGAIN_S)
            left = tries_left - 1
            return await self._send(method, path, port=port, tries_left=left, **content)
        if status >= 400:
            raise CloudError(found.get("code", f"status-{status}"), found.get("detail", ""))
        return found

    def _reach(self, name: str) -> tuple[int, ssl.SSLContext]:
        folder = self._config.folder
        try:
            port = int(json.loads((folder / "ports.json").read_text())[name])
            tls = ssl.create_default_context(cafile=str(folder / "transport-ca.pem"))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError("not-running", f"{folder}: {error}") from error
        return port, tls


def _bearer(token_file: Path) -> dict[str, str]:
    with token_file.open() as stream:
        return {"Authorization": f"Bearer {stream.read(TOKEN_BYTES_MAX).strip()}"}


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(content)
    except ValueError as error:
        raise CloudError("answer-unreadable", content[:200].decode(errors="replace")) from error
    return found
