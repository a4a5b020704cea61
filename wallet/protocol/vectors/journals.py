"""Files of journals: certificates, entries with the state after each, checkpoints, receipts."""

from __future__ import annotations

from typing import Any

from wallet.protocol.certificates import (
    ROLES,
    TrustAnchor,
    check_role_chain,
    journal_chain,
    parse_certificate,
)
from wallet.protocol.entry import Entry, ListUpdate, Note, Payment, decode_entry
from wallet.protocol.ids import parse_journal, wallet_text
from wallet.protocol.issued import decode_list
from wallet.protocol.merkle import inclusion_path, leaf_hash
from wallet.protocol.messages import decode_request, order_payload
from wallet.protocol.receipt import (
    NOTHING_REVOKED,
    Revocations,
    assemble_checkpoint,
    assemble_receipt,
    checkpoint_protected,
    checkpoint_signed_bytes,
    decode_receipt,
    verify_checkpoint,
    verify_receipt,
)
from wallet.protocol.refusals import InvariantBroken, Refusal
from wallet.protocol.rules import decide, entry_bytes
from wallet.protocol.state import Decision, State
from wallet.protocol.vectors import issuing
from wallet.protocol.vectors.identifiers import check_key
from wallet.protocol.vectors.orders import named_claims
from wallet.protocol.vectors.replay import Surroundings
from wallet.protocol.vectors.report import Case, Report, serial, unhex
from wallet.protocol.vectors.signing import VectorKey
from wallet.protocol.vectors.trees import Tree

MEMBERS = frozenset({"journals", "tampered_receipts", "edge_receipts", "issuer_objects"})


def check(document: dict[str, Any], report: Report) -> None:
    """Every case of the file."""
    with report.frame("root_certificate", "issuer root"):
        root = TrustAnchor(unhex(document["root_certificate"]["der"]))
        grace_s = int(document["certificate_grace_s"])
        _certificates(document, report, root)
        for section in ("issuer_keys", "wallets"):
            for entry, given in report.cases(document, section):
                with entry as case:
                    check_key(case, given)
        for entry, given in report.cases(document, "requests", named="request_id"):
            with entry as case:
                request = decode_request(unhex(given["request"]))
                case.equal("request_id", request.identity, given["request_id"])
        for _, given in report.cases(document, "journals"):
            _journal(report, given, root, grace_s)
        _receipts(document, report, root, grace_s)
        issuing.check(document, report, root)


def _certificates(document: dict[str, Any], report: Report, root: TrustAnchor) -> None:
    for section in ("root_certificate", "sub_ca_certificate"):
        if section in document:
            with report.case(section, document[section].get("name")) as case:
                _certificate(case, document[section])
    for entry, given in report.cases(document, "role_certificates"):
        with entry as case:
            _certificate(case, given)
            case.equal("known role", given["name"] in ROLES, True)
            check_role_chain((unhex(given["der"]),), root, given["name"])


def _certificate(case: Case, given: dict[str, Any]) -> None:
    read = parse_certificate(unhex(given["der"]))
    case.equal("serial", read.serial, serial(given["serial"]).lstrip(b"\x00"))
    case.equal("not_before", read.not_before_s, given["not_before"])
    case.equal("not_after", read.not_after_s, given["not_after"])
    case.equal("san_uris", list(read.uris), given["san_uris"])


def _journal(report: Report, given: dict[str, Any], root: TrustAnchor, grace_s: int) -> None:
    name = given.get("name")
    with report.case("journals", name) as case:
        chain = tuple([unhex(der) for der in given["x5chain"]])
        certified = journal_chain(chain, root)
        case.equal("journal", certified.journal, given["journal"])
        case.equal("text", parse_journal(given["text"]), given["journal"])
        case.equal("epoch", certified.epoch, given["epoch"])
        _certificate(case, given["certificate"])
        check_key(case, given["key"])
    _Replay(report, given, root).run()
    with report.frame("journals", name):
        tree = Tree([entry["entry"] for entry in given["entries"]])
        key = VectorKey(given["key"])
        for entry, checkpoint in report.cases(given, "checkpoints", named="tree_size"):
            with entry as case:
                _checkpoint(case, checkpoint, given, key, tree)
                verify_checkpoint(unhex(checkpoint["checkpoint"]), root=root, grace_s=grace_s)
        for entry, receipt in report.cases(given, "receipts"):
            with entry as case:
                _receipt(case, receipt, tree)
                _verify(receipt, root, grace_s)


class _Replay:
    """A journal's entries one after the other, with the state that must come of each."""

    def __init__(self, report: Report, given: dict[str, Any], root: TrustAnchor) -> None:
        self._report = report
        self._given = given
        self._surroundings = Surroundings(root)

    def run(self) -> None:
        with self._report.frame("entries", self._given.get("name")):
            journal = parse_journal(self._given["text"])
            state = State(journal, self._given["epoch"])
            for entry, given in self._report.cases(self._given, "entries", named="index"):
                with entry as case:
                    self._entry(case, given, state)

    def _entry(self, case: Case, given: dict[str, Any], state: State) -> None:
        raw, body = unhex(given["entry"]), given["body"]
        entry = decode_entry(raw)
        case.equal("leaf_hash", leaf_hash(raw), given["leaf_hash"])
        case.equal("index", entry.index, given["index"])
        case.equal("time_ms", entry.time_ms, given["time_ms"])
        case.equal("clock", entry.clock, ["sure", "uncertain"].index(given["clock"]))
        if isinstance(entry.body, Payment):
            _check_order(case, entry.body, body)
        if isinstance(entry.body, ListUpdate):
            held = decode_list(unhex(body["list"]))
            self._surroundings.lists[held.hash] = held
        hop = _hop(state, entry)
        decision = decide(
            state, entry.body, self._surroundings, now_ms=entry.time_ms, clock=entry.clock
        )
        self._surroundings.append(entry)
        if isinstance(decision, Refusal):
            raise InvariantBroken(f"refused with {decision.code}: {decision.detail}")
        _check_entry(case, entry, decision, state)
        state.advance(decision, time_ms=entry.time_ms)
        _check_after(case, given["after"], state, hop)


