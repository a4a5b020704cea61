"""Provisioning: keys, the store, the enrolment call, the opening of the journal.

It may be killed at any moment and run again: every step looks for what is there already, and the
cloud gives the same answer to the same key and token.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import ssl
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge.attesting import AttestationBody, ChallengeAnswer, prove, shown
from edge.authority import make_authority
from edge.ceremony import held_records, read_note
from edge.config import Config
from edge.errors import AlreadyProvisioned, CeremonyStopped, EnrolmentFailed, ResetRefused
from edge.folder import Folder
from edge.gateway import hsm_config
from edge.http.octets import Octets, decode_hook, encode_text_hook, to_text
from edge.identity import (
    Identity,
    Pending,
    load_identity,
    load_pending,
    store_identity,
    store_pending,
)
from edge.intake import take_objects
from edge.store_key import make_store_key
from edge.tamper import open_unmarked
from hsm.api import KeyMissing, Token, attester_of
from hsm.open import create_token, open_token
from sync.attestation import enrolment_data
from wallet.clock import Clock
from wallet.journal import Journal
from wallet.protocol.certificates import TrustAnchor, journal_chain
from wallet.protocol.entry import Open
from wallet.protocol.ids import JournalId, parse_journal
from wallet.protocol.issued import decode_issued, decode_statement
from wallet.protocol.keys import from_raw
from wallet.protocol.policy import Policy
from wallet.protocol.refusals import ProtocolError
from wallet.store.database import Database
from wallet.store.journal import entry_count

PROOF_CONTEXT = b"cbdc-enrolment/1"
ENROLMENT, CHALLENGE = "/v1/enrolment", "/v1/enrolment/challenge"
ANSWER_BYTES_MAX = 64 * 1024 * 1024
TIMEOUT_S = 60
Say = Callable[[str], None]
Answer = TypeVar("Answer")


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Where to enrol, with what."""

    cloud: str
    cloud_ca: str
    enrolment_token: str
    hosted_tier: int | None = None


class EnrolmentBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the cloud is sent."""

    token: str
    journal_key: dict[str, object]
    proof: Octets
    tls_csr: str
    hpke_key: Octets
    hosted_tier: int | None = None
    # Where the keys are, and what proves it where the issuer asked for proof.
    driver: str
    attestation: AttestationBody | None = None


class EnrolmentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the cloud answers; members that a later release adds are left alone."""

    journal: str
    epoch: int
    currency: str
    chain: list[Octets]
    root: Octets
    transport_certificate: str
    transport_ca: str
    objects: list[Octets]
    statement: Octets | None = None


async def provision(config: Config, wish: Wish, *, secret: bytes, clock: Clock, say: Say) -> str:
    """Make this folder a gateway; gives the journal's identifier.

    Raises: AlreadyProvisioned, ResetRefused, EnrolmentFailed, HsmError, StoreError, JournalError,
    OSError.
    """
    _tls(wish)
    folder = Folder(config.folder)
    folder.prepare()
    if folder.resetting.exists():
        raise ResetRefused("a wipe of this folder was cut off: `cbdc-edge reset` finishes it")
    with sole_right(folder):
        say("keys")
        token = await _token(config, folder, wish, secret)
        try:
            return await _with_token(config, folder, token, wish, clock=clock, say=say)
        finally:
            await token.close()


