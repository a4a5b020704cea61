"""`run`, `status`, `sync`, `report x`, `key show`: the gateway as a whole."""

from __future__ import annotations

import os

import msgspec

from edge.audit import Detail, Note, leave_note
from edge.commands import ceremony
from edge.commands.common import (
    DEGRADED,
    SEALED,
    WELL,
    Arguments,
    Subparsers,
    add_json,
    await_it,
    daemon,
    print_json,
    print_table,
)
from edge.commands.courier import add_courier
from edge.commands.rotation import add_rotation
from edge.config import Config
from edge.errors import DaemonRefused, DaemonSilent, NotProvisioned
from edge.folder import Folder
from edge.gateway import hsm_config
from edge.http.links import LineAnswer
from edge.http.local import SyncAnswer
from edge.http.octets import to_text
from edge.http.types import GatewayAnswer, ReportAnswer
from edge.http.wear import WearAnswer
from edge.main import run_daemon
from edge.moments import duration, moment
from edge.secret_input import token_secret
from edge.tamper import guarded, refuse_tampered
from edge.wear import WEARING
from hsm.api import KeyMissing
from hsm.memory import Secret, wipe
from hsm.open import open_token, reseal_token
from hsm.pcr_policies import PCR_POLICIES, PcrPolicy
from wallet.clock import SystemClock
from wallet.protocol.ids import journal_text
from wallet.protocol.keys import from_raw
from wallet.protocol.money import Currency, decimal_text

_CLOSED = {"sealed", "not-provisioned", "frozen-tamper"}


def add_commands(commands: Subparsers) -> None:
    """Add them to the parser."""
    parser = commands.add_parser("run", help="run the gateway until SIGTERM")
    parser.set_defaults(run=_run)
    parser = commands.add_parser("status", help="how the running gateway is")
    add_json(parser)
    parser.set_defaults(run=_status)
    parser = commands.add_parser("sync", help="synchronise with the cloud")
    what = parser.add_subparsers(metavar="WHAT", required=True)
    now = what.add_parser("now", help="exchange now and say what came of it")
    now.set_defaults(run=_sync_now)
    add_courier(what)
    parser = commands.add_parser("report", help="totals")
    what = parser.add_subparsers(metavar="WHAT", required=True)
    x = what.add_parser("x", help="totals of the epoch so far; closes nothing")
    add_json(x)
    x.set_defaults(run=_report_x)
    parser = commands.add_parser("key", help="the gateway's own keys")
    what = parser.add_subparsers(metavar="WHAT", required=True)
    show = what.add_parser("show", help="public key and journal identifier; opens the token")
    add_json(show)
    show.set_defaults(run=_key_show)
    ceremony.add_command(what)
    reseal = what.add_parser(
        "reseal",
        help="let a TPM open the keys to another PCR policy, and to this start's measurements",
        description="Before an update: --to none; after it: back to the policy. The gateway is "
        "stopped meanwhile, and the configuration changed with it.",
    )
    reseal.add_argument("--to", required=True, choices=PCR_POLICIES, metavar="POLICY")
    reseal.set_defaults(run=_key_reseal)
    add_rotation(what)


def _run(parsed: Arguments, config: Config) -> int:
    return run_daemon(config, secret=Secret.take(token_secret(config.token)))


def _status(parsed: Arguments, config: Config) -> int:
    status = await_it(daemon(config).call("GET", "/status", GatewayAnswer))
    if parsed.json:
        print_json(status)
    else:
        wear = await_it(_wear(config)) if status.counter_driver in WEARING else []
        for name, text in [*_lines(status), *wear]:
            print(f"{name:<14}{text}")
        await_it(_print_line(config))
    if status.mode in _CLOSED:
        return SEALED
    return WELL if status.mode == "open" and status.clock == "sure" else DEGRADED


async def _wear(config: Config) -> list[tuple[str, str]]:
    """A line when the counter wears out too soon."""
    found = await daemon(config).call("GET", "/wear", WearAnswer)
    return [] if found.warning is None else [("wear", found.warning)]


async def _print_line(config: Config) -> None:
    """What the line to the cloud is doing, and what it costs."""
    try:
        line = await daemon(config).call("GET", "/line", LineAnswer)
    except DaemonRefused:
        # A gateway that is closed has none.
        return
    for name, text in line_texts(line):
        print(f"{name:<14}{text}")


def line_texts(line: LineAnswer) -> list[tuple[str, str]]:
    """Name and text of each thing that is said of the line."""
    texts = [("line", f"{line.state} on {line.link} ({line.kind}), {line.failures} failures")]
    if line.state == "captive":
        texts.append(("", "somebody else answers in the cloud's place: a portal, or a name server"))
    left = "" if line.day_bytes_left is None else f", {line.day_bytes_left} left"
    texts.append(("day", f"{line.day_bytes} bytes{left}; segments of {line.segment_bytes}"))
    if line.probe_day_bytes_left is not None:
        probes = f"{line.probe_day_bytes} bytes, {line.probe_day_bytes_left} left"
        texts.append(("", f"of it for probes: {probes}"))
    if line.held_s:
        texts.append(("", f"the day's budget holds it back for {duration(line.held_s)}"))
    for one in line.counted:
        text = f"{one.link} {one.purpose}: {one.sent} sent, {one.received} received"
        texts.append(("bytes", text))
    return texts


