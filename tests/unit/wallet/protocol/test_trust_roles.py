"""A role's signature needs the role's certificate: in the object, or held."""

from __future__ import annotations

import pytest

from tests.support.world import ANCHOR, policy_of
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.trust import check_role


def test_a_chain_that_is_left_out_must_be_held() -> None:
    signed = policy_of({}).signed
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
    check_role(ANCHOR, signed, "policy", held_chains={})
    check_role(ANCHOR, bare, "policy", held_chains={signed.key_id: chain})
    with pytest.raises(ProtocolError) as caught:
        check_role(ANCHOR, bare, "policy", held_chains={})
    assert caught.value.code is Code.CERTIFICATE_INVALID
