"""What the commands of `cbdc-cloud` do. Those that change money or keys call the running cloud."""

from __future__ import annotations

import argparse
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from cloud.client import Api
from cloud.clock import SystemClock
from cloud.config import Config
from cloud.issuer.officers import Role, add_officer, has_officer, new_token, token_hash
from cloud.root_commands import begin
from cloud.service import Cloud, make_passphrase, open_cloud
from hsm.files import create_durably
from wallet.protocol.money import Currency, Money, decimal_text

OFFICERS = {
    "first": (
        *(Role.ADMIN, Role.SUPPLY, Role.GRANTS, Role.ENROLMENT, Role.POLICY, Role.LISTS),
        *(Role.COMPLIANCE, Role.RECOVERY),
    ),
    "second": (
        *(Role.ADMIN, Role.SUPPLY, Role.POLICY),
        *(Role.DEALER, Role.AUDITOR, Role.COMPLIANCE),
        Role.RECOVERY,
    ),
}
WELL, DEGRADED = 0, 3


async def init(config: Config, options: argparse.Namespace) -> int:
    """Make everything that is missing; a second call changes nothing.

    Under a root that is kept elsewhere it ends with `root-away` until that has certified the keys.
    """
    make_passphrase(config)
    clock = SystemClock()
    if options.root_certificate is not None:
        await begin(config, options.root_certificate)
    async with open_cloud(config, clock=clock, create=True) as cloud:
        _write(config.folder / "root.der", cloud.desk.pki.root.der)
        authority = cloud.desk.pki.transport.certificate.public_bytes(Encoding.PEM)
        _write(config.folder / "transport-ca.pem", authority)
        for name, roles in OFFICERS.items():
            await _officer(config, cloud, name, roles)
    print(f"{config.folder}: the issuer is there")
    print("  root.der            the root certificate: whoever verifies receipts needs it")
    print("  transport-ca.pem    for gateways that enrol (cbdc-edge provision --cloud-ca)")
    print("Two administrators, each of whom decides nothing of weight without the other:")
    for name in OFFICERS:
        print(f"  officer-{name}.token  hand this to one person, and leave no copy here")
    print(f"Next: cbdc-cloud --folder {config.folder} run")
    return WELL


async def _officer(config: Config, cloud: Cloud, name: str, roles: tuple[Role, ...]) -> None:
    path = config.folder / f"officer-{name}.token"
    _write(path, new_token(secrets.token_bytes).encode())
    # After a power cut the token may be there and its officer not yet.
    token = path.read_text().strip()
    async with cloud.database.transaction() as connection:
        if await has_officer(connection, name):
            return
        await add_officer(
            connection,
            name=name,
            roles=frozenset(roles),
            token=token,
            actor="init",
            now_ms=cloud.clock.now_ms(),
        )


def _write(path: Path, content: bytes) -> None:
    if not path.exists():
        create_durably(path, content)


async def status(config: Config, options: argparse.Namespace) -> int:
    """Where all value is."""
    found = await Api(config).get("/statusz")
    if options.json:
        print(json.dumps(found, indent=2))
    for line in [] if options.json else [*map(account_text, found["currencies"]), root_text(found)]:
        print(line)
    return DEGRADED if any(line["difference"] for line in found["currencies"]) else WELL


