"""What the daemon has in force for the secrets in its memory, on the local socket."""

from __future__ import annotations

from typing import Literal

from aiohttp import web

from edge.http.body import answer
from edge.http.context import Context
from edge.http.types import Answer
from hsm.process import hygiene


class HygieneAnswer(Answer, frozen=True, kw_only=True):
    """See `hsm.process.Hygiene`."""

    cores: bool
    dumpable: bool
    locked: Literal["all", "keys", "nothing"]


async def get_hygiene(context: Context, request: web.Request) -> web.Response:
    """As the kernel tells it now."""
    found = hygiene()
    return answer(
        request,
        HygieneAnswer(cores=found.cores, dumpable=found.dumpable, locked=found.locked),
    )
