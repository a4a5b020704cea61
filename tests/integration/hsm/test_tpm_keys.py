"""Keys in a TPM: what they do, what opens them, and that they never leave it."""

import asyncio
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tpm2_pytss import ESAPI, ESYS_TR

from hsm import tpm
from hsm.api import (
    SECRET_BYTES_MAX,
    Algorithm,
    CounterReplaced,
    HsmError,
    KeyMissing,
    PinWrong,
    PolicyRefused,
    SealBroken,
    TokenRefused,
)
from hsm.open import TokenConfig, create_token, open_token
from hsm.pcr_policies import PCR_POLICIES, PcrPolicy
from hsm.tpm import TpmConfig
from hsm.tpm.config import NV_INDEX_DEFAULT
from hsm.tpm.record import BEGINNING_NAME, RECORD_NAME, Record, Sealed, read_file, write_file
from tests.support.swtpm import Swtpm, clear, define, extend_pcr, undefine
from tests.support.tokens import closing, nothing_can_be_stored, verify


async def test_another_library_verifies_what_it_signs(chip: Swtpm, tmp_path: Path) -> None:
    async with closing(await tpm.create(chip.config(tmp_path / "token"))) as token:
        assert (token.driver, token.counter.driver) == ("tpm", "tpm")
        assert token.signer.algorithm is Algorithm.ES256
        # Half of all signatures are made with the high s, and some values are short.
        for number in range(200):
            message = b"%d" % number
            verify(token, message, await token.signer.sign(message))


async def test_the_keys_are_the_same_ones_when_they_are_opened_again(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)) as made:
        sealed = await made.sealer.seal(b"secret", label="store")
        with pytest.raises(TokenRefused, match="already"):
            await tpm.create(config)
    chip.restart()
    async with closing(await tpm.open_token(config)) as opened:
        assert opened.signer.public_key == made.signer.public_key
        assert await opened.sealer.unseal(sealed, label="store") == b"secret"
        verify(opened, b"message", await opened.signer.sign(b"message"))


async def test_a_folder_without_a_token_says_so(chip: Swtpm, tmp_path: Path) -> None:
    with pytest.raises(KeyMissing):
        await tpm.open_token(chip.config(tmp_path / "token"))


async def test_the_seal_opens_under_its_label_alone(chip: Swtpm, tmp_path: Path) -> None:
    async with closing(await tpm.create(chip.config(tmp_path / "token"))) as token:
        for secret in (b"", b"\x00", bytes(32), b"x" * SECRET_BYTES_MAX):
            sealed = await token.sealer.seal(secret, label="store")
            assert sealed[:1] == b"\x04"
            assert await token.sealer.unseal(sealed, label="store") == secret
            for broken, label in ((sealed, "hosted"), (sealed[:-1], "store"), (b"", "store")):
                with pytest.raises(SealBroken):
                    await token.sealer.unseal(broken, label=label)
            with pytest.raises(SealBroken):
                await token.sealer.unseal(b"\x01" + sealed[1:], label="store")
        with pytest.raises(TokenRefused, match="at most"):
            await token.sealer.seal(bytes(SECRET_BYTES_MAX + 1), label="store")


async def test_what_one_token_sealed_another_does_not_open(chip: Swtpm, tmp_path: Path) -> None:
    one = await tpm.create(chip.config(tmp_path / "one"))
    two = await tpm.create(chip.config(tmp_path / "two", nv_index=NV_INDEX_DEFAULT + 1))
    async with closing(one), closing(two):
        sealed = await one.sealer.seal(b"secret", label="store")
        with pytest.raises(SealBroken):
            await two.sealer.unseal(sealed, label="store")


