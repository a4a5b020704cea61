"""Sealed reports opened by a worker, with the keys that the issuer has now."""

from __future__ import annotations

import asyncio

from cloud.database import Database
from cloud.issuer.desk import Desk
from sync.exchange import open_up
from wallet.protocol.envelope import VerifiedUp
from wallet.protocol.refusals import Code, ProtocolError


class DeskOpening:
    """See `Opening`. A worker trusts nothing that the stream brings: the signature is checked."""

    def __init__(self, database: Database, desk: Desk) -> None:
        self._database = database
        self._desk = desk

    async def open(self, sealed: bytes) -> VerifiedUp:
        """See `Opening`."""
        try:
            return await self._open(sealed)
        except ProtocolError as error:
            if error.code != Code.UNKNOWN_KEY:
                raise
        # Another process may have made and announced a key since this one looked.
        async with self._database.transaction() as connection:
            await self._desk.learn_keys(connection)
        return await self._open(sealed)

    async def _open(self, sealed: bytes) -> VerifiedUp:
        return await asyncio.to_thread(
            open_up, sealed, keys=self._desk.hpke, root=self._desk.anchor
        )