def _lines(status: GatewayAnswer) -> list[tuple[str, str]]:
    lines = [("mode", status.mode), ("version", status.version)]
    if status.cause:
        lines.append(("cause", status.cause))
    if status.id is None or status.currency is None:
        return lines
    currency = Currency(status.currency)
    lines += [
        ("gateway", f"{status.id}, epoch {status.epoch}"),
        ("cloud", f"{status.state}; settled {moment(status.settled_ms)}"),
        ("may stay", duration(status.offline_left_s) + " offline"),
        ("journal", f"{status.size} entries, {status.acknowledged} held by the issuer"),
        ("exposure", f"{decimal_text(status.exposure or 0, currency)} {currency.code} unsettled"),
        (
            "rollback",
            f"could hide {decimal_text(status.window_exposure or 0, currency)} {currency.code}",
        ),
        ("wallets", str(status.wallets)),
        ("policy", f"{status.policy_sequence}, {duration(status.policy_left_s)} left"),
        ("certificate", f"{duration(status.certificate_left_s)} left"),
        ("clock", str(status.clock)),
        ("counter", f"{status.counter}, kept by: {status.counter_driver}"),
    ]
    lines += [
        ("list", f"{held.list} {held.sequence}, {duration(held.age_s)} old")
        for held in status.lists
    ]
    return lines


def _sync_now(parsed: Arguments, config: Config) -> int:
    done = await_it(daemon(config).call("POST", "/sync", SyncAnswer, body={}))
    print(f"{done.result}{': ' + done.detail if done.detail else ''}")
    print(f"the issuer holds {done.acknowledged} entries")
    return WELL if done.result == "completed" else DEGRADED


def _report_x(parsed: Arguments, config: Config) -> int:
    report = await_it(daemon(config).call("GET", "/reports/x", ReportAnswer))
    if parsed.json:
        print_json(report)
        return WELL
    currency = Currency(report.currency)
    print(f"X report of {report.journal}, epoch {report.epoch}: {report.size} entries")
    head = ("kind", "count", "amount", "final", "provisional", "rejected")
    rows = []
    for line in report.lines:
        amounts = (line.amount, line.final, line.provisional, line.rejected)
        texts = [decimal_text(amount, currency) for amount in amounts]
        rows.append((line.kind, str(line.count), *texts))
    print_table(head, rows)
    print(f"amounts in {currency.code}")
    return WELL


class ResealArguments(Arguments):
    """What `key reseal` takes."""

    to: PcrPolicy


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """The public side of the gateway's key."""

    journal: str
    algorithm: str
    public_key: str
    driver: str
    counter: str


def _key_show(parsed: Arguments, config: Config) -> int:
    view = await_it(_read_key(config))
    if parsed.json:
        print_json(view)
    else:
        for name, text in msgspec.structs.asdict(view).items():
            print(f"{name:<12}{text}")
    return WELL


async def _read_key(config: Config) -> KeyView:
    refuse_tampered(Folder(config.folder))
    settings = hsm_config(config.token, Folder(config.folder))
    secret = token_secret(config.token)
    try:
        token = await open_token(settings, secret=secret)
    except KeyMissing as error:
        raise NotProvisioned(f"{config.folder}: {error}; `cbdc-edge provision` makes it") from error
    finally:
        wipe(secret)
    try:
        key = from_raw(int(token.signer.algorithm), token.signer.public_key)
        details: dict[str, Detail] = {"token": "opened", "user": os.getuid()}
        note = Note(time_ms=SystemClock().now_ms(), action="technician key show", details=details)
        leave_note(Folder(config.folder).audit, note)
        return KeyView(
            journal=journal_text(key.id),
            algorithm=token.signer.algorithm.name.lower(),
            public_key=to_text(key.raw),
            driver=token.driver,
            counter=token.counter.driver,
        )
    finally:
        await token.close()


def _key_reseal(parsed: ResealArguments, config: Config) -> int:
    if await_it(_runs(config)):
        raise DaemonRefused("stop the gateway first: it holds the token", problem="running")
    with guarded(config, SystemClock()):
        settings = hsm_config(config.token, Folder(config.folder))
        secret = token_secret(config.token)
        await_it(reseal_token(settings, secret=secret, policy=parsed.to))
    print(f'the TPM opens to the policy {parsed.to} now: set pcr_policy = "{parsed.to}"')
    return WELL


async def _runs(config: Config) -> bool:
    try:
        await daemon(config).call("GET", "/status", GatewayAnswer)
    except DaemonSilent:
        return False
    return True
