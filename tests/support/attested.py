"""A gateway whose keys are in a software TPM, at a cloud in the test's own process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.http.octets import to_text
from cloud.issuer.gateways import PROOF_CONTEXT
from edge.attesting import ChallengeAnswer, prove, shown
from edge.http.octets import decode_hook, encode_text_hook, from_text
from hsm import tpm
from hsm.attestation.structures import read_public
from hsm.attestation.verification import public_key
from hsm.pcr_policies import PCR_POLICIES
from hsm.tpm import TpmToken
from hsm.tpm.attester import CHAIN_FIRST
from hsm.tpm.config import NV_INDEX_DEFAULT
from sync.attestation import HEALTH, Answer, enrolment_data, report_data, to_health
from tests.support.cloud_local import LocalCloud, NewGateway
from tests.support.maker import Maker
from tests.support.swtpm import Swtpm, define
from tests.support.tokens import closing
from wallet.protocol.cose import assemble
from wallet.protocol.envelope import UP_TYPE, Down, Up, up_payload
from wallet.protocol.ids import JournalId
from wallet.protocol.issued import QUESTION_TYPE, Question, decode_issued
from wallet.protocol.keys import PublicKey, from_raw
from wallet.protocol.messages import to_sign
from wallet.protocol.sealed import seal

# TCG EK Credential Profile 2.5: of the P-256 key.
EK_CERTIFICATE_INDEX = 0x01C0000A
FIRMWARE = PCR_POLICIES["firmware"]


class TpmGateway(NewGateway):
    """What a gateway with a TPM sends: all of it true, unless a test changes it."""

    def __init__(self, name: str, token: TpmToken) -> None:
        super().__init__(name)
        self.token = token
        self.question: Question | None = None
        self.chain: tuple[bytes, ...] = ()

    @property
    def public(self) -> PublicKey:
        """The journal's key."""
        return from_raw(int(self.token.signer.algorithm), self.token.signer.public_key)

    @property
    def journal(self) -> JournalId:
        """Its journal."""
        return JournalId(self.public.id)

    @property
    def hpke_public(self) -> bytes:
        """The key that answers are sealed to."""
        return self.hpke.public_key().public_bytes_raw()

    # ---- enrolment ------------------------------------------------------------------------
    async def ask(
        self, cloud: LocalCloud, secret: str, *, keys: Any = None
    ) -> tuple[int, dict[str, Any]]:
        """A challenge: (status, value). `keys`: those shown, if not its own."""
        body = shown(keys or await self.token.attester.keys(), token=secret)
        return await _post(cloud, "/v1/enrolment/challenge", _plain(body))

    def data(self, nonce: bytes) -> bytes:
        """What the statements of an enrolment are over."""
        return enrolment_data(
            nonce,
            cose_key=self.public.cose_key,
            tls_csr=self.csr,
            hpke_key=self.hpke_public,
        )

    async def attestation(
        self, asked: Mapping[str, Any], *, data: bytes | None = None
    ) -> dict[str, Any]:
        """The answer to a challenge. `data`: what it is over, if not this gateway's enrolment."""
        read = msgspec.convert(dict(asked), ChallengeAnswer, dec_hook=decode_hook)
        assert read.nonce is not None
        attester, nonce = self.token.attester, read.nonce.raw
        over = self.data(nonce) if data is None else data
        return _plain(await prove(attester, await attester.keys(), read, nonce=nonce, data=over))

    async def enrol_with(
        self, cloud: LocalCloud, secret: str, attestation: Any = None, **changed: Any
    ) -> tuple[int, Any]:
        """Over the port: (status, value)."""
        message = PROOF_CONTEXT + hashlib.sha256(secret.encode()).digest()
        public = self.public
        body = {
            "token": secret,
            "journal_key": {"algorithm": public.algorithm, "public_key": to_text(public.raw)},
            "proof": to_text(await self.token.signer.sign(message)),
            "tls_csr": self.csr,
            "hpke_key": to_text(self.hpke_public),
            "driver": self.token.driver,
            "attestation": attestation,
            **changed,
        }
        status, value = await _post(cloud, "/v1/enrolment", body)
        if status == 201:
            self.answer = value
            self.chain = tuple(from_text(part) for part in value["chain"])
            self.take([from_text(part) for part in value["objects"]])
        return status, value

    async def enrol_honestly(self, cloud: LocalCloud, secret: str) -> tuple[int, Any]:
        """A challenge and its answer."""
        status, asked = await self.ask(cloud, secret)
        assert status == 201, asked
        return await self.enrol_with(cloud, secret, await self.attestation(asked))

    # ---- reports --------------------------------------------------------------------------
    def take(self, objects: list[bytes]) -> None:
        """Keep the newest question."""
        for raw in objects:
            if QUESTION_TYPE.encode() in raw[:100]:
                found = decode_issued(raw)
                assert isinstance(found, Question)
                self.question = found

    async def answering(
        self, up: Up, *, nonce: bytes | None = None, by: TpmToken | None = None
    ) -> dict[str, Any]:
        """The health of a report that answers the newest question, or another nonce."""
        assert self.question is not None
        nonce = nonce or self.question.nonce
        data = report_data(
            nonce, journal=up.journal, exchange=up.exchange, checkpoint=up.checkpoint
        )
        attester = (by or self.token).attester
        answer = Answer(
            nonce=nonce,
            quote=await attester.quote(self.question.registers, nonce=data),
            counter=await attester.certify_counter(nonce=data),
        )
        return {HEALTH: to_health(answer)}

    def up(self, **changed: Any) -> Up:
        """A report that proves nothing yet."""
        claims: dict[str, Any] = {
            "journal": self.journal,
            "epoch": 1,
            "exchange": secrets.token_bytes(16),
            "acknowledged_size": 0,
            "entries": (),
            "checkpoint": b"\x80",
            "newest": {},
            **changed,
        }
        return Up(**claims)

    async def send(self, cloud: LocalCloud, up: Up, answering: Any) -> Down:
        """Send a report to an `Exchange`, and take the answer."""
        sealed = await self.sealed(cloud, up)
        answer = await answering.answer(sealed, caller=self.journal, now_ms=cloud.clock.now_ms())
        return self.taken(cloud, answer)

    async def sealed(self, cloud: LocalCloud, up: Up) -> bytes:
        """A report as it travels."""
        protected, message = to_sign(self.public, UP_TYPE, up_payload(up))
        signature = await self.token.signer.sign(message)
        envelope = assemble(protected, up_payload(up), signature, self.chain)
        private = next(iter(cloud.cloud.desk.hpke.values()))
        return seal(envelope, recipient=private.public_key().public_bytes_raw())

    def taken(self, cloud: LocalCloud, answer: bytes) -> Down:
        """An answer, with its question kept."""
        down = self.open(cloud, answer)
        self.take(list(down.objects))
        return down


