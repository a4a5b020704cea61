"""Any PKCS#11 token, by configuration: keys are made in it and never leave it."""

from hsm.pkcs11.config import Pkcs11Config
from hsm.pkcs11.succession import begin_next
from hsm.pkcs11.token import Pkcs11Token, add_signer, create, open_token

__all__ = ["Pkcs11Config", "Pkcs11Token", "add_signer", "begin_next", "create", "open_token"]
