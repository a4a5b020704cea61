"""What the issuer's objects do to a journal: open, fund, enrol, policy, list, settlement."""

from __future__ import annotations

import copy

from wallet.protocol.codec import encode
from wallet.protocol.context import Context
from wallet.protocol.cose import Sign1
from wallet.protocol.entry import Close, EntryKind, Open, Void, encode_open_body
from wallet.protocol.issued import ROLES, Enrolment, Grant, Settlement
from wallet.protocol.lists import SignedList, hold
from wallet.protocol.payments import check_request_here
from wallet.protocol.policy import Policy
from wallet.protocol.refusals import Code, ProtocolError, Refusal, refuse
from wallet.protocol.shapes import COUNT_MAX
from wallet.protocol.state import NEVER, NOBODY, Decision, Movements, State, Wallet


def check_issued(context: Context, signed: Sign1) -> Refusal | None:
    """The signature of the role that this type belongs to."""
    try:
        context.check_role(signed, ROLES[signed.type])
    except ProtocolError as error:
        return error.refusal()
    return None


def decide_open(
    state: State, opening: Open, context: Context, *, now_ms: int
) -> Decision | Refusal:
    """The first entry: currency, policy, and what a statement carries over as settled value."""
    if opening.journal != state.journal or opening.epoch != state.epoch:
        return refuse(Code.WRONG_JOURNAL)
    statement = opening.statement
    refused = check_issued(context, opening.policy.signed)
    if refused is None and statement is not None:
        refused = check_issued(context, statement.signed)
    if refused is not None:
        return refused
    if opening.policy.currency != opening.currency:
        return refuse(Code.WRONG_CURRENCY)
    carried = () if statement is None else statement.carried
    redeemed = () if statement is None else statement.redeemed
    if statement is not None and not _follows(statement.journal, statement.epoch, state):
        return refuse(Code.WRONG_JOURNAL, "the statement closes no epoch before this one")
    if len({wallet for wallet, _ in carried}) != len(carried):
        return refuse(Code.MALFORMED, "the statement carries a wallet twice")
    body = encode_open_body(
        journal=opening.journal,
        epoch=opening.epoch,
        currency=opening.currency,
        policy=opening.policy.signed.raw,
        statement=None if statement is None else statement.signed.raw,
    )
    return Decision(
        kind=EntryKind.OPEN,
        body=body,
        wallets=tuple(
            [
                Wallet(wallet=wallet, number=number, settled=balance)
                for number, (wallet, balance) in enumerate(carried)
            ]
        ),
        tables=tuple([("redeemed", key, NEVER) for key in redeemed]),
        fields={
            "opened": True,
            "currency": opening.currency,
            "policy": opening.policy,
            "opened_ms": now_ms,
            "settled_ms": now_ms,
        },
    )


def _follows(journal: bytes, epoch: int, state: State) -> bool:
    return epoch < state.epoch or journal != state.journal


def decide_grant(
    state: State, grant: Grant, context: Context, *, now_ms: int
) -> Decision | Refusal:
    """Funding: settled value. Limits do not apply: it is the issuer's own word."""
    wallet = state.wallets.get(grant.wallet)
    if grant.journal != state.journal or grant.epoch != state.epoch:
        return refuse(Code.WRONG_JOURNAL)
    if grant.currency != state.currency:
        return refuse(Code.WRONG_CURRENCY)
    if grant.sequence != state.grants_next:
        replayed = grant.sequence < state.grants_next
        code = Code.GRANT_REPLAYED if replayed else Code.GRANT_GAP
        return refuse(code, f"the next grant is {state.grants_next}")
    if now_ms > grant.expires_ms:
        return refuse(Code.GRANT_EXPIRED)
    if wallet is None or wallet.key is None:
        return refuse(Code.UNKNOWN_WALLET)
    refused = check_issued(context, grant.signed)
    if refused is not None:
        return refused
    if wallet.settled + wallet.unsettled + grant.amount_minor > COUNT_MAX:
        return refuse(Code.BALANCE_ABOVE_LIMIT, "no statement could carry it", limit=COUNT_MAX)
    richer = copy.copy(wallet)
    richer.settled += grant.amount_minor
    return Decision(
        kind=EntryKind.FUND,
        body=encode(grant.signed.raw),
        wallets=(richer,),
        fields={"grants_next": state.grants_next + 1},
    )


def decide_enrolment(
    state: State, enrolment: Enrolment, context: Context, *, now_ms: int
) -> Decision | Refusal:
    """A wallet, its key and tier; a later enrolment of a wallet renews it."""
    if enrolment.journal != state.journal:
        return refuse(Code.WRONG_JOURNAL)
    if now_ms > enrolment.expires_ms:
        return refuse(Code.ENROLMENT_EXPIRED)
    refused = check_issued(context, enrolment.signed)
    if refused is not None:
        return refused
    known = state.wallets.get(enrolment.wallet)
    if known is None:
        known = Wallet(wallet=enrolment.wallet, number=len(state.numbers))
    wallet = copy.copy(known)
    wallet.key = enrolment.key
    wallet.tier = enrolment.tier
    wallet.enrolment_expires_ms = enrolment.expires_ms
    return Decision(kind=EntryKind.ENROL, body=encode(enrolment.signed.raw), wallets=(wallet,))


