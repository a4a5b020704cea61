"""Receipts as files, and their check with the issuer's root alone: no gateway, no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge.errors import FileUnreadable
from edge.http.octets import Octets, decode_hook, encode_text_hook
from hsm.files import make_folder, replace_durably
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Note, Payment, decode_entry
from wallet.protocol.ids import journal_text, wallet_text
from wallet.protocol.money import Currency, Money
from wallet.protocol.receipt import NOTHING_REVOKED, verify_receipt
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.trust import ENDLESS_S

FILE_BYTES_MAX = 64 * 1024 * 1024
CERTIFICATE_GRACE_S = ENDLESS_S


class ReceiptFile(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt as `cbdc-pos pay --receipts` writes it; other members are left alone."""

    entry: Octets
    receipt: Octets
    id: str = ""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a receipt proves."""

    id: str
    journal: str
    epoch: int
    index: int
    text: str


def save_receipt(folder: Path, *, payment: str, entry: bytes, receipt: bytes) -> Path:
    """Write one receipt, named by its payment. Raises: OSError."""
    make_folder(folder)
    value = ReceiptFile(id=payment, entry=Octets(entry), receipt=Octets(receipt))
    path = folder / f"{payment}.json"
    replace_durably(path, msgspec.json.encode(value, enc_hook=encode_text_hook))
    return path


def read_receipts(path: Path) -> Iterator[ReceiptFile]:
    """Receipts of a file: one JSON object, or one a line. Raises: FileUnreadable."""
    try:
        with path.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX)
        yield from msgspec.json.Decoder(ReceiptFile, dec_hook=decode_hook).decode_lines(content)
    except (OSError, msgspec.MsgspecError) as error:
        raise FileUnreadable(f"{path}: {error}") from error


def read_root(path: Path) -> TrustAnchor:
    """The issuer's root, DER. Raises: FileUnreadable."""
    try:
        return TrustAnchor(path.read_bytes())
    except (OSError, ProtocolError) as error:
        raise FileUnreadable(f"{path}: {error}") from error


def verify(held: ReceiptFile, root: TrustAnchor) -> Verified:
    """Check one receipt. Raises: ReceiptError with the code and the step that failed."""
    verified = verify_receipt(
        held.receipt.raw,
        held.entry.raw,
        root=root,
        grace_s=CERTIFICATE_GRACE_S,
        revoked=NOTHING_REVOKED,
    )
    return Verified(
        id=verified.leaf.hex(),
        journal=journal_text(verified.journal),
        epoch=verified.epoch,
        index=verified.index,
        text=_describe(held.entry.raw),
    )


def _describe(raw: bytes) -> str:
    entry = decode_entry(raw)
    body = entry.body
    if not isinstance(body, Payment | Note):
        return f"entry of kind {entry.kind}"
    order = body.order
    amount = Money(order.amount_minor, Currency(order.currency))
    return f"{amount} from {wallet_text(order.payer)} to {wallet_text(order.payee)}"
