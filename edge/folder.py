"""Where a gateway keeps its things: one folder, for its user alone."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hsm.files import make_folder


class Folder(msgspec.Struct, frozen=True):
    """The data folder. What is secret in it is sealed by the token or encrypted in the store."""

    root: Path

    def prepare(self) -> None:
        """Make the folders, mode 0700. Raises: OSError."""
        make_folder(self.root)
        make_folder(self.tls)

    @property
    def token(self) -> Path:
        """Key file of the software token, and the counter of any token without one."""
        return self.root / "token"

    @property
    def store(self) -> Path:
        """The encrypted database."""
        return self.root / "store.db"

    @property
    def store_key(self) -> Path:
        """The database's key, sealed by the token."""
        return self.root / "store.key.sealed"

    @property
    def next_store_key(self) -> Path:
        """The key that the database is being given, sealed by the token."""
        return self.root / "store.key.next.sealed"

    @property
    def resetting(self) -> Path:
        """The mark of a wipe that has begun: the store's key, set aside."""
        return self.root / "reset.begun"

    @property
    def tls(self) -> Path:
        """Certificates and keys of the branch's network."""
        return self.root / "tls"

    @property
    def socket(self) -> Path:
        """The local administration of a running daemon, mode 0600."""
        return self.root / "admin.sock"

    @property
    def ports(self) -> Path:
        """The ports that a running daemon listens on, as JSON."""
        return self.root / "ports.json"

    @property
    def audit(self) -> Path:
        """Notes for the audit trail that wait for the store to be opened."""
        return self.root / "audit"

    @property
    def tamper(self) -> Path:
        """The mark that the tamper switch left."""
        return self.root / "tamper.json"

    @property
    def tamper_ready(self) -> Path:
        """A mark to be put in its place when the disk is full."""
        return self.root / "tamper.ready"

    @property
    def provisioning(self) -> Path:
        """Lock of the command that provisions."""
        return self.root / "provision.lock"
