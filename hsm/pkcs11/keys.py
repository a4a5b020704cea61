"""The keys of one gateway in a token: made there, checked, found again.

Everything here runs in the module's thread.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import pkcs11
from pkcs11.constants import Attribute, MechanismFlag, ObjectClass
from pkcs11.exceptions import MultipleObjectsReturned, NoSuchKey, PKCS11Error
from pkcs11.mechanisms import KeyType, Mechanism

from hsm.api import HsmError, TokenRefused
from hsm.curves import check_signature
from hsm.pkcs11.config import Pkcs11Config
from hsm.pkcs11.handles import SealingKey, SigningKey
from hsm.pkcs11.kinds import KINDS, public_key_of_point

# No COSE structure begins like this, so the signature proves the key and says nothing else.
PROOF = b"this token holds this key"

# What must hold of a key that never left the token and never can.
CAPTIVE = {
    Attribute.LOCAL: True,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.ALWAYS_SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.NEVER_EXTRACTABLE: True,
}


TO_BE_CAPTIVE = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The handles of one session."""

    config: Pkcs11Config
    session: pkcs11.Session
    signing: SigningKey
    sealing: SealingKey
    public_key: bytes

    def sign(self, message: bytes) -> bytes:
        """Sign the message: 64 bytes."""
        kind = KINDS[self.config.algorithm]
        signature = self.signing.sign(kind.prepare(message), mechanism=kind.sign)
        return kind.finish(signature)

    def prove(self) -> None:
        """Return when the token signs now with the key that belongs to the public key.

        Raises:
            TokenRefused: the two do not belong together.
            PKCS11Error: the token does not sign.
        """
        check_signature(
            self.config.algorithm, self.public_key, message=PROOF, signature=self.sign(PROOF)
        )


def generate(
    token: pkcs11.Token, config: Pkcs11Config, *, key_id: bytes = b"", sealing: bool = True
) -> None:
    """Make the signing pair and the sealing key in the token; keep them only if captive.

    Without `sealing` the signing pair alone, beside a sealing key that is there. `key_id` is
    their CKA_ID, their label where there is none.

    Raises:
        TokenRefused: keys of these labels exist, or the token makes keys that can leave it.
        PKCS11Error: the token refuses.
    """
    session = token.open(rw=True)
    labels = config.labels if sealing else (config.key_label,)
    try:
        for label in labels:
            if list(session.get_objects({Attribute.LABEL: label})):
                raise TokenRefused(f"the token has keys of the label {label} already")
        try:
            _generate_signing(session, config, key_id or config.key_label.encode())
            if sealing:
                key_id = key_id or config.label_of_sealing.encode()
                _generate_sealing(session, token, config.label_of_sealing, key_id)
            _find(session, config)
        except (PKCS11Error, HsmError):
            # A token that is lost keeps what was made, and refuses later.
            with contextlib.suppress(PKCS11Error):
                destroy(session, labels)
            raise
    finally:
        session.close()


def destroy(session: pkcs11.Session, labels: Iterable[str], *, key_id: bytes | None = None) -> int:
    """Remove the objects of these labels, or those of them that bear this CKA_ID; how many.

    Raises:
        PKCS11Error: the token refuses.
    """
    bearing = {} if key_id is None else {Attribute.ID: key_id}
    found = [
        made
        for label in labels
        for made in list(session.get_objects({Attribute.LABEL: label, **bearing}))
    ]
    for made in found:
        made.destroy()
    return len(found)


def find(token: pkcs11.Token, config: Pkcs11Config) -> Keys:
    """Open a session and find the keys, checked.

    Raises:
        TokenRefused: a key could leave the token, or is not of the public key.
        NoSuchKey, PKCS11Error: the token has them not, or refuses.
    """
    session = token.open()
    try:
        return _find(session, config)
    except (PKCS11Error, HsmError):
        with contextlib.suppress(PKCS11Error):  # the session may be what is lost
            session.close()
        raise


def _generate_signing(session: pkcs11.Session, config: Pkcs11Config, key_id: bytes) -> None:
    kind = KINDS[config.algorithm]
    session.create_domain_parameters(
        kind.key_type, {Attribute.EC_PARAMS: kind.curve}, local=True
    ).generate_keypair(
        id=key_id,
        label=config.key_label,
        store=True,
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        mechanism=kind.generate,
        private_template=dict(TO_BE_CAPTIVE),
    )


def _generate_sealing(
    session: pkcs11.Session, token: pkcs11.Token, label: str, key_id: bytes
) -> None:
    session.generate_key(
        KeyType.AES,
        256,
        id=key_id,
        label=label,
        store=True,
        capabilities=_sealing_capabilities(token),
        template=dict(TO_BE_CAPTIVE),
    )


def _sealing_capabilities(token: pkcs11.Token) -> MechanismFlag:
    """Choose one use: a key that both wraps and decrypts could bring other keys out."""
    offered = token.slot.get_mechanisms()
    if Mechanism.AES_GCM in offered:
        return MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
    if Mechanism.AES_KEY_WRAP in offered:
        return MechanismFlag.WRAP | MechanismFlag.UNWRAP
    raise TokenRefused("the token has neither AES-GCM nor AES key wrap")


def _find(session: pkcs11.Session, config: Pkcs11Config) -> Keys:
    kind, label = KINDS[config.algorithm], config.key_label
    public = _one(session, label, ObjectClass.PUBLIC_KEY, kind.key_type)
    signing = _one(session, label, ObjectClass.PRIVATE_KEY, kind.key_type)
    sealing = _one(session, config.label_of_sealing, ObjectClass.SECRET_KEY, KeyType.AES)
    for key in (signing, sealing):
        _check_captive(key)
    if sealing[Attribute.DECRYPT] and sealing[Attribute.WRAP]:
        raise TokenRefused("the sealing key may both wrap and decrypt")
    keys = Keys(
        config=config,
        session=session,
        signing=cast(SigningKey, signing),
        sealing=cast(SealingKey, sealing),
        public_key=public_key_of_point(config.algorithm, public[Attribute.EC_POINT]),
    )
    keys.prove()
    return keys


def _one(
    session: pkcs11.Session, label: str, object_class: ObjectClass, key_type: KeyType
) -> pkcs11.Object:
    template = {
        Attribute.CLASS: object_class,
        Attribute.KEY_TYPE: key_type,
        Attribute.LABEL: label,
    }
    # The search is run to its end: one that is dropped half-way ends in whatever thread drops it.
    found = list(session.get_objects(template))
    if not found:
        raise NoSuchKey
    if len(found) > 1:
        raise MultipleObjectsReturned
    return found[0]


def _check_captive(key: pkcs11.Object) -> None:
    for attribute, expected in CAPTIVE.items():
        if key[attribute] is not expected:
            raise TokenRefused(f"a key of the token is not captive: {attribute.name}")
