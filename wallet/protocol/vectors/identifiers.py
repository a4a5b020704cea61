"""Files of keys and identifiers."""

from __future__ import annotations

from typing import Any

from wallet.protocol.ids import (
    JOURNAL_PREFIX,
    WALLET_PREFIX,
    journal_text,
    parse_journal,
    parse_wallet,
    wallet_text,
)
from wallet.protocol.keys import ES256, from_cose_key
from wallet.protocol.vectors.report import Case, Report, unhex
from wallet.protocol.vectors.signing import VectorKey

MEMBERS = frozenset({"invalid_text", "upper_case_text", "invalid_key"})
_TEXTS = {WALLET_PREFIX: wallet_text, JOURNAL_PREFIX: journal_text}
_PARSERS = {WALLET_PREFIX: parse_wallet, JOURNAL_PREFIX: parse_journal}


def check(document: dict[str, Any], report: Report) -> None:
    """Every case of the file."""
    for entry, given in report.cases(document, "valid"):
        with entry as case:
            check_key(case, given)
    for entry, given in report.cases(document, "upper_case_text"):
        with entry as case:
            case.equal("id", _PARSERS[given["prefix"]](given["text"]), given["id"])
            case.equal("text", _TEXTS[given["prefix"]](unhex(given["id"])), given["text"].lower())
    for entry, given in report.cases(document, "invalid_text"):
        with entry as case:
            parse = _PARSERS[given["expected_prefix"]]
            case.refused({"expected_code": "malformed", **given}, parse, given["text"])
    for entry, given in report.cases(document, "invalid_key"):
        with entry as case:
            case.refused(given, from_cose_key, unhex(given["cose_key"]))


def check_key(case: Case, given: dict[str, Any]) -> None:
    """A key from its private part to its text, and back."""
    made = VectorKey(given).public
    case.equal("cose_key", made.cose_key, given["cose_key"])
    read = from_cose_key(unhex(given["cose_key"]))
    case.equal("algorithm", read.algorithm, given["cose_alg"])
    case.equal("key_id", read.key_id, given["key_id"])
    case.equal("id", read.id, given["id"])
    if given.get("text") is not None:
        prefix = given.get("prefix", given["text"].split("1")[0])
        case.equal("text", _TEXTS[prefix](read.id), given["text"])
        case.equal("id of the text", _PARSERS[prefix](given["text"]), given["id"])
    members = given.get("public_members")
    if members is not None:
        raw = members["x"] + (members["y"] if read.algorithm == ES256 else "")
        case.equal("public_members", read.raw, raw)
