"""Talks to the running daemon of a data folder over its local socket."""

from __future__ import annotations

import errno
from typing import Any, TypeVar

import aiohttp
import msgspec

from edge.errors import DaemonRefused, DaemonSilent
from edge.folder import Folder
from edge.http.octets import decode_hook

TIMEOUT_S = 90
T = TypeVar("T")


class _Problem(msgspec.Struct):
    code: str = "unknown"
    detail: str = ""


class LocalClient:
    """One call after another; each opens the socket anew."""

    def __init__(self, folder: Folder) -> None:
        self._path = str(folder.socket)

    async def call(
        self, method: str, path: str, kind: type[T], *, body: dict[str, Any] | None = None
    ) -> T:
        """One call. Raises: DaemonSilent, DaemonRefused."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, connect=5)
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(self._path), timeout=timeout
                ) as session,
                session.request(
                    method, f"http://gateway{path}", data=content, headers=headers
                ) as response,
            ):
                raw, status = await response.read(), response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DaemonSilent(_why_silent(self._path, error)) from error
        if status >= 400 and not (path == "/readyz" and status == 503):
            problem = msgspec.json.decode(raw, type=_Problem)
            text = f"{problem.code}: {problem.detail}" if problem.detail else problem.code
            raise DaemonRefused(text, problem=problem.code)
        try:
            return msgspec.json.decode(raw, type=kind, dec_hook=decode_hook)
        except msgspec.MsgspecError as error:
            raise DaemonRefused(
                "the daemon answers in words of another version", problem="unknown"
            ) from error


def _why_silent(path: str, error: Exception) -> str:
    folder = path.rpartition("/")[0]
    if getattr(error, "errno", None) == errno.EACCES:
        return f"this user may not speak to the daemon in {folder}"
    return f"no daemon answers in {folder}; `cbdc-edge run` starts one, --folder names another"
