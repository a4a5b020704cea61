"""Certificate chains: a journal under the sub-CA, a role under the root, and nothing else."""

import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ObjectIdentifier

from tests.support.issuer import (
    DAY_S,
    ES256,
    NOW_S,
    START_S,
    Issuer,
    Journal,
    Key,
    certificate,
    journal_leaf,
    journal_uris,
    key_usage,
)
from wallet.protocol.certificates import (
    TrustAnchor,
    check_journal_chain,
    check_role_chain,
    journal_chain,
    parse_certificate,
)
from wallet.protocol.keys import EDDSA
from wallet.protocol.refusals import Code, ProtocolError

ISSUER = Issuer()
ROOT = TrustAnchor(ISSUER.root)
JOURNAL = Journal(ISSUER, "a", epoch=3)
ROOT_NAME, SUB_NAME = "issuer root", "issuer sub"
URIS = journal_uris(JOURNAL.journal, 3)


def refusal_of_chain(*chain: bytes) -> Code:
    with pytest.raises(ProtocolError) as caught:
        journal_chain(chain, ROOT)
    return caught.value.code


def refusal_of_root(der: bytes) -> Code:
    with pytest.raises(ProtocolError) as caught:
        TrustAnchor(der)
    return caught.value.code


@pytest.mark.parametrize("leaf", [EDDSA, ES256])
@pytest.mark.parametrize("authority", [EDDSA, ES256])
def test_a_journal_is_what_its_chain_certifies(leaf: int, authority: int) -> None:
    issuer = Issuer("both", algorithm=authority)
    journal = Journal(issuer, "x", epoch=9, algorithm=leaf)
    root = TrustAnchor(issuer.root)
    read = check_journal_chain(journal.chain, root, NOW_S, 0)
    assert (read.journal, read.epoch, read.key) == (journal.journal, 9, journal.key.public)
    assert (read.not_before_s, read.not_after_s) == (START_S, START_S + 14 * DAY_S)
    serials = [x509.load_der_x509_certificate(der).serial_number for der in journal.chain]
    assert [int.from_bytes(serial) for serial in read.serials] == serials
    assert root.key == issuer.key.public


def test_both_ends_count_in_and_the_grace_is_at_the_end_alone() -> None:
    end = START_S + 14 * DAY_S
    for at_s, grace_s in ((START_S, 0), (end, 0), (end + 60, 60)):
        check_journal_chain(JOURNAL.chain, ROOT, at_s, grace_s)
    for at_s, grace_s in ((START_S - 1, 60), (end + 1, 0), (end + 61, 60)):
        with pytest.raises(ProtocolError) as caught:
            check_journal_chain(JOURNAL.chain, ROOT, at_s, grace_s)
        assert caught.value.code == Code.CERTIFICATE_INVALID


def test_a_leaf_does_not_outlive_its_authority() -> None:
    sub = certificate(
        ISSUER.sub_key,
        subject=SUB_NAME,
        signer=ISSUER.key,
        issuer=ROOT_NAME,
        authority=True,
        start_s=START_S + 10,
        end_s=START_S + DAY_S,
    )
    read = journal_chain((JOURNAL.leaf, sub), ROOT)
    assert (read.from_s, read.until_s) == (START_S + 10, START_S + DAY_S)


def test_roots_are_equal_by_their_bytes() -> None:
    same, other = TrustAnchor(ISSUER.root), TrustAnchor(Issuer("other").root)
    assert same == ROOT
    assert hash(ROOT) == hash(same)
    assert other != ROOT
    assert ISSUER.root != ROOT


def test_a_chain_under_another_root_is_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        journal_chain(JOURNAL.chain, TrustAnchor(Issuer("other").root))
    assert caught.value.code == Code.CERTIFICATE_INVALID


def test_a_chain_is_leaf_and_authority() -> None:
    for chain in ((), (JOURNAL.leaf,), (*JOURNAL.chain, ISSUER.root), JOURNAL.chain[::-1]):
        assert refusal_of_chain(*chain) == Code.CERTIFICATE_INVALID


