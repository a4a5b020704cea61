"""Bodies and answers of what officers and holders call after a gateway was lost."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cloud.attestation.manifests import PcrPolicyName
from cloud.http.types import Answer, Body, Count, CurrencyCode, Identity, Name, Text

# With receipts of the usual size a full call is half of what a body may be.
CLAIMS_MAX = 50
# 16 KiB, the most that an entry of a payment or its receipt may have, as base64url.
Octets = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]*$", max_length=21_846)]
Cause = Literal["planned", "lost", "compromised", "migrated"]
Hosted = Literal["carry", "online", "everybody"]
Borne = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000_000)]


class ClosureBody(Body, frozen=True, kw_only=True):
    """A draft: the epoch of a gateway is over, once another officer approves."""

    closure_id: Identity
    journal: Name
    cause: Cause
    reason: Text


class SuccessorBody(Body, frozen=True, kw_only=True):
    """What the gateway that goes on has to prove, where it is more than the one before had to."""

    level: Literal["tpm", "pkcs11", "software"] | None = None
    pcr_policy: PcrPolicyName | None = None


class ClosureAnswer(Answer, frozen=True, kw_only=True):
    """A closure and what became of it. `successor`: the journal that goes on."""

    closure_id: Identity
    journal: str
    epoch: int
    cause: Cause
    reason: str
    state: Literal["draft", "closed", "rejected"]
    claims_until_ms: int | None
    successor: str | None


class ClosuresAnswer(Answer, frozen=True, kw_only=True):
    """Closures, the newest first."""

    closures: list[ClosureAnswer]


class Receipt(Body, frozen=True, kw_only=True):
    """An entry of a journal and its receipt."""

    entry: Octets
    receipt: Octets


class ClaimsBody(Body, frozen=True, kw_only=True):
    """Receipts of entries that a journal may not have told."""

    receipts: Annotated[list[Receipt], msgspec.Meta(min_length=1, max_length=CLAIMS_MAX)]


class TakenAnswer(Answer, frozen=True, kw_only=True):
    """What became of each receipt, in order.

    `known`: it came before, or its journal told of it. `late`: the statement was signed before; two
    officers may have a payment paid all the same.
    """

    outcomes: list[Literal["taken", "known", "invalid", "late"]]


class ClaimAnswer(Answer, frozen=True, kw_only=True):
    """One claim, named by its entry's leaf hash; `code` says why it does not count."""

    claim: Identity
    index: int
    kind: str
    amount: int
    code: str | None


class ClaimsAnswer(Answer, frozen=True, kw_only=True):
    """What an epoch comes to by what is known now; amounts are sums in minor units.

    `claims`: those from the place `first` of the query on, of all that are `claimed`. Pages of the
    same `outcome` are pages of the same.
    """

    outcome: Identity
    claimed: int
    carried: int
    paid_out: int
    taken_back: int
    borne: int
    wallets: int
    claims: list[ClaimAnswer]


class JudgedAnswer(Answer, frozen=True, kw_only=True):
    """Claims as a draft judges them, from the place `first` of the query on; none at the end."""

    claims: list[ClaimAnswer]


class RefusalBody(Body, frozen=True, kw_only=True):
    """A draft: a claim, by its entry's leaf hash, does not count once another officer approves."""

    draft_id: Identity
    claim: Identity
    reason: Text


class RefusalAnswer(Answer, frozen=True, kw_only=True):
    """A draft and what became of it."""

    draft_id: Identity
    closure_id: Identity
    claim: Identity
    reason: str
    state: Literal["draft", "approved", "rejected"]


class RefusalsAnswer(Answer, frozen=True, kw_only=True):
    """Drafts of a closure and what became of them, the newest first."""

    refusals: list[RefusalAnswer]


class StatementBody(Body, frozen=True, kw_only=True):
    """A draft of the statement. `hosted`: where the value of wallets goes whose keys the lost
    gateway kept: to the next gateway, which has the keys, or to the holders' online wallets; with
    `everybody`, all wallets' value goes online. `bear_max`: what the issuer may bear, in minor
    units, where the bound of the journal's policy is not enough.
    """

    statement_id: Identity
    hosted: Hosted
    bear_max: Borne = 0


class StatementAnswer(Answer, frozen=True, kw_only=True):
    """A draft of a statement and what it comes to; `object` once it is signed.

    `taken_back`: what rejected entries had brought, out of what their payees still have.
    """

    statement_id: Identity
    closure_id: Identity
    hosted: Hosted
    carried: int
    paid_out: int
    taken_back: int
    borne: int
    counted: int
    refused: int
    state: Literal["draft", "signed", "rejected"]
    object: str | None


class StatementsAnswer(Answer, frozen=True, kw_only=True):
    """Drafts of a closure's statement, the newest first."""

    statements: list[StatementAnswer]


# ---- late payments --------------------------------------------------------------------------


class LateReceiptsAnswer(Answer, frozen=True, kw_only=True):
    """Receipts that came after the statement, from the place `first` of the query on; none at the
    end. `code` says why one pays nobody.

    `borne`: what the issuer bore of the epoch until now, in minor units; `bound`: what its policy
    says, if it says anything.
    """

    borne: int
    bound: int | None
    receipts: list[ClaimAnswer]


class LatePaymentBody(Body, frozen=True, kw_only=True):
    """A draft: a late receipt, by its entry's leaf hash, is paid online once another approves.

    `bear_max`: what the issuer may bear of the epoch in all, in minor units, where the bound of the
    journal's policy is not enough.
    """

    draft_id: Identity
    claim: Identity
    reason: Text
    bear_max: Borne = 0


class LatePaymentAnswer(Answer, frozen=True, kw_only=True):
    """A draft and what became of it."""

    draft_id: Identity
    closure_id: Identity
    claim: Identity
    index: int
    payee: str
    amount: int
    reason: str
    bear_max: int
    state: Literal["draft", "approved", "rejected"]


class LatePaymentsAnswer(Answer, frozen=True, kw_only=True):
    """Drafts of a closure and what became of them, the newest first."""

    payments: list[LatePaymentAnswer]


# ---- lost grants ----------------------------------------------------------------------------


class LostGrantAnswer(Answer, frozen=True, kw_only=True):
    """A grant in a journal that nobody remembered; `offline_wallet` has the value."""

    journal: str
    epoch: int
    sequence: int
    offline_wallet: str
    amount: int
    currency: CurrencyCode
    found_ms: int
    closed: bool


class LostGrantsAnswer(Answer, frozen=True, kw_only=True):
    """Lost grants from the place `first` of the query on, open ones first; none at the end."""

    grants: list[LostGrantAnswer]


class GrantClosingBody(Body, frozen=True, kw_only=True):
    """A draft: the value of a lost grant comes out of an online wallet, once another approves.

    `taken` of it does, none without a wallet; the rest is the issuer's loss.
    """

    draft_id: Identity
    journal: Name
    epoch: Count
    sequence: Count
    wallet: Name | None = None
    taken: Count = 0
    reason: Text


class GrantClosingAnswer(Answer, frozen=True, kw_only=True):
    """A draft and what became of it."""

    draft_id: Identity
    journal: str
    epoch: int
    sequence: int
    wallet: str | None
    taken: int
    reason: str
    state: Literal["draft", "approved", "rejected"]


class GrantClosingsAnswer(Answer, frozen=True, kw_only=True):
    """Drafts that wait, the newest first."""

    closings: list[GrantClosingAnswer]
