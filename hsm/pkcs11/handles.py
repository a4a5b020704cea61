"""What we use of the library's key objects; its own types do not name these methods."""

from typing import Any, Protocol

from pkcs11.constants import Attribute, MechanismFlag, ObjectClass
from pkcs11.mechanisms import GCMParams, KeyType, Mechanism


class Handle(Protocol):
    """An object of the token."""

    def __getitem__(self, attribute: Attribute, /) -> Any:
        """Read an attribute."""
        ...

    def destroy(self) -> None:
        """Remove the object."""
        ...


class SigningKey(Handle, Protocol):
    """A private key."""

    def sign(self, data: bytes, *, mechanism: Mechanism) -> bytes:
        """Sign."""
        ...


class SealingKey(Handle, Protocol):
    """A secret key."""

    def encrypt(self, data: bytes, *, mechanism: Mechanism, mechanism_param: GCMParams) -> bytes:
        """Encrypt."""
        ...

    def decrypt(self, data: bytes, *, mechanism: Mechanism, mechanism_param: GCMParams) -> bytes:
        """Decrypt."""
        ...

    def wrap_key(self, key: object, *, mechanism: Mechanism) -> bytes:
        """Wrap another key."""
        ...

    def unwrap_key(
        self,
        object_class: ObjectClass,
        key_type: KeyType,
        key_data: bytes,
        *,
        mechanism: Mechanism,
        capabilities: MechanismFlag,
        template: dict[Attribute, object],
    ) -> Handle:
        """Unwrap another key."""
        ...
