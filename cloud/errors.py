"""The root of the cloud's failures. Codes are stable: they reach clients and logs."""


class CloudError(Exception):
    """A failure of the cloud; `code` is lower-case-with-hyphens, `detail` is for people.

    An operation that is refused inside a database transaction raises, because that is what rolls
    the transaction back. The HTTP side maps each code to a status in one table.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class DatabaseError(CloudError):
    """PostgreSQL cannot be started, reached or migrated."""


class LedgerError(CloudError):
    """A posting that the ledger refuses; the surrounding transaction has to be rolled back."""


class IssuerError(CloudError):
    """An issuer's operation that is refused: supply, officers, keys or certificates."""


class WalletError(CloudError):
    """An operation on an online wallet that is refused."""


class ConfigError(CloudError):
    """The configuration is wrong; `detail` names the place."""
