"""The issuer's signed objects in files of journals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from wallet.protocol import issued
from wallet.protocol.certificates import TrustAnchor, check_role_chain
from wallet.protocol.cose import assemble
from wallet.protocol.lists import ListId, SignedList
from wallet.protocol.messages import to_sign
from wallet.protocol.vectors.report import Case, Report, unhex
from wallet.protocol.vectors.signing import VectorKey, keys_by_name

_DECODERS: dict[str, Callable[[bytes], issued.Issued]] = {
    "enrolment": issued.decode_enrolment,
    "grant": issued.decode_grant,
    "policy": issued.decode_policy,
    "list": issued.decode_list,
    "settlement": issued.decode_settlement,
    "statement": issued.decode_statement,
    "keys": issued.decode_keys,
    "question": issued.decode_question,
}


def check(document: dict[str, Any], report: Report, root: TrustAnchor) -> None:
    """Every object, valid and invalid."""
    with report.frame("issuer_keys", "all"):
        keys = keys_by_name(document.get("issuer_keys", []))
        for entry, given in report.cases(document, "issuer_objects"):
            with entry as case:
                _object(case, given, root, keys)
        for entry, given in report.cases(document, "invalid_issuer_objects"):
            with entry as case:
                case.refused(given, _verified, given, root)


def _verified(given: dict[str, Any], root: TrustAnchor) -> issued.Issued:
    """By shape, then by the key of its role."""
    made = _DECODERS[given["kind"]](unhex(given["cose"]))
    role = issued.ROLES[made.signed.type]
    made.signed.verify(check_role_chain(made.signed.chain, root, role).key)
    return made


def _object(
    case: Case, given: dict[str, Any], root: TrustAnchor, keys: dict[str, VectorKey]
) -> None:
    made = _verified(given, root)
    signed = made.signed
    case.equal("payload", signed.payload, given["payload"])
    case.equal("hash", hashlib.sha256(signed.raw).digest(), given["hash"])
    case.equal("told apart by its type", issued.decode_issued(signed.raw), made)
    if isinstance(made, SignedList):
        case.equal("list_name", ListId(made.list_id).name.lower(), given["list_name"])
        case.equal("content", made.content, given["content"])
    signer = next((key for key in keys.values() if key.public.key_id == signed.key_id), None)
    if signer is not None:
        protected, message = to_sign(signer.public, signed.type, signed.payload)
        signer.check(case, message, signed.signature)
        again = assemble(protected, signed.payload, signed.signature, signed.chain)
        case.equal("cose", again, given["cose"])
