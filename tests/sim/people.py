"""What people do in a simulation: they pay, ask, refund, send notes next door and bring them here.

Some of it is wrong on purpose: what must be refused is asked for like anything else.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.sim import neighbour
from tests.sim.hosted import PINS, WRONG
from tests.sim.ledger import Errand, Holders
from tests.sim.world import SimulatedGateway
from wallet.journal import Receipted
from wallet.protocol.entry import Payment, decode_entry, decode_note
from wallet.protocol.messages import (
    Order,
    OrderKind,
    Request,
    decode_order,
    decode_request,
)
from wallet.protocol.refusals import Code, Refusal

HOUR_MS = 3_600_000
LIFETIME_MS = 24 * HOUR_MS
AMOUNT_MAX = 1_000
STRANGER, ELSEWHERE = bytes([9]) * 20, bytes([8]) * 20
CHEATS = 0.08
Claims = dict[str, Any]


class People:
    """Three holders with a wallet here and next door, and two whose wallets are hosted here."""

    def __init__(self, box: SimulatedGateway, chance: random.Random) -> None:
        self.box = box
        self.chance = chance
        self.holders = Holders()
        # Signed requests, as they travel and as they read.
        self.requests: list[tuple[bytes, Request]] = []
        self._nonces = 0
        self._kinds: dict[str, tuple[int, Callable[[int, Claims], list[Any]]]] = {
            "pay": (6, self._pay),
            "ask": (3, self._ask),
            "send": (2, self._send),
            "refund": (2, self._refund),
            "redeem": (1, self._redeem),
        }

    # ---- orders of devices ---------------------------------------------------------------------
    def orders(self, payer: int, *, now_ms: int, kind: str | None = None) -> list[Errand]:
        """New orders of a wallet that waits for nothing."""
        sequence = self.box.journal.state.wallets[self.box.wallet(payer)].next_sequence
        made: list[Errand] = []
        for _ in range(1 if kind else self.chance.randint(1, 2)):
            claims = self._claims(sequence + len(made), now_ms)
            weights = [weight for weight, _ in self._kinds.values()]
            chosen = kind or self.chance.choices(list(self._kinds), weights=weights)[0]
            made += self._kinds[chosen][1](payer, claims)
        for errand in made:
            self.holders.send(errand)
        return made

    def _claims(self, sequence: int, now_ms: int) -> Claims:
        claims = {
            "sequence": sequence,
            "amount_minor": self.chance.randint(1, AMOUNT_MAX),
            "created_ms": now_ms,
            "expires_ms": now_ms + LIFETIME_MS,
        }
        if self.chance.random() < CHEATS:
            wrong = (
                {"sequence": max(0, sequence - 1)},
                {"amount_minor": 10**9},
                {"currency": "USD"},
                {"payer_epoch": 2},
                {"expires_ms": now_ms + 1, "created_ms": now_ms},
                {"created_ms": now_ms + LIFETIME_MS, "expires_ms": now_ms + 2 * LIFETIME_MS},
            )
            claims |= self.chance.choice(wrong)  # type: ignore[arg-type]  # claims of several types
        return claims

    def _errand(self, payer: int, payee: int | bytes, claims: Claims, *more: Any) -> Errand:
        order = self.box.order(payer, payee, **claims)
        name = decode_order(order).identity
        return Errand(name=name, holder=self.box.wallet(payer), ask=lambda j: j.pay(order, *more))

    def _other(self, payer: int) -> int:
        return (payer + self.chance.randint(1, 2)) % 3

    def _pay(self, payer: int, claims: Claims) -> list[Errand]:
        """One pays another, in a shop or a hosted wallet."""
        payee: int | bytes = self._other(payer)
        if self.chance.random() < 0.2:
            payee = self.chance.choice(self.box.thief.wallets)
        return [self._errand(payer, payee, claims)]

    def _redeem(self, payer: int, claims: Claims) -> list[Errand]:
        """Back to the online account."""
        return [self._errand(payer, payer, claims | {"kind": int(OrderKind.REDEEM)})]

    def _send(self, payer: int, claims: Claims) -> list[Errand]:
        """A note for somebody next door, for oneself there, or for a stranger far away."""
        payee, journal = self.chance.choice(((payer, 1), (self._other(payer), 1), (payer, 0)))
        if not journal:
            return [self._errand(payer, STRANGER, claims | {"payee_journal": ELSEWHERE})]
        kind = OrderKind.REHOME if payee == payer else OrderKind.PAY
        claims |= {"kind": int(kind), "payee_journal": neighbour.JOURNAL}
        return [self._errand(payer, payee, claims)]

    def _ask(self, payer: int, claims: Claims) -> list[Errand]:
        """What somebody asked for is paid: new, or old, and then paid or void already."""
        request, decoded = self.asked(claims["created_ms"], payer=payer)
        claims |= {"request": decoded.identity, "payee_journal": decoded.payee_journal}
        if self.chance.random() > CHEATS:
            claims["amount_minor"] = decoded.amount_minor
        return [self._errand(payer, decoded.payee, claims, request)]

    def _refund(self, payer: int, claims: Claims) -> list[Errand]:
        """A part of what came in goes back; at times more than that."""
        mine = self._received(self.box.wallet(payer))
        if not mine:
            return self._pay(payer, claims)
        leaf, order = self.chance.choice(mine[-2:])
        if self.chance.random() > CHEATS:
            claims["amount_minor"] = self.chance.randint(1, order.amount_minor)
        claims |= {
            "kind": int(OrderKind.REFUND),
            "refunded": leaf,
            "payee_journal": order.payer_journal,
        }
        return [self._errand(payer, order.payer, claims)]

    def _received(self, wallet: bytes) -> list[tuple[bytes, Order]]:
        """Payments to a wallet from somebody else, newest last."""
        return [
            (leaf, order)
            for leaf, order in self.holders.payments[-40:]
            if order.payee == wallet and order.payer != wallet
        ]

    # ---- requests ------------------------------------------------------------------------------
    def asked(self, now_ms: int, *, payer: int) -> tuple[bytes, Request]:
        """A request of somebody else: a new one, or one that was made before."""
        own = self.box.wallet(payer)
        fitting = [asked for asked in self.requests if asked[1].payee != own]
        if fitting and self.chance.random() < 0.4:
            return self.chance.choice(fitting)
        return self.request(self._other(payer), now_ms)

    def request(self, payee: int, now_ms: int) -> tuple[bytes, Request]:
        """Somebody asks for an amount."""
        self._nonces += 1
        made = self.box.keys[payee].sign_request(
            nonce=self._nonces.to_bytes(16),
            payee_journal=self.box.journal.state.journal,
            amount_minor=self.chance.randint(1, AMOUNT_MAX),
            currency="EUR",
            created_ms=now_ms,
            expires_ms=now_ms + LIFETIME_MS,
        )
        return self._asks(made)

    def _asks(self, request: bytes) -> tuple[bytes, Request]:
        self.requests.append((request, decode_request(request)))
        return self.requests[-1]

    def void(self, now_ms: int) -> Errand:
        """Somebody takes a request back, one that nobody saw or one that was used."""
        request, decoded = self.asked(now_ms, payer=self.chance.randrange(3))
        name = decoded.identity
        errand = Errand(
            name=name, holder=name, ask=lambda j: j.void(request), done_code=Code.REQUEST_VOID
        )
        self.holders.send(errand)
        return errand

    # ---- notes ---------------------------------------------------------------------------------
    def note(self, now_ms: int) -> list[Errand]:
        """Somebody next door pays somebody here: the note is brought, once or more."""
        payer = self.chance.randrange(3)
        payee: bytes = self.box.wallet(self.chance.randrange(3))
        own = payee == self.box.wallet(payer)
        claims: Claims = {"amount_minor": self.chance.randint(1, AMOUNT_MAX), "request": None}
        if not own and self.chance.random() < 0.3:
            request, decoded = self.asked(now_ms, payer=payer)
            claims = {"amount_minor": decoded.amount_minor, "request": request}
            payee = decoded.payee
        journal = self.box.journal.state.journal
        made = self.box.neighbour.send(
            self.box.keys[payer],
            now_ms=now_ms,
            payee=payee,
            payee_journal=self.chance.choice((*[journal] * 9, ELSEWHERE)),
            created_ms=now_ms,
            expires_ms=now_ms + LIFETIME_MS,
            kind=int(OrderKind.REHOME if own else OrderKind.PAY),
            **claims,
        )
        return [] if isinstance(made, Refusal) else [self._brought(*made)]

    def _brought(self, entry: bytes, receipt: bytes) -> Errand:
        name = decode_note(entry, receipt).order.identity
        errand = Errand(name=name, holder=name, ask=lambda j: j.redeem(entry, receipt))
        self.holders.send(errand)
        return errand

    def deliver(self, now_ms: int) -> None:
        """Notes of ours arrive next door, those that were there already among them."""
        for made in self.chance.sample(self.holders.notes, min(2, len(self.holders.notes))):
            self.box.neighbour.redeem(made.entry, made.receipt, now_ms=now_ms)

    # ---- hosted wallets ------------------------------------------------------------------------
    async def hosted(self) -> Receipted | Refusal | bytes:
        """A hosted wallet pays, refunds or asks, with the right PIN, a wrong one or none."""
        box, number = self.box, self.chance.randrange(2)
        wallet = box.thief.wallets[number]
        pin = self.chance.choice((PINS[number], PINS[number], WRONG, None))
        mine = self._received(wallet)
        does = self.chance.random()
        if does < 0.15:
            return await box.hosted.request(
                wallet=wallet, amount_minor=5, currency="EUR", lifetime_ms=LIFETIME_MS
            )
        if mine and does < 0.4:
            leaf, _ = self.chance.choice(mine)
            return await box.hosted.refund(wallet=wallet, pin=pin, payment=leaf, amount_minor=1)
        return await box.hosted.pay(
            wallet=wallet,
            pin=pin,
            payee=box.wallet(self.chance.randrange(3)),
            payee_journal=box.journal.state.journal,
            amount_minor=self.chance.randint(1, AMOUNT_MAX),
        )

    def hear_hosted(self, outcome: Receipted | Refusal | bytes) -> None:
        """Keep what a hosted wallet got."""
        if isinstance(outcome, bytes):
            self._asks(outcome)
        elif isinstance(outcome, Receipted):
            body = decode_entry(outcome.entry).body
            assert isinstance(body, Payment)
            self.holders.keep(self.box, body.order.identity, outcome)