@contextlib.contextmanager
def sole_right(folder: Folder) -> Iterator[None]:
    """The right to make keys for a folder, for one process at a time; gone when it ends.

    Raises: AlreadyProvisioned.
    """
    descriptor = os.open(folder.provisioning, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise AlreadyProvisioned("another command is provisioning this folder") from error
    finally:
        os.close(descriptor)


async def _token(config: Config, folder: Folder, wish: Wish, secret: bytes) -> Token:
    """The token's keys, made where there are none, and not for a cloud that is not there.

    Raises: CeremonyStopped, EnrolmentFailed, HsmError.
    """
    wanted = hsm_config(config.token, folder)
    if read_note(folder) is not None:
        raise CeremonyStopped("a key ceremony was broken off: hold it again before provisioning")
    try:
        return await open_token(wanted, secret=secret)
    except KeyMissing as error:
        if records := held_records(folder):
            # Others would be made beside those, and nobody would have seen them.
            raise CeremonyStopped(
                f"the configuration does not name the keys of the ceremony in {records[-1]}"
            ) from error
        await _find_cloud(wish)
        return await create_token(wanted, secret=secret)


async def _with_token(
    config: Config, folder: Folder, token: Token, wish: Wish, *, clock: Clock, say: Say
) -> str:
    await make_store_key(folder, token)
    database = await open_unmarked(folder, token)
    try:
        if await database.read(load_identity) is not None:
            raise AlreadyProvisioned("this folder belongs to an enrolled gateway")
        say("enrolment")
        pending = await _pending(database)
        answer = await _enrol(token, pending, wish)
        say("journal")
        await _open_journal(database, token, answer, clock=clock)
        await make_authority(folder, token.sealer, names=config.listen.names)
        identity = Identity(
            root=answer.root.raw,
            cloud_url=wish.cloud,
            cloud_ca=answer.transport_ca,
            transport_certificate=answer.transport_certificate,
            transport_key=pending.transport_key,
            hpke_private=pending.hpke_private,
            currency=answer.currency,
        )
        await database.write(lambda connection: store_identity(connection, identity))
        return answer.journal
    finally:
        await database.close()


async def _pending(database: Database) -> Pending:
    """Keys of the transport: made once, before anybody is asked."""
    known = await database.read(load_pending)
    if known is not None:
        return known
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway transport")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    made = Pending(
        hpke_private=x25519.X25519PrivateKey.generate().private_bytes_raw(),
        transport_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        transport_csr=csr.public_bytes(Encoding.PEM).decode(),
    )
    await database.write(lambda connection: store_pending(connection, made))
    return made


async def _enrol(token: Token, pending: Pending, wish: Wish) -> EnrolmentAnswer:
    signer = token.signer
    secret = wish.enrolment_token.encode()
    proof = await signer.sign(PROOF_CONTEXT + hashlib.sha256(secret).digest())
    hpke = x25519.X25519PrivateKey.from_private_bytes(pending.hpke_private)
    body = EnrolmentBody(
        token=wish.enrolment_token,
        journal_key={
            "algorithm": int(signer.algorithm),
            "public_key": to_text(signer.public_key),
        },
        proof=Octets(proof),
        tls_csr=pending.transport_csr,
        hpke_key=Octets(hpke.public_key().public_bytes_raw()),
        hosted_tier=wish.hosted_tier,
        driver=token.driver,
        attestation=await _attestation(token, pending, wish),
    )
    answer = await _ask(wish, ENROLMENT, body, EnrolmentAnswer)
    _check(answer, token)
    return answer


async def _attestation(token: Token, pending: Pending, wish: Wish) -> AttestationBody | None:
    """What proves the token, bound to all keys that will be certified; None where nobody asks."""
    attester = attester_of(token)
    if attester is None:
        return None
    keys = await attester.keys()
    asking = shown(keys, token=wish.enrolment_token)
    asked = await _ask(wish, CHALLENGE, asking, ChallengeAnswer)
    if asked.nonce is None:
        return None
    hpke = x25519.X25519PrivateKey.from_private_bytes(pending.hpke_private)
    data = enrolment_data(
        asked.nonce.raw,
        cose_key=from_raw(int(token.signer.algorithm), token.signer.public_key).cose_key,
        tls_csr=pending.transport_csr,
        hpke_key=hpke.public_key().public_bytes_raw(),
    )
    return await prove(attester, keys, asked, nonce=asked.nonce.raw, data=data)


async def _ask(wish: Wish, path: str, body: msgspec.Struct, kind: type[Answer]) -> Answer:
    raw = await _post(wish, path, msgspec.json.encode(body, enc_hook=encode_text_hook))
    try:
        return msgspec.json.decode(raw, type=kind, dec_hook=decode_hook)
    except msgspec.MsgspecError as error:
        raise EnrolmentFailed(f"the cloud's answer cannot be read: {error}") from error


async def _post(wish: Wish, path: str, body: bytes) -> bytes:
    url, tls = wish.cloud.rstrip("/") + path, _tls(wish)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                url, data=body, ssl=tls, headers={"Content-Type": "application/json"}
            ) as response,
        ):
            content = await response.content.read(ANSWER_BYTES_MAX + 1)
            while not response.content.at_eof() and len(content) <= ANSWER_BYTES_MAX:
                content += await response.content.read(ANSWER_BYTES_MAX)
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise EnrolmentFailed(f"the cloud does not answer: {error}") from error
    if status not in (200, 201):
        raise EnrolmentFailed(f"the cloud refused: {_problem(status, content)}")
    return content


