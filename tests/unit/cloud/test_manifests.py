"""Manifests of images and roots of makers are read strictly: officers approve what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.attestation.makers import read_root
from cloud.attestation.manifests import Manifest, fitting, read_manifest
from cloud.errors import IssuerError
from hsm.pcr_policies import PCR_POLICIES
from tests.support.live_issuer import LiveIssuer
from tests.support.maker import Maker

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