def decide_policy(state: State, policy: Policy, context: Context) -> Decision | Refusal:
    """A newer policy."""
    if policy.currency != state.currency:
        return refuse(Code.WRONG_CURRENCY)
    if policy.sequence <= state.policy_held().sequence:
        return refuse(Code.SEQUENCE_USED, "a policy that is not newer")
    refused = check_issued(context, policy.signed)
    if refused is not None:
        return refused
    return Decision(
        kind=EntryKind.POLICY, body=encode(policy.signed.raw), fields={"policy": policy}
    )


def decide_list(state: State, given: SignedList, context: Context) -> Decision | Refusal:
    """A newer list, or a delta on the list held."""
    refused = check_issued(context, given.signed)
    if refused is not None:
        return refused
    try:
        held = hold(given, state.lists.get(given.list_id))
    except ProtocolError as error:
        return error.refusal()
    return Decision(
        kind=EntryKind.LIST,
        body=encode([given.list_id, given.sequence, given.hash]),
        tables=(("lists", given.list_id, held),),
        fields={},
    )


def decide_void(state: State, void: Void, context: Context) -> Decision | Refusal:
    """A request of a payee here that must not be paid any more."""
    request = void.request
    if request.payee_journal != state.journal:
        return refuse(Code.WRONG_JOURNAL)
    if request.currency != state.currency:
        return refuse(Code.WRONG_CURRENCY)
    payee = state.wallets.get(request.payee)
    if payee is None:
        return refuse(Code.UNKNOWN_WALLET)
    refused = check_request_here(state, request, payee, context)
    if refused is not None:
        return refused
    return Decision(
        kind=EntryKind.VOID,
        body=encode(request.signed.raw),
        tables=(("requests", request.identity, ("void", request.expires_ms)),),
    )


def decide_close(close: Close) -> Decision:
    """The end of an epoch: settlements alone may follow."""
    return Decision(kind=EntryKind.CLOSE, body=encode(close.reason), fields={"closed": True})


def decide_settlement(state: State, settlement: Settlement, context: Context) -> Decision | Refusal:
    """The issuer's word: entries below its size are final but for those that it names.

    The journal last settled when the issuer says so, however long this took to arrive.
    """
    if settlement.journal != state.journal or settlement.epoch != state.epoch:
        return refuse(Code.WRONG_JOURNAL)
    # Of the same size, only a newer one says more: a replay must not make the journal look younger.
    if (settlement.size, settlement.time_ms) <= (state.settled_size, state.settled_ms):
        return refuse(Code.SEQUENCE_USED, "a later settlement is held")
    if settlement.size > state.size or context.root_at(settlement.size) != settlement.root:
        return refuse(Code.PROOF_INVALID, "not a root of this journal")
    refused = check_issued(context, settlement.signed)
    if refused is not None:
        return refused
    return _settle(state, settlement)


class _Sums:
    """What a settlement takes from counters and turns into settled value, by wallet number."""

    def __init__(self) -> None:
        self.out: dict[int, tuple[int, int]] = {}
        self.incoming: dict[int, int] = {}
        self.arrived: dict[int, int] = {}

    def arrive(self, number: int, amount: int) -> None:
        self.arrived[number] = self.arrived.get(number, 0) + amount

    def move(self, payer: int, payee: int, amount: int) -> None:
        if payer != NOBODY:
            total, count = self.out.get(payer, (0, 0))
            self.out[payer] = (total + amount, count + 1)
        if payee != NOBODY:
            self.incoming[payee] = self.incoming.get(payee, 0) + amount

    def numbers(self) -> set[int]:
        return self.out.keys() | self.incoming.keys() | self.arrived.keys()


def _settle(state: State, settlement: Settlement) -> Decision:
    named = {verdict.index for verdict in settlement.verdicts}
    sums, held = _Sums(), dict(state.held)
    # Each arrival is settled once: what an earlier settlement named waits for the first one
    # that covers it without naming it.
    for index, (number, amount) in state.held.items():
        if index not in named:
            sums.arrive(number, amount)
            del held[index]
    rows = state.movements.cut(settlement.size)
    _sum_rows(state.movements, rows, named, sums, held)
    wallets = tuple(
        [
            _settled(state.wallets[state.numbers[number]], number, sums)
            for number in sorted(sums.numbers())
        ]
    )
    change = sum([w.unsettled - state.wallets[w.wallet].unsettled for w in wallets])
    return Decision(
        kind=EntryKind.SETTLEMENT,
        body=encode(settlement.signed.raw),
        wallets=wallets,
        fields={
            "movements": state.movements.after(rows),
            "held": held,
            "settled_size": settlement.size,
            "settled_ms": max(state.settled_ms, settlement.time_ms),
        },
        unsettled_change=change,
    )


def _sum_rows(
    movements: Movements,
    rows: int,
    named: set[int],
    sums: _Sums,
    held: dict[int, tuple[int, int]],
) -> None:
    columns = [column[:rows] for column in movements.columns()]
    for index, payer, payee, amount, arrived in zip(*columns, strict=True):
        sums.move(payer, payee, amount)
        if not arrived:
            continue
        if index in named:
            held[index] = (payee, arrived)
        else:
            sums.arrive(payee, arrived)


def _settled(wallet: Wallet, number: int, sums: _Sums) -> Wallet:
    """The wallet after a settlement; the hop stays until nothing is unsettled."""
    total, count = sums.out.get(number, (0, 0))
    part = min(sums.arrived.get(number, 0), wallet.unsettled)
    after = copy.copy(wallet)
    after.settled += part
    after.unsettled -= part
    if after.unsettled == 0:
        after.hop = 0
    after.out_amount_since -= total
    after.out_count_since -= count
    after.in_amount_since -= sums.incoming.get(number, 0)
    return after
