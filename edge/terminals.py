"""The terminals that may speak to this gateway, and the pairing that lets a new one in."""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Mapping
from typing import Any

from edge.authority import read_csr, server_certificate, spki
from edge.branch_keys import signing_authority
from edge.folder import Folder
from edge.log import Log
from edge.pairing import Pairing, PairingDesk, PairingState, short_string
from hsm.api import Sealer
from wallet.clock import Clock
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.terminals import Terminal, insert_terminal, list_terminals, revoke_terminal

PAGE = 500
_log = Log("terminals")


class Terminals:
    """Which certificates are good, in memory; the store holds the same."""

    def __init__(self, *, database: Database, sealer: Sealer, folder: Folder, clock: Clock) -> None:
        self._database = database
        self._sealer = sealer
        self._folder = folder
        self._clock = clock
        self._good: dict[str, str] = {}
        self._revoked: set[str] = set()
        self.desk = PairingDesk()

    async def load(self) -> None:
        """Read them from the store. Raises: StoreError."""
        good, revoked = {}, set()
        for terminal in await self.all():
            serial = _serial_text(terminal.certificate_serial)
            if terminal.revoked_ms is None:
                good[serial] = terminal.id
            else:
                revoked.add(serial)
        self._good, self._revoked = good, revoked

    async def all(self) -> list[Terminal]:
        """Every terminal, revoked ones too. Raises: StoreError."""
        found: list[Terminal] = []
        while True:
            after = found[-1].id if found else ""
            page = await self._database.read(functools.partial(_page, after=after))
            found += page
            if len(page) < PAGE:
                return found

    def terminal_of(self, certificate: Mapping[str, Any] | None) -> str | None:
        """The terminal of a TLS client certificate as Python's ssl gives it, if it is good."""
        return None if certificate is None else self._good.get(certificate.get("serialNumber", ""))

    def is_revoked(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether the certificate was good once."""
        return certificate is not None and certificate.get("serialNumber", "") in self._revoked

    # ---- pairing --------------------------------------------------------------------------
    async def ask(self, *, code: str, csr: str, name: str) -> Pairing:
        """A terminal came with the code: work out the short string and wait for the technician.

        Raises: PairingRefused.
        """
        request = read_csr(csr)
        pairing = self.desk.check_code(code, self._clock.monotonic_ms())
        pairing.state = PairingState.MET
        pairing.csr, pairing.name = csr, name
        pairing.sas = await asyncio.to_thread(
            short_string,
            pairing.code,
            server_key=spki(server_certificate(self._folder).public_key()),
            terminal_key=spki(request.public_key()),
        )
        pairing.state = PairingState.WAITING
        return pairing

    async def confirm(self, *, sas: str) -> Terminal:
        """The technician compared the strings: sign the certificate and know the terminal.

        Raises: PairingRefused, HsmError, StoreError.
        """
        pairing = self.desk.waiting(self._clock.monotonic_ms(), sas=sas)
        authority = await signing_authority(self._folder, self._sealer)
        terminal_id = f"t-{secrets.token_hex(4)}"
        issued = authority.sign_terminal(read_csr(pairing.csr), terminal=terminal_id)
        terminal = Terminal(
            id=terminal_id,
            name=pairing.name,
            certificate_serial=issued.serial,
            created_ms=self._clock.now_ms(),
        )
        await self._database.write(lambda c: insert_terminal(c, terminal))
        self._good[_serial_text(issued.serial)] = terminal.id
        pairing.certificate, pairing.terminal = issued.pem, terminal.id
        pairing.state = PairingState.CONFIRMED
        _log.info("terminal.paired", terminal=terminal.id)
        return terminal

    async def revoke(self, terminal_id: str) -> bool:
        """Let a terminal in no more, its open connections included; false for an unknown one."""
        now_ms = self._clock.now_ms()

        def write(connection: Connection) -> bool:
            return revoke_terminal(connection, terminal_id, now_ms=now_ms)

        if not await self._database.write(write):
            return False
        for serial in [serial for serial, known in self._good.items() if known == terminal_id]:
            del self._good[serial]
            self._revoked.add(serial)
        _log.info("terminal.revoked", terminal=terminal_id)
        return True


def _page(connection: Connection, *, after: str) -> list[Terminal]:
    return list_terminals(connection, after, PAGE)


def _serial_text(serial: bytes) -> str:
    """As Python's ssl writes it: capital hexadecimal of whole bytes."""
    return serial.hex().upper()
