"""The house rules that no other tool holds. Each names the places that break it."""

import importlib.metadata
import tomllib
from collections.abc import Callable, Iterable

import pytest

from tests.tidy import drivers, errors, leftovers, money, places, sizes
from tests.tidy.finding import ROOMS, ROOT, Finding, Source, project_paths, read_sources

DATA = ("tests/vectors/data", "tests/fuzz/corpus", "bench/data")


@pytest.fixture(scope="module")
def texts() -> list[Source]:
    """Every text that people wrote; data of others is left as it came."""
    return [source for source in read_sources() if not source.within(*DATA)]


@pytest.fixture(scope="module")
def modules(texts: list[Source]) -> list[Source]:
    """Every Python file."""
    return [source for source in texts if source.path.endswith(".py")]


@pytest.fixture(scope="module")
def shipped(modules: list[Source]) -> list[Source]:
    """Every Python file of the rooms."""
    return [source for source in modules if source.within(*ROOMS)]


def complain(findings: Iterable[Finding]) -> None:
    """Fail with one line for each place."""
    lines = [str(finding) for finding in findings]
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


def each(rule: Callable[[Source], list[Finding]], sources: list[Source]) -> None:
    """Hold one rule against every source."""
    complain(finding for source in sources for finding in rule(source))


def test_no_python_file_is_longer_than_the_ceiling(modules: list[Source]) -> None:
    each(sizes.long_files, modules)


def test_no_function_outside_the_tests_is_longer_than_the_ceiling(modules: list[Source]) -> None:
    each(sizes.long_functions, [source for source in modules if not source.is_test])


def test_public_modules_classes_and_functions_are_documented(modules: list[Source]) -> None:
    each(sizes.undocumented, [source for source in modules if not source.is_test])


def test_only_the_rooms_of_the_house_stand_at_the_top() -> None:
    assert sizes.strangers_at_the_top(project_paths()) == []


def test_an_error_code_is_written_once(shipped: list[Source]) -> None:
    complain(errors.repeated_codes(shipped))


def test_every_handler_names_what_it_handles(modules: list[Source]) -> None:
    each(errors.broad_handlers, modules)


def test_money_is_counted_without_floats(shipped: list[Source]) -> None:
    each(money.floats_in_money_paths, shipped)


def test_nothing_named_as_money_is_a_float(modules: list[Source]) -> None:
    each(money.floats_named_as_money, modules)


def test_the_protocol_reads_no_clock(shipped: list[Source]) -> None:
    each(money.clock_in_protocol, shipped)


def test_each_driver_is_imported_in_its_place_alone(shipped: list[Source]) -> None:
    each(drivers.strayed_drivers, shipped)


def test_a_room_imports_only_the_packages_that_its_installation_brings(
    shipped: list[Source],
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = drivers.declared(project)
    owners = importlib.metadata.packages_distributions()
    each(lambda source: drivers.undeclared(source, packages, owners), shipped)


def test_nothing_is_left_to_do(texts: list[Source]) -> None:
    each(leftovers.marks, texts)


def test_no_check_is_switched_off_without_a_reason(modules: list[Source]) -> None:
    each(leftovers.switches_without_reason, modules)


def test_every_test_runs_real_parts_and_waits_for_states(modules: list[Source]) -> None:
    each(leftovers.tests_that_do_not_test, [source for source in modules if source.is_test])


def test_no_file_names_a_machine_or_a_registry(texts: list[Source]) -> None:
    each(places.machine_places, texts)


def test_the_lock_pins_every_package_by_hash(texts: list[Source]) -> None:
    locks = [source for source in texts if source.path.endswith(".lock")]
    assert locks
    each(places.loose_locks, locks)