def wrong_leaf(**given: object) -> bytes:
    fields: dict[str, object] = {
        "subject": "journal",
        "signer": ISSUER.sub_key,
        "issuer": SUB_NAME,
        "uris": URIS,
        **given,
    }
    return certificate(JOURNAL.key, **fields)  # type: ignore[arg-type]  # the cases give the types


@pytest.mark.parametrize(
    "leaf",
    [
        wrong_leaf(signer=Key("somebody")),
        wrong_leaf(issuer="another sub"),
        wrong_leaf(authority=True),
        wrong_leaf(usage=key_usage(authority=True, data=True)),
        wrong_leaf(usage=key_usage(authority=False, data=False)),
        wrong_leaf(used=False),
        wrong_leaf(uris=[]),
        wrong_leaf(uris=URIS[:1]),
        wrong_leaf(uris=URIS[1:]),
        wrong_leaf(uris=[*URIS, "urn:cbdc:role:sync"]),
        wrong_leaf(uris=[URIS[0], URIS[0]]),
        wrong_leaf(uris=[URIS[0], "urn:cbdc:epoch:03"]),
        wrong_leaf(uris=[URIS[0], "urn:cbdc:epoch:"]),
        wrong_leaf(uris=[URIS[0], "urn:cbdc:epoch:-1"]),
        wrong_leaf(uris=[URIS[0], f"urn:cbdc:epoch:{2**53}"]),
        wrong_leaf(uris=[URIS[0].upper().replace("URN:CBDC:JOURNAL", "urn:cbdc:journal"), URIS[1]]),
        wrong_leaf(uris=[URIS[0][:-1], URIS[1]]),
        wrong_leaf(uris=["urn:cbdc:terminal:7"]),
        wrong_leaf(
            uris=[], extra=[(x509.SubjectAlternativeName([x509.DNSName("a.example")]), False)]
        ),
        wrong_leaf(extra=[(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), b""), True)]),
        wrong_leaf(
            extra=[(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), b"x" * 5000), False)]
        ),
        JOURNAL.leaf + b"\x00",
        JOURNAL.leaf[:-1],
        b"",
        b"\x30\x00",
    ],
)
def test_a_wrong_leaf_is_refused(leaf: bytes) -> None:
    assert refusal_of_chain(leaf, ISSUER.sub) == Code.CERTIFICATE_INVALID


def test_what_is_not_understood_and_not_critical_is_let_be() -> None:
    extra = [(x509.UnrecognizedExtension(ObjectIdentifier("1.2.3"), b""), False)]
    assert journal_chain((wrong_leaf(extra=extra), ISSUER.sub), ROOT).epoch == 3
    assert journal_chain((wrong_leaf(constrained=False), ISSUER.sub), ROOT).epoch == 3


def authority(**given: object) -> bytes:
    fields: dict[str, object] = {
        "subject": SUB_NAME,
        "signer": ISSUER.key,
        "issuer": ROOT_NAME,
        "authority": True,
        **given,
    }
    return certificate(ISSUER.sub_key, **fields)  # type: ignore[arg-type]  # the cases give the types


@pytest.mark.parametrize(
    "sub",
    [
        authority(authority=False),
        authority(used=False),
        authority(constrained=False, usage=key_usage(authority=True)),
        authority(usage=key_usage(authority=False)),
        authority(signer=Key("somebody")),
        authority(issuer="another root"),
    ],
)
def test_a_wrong_authority_is_refused(sub: bytes) -> None:
    assert refusal_of_chain(JOURNAL.leaf, sub) == Code.CERTIFICATE_INVALID


def test_the_root_says_how_many_authorities_stand_under_it() -> None:
    root = certificate(
        ISSUER.key,
        subject=ROOT_NAME,
        signer=ISSUER.key,
        issuer=ROOT_NAME,
        authority=True,
        path_length=0,
    )
    with pytest.raises(ProtocolError) as caught:
        journal_chain(JOURNAL.chain, TrustAnchor(root))
    assert caught.value.code == Code.CERTIFICATE_INVALID
    key, chain = ISSUER.role("sync")
    assert check_role_chain(chain, TrustAnchor(root), "sync").key == key.public


