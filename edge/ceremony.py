"""What a key ceremony leaves on the disk: a note while it goes on, then its record.

1. The note says under which labels and which id keys are about to be made. 2. The keys are made.
3. The record takes the note's place. A ceremony that was broken off, even by a power cut, leaves
the note; whoever holds the next one removes what bears its id.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.errors import ArgumentsWrong, CeremonyStopped, FileUnreadable
from edge.folder import Folder
from edge.moments import moment
from edge.secret_input import read_file
from edge.version import version
from hsm.api import Algorithm
from hsm.ceremony import KEY_ID_BYTES, Made, MadeKey, TokenFacts
from hsm.curves import UNCOMPRESSED
from hsm.files import create_durably, make_folder
from wallet.protocol.ids import journal_text
from wallet.protocol.keys import from_raw

NOTE_NAME, RECORD_PREFIX = "ceremony.unfinished", "ceremony-"
NOTE_BYTES_MAX = 4096
WITNESSES = 2
COUNTERS = {
    "pkcs11": "in the token",
    "software": "a file on this disk (counter: software): a disk that is put back is not noticed",
}
NAMES = {Algorithm.EDDSA: "Ed25519", Algorithm.ES256: "P-256 (ES256)"}

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Epoch = Annotated[int, msgspec.Meta(ge=1, le=2**32)]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Which keys are made. Their labels carry the purpose and the epoch."""

    name: Name
    epoch: Epoch
    key_id: bytes

    @property
    def signing_label(self) -> str:
        """The label of the pair that signs checkpoints."""
        return f"{self.name}-signing-epoch-{self.epoch}"

    @property
    def sealing_label(self) -> str:
        """The label of the key that seals what the gateway keeps outside of the token."""
        return f"{self.name}-sealing-epoch-{self.epoch}"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A ceremony that goes on, and on which token."""

    plan: Plan
    serial: str


def new_plan(name: str, epoch: int) -> Plan:
    """A plan with an id that no other ceremony has. Raises: ArgumentsWrong."""
    fields = {"name": name, "epoch": epoch, "key_id": secrets.token_bytes(KEY_ID_BYTES)}
    try:
        return msgspec.convert(fields, Plan)
    except msgspec.ValidationError as error:
        raise ArgumentsWrong(
            "--name takes up to 32 of a-z, 0-9 and -, --epoch a number from 1 on"
        ) from error


def record_path(folder: Folder, plan: Plan) -> Path:
    """Where the record of this plan stands."""
    return folder.token / f"{RECORD_PREFIX}{plan.name}-epoch-{plan.epoch}.txt"


def held_records(folder: Folder) -> list[Path]:
    """The records of all ceremonies that were held for this folder."""
    return sorted(folder.token.glob(f"{RECORD_PREFIX}*.txt"))


def record_of(records: Iterable[Path], signing_label: str) -> Path | None:
    """The record of the ceremony that made this signing key, if one did."""
    for path in records:
        name, _, epoch = path.stem.removeprefix(RECORD_PREFIX).rpartition("-epoch-")
        if f"{name}-signing-epoch-{epoch}" == signing_label:
            return path
    return None


def read_note(folder: Folder) -> Note | None:
    """The note of a ceremony that was broken off. Raises: FileUnreadable."""
    path = folder.token / NOTE_NAME
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(read_file(path, bytes_max=NOTE_BYTES_MAX), type=Note)
    except msgspec.MsgspecError as error:
        raise FileUnreadable(f"{path}: no note of a key ceremony") from error


def write_note(folder: Folder, note: Note) -> None:
    """Before anything is made. Raises: CeremonyStopped, OSError."""
    make_folder(folder.token)
    try:
        create_durably(folder.token / NOTE_NAME, msgspec.json.encode(note))
    except FileExistsError as error:
        raise CeremonyStopped("another key ceremony goes on for this folder") from error


def drop_note(folder: Folder) -> None:
    """When nothing is left of the ceremony, or all of it. Raises: OSError."""
    (folder.token / NOTE_NAME).unlink(missing_ok=True)


def write_record(folder: Folder, plan: Plan, text: str) -> Path:
    """The record, never over another one. Raises: CeremonyStopped, OSError."""
    path = record_path(folder, plan)
    try:
        create_durably(path, text.encode())
    except FileExistsError as error:
        raise CeremonyStopped(f"{path} is the record of another ceremony") from error
    return path


# ---- what people read -------------------------------------------------------------------------
def fingerprint(made: Made) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, as `openssl pkey -pubin -outform DER | sha256sum`."""
    key: Ed25519PublicKey | ec.EllipticCurvePublicKey
    if made.algorithm is Algorithm.EDDSA:
        key = Ed25519PublicKey.from_public_bytes(made.public_key)
    else:
        point = UNCOMPRESSED + made.public_key
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digits = hashlib.sha256(info).hexdigest()
    return " ".join(digits[at : at + 8] for at in range(0, len(digits), 8))


def journal_of(made: Made) -> str:
    """The journal that this key would open: its thumbprint is the journal's identifier."""
    return journal_text(from_raw(int(made.algorithm), made.public_key).id)


def facts_text(facts: TokenFacts) -> str:
    """Which token it is."""
    return _lines(
        ("module", str(facts.module)),
        ("library", facts.library),
        ("token", facts.label),
        ("serial", facts.serial),
        ("model", f"{facts.maker}, {facts.model}"),
        ("versions", f"hardware {facts.hardware}, firmware {facts.firmware}"),
        ("counter", COUNTERS[facts.counter]),
    )


def comparison_text(made: Made) -> str:
    """What two people compare."""
    return _lines(
        ("algorithm", NAMES[made.algorithm]),
        ("public key", made.public_key.hex()),
        ("fingerprint", f"SHA-256 {fingerprint(made)}"),
        ("journal", journal_of(made)),
    )


def record_text(
    plan: Plan, facts: TokenFacts, made: Made, *, witnesses: tuple[str, ...], now_ms: int
) -> str:
    """The record: what is signed by hand is printed from it."""
    signatures = "\n\n".join(
        f"{number}. {witness}\n   signature, date: {'_' * 40}"
        for number, witness in enumerate(witnesses, 1)
    )
    parts = (
        "Key ceremony of a gateway\n",
        _lines(
            ("time", f"{moment(now_ms)} by the clock of this machine"),
            ("software", f"cbdc-edge {version()}"),
            ("epoch", str(plan.epoch)),
        ),
        "The token\n" + facts_text(facts),
        f"The keys that were made in it, id {plan.key_id.hex()}\n"
        + "".join(map(_key_text, made.keys)),
        "What both of us compared\n" + comparison_text(made),
        "We saw these keys made in this token, nobody else touched it meanwhile.\n\n" + signatures,
    )
    return "\n".join(parts) + "\n"


def _key_text(key: MadeKey) -> str:
    checked = ", ".join(key.attributes) or "public: anybody may read it"
    return f"  {key.label}: {key.kind}\n    {checked}\n"


def _lines(*pairs: tuple[str, str]) -> str:
    return "".join(f"  {name:<13}{text}\n" for name, text in pairs)
