"""Certificates of the issuer: the shape of the vectors, and chains that the protocol accepts."""

import hashlib
import itertools
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from cloud.issuer import profiles
from cloud.issuer.profiles import Authority, Random
from wallet.protocol.certificates import (
    JournalCertificate,
    TrustAnchor,
    check_journal_chain,
    check_role_chain,
)
from wallet.protocol.keys import EDDSA, ES256, PublicKey, from_raw

NOW_MS = 1_780_000_000_000
VECTORS = Path(__file__).parents[2] / "vectors" / "data" / "protocol" / "journal.json"
JOURNAL = bytes(range(20))


def source(seed: int = 1) -> Random:
    """Bytes that follow from a seed."""
    numbers = itertools.count()

    def random(length: int) -> bytes:
        block = hashlib.shake_256(f"{seed}/{next(numbers)}".encode())
        return block.digest(length)

    return random


def private_key(number: int) -> Ed25519PrivateKey:
    """A different key for each number."""
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))


def p256_key() -> PublicKey:
    """A P-256 public key."""
    public = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return from_raw(ES256, point[1:])


def ed25519_key() -> PublicKey:
    """An Ed25519 public key."""
    return from_raw(EDDSA, private_key(9).public_key().public_bytes_raw())


@pytest.fixture
def root() -> Authority:
    """An issuer's root."""
    return profiles.make_root(
        name="Issuer Root",
        organisation="A central bank",
        key=private_key(1),
        now_ms=NOW_MS,
        random=source(),
    )


@pytest.fixture
def journals(root: Authority) -> Authority:
    """Its sub-CA for journals."""
    key = private_key(2)
    certificate = profiles.make_journal_authority(
        root, key=key.public_key(), now_ms=NOW_MS, random=source(2)
    )
    return Authority(certificate=certificate, key=key)


def journal_leaf(
    journals: Authority, *, key: PublicKey | None = None, now_ms: int = NOW_MS
) -> x509.Certificate:
    """The leaf of JOURNAL in epoch 3."""
    return profiles.make_journal(
        journals,
        journal=JOURNAL,
        epoch=3,
        key=key or ed25519_key(),
        now_ms=now_ms,
        random=source(3),
    )


def shape(certificate: x509.Certificate) -> list[object]:
    """What a certificate is, without names, keys and times."""
    extensions = [
        (extension.oid.dotted_string, extension.critical) for extension in certificate.extensions
    ]
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    names = [attribute.oid.dotted_string for attribute in certificate.subject]
    return [
        certificate.version,
        certificate.signature_algorithm_oid.dotted_string,
        names,
        extensions,
        (usage.digital_signature, usage.key_cert_sign, usage.crl_sign, usage.content_commitment),
        (constraints.ca, constraints.path_length),
        len(profiles.serial_bytes(certificate)),
    ]


def checked(
    leaf: x509.Certificate, journals: Authority, root: Authority, *, at_ms: int
) -> JournalCertificate:
    """The journal's chain, checked as every receiver of a receipt does."""
    chain = (leaf.public_bytes(Encoding.DER), journals.der)
    return check_journal_chain(chain, TrustAnchor(root.der), at_ms // 1_000, 0)


def test_the_certificates_have_the_shape_of_the_vectors(
    root: Authority, journals: Authority
) -> None:
    vectors = json.loads(VECTORS.read_text())
    role = profiles.make_role(
        root, "grants", key=private_key(4).public_key(), now_ms=NOW_MS, random=source()
    )
    ours_and_theirs = [
        (root.certificate, vectors["root_certificate"]),
        (journals.certificate, vectors["sub_ca_certificate"]),
        (role, vectors["role_certificates"][0]),
        (journal_leaf(journals), vectors["journals"][0]["certificate"]),
        (journal_leaf(journals, key=p256_key()), vectors["journals"][1]["certificate"]),
    ]
    for ours, theirs in ours_and_theirs:
        vector = x509.load_der_x509_certificate(bytes.fromhex(theirs["der"]))
        assert shape(ours) == shape(vector), theirs["name"]


@pytest.mark.parametrize("key", [ed25519_key(), p256_key()], ids=["ed25519", "p256"])
def test_a_journals_leaf_says_which_journal_and_epoch(
    root: Authority, journals: Authority, key: PublicKey
) -> None:
    found = checked(journal_leaf(journals, key=key), journals, root, at_ms=NOW_MS)
    assert (found.journal, found.epoch, found.key) == (JOURNAL, 3, key)


def test_a_journals_leaf_is_good_for_14_days_from_10_minutes_ago(
    root: Authority, journals: Authority
) -> None:
    found = checked(journal_leaf(journals), journals, root, at_ms=NOW_MS)
    assert found.not_before_s == NOW_MS // 1_000 - 600
    assert found.not_after_s - found.not_before_s == 14 * 86_400


def test_a_leaf_does_not_outlive_its_authority(root: Authority, journals: Authority) -> None:
    end_ms = profiles.not_after_ms(journals.certificate)
    leaf = journal_leaf(journals, now_ms=end_ms - 86_400_000)
    assert profiles.not_after_ms(leaf) == end_ms
    assert checked(leaf, journals, root, at_ms=end_ms).epoch == 3


def test_a_roles_leaf_is_issued_by_the_root_and_names_the_role(root: Authority) -> None:
    key = private_key(4).public_key()
    leaf = profiles.make_role(root, "policy", key=key, now_ms=NOW_MS, random=source())
    chain = (leaf.public_bytes(Encoding.DER),)
    found = check_role_chain(chain, TrustAnchor(root.der), "policy")
    assert found.key.raw == key.public_bytes_raw()


@pytest.mark.parametrize("filler", [b"\x00", b"\xff"])
def test_a_serial_is_positive_and_of_one_length_whatever_the_randomness(filler: bytes) -> None:
    made = profiles.make_root(
        name="Issuer Root",
        organisation="A central bank",
        key=private_key(1),
        now_ms=NOW_MS,
        random=lambda length: filler * length,
    )
    serial = profiles.serial_bytes(made.certificate)
    assert (len(serial), serial[0] >> 6) == (16, 1)


def test_tls_certificates_are_for_their_sides_and_under_their_own_root() -> None:
    transport = profiles.make_root(
        name="Transport CA",
        organisation="A central bank",
        key=private_key(5),
        now_ms=NOW_MS,
        random=source(),
    )
    gateway = profiles.make_gateway(
        transport,
        journal=JOURNAL,
        key=profiles.certified_key(p256_key()),
        now_ms=NOW_MS,
        random=source(6),
    )
    server = profiles.make_server(
        transport,
        hosts=["cloud.example", "127.0.0.1", "::1"],
        key=private_key(6).public_key(),
        now_ms=NOW_MS,
        random=source(7),
    )
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["cloud.example"]
    assert [str(found) for found in names.get_values_for_type(x509.IPAddress)] == [
        "127.0.0.1",
        "::1",
    ]
    assert purposes(server) == [ExtendedKeyUsageOID.SERVER_AUTH]
    # A gateway is its neighbours' server as well; without a host's name it is nobody else's.
    assert purposes(gateway) == [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    own = gateway.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [type(name) for name in own] == [x509.UniformResourceIdentifier]
    verifier = PolicyBuilder().store(Store([transport.certificate])).build_client_verifier()
    with pytest.raises(x509.verification.VerificationError):
        verifier.verify(server, [])


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    """The extended key usages."""
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