def test_a_root_is_an_authority_that_signed_itself() -> None:
    by_another = certificate(
        ISSUER.key, subject=ROOT_NAME, signer=Key("x"), issuer=ROOT_NAME, authority=True
    )
    for der in (JOURNAL.leaf, by_another, b"", ISSUER.root[:-1]):
        assert refusal_of_root(der) == Code.CERTIFICATE_INVALID


def test_every_role_is_a_leaf_of_the_root() -> None:
    for role in ("grants", "policy", "lists", "enrolment", "settlement", "sync"):
        key, chain = ISSUER.role(role)
        read = check_role_chain(chain, ROOT, role)
        assert (read.role, read.key) == (role, key.public)
        assert len(read.serials) == 1
        with pytest.raises(ProtocolError) as caught:
            check_role_chain(chain, ROOT, "another")
        assert caught.value.code == Code.WRONG_ROLE


def test_a_journal_has_no_role_and_a_role_under_the_sub_ca_is_none() -> None:
    borrowed = journal_leaf(ISSUER, Key("thief"), uris=["urn:cbdc:role:sync"])
    for chain in (JOURNAL.chain, (borrowed, ISSUER.sub)):
        with pytest.raises(ProtocolError) as caught:
            check_role_chain(chain, ROOT, "sync")
        assert caught.value.code == Code.WRONG_ROLE
    for wrong in ((), (borrowed,), (borrowed, ISSUER.sub, ISSUER.root)):
        with pytest.raises(ProtocolError) as caught:
            check_role_chain(wrong, ROOT, "sync")
        assert caught.value.code == Code.CERTIFICATE_INVALID


def signed_by(
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey,
    algorithm: hashes.SHA256 | hashes.SHA384 | None,
) -> bytes:
    """The journal's leaf again, under a key of another kind."""
    given = x509.load_der_x509_certificate(JOURNAL.leaf)
    builder = x509.CertificateBuilder(
        issuer_name=given.issuer,
        subject_name=given.subject,
        public_key=private.public_key(),
        serial_number=5,
        not_valid_before=given.not_valid_before_utc,
        not_valid_after=given.not_valid_after_utc,
        extensions=list(given.extensions),
    )
    return builder.sign(private, algorithm).public_bytes(Encoding.DER)


def test_keys_and_signatures_of_other_kinds_are_refused() -> None:
    p384 = ec.generate_private_key(ec.SECP384R1())
    p256 = ec.generate_private_key(ec.SECP256R1())
    for der in (
        signed_by(rsa.generate_private_key(65537, 2048), hashes.SHA256()),
        signed_by(p384, hashes.SHA256()),
        signed_by(ed448.Ed448PrivateKey.generate(), None),
        signed_by(p256, hashes.SHA384()),
    ):
        with pytest.raises(ProtocolError) as caught:
            parse_certificate(der)
        assert caught.value.code == Code.CERTIFICATE_INVALID


def test_a_weak_key_is_refused_in_a_certificate_too() -> None:
    raw = JOURNAL.key.public.raw
    assert JOURNAL.leaf.count(raw) == 1
    with pytest.raises(ProtocolError) as caught:
        parse_certificate(JOURNAL.leaf.replace(raw, bytes(32)))
    assert caught.value.code == Code.CERTIFICATE_INVALID


def test_other_versions_and_serials_are_refused() -> None:
    version, serial = b"\xa0\x03\x02\x01\x02", b"\x02\x01\x05"
    der = wrong_leaf(serial=5)
    at = der.index(version)
    first = der[:at] + b"\xa0\x03\x02\x01\x00" + der[at + 5 :]
    negative = der.replace(serial, b"\x02\x01\x85", 1)
    for wrong in (first, negative, der.replace(version, b"\xa0\x03\x02\x01\x09", 1)):
        with pytest.raises(ProtocolError) as caught:
            parse_certificate(wrong)
        assert caught.value.code == Code.CERTIFICATE_INVALID


def test_a_serial_that_is_not_positive_is_refused_where_the_library_only_warns() -> None:
    der = wrong_leaf(serial=5)
    for serial in (b"\x02\x01\x85", b"\x02\x01\x00"):
        with warnings.catch_warnings(), pytest.raises(ProtocolError) as caught:
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            parse_certificate(der.replace(b"\x02\x01\x05", serial, 1))
        assert caught.value.code == Code.CERTIFICATE_INVALID