async def test_two_tokens_of_one_process_take_turns_at_a_small_tpm(
    chip: Swtpm, tmp_path: Path
) -> None:
    one = await tpm.create(chip.config(tmp_path / "one"))
    two = await tpm.create(chip.config(tmp_path / "two", nv_index=NV_INDEX_DEFAULT + 1))
    async with closing(one), closing(two):
        for token in (one, two, one, two):
            verify(token, b"message", await token.signer.sign(b"message"))
            assert await token.counter.increment() > 0


@pytest.mark.parametrize(
    ("policy", "pcr", "opens"),
    [
        ("none", 0, True),
        ("firmware", 0, False),
        ("firmware", 7, False),
        ("firmware", 4, True),
        ("firmware-and-boot", 4, False),
        ("firmware-and-boot", 9, False),
        ("firmware-and-boot", 16, True),
    ],
)
@pytest.mark.parametrize("pin", [b"4711", b""])
async def test_the_named_policy_says_which_measurements_the_seal_opens_to(
    chip: Swtpm, tmp_path: Path, policy: PcrPolicy, pcr: int, opens: bool, pin: bytes
) -> None:
    config = chip.config(tmp_path / "token", pcr_policy=policy, pin=pin)
    async with closing(await tpm.create(config)):
        pass
    await chip.administer(extend_pcr(pcr))
    if opens:
        async with closing(await tpm.open_token(config)) as token:
            verify(token, b"message", await token.signer.sign(b"message"))
        return
    pcrs = ", ".join(map(str, PCR_POLICIES[policy]))
    with pytest.raises(PolicyRefused, match=f"the policy {policy} refuses: .*{pcrs}"):
        await tpm.open_token(config)
    # A start with the firmware that it was made under opens it again: nothing is lost.
    chip.restart()
    async with closing(await tpm.open_token(config)) as token:
        verify(token, b"message", await token.signer.sign(b"message"))


async def test_a_token_that_is_resealed_goes_through_an_update_with_its_keys(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    loose = replace(config, pcr_policy="none")
    async with closing(await tpm.create(config)) as token:
        sealed = await token.sealer.seal(b"secret", label="store")
        count = await token.counter.increment()
        await token.reseal("none")
        await token.probe()
    await chip.administer(extend_pcr(0))  # the update
    with pytest.raises(TokenRefused, match="PCR policy none"):
        await tpm.open_token(config)
    async with closing(await tpm.open_token(loose)) as token:
        await token.reseal("firmware")
    async with closing(await tpm.open_token(config)) as token:
        assert await token.sealer.unseal(sealed, label="store") == b"secret"
        assert await token.counter.read() == count
        with pytest.raises(TokenRefused, match="policies"):
            await token.reseal("any")  # type: ignore[arg-type] # as a program may say
        with nothing_can_be_stored(), pytest.raises(TokenRefused, match="not stored"):
            await token.reseal("none")
        await token.probe()
    await chip.administer(extend_pcr(0))
    with pytest.raises(PolicyRefused):
        await tpm.open_token(config)


@pytest.mark.parametrize(("made_with", "opened_with"), [(b"4711", b""), (b"", b"4711")])
async def test_a_token_is_opened_with_a_pin_exactly_when_it_was_made_with_one(
    chip: Swtpm, tmp_path: Path, made_with: bytes, opened_with: bytes
) -> None:
    config = chip.config(tmp_path / "token", pin=made_with)
    async with closing(await tpm.create(config)):
        pass
    with pytest.raises(PinWrong, match="PIN"):
        await tpm.open_token(replace(config, pin=opened_with))


@pytest.mark.parametrize(
    "change", [{"pcr_policy": "none"}, {"nv_index": NV_INDEX_DEFAULT + 1}], ids=str
)
async def test_settings_that_are_not_the_ones_of_the_token_are_refused(
    chip: Swtpm, tmp_path: Path, change: dict[str, object]
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)):
        pass
    with pytest.raises(TokenRefused, match="PCR policy firmware"):
        await tpm.open_token(replace(config, **change))  # type: ignore[arg-type] # any field at all


