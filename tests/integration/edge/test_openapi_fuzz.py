"""Generated calls of every operation: answers are as described, and nothing fails inside."""

import asyncio
import json
from pathlib import Path
from typing import Any

import hypothesis
import requests
import schemathesis
from schemathesis import Case
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from edge.pos.terminal import Terminal
from tests.support.branch_local import Branch, Http

AnyCase = Case[Any]
EXAMPLES = 12
CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]
STREAMS = {"/v1/events"}


class Caller:
    """Calls as other people's libraries make them, with the terminal's certificate."""

    def __init__(self, terminal: Terminal, folder: Path) -> None:
        self.url = terminal.url
        self.files = [folder / name for name in ("till.crt", "till.key", "ca.crt")]
        texts = (terminal.certificate, terminal.key, terminal.authority)
        for path, text in zip(self.files, texts, strict=True):
            path.write_text(text)

    def check(self, case: AnyCase, session: requests.Session) -> None:
        """One call and what has to hold of its answer."""
        certificate, key, authority = map(str, self.files)
        response = case.call(
            base_url=self.url, session=session, cert=(certificate, key), verify=authority
        )
        assert response.status_code != 500, response.text
        case.validate_response(response, checks=CHECKS)

    def run(self, description: dict[str, Any]) -> int:
        """All operations; gives how many calls were made."""
        schema = schemathesis.openapi.from_dict(description)
        calls = 0
        with requests.Session() as session:
            for result in schema.get_all_operations():
                assert isinstance(result, Ok), result
                operation = result.ok()
                if operation.path in STREAMS:
                    continue

                @hypothesis.settings(
                    max_examples=EXAMPLES,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    suppress_health_check=list(hypothesis.HealthCheck),
                )
                @hypothesis.given(case=operation.as_strategy())
                def call(case: AnyCase) -> None:
                    nonlocal calls
                    calls += 1
                    self.check(case, session)

                call()
        return calls


async def test_generated_calls_are_answered_as_described(
    branch: Branch, http: Http, tmp_path: Path
) -> None:
    _, description = await http.get("/v1/openapi.json")
    caller = Caller(http.client.terminal, tmp_path)
    assert await asyncio.to_thread(caller.run, json.loads(json.dumps(description))) > 50
    assert (await http.get("/readyz"))[0] == 200
