"""A signing key in a token is exchanged by the command: a new epoch, and the old key ends."""

from __future__ import annotations

import re
from pathlib import Path

from edge.config import TokenConfig
from edge.folder import Folder
from tests.integration.cloud.test_attested_enrolment import MAKER
from tests.integration.cloud.test_signing_key import token_file
from tests.support.branch_local import PASSPHRASE
from tests.support.ceremony import WITNESSES
from tests.support.hardware import NEXT_INDEX, moved, softhsm_keys, tpm_keys
from tests.support.recovery import ANNA, BERT, Box, Story, balance, exchanged, paid
from wallet.protocol.ids import journal_text
from wallet.protocol.receipt import NOTHING_REVOKED, verify_receipt
from wallet.protocol.refusals import Code, Refusal

ROTATE = ("key", "rotate", "signing")


async def ended(story: Story, box: Box) -> str:
    """The epoch's end by the command, its closure and statement; the successor's token file."""
    async with box.running():
        code, out, errors = await box.edge(*ROTATE, "--end")
        assert (code, "has ended" in out) == (0, True), errors
    path = await story.closed(box, cause="planned")
    await story.stated(path)
    return await token_file(story, path)


async def goes_on(story: Story, box: Box, keys: TokenConfig) -> None:
    """Under the new settings it pays with what it had, signs by another key, and is settled."""
    box.token = keys
    async with box.running() as branch:
        await exchanged(branch)
        state = branch.opened.journal.state
        assert (state.epoch, state.journal != box.journal) == (2, True)
        made = await paid(branch, ANNA, BERT, 250)
        anchor = story.cloud.cloud.desk.anchor
        seen = verify_receipt(
            made.receipt, made.entry, root=anchor, grace_s=0, revoked=NOTHING_REVOKED
        )
        assert (seen.journal, seen.epoch) == (state.journal, 2)
        assert seen.certificate.key.raw == branch.opened.token.signer.public_key
        await exchanged(branch)
        assert (balance(branch, ANNA), balance(branch, BERT)) == (750, 250)
        assert branch.opened.journal.acknowledged == state.size
    found = await story.where()
    assert (found.offline, found.loss, await story.offline_in(box, 1)) == (1_000, 0, 0)


async def old_one_ended(story: Story, box: Box, keys: TokenConfig) -> None:
    """The old folder under its old settings: it takes no payment, and the issuer no report."""
    kept = Box(story, box.folder / "epoch-1", keys)
    async with kept.running() as branch:
        order = branch.order(ANNA, BERT.public.id, 1)
        outcome = await branch.opened.journal.pay(order)
        assert isinstance(outcome, Refusal) and outcome.code is Code.WRONG_JOURNAL
        assert (await branch.daemon.sync_now())[0] == "failed"


async def test_a_key_in_a_pkcs11_token_is_exchanged_under_another_label(
    story: Story, tmp_path: Path
) -> None:
    with softhsm_keys(tmp_path / "hsm") as (hsm, keys):
        box = await story.funded(await story.gateway("north", keys=keys, level="pkcs11"))
        file = await ended(story, box)
        for label, word in ((), "--key-label"), (("--key-label", "first"), "another label"):
            code, _, errors = await box.edge(*ROTATE, "--token-file", file, *label)
            assert (code, word in errors, "edge-rotation-refused" in errors) == (1, True, True)
        arguments = (*ROTATE, "--token-file", file, "--key-label", "second")
        code, out, errors = await box.edge(*arguments)
        assert (code, 'key_label = "second"' in out) == (0, True), errors
        assert "sealing_label" not in out
        listed = hsm.tool("--list-objects", pin=PASSPHRASE.decode())
        assert {"first", "second"} == set(re.findall(r"label: +(\w+)", listed))
        await goes_on(story, box, moved(keys, key_label="second"))
        await old_one_ended(story, box, keys)