async def test_the_counter_counts_by_one_for_each_call_and_survives_a_power_cut(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)) as token:
        first = await token.counter.read()
        counted = await asyncio.gather(*(token.counter.increment() for _ in range(5)))
        assert sorted(counted) == [first + number for number in range(1, 6)]
        assert await token.counter.read() == await token.counter.read() == first + 5
    chip.restart()
    async with closing(await tpm.open_token(config)) as token:
        assert await token.counter.read() == first + 5


async def test_a_counter_that_is_removed_or_made_anew_is_not_believed(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)) as token:
        await chip.administer(undefine(config.nv_index))
        for call in (token.counter.read, token.counter.increment, token.probe):
            with pytest.raises(CounterReplaced, match="removed"):
                await call()
        async with closing(await tpm.create(chip.config(tmp_path / "other"))) as other:
            assert await other.counter.increment() > 1  # of the same name, under another secret
            with pytest.raises(CounterReplaced):
                await token.counter.read()


async def test_a_counter_that_was_removed_while_it_was_loaded_is_missed(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)) as token:
        await token.counter.read()

        def remove(esys: ESAPI) -> None:
            esys.nv_undefine_space(esys.tr_from_tpmpublic(config.nv_index))

        await token._line.run(lambda keys: remove(keys.esys))
        with pytest.raises(CounterReplaced):
            await token.counter.increment()
        # The rest of the token goes on; the journal decides what it does without a counter.
        verify(token, b"message", await token.signer.sign(b"message"))


async def test_a_copy_of_an_older_tpm_is_found_out_by_its_counter(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)) as token:
        chip.kill()
        shutil.copytree(chip.folder, tmp_path / "copy")
        chip.start()
        count = await token.counter.increment()
        chip.kill()
        shutil.rmtree(chip.folder)
        (tmp_path / "copy").rename(chip.folder)
        chip.start()
        with pytest.raises(CounterReplaced, match=f"fell from {count} to {count - 1}"):
            await token.counter.read()


async def test_an_index_that_is_taken_is_left_alone_and_named(chip: Swtpm, tmp_path: Path) -> None:
    config = chip.config(tmp_path / "token")
    await chip.administer(define(config.nv_index, b"something of others"))
    with pytest.raises(TokenRefused, match=f"{config.nv_index:#x} is taken"):
        await tpm.create(config)
    await chip.administer(undefine(config.nv_index))
    async with closing(await tpm.create(config)) as token:
        await token.probe()


async def test_a_creation_that_was_broken_off_goes_on_with_the_same_keys(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)) as token:
        count = await token.counter.read()
    (config.folder / BEGINNING_NAME).unlink()
    with pytest.raises(KeyMissing):
        await tpm.open_token(config)
    async with closing(await tpm.create(config)) as again:
        assert again.signer.public_key == token.signer.public_key
        assert await again.counter.read() == count


async def test_without_a_place_for_its_file_nothing_is_left_in_the_tpm(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    with nothing_can_be_stored(), pytest.raises(TokenRefused, match="not stored"):
        await tpm.create(config)
    await chip.administer(define(config.nv_index, b"free"))


async def test_a_damaged_file_says_so(chip: Swtpm, tmp_path: Path) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)):
        pass
    for name in (RECORD_NAME, BEGINNING_NAME):
        path = config.folder / name
        content = path.read_bytes()
        for broken in (b"", content[:-1], content.replace(b"tpm-", b"TPM-", 1)):
            path.write_bytes(broken)
            with pytest.raises(SealBroken, match="damaged"):
                await tpm.open_token(config)
        path.write_bytes(content)
    async with closing(await tpm.open_token(config)) as token:
        await token.probe()


