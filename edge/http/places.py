"""Places for connections: so many in all, and so many for each holder."""

from __future__ import annotations


class Places:
    """Counts who holds how many. A holder is an address or a certificate."""

    def __init__(self, *, most: int, each: int) -> None:
        self._most = most
        self._each = each
        self._held: dict[str, int] = {}
        self.taken = 0

    def take(self, holder: str) -> bool:
        """Take a place; false when there is none, or none for this holder."""
        held = self._held.get(holder, 0)
        if self.taken >= self._most or held >= self._each:
            return False
        self._held[holder] = held + 1
        self.taken += 1
        return True

    def leave(self, holder: str) -> None:
        """Give one place back that `take` gave."""
        held = self._held.pop(holder) - 1
        if held:
            self._held[holder] = held
        self.taken -= 1
