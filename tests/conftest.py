"""What all tests share: how Hypothesis runs, and the seeds of simulations."""

import hypothesis
import pytest

# Two busy cores make single examples slow; a rule is wrong or right, not late.
hypothesis.settings.register_profile("quick", deadline=None, print_blob=True)
hypothesis.settings.register_profile("long", deadline=None, print_blob=True, max_examples=5_000)
hypothesis.settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that `make sim` sets, and that replay one failing seed."""
    group = parser.getgroup("simulation")
    group.addoption("--seeds", type=int, default=200, help="how many seeds each simulation runs")
    group.addoption("--first-seed", type=int, default=1, help="the seed to begin with")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `seed` once for each seed; its name tells which one failed.

    `one_seed_of(n)` marks a test whose seeds cost more than others': it runs one n-th of them.
    """
    if "seed" in metafunc.fixturenames:
        first, seeds = (metafunc.config.getoption(name) for name in ("--first-seed", "--seeds"))
        marker = metafunc.definition.get_closest_marker("one_seed_of")
        share = 1 if marker is None else marker.args[0]
        metafunc.parametrize("seed", range(first, first + max(1, seeds // share)))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: they may be fresh at each run, and workers compare names."""
    return argname if isinstance(val, bytes) else None