async def test_a_file_of_another_form_or_none_that_can_be_read_says_so(
    chip: Swtpm, tmp_path: Path
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)):
        pass
    path = config.folder / RECORD_NAME
    line = path.read_bytes().split(b"\n")[0].replace(b"tpm-token-1", b"tpm-token-9")
    path.write_bytes(b"%s\n%s\n" % (line, hashlib.sha256(line).hexdigest().encode()))
    with pytest.raises(SealBroken, match="form"):
        await tpm.open_token(config)
    path.unlink()
    path.mkdir()
    with pytest.raises(TokenRefused, match="not readable"):
        await tpm.open_token(config)


@pytest.mark.parametrize("name", ["secret", "signing"])
@pytest.mark.parametrize("part", ["public", "private"])
@pytest.mark.parametrize("cut", [False, True])
async def test_a_blob_that_was_altered_is_not_loaded(
    chip: Swtpm, tmp_path: Path, name: str, part: str, cut: bool
) -> None:
    config = chip.config(tmp_path / "token")
    async with closing(await tpm.create(config)):
        pass
    path = config.folder / RECORD_NAME
    record = read_file(path, Record)
    assert record is not None
    sealed: Sealed = getattr(record, name)
    blob = bytearray(getattr(sealed, part))
    blob[-1] ^= 1
    altered = msgspec.structs.replace(sealed, **{part: bytes(blob[:-4] if cut else blob)})
    path.unlink()
    write_file(path, msgspec.structs.replace(record, **{name: altered}))
    with pytest.raises(HsmError) as refused:
        await tpm.open_token(config)
    assert refused.value.code in {"seal-broken", "token-refused"}


async def test_keys_of_another_token_of_the_same_tpm_do_not_pass_for_its_own(
    chip: Swtpm, tmp_path: Path
) -> None:
    one, two = chip.config(tmp_path / "one"), chip.config(tmp_path / "two", nv_index=0x01800007)
    for config in (one, two):
        async with closing(await tpm.create(config)):
            pass
    records = [read_file(config.folder / RECORD_NAME, Record) for config in (one, two)]
    assert records[0] is not None and records[1] is not None
    (one.folder / RECORD_NAME).unlink()
    write_file(
        one.folder / RECORD_NAME, msgspec.structs.replace(records[0], signing=records[1].signing)
    )
    with pytest.raises(TokenRefused):
        await tpm.open_token(one)


async def test_the_secret_of_the_owner_is_used_and_a_wrong_one_refused(
    chip: Swtpm, tmp_path: Path
) -> None:
    def take_ownership(esys: ESAPI) -> None:
        esys.hierarchy_change_auth(ESYS_TR.OWNER, b"owner")
        esys.hierarchy_change_auth(ESYS_TR.ENDORSEMENT, b"endorsement")

    await chip.administer(take_ownership)
    auths = {"owner_auth": b"owner", "endorsement_auth": b"endorsement"}
    config: TpmConfig = replace(chip.config(tmp_path / "token"), **auths)  # type: ignore[arg-type] # two of the bytes
    with pytest.raises(TokenRefused, match="hierarchy"):
        await tpm.create(replace(config, owner_auth=b"wrong"))
    async with closing(await tpm.create(config)) as token:
        await token.probe()
        await token.attester.keys()
    # A clearing takes the secrets too: they must not hide it.
    await chip.administer(clear)
    with pytest.raises(HsmError) as refused:
        await tpm.open_token(config)
    assert refused.value.code == "token-cleared"


async def test_the_tpm_driver_is_chosen_by_its_name(chip: Swtpm, tmp_path: Path) -> None:
    config = TokenConfig(
        driver="tpm", folder=tmp_path / "token", algorithm=Algorithm.ES256, tcti=chip.tcti
    )
    async with closing(await create_token(config, secret=b"4711")) as made:
        assert made.driver == "tpm"
    async with closing(await open_token(config, secret=b"4711")) as opened:
        assert opened.signer.public_key == made.signer.public_key
    with pytest.raises(TokenRefused, match="ES256"):
        await open_token(replace(config, algorithm=Algorithm.EDDSA), secret=b"4711")