def _tls(wish: Wish) -> ssl.SSLContext:
    """How the cloud proves itself. Raises: EnrolmentFailed for a wrong address or CA."""
    _place(wish)
    try:
        tls = ssl.create_default_context(cadata=wish.cloud_ca)
    except (ssl.SSLError, ValueError) as error:
        raise EnrolmentFailed("the file of the cloud's CA holds no certificate") from error
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    return tls


def _place(wish: Wish) -> tuple[str, int]:
    """Host and port. Raises: EnrolmentFailed."""
    try:
        parts = urlsplit(wish.cloud)
        host, port = parts.hostname, 443 if parts.port is None else parts.port
    except ValueError as error:
        raise EnrolmentFailed(f"the cloud's address {wish.cloud!r}: {error}") from error
    if parts.scheme != "https":
        raise EnrolmentFailed("the cloud's address begins with https://")
    if not host or not port:
        raise EnrolmentFailed(f"the cloud's address {wish.cloud!r} names no host or port")
    return host, port


async def _find_cloud(wish: Wish) -> None:
    """That a cloud under this CA listens there. Raises: EnrolmentFailed."""
    host, port = _place(wish)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=_tls(wish))
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    except (TimeoutError, OSError) as error:
        raise EnrolmentFailed(
            f"no cloud of this CA is found at {wish.cloud}, so that no keys were made: {error}"
        ) from error


class _Problem(msgspec.Struct):
    code: str = ""
    detail: str = ""


def _problem(status: int, content: bytes) -> str:
    try:
        problem = msgspec.json.decode(content[:65536], type=_Problem)
    except msgspec.MsgspecError:
        return f"status {status}"
    return f"{problem.code or status} {problem.detail}".strip()


def _check(answer: EnrolmentAnswer, token: Token) -> None:
    """That the certificates are ours and hold under the root. Raises: EnrolmentFailed."""
    key = from_raw(int(token.signer.algorithm), token.signer.public_key)
    try:
        anchor = TrustAnchor(answer.root.raw)
        certificate = journal_chain(tuple(part.raw for part in answer.chain), anchor)
        journal = parse_journal(answer.journal)
    except ProtocolError as error:
        raise EnrolmentFailed(f"the cloud's certificates do not hold: {error}") from error
    same = (certificate.journal, certificate.epoch) == (journal, answer.epoch)
    if not same or certificate.key != key or JournalId(key.id) != journal:
        raise EnrolmentFailed("the cloud's certificates are of another journal or key")


async def _open_journal(
    database: Database, token: Token, answer: EnrolmentAnswer, *, clock: Clock
) -> None:
    """The first entry, then what came with it. Raises: EnrolmentFailed."""
    anchor = TrustAnchor(answer.root.raw)
    objects = [part.raw for part in answer.objects]
    if await database.read(entry_count) == 0:
        try:
            journal = await _create(database, token, answer, anchor, clock=clock)
        except ProtocolError as error:
            raise EnrolmentFailed(f"the opening is refused: {error}") from error
    else:
        journal = await Journal.open(database=database, token=token, clock=clock, anchor=anchor)
    try:
        await take_objects(journal, database, objects)
    finally:
        await journal.close()


async def _create(
    database: Database,
    token: Token,
    answer: EnrolmentAnswer,
    anchor: TrustAnchor,
    *,
    clock: Clock,
) -> Journal:
    policies = []
    for part in answer.objects:
        decoded = decode_issued(part.raw)
        if isinstance(decoded, Policy):
            policies.append(decoded)
    if not policies:
        raise EnrolmentFailed("the cloud sent no policy")
    statement = None if answer.statement is None else decode_statement(answer.statement.raw)
    return await Journal.create(
        database=database,
        token=token,
        clock=clock,
        anchor=anchor,
        chain=tuple(part.raw for part in answer.chain),
        opening=Open(
            journal=parse_journal(answer.journal),
            epoch=answer.epoch,
            currency=answer.currency,
            policy=max(policies, key=lambda policy: policy.sequence),
            statement=statement,
        ),
    )