def _check_order(case: Case, payment: Payment, body: dict[str, Any]) -> None:
    order = payment.order
    case.equal("order", order.signed.raw, body["order"])
    case.equal("order_id", order.identity, body["order_id"])
    extra = {"order", "order_id", "request", "hop"}
    claims = named_claims({name: body[name] for name in body.keys() - extra})
    case.equal("payload of the order", order_payload(**claims), order.signed.payload)


def _hop(state: State, entry: Entry) -> int | None:
    """Hop of a payment or an arrival, by protocol.md: settled value goes first, with hop 0."""
    if isinstance(entry.body, Note):
        return entry.body.hop + 1
    if isinstance(entry.body, Payment):
        payer = state.wallets[entry.body.order.payer]
        return 0 if payer.settled >= entry.body.order.amount_minor else payer.hop
    return None


def _check_entry(case: Case, entry: Entry, decision: Decision, state: State) -> None:
    if entry.hop is not None:
        case.equal("hop of the transfer-out", entry.hop, decision.hop)
    made = entry_bytes(state, decision, time_ms=entry.time_ms, clock=entry.clock)
    case.equal("entry", made, entry.raw)


def _check_after(case: Case, after: dict[str, Any], state: State, hop: int | None) -> None:
    wallets = {
        wallet_text(wallet.wallet): {
            "settled": wallet.settled,
            "unsettled": wallet.unsettled,
            "hop": wallet.hop,
            "next_sequence": wallet.next_sequence,
        }
        for wallet in state.wallets.values()
    }
    case.equal("wallets", wallets, after["wallets"])
    case.equal("unsettled_total", state.unsettled_total, after["unsettled_total"])
    case.equal("balance_total", state.balance_total(), after["balance_total"])
    if "hop" in after:
        case.equal("hop", hop, after["hop"])


def _checkpoint(
    case: Case, given: dict[str, Any], journal: dict[str, Any], key: VectorKey, tree: Tree
) -> None:
    root = tree.frontiers[given["tree_size"]].root()
    case.equal("root", root, given["root"])
    protected = checkpoint_protected(
        key.public,
        journal=unhex(journal["journal"]),
        epoch=given["epoch"],
        size=given["tree_size"],
        counter=given["counter"],
        issued_s=given["iat"],
    )
    case.equal("protected", protected, given["protected"])
    signed = checkpoint_signed_bytes(protected, root)
    case.equal("sig_structure", signed, given["sig_structure"])
    signature = unhex(given["signature"])
    key.check(case, signed, signature)
    chain = tuple([unhex(der) for der in journal["x5chain"]])
    made = assemble_checkpoint(protected, chain, root=root, signature=signature)
    case.equal("checkpoint", made, given["checkpoint"])


def _receipt(case: Case, given: dict[str, Any], tree: Tree) -> None:
    index, size = given["index"], given["tree_size"]
    path = inclusion_path(index, size, tree.node)
    case.equal("leaf_hash", tree.leaves[index], given["leaf_hash"])
    case.equal("path", [node.hex() for node in path], given["path"])
    case.equal("root", tree.frontiers[size].root(), given["root"])
    read = decode_receipt(unhex(given["receipt"]))
    made = assemble_receipt(
        read.protected, read.chain, size=size, index=index, path=path, signature=read.signature
    )
    case.equal("receipt", made, given["receipt"])


def _receipts(document: dict[str, Any], report: Report, root: TrustAnchor, grace_s: int) -> None:
    for entry, given in report.cases(document, "edge_receipts"):
        with entry as case:
            verified = _verify(given, root, grace_s)
            case.equal("index", verified.index, given["index"])
            case.equal("tree_size", verified.size, given["tree_size"])
    for entry, given in report.cases(document, "tampered_receipts"):
        with entry as case:
            case.refused(given, _verify, given, root, grace_s)


def _verify(given: dict[str, Any], root: TrustAnchor, grace_s: int) -> Any:
    return verify_receipt(
        unhex(given["receipt"]),
        unhex(given["entry"]),
        root=root,
        grace_s=grace_s,
        revoked=_revoked(given),
    )


def _revoked(given: dict[str, Any]) -> Revocations:
    if "revoked_certificates" not in given:
        return NOTHING_REVOKED
    epochs = [
        (parse_journal(epoch["journal"]), epoch["epoch"]) for epoch in given["revoked_epochs"]
    ]
    serials = [serial(text) for text in given["revoked_certificates"]]
    return Revocations(serials=frozenset(serials), epochs=frozenset(epochs))
