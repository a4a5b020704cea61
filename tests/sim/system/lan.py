"""The branches' network: gateways next door tell each other newer lists, with no line needed.

What asks and takes is `edge.neighbours`, what answers `edge.http.neighbours`; sockets and TLS are
left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edge.config import NeighboursConfig
from edge.errors import NeighbourFailed
from edge.gateway import Opened
from edge.http.neighbours import ListsAnswer, ListsBody, lists_after
from edge.http.octets import Octets, encode_bytes_hook
from edge.neighbours import READ_BYTES_MAX, Neighbours
from tests.support.gateway import SetClock
from wallet.protocol.codec import decode, encode

if TYPE_CHECKING:
    from tests.sim.system.box import Box


class Lan:
    """Who can be asked, by the address. `cut`: nobody hears anybody."""

    def __init__(self) -> None:
        self.boxes: dict[str, Box] = {}
        self.cut = False

    def join(self, box: Box) -> None:
        """A gateway with an address of its own, and with those before it for neighbours."""
        box.lan, box.next_door = self, tuple(self.boxes)
        self.boxes[f"https://{box.name}.lan"] = box

    async def told(self, url: str, body: bytes) -> bytes:
        """What the gateway at an address answers. Raises: NeighbourFailed."""
        box = self.boxes[url]
        if self.cut or not box.running:
            raise NeighbourFailed("nobody is there")
        asked = msgspec.convert(decode(body, bytes_max=READ_BYTES_MAX), ListsBody)
        lists = await box.database.read(lambda connection: lists_after(connection, asked.held))
        return encode(
            msgspec.to_builtins(
                ListsAnswer(lists=[Octets(raw) for raw in lists]),
                enc_hook=encode_bytes_hook,
                builtin_types=(bytes,),
            )
        )


class NextDoor(Neighbours):
    """A gateway's neighbours on such a network."""

    def __init__(self, opened: Opened, box: Box, lan: Lan, *, clock: SetClock) -> None:
        super().__init__(opened, NeighboursConfig(urls=box.next_door), clock=clock)
        self._lan = lan

    async def _post(self, url: str, body: bytes) -> bytes:
        return await self._lan.told(url, body)
