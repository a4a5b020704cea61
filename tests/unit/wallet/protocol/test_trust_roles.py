"""A role's signature needs the role's certificate: in the object, or held."""

from __future__ import annotations

import pytest

from tests.support.world import ANCHOR, issue
from wallet.protocol.issued import KEYS_TYPE, decode_keys
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.trust import check_role


def test_a_chain_that_is_left_out_must_be_held() -> None:
    raw = issue(KEYS_TYPE, {2: 0, 3: [[bytes(8), bytes(32), 1]]})
    signed = decode_keys(raw).signed
    chain = signed.chain
    bare = type(signed)(
        signed.raw,
        signed.protected,
        signed.algorithm,
        signed.key_id,
        signed.type,
        (),
        signed.payload,
        signed.signature,
    )
    check_role(ANCHOR, signed, "sync", held_chains={})
    check_role(ANCHOR, bare, "sync", held_chains={signed.key_id: chain})
    with pytest.raises(ProtocolError) as caught:
        check_role(ANCHOR, bare, "sync", held_chains={})
    assert caught.value.code is Code.CERTIFICATE_INVALID
