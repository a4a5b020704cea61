"""Bodies and answers of the API: the handlers use them, and the OpenAPI description shows them.

Amounts are integers of minor units, identities 32 bytes in hex, keys base64url without padding.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cloud.attestation.manifests import PcrPolicyName
from cloud.issuer.officers import Role

Amount = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000_000)]
SUPPLY_MAX = 9_007_199_254_740_991
Supply = Annotated[int, msgspec.Meta(ge=1, le=SUPPLY_MAX)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2_147_483_647)]
# A number as the key of an object, where JSON knows texts alone.
NumberKey = Annotated[str, msgspec.Meta(pattern="^(0|[1-9][0-9]{0,8})$", max_length=9)]
Ratio = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=9_007_199_254_740_991)]
Identity = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Octets = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]*$", max_length=16_384)]
CurrencyCode = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$", max_length=3)]
# No control characters: PostgreSQL holds no NUL, and people read these.
_PLAIN = r"^(?![\s\S]*[\u0000-\u001f\u007f])"
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_PLAIN)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=_PLAIN)]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What comes in: unknown members are refused."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What goes out."""


class Nothing(Body, frozen=True, kw_only=True):
    """An empty object."""


# ---- officers -------------------------------------------------------------------------------


class SupplyBody(Body, frozen=True, kw_only=True):
    """A draft: value comes into an online wallet, or leaves it, once another officer approves."""

    draft_id: Identity
    action: Literal["issue", "burn"]
    wallet: Name
    amount: Supply
    reason: Text


class SupplyAnswer(Answer, frozen=True, kw_only=True):
    """A draft and what became of it."""

    draft_id: Identity
    action: Literal["issue", "burn"]
    currency: CurrencyCode
    amount: Supply
    reason: str
    state: Literal["draft", "posted", "rejected"]


class DraftsAnswer(Answer, frozen=True, kw_only=True):
    """Drafts of supply that wait."""

    drafts: list[SupplyAnswer]


class GatewayBody(Body, frozen=True, kw_only=True):
    """A gateway that will enrol; `tiers`: those whose wallets it may enrol by itself.

    `level`: where its keys have to be. `tpm` is proven, at the enrolment and with each report;
    `pkcs11` and `software` are the officer's word. `pcr_policy`: registers that a TPM quotes.
    """

    name: Name
    currency: CurrencyCode
    tiers: Annotated[list[Number], msgspec.Meta(max_length=100)]
    level: Literal["tpm", "pkcs11", "software"] = "tpm"
    pcr_policy: PcrPolicyName = "firmware"


class TokenAnswer(Answer, frozen=True, kw_only=True):
    """A token, shown once."""

    token: str


class GatewayAnswer(Answer, frozen=True, kw_only=True):
    """A gateway; `seen_ms`: its last exchange."""

    journal: str
    name: str
    currency: CurrencyCode
    tiers: list[int]
    epoch: int
    state: str
    seen_ms: int | None


class GatewaysAnswer(Answer, frozen=True, kw_only=True):
    """All gateways by name."""

    gateways: list[GatewayAnswer]


class EnrolmentBody(Body, frozen=True, kw_only=True):
    """A wallet for a journal; `key` is a COSE_Key in base64url."""

    journal: Name
    key: Octets
    tier: Number
    label: Name | None = None


class EnrolmentAnswer(Answer, frozen=True, kw_only=True):
    """The wallet, which the journal gets at its next exchange."""

    wallet: str
    journal: str


class WishAnswer(Answer, frozen=True, kw_only=True):
    """A wallet that a gateway asked for in a tier that it may not enrol by itself."""

    wish: int
    journal: str
    wallet: str
    tier: int
    label: str | None
    hosted: bool
    asked_ms: int


class WishesAnswer(Answer, frozen=True, kw_only=True):
    """Wishes that wait for an officer, the oldest first."""

    wishes: list[WishAnswer]


class ListItem(Body, frozen=True, kw_only=True):
    """An item: the text of a wallet or journal, a serial in hex, a category or an identifier.

    `epoch` goes with journals, `set` with categories, `names` with the sanctioned.
    """

    id: Text
    epoch: Count | None = None
    set: Count | None = None
    names: Annotated[list[Text], msgspec.Meta(max_length=100)] = []


class ListBody(Body, frozen=True, kw_only=True):
    """What comes into a list and what leaves it."""

    add: Annotated[list[ListItem], msgspec.Meta(max_length=10_000)] = []
    remove: Annotated[list[ListItem], msgspec.Meta(max_length=10_000)] = []


class ListAnswer(Answer, frozen=True, kw_only=True):
    """A list as it is signed now."""

    list: str
    sequence: int
    issued_ms: int
    next_update_ms: int
    items: int


class ListsAnswer(Answer, frozen=True, kw_only=True):
    """All lists."""

    lists: list[ListAnswer]


