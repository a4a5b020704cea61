"""OpenAPI 3.1 of the API, from the types that the handlers use."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from cloud.http.answers import HEADER, KEY_LENGTH_MAX
from cloud.http.problem import CONTENT_TYPE, Problem
from cloud.http.routes import Route
from cloud.http.types import HealthAnswer, StatusAnswer

DISTRIBUTION = "cbdc-edge-gateway"
_JSON = "application/json"
_IDENTITY = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_NAME = {"type": "string", "minLength": 1, "maxLength": 64}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 999_999_999_999_999}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "closure": _IDENTITY,
    "draft": _IDENTITY,
    "finding": _COUNT,
    "evidence": _COUNT,
    "funding": _IDENTITY,
    "journal": _NAME,
    "quote": _IDENTITY,
    "statement": _IDENTITY,
    "wallet": _NAME,
    "wish": _COUNT,
    "list": {
        "type": "string",
        "enum": ["journals", "wallets", "categories", "sanctioned", "frozen", "certificates"],
    },
}
_WATCHED: dict[str, type[Any]] = {
    "/healthz": HealthAnswer,
    "/readyz": HealthAnswer,
    "/statusz": StatusAnswer,
}
_REFUSALS = (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 503)
_WATCH_REFUSALS = (429, 500, 503)


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole description."""
    kinds: set[type[Any]] = {Problem, *_WATCHED.values()}
    for route in routes:
        kinds |= {route.answer} if route.body is None else {route.answer, route.body}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(
        ordered, ref_template="#/components/schemas/{name}"
    )
    named = dict(zip(ordered, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, named)
    for path, kind in _WATCHED.items():
        content = {_JSON: {"schema": named[kind]}}
        responses: dict[str, Any] = {"200": {"description": _phrase(200), "content": content}}
        responses |= _refusals(_WATCH_REFUSALS, named)
        operation = {"operationId": path.strip("/"), "responses": responses, "security": []}
        paths[path] = {"get": operation}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Issuer",
            "version": _version(),
            "description": "Supply, gateways and online wallets. Amounts are integers of minor "
            "units; officers and holders authenticate by their tokens.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "officer": {"type": "http", "scheme": "bearer"},
                "holder": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(route: Route, named: dict[type[Any], dict[str, Any]]) -> dict[str, Any]:
    well = 200 if route.method == "GET" else 201
    responses: dict[str, Any] = {
        str(status): {
            "description": _phrase(status),
            "content": {_JSON: {"schema": named[route.answer]}},
        }
        for status in sorted({200, well})
    }
    responses |= _refusals(_REFUSALS, named)
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": (route.work.__doc__ or "").split("\n")[0],
        "responses": responses,
        "security": [{route.by: []}],
    }
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.body is not None:
        content = {_JSON: {"schema": named[route.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _refusals(statuses: Sequence[int], named: dict[type[Any], dict[str, Any]]) -> dict[str, Any]:
    problem = {"content": {CONTENT_TYPE: {"schema": named[Problem]}}}
    return {str(status): {"description": _phrase(status), **problem} for status in statuses}


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    found += [
        {"name": name, "in": "query", "required": False, "schema": _COUNT} for name in route.query
    ]
    if route.method == "POST":
        schema = {
            "type": "string",
            "minLength": 1,
            "maxLength": KEY_LENGTH_MAX,
            "pattern": "^[!-~]+$",
        }
        found.append({"name": HEADER, "in": "header", "required": False, "schema": schema})
    return found


def _phrase(status: int) -> str:
    phrases = {
        200: "As it stands now, or the stored answer of the same key",
        201: "Done and durable",
        429: "Too many requests: `Retry-After` says when to come again",
        503: "Not now: try again",
    }
    return phrases.get(status, "Refused; `code` says why")


def _version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "0+checkout"
