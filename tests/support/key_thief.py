"""A second client of a token, with its PIN, that tries to bring the keys out of it.

Run as a program it prints what each attempt met, as JSON: the token's refusal, or "done".
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import pkcs11
from pkcs11.constants import Attribute, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import KeyType, Mechanism

from hsm.pkcs11.handles import SealingKey
from tests.support.softhsm import SoftHsm

PROJECT = Path(__file__).parents[2]


def attempts(hsm: SoftHsm, *, key_label: str = "journal", pin: str = "4711") -> dict[str, str]:
    """Try everything in another process; returns what each attempt met."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.key_thief", str(hsm.module_path), key_label],
        cwd=PROJECT,
        env={**hsm.environment, "TOKEN_PIN": pin},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _attempt(work: Callable[[], object]) -> str:
    try:
        work()
    except PKCS11Error as error:
        return type(error).__name__
    return "done"


def main(module: str, key_label: str) -> None:
    """Try, and print."""
    token = pkcs11.lib(module).get_token(token_label="gateway")
    session = token.open(rw=True, user_pin=os.environ["TOKEN_PIN"])
    signing = session.get_key(label=key_label, object_class=ObjectClass.PRIVATE_KEY)
    sealing = session.get_key(label=key_label, object_class=ObjectClass.SECRET_KEY)
    own = session.generate_key(
        KeyType.AES, 256, capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP
    )
    wrapping = cast(SealingKey, own)
    found = {}
    for name, key in (("signing", signing), ("sealing", sealing)):
        tries: dict[str, Callable[[], object]] = {
            "read": partial(key.__getitem__, Attribute.VALUE),
            "loosen": partial(key.copy, {Attribute.EXTRACTABLE: True}),
            "bare": partial(key.__setitem__, Attribute.SENSITIVE, False),
            "wrap": partial(wrapping.wrap_key, key, mechanism=Mechanism.AES_KEY_WRAP_PAD),
        }
        found.update({f"{attempt} {name}": _attempt(tries[attempt]) for attempt in tries})
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
