"""What can go wrong in an exchange, apart from what the wallet's and the HSM's rooms raise."""

from __future__ import annotations

import enum


class Code(enum.StrEnum):
    """Stable codes: the transport's, those of the exchange itself, and those of files."""

    UNREACHABLE = "transport-unreachable"
    TIMEOUT = "transport-timeout"
    TLS = "transport-tls"
    OTHER_PEER = "transport-other-peer"
    STATUS = "transport-status"
    ANSWER_TOO_LARGE = "transport-answer-too-large"
    CREDENTIALS = "transport-credentials"
    NOT_READY = "exchange-not-ready"
    FOREIGN_ANSWER = "exchange-foreign-answer"
    ACKNOWLEDGED_BEYOND = "exchange-acknowledged-beyond"
    NOTHING_TAKEN = "exchange-nothing-taken"
    PROBLEM = "exchange-problem"
    FOLDER_GONE = "courier-folder-gone"
    FOLDER_FULL = "courier-folder-full"
    FOLDER_CLOSED = "courier-folder-closed"
    FILE_CUT = "courier-file-cut"
    FILES_TOO_MANY = "courier-files-too-many"
    NO_FILES = "courier-no-files"
    UNKNOWN_REPORT = "courier-unknown-report"


class SyncError(Exception):
    """Root of this room's errors; `code` is stable, `detail` is for people."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class TransportError(SyncError):
    """The envelope did not get there, or no answer came back."""


class CourierError(SyncError):
    """A folder or stick that takes no more, or a file that says too little."""


class ProblemAnswered(SyncError):
    """The issuer answered that it kept nothing; `problem` is its refusal code."""

    def __init__(self, problem: str) -> None:
        super().__init__(Code.PROBLEM, problem)
        self.problem = problem
