"""What each named state of the gateway means for a technician, and what to do next.

A name is a mode, a code of the key hardware, a state of the synchronisation, or one of `Trouble`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from hsm.api import (
    CounterReplaced,
    HsmError,
    KeyMissing,
    PinWrong,
    PolicyRefused,
    SealBroken,
    TokenCleared,
    TokenGone,
    TokenLocked,
    TokenRefused,
    TokenReplaced,
    TokenTimeout,
)
from sync.machine import State
from wallet.journal import Mode


class Level(enum.StrEnum):
    """How urgent something is."""

    WELL = "well"
    LOOK = "look"
    BAD = "bad"


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """One state: its title, what it means, and what to do, in order."""

    level: Level
    title: str
    meaning: str
    steps: tuple[str, ...] = ()


class Trouble(enum.StrEnum):
    """What an open gateway may have to say besides its mode."""

    TAMPER_SWITCH = "tamper-switch"
    POLICY_EXPIRED = "policy-expired"
    JOURNAL_FULL = "journal-full"
    LISTS_STALE = "lists-stale"
    EXPOSURE_FULL = "gateway-exposure"
    OFFLINE_TOO_LONG = "offline-too-long"
    CERTIFICATE_ENDED = "certificate-ended"
    REDUCED = "limits-reduced"
    CLOCK_UNCERTAIN = "clock-uncertain"
    DISK_LOW = "disk-low"
    WORN = "counter-worn"
    BUDGET_SPENT = "budget-spent"
    STORE_SILENT = "store-silent"


def _well(title: str, meaning: str, *steps: str) -> Advice:
    return Advice(level=Level.WELL, title=title, meaning=meaning, steps=steps)


def _look(title: str, meaning: str, *steps: str) -> Advice:
    return Advice(level=Level.LOOK, title=title, meaning=meaning, steps=steps)


def _bad(title: str, meaning: str, *steps: str) -> Advice:
    return Advice(level=Level.BAD, title=title, meaning=meaning, steps=steps)


_SYNC_SOON = "Bring the line to the cloud back; the gateway synchronises by itself then."
_COURIER = (
    "If the line stays down, carry the journal: cbdc-edge sync export, cbdc-cloud sync import,"
    " cbdc-edge sync import."
)
_KEEP = "Leave the box, its disk and its key hardware as they are: they are evidence."
_LOST = (
    "Tell the issuer. It closes this epoch; receipts that people hold stay good and are claimed"
    " there."
)
_ANEW = (
    "When the issuer says so, provision a gateway in another folder: cbdc-edge provision. The"
    " statement that comes with it opens the next epoch."
)

MODES: Mapping[Mode, Advice] = {
    Mode.OPEN: _well(
        "Taking payments",
        "Payments are taken, with the line up or down. There is nothing to do.",
    ),
    Mode.SEALED: _bad(
        "Sealed: no payments",
        "The key hardware cannot be used, so the gateway can sign no receipt. Nothing is lost.",
        "Do what the reason below says.",
        "The gateway tries again every few seconds, and opens by itself.",
    ),
    Mode.FROZEN_ROLLBACK: _bad(
        "Frozen: the disk is older than the key hardware",
        "The journal on this disk does not fit the counter in the key hardware (frozen-rollback):"
        " it is an older copy, or a copy of another box. Payments that are not in it may have been"
        " made, so this copy never pays again.",
        "Do not restart or restore again: that does not help.",
        "If the newest disk still exists, put it back and start the gateway from it.",
        _LOST,
        _ANEW,
    ),
    Mode.FROZEN_TAMPER: _bad(
        "Frozen: the stored journal was changed",
        "A part of the store fails its check (frozen-tamper): the disk is failing, or somebody"
        " changed it. Nothing more is taken.",
        "Keep the disk, and look for errors of the disk in the system's log.",
        _LOST,
        _ANEW,
    ),
    Mode.FROZEN_BY_ISSUER: _bad(
        "Frozen: stopped by the issuer",
        "The issuer revoked this gateway or closed its epoch (frozen-by-issuer). Receipts that"
        " were given stay good.",
        "Call the issuer and ask why.",
        "Leave the line up: what the issuer does not hold yet still goes there.",
        _ANEW,
    ),
    Mode.NOT_PROVISIONED: _bad(
        "Not set up yet",
        "This gateway has no journal (not-provisioned) and takes no payments.",
        "Get a one-time token from the issuer.",
        "Run cbdc-edge provision with it; the page shows the gateway once it is open.",
    ),
}

# By the code that the reason of a sealed gateway begins with.
TOKENS: Mapping[str, Advice] = {
    HsmError.code: _bad(
        "Sealed: the key hardware failed",
        "The key hardware failed in a way that has no name. Nothing is lost.",
        "Keep the box as it is and call support.",
    ),
    TokenGone.code: _bad(
        "Sealed: the key hardware does not answer",
        "The token or TPM is not there, so no receipt can be signed. Nothing is lost.",
        "Check that the token is plugged in and that its service runs (for a TPM: that it is on"
        " in the firmware's setup).",
        "The gateway goes on by itself once it is back.",
    ),
    TokenLocked.code: _bad(
        "Sealed: the key hardware is locked",
        "Too many wrong PINs, or power cuts, which count the same: for a while the key hardware"
        " refuses everybody, with the right PIN too. Nothing is lost.",
        "Leave the gateway on and do not restart it: it tries again by itself.",
        "If this comes back, set the lock-out as docs/hardware.md says, and give the box a steady"
        " supply of power.",
    ),
    TokenCleared.code: _bad(
        "Sealed: the key hardware was erased",
        "The keys are gone for good, and this gateway cannot be opened again.",
        _KEEP,
        _LOST,
        _ANEW,
    ),
    TokenReplaced.code: _bad(
        "Sealed: this is another key hardware",
        "The token or board is not the one that this gateway was set up with. Nothing is lost as"
        " long as that one exists.",
        "Put the original token or board back.",
        "If it is lost or broken: tell the issuer, who closes this epoch.",
    ),
    PolicyRefused.code: _bad(
        "Sealed: the box started with other software",
        "The TPM opens the keys to the firmware and system that the gateway was set up under, and"
        " another one runs. Nothing is lost.",
        "Undo the last change of firmware, boot order or system, and restart.",
        "If nobody changed anything: keep the box as it is and call the issuer.",
        "If it was an update: follow docs/hardware.md, Updates (cbdc-edge key reseal).",
    ),
    CounterReplaced.code: _bad(
        "Sealed: the hardware counter was tampered with",
        "The counter that notices an older disk was removed, reset or made anew, or what was noted"
        " of it is gone. What it shows proves nothing.",
        "Do not try to mend it.",
        _KEEP,
        _LOST,
        _ANEW,
    ),
    TokenTimeout.code: _bad(
        "Sealed: the key hardware is too slow",
        "The key hardware did not answer in time. Nothing is lost.",
        "Wait: the gateway tries again by itself.",
        "If it lasts for minutes, restart the box.",
    ),
    KeyMissing.code: _bad(
        "Sealed: the keys are not there",
        "The key hardware answers, and holds no key of this gateway.",
        "Put the right token in, and check its label and key_label in the configuration.",
        "If it is the right one, call support.",
    ),
    PinWrong.code: _bad(
        "Sealed: the PIN is wrong",
        "The key hardware refused the PIN or passphrase. It is not tried again, for a few wrong"
        " tries lock it.",
        "Correct the PIN's file, then restart the gateway once.",
    ),
    SealBroken.code: _bad(
        "Sealed: a sealed file does not open",
        "A file that this box had sealed was changed, or belongs to another box.",
        "Put the gateway's own folder back, or call support.",
    ),
    TokenRefused.code: _bad(
        "Sealed: the key hardware refuses",
        "The key hardware answers and says no, or a file that belongs to it is missing.",
        "Compare its settings with the configuration, and read the reason below.",
        "If nothing is wrong there, call support.",
    ),
}

# An open gateway that is in other states too, which follow.
OPEN_BUT = _look(
    "Taking payments",
    "Payments are taken. What is said below needs somebody.",
    "Do what is said below, the most urgent first.",
)

# The tamper switch freezes for another reason than a damaged store.
TRIPPED = _bad(
    "Frozen: the box was opened",
    "The tamper switch tripped, and the keys were dropped at once (frozen-tamper). Receipts that"
    " were given stay good. Nothing makes this folder pay again.",
    _KEEP,
    _LOST,
    "cbdc-edge tamper says step by step how the next gateway is set up.",
)

LINES: Mapping[State, Advice] = {
    State.OFFLINE: _look(
        "No line to the cloud",
        "Nothing got through the last time. Payments go on within the limits.",
        "Check cable, modem and router; the gateway tries again by itself.",
        _COURIER,
    ),
    State.PROBING: _well(
        "Looking for the cloud", "The gateway is seeing whether the cloud answers."
    ),
    State.CAPTIVE: _look(
        "Somebody else answers in the cloud's place",
        "A portal wants a log-in, or a name server tells a wrong address. Nothing was told to it.",
        "Open any page in a browser on this network and log in at the portal.",
        "If there is no portal, check the name server of this network.",
    ),
    State.METERED: _well(
        "Synchronised; this line costs by the byte",
        "The last exchange ended well. What can wait waits.",
    ),
    State.EXCHANGING: _well("Exchanging with the cloud", "The journal is on its way."),
    State.IDLE: _well("Synchronised", "The last exchange ended well."),
    State.SUSPENDED: _bad(
        "Suspended by the issuer",
        "The issuer takes nothing more from this gateway, though it pays on within its limits. New"
        " money does not come.",
        "Call the issuer and ask why: the reason may be a changed box, or a broken rule.",
        "When the issuer has lifted it: cbdc-edge sync now.",
    ),
}

TROUBLES: Mapping[Trouble, Advice] = {
    Trouble.TAMPER_SWITCH: TRIPPED,
    Trouble.POLICY_EXPIRED: _bad(
        "Payments are refused: the policy is too old",
        "The issuer's rules on this gateway have run out (policy-expired).",
        _SYNC_SOON,
        _COURIER,
    ),
    Trouble.JOURNAL_FULL: _bad(
        "Payments are refused: the journal is full",
        "As many payments wait to be settled as the issuer allows (journal-full).",
        _SYNC_SOON,
        _COURIER,
    ),
    Trouble.LISTS_STALE: _bad(
        "Payments to other branches are refused",
        "The lists of what was revoked are too old (lists-stale). Payments inside this branch go"
        " on with lower limits.",
        _SYNC_SOON,
        "A gateway next door may have newer lists: see [neighbours] in docs/security.md.",
    ),
    Trouble.EXPOSURE_FULL: _bad(
        "Payments that bring unsettled money are refused",
        "As much unsettled value came in as the issuer allows (gateway-exposure).",
        _SYNC_SOON,
        _COURIER,
    ),
    Trouble.OFFLINE_TOO_LONG: _bad(
        "Some wallets may pay no more",
        "The gateway has been without a settlement for longer than the strictest limit allows"
        " (offline-too-long).",
        _SYNC_SOON,
        _COURIER,
    ),
    Trouble.CERTIFICATE_ENDED: _bad(
        "The certificate of the gateway's key has ended",
        "Receipts that are made now count only for a time of grace.",
        "Bring the line to the cloud back: the next exchange brings a new certificate.",
    ),
    Trouble.REDUCED: _look(
        "Limits are lower than usual",
        "A list or the policy is getting old, so the limits of payments are reduced.",
        _SYNC_SOON,
    ),
    Trouble.CLOCK_UNCERTAIN: _look(
        "The clock is not certain",
        "The clock is behind a time that the issuer has signed, so the limits are reduced.",
        "Set the clock of the system, or let it be set by the network (NTP).",
    ),
    Trouble.DISK_LOW: _look(
        "The disk is nearly full",
        "When it is full, payments are refused; nothing is lost.",
        "Make room on the disk of the gateway's folder, but touch nothing in that folder.",
    ),
    Trouble.WORN: _look(
        "The hardware counter wears out too soon",
        "At the rate of the last days the counter will not last ten years.",
        "Ask the issuer for a longer window: cbdc-cloud issuer window long.",
    ),
    Trouble.BUDGET_SPENT: _look(
        "The line's budget for today is used up",
        "The next exchange waits until bytes of this link are free again.",
        "To exchange all the same: cbdc-edge sync now. To change the budget: [[sync.links]] in the"
        " configuration.",
    ),
    Trouble.STORE_SILENT: _look(
        "The store does not answer",
        "Some figures could not be read. The disk is busy or failing.",
        "Look again in a minute; then look for errors of the disk in the system's log.",
    ),
}
