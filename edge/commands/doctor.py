"""`doctor`: what an operator should look at before calling somebody."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from edge.authority import has_authority, server_certificate
from edge.commands.common import (
    DEGRADED,
    FAILED,
    WELL,
    Arguments,
    Subparsers,
    await_it,
    daemon,
)
from edge.config import Config, TokenConfig
from edge.errors import DaemonRefused, DaemonSilent
from edge.folder import Folder
from edge.http.hygiene import HygieneAnswer
from edge.http.local import NeighboursAnswer
from edge.http.types import GatewayAnswer
from edge.secret_input import PIN_VARIABLE
from edge.tamper import read_mark
from hsm.pcr_policies import PCR_POLICIES

FREE_BYTES_MIN = 512 * 1024 * 1024
CONNECT_S = 5.0


class Finding(msgspec.Struct, frozen=True):
    """One look: `well`, `look` for something to mind, or `bad`."""

    state: str
    text: str


class DoctorArguments(Arguments):
    """What `doctor` takes."""

    offline: bool


def add_commands(commands: Subparsers) -> None:
    """Add it to the parser."""
    parser = commands.add_parser("doctor", help="check folder, disk, token, daemon and cloud")
    parser.add_argument("--offline", action="store_true", help="do not try the network")
    parser.set_defaults(run=_doctor)


def _doctor(parsed: DoctorArguments, config: Config) -> int:
    folder = Folder(config.folder)
    findings = [_folder(folder.root), _disk(folder.root), _keys(folder), _certificates(folder)]
    findings += token_findings(config.token)
    findings.append(_switch(config))
    findings += await_it(_daemon(config))
    if not parsed.offline and config.sync.url is not None:
        findings.append(_cloud(config.sync.url))
    for finding in findings:
        print(f"{finding.state:<6}{finding.text}")
    states = {finding.state for finding in findings}
    if "bad" in states:
        return FAILED
    return DEGRADED if "look" in states else WELL


def _folder(root: Path) -> Finding:
    if not root.is_dir():
        return Finding("bad", f"{root} does not exist")
    if root.stat().st_mode & 0o077:
        return Finding("bad", f"{root} can be read by others: chmod 700")
    if not os.access(root, os.W_OK):
        return Finding("bad", f"{root} cannot be written")
    return Finding("well", f"{root} is for its user alone")


def _disk(root: Path) -> Finding:
    if not root.is_dir():
        return Finding("look", "no folder, no disk to look at")
    free = shutil.disk_usage(root).free
    state = "well" if free >= FREE_BYTES_MIN else "look"
    return Finding(state, f"{free // 1024 // 1024} MiB are free on its disk")


def _keys(folder: Folder) -> Finding:
    if not folder.store_key.is_file():
        return Finding("look", "not provisioned: there is no sealed store key")
    return Finding("well", "the store's key is there, sealed by the token")


def token_findings(token: TokenConfig) -> list[Finding]:
    """How a TPM is set up and whether it can be reached; other tokens answer when they open."""
    if token.driver != "tpm":
        return []
    pcrs = ", ".join(str(pcr) for pcr in PCR_POLICIES[token.pcr_policy])
    findings = [_tpm_device(token.tcti)]
    if pcrs:
        text = f"the TPM opens to the PCR policy {token.pcr_policy} ({pcrs}) alone"
        findings.append(Finding("well", text))
    else:
        text = "the PCR policy is none: the TPM opens to any firmware and system"
        findings.append(Finding("look", text))
    if token.pin_file is None and not os.environ.get(PIN_VARIABLE):
        text = "the TPM has no PIN: whoever starts this box, unchanged, can pay with it"
        findings.append(Finding("look", text))
    return findings


def _tpm_device(tcti: str) -> Finding:
    kind, _, place = tcti.partition(":")
    if kind != "device":
        return Finding("well", f"the TPM is reached by {tcti}")
    path = Path(place or "/dev/tpm0")
    if not path.exists():
        return Finding("bad", f"{path} is not there: switch the TPM on in the firmware's setup")
    if not os.access(path, os.R_OK | os.W_OK):
        return Finding("bad", f"{path} is closed to this user: add it to the group tss")
    return Finding("well", f"{path} can be opened")


def _certificates(folder: Folder) -> Finding:
    if not has_authority(folder):
        return Finding("look", "no certificates of the branch's network yet")
    until = server_certificate(folder).not_valid_after_utc
    return Finding("well", f"the server's certificate is good until {until:%Y-%m-%d}")


def _switch(config: Config) -> Finding:
    mark = read_mark(Folder(config.folder))
    if mark is not None:
        return Finding("bad", mark.sentence)
    if config.tamper.source == "none":
        return Finding("look", "no tamper switch is configured: nothing tells that the box opens")
    return Finding("well", f"the tamper switch has not tripped: {config.tamper.source}")


async def _daemon(config: Config) -> list[Finding]:
    client = daemon(config)
    try:
        status = await client.call("GET", "/status", GatewayAnswer)
        findings = _memory(await client.call("GET", "/hygiene", HygieneAnswer))
        findings += _next_door(await client.call("GET", "/neighbours", NeighboursAnswer))
    except (DaemonSilent, DaemonRefused) as error:
        return [Finding("look", f"the daemon is not running: {error.detail}")]
    if status.mode != "open":
        text = f"the daemon refuses payments: {status.mode} {status.cause or ''}"
        return [*findings, Finding("bad", text)]
    findings.append(Finding("well", f"the daemon takes payments; the cloud is {status.state}"))
    if status.clock != "sure":
        findings.append(Finding("look", "the clock is behind the newest signed time"))
    if status.counter_driver == "software":
        findings.append(
            Finding("look", "the counter is a file: a rolled-back disk is not detected by hardware")
        )
    elif status.counter_driver is not None:
        findings.append(Finding("well", f"the counter is in the hardware: {status.counter_driver}"))
    if status.offline_left_s is not None and status.offline_left_s < 86_400:
        findings.append(Finding("look", "less than a day is left to stay offline"))
    return findings


def _next_door(found: NeighboursAnswer) -> list[Finding]:
    """Whether the gateways next door answer, where some are configured."""
    findings = []
    for heard in found.neighbours:
        if heard.failure is not None:
            text = f"the neighbour {heard.url} does not answer: {heard.failure}"
            findings.append(Finding("look", text))
        elif heard.heard_ms:
            findings.append(Finding("well", f"the neighbour {heard.url} answers"))
    return findings


def _memory(found: HygieneAnswer) -> list[Finding]:
    """What keeps the secrets in the daemon's memory there."""
    if found.cores or found.dumpable:
        cores = Finding("look", "a crash of the daemon may write its keys into a core file")
    else:
        cores = Finding("well", "the daemon leaves no core file")
    locked = {
        "all": Finding("well", "no memory of the daemon goes to a swap disk"),
        "keys": Finding("look", "only the keys are kept off a swap disk: allow LimitMEMLOCK"),
        "nothing": Finding("bad", "keys may go to a swap disk: the limit of locked memory is 0"),
    }
    return [cores, locked[found.locked]]


def _cloud(url: str) -> Finding:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), CONNECT_S):
            return Finding("well", f"{parts.netloc} can be reached")
    except OSError as error:
        return Finding("look", f"{parts.netloc} cannot be reached: {error}")
