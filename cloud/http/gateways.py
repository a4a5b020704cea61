"""What gateways call: enrolment by a one-time token, synchronisation by client certificate."""

from __future__ import annotations

import msgspec
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.attestation.enrolling import (
    challenge,
    enrol_attested,
    refusals_noted,
    use_challenge,
)
from cloud.attestation.questions import open_question
from cloud.http.app import answer, application, body_of, require_small
from cloud.http.attesting import (
    AttestationBody,
    ChallengeBody,
    Driver,
    challenge_answer,
    claimed,
)
from cloud.http.carried import add_carried
from cloud.http.octets import from_text, journal_of, to_text
from cloud.http.problem import RequestRefused
from cloud.http.rates import limited
from cloud.http.routes import BODY_S_MAX, read_body
from cloud.issuer.enrolments import carry_wallets
from cloud.issuer.gateways import Gateway, Wanted
from cloud.issuer.lacking import lacking
from cloud.issuer.profiles import GATEWAY_URI
from cloud.issuer.succession import followed_by
from cloud.service import Cloud
from wallet.protocol.ids import journal_text

SYNC_TYPE = "application/cbdc-sync"
SEALED_BYTES_MAX = 64 << 20
LIST_BYTES_MAX = 256 * 1024


class JournalKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A journal's public key: COSE algorithm number, raw bytes in base64url."""

    algorithm: int
    public_key: str


class EnrolmentBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new gateway sends."""

    token: str
    journal_key: JournalKey
    proof: str
    tls_csr: str
    hpke_key: str
    hosted_tier: int | None = None
    # Where its keys are, by its own word, and what proves it.
    driver: Driver | None = None
    attestation: AttestationBody | None = None


class EnrolmentAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What it gets: certificates in DER as base64url, those of the transport in PEM."""

    journal: str
    epoch: int
    currency: str
    chain: list[str]
    root: str
    transport_certificate: str
    transport_ca: str
    objects: list[str]
    # What the issuer carries over, for a gateway that goes on where another one ended.
    statement: str | None = None


def gateway_application(cloud: Cloud) -> web.Application:
    """Routes under which gateways find the cloud."""
    limits = cloud.config.limits
    app = application(limited(limits, cloud.clock), bytes_max=SEALED_BYTES_MAX)

    async def post_challenge(request: web.Request) -> web.Response:
        require_small(request)
        await read_body(request, within_s=BODY_S_MAX)
        body = await body_of(request, ChallengeBody)
        now_ms, shown = cloud.clock.now_ms(), body.shown
        async with (
            refusals_noted(cloud.database, body.token, now_ms=now_ms),
            cloud.database.transaction() as connection,
        ):
            asked = await challenge(connection, cloud.desk, body.token, shown, now_ms=now_ms)
        return answer(challenge_answer(asked), status=201)

    async def post_enrolment(request: web.Request) -> web.Response:
        require_small(request)
        await read_body(request, within_s=BODY_S_MAX)
        body = await body_of(request, EnrolmentBody)
        wanted = Wanted(
            token=body.token,
            algorithm=body.journal_key.algorithm,
            public_key=from_text(body.journal_key.public_key),
            proof=from_text(body.proof),
            csr_pem=body.tls_csr,
            hpke_key=from_text(body.hpke_key),
            hosted_tier=body.hosted_tier,
        )
        now_ms, claim = cloud.clock.now_ms(), claimed(body.driver, body.attestation)
        challenged = await use_challenge(cloud.database, body.token, claim, now_ms=now_ms)
        async with (
            refusals_noted(cloud.database, body.token, now_ms=now_ms),
            cloud.database.transaction() as connection,
        ):
            gateway = await enrol_attested(
                connection, cloud.desk, wanted, claim, challenged, now_ms=now_ms
            )
            before = await followed_by(connection, gateway.journal, epoch=gateway.epoch)
            await cloud.shards.house(
                connection,
                gateway.journal,
                now_ms=now_ms,
                before=None if before is None else before.journal,
            )
            if before is not None:
                await carry_wallets(connection, cloud.desk, gateway, before, now_ms=now_ms)
            # Of a large list the beginning: the rest comes by exchanges, as the line takes it.
            common = await lacking(connection, gateway.currency, {}, bytes_max=LIST_BYTES_MAX)
            question = await open_question(connection, gateway.journal)
            objects = [*common.first, *common.later, *question]
        statement = None if before is None else before.statement
        return answer(_enrolment(cloud, gateway, objects, statement), status=201)

    async def post_sync(request: web.Request) -> web.Response:
        caller = _caller(request)
        await read_body(request, within_s=limits.report_timeout_s)
        sealed = await cloud.exchange.answer(
            await request.read(), caller=caller, now_ms=cloud.clock.now_ms()
        )
        return web.Response(body=sealed, content_type=SYNC_TYPE)

    app.router.add_post("/v1/enrolment/challenge", post_challenge)
    app.router.add_post("/v1/enrolment", post_enrolment)
    app.router.add_post("/v1/sync", post_sync)
    add_carried(app, cloud)
    return app


def _enrolment(
    cloud: Cloud, gateway: Gateway, objects: list[bytes], statement: bytes | None
) -> EnrolmentAnswer:
    pki = cloud.desk.pki
    certificate = x509.load_der_x509_certificate(gateway.transport_certificate)
    return EnrolmentAnswer(
        journal=journal_text(gateway.journal),
        epoch=gateway.epoch,
        currency=gateway.currency,
        chain=[to_text(part) for part in gateway.chain],
        root=to_text(pki.root.der),
        transport_certificate=certificate.public_bytes(Encoding.PEM).decode(),
        transport_ca=pki.transport.certificate.public_bytes(Encoding.PEM).decode(),
        objects=[to_text(raw) for raw in objects],
        statement=None if statement is None else to_text(statement),
    )


def _caller(request: web.Request) -> bytes:
    """The journal that the client certificate names.

    Raises: RequestRefused `certificate-missing`, `body-invalid`.
    """
    transport = request.transport
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    der = None if tls is None else tls.getpeercert(binary_form=True)
    if not der:
        raise RequestRefused("certificate-missing", "gateways show their transport certificate")
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        if uri.startswith(GATEWAY_URI):
            return journal_of(uri.removeprefix(GATEWAY_URI))
    raise RequestRefused("certificate-missing", "the certificate names no gateway")
