"""Signatures checked by processes beside this one, since threads would wait for one another."""

from wallet.verifier.jobs import Job, check, holds, job_of
from wallet.verifier.verifier import Verifier, spare_processors

__all__ = ["Job", "Verifier", "check", "holds", "job_of", "spare_processors"]
