"""Everything that can go wrong with the store, each failure with a stable code."""


class StoreError(Exception):
    """The root of the store's failures; `detail` names no key and no content of a row."""

    code = "store-error"

    def __init__(self, detail: str) -> None:
        super().__init__(f"{self.code}: {detail}")
        self.detail = detail


class WrongKey(StoreError):
    """The file does not open with this key, or was never a store."""

    code = "store-wrong-key"


class Tampered(StoreError):
    """The key is right and the file is not what was written."""

    code = "store-tampered"


class DiskFull(StoreError):
    """No room for the transaction; it was rolled back and may be tried again."""

    code = "store-full"


class SchemaTooNew(StoreError):
    """A newer release wrote this store; this one must not touch it."""

    code = "store-schema-too-new"


class StoreClosed(StoreError):
    """The store was closed, or is closing."""

    code = "store-closed"


class StoreBusy(StoreError):
    """As much work is waiting as may wait; try again."""

    code = "store-busy"


class StoreInUse(StoreError):
    """Another process, or another part of this one, has the store open."""

    code = "store-in-use"


class OutOfOrder(StoreError):
    """Entries that would leave a gap in the journal or overwrite a part of it."""

    code = "store-out-of-order"


class Conflict(StoreError):
    """A row breaks a constraint of its table, such as a key that exists already."""

    code = "store-conflict"


class StoreFailed(StoreError):
    """Any other failure of the database engine or the file system."""

    code = "store-failed"
