"""What proofs are held against comes into force by two officers, and goes by one."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cloud.attestation.trust_drafts import image_manifests, maker_roots
from cloud.database import Database
from cloud.http.octets import to_text
from cloud.issuer.officers import Role
from tests.support.attested import FIRMWARE, Trust, manifest_of
from tests.support.cloud_local import LocalCloud, local_cloud
from tests.support.cloud_process import running_cloud
from tests.support.maker import Maker

MAKER = Maker()
MANIFEST = manifest_of({register: bytes(32) for register in FIRMWARE})


@pytest.fixture
async def cloud(database: Database, tmp_path: Path) -> AsyncIterator[LocalCloud]:
    """A cloud."""
    async with local_cloud(database, tmp_path) as opened:
        yield opened


def draft_of(kind: str, file: bytes) -> dict[str, Any]:
    """The body of a draft."""
    return {"draft_id": secrets.token_hex(32), "kind": kind, "file": to_text(file)}


async def in_force(cloud: LocalCloud) -> tuple[list[bytes], list[str]]:
    """Roots, and names of images."""
    async with cloud.cloud.database.transaction() as c:
        images = [manifest.name for manifest in await image_manifests(c)]
        return await maker_roots(c), images


async def test_a_file_is_in_force_once_another_officer_approves(cloud: LocalCloud) -> None:
    trust = await Trust.of(cloud)
    body = draft_of("maker", MAKER.root)
    status, made = await trust.post(trust.first, "/v1/issuer/trust", body)
    assert (status, made["state"]) == (201, "draft")
    assert await trust.post(trust.first, "/v1/issuer/trust", body) == (201, made)
    other = {**body, "file": to_text(Maker().root)}
    status, problem = await trust.post(trust.first, "/v1/issuer/trust", other)
    assert (status, problem["code"]) == (409, "draft-conflict")
    assert await in_force(cloud) == ([], [])
    one = f"/v1/issuer/trust/{body['draft_id']}"
    for path, code in (("approve", "four-eyes"), ("withdraw", "draft-undecided")):
        status, problem = await trust.post(trust.first, f"{one}/{path}", {})
        assert problem["code"] == code, status
    for _ in range(2):
        status, made = await trust.post(trust.second, f"{one}/approve", {})
        assert (status, made["state"]) == (201, "approved")
    status, problem = await trust.post(trust.second, f"{one}/reject", {})
    assert (status, problem["code"]) == (409, "draft-decided")
    await trust.approve("image", MANIFEST)
    assert await in_force(cloud) == ([MAKER.root], ["cbdc-edge 1.0 (1) on board-1"])
    # Its own drafter may withdraw it, and it never comes back.
    for _ in range(2):
        status, made = await trust.post(trust.first, f"{one}/withdraw", {})
        assert (status, made["state"]) == (201, "withdrawn")
    status, problem = await trust.post(trust.second, f"{one}/approve", {})
    assert (status, problem["code"]) == (409, "draft-decided")
    assert (await in_force(cloud))[0] == []
    acts = [json.loads(act["detail"]) for act in await trust.acts("trust.withdraw")]
    assert [(act["kind"], act["sha256"]) for act in acts] == [("maker", made["sha256"])]


async def test_rejected_files_and_what_is_no_file_are_not_in_force(cloud: LocalCloud) -> None:
    trust = await Trust.of(cloud)
    body = draft_of("image", MANIFEST)
    await trust.post(trust.first, "/v1/issuer/trust", body)
    status, made = await trust.post(trust.second, f"/v1/issuer/trust/{body['draft_id']}/reject", {})
    assert (status, made["state"]) == (201, "rejected")
    for kind, file, code in (
        ("maker", MANIFEST, "maker-invalid"),
        ("image", MAKER.root, "manifest-invalid"),
    ):
        status, problem = await trust.post(trust.first, "/v1/issuer/trust", draft_of(kind, file))
        assert (status, problem["code"]) == (422, code)
    enroller = await cloud.officer("enroller", Role.ENROLMENT)
    status, problem = await trust.post(enroller, "/v1/issuer/trust", body)
    assert (status, problem["code"]) == (403, "role-missing")
    status, problem = await trust.post(
        trust.second, f"/v1/issuer/trust/{secrets.token_hex(32)}/approve", {}
    )
    assert (status, problem["code"]) == (404, "draft-unknown")
    async with cloud.api(trust.first) as api:
        assert (await api.get("/v1/issuer/trust"))[1] == {"drafts": []}
    assert await in_force(cloud) == ([], [])


async def test_the_database_holds_what_officers_decided(cloud: LocalCloud) -> None:
    trust = await Trust.of(cloud)
    draft = bytes.fromhex(await trust.approve("image", MANIFEST))
    for change in (
        "UPDATE trust_draft SET content = '\\x00' WHERE draft_id = $1",
        "UPDATE trust_draft SET state = 'draft', decided_by = NULL, decided_ms = NULL"
        " WHERE draft_id = $1",
        "UPDATE trust_draft SET decided_by = drafted_by WHERE draft_id = $1",
        "DELETE FROM trust_draft WHERE draft_id = $1",
    ):
        with pytest.raises(asyncpg.PostgresError) as refused:
            async with cloud.cloud.database.transaction() as c:
                await c.execute(change, draft)
        assert refused.value.sqlstate == "CB009"


@pytest.mark.timeout(300)
async def test_officers_decide_by_commands(tmp_path: Path) -> None:
    root, manifest = tmp_path / "root.der", tmp_path / "image.json"
    root.write_bytes(MAKER.root)
    manifest.write_bytes(MANIFEST)
    async with running_cloud(tmp_path / "cloud") as cloud:
        first, second = (str(cloud.officer_file(name)) for name in ("first", "second"))

        async def attestation(*words: str, by: str = first) -> str:
            code, out, errors = await cloud.command("attestation", *words, "--officer-file", by)
            assert code == 0, (out, errors)
            return out

        drafts = []
        for kind, file in (("maker", root), ("image", manifest)):
            drafts.append((await attestation(kind, str(file))).split()[1].rstrip(":"))
        assert (await attestation("files")).count(": draft, file SHA-256 ") == 2
        for draft in drafts:
            assert ": approved, " in await attestation("approve", draft, by=second)
        assert ": withdrawn, " in await attestation("withdraw", drafts[0])
        assert (await attestation("files")).startswith(f"{drafts[1]}  image cbdc-edge 1.0 (1)")
        assert await attestation("gateways") == ""
        assert json.loads(await attestation("gateways", "--json")) == {"gateways": []}
        token = str(tmp_path / "enrol.token")
        add = ("gateway", "add", "--name", "one", "--token-file", token)
        code, out, _ = await cloud.command(*add, "--level", "pkcs11")
        assert (code, "in pkcs11 is your word alone" in out) == (0, True)
        assert (await cloud.command(*add, "--level", "pkcs11", "--allow-software"))[0] == 2
