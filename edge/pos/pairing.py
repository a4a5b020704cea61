"""The terminal's side of pairing: code and certificate request in, certificate out."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp
import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge.authority import spki
from edge.errors import GatewayUnreachable, PairingRefused
from edge.http.types import PairAnswer
from edge.pairing import LIFETIME_MS, normal, short_string
from edge.pos.client import refused
from edge.pos.terminal import Terminal

POLL_S = 0.3
CALL_S = 20


async def pair(
    *, pairing_url: str, url: str, code: str, name: str, show: Callable[[str], None]
) -> Terminal:
    """Pair with the gateway at `pairing_url`; `show` gets the short string for people to compare.

    The gateway's certificate is not trusted yet: whoever sits in between has another key, so the
    string differs; and the certificate that comes back has to be the authority of what we saw.
    Raises: GatewayUnreachable, PairingRefused, OrderRefused.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "terminal")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    seen = x509.load_der_x509_certificate(await _server_certificate(pairing_url))
    body = msgspec.json.encode(
        {"code": code, "csr": csr.public_bytes(Encoding.PEM).decode(), "name": name}
    )
    fingerprint = aiohttp.Fingerprint(seen.fingerprint(hashes.SHA256()))
    timeout = aiohttp.ClientTimeout(total=CALL_S)
    try:
        async with aiohttp.ClientSession(
            pairing_url, timeout=timeout, connector=aiohttp.TCPConnector(ssl=fingerprint)
        ) as session:
            begun = await _call(session, "POST", "/pair", body)
            sas = await asyncio.to_thread(
                short_string,
                normal(code),
                server_key=spki(seen.public_key()),
                terminal_key=spki(key.public_key()),
            )
            show(sas)
            answer = await _confirmed(session, begun.pairing)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise GatewayUnreachable(f"{pairing_url}: {error}") from error
    _check(answer, seen, key)
    return Terminal(
        url=url,
        gateway=answer.gateway or "",
        terminal=answer.terminal or "",
        authority=answer.authority or "",
        certificate=answer.certificate or "",
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    )


async def _server_certificate(url: str) -> bytes:
    """The certificate that answers there, in DER, trusted or not."""
    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(CALL_S):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 443, ssl=context
            )
    except (TimeoutError, OSError, ssl.SSLError) as error:
        raise GatewayUnreachable(f"{url}: {error}") from error
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return bytes(der)


async def _call(
    session: aiohttp.ClientSession, method: str, path: str, body: bytes | None
) -> PairAnswer:
    headers = {} if body is None else {"Content-Type": "application/json"}
    async with session.request(method, path, data=body, headers=headers) as response:
        raw = await response.read()
    if response.status >= 400:
        raise refused(response.status, raw)
    return msgspec.json.decode(raw, type=PairAnswer)


async def _confirmed(session: aiohttp.ClientSession, pairing: str) -> PairAnswer:
    """Ask until the technician has decided, as long as a pairing lives. Raises: PairingRefused."""
    try:
        async with asyncio.timeout(LIFETIME_MS // 1000):
            while True:
                answer = await _call(session, "GET", f"/pair/{pairing}", None)
                if answer.state == "confirmed":
                    return answer
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise PairingRefused("nobody confirmed") from error


def _check(answer: PairAnswer, seen: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """That authorities which came signed both what we saw and our key. Raises: PairingRefused.

    There are two while the gateway exchanges its authority.
    """
    try:
        authorities = x509.load_pem_x509_certificates((answer.authority or "").encode())
        ours = x509.load_pem_x509_certificate((answer.certificate or "").encode())
        for certificate in (seen, ours):
            issuers = [found for found in authorities if found.subject == certificate.issuer]
            certificate.verify_directly_issued_by((issuers or authorities)[0])
    except (ValueError, TypeError, InvalidSignature) as error:
        raise PairingRefused("the certificates do not belong together") from error
    if spki(ours.public_key()) != spki(key.public_key()):
        raise PairingRefused("the certificate is for another key")
