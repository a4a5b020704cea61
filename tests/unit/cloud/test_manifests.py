"""Manifests of images and roots of makers are read strictly: officers approve what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.attestation.checks import Flaw, Images, NotProven, check_image
from cloud.attestation.makers import CRL_BYTES_MAX, read_revoked, read_root
from cloud.attestation.manifests import Manifest, fitting, floors_of, read_manifest
from cloud.errors import IssuerError
from hsm.attestation import Named
from hsm.pcr_policies import PCR_POLICIES
from tests.support.live_issuer import LiveIssuer
from tests.support.maker import MADE, YEARS, Maker

BOOT = {register: bytes([register]) * 32 for register in PCR_POLICIES["firmware-and-boot"]}
FIRMWARE = {register: BOOT[register] for register in PCR_POLICIES["firmware"]}


def as_text(registers: dict[int, bytes]) -> dict[str, str]:
    return {str(register): value.hex() for register, value in registers.items()}


def manifest(**changed: Any) -> bytes:
    content = {
        "format": "cbdc-image-manifest-1",
        "image": "cbdc-edge",
        "hardware": "board-1",
        "version": "1.0",
        "security_version": 1,
        "pcrs": {"firmware": as_text(FIRMWARE)},
    }
    return json.dumps({**content, **changed}).encode()


def test_a_manifest_tells_what_each_policys_registers_show() -> None:
    both = {"firmware": as_text(FIRMWARE), "firmware-and-boot": as_text(BOOT)}
    read = read_manifest(manifest(pcrs=both))
    assert read.name == "cbdc-edge 1.0 (1) on board-1"
    assert read.registers("firmware") == FIRMWARE
    assert read.registers("firmware-and-boot") == BOOT
    assert read_manifest(manifest()).registers("firmware-and-boot") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        manifest(format="cbdc-image-manifest-2"),
        manifest(image="two words"),
        manifest(version=""),
        manifest(security_version=-1),
        manifest(more=1),
        manifest(security_version_min=2),
        manifest(security_version_min=-1),
        manifest(pcrs={}),
        manifest(pcrs={"none": {}}),
        manifest(pcrs={"firmware": {}}),
        manifest(pcrs={"firmware": as_text({0: FIRMWARE[0], 2: FIRMWARE[2]})}),
        manifest(pcrs={"firmware": as_text(BOOT)}),
        manifest(pcrs={"firmware": {**as_text(FIRMWARE), "7": "00"}}),
        manifest(pcrs={"firmware": {**as_text(FIRMWARE), "07": "00" * 32}}),
        manifest(pcrs={"firmware": {**as_text(FIRMWARE), "24": "00" * 32}}),
    ],
)
def test_another_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(IssuerError) as refused:
        read_manifest(content)
    assert refused.value.code == "manifest-invalid"


def test_values_fit_a_manifest_as_a_whole_or_not_at_all() -> None:
    older, newer = (
        read_manifest(manifest(version=version, security_version=number))
        for version, number in (("1.0", 1), ("1.1", 2))
    )
    assert fitting([newer, older], "firmware", FIRMWARE) == newer
    assert fitting([older], "firmware-and-boot", FIRMWARE) is None
    for found in ({**FIRMWARE, 7: bytes(32)}, BOOT, {0: FIRMWARE[0]}, {}):
        assert fitting([newer, older], "firmware", found) is None
    nothing: list[Manifest] = []
    assert fitting(nothing, "firmware", FIRMWARE) is None


def test_a_root_is_read_from_pem_or_der_and_named_by_its_fingerprint() -> None:
    der = Maker("acme").root
    pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    assert read_root(der) == read_root(pem) == read_root(b"\n" + pem)
    name, content = read_root(pem)
    assert (content, name.startswith("CN=acme root SHA-256 ")) == (der, True)


def test_what_is_not_one_certificate_of_an_authority_is_no_root() -> None:
    maker = Maker()
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pems = [
        x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
        for der in (maker.root, maker.above)
    ]
    _, (leaf,) = LiveIssuer().role_key("sync")
    ends = (maker.certify(key), leaf)
    for content in (b"", b"\x30\x00", b"-----BEGIN nothing", b"".join(pems), *ends):
        with pytest.raises(IssuerError) as refused:
            read_root(content)
        assert refused.value.code == "maker-invalid"


def release(number: int, registers: dict[int, bytes], **changed: Any) -> Manifest:
    """A release of an image with this security version."""
    pcrs = {"firmware": as_text(registers)}
    content = manifest(version=f"{number}", security_version=number, pcrs=pcrs, **changed)
    return read_manifest(content)


def test_an_image_below_what_a_later_release_demands_is_outdated() -> None:
    others = {**FIRMWARE, 7: bytes(32)}
    old, new = release(1, FIRMWARE), release(3, others, security_version_min=2)
    images = Images(manifests=[old, new], floors=floors_of([old, new]))
    assert images.floors == {("cbdc-edge", "board-1"): 2}
    assert check_image(others, "firmware", images) == new
    with pytest.raises(NotProven, match="security version 2 is asked for") as outdated:
        check_image(FIRMWARE, "firmware", images)
    assert outdated.value.flaw is Flaw.OUTDATED
    with pytest.raises(NotProven) as unknown:
        check_image({**FIRMWARE, 0: b"x" * 32}, "firmware", images)
    assert unknown.value.flaw is Flaw.IMAGE


def test_the_demand_is_of_one_image_on_one_kind_of_hardware() -> None:
    demand = release(3, {**FIRMWARE, 7: bytes(32)}, security_version_min=3)
    for other in ({"hardware": "board-2"}, {"image": "other"}):
        kept = release(1, FIRMWARE, **other)
        images = Images(manifests=[kept, demand], floors=floors_of([kept, demand]))
        assert check_image(FIRMWARE, "firmware", images) == kept
    # What shows the same measurements as an outdated image is no proof against one that may run.
    twin, outdated = release(3, FIRMWARE), release(1, FIRMWARE)
    images = Images(manifests=[outdated, twin, demand], floors=floors_of([demand]))
    assert check_image(FIRMWARE, "firmware", images) == twin


def test_revoked_certificates_are_read_from_a_list_or_a_certificate() -> None:
    maker = Maker()
    leaf = x509.load_der_x509_certificate(
        maker.certify(ec.generate_private_key(ec.SECP256R1()).public_key())
    )
    issuer = leaf.issuer.public_bytes()
    listed = maker.revocation_list(leaf.serial_number, 7)
    for form in (Encoding.DER, Encoding.PEM):
        found = read_revoked(listed.public_bytes(form))
        assert found == [Named(issuer, leaf.serial_number), Named(issuer, 7)]
        assert read_revoked(leaf.public_bytes(form)) == [Named(issuer, leaf.serial_number)]
    let_go = maker.revocation_list(5, 7, reason=x509.ReasonFlags.remove_from_crl)
    assert read_revoked(let_go.public_bytes(Encoding.DER)) == [Named(issuer, 5)]
    held = maker.revocation_list(5, reason=x509.ReasonFlags.certificate_hold)
    assert read_revoked(held.public_bytes(Encoding.DER)) == [Named(issuer, 5)]


def test_what_is_neither_or_is_too_large_revokes_nothing() -> None:
    indirect = x509.CertificateRevocationListBuilder().issuer_name(x509.Name([]))
    indirect = indirect.last_update(MADE).next_update(MADE + YEARS)
    other = x509.CertificateIssuer([x509.DirectoryName(x509.Name([]))])
    entry = x509.RevokedCertificateBuilder().serial_number(1).revocation_date(MADE)
    entry = entry.add_extension(other, critical=True)
    key = ec.generate_private_key(ec.SECP256R1())
    signed = indirect.add_revoked_certificate(entry.build()).sign(key, hashes.SHA256())
    contents = [b"", b"\x30\x00", b"-----BEGIN X509 CRL", b"-----BEGIN nothing"]
    for content in (*contents, signed.public_bytes(Encoding.DER), bytes(CRL_BYTES_MAX + 1)):
        with pytest.raises(IssuerError) as refused:
            read_revoked(content)
        assert refused.value.code == "revocations-invalid"
