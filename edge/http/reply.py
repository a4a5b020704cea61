"""An answer whose head is made once a second: what it says is the same for every payment.

aiohttp builds a head from a multi-dictionary, item by item, for each answer.
"""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11

_heads: dict[tuple[int, str], tuple[str, bytes]] = {}


class Reply(web.Response):
    """A body of known length to a client that stays connected, and no field but its type.

    Any other has aiohttp's head.
    """

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write head and body at once."""
        version, body = request.version, self.body
        plain = version == HttpVersion11 and request.keep_alive and self.keep_alive is None
        if (
            not plain
            or len(self.headers) > 1
            or not isinstance(body, bytes)
            or request.method == "HEAD"
        ):
            return await super().prepare(request)
        self._keep_alive = True
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client hung up")
        transport.write(b"%b%d\r\n\r\n%b" % (_head(self), len(body), body))
        self._eof_sent = True
        await request.writer.drain()
        return None


def _head(reply: Reply) -> bytes:
    place, date = (reply.status, reply.content_type), rfc822_formatted_time()
    made = _heads.get(place)
    if made is None or made[0] != date:
        status = HTTPStatus(reply.status)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {reply.content_type}\r\n"
            f"Date: {date}\r\nContent-Length: "
        )
        made = _heads[place] = (date, head.encode())
    return made[1]