@contextlib.asynccontextmanager
async def tpm_token(
    chip: Swtpm, folder: Path, *, nv_index: int = NV_INDEX_DEFAULT
) -> AsyncIterator[TpmToken]:
    """New keys in a TPM.

    They open under any firmware, as after `key reseal --to none`, so that a test may change it; the
    issuer asks for the measurements all the same.
    """
    config = chip.config(folder, nv_index=nv_index, pcr_policy="none")
    async with closing(await tpm.create(config)) as token:
        yield token


async def certify_chip(chip: Swtpm, maker: Maker, folder: Path) -> None:
    """Write the maker's certificates into the TPM, as a factory does."""
    async with tpm_token(chip, folder, nv_index=NV_INDEX_DEFAULT + 0x100) as token:
        endorsement = (await token.attester.keys()).endorsement
    key = public_key(read_public(endorsement))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    await chip.administer(define(EK_CERTIFICATE_INDEX, maker.certify(key)))
    await chip.administer(define(CHAIN_FIRST, maker.above))


async def measured(token: TpmToken) -> dict[int, bytes]:
    """What the registers of the policy `firmware` show now."""
    return dict((await token.attester.quote(FIRMWARE, nonce=bytes(8))).pcrs)


def manifest_of(
    registers: Mapping[int, bytes], *, version: str = "1.0", security: int = 1, floor: int = 0
) -> bytes:
    """The manifest that is published with an image."""
    values = {str(register): value.hex() for register, value in registers.items()}
    return json.dumps(
        {
            "format": "cbdc-image-manifest-1",
            "image": "cbdc-edge",
            "hardware": "board-1",
            "version": version,
            "security_version": security,
            "security_version_min": floor,
            "pcrs": {"firmware": values},
        }
    ).encode()


class Trust:
    """Two officers who decide what proofs are held against."""

    def __init__(self, cloud: LocalCloud, first: str, second: str) -> None:
        self._cloud = cloud
        self.first = first
        self.second = second

    @classmethod
    async def of(cls, cloud: LocalCloud) -> Trust:
        """Two new officers with all roles."""
        return cls(cloud, await cloud.officer("drafter"), await cloud.officer("approver"))

    async def post(self, officer: str, path: str, body: Any) -> tuple[int, Any]:
        """A call by one of them."""
        async with self._cloud.api(officer) as api:
            return await api.post(path, body)

    async def approve(self, kind: str, file: bytes) -> str:
        """Draft by one and approved by the other; the draft's identity."""
        draft = secrets.token_hex(32)
        body = {"draft_id": draft, "kind": kind, "file": to_text(file)}
        status, made = await self.post(self.first, "/v1/issuer/trust", body)
        assert status == 201, made
        status, made = await self.post(self.second, f"/v1/issuer/trust/{draft}/approve", {})
        assert (status, made["state"]) == (201, "approved"), made
        return draft

    async def token(self, level: str = "tpm", **changed: Any) -> str:
        """A one-time token."""
        body = {"name": "branch", "currency": "EUR", "tiers": [0], "level": level, **changed}
        status, made = await self.post(self.first, "/v1/issuer/gateways", body)
        assert status == 201, made
        found: str = made["token"]
        return found

    async def acts(self, action: str) -> list[dict[str, Any]]:
        """The audit log's lines of one kind."""
        async with self._cloud.api(self.first) as api:
            _, page = await api.get("/v1/issuer/audit")
        return [line for line in page["lines"] if line["action"] == action]

    async def standing(self) -> dict[str, Any]:
        """How the one gateway stands."""
        async with self._cloud.api(self.second) as api:
            status, page = await api.get("/v1/issuer/attestations")
        assert status == 200, page
        (found,) = page["gateways"]
        return dict(found)


def _plain(body: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(msgspec.json.encode(body, enc_hook=encode_text_hook))
    return found


async def _post(cloud: LocalCloud, path: str, body: Any) -> tuple[int, Any]:
    async with cloud.gateways() as session, session.post(path, json=body) as response:
        return response.status, json.loads(await response.read())
