"""Binary values in JSON: base64url without padding, and identifiers in their text forms."""

from __future__ import annotations

import base64
import binascii

from cloud.http.problem import RequestRefused
from wallet.protocol.entry import EntryKind
from wallet.protocol.ids import parse_journal, parse_wallet
from wallet.protocol.refusals import ProtocolError


def to_text(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """Raises: RequestRefused `body-invalid`."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestRefused("body-invalid", "no base64url without padding") from error


def identity_of(text: str) -> bytes:
    """The 32 bytes of an identity in hex. Raises: RequestRefused `body-invalid`."""
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise RequestRefused("body-invalid", "no identity in hex") from error
    if len(value) != 32:
        raise RequestRefused("body-invalid", "an identity has 32 bytes")
    return value


def wallet_of(text: str) -> bytes:
    """A wallet's bytes. Raises: RequestRefused `body-invalid`."""
    try:
        return parse_wallet(text)
    except ProtocolError as error:
        raise RequestRefused("body-invalid", error.detail) from error


def journal_of(text: str) -> bytes:
    """A journal's bytes. Raises: RequestRefused `body-invalid`."""
    try:
        return parse_journal(text)
    except ProtocolError as error:
        raise RequestRefused("body-invalid", error.detail) from error


def kind_text(kind: int) -> str:
    """The kind of an entry, as wire.cddl names it."""
    return EntryKind(kind).name.lower().replace("_", "-")
