"""Other people's libraries verify what we sign, and compute what we compute."""

import hashlib
import warnings

import cbor2
import cwt
import pytest
import scitt_cose
from pymerkle import InmemoryTree

from tests.support.issuer import ES256, NOW_S, Issuer, Journal, Key
from wallet.protocol.cose import ORDER_TYPE
from wallet.protocol.keys import EDDSA
from wallet.protocol.merkle import Batch, Frontier, leaf_hash
from wallet.protocol.messages import decode_order, order_payload
from wallet.protocol.receipt import (
    PATH_LEAD,
    ReceiptMaker,
    assemble_checkpoint,
    checkpoint_protected,
    checkpoint_signed_bytes,
)

# What RFC 9942 and RFC 9052 put before an object; this protocol leaves it out.
COSE_SIGN1_TAG = b"\xd2"
ENTRIES = [b"entry %d" % number for number in range(37)]
ALGORITHMS = pytest.mark.parametrize("algorithm", [EDDSA, ES256], ids=["ed25519", "es256"])


@ALGORITHMS
def test_scitt_cose_verifies_our_receipts(algorithm: int) -> None:
    journal = Journal(Issuer(), "peers", algorithm=algorithm)
    batch = Batch(Frontier(), [leaf_hash(entry) for entry in ENTRIES])
    protected = checkpoint_protected(
        journal.key.public,
        journal=journal.journal,
        epoch=journal.epoch,
        size=len(ENTRIES),
        counter=7,
        issued_s=NOW_S,
    )
    signature = journal.key.sign(checkpoint_signed_bytes(protected, batch.root))
    maker = ReceiptMaker(protected, journal.chain, size=len(ENTRIES), signature=signature)
    for index, path in enumerate(batch.joined_paths(PATH_LEAD)):
        result = scitt_cose.verify_receipt(
            COSE_SIGN1_TAG + maker.receipt(index, path),
            leaf_entry_hex=ENTRIES[index].hex(),
            log_public_key_pem=journal.key.pem(),
        )
        assert result.ok, result.errors
        assert (result.tree_size, result.leaf_index, result.iat) == (37, index, NOW_S)
        assert result.root == batch.root.hex()


@ALGORITHMS
def test_scitt_cose_verifies_our_checkpoints(algorithm: int) -> None:
    journal = Journal(Issuer(), "peers", algorithm=algorithm)
    root = Batch(Frontier(), [leaf_hash(entry) for entry in ENTRIES]).root
    protected = checkpoint_protected(
        journal.key.public, journal=journal.journal, epoch=1, size=37, counter=0, issued_s=NOW_S
    )
    signature = journal.key.sign(checkpoint_signed_bytes(protected, root))
    checkpoint = assemble_checkpoint(protected, journal.chain, root=root, signature=signature)
    read = scitt_cose.verify_sign1(COSE_SIGN1_TAG + checkpoint, public_key_pem=journal.key.pem())
    assert read.payload == root
    assert read.protected[395] == 1


def order_of(key: Key) -> bytes:
    payload = order_payload(
        payer=key.public.id,
        sequence=0,
        payee=bytes(20),
        payee_journal=bytes(20),
        amount_minor=1250,
        currency="EUR",
        created_ms=NOW_S * 1000,
        expires_ms=NOW_S * 1000 + 1,
        kind=0,
        authorisation=0,
        payer_journal=bytes(20),
        payer_epoch=1,
    )
    return key.sign_object(ORDER_TYPE, payload)


@ALGORITHMS
def test_cwt_verifies_our_signed_objects(algorithm: int) -> None:
    key = Key("order", algorithm)
    order = decode_order(order_of(key))
    fields = {**cbor2.loads(key.public.cose_key), 2: key.public.key_id, 3: algorithm}
    payload = cwt.COSE.new().decode(COSE_SIGN1_TAG + order.signed.raw, cwt.COSEKey.new(fields))
    assert payload == order.signed.payload


def test_pymerkle_computes_our_roots() -> None:
    tree, frontier = InmemoryTree(algorithm="sha256"), Frontier()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for entry in [hashlib.sha256(bytes([n])).digest() for n in range(130)]:
            tree.append_entry(entry)
            frontier, _ = frontier.append(leaf_hash(entry))
            assert frontier.root() == tree.get_root()
