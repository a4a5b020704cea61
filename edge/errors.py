"""What can go wrong in the edge's programs, apart from refusals, which are values."""

from __future__ import annotations


class EdgeError(Exception):
    """Root of the edge's errors; `code` is stable, `detail` is for people and names no secret."""

    code = "edge-error"

    def __init__(self, detail: str) -> None:
        super().__init__(f"{self.code}: {detail}")
        self.detail = detail


class ConfigInvalid(EdgeError):
    """The configuration cannot be read, or says something that has no meaning."""

    code = "edge-config-invalid"


class ArgumentsWrong(EdgeError):
    """Arguments that cannot go together, or that have no meaning."""

    code = "edge-arguments-wrong"


class FileUnreadable(EdgeError):
    """A file that the command needs is missing, too large or not what it should be."""

    code = "edge-file-unreadable"


class JournalBroken(EdgeError):
    """An invariant of the journal broke: it has stopped, and so does the daemon.

    A start decides from what is durable.
    """

    code = "edge-journal-broken"


class GatewayTampered(EdgeError):
    """The tamper switch tripped: no key of this folder is opened any more."""

    code = "edge-tampered"


class NeighbourFailed(EdgeError):
    """A gateway next door did not answer, or said what no gateway says."""

    code = "edge-neighbour-failed"


class SwitchFailed(EdgeError):
    """The tamper switch that the configuration names cannot be had."""

    code = "edge-switch-failed"


class NotProvisioned(EdgeError):
    """The folder belongs to no gateway that was enrolled."""

    code = "edge-not-provisioned"


class AlreadyProvisioned(EdgeError):
    """The folder belongs to an enrolled gateway already."""

    code = "edge-already-provisioned"


class RestoreRefused(EdgeError):
    """A backup that may not come into this folder; the sentence says what to do instead."""

    code = "edge-restore-refused"


class CourierFailed(EdgeError):
    """A stick that takes or gives nothing; the sentence has the code of what happened."""

    code = "edge-courier-failed"


class ResetRefused(EdgeError):
    """A gateway that may not be wiped; the sentence says what is not safe yet."""

    code = "edge-reset-refused"


class RotationRefused(EdgeError):
    """Keys that may not be exchanged now; the sentence says what has to be done first."""

    code = "edge-rotation-refused"


class EnrolmentFailed(EdgeError):
    """The cloud refused the enrolment, or what it answered does not hold."""

    code = "edge-enrolment-failed"


class CeremonyStopped(EdgeError):
    """A key ceremony was not brought to its end; it left no keys, or says how to remove them."""

    code = "edge-ceremony-stopped"


class PairingRefused(EdgeError):
    """No pairing is open, the code is wrong, or somebody refused."""

    code = "edge-pairing-refused"


class DaemonSilent(EdgeError):
    """The daemon of this folder does not answer on its local socket."""

    code = "edge-daemon-silent"


class DaemonRefused(EdgeError):
    """The daemon answered that it will not."""

    code = "edge-daemon-refused"

    def __init__(self, detail: str, *, problem: str) -> None:
        super().__init__(detail)
        self.problem = problem


class GatewayUnreachable(EdgeError):
    """No gateway answers at the address, or what answers is another one."""

    code = "pos-gateway-unreachable"


class OrderRefused(EdgeError):
    """The gateway refused; `problem` is its code."""

    code = "pos-order-refused"

    def __init__(self, detail: str, *, problem: str) -> None:
        super().__init__(detail)
        self.problem = problem
