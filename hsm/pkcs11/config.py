"""Which token, which key, and how long to wait for it."""

from dataclasses import dataclass, field
from pathlib import Path

from hsm.api import Algorithm, TokenRefused

TIMEOUT_S_MAX = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs11Config:
    """A token and the labels of its signing pair and its sealing key.

    Without a `sealing_label` they share one: a signing pair of a later epoch has a label of its
    own, and the sealing key stays. `folder` holds what the counter needs outside of the token.

    Raises:
        TokenRefused: a value is empty or out of its bounds.
    """

    module_path: Path
    token_label: str
    key_label: str
    pin: str = field(repr=False)
    folder: Path
    algorithm: Algorithm = Algorithm.EDDSA
    sealing_label: str = ""
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if not (self.token_label and self.key_label and self.pin):
            raise TokenRefused("a PKCS#11 token needs a token label, a key label and a PIN")
        if not 0 < self.timeout_s <= TIMEOUT_S_MAX:
            raise TokenRefused(f"the token's timeout lies between 0 and {TIMEOUT_S_MAX:g} s")

    @property
    def label_of_sealing(self) -> str:
        """The label of the sealing key."""
        return self.sealing_label or self.key_label

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of the signing pair, then that of the sealing key where it differs."""
        return tuple(dict.fromkeys((self.key_label, self.label_of_sealing)))
