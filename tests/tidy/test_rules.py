"""Each rule finds what breaks it and leaves alone what does not."""

import textwrap
from collections.abc import Callable

import pytest

from tests.tidy import drivers, errors, leftovers, money, places, sizes
from tests.tidy.finding import Finding, Source

Rule = Callable[[Source], list[Finding]]


def source(text: str, path: str = "wallet/protocol/example.py") -> Source:
    """A file of the project that never existed."""
    return Source(path=path, text=textwrap.dedent(text))


def function_of(lines: int) -> str:
    """A function with that many lines, its head included."""
    return "def f():\n" + "    x = 1\n" * (lines - 1)


# Skips, mocks and broad handlers stand here as texts that the rules must find; none of them runs.
BREAKING: list[tuple[Rule, str]] = [
    (sizes.long_files, "x = 1\n" * 401),
    (sizes.long_functions, function_of(71)),
    (sizes.long_functions, "class C:\n" + textwrap.indent(function_of(71), "    ")),
    (sizes.undocumented, "x = 1"),
    (sizes.undocumented, '"""Doc."""\ndef f(): pass'),
    (sizes.undocumented, '"""Doc."""\nclass C: pass'),
    (errors.broad_handlers, "try: f()\nexcept: pass"),
    (errors.broad_handlers, "try: f()\nexcept Exception: pass"),
    (errors.broad_handlers, "try: f()\nexcept (ValueError, builtins.BaseException): pass"),
    (errors.broad_handlers, "try: f()\nexcept* Exception: pass"),
    (errors.broad_handlers, "with contextlib.suppress(Exception): pass"),
    (errors.broad_handlers, "try: f()\nexcept Exception:  # noqa: BLE001\n    pass"),
    (errors.broad_handlers, "with suppress(ValueError, Exception): pass"),
    (money.floats_in_money_paths, "x = 0.5"),
    (money.floats_in_money_paths, "x = float(y)"),
    (money.floats_in_money_paths, "def f(x: float) -> int: ..."),
    (money.floats_in_money_paths, "x = y / 2"),
    (money.floats_in_money_paths, "x /= 2"),
    (money.floats_in_money_paths, "import decimal"),
    (money.floats_in_money_paths, "from decimal import Decimal"),
    (money.floats_named_as_money, "amount = 1.5"),
    (money.floats_named_as_money, "amount_minor: float"),
    (money.floats_named_as_money, "self.balance = total / 2"),
    (money.floats_named_as_money, "total_amount: int = float(text)"),
    (money.floats_named_as_money, "def f(*, amount_minor: float | None) -> None: ..."),
    (money.floats_named_as_money, "pay(amount=2.0)"),
    (money.clock_in_protocol, "x = datetime.datetime.now()"),
    (money.clock_in_protocol, "x = time.time()"),
    (drivers.strayed_drivers, "import sqlcipher3"),
    (drivers.strayed_drivers, "def f():\n    from web3.types import Wei"),
    (drivers.strayed_drivers, "import bleak.backends"),
    (drivers.strayed_drivers, "x = importlib.import_module('pkcs11')"),
    (leftovers.marks, "# TO" + "DO: later"),
    (leftovers.marks, "raise NotImplemented" + "Error"),
    (leftovers.switches_without_reason, "x = 1  # noqa"),
    (leftovers.switches_without_reason, "x = 1  # noqa: E501, F401"),
    (leftovers.switches_without_reason, "x = 1  # type: ignore[no-untyped-call]"),
    (leftovers.switches_without_reason, "x = 1  # pragma: no cover"),
    (leftovers.switches_without_reason, "x = 1  # pragma: no branch  # rare"),
    (leftovers.tests_that_do_not_test, "@pytest.mark.skipif(True)\ndef test_x(): ..."),
    (leftovers.tests_that_do_not_test, "def test_x(): pytest.skip('not today')"),
    (leftovers.tests_that_do_not_test, "from unittest.mock import AsyncMock"),
    (leftovers.tests_that_do_not_test, "def test_x(monkeypatch): monkeypatch.setattr(a, 'b', 1)"),
    (places.machine_places, "x = '/ho" + "me/somebody/project'"),
    (places.machine_places, "see https://py" + "pi.org/simple"),
    (places.machine_places, "curl https://registry.npm" + "js.org"),
    (places.loose_locks, "aiohttp==3.14.5\n"),
    (places.loose_locks, "aiohttp>=3 --hash=sha256:" + "0" * 64),
    (places.loose_locks, "--index-url https://example.invalid\n"),
    (places.loose_locks, "aiohttp @ https://example.invalid/a.whl --hash=sha256:" + "0" * 64),
]

FINE: list[tuple[Rule, str]] = [
    (sizes.long_files, "x = 1\n" * 400),
    (sizes.long_functions, function_of(70)),
    (sizes.undocumented, '"""Doc."""\ndef f():\n    """Doc."""\ndef _g(): pass'),
    (errors.broad_handlers, "try: f()\nexcept (ValueError, OSError): pass"),
    (errors.broad_handlers, "with contextlib.suppress(FileNotFoundError): pass"),
    (errors.broad_handlers, "try: f()\nexcept BaseException:\n    close()\n    raise"),
    (
        errors.broad_handlers,
        "try: f()\nexcept BaseException as e:  # noqa: BLE001 - it belongs to the caller\n    g(e)",
    ),
    (money.floats_in_money_paths, "x = y // 2\nz = folder / 'a.sql'\nw = folder / f'{x}.sql'"),
    (money.floats_named_as_money, "amount: int = 2\ntimeout_s = 0.5\namounting = 1.5"),
    (money.clock_in_protocol, "x = datetime.fromtimestamp(now_ms // 1000)"),
    (drivers.strayed_drivers, "import sqlite3\nfrom . import web3\nload.import_module('json')"),
    (leftovers.marks, "# What is to be done is done: a hacksaw."),
    (leftovers.switches_without_reason, "x = 1  # noqa: E501 - one line of the specification"),
    (leftovers.tests_that_do_not_test, "async def test_x(): await asyncio.sleep(0)"),
    (places.machine_places, "GET /v1/home/list and $HOME and /usr/lib/softhsm and {base}/root/x"),
    (places.loose_locks, "aiohttp==3.14.5 \\\n    --hash=sha256:" + "0" * 64 + "\n"),
]


