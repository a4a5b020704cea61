"""Keys of device wallets: a JSON file with mode 0600, no more. A phone would have hardware.

Whoever can read the file can spend; `cbdc-pos` is a tool for tills, tests and demonstrations.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import nacl.bindings

from edge.errors import FileUnreadable
from edge.http.octets import from_text, to_text
from hsm.files import make_folder, replace_durably
from wallet.protocol.cose import ORDER_TYPE, REQUEST_TYPE, assemble
from wallet.protocol.ids import wallet_text
from wallet.protocol.keys import EDDSA, PublicKey, from_raw
from wallet.protocol.messages import order_payload, request_payload, to_sign

SEED_BYTES = 32
FILE_NAME = "wallets.json"
FILE_BYTES_MAX = 16 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


class DeviceKey:
    """The key of one wallet."""

    def __init__(self, seed: bytes) -> None:
        raw, self._pair = nacl.bindings.crypto_sign_seed_keypair(seed)
        self.seed = seed
        self.public: PublicKey = from_raw(EDDSA, raw)

    @property
    def text(self) -> str:
        """The wallet's identifier."""
        return wallet_text(self.public.id)

    def sign_order(self, **claims: object) -> bytes:
        """An order by the names of its claims. Raises: TypeError for an unknown one."""
        return self._sign(ORDER_TYPE, order_payload(payer=self.public.id, **claims))

    def sign_request(self, **claims: object) -> bytes:
        """A request by the names of its claims. Raises: TypeError for an unknown one."""
        return self._sign(REQUEST_TYPE, request_payload(payee=self.public.id, **claims))

    def _sign(self, type_: str, payload: bytes) -> bytes:
        protected, message = to_sign(self.public, type_, payload)
        signature = nacl.bindings.crypto_sign(message, self._pair)[:64]
        return assemble(protected, payload, signature)


class Purse:
    """The wallets of a folder, by the names that people gave them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self.keys: dict[str, DeviceKey] = {}

    @classmethod
    def open(cls, folder: Path) -> Purse:
        """The purse of a folder, empty where there is none. Raises: FileUnreadable."""
        purse = cls(folder)
        if not purse._path.exists():
            return purse
        try:
            with purse._path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_mode & 0o077:
                    raise FileUnreadable(f"{purse._path}: others can read it; chmod 600")
                seeds = msgspec.json.decode(stream.read(FILE_BYTES_MAX), type=dict[str, str])
            purse.keys = {name: DeviceKey(from_text(seed)) for name, seed in seeds.items()}
        except (OSError, ValueError, msgspec.MsgspecError, nacl.exceptions.CryptoError) as error:
            raise FileUnreadable(f"{purse._path}: {error}") from error
        return purse

    def create(self, *names: str) -> list[DeviceKey]:
        """New wallets under these names, stored before they are given. Raises: FileUnreadable."""
        for name in names:
            if not _NAME.match(name):
                raise FileUnreadable(f"{name!r}: 1 to 64 letters, digits, `.`, `_` and `-`")
            if name in self.keys:
                raise FileUnreadable(f"there is a wallet {name} already")
        made = {name: DeviceKey(os.urandom(SEED_BYTES)) for name in names}
        self.keys |= made
        make_folder(self._path.parent)
        seeds = {name: to_text(key.seed) for name, key in self.keys.items()}
        replace_durably(self._path, msgspec.json.encode(seeds))
        return list(made.values())

    def key(self, name: str) -> DeviceKey:
        """The wallet of a name, or of its identifier. Raises: FileUnreadable."""
        if name in self.keys:
            return self.keys[name]
        for key in self.keys.values():
            if key.text == name.lower():
                return key
        raise FileUnreadable(
            f"no key of wallet {name} here; `cbdc-pos wallet new {name}` makes one"
        )
