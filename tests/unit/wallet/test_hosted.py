"""Hosted wallets: the PIN, its tries across restarts, the lock-out, orders in turn."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nacl.pwhash.argon2id
import pytest
import pytest_asyncio

from tests.support.gateway import DAY_MS, Gateway, gateway, refused, taken
from wallet.hosted import HostedWallets, PinUnfit
from wallet.protocol.entry import Payment, decode_entry
from wallet.protocol.ids import WalletId, wallet_text
from wallet.protocol.keys import PublicKey
from wallet.protocol.messages import Authorisation, Order, OrderKind, decode_request
from wallet.protocol.refusals import Code, ProtocolError, Refusal
from wallet.store.hosted import get_hosted

PIN, WRONG = "2580", "0000"
LOCK_S = 600
LIMITS = {119: 3, 120: LOCK_S}


class Hosting:
    """A gateway with a hosted wallet that has money."""

    def __init__(self, box: Gateway) -> None:
        self.box = box
        self.key: PublicKey
        self.wallets = self._wallets()

    def _wallets(self) -> HostedWallets:
        return HostedWallets(
            journal=self.box.journal,
            database=self.box.database,
            token=self.box.token,
            opslimit=nacl.pwhash.argon2id.OPSLIMIT_MIN,
        )

    async def begin(self) -> None:
        """Make the wallet."""
        self.key = await self.wallets.create(PIN)
        await self.box.enrol(self.key, sequence=self.box.journal.state.grants_next)

    async def reopen(self, *, crash: bool = False) -> None:
        """Restart the gateway."""
        await self.box.reopen(crash=crash)
        self.wallets = self._wallets()

    async def pay(self, pin: str | None = PIN, **changes: object) -> object:
        """A payment to the first device wallet."""
        given: dict[str, object] = {
            "wallet": self.key.id,
            "pin": pin,
            "payee": self.box.keys[0].public.id,
            "payee_journal": self.box.journal.state.journal,
            "amount_minor": 100,
        }
        return await self.wallets.pay(**(given | changes))  # type: ignore[arg-type]  # right types

    async def tries(self) -> tuple[int, int]:
        """(wrong tries, locked until) as stored."""
        found = await self.box.database.read(lambda c: get_hosted(c, self.key.id))
        assert found is not None
        return found.tries, found.locked_until_ms


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Hosting]:
    """A hosted wallet under a policy of three tries."""
    async with gateway(tmp_path, limits=LIMITS) as box:
        made = Hosting(box)
        await made.begin()
        yield made


def refusal(outcome: object) -> Refusal:
    """The refusal, or a failed test."""
    assert isinstance(outcome, Refusal), outcome
    return outcome


def order_of(entry: bytes) -> Order:
    """The order of a payment's entry."""
    body = decode_entry(entry).body
    assert isinstance(body, Payment)
    return body.order


@pytest.mark.parametrize("pin", ["", "123", "1234567890123", "12a4", "١٢٣٤", "1234\n"])
async def test_a_pin_has_four_to_twelve_digits(host: Hosting, pin: str) -> None:
    with pytest.raises(PinUnfit):
        await host.wallets.create(pin)


async def test_a_right_pin_pays_and_says_so_in_the_order(host: Hosting) -> None:
    made = taken(await host.pay(reference="bread", category=None))
    order = order_of(made.entry)
    assert (order.authorisation, order.reference) == (Authorisation.PIN, "bread")
    host.box.verified(made)
    alone = taken(await host.pay(None))
    assert order_of(alone.entry).authorisation == Authorisation.DEVICE_KEY


async def test_the_key_and_the_pin_are_not_in_the_store(host: Hosting) -> None:
    found = await host.box.database.read(lambda c: get_hosted(c, host.key.id))
    assert found is not None
    assert PIN not in found.pin_hash
    assert found.pin_hash.startswith("$argon2id$")
    seed = await host.box.token.sealer.unseal(
        found.sealed_key, label=f"hosted/{wallet_text(WalletId(host.key.id))}"
    )
    assert seed not in found.sealed_key


async def test_wrong_pins_are_counted_and_a_right_one_clears_them(host: Hosting) -> None:
    outcome = refusal(await host.pay(WRONG))
    assert refused(outcome) is Code.PIN_WRONG
    assert (outcome.limit, outcome.left) == (3, 2)
    assert await host.tries() == (1, 0)
    taken(await host.pay())
    assert await host.tries() == (0, 0)


