"""Files of synchronisation envelopes, plain and sealed."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.cose import assemble, open_sign1, protected_header, sig_structure
from wallet.protocol.envelope import (
    DOWN_TYPE,
    ENVELOPE_BYTES_MAX,
    UP_TYPE,
    Down,
    Up,
    down_payload,
    up_payload,
    verify_down,
    verify_up,
)
from wallet.protocol.ids import JournalId
from wallet.protocol.keys import from_cose_key
from wallet.protocol.receipt import decode_checkpoint
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.sealed import ENC_BYTES, KID_BYTES, MAGIC, open_sealed, seal, short_id, unpack
from wallet.protocol.vectors.report import Case, Report, unhex

MEMBERS = frozenset({"envelopes", "recipient_keys"})
_Keys = dict[bytes, X25519PrivateKey]


def check(document: dict[str, Any], report: Report) -> None:
    """Every case of the file."""
    with report.frame("root_certificate", "issuer root"):
        root = TrustAnchor(unhex(document["root_certificate"]["der"]))
        keys = _recipients(document, report)
        for entry, given in report.cases(document, "envelopes"):
            with entry as case:
                _envelope(case, given, root, keys)
                _sealed(case, given, document["recipient_keys"], keys)
        for entry, given in report.cases(document, "invalid"):
            with entry as case:
                _invalid(case, given, root, keys)


def _recipients(document: dict[str, Any], report: Report) -> _Keys:
    keys: _Keys = {}
    for name, given in document["recipient_keys"].items():
        with report.case("recipient_keys", name) as case:
            private = X25519PrivateKey.from_private_bytes(unhex(given["private_key"]))
            public = private.public_key().public_bytes_raw()
            case.equal("public_key", public, given["public_key"])
            case.equal("kid", short_id(public), given["kid"])
            keys[unhex(given["kid"])] = private
    return keys


def _envelope(case: Case, given: dict[str, Any], root: TrustAnchor, keys: _Keys) -> None:
    plain, claims = unhex(given["plain"]), given["claims"]
    signer = from_cose_key(unhex(given["signer_cose_key"]))
    upwards = given["direction"] == "up"
    type_ = UP_TYPE if upwards else DOWN_TYPE
    signed = open_sign1(plain, type_=type_, bytes_max=ENVELOPE_BYTES_MAX)
    payload = up_payload(_up(claims)) if upwards else down_payload(_down(claims))
    case.equal("payload", payload, signed.payload)
    protected = protected_header(signer.algorithm, signer.key_id, type_)
    case.equal("protected", protected, signed.protected)
    signer.verify(signed.signature, sig_structure(protected, payload))
    again = assemble(protected, payload, signed.signature, signed.chain)
    case.equal("plain", again, plain)
    if upwards:
        case.equal("claims", verify_up(plain, root=root).claims, _up(claims))
        _checkpoint(case, claims)
    else:
        case.equal("claims", verify_down(plain, root=root).claims, _down(claims))


def _checkpoint(case: Case, claims: dict[str, Any]) -> None:
    checkpoint = decode_checkpoint(unhex(claims["checkpoint"]))
    case.equal("checkpoint_size", checkpoint.head.size, claims["checkpoint_size"])
    case.equal("checkpoint_root", checkpoint.root, claims["checkpoint_root"])


def _up(claims: dict[str, Any]) -> Up:
    return Up(
        journal=JournalId(unhex(claims["journal"])),
        epoch=claims["epoch"],
        exchange=unhex(claims["exchange"]),
        acknowledged_size=claims["acknowledged_size"],
        entries=tuple([unhex(entry) for entry in claims["entries"]]),
        checkpoint=unhex(claims["checkpoint"]),
        newest={int(key): value for key, value in claims["newest_sequences"].items()},
        collected=tuple([(unhex(c["entry"]), unhex(c["receipt"])) for c in claims["collected"]]),
        health=claims.get("health"),
    )


def _down(claims: dict[str, Any]) -> Down:
    return Down(
        journal=JournalId(unhex(claims["journal"])),
        epoch=claims["epoch"],
        exchange=unhex(claims["exchange"]),
        acknowledged_size=claims["acknowledged_size"],
        objects=tuple([unhex(part) for part in claims["objects"]]),
        problem=claims.get("problem"),
    )


def _sealed(case: Case, given: dict[str, Any], recipients: dict[str, Any], keys: _Keys) -> None:
    plain, sealed = unhex(given["plain"]), unhex(given["sealed"])
    front = len(MAGIC) + KID_BYTES
    case.equal("opened", open_sealed(sealed, keys=keys), plain)
    case.equal("zstd", unpack(unhex(given["zstd"])), plain)
    case.equal("kid", sealed[len(MAGIC) : front], given["kid"])
    case.equal("enc", sealed[front : front + ENC_BYTES], given["enc"])
    case.equal("ciphertext", sealed[front + ENC_BYTES :], given["ciphertext"])
    public = unhex(recipients[given["recipient"]]["public_key"])
    case.equal("sealed by us", open_sealed(seal(plain, recipient=public), keys=keys), plain)


def _invalid(case: Case, given: dict[str, Any], root: TrustAnchor, keys: _Keys) -> None:
    sealed = unhex(given["sealed"])
    try:
        plain = open_sealed(sealed, keys=keys)
    except ProtocolError as error:
        case.code(given, str(error.code))
        if given.get("fails_at") == "verify":
            case.fail(f"not opened: {error}")
        return
    if given.get("fails_at", "verify") != "verify":
        case.fail("opened")
    case.refused(given, _verify, given, plain, root)


def _verify(given: dict[str, Any], plain: bytes, root: TrustAnchor) -> None:
    verify = verify_down if given["recipient"] == "journal" else verify_up
    verify(plain, root=root)
