"""A root whose key is kept away from the cloud: it certifies by files that a person carries.

1. `ask`: the cloud makes the next keys and writes what they are. 2. `certify`: where the root is,
without a network, it signs them. 3. `install`: the cloud takes what fits the keys that wait.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Meta

from cloud.errors import IssuerError
from cloud.issuer import profiles
from cloud.issuer.pki import JOURNALS, RENEWED_AT, ROLE_PREFIX, ROOT, Pki, Workshop, record
from cloud.issuer.profiles import Authority, Random
from cloud.issuer.vault import Waiting
from hsm.api import Algorithm
from hsm.keyfile import STANDARD, Cost, Opened, close_file, open_file
from wallet.protocol.certificates import ROLES, TrustAnchor, check_role_chain, parse_certificate
from wallet.protocol.refusals import ProtocolError

FILE_BYTES_MAX = 256 * 1024
NAMES = (JOURNALS, *(ROLE_PREFIX + role for role in sorted(ROLES)))
_SEED_BYTES = 32
_File = TypeVar("_File", "Requests", "Certificates")

_Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
_Text = Annotated[str, Meta(min_length=1, max_length=64)]


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to certify: its name, and the public key (Ed25519) in hex."""

    name: _Text
    public_key: _Digest


class Requests(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a cloud asks of its root; `root` is the SHA-256 of the root's certificate, in hex."""

    format: Literal["root-requests-1"] = "root-requests-1"
    root: _Digest
    wanted: Annotated[list[Wanted], Meta(min_length=1, max_length=len(NAMES))]


class Made(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate (DER), in hex, for the key of a name."""

    name: _Text
    certificate: Annotated[str, Meta(pattern="^([0-9a-f]{2})+$", max_length=8_192)]


class Certificates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a root answers."""

    format: Literal["root-certificates-1"] = "root-certificates-1"
    root: _Digest
    made: Annotated[list[Made], Meta(min_length=1, max_length=len(NAMES))]


def is_wanted(pki: Pki, *, now_ms: int) -> bool:
    """Whether certificates run out that only a root which is elsewhere can renew."""
    return pki.root.key is None and pki.ends_ms - now_ms <= profiles.ROLE_MS // RENEWED_AT


# ---- at the root ------------------------------------------------------------------------
def make(
    *, organisation: str, seed: bytes, now_ms: int, random: Random, passphrase: bytes, cost: Cost
) -> tuple[bytes, bytes]:
    """A new root: its key file, sealed by the passphrase, and its certificate (DER)."""
    authority = profiles.make_root(
        name="Issuer Root",
        organisation=organisation,
        key=Ed25519PrivateKey.from_private_bytes(seed),
        now_ms=now_ms,
        random=random,
    )
    return close_key(seed, passphrase=passphrase, cost=cost), authority.der


def close_key(seed: bytes, *, passphrase: bytes, cost: Cost = STANDARD) -> bytes:
    """The bytes of a root's key file."""
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    opened = Opened(algorithm=Algorithm.EDDSA, public_key=public, secret=seed)
    return close_file(opened, passphrase=passphrase, cost=cost)


def open_key(content: bytes, certificate: bytes, *, passphrase: bytes) -> Authority:
    """The root of a key file and its certificate.

    Raises: HsmError (passphrase, damage); IssuerError `root-foreign` where they do not belong
    together, `certificate-invalid`.
    """
    _checked_root(certificate)
    seed = open_file(content, passphrase=passphrase).secret
    held = x509.load_der_x509_certificate(certificate)
    if len(seed) != _SEED_BYTES:
        raise IssuerError("root-foreign", "the file holds another kind of key")
    key = Ed25519PrivateKey.from_private_bytes(seed)
    if key.public_key() != held.public_key():
        raise IssuerError("root-foreign", "the key is not the certificate's")
    return Authority(certificate=held, key=key)


def certify(requests: Requests, root: Authority, *, now_ms: int, random: Random) -> bytes:
    """Sign what is asked for. Raises: IssuerError `root-foreign`, `request-invalid`."""
    if requests.root != _digest(root.der):
        raise IssuerError("root-foreign", "the requests are for another root")
    made = []
    for wanted in requests.wanted:
        certificate = _certificate(wanted, root, now_ms=now_ms, random=random)
        der = certificate.public_bytes(Encoding.DER)
        made.append(Made(name=wanted.name, certificate=der.hex()))
    return _text(Certificates(root=requests.root, made=made))


def _certificate(
    wanted: Wanted, root: Authority, *, now_ms: int, random: Random
) -> x509.Certificate:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(wanted.public_key))
    if wanted.name not in NAMES:
        raise IssuerError("request-invalid", f"{wanted.name}: nothing that this root certifies")
    if wanted.name == JOURNALS:
        return profiles.make_journal_authority(root, key=key, now_ms=now_ms, random=random)
    role = wanted.name.removeprefix(ROLE_PREFIX)
    return profiles.make_role(root, role, key=key, now_ms=now_ms, random=random)


# ---- at the cloud -----------------------------------------------------------------------
async def adopt(workshop: Workshop, certificate: bytes) -> None:
    """Take a root that was made elsewhere; the same one again changes nothing.

    Raises: IssuerError `certificate-invalid`, `root-foreign` where there is another one.
    """
    await workshop.vault.lock(workshop.connection)
    _checked_root(certificate)
    held = await workshop.vault.load(workshop.connection, ROOT)
    if held is not None and held.certificate != certificate:
        raise IssuerError("root-foreign", "this issuer has another root")
    if held is None:
        found = x509.load_der_x509_certificate(certificate)
        await record(workshop, ROOT, found)
        await workshop.vault.store_certificate(
            workshop.connection,
            ROOT,
            der=certificate,
            not_after_ms=profiles.not_after_ms(found),
            now_ms=workshop.now_ms,
        )


async def ask(workshop: Workshop) -> bytes:
    """The next keys, for the root to certify: the same ones until they are.

    Raises: HsmError, IssuerError `root-missing`.
    """
    await workshop.vault.lock(workshop.connection)
    certificate = await held_certificate(workshop)
    known = {key.name for key in await workshop.vault.waiting(workshop.connection)}
    for name in NAMES:
        if name not in known:
            seed = workshop.random(_SEED_BYTES)
            public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
            await workshop.vault.store_waiting(
                workshop.connection,
                Waiting(name=name, public_key=public),
                seed,
                now_ms=workshop.now_ms,
            )
    waiting = await workshop.vault.waiting(workshop.connection)
    wanted = [Wanted(name=key.name, public_key=key.public_key.hex()) for key in waiting]
    return _text(Requests(root=_digest(certificate), wanted=wanted))


async def install(workshop: Workshop, certificates: Certificates) -> list[str]:
    """Put the certified keys in use, all or none; gives their names.

    Raises: IssuerError `root-foreign`, `certificate-invalid`, `request-missing` for a key that
    does not wait (it was installed, or was never asked for).
    """
    await workshop.vault.lock(workshop.connection)
    root = await held_certificate(workshop)
    if certificates.root != _digest(root):
        raise IssuerError("root-foreign", "the certificates are by another root")
    waiting = {
        key.name: key.public_key for key in await workshop.vault.waiting(workshop.connection)
    }
    for made in certificates.made:
        if made.name not in waiting:
            raise IssuerError("request-missing", f"{made.name}: no key waits for a certificate")
        der = bytes.fromhex(made.certificate)
        found = _checked(made.name, der, root, waiting[made.name], now_ms=workshop.now_ms)
        await record(workshop, made.name, found)
        await workshop.vault.certify(
            workshop.connection,
            made.name,
            der=der,
            not_after_ms=profiles.not_after_ms(found),
            now_ms=workshop.now_ms,
        )
    return [made.name for made in certificates.made]


async def held_seed(workshop: Workshop) -> bytes:
    """The root's key as this cloud has it. Raises: IssuerError `root-missing`, `root-away`."""
    await workshop.vault.lock(workshop.connection)
    await held_certificate(workshop)
    held = await workshop.vault.load(workshop.connection, ROOT)
    if held is None or not held.private:
        raise IssuerError("root-away", "its key is kept elsewhere already")
    return held.private


async def let_go(workshop: Workshop) -> None:
    """Have the root's key no more. Its file has to be durable before."""
    await workshop.vault.forget(workshop.connection, ROOT)


async def held_certificate(workshop: Workshop) -> bytes:
    """The root's certificate (DER). Raises: IssuerError `root-missing`."""
    held = await workshop.vault.load(workshop.connection, ROOT)
    if held is None or held.certificate is None:
        raise IssuerError("root-missing", "this issuer has no root yet: `init`")
    return held.certificate


def _checked_root(certificate: bytes) -> None:
    try:
        TrustAnchor(certificate)
    except ProtocolError as error:
        raise IssuerError("certificate-invalid", "it is no root certificate") from error


def _checked(
    name: str, der: bytes, root: bytes, public_key: bytes, *, now_ms: int
) -> x509.Certificate:
    """A certificate that says what was asked for. Raises: IssuerError `certificate-invalid`."""
    try:
        read = parse_certificate(der)
        if not read.not_before_s <= now_ms // 1_000 <= read.not_after_s:
            raise IssuerError("certificate-invalid", f"{name}: not of this time")
        if name != JOURNALS:
            check_role_chain((der,), TrustAnchor(root), name.removeprefix(ROLE_PREFIX))
    except ProtocolError as error:
        raise IssuerError("certificate-invalid", f"{name}: {error}") from error
    found = x509.load_der_x509_certificate(der)
    if found.public_key() != Ed25519PublicKey.from_public_bytes(public_key):
        raise IssuerError("certificate-invalid", f"{name}: it is another key's")
    if name == JOURNALS:
        _check_authority(found, x509.load_der_x509_certificate(root))
    return found


def _check_authority(certificate: x509.Certificate, root: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(root)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise IssuerError("certificate-invalid", f"{JOURNALS}: not by this root") from error
    if not basic.ca or basic.path_length != 0:
        raise IssuerError("certificate-invalid", f"{JOURNALS}: it is no authority for leaves alone")


# ---- files ------------------------------------------------------------------------------
def read_requests(content: bytes) -> Requests:
    """Raises: IssuerError `file-invalid`."""
    return _read(content, Requests)


def read_certificates(content: bytes) -> Certificates:
    """Raises: IssuerError `file-invalid`."""
    return _read(content, Certificates)


def _read(content: bytes, kind: type[_File]) -> _File:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise IssuerError("file-invalid", str(error)) from error


def _text(value: Requests | Certificates) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value)) + b"\n"


def _digest(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest()
