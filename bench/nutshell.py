"""Swaps for a Cashu mint, made before the clock starts: run by the interpreter of Nutshell.

Arguments: the mint's address, how many swaps. Prints the body of one request a line. Each is the
cheapest swap that there is: one proof of 1 against one blinded output of 1, without a fee.
"""

from __future__ import annotations

import importlib
import json
import secrets
import sys
import time
import urllib.request
from typing import Any

# The types of cashu are its own: this file is checked where it is not installed.
crypto: Any = importlib.import_module("cashu.core.crypto.b_dhke")
secp: Any = importlib.import_module("cashu.core.crypto.secp")

AMOUNT = 1
# The mint takes as many outputs in one request.
OUTPUTS_MAX = 1_000
TIMEOUT_S = 60


def call(url: str, body: dict[str, Any] | None = None) -> Any:
    """What the mint answers. Raises: OSError when it refuses."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return json.load(answer)


def paid_quote(url: str, amount: int) -> str:
    """The quote of an invoice that the fake backend has paid."""
    path = f"{url}/v1/mint/quote/bolt11"
    quote: str = call(path, {"unit": "sat", "amount": amount})["quote"]
    deadline = time.monotonic() + TIMEOUT_S
    while call(f"{path}/{quote}")["state"] != "PAID":
        if time.monotonic() > deadline:
            raise TimeoutError("the invoice was not paid")
        # The mint offers no waiting on a plain request: it is asked again.
        time.sleep(0.1)
    return quote


def blinded(keyset: str) -> tuple[dict[str, Any], str, Any]:
    """(an output, the secret under it, the factor that blinds it)."""
    secret = secrets.token_hex(32)
    point, factor = crypto.step1_alice(secret)
    return {"amount": AMOUNT, "id": keyset, "B_": point.format().hex()}, secret, factor


def proofs(url: str, keyset: str, key: Any, count: int) -> list[dict[str, Any]]:
    """New proofs of the mint, unblinded."""
    made = [blinded(keyset) for _ in range(count)]
    outputs = [output for output, _, _ in made]
    quote = paid_quote(url, count * AMOUNT)
    signed = call(f"{url}/v1/mint/bolt11", {"quote": quote, "outputs": outputs})["signatures"]
    return [
        {"amount": AMOUNT, "id": keyset, "secret": secret, "C": unblinded(promise, factor, key)}
        for promise, (_, secret, factor) in zip(signed, made, strict=True)
    ]


def unblinded(promise: dict[str, Any], factor: Any, key: Any) -> str:
    """The mint's signature without the blinding."""
    point = secp.PublicKey(bytes.fromhex(promise["C_"]))
    signature: str = crypto.step3_alice(point, factor, key).format().hex()
    return signature


def main(url: str, count: int) -> None:
    """Mint, blind, and print the requests."""
    (keyset,) = call(f"{url}/v1/keys")["keysets"]
    key = secp.PublicKey(bytes.fromhex(keyset["keys"][str(AMOUNT)]))
    for first in range(0, count, OUTPUTS_MAX):
        for proof in proofs(url, keyset["id"], key, min(OUTPUTS_MAX, count - first)):
            output, _, _ = blinded(keyset["id"])
            print(json.dumps({"inputs": [proof], "outputs": [output]}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
