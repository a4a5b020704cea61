"""Where the gateway synchronises to, on the local socket."""

from __future__ import annotations

from aiohttp import web

from edge.http.body import answer
from edge.http.context import Context
from edge.http.types import Answer


class CloudAnswer(Answer, frozen=True, kw_only=True):
    """The address, of the configuration or of the provisioning."""

    url: str


async def get_cloud(context: Context, request: web.Request) -> web.Response:
    """As the synchronisation uses it."""
    configured = context.gateway.config.sync.url
    return answer(request, CloudAnswer(url=configured or context.opened.identity.cloud_url))