async def test_tries_and_lock_out_survive_a_restart(host: Hosting) -> None:
    await host.pay(WRONG)
    await host.reopen(crash=True)
    await host.pay(WRONG)
    await host.reopen(crash=True)
    outcome = refusal(await host.pay(WRONG))
    assert (refused(outcome), outcome.left) == (Code.PIN_WRONG, 0)
    await host.reopen(crash=True)
    locked = refusal(await host.pay())
    assert refused(locked) is Code.WALLET_LOCKED
    assert locked.retry_after_ms == LOCK_S * 1000
    # A wall clock that was turned back makes no lock longer, nor one turned forward a second try
    # before its time.
    host.box.clock.wall_ms += LOCK_S * 1000 - 1
    assert refused(await host.pay()) is Code.WALLET_LOCKED
    host.box.clock.wall_ms += 1
    assert refused(await host.pay(WRONG)) is Code.PIN_WRONG
    assert await host.tries() == (1, 0)
    taken(await host.pay())


async def test_many_guesses_at_once_are_counted_one_by_one(host: Hosting) -> None:
    outcomes = await asyncio.gather(*[host.pay(WRONG) for _ in range(8)])
    codes = [refused(outcome) for outcome in outcomes]
    assert codes.count(Code.PIN_WRONG) == 3
    assert codes.count(Code.WALLET_LOCKED) == 5
    assert not host.wallets._turns


async def test_without_a_lock_time_the_lock_is_for_good(tmp_path: Path) -> None:
    async with gateway(tmp_path, limits={119: 1}) as box:
        host = Hosting(box)
        await host.begin()
        assert refused(await host.pay(WRONG)) is Code.PIN_WRONG
        box.clock.wall_ms += 10 * DAY_MS
        assert refused(await host.pay()) is Code.WALLET_LOCKED


async def test_without_a_limit_of_tries_nothing_locks(tmp_path: Path) -> None:
    async with gateway(tmp_path) as box:
        host = Hosting(box)
        await host.begin()
        for _ in range(5):
            outcome = refusal(await host.pay(WRONG))
            assert (refused(outcome), outcome.left) == (Code.PIN_WRONG, None)


async def test_payments_of_one_wallet_at_once_come_one_after_another(host: Hosting) -> None:
    made = [taken(m) for m in await asyncio.gather(*[host.pay() for _ in range(4)])]
    assert sorted(order_of(one.entry).sequence for one in made) == [0, 1, 2, 3]


async def test_a_wallet_that_is_not_hosted_is_unknown(host: Hosting) -> None:
    stranger = host.box.wallet(0)
    assert refused(await host.pay(wallet=stranger)) is Code.UNKNOWN_WALLET
    asked = await host.wallets.request(
        wallet=stranger, amount_minor=1, currency="EUR", lifetime_ms=1
    )
    assert refused(asked) is Code.UNKNOWN_WALLET
    assert refused(await host.wallets._check_pin(stranger, PIN)) is Code.UNKNOWN_WALLET


async def test_a_wallet_before_its_enrolment_is_unknown_to_the_journal(host: Hosting) -> None:
    key = await host.wallets.create(PIN)
    assert refused(await host.pay(wallet=key.id)) is Code.UNKNOWN_WALLET


async def test_a_request_of_a_hosted_payee_is_paid(host: Hosting) -> None:
    asked = await host.wallets.request(
        wallet=WalletId(host.key.id),
        amount_minor=70,
        currency="EUR",
        reference="r",
        lifetime_ms=60_000,
    )
    assert isinstance(asked, bytes)
    request = decode_request(asked)
    order = host.box.order(0, host.key.id, amount_minor=70, request=request.identity)
    taken(await host.box.journal.pay(order, asked))
    device = host.box.keys[0]
    theirs = device.sign_request(
        nonce=bytes(16),
        payee_journal=host.box.journal.state.journal,
        amount_minor=5,
        currency="EUR",
        created_ms=host.box.clock.wall_ms,
        expires_ms=host.box.clock.wall_ms + 60_000,
    )
    taken(await host.pay(request=theirs, amount_minor=5))
    with pytest.raises(ProtocolError):
        await host.pay(request=b"\x00")


async def test_refunds_are_the_rest_or_a_part(host: Hosting) -> None:
    paid = taken(await host.box.journal.pay(host.box.order(0, host.key.id, amount_minor=90)))

    async def refund(payment: bytes, amount_minor: int | None = None) -> object:
        return await host.wallets.refund(
            wallet=WalletId(host.key.id), pin=PIN, payment=payment, amount_minor=amount_minor
        )

    assert refused(await refund(bytes(32))) is Code.REFUND_UNKNOWN
    grant = (await host.box.journal.receipted(1)).leaf
    assert refused(await refund(grant)) is Code.REFUND_UNKNOWN
    part = taken(await refund(paid.leaf, 30))
    assert order_of(part.entry).kind == OrderKind.REFUND
    assert refused(await refund(paid.leaf, 0)) is Code.MALFORMED
    rest = taken(await refund(paid.leaf))
    assert order_of(rest.entry).amount_minor == 60
    assert refused(await refund(paid.leaf)) is Code.REFUND_ABOVE_PAYMENT