@pytest.mark.parametrize(("rule", "text"), BREAKING)
def test_a_rule_finds_what_breaks_it(rule: Rule, text: str) -> None:
    assert rule(source(text))


@pytest.mark.parametrize(("rule", "text"), FINE)
def test_a_rule_leaves_alone_what_keeps_it(rule: Rule, text: str) -> None:
    assert rule(source(text)) == []


def test_a_finding_names_its_line() -> None:
    found = money.floats_in_money_paths(source("x = 1\ny = 0.5\n"))
    assert [str(finding) for finding in found] == [
        "wallet/protocol/example.py:2: the literal 0.5 where money is counted"
    ]


def test_a_test_case_does_not_sleep_but_may_poll_for_a_state() -> None:
    sleeping = "async def test_x(): await asyncio.sleep(0.1)"
    polling = "async def test_x():\n    while not ready(): await asyncio.sleep(0.1)"
    assert leftovers.tests_that_do_not_test(source(sleeping, "tests/unit/test_x.py"))
    assert leftovers.tests_that_do_not_test(source(polling, "tests/unit/test_x.py")) == []
    assert leftovers.tests_that_do_not_test(source(sleeping, "tests/support/waiting.py")) == []


def test_floats_are_free_outside_the_money_paths() -> None:
    assert money.floats_in_money_paths(source("x = 0.5", "sync/backoff.py")) == []
    assert money.clock_in_protocol(source("x = time.time()", "edge/main.py")) == []


@pytest.mark.parametrize(("driver", "place"), drivers.PLACES.items())
def test_a_driver_is_at_home_in_its_place(driver: str, place: str) -> None:
    text = f"import {driver}"
    assert drivers.strayed_drivers(source(text, f"{place}.py")) == []
    assert drivers.strayed_drivers(source(text, f"{place}/part.py")) == []
    assert drivers.strayed_drivers(source(text, f"{place}_other.py"))


PROJECT = {
    "dependencies": ["PyNaCl>=1.6", "msgspec"],
    "optional-dependencies": {"edge": ["apscheduler>=3.11,<4"], "dev": ["pytest[x]==9"]},
}
OWNERS = {"nacl": ["pynacl"], "apscheduler": ["APScheduler"], "pytest": ["pytest"]}


@pytest.mark.parametrize(
    ("text", "path", "fine"),
    [
        ("import nacl.bindings, json", "wallet/protocol/keys.py", True),
        ("from edge import main", "edge/cli.py", True),
        ("import apscheduler", "edge/schedule.py", True),
        ("import apscheduler", "cloud/main.py", False),
        ("import pytest", "edge/main.py", False),
        ("import unheard_of", "edge/main.py", False),
    ],
)
def test_a_room_has_the_packages_of_its_installation(text: str, path: str, fine: bool) -> None:
    found = drivers.undeclared(source(text, path), drivers.declared(PROJECT), OWNERS)
    assert bool(found) is not fine


def test_a_private_module_may_be_silent() -> None:
    assert sizes.undocumented(source("x = 1", "hsm/_tables.py")) == []
    assert sizes.undocumented(source("x = 1", "hsm/__init__.py"))


def test_the_top_holds_rooms_locks_and_dot_folders_only() -> None:
    known = ["hsm/api.py", "README.md", "requirements-edge.lock", ".ci/run"]
    assert sizes.strangers_at_the_top(known) == []
    assert sizes.strangers_at_the_top([*known, "utils/x.py", "notes.txt"]) == ["notes.txt", "utils"]


def test_two_errors_do_not_share_a_code() -> None:
    first = source("class Gone(Exception):\n    code = 'token-gone'\n", "hsm/api.py")
    second = source("class Code(StrEnum):\n    GONE: str = 'token-gone'\n", "wallet/codes.py")
    assert [finding.path for finding in errors.repeated_codes([first, second])] == [
        "hsm/api.py",
        "wallet/codes.py",
    ]
    assert errors.repeated_codes([first]) == []


def test_a_code_may_be_used_again_by_its_name() -> None:
    text = "class Code(StrEnum):\n    BUSY = 'busy'\nclass Full(Exception):\n    code = Code.BUSY\n"
    assert errors.repeated_codes([source(text)]) == []


def test_a_field_of_a_record_is_no_code() -> None:
    text = "class Problem(msgspec.Struct):\n    code: str = ''\n"
    assert errors.repeated_codes([source(text)]) == []
    assert errors.repeated_codes([source(text.replace("msgspec.Struct", "EdgeError"))])


@pytest.mark.parametrize("code", ["Token-Gone", "token_gone", "token-", ""])
def test_a_code_is_lower_case_with_hyphens(code: str) -> None:
    assert errors.repeated_codes([source(f"class E(Exception):\n    code = {code!r}\n")])
