"""The smaller tables, from meta to events."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.wallet.store.stores import KEY
from wallet.store.connection import Connection, EngineError, connect
from wallet.store.events import append_events, events_after, last_event_id, prune_events
from wallet.store.hosted import (
    HostedWallet,
    get_hosted,
    insert_hosted,
    list_hosted,
    set_hosted_pin,
    set_hosted_tries,
)
from wallet.store.idempotency import StoredAnswer, get_answer, prune_answers, put_answer
from wallet.store.meta import delete_meta, get_meta, put_meta
from wallet.store.objects import (
    CollectedReceipt,
    HeldObject,
    Kept,
    add_receipt,
    delete_object,
    delete_objects_below,
    delete_receipts,
    list_objects,
    newest_object,
    oldest_receipts,
    put_object,
    set_receipts_state,
)
from wallet.store.requests import (
    StoredRequest,
    get_request,
    insert_request,
    prune_requests,
    requests_by_reference,
    set_request_state,
)
from wallet.store.schema import migrate, migrations
from wallet.store.terminals import (
    Terminal,
    get_terminal,
    insert_terminal,
    list_terminals,
    revoke_terminal,
    terminal_by_serial,
)


@pytest.fixture
def conn(path: Path) -> Iterator[Connection]:
    connection = connect(path, key=KEY, query_only=False)
    migrate(connection, migrations())
    yield connection
    connection.close()


def test_meta_keeps_one_value_a_name(conn: Connection) -> None:
    assert get_meta(conn, "epoch") is None
    put_meta(conn, "epoch", b"\x01")
    put_meta(conn, "epoch", b"\x02")
    assert get_meta(conn, "epoch") == b"\x02"
    delete_meta(conn, "epoch")
    delete_meta(conn, "epoch")
    assert get_meta(conn, "epoch") is None


def hosted(number: int) -> HostedWallet:
    return HostedWallet(
        wallet=bytes([number]) * 20,
        sealed_key=b"sealed",
        pin_hash="$argon2id$",
        tries=0,
        locked_until_ms=0,
        created_ms=1000 + number,
    )


def test_a_hosted_wallet_is_stored_once(conn: Connection) -> None:
    assert insert_hosted(conn, hosted(1))
    assert not insert_hosted(conn, hosted(1))
    assert get_hosted(conn, hosted(1).wallet) == hosted(1)
    assert get_hosted(conn, bytes(20)) is None


def test_tries_and_lock_out_are_kept_until_another_pin_is_set(conn: Connection) -> None:
    insert_hosted(conn, hosted(1))
    wallet = hosted(1).wallet
    assert set_hosted_tries(conn, wallet, tries=3, locked_until_ms=99)
    kept = get_hosted(conn, wallet)
    assert kept is not None
    assert (kept.tries, kept.locked_until_ms) == (3, 99)
    assert set_hosted_pin(conn, wallet, pin_hash="other")
    kept = get_hosted(conn, wallet)
    assert kept is not None
    assert (kept.pin_hash, kept.tries, kept.locked_until_ms) == ("other", 0, 0)
    assert not set_hosted_tries(conn, bytes(20), tries=1, locked_until_ms=0)
    assert not set_hosted_pin(conn, bytes(20), pin_hash="other")


def test_hosted_wallets_are_listed_in_pages(conn: Connection) -> None:
    for number in (3, 1, 2):
        insert_hosted(conn, hosted(number))
    assert list_hosted(conn, b"", 2) == [hosted(1), hosted(2)]
    assert list_hosted(conn, hosted(2).wallet, 2) == [hosted(3)]


def held(kind: str, sequence: int, content: bytes = b"object") -> HeldObject:
    return HeldObject(kind=kind, sequence=sequence, object=content)


def test_objects_are_kept_by_kind_and_sequence(conn: Connection) -> None:
    assert newest_object(conn, "policy") is None
    for sequence in (1, 3, 2):
        put_object(conn, held("policy", sequence))
    put_object(conn, held("keys", 9))
    put_object(conn, held("policy", 3, b"again"))
    assert newest_object(conn, "policy") == held("policy", 3, b"again")
    assert list_objects(conn, "policy", 0, 2) == [held("policy", 1), held("policy", 2)]
    assert list_objects(conn, "policy", 2, 9) == [held("policy", 3, b"again")]
    delete_object(conn, "policy", 2)
    assert [item.sequence for item in list_objects(conn, "policy", 0, 9)] == [1, 3]
    delete_objects_below(conn, "policy", 3)
    assert [item.sequence for item in list_objects(conn, "policy", 0, 9)] == [3]
    assert newest_object(conn, "keys") == held("keys", 9)


def receipt(number: int) -> CollectedReceipt:
    return CollectedReceipt(hash=bytes([number]), entry=b"entry", receipt=b"receipt", state="held")


def test_receipts_come_out_in_the_order_in_which_they_came(conn: Connection) -> None:
    for number in (5, 1, 3):
        assert add_receipt(conn, receipt(number)) is Kept.NEW
    assert add_receipt(conn, receipt(1)) is Kept.KNOWN
    assert oldest_receipts(conn, 2) == [receipt(5), receipt(1)]
    set_receipts_state(conn, [bytes([5])], "sent")
    assert oldest_receipts(conn, 1)[0].state == "sent"
    delete_receipts(conn, [bytes([5]), bytes([77])])
    assert oldest_receipts(conn, 9) == [receipt(1), receipt(3)]


def test_receipts_above_the_bound_are_refused_by_exact_count(conn: Connection) -> None:
    for number in range(4):
        assert add_receipt(conn, receipt(number), receipts_max=4) is Kept.NEW
    assert add_receipt(conn, receipt(9), receipts_max=4) is Kept.FULL
    assert add_receipt(conn, receipt(3), receipts_max=4) is Kept.KNOWN
    delete_receipts(conn, [bytes([1])])
    assert add_receipt(conn, receipt(9), receipts_max=4) is Kept.NEW
    assert add_receipt(conn, receipt(8), receipts_max=4) is Kept.FULL


def request(number: int, reference: str = "till 1") -> StoredRequest:
    return StoredRequest(
        identity=bytes([number]) * 32,
        request=b"signed",
        payee=b"p" * 20,
        reference=reference,
        expires_ms=1000 + number,
        state="open",
    )


def test_requests_are_found_by_identity_and_reference(conn: Connection) -> None:
    for number in (1, 2):
        assert insert_request(conn, request(number))
    assert not insert_request(conn, request(1, "another"))
    insert_request(conn, request(3, "another"))
    assert get_request(conn, request(1).identity) == request(1)
    assert get_request(conn, bytes(32)) is None
    assert requests_by_reference(conn, "till 1", 9) == [request(2), request(1)]
    assert requests_by_reference(conn, "till 1", 1) == [request(2)]


def test_a_request_changes_its_state_and_goes_when_it_has_expired(conn: Connection) -> None:
    for number in (1, 2, 3):
        insert_request(conn, request(number))
    assert set_request_state(conn, request(3).identity, "paid")
    assert not set_request_state(conn, bytes(32), "paid")
    kept = get_request(conn, request(3).identity)
    assert kept is not None
    assert kept.state == "paid"
    assert prune_requests(conn, 1003) == 2
    assert get_request(conn, request(2).identity) is None
    assert get_request(conn, request(3).identity) == kept


def answer(expires_ms: int) -> StoredAnswer:
    return StoredAnswer(body_hash=b"h" * 32, status=201, answer=b"{}", expires_ms=expires_ms)


def test_an_answer_is_kept_until_it_expires(conn: Connection) -> None:
    assert put_answer(conn, "till", "key", answer(100), now_ms=0)
    assert get_answer(conn, "till", "key", now_ms=99) == answer(100)
    assert get_answer(conn, "till", "key", now_ms=100) is None
    assert get_answer(conn, "other", "key", now_ms=0) is None
    with pytest.raises(EngineError):
        put_answer(conn, "till", "key", answer(300), now_ms=99)
    assert put_answer(conn, "till", "key", answer(300), now_ms=100)
    assert get_answer(conn, "till", "key", now_ms=100) == answer(300)


def test_answers_above_the_bound_are_refused_until_some_expire(conn: Connection) -> None:
    for number in range(3):
        assert put_answer(conn, "till", f"{number}", answer(100 + number), now_ms=0, answers_max=3)
    assert not put_answer(conn, "till", "new", answer(500), now_ms=99, answers_max=3)
    assert put_answer(conn, "till", "new", answer(500), now_ms=100, answers_max=3)
    assert get_answer(conn, "till", "1", now_ms=100) == answer(101)
    assert prune_answers(conn, now_ms=400) == 2
    assert prune_answers(conn, now_ms=400) == 0


def terminal(number: int) -> Terminal:
    return Terminal(
        id=f"pos-{number}", name="Bakery", certificate_serial=bytes([number]), created_ms=number
    )


def test_terminals_are_found_by_id_and_by_certificate(conn: Connection) -> None:
    for number in (2, 1, 3):
        insert_terminal(conn, terminal(number))
    with pytest.raises(EngineError):
        insert_terminal(conn, terminal(1))
    assert get_terminal(conn, "pos-1") == terminal(1)
    assert get_terminal(conn, "pos-9") is None
    assert terminal_by_serial(conn, b"\x02") == terminal(2)
    assert terminal_by_serial(conn, b"\x09") is None
    assert list_terminals(conn, "", 2) == [terminal(1), terminal(2)]
    assert list_terminals(conn, "pos-2", 2) == [terminal(3)]


def test_a_terminal_is_revoked_once(conn: Connection) -> None:
    insert_terminal(conn, terminal(1))
    assert revoke_terminal(conn, "pos-1", now_ms=77)
    assert not revoke_terminal(conn, "pos-1", now_ms=88)
    assert not revoke_terminal(conn, "pos-9", now_ms=77)
    kept = get_terminal(conn, "pos-1")
    assert kept is not None
    assert kept.revoked_ms == 77


def test_events_are_read_on_from_any_id_and_never_share_one(conn: Connection) -> None:
    assert last_event_id(conn) == 0
    assert append_events(conn, []) == 0
    assert append_events(conn, [("sync.started", b"{}", 1), ("sync.completed", b"{}", 2)]) == 2
    first, second = events_after(conn, 0, 9)
    assert (first.id, first.name, first.body, first.time_ms) == (1, "sync.started", b"{}", 1)
    assert events_after(conn, 1, 9) == [second]
    assert events_after(conn, 0, 1) == [first]
    assert prune_events(conn, 0) == 2
    assert last_event_id(conn) == 2
    assert append_events(conn, [("gateway.frozen", b"{}", 3)]) == 3


def test_the_newest_events_stay(conn: Connection) -> None:
    append_events(conn, [("payment.accepted", b"{}", time_ms) for time_ms in range(10)])
    assert prune_events(conn, 4) == 6
    assert prune_events(conn, 4) == 0
    assert [event.id for event in events_after(conn, 0, 99)] == [7, 8, 9, 10]
