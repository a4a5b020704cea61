"""Reads the bytes of TPM 2.0 structures: big-endian, sized, and not one byte more."""

from hsm.attestation.errors import AttestationInvalid

# The longest structure that is read here is a statement with its PCR selection: some 200 bytes.
STRUCTURE_BYTES_MAX = 2048


class Reader:
    """Takes one field after another.

    Raises:
        AttestationInvalid: a field is cut short, too long, or something follows the last one.
    """

    def __init__(self, raw: bytes) -> None:
        if len(raw) > STRUCTURE_BYTES_MAX:
            raise AttestationInvalid("a structure is too long")
        self._raw = raw
        self._at = 0

    def take(self, count: int) -> bytes:
        """So many bytes."""
        taken = self._raw[self._at : self._at + count]
        if len(taken) != count:
            raise AttestationInvalid("a structure is cut short")
        self._at += count
        return taken

    def integer(self, octets: int) -> int:
        """An unsigned integer of so many octets."""
        return int.from_bytes(self.take(octets))

    def sized(self, octets_max: int) -> bytes:
        """A TPM2B: its size in two octets, then that many bytes."""
        size = self.integer(2)
        if size > octets_max:
            raise AttestationInvalid("a field is too long")
        return self.take(size)

    def expect(self, octets: int, value: int, what: str) -> None:
        """An integer that can only be this one."""
        if self.integer(octets) != value:
            raise AttestationInvalid(f"{what} is not the expected one")

    def end(self) -> None:
        """Nothing follows."""
        if self._at != len(self._raw):
            raise AttestationInvalid("a structure has bytes to spare")
