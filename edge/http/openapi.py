"""OpenAPI 3.1 of the branch's interface, from the types that the handlers use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from edge.http.body import CBOR, JSON
from edge.http.idempotency import HEADER, KEY_LENGTH_MAX
from edge.http.octets import schema_hook
from edge.http.problem import CONTENT_TYPE, STATUSES, Problem
from edge.http.routes import Route
from edge.version import version

_PARAMETERS: dict[str, dict[str, Any]] = {
    "payment": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "request": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "wallet": {
        "type": "string",
        "pattern": "^(wal1[02-9ac-hj-np-z]{38}|WAL1[02-9AC-HJ-NP-Z]{38})$",
    },
    "pairing": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
_OCTET_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole description."""
    kinds = {kind for route in routes for kind in _kinds(route)} | {Problem}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(
        ordered, schema_hook=schema_hook, ref_template="#/components/schemas/{name}"
    )
    named = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Branch gateway",
            "version": version(),
            "description": "Payments in central bank money, with or without a network. Amounts "
            "are integers of minor units; binary objects are base64url without padding, or byte "
            f"strings when the body is {CBOR}. Clients authenticate by a TLS certificate.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"terminal": {"type": "mutualTLS"}},
        },
        "security": [{"terminal": []}],
    }


def _kinds(route: Route) -> list[type[Any]]:
    return [kind for kind in (route.body, *route.answers.values()) if kind is not None]


def _operation(route: Route, named: dict[type[Any], dict[str, Any]]) -> dict[str, Any]:
    text = (route.handler.__doc__ or "").strip()
    operation: dict[str, Any] = {
        "operationId": route.name if route.path != "/statusz" else "get_status",
        "summary": text.split("\n")[0],
        "responses": _responses(route, named),
    }
    parameters = _parameters(route)
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {kind: {"schema": named[route.body]} for kind in (JSON,)}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    found += [
        {
            "name": name.lstrip("*"),
            "in": "query",
            "required": name.startswith("*"),
            "schema": schema,
        }
        for name, schema in route.query.items()
    ]
    if route.key:
        schema = {
            "type": "string",
            "minLength": 1,
            "maxLength": KEY_LENGTH_MAX,
            "pattern": "^[!-~]+$",
        }
        found.append({"name": HEADER, "in": "header", "required": False, "schema": schema})
    return found


def _responses(route: Route, named: dict[type[Any], dict[str, Any]]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, kind in sorted(route.answers.items()):
        content: dict[str, Any] = _OCTET_STREAM
        if kind is not None:
            content = {form: {"schema": named[kind]} for form in (JSON, CBOR)}
        responses[str(status)] = {"description": _phrase(status), "content": content}
    problem = {"content": {CONTENT_TYPE: {"schema": named[Problem]}}}
    for status in sorted(set(STATUSES.values()) - route.answers.keys()):
        responses[str(status)] = {"description": _phrase(status), **problem}
    return responses


def _phrase(status: int) -> str:
    phrases = {
        200: "As it stands now",
        201: "Accepted and durable",
        202: "Taken note of",
        503: "Refusing for now",
    }
    return phrases.get(status, "Refused; `code` says why")