def root_text(found: dict[str, Any]) -> str:
    """Where the root is, and until when it need not be fetched."""
    end = datetime.fromtimestamp(found["certificates_end_ms"] // 1_000, UTC)
    where = "is kept away" if found["root"] == "away" else "lies sealed in the database"
    return f"root: its key {where}; what it has certified lasts until {end:%Y-%m-%d}"


def account_text(line: dict[str, Any]) -> str:
    """One currency's account in a line of text."""
    parts = ("online", "offline", "in_transit", "suspense", "loss")
    currency = Currency(line["currency"])

    def text(name: str) -> str:
        return decimal_text(line[name], currency)

    sums = " + ".join(f"{name.replace('_', ' ')} {text(name)}" for name in parts)
    verdict = "adds up" if line["difference"] == 0 else f"is off by {text('difference')}"
    return f"{currency.code}: issued {text('issued')} = {sums}: {verdict}"


async def gateway_add(config: Config, options: argparse.Namespace) -> int:
    """A token for a new gateway."""
    body = {
        "name": options.name,
        "currency": options.currency,
        "tiers": options.tier or [0, 1, 2],
        "level": options.level,
        "pcr_policy": options.pcr_policy,
    }
    made = await _officers_api(config, options).post("/v1/issuer/gateways", body)
    create_durably(options.token_file, made["token"].encode())
    print(f"{options.token_file}: good for one gateway, for a week")
    if options.level != "tpm":
        print(f"its keys need not be proven: that they are in {options.level} is your word alone")
    return WELL


async def gateway_list(config: Config, options: argparse.Namespace) -> int:
    """All gateways."""
    found = await _officers_api(config, options).get("/v1/issuer/gateways")
    if options.json:
        print(json.dumps(found, indent=2))
        return WELL
    for line in found["gateways"]:
        print(f"{line['journal']}  {line['name']}  epoch {line['epoch']}  {line['state']}")
    return WELL


def _officers_api(config: Config, options: argparse.Namespace) -> Api:
    """Calls by the officer who is named, or by the first one while that token is still here."""
    return Api(config, options.officer_file or config.folder / "officer-first.token")


async def draft_supply(config: Config, options: argparse.Namespace) -> int:
    """Draft an issue or a burn."""
    body = {
        "draft_id": secrets.token_hex(32),
        "action": options.action,
        "wallet": options.wallet,
        "amount": options.amount,
        "reason": options.reason,
    }
    made = await Api(config, options.officer_file).post("/v1/issuer/supply", body)
    print(f"draft {made['draft_id']}: waits for another officer")
    return WELL


async def approve_supply(config: Config, options: argparse.Namespace) -> int:
    """Approve a draft."""
    path = f"/v1/issuer/supply/{options.draft}/approve"
    made = await Api(config, options.officer_file).post(path, {})
    amount = Money(made["amount"], Currency(made["currency"]))
    print(f"{made['action']} of {amount}: {made['state']}")
    return WELL


async def list_drafts(config: Config, options: argparse.Namespace) -> int:
    """Drafts that wait."""
    found = await Api(config, options.officer_file).get("/v1/issuer/supply")
    for line in found["drafts"]:
        amount = Money(line["amount"], Currency(line["currency"]))
        print(f"{line['draft_id']}  {line['action']}  {amount}  {line['reason']}")
    return WELL


async def make_token(config: Config, options: argparse.Namespace) -> int:
    """A token for whoever runs this, and the hash that the administrators need of it."""
    token = new_token(secrets.token_bytes)
    create_durably(options.token_file, token.encode())
    print(f"{options.token_file}: keep it to yourself; tell both administrators its hash")
    print(token_hash(token).hex())
    return WELL


async def draft_officer(config: Config, options: argparse.Namespace) -> int:
    """Draft an officer."""
    body = {
        "draft_id": secrets.token_hex(32),
        "name": options.name,
        "roles": options.role,
        "token_hash": options.token_hash,
    }
    made = await Api(config, options.officer_file).post("/v1/issuer/officers", body)
    print(f"draft {made['draft_id']}: waits for another administrator")
    return WELL


async def draft_disabling(config: Config, options: argparse.Namespace) -> int:
    """Draft that an officer may act no more."""
    body = {"draft_id": secrets.token_hex(32), "name": options.name}
    made = await Api(config, options.officer_file).post("/v1/issuer/officers/disable", body)
    print(f"draft {made['draft_id']}: waits for another administrator")
    return WELL


async def approve_officer(config: Config, options: argparse.Namespace) -> int:
    """Approve the draft of an officer."""
    path = f"/v1/issuer/officers/{options.draft}/approve"
    made = await Api(config, options.officer_file).post(path, {})
    print(_officer_text(made))
    return WELL


async def list_officers(config: Config, options: argparse.Namespace) -> int:
    """Officers, and drafts that wait."""
    found = await Api(config, options.officer_file).get("/v1/issuer/officers")
    for line in found["officers"]:
        print(_officer_text(line))
    for line in found["drafts"]:
        token = "" if line["disabled"] else f", token {line['token_hash']}"
        print(f"draft {line['draft_id']}: {_officer_text(line)}{token}")
    return WELL


def _officer_text(line: dict[str, Any]) -> str:
    may = "disabled" if line.get("disabled") else " ".join(line["roles"])
    return f"{line['name']}: {may}"


async def add_holder(config: Config, options: argparse.Namespace) -> int:
    """Open an online wallet and keep the holder's token in a file."""
    body = {"holder": options.name, "wallet": options.wallet, "currency": options.currency}
    made = await Api(config, options.officer_file).post("/v1/issuer/holders", body)
    create_durably(options.token_file, made["token"].encode())
    print(f"{made['wallet']} of {made['holder']}; its token is in {options.token_file}")
    return WELL


async def migrate_schema(config: Config, options: argparse.Namespace) -> int:
    """Opening the cloud migrates; the cloud must not run meanwhile."""
    async with open_cloud(config, clock=SystemClock()):
        print("the schema is up to date")
    return WELL


async def reconcile(config: Config, options: argparse.Namespace) -> int:
    """Journals as the reconciler holds them."""
    found = await _officers_api(config, options).get("/v1/issuer/journals")
    if options.json:
        print(json.dumps(found, indent=2))
        return WELL
    for line in found["journals"]:
        print(
            f"{line['journal']}  epoch {line['epoch']}  {line['size']:,} entries  {line['state']}"
        )
    return WELL
