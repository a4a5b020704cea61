"""Generated calls of every operation: answers are as described, and nothing fails inside."""

import asyncio
import itertools
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cloud.database import Database
from cloud.http.octets import to_text
from cloud.issuer.officers import Role
from tests.support.cloud_local import LocalCloud, NewGateway, local_cloud
from tests.support.cloud_process import Api
from tests.support.issuer import Key
from wallet.protocol.ids import journal_text, wallet_text

AnyCase = Case[Any]
EXAMPLES = 5
CHECKS = [
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
FAILED_INSIDE = 500
HOLDERS = "/v1/wallets"


class Caller:
    """Calls as other people's libraries make them, each with the token that its route asks for.

    `known`: names that exist. Every other call has them where generated ones would be, so that
    calls get past the door as well.
    """

    def __init__(self, cloud: LocalCloud, folder: Path, known: Mapping[str, str]) -> None:
        self.url = f"https://127.0.0.1:{cloud.ports['api_port']}"
        self.tokens: dict[str, str] = {}
        self._known = known
        self._turn = itertools.cycle((False, True))
        self._authority = folder / "ca.pem"
        self._authority.write_bytes(cloud.authority)

    def check(self, case: AnyCase, session: requests.Session) -> None:
        """One call and what has to hold of its answer."""
        if next(self._turn) and case.meta is not None and case.meta.generation.mode.is_positive:
            for place in (case.path_parameters, case.body):
                self._fill(place)
        token = self.tokens["holder" if case.operation.path.startswith(HOLDERS) else "officer"]
        response = case.call(
            base_url=self.url,
            session=session,
            headers={"Authorization": f"Bearer {token}"},
            verify=str(self._authority),
        )
        assert response.status_code < FAILED_INSIDE, response.text
        case.validate_response(response, checks=CHECKS)

    def _fill(self, place: object) -> None:
        if isinstance(place, dict):
            for name in place.keys() & self._known.keys():
                if isinstance(place[name], str):
                    place[name] = self._known[name]

    def run(self, description: dict[str, Any]) -> int:
        """All operations; gives how many calls were made."""
        schema = schemathesis.openapi.from_dict(description)
        calls = 0
        with requests.Session() as session:
            for result in schema.get_all_operations():
                assert isinstance(result, Ok), result
                for mode in GenerationMode:
                    calls += self._call(result.ok(), mode, session)
        return calls

    def _call(self, operation: Any, mode: GenerationMode, session: requests.Session) -> int:
        """Examples of one operation, as described or purposely not; gives how many there were."""
        calls = 0

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def call(case: AnyCase) -> None:
            nonlocal calls
            calls += 1
            self.check(case, session)

        try:
            call()
        except Unsatisfiable:
            # Nothing can be wrong in what takes nothing.
            assert mode is GenerationMode.NEGATIVE
        return calls


async def made(api: Api, path: str, body: dict[str, Any]) -> Any:
    """What a POST that must pass answers."""
    status, value = await api.post(path, body)
    assert status == 201, value
    return value


async def prepared(cloud: LocalCloud, folder: Path) -> Caller:
    """An issuer with a holder, value, a gateway and a wallet there."""
    gateway, key = NewGateway("one"), Key("wallet").public
    draft = secrets.token_hex(32)
    known = {"wallet": "alice-eur", "payee": "bob-eur", "target": "alice-chf", "currency": "EUR"}
    known |= {"receives": "alice-eur", "pays": "alice-chf", "draft": draft}
    known |= {"offline_wallet": wallet_text(key.id), "journal": journal_text(gateway.journal)}
    known |= {"key": to_text(key.cose_key)}
    caller = Caller(cloud, folder, known)
    caller.tokens["officer"] = await cloud.officer("first")
    async with cloud.api(caller.tokens["officer"]) as api:
        for name, currency in (("alice", "EUR"), ("bob", "EUR"), ("alice", "CHF")):
            body = {"holder": name, "wallet": f"{name}-{currency.lower()}", "currency": currency}
            token = (await made(api, "/v1/issuer/holders", body))["token"]
            if name == "alice":
                caller.tokens["holder"] = token
        supply = {"draft_id": draft, "action": "issue", "wallet": "alice-eur", "amount": 10**9}
        await made(api, "/v1/issuer/supply", {**supply, "reason": "test"})
        wanted = {"name": "one", "currency": "EUR", "tiers": [1], "level": "software"}
        enrolment = await made(api, "/v1/issuer/gateways", wanted)
        assert (await gateway.enrol(cloud, enrolment["token"]))[0] == 201
    async with cloud.api(await cloud.officer("second", Role.SUPPLY)) as api:
        await made(api, f"/v1/issuer/supply/{draft}/approve", {})
    return caller


@pytest.mark.timeout(300)
async def test_generated_calls_are_answered_as_described(
    database: Database, tmp_path: Path
) -> None:
    async with local_cloud(database, tmp_path, currencies=("EUR", "CHF")) as cloud:
        caller = await prepared(cloud, tmp_path)
        async with cloud.api() as api:
            _, description = await api.get("/v1/openapi.json")
            validate(description)
            plain = json.loads(json.dumps(description))
            assert await asyncio.to_thread(caller.run, plain) > 200
            assert (await api.get("/readyz"))[0] == 200
