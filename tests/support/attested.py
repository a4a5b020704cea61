"""What officers decide about gateways' hardware, at a cloud in the test's own process."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from cloud.http.octets import to_text
from hsm.pcr_policies import PCR_POLICIES
from tests.support.cloud_local import LocalCloud

FIRMWARE = PCR_POLICIES["firmware"]


def manifest_of(
    registers: Mapping[int, bytes], *, version: str = "1.0", security: int = 1
) -> bytes:
    """The manifest that is published with an image."""
    values = {str(register): value.hex() for register, value in registers.items()}
    return json.dumps(
        {
            "format": "cbdc-image-manifest-1",
            "image": "cbdc-edge",
            "hardware": "board-1",
            "version": version,
            "security_version": security,
            "pcrs": {"firmware": values},
        }
    ).encode()


class Trust:
    """Two officers who decide what proofs are held against."""

    def __init__(self, cloud: LocalCloud, first: str, second: str) -> None:
        self._cloud = cloud
        self.first = first
        self.second = second

    @classmethod
    async def of(cls, cloud: LocalCloud) -> Trust:
        """Two new officers with all roles."""
        return cls(cloud, await cloud.officer("drafter"), await cloud.officer("approver"))

    async def post(self, officer: str, path: str, body: Any) -> tuple[int, Any]:
        """A call by one of them."""
        async with self._cloud.api(officer) as api:
            return await api.post(path, body)

    async def approve(self, kind: str, file: bytes) -> str:
        """Draft by one and approved by the other; the draft's identity."""
        draft = secrets.token_hex(32)
        body = {"draft_id": draft, "kind": kind, "file": to_text(file)}
        status, made = await self.post(self.first, "/v1/issuer/trust", body)
        assert status == 201, made
        status, made = await self.post(self.second, f"/v1/issuer/trust/{draft}/approve", {})
        assert (status, made["state"]) == (201, "approved"), made
        return draft

    async def acts(self, action: str) -> list[dict[str, Any]]:
        """The audit log's lines of one kind."""
        async with self._cloud.api(self.first) as api:
            _, page = await api.get("/v1/issuer/audit")
        return [line for line in page["lines"] if line["action"] == action]
