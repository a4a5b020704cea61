"""`key ceremony`: the keys of a PKCS#11 token, made before two people.

With a terminal it asks; with --yes, --serial and two --witness it runs by itself, and the people
compare and sign afterwards.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType

from edge.ceremony import (
    WITNESSES,
    Note,
    Plan,
    comparison_text,
    drop_note,
    facts_text,
    fingerprint,
    new_plan,
    read_note,
    record_path,
    record_text,
    write_note,
    write_record,
)
from edge.commands.common import WELL, Arguments, Subparsers, await_it
from edge.config import Config
from edge.errors import ArgumentsWrong, CeremonyStopped
from edge.folder import Folder
from edge.gateway import hsm_config
from edge.provision import sole_right
from edge.secret_input import token_secret
from edge.tamper import refuse_tampered
from hsm.api import HsmError
from hsm.ceremony import Made, TokenFacts, look, make, remove
from hsm.open import TokenConfig as HsmConfig
from wallet.clock import SystemClock

DIGITS_COMPARED = 8


class CeremonyArguments(Arguments):
    """What `key ceremony` takes."""

    name: str
    epoch: int
    yes: bool
    serial: str | None
    witness: list[str]


def add_command(what: Subparsers) -> None:
    """Add it to the subcommands of `key`."""
    parser = what.add_parser(
        "ceremony",
        help="make the keys in a PKCS#11 token before two people, with a record to sign",
        description="Shows the token, makes the keys under labels with their purpose and epoch, "
        "checks that they cannot leave the token, and writes a record. Never touches other keys; "
        "broken off it leaves none.",
    )
    parser.add_argument("--name", default="journal", help="what the labels begin with")
    parser.add_argument("--epoch", type=int, default=1, help="the epoch in the labels")
    parser.add_argument("--serial", help="the serial of the token that is expected")
    parser.add_argument(
        "--witness", action="append", default=[], metavar="NAME", help="who is present: twice"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing, for scripts")
    parser.set_defaults(run=_ceremony)


def _ceremony(parsed: CeremonyArguments, config: Config) -> int:
    if not parsed.yes and not sys.stdin.isatty():
        raise ArgumentsWrong("nobody to ask: give --yes, --serial and two --witness")
    if parsed.yes and (parsed.serial is None or len(parsed.witness) != WITNESSES):
        raise ArgumentsWrong("--yes needs --serial and two --witness")
    folder = Folder(config.folder)
    refuse_tampered(folder)
    folder.prepare()
    with sole_right(folder), _stopping_in_order() as stop:
        _Ceremony(parsed, config, folder, stop).hold()
    return WELL


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Ceremony:
    """One ceremony, step by step as people see it."""

    def __init__(
        self, parsed: CeremonyArguments, config: Config, folder: Folder, stop: _Stop
    ) -> None:
        self._parsed = parsed
        self._stop = stop
        self._folder = folder
        self._plan = new_plan(parsed.name, parsed.epoch)
        self._settings = hsm_config(config.token, folder)
        self._secret = token_secret(config.token)

    def hold(self) -> None:
        """All of it. Raises: CeremonyStopped, ArgumentsWrong, HsmError, OSError."""
        facts = await_it(look(self._settings, secret=self._secret))
        print(facts_text(facts), end="", flush=True)
        self._check_record()
        self._clear_up(facts)
        self._check_token(facts)
        witnesses = self._witnesses()
        write_note(self._folder, Note(plan=self._plan, serial=facts.serial))
        done = False
        try:
            made = await_it(
                make(self._of(self._plan), secret=self._secret, key_id=self._plan.key_id)
            )
            self._stop.check()
            print(comparison_text(made), end="", flush=True)
            self._compare(made)
            self._record(facts, made, witnesses)
            done = True
        finally:
            if not done:
                self._take_back(self._plan)

    def _check_record(self) -> None:
        path = record_path(self._folder, self._plan)
        if path.exists():
            raise CeremonyStopped(f"{path} is the record of a ceremony for this name and epoch")

    def _clear_up(self, facts: TokenFacts) -> None:
        """A ceremony that was broken off in the middle: what it made is nobody's."""
        note = read_note(self._folder)
        if note is None:
            return
        if note.serial != facts.serial:
            raise CeremonyStopped(
                f"a ceremony on the token {note.serial} was broken off: put that one in first"
            )
        if record_path(self._folder, note.plan).exists():
            drop_note(self._folder)  # it was finished but for this
        else:
            self._take_back(note.plan)

    def _take_back(self, plan: Plan) -> None:
        """Raises: CeremonyStopped, when the next ceremony has to do it."""
        try:
            removed = await_it(remove(self._of(plan), secret=self._secret, key_id=plan.key_id))
        except HsmError as error:
            raise CeremonyStopped(
                f"what was made could not be removed ({error}): hold the ceremony again, which"
                " removes it"
            ) from error
        drop_note(self._folder)
        if removed:
            print(
                f"removed what a broken-off ceremony had made: {removed} objects", file=sys.stderr
            )

    def _check_token(self, facts: TokenFacts) -> None:
        serial = self._parsed.serial
        if serial is None:
            serial = self._asked(
                f"Type the serial of the token to make {self._plan.signing_label}: "
            )
        if serial != facts.serial:
            raise CeremonyStopped(f"the token's serial is {facts.serial}, not {serial}")

    def _witnesses(self) -> tuple[str, ...]:
        names = list(self._parsed.witness)
        while len(names) < WITNESSES and not self._parsed.yes:
            names.append(self._asked(f"Who is present, {len(names) + 1} of {WITNESSES}: "))
        if len({name.strip().casefold() for name in names} - {""}) != WITNESSES:
            raise CeremonyStopped("two people are present at a key ceremony, by their names")
        return tuple(name.strip() for name in names)

    def _compare(self, made: Made) -> None:
        if self._parsed.yes:
            return
        last = fingerprint(made)[-DIGITS_COMPARED:]
        typed = self._asked(
            f"Both compare the fingerprint; type its last {DIGITS_COMPARED} digits: "
        )
        if typed.lower() != last:
            raise CeremonyStopped("the fingerprint was not confirmed; nothing was kept")

    def _record(self, facts: TokenFacts, made: Made, witnesses: tuple[str, ...]) -> None:
        text = record_text(
            self._plan, facts, made, witnesses=witnesses, now_ms=SystemClock().now_ms()
        )
        path = write_record(self._folder, self._plan, text)
        drop_note(self._folder)
        print(f"the record, to be printed and signed: {path}")
        print("set in the configuration, under [token]:")
        print(f'key_label = "{self._plan.signing_label}"')
        print(f'sealing_label = "{self._plan.sealing_label}"')

    def _asked(self, question: str) -> str:
        try:
            return self._stop.ask(question).strip()
        except EOFError as error:
            raise CeremonyStopped("nobody answers") from error

    def _of(self, plan: Plan) -> HsmConfig:
        """The token's configuration with the labels of a plan."""
        return replace(
            self._settings, key_label=plan.signing_label, sealing_label=plan.sealing_label
        )


class _Stop:
    """What a signal asks for. It interrupts nothing but a question.

    An exception that is raised in the middle of a step could leave a lock taken, or be swallowed in
    the token's library: a step comes to its end, which has a timeout, and then it is looked at.
    """

    def __init__(self) -> None:
        self._asked = False
        self._asking = False

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler. Raises: KeyboardInterrupt while somebody is asked."""
        self._asked = True
        if self._asking:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raises: KeyboardInterrupt after a signal."""
        if self._asked:
            raise KeyboardInterrupt

    def ask(self, question: str) -> str:
        """A line that somebody types. Raises: KeyboardInterrupt, EOFError."""
        self._asking = True
        try:
            self.check()
            return input(question)
        finally:
            self._asking = False


@contextlib.contextmanager
def _stopping_in_order() -> Iterator[_Stop]:
    """A line that hangs up or a machine that shuts down ends it as Ctrl-C does: nothing is left."""
    stop = _Stop()
    before = {number: signal.signal(number, stop.hear) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