async def test_beside_a_sealing_key_of_its_own_label_the_signing_pair_alone_is_made(
    story: Story, tmp_path: Path
) -> None:
    with softhsm_keys(tmp_path / "hsm") as (hsm, keys):
        keys = moved(keys, sealing_label="seals")
        box = await story.funded(await story.gateway("north", keys=keys, level="pkcs11"))
        file = await ended(story, box)
        code, out, errors = await box.edge(*ROTATE, "--token-file", file, "--key-label", "second")
        assert (code, 'key_label = "second"' in out) == (0, True), errors
        listed = hsm.tool("--list-objects", pin=PASSPHRASE.decode())
        assert listed.count("Secret Key Object") == 1
        await goes_on(story, box, moved(keys, key_label="second"))


async def test_the_keys_of_a_ceremony_are_taken_and_no_others_are_made(
    story: Story, tmp_path: Path
) -> None:
    with softhsm_keys(tmp_path / "hsm") as (hsm, keys):
        box = await story.funded(await story.gateway("north", keys=keys, level="pkcs11"))
        file = await ended(story, box)
        held = ("key", "ceremony", "--yes", "--serial", hsm.serial(), "--epoch", "2", *WITNESSES)
        code, out, errors = await box.edge(*held)
        assert code == 0, errors
        shown = re.search(r"journal +(jnl1\w+)", out)
        assert shown is not None
        listed = hsm.tool("--list-objects", pin=PASSPHRASE.decode())
        labels = {
            "key_label": "journal-signing-epoch-2",
            "sealing_label": "journal-sealing-epoch-2",
        }
        code, out, errors = await box.edge(
            *(*ROTATE, "--token-file", file, "--key-label", labels["key_label"]),
            *("--sealing-label", labels["sealing_label"]),
        )
        assert code == 0, errors
        assert f'sealing_label = "{labels["sealing_label"]}"' in out
        assert hsm.tool("--list-objects", pin=PASSPHRASE.decode()) == listed
        await goes_on(story, box, moved(keys, **labels))
        async with box.running() as branch:
            assert journal_text(branch.opened.journal.state.journal) == shown[1]
        # The record stays with the keys that it is of.
        assert [path.name for path in Folder(box.folder).token.glob("ceremony-*")] == [
            "ceremony-journal-epoch-2.txt"
        ]


async def test_keys_of_a_label_that_nobody_made_for_this_are_refused_however_often(
    story: Story, tmp_path: Path
) -> None:
    with softhsm_keys(tmp_path / "hsm") as (_, keys):
        box = await story.funded(await story.gateway("north", keys=keys, level="pkcs11"))
        stranger = moved(keys, key_label="stranger")
        await story.gateway("other", keys=stranger, level="pkcs11")
        file = await ended(story, box)
        arguments = (*ROTATE, "--token-file", file, "--key-label", "stranger")
        for _ in range(2):
            code, _, errors = await box.edge(*arguments)
            assert (code, "another key_label" in errors) == (1, True), errors


async def test_a_key_in_a_tpm_is_exchanged_and_proven_again(story: Story, tmp_path: Path) -> None:
    async with tpm_keys(story, MAKER, tmp_path / "chip") as (_, trust, keys):
        box = await story.funded(await story.gateway("north", keys=keys, level="tpm"))
        file = await ended(story, box)
        code, _, errors = await box.edge(*ROTATE, "--token-file", file)
        assert (code, "--nv-index" in errors) == (1, True)
        code, _, errors = await box.edge(*ROTATE, "--token-file", file, "--nv-index", "x")
        assert code == 2
        index = f"{NEXT_INDEX:#010x}"
        arguments = (*ROTATE, "--token-file", file, "--nv-index", index)
        code, out, errors = await box.edge(*arguments)
        assert (code, f"nv_index = {index}" in out) == (0, True), errors
        await goes_on(story, box, moved(keys, nv_index=NEXT_INDEX))
        # The issuer asked the new keys for their proof, at the enrolment and in each report.
        async with story.cloud.api(trust.first) as api:
            _, page = await api.get("/v1/issuer/attestations")
        standings = {line["journal"]: line for line in page["gateways"]}
        async with box.running() as branch:
            journal = journal_text(branch.opened.journal.state.journal)
        proven = standings[journal]
        assert (proven["level"], proven["suspended"]) == ("tpm", False)
        assert proven["image"] == "cbdc-edge 1.0 (1) on board-1"
        await old_one_ended(story, box, keys)