class PolicyBody(Body, frozen=True, kw_only=True):
    """A draft of the next policy; limits by their codes. Another officer approves it."""

    draft_id: Identity
    currency: CurrencyCode
    tiers: dict[NumberKey, dict[NumberKey, Count]]
    journal: dict[NumberKey, Count]


class WindowBody(Body, frozen=True, kw_only=True):
    """A draft of the policy in force with another window of the counter."""

    draft_id: Identity
    currency: CurrencyCode
    window: Literal["short", "long"]


class PolicyAnswer(Answer, frozen=True, kw_only=True):
    """A draft of a policy; `sequence` once it is signed."""

    draft_id: Identity
    currency: CurrencyCode
    state: Literal["draft", "signed", "rejected"]
    sequence: int | None
    tiers: dict[int, dict[int, int]]
    journal: dict[int, int]


class PoliciesAnswer(Answer, frozen=True, kw_only=True):
    """Drafts of policies, the newest first."""

    policies: list[PolicyAnswer]


class HolderBody(Body, frozen=True, kw_only=True):
    """A holder and an online wallet of it."""

    holder: Name
    wallet: Name
    currency: CurrencyCode


class HolderAnswer(Answer, frozen=True, kw_only=True):
    """The wallet, and the token by which its holder calls: the same for the same holder."""

    wallet: str
    holder: str
    token: str


class RedeemTargetBody(Body, frozen=True, kw_only=True):
    """Where a hosted wallet redeems to: its key is the gateway's, so that an officer decides."""

    offline_wallet: Name
    wallet: Name


class RedeemTargetAnswer(Answer, frozen=True, kw_only=True):
    """Where a wallet in a journal redeems to."""

    offline_wallet: str
    wallet: str


class OfferBody(Body, frozen=True, kw_only=True):
    """A dealer's standing offer; the rate is a ratio of minor units."""

    receives: Name
    pays: Name
    numerator: Ratio
    denominator: Ratio
    valid_until_ms: Count


class OfferAnswer(Answer, frozen=True, kw_only=True):
    """The offer's number."""

    offer: int


class AccountLine(Answer, frozen=True, kw_only=True):
    """issued = online + offline + in transit + suspense + loss + difference, which is 0."""

    currency: CurrencyCode
    issued: int
    online: int
    offline: int
    in_transit: int
    suspense: int
    loss: int
    difference: int


class AccountAnswer(Answer, frozen=True, kw_only=True):
    """Where all value is, by currency."""

    currencies: list[AccountLine]


class JournalAnswer(Answer, frozen=True, kw_only=True):
    """An epoch of a journal; `reason`: the code of what it was suspended for.

    `lost_grants`: grants in it that this issuer, restored from a backup, knows no payer of, and
    that nobody has closed yet.
    """

    journal: str
    epoch: int
    state: str
    reason: str | None
    size: int
    lost_grants: int


class JournalsAnswer(Answer, frozen=True, kw_only=True):
    """Journals as the reconciler holds them."""

    journals: list[JournalAnswer]


class AuditLine(Answer, frozen=True, kw_only=True):
    """One act."""

    sequence: int
    at_ms: int
    actor: str
    action: str
    subject: str
    detail: str


class AuditAnswer(Answer, frozen=True, kw_only=True):
    """Acts after a sequence, the oldest first."""

    lines: list[AuditLine]


class OfficerBody(Body, frozen=True, kw_only=True):
    """How an officer is to be, once another administrator approves.

    `token_hash`: SHA-256 of the secret of the token that the officer made and keeps; left out where
    the token stays.
    """

    draft_id: Identity
    name: Name
    roles: Annotated[list[Role], msgspec.Meta(min_length=1, max_length=20)]
    token_hash: Identity | None = None


class DisableBody(Body, frozen=True, kw_only=True):
    """An officer may act no more, once another administrator approves."""

    draft_id: Identity
    name: Name


class OfficerDraftAnswer(Answer, frozen=True, kw_only=True):
    """A draft of an officer and what became of it. `disabled`: the officer may act no more."""

    draft_id: Identity
    name: str
    roles: list[Role]
    token_hash: Identity | None
    disabled: bool
    state: Literal["draft", "approved", "rejected"]


class OfficerAnswer(Answer, frozen=True, kw_only=True):
    """An officer who may act."""

    name: str
    roles: list[Role]


class OfficersAnswer(Answer, frozen=True, kw_only=True):
    """Officers by name, and drafts that wait."""

    officers: list[OfficerAnswer]
    drafts: list[OfficerDraftAnswer]


# ---- everybody -------------------------------------------------------------------------------


class HealthAnswer(Answer, frozen=True, kw_only=True):
    """The process is alive, or ready for work."""

    status: str


class StatusAnswer(Answer, frozen=True, kw_only=True):
    """The cloud at a glance.

    `root`: whether the root's key is `here` or `away`; `certificates_end_ms`: when the first of
    those ends that the root has certified.
    """

    status: str
    currencies: list[AccountLine]
    root: Literal["here", "away"]
    certificates_end_ms: int
