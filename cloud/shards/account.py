"""The account of all shards together: value between two of them is what their messages say."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from cloud.database import Connection
from cloud.ledger.conservation import Conservation, conservation_of
from cloud.shards.shards import Shards

# In one statement, so that all of it is of one moment. A message that is taken here and not yet in
# what was read where it came from counts as well: the sums hold whenever each shard was read.
_READ = """
    SELECT 'account' AS part, currency, kind, sum(balance)::bigint AS amount
    FROM ledger_account GROUP BY currency, kind
    UNION ALL SELECT 'carried', currency, '', sum(amount)::bigint FROM (
        SELECT currency, amount FROM shard_message WHERE amount <> 0
        UNION ALL SELECT currency, -amount FROM shard_taken WHERE amount <> 0
        UNION ALL SELECT currency, sent - taken FROM shard_sum) AS moved GROUP BY currency
"""


class ShardAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One shard: its balances, and by currency what its messages carry, less what it took."""

    lines: list[Conservation]
    carried: dict[str, int]


async def account_of(connection: Connection) -> ShardAccount:
    """The account of one shard, of one moment."""
    sums: dict[str, dict[str, int]] = {}
    carried: dict[str, int] = {}
    for row in await connection.fetch(_READ):
        if row["part"] == "carried":
            carried[row["currency"]] = row["amount"]
        else:
            sums.setdefault(row["currency"], {})[row["kind"]] = row["amount"]
    lines = [conservation_of(currency, by_kind) for currency, by_kind in sorted(sums.items())]
    return ShardAccount(lines=lines, carried=carried)


async def account_of_all(shards: Shards, connection: Connection) -> list[Conservation]:
    """Where all value is, by currency. `between` is what is carried, by the messages' own word: if
    the accounts said anything else, the difference would not be 0.

    `connection`: at the head. Raises: DatabaseError.
    """
    read = []
    for number, _ in shards:
        async with shards.beside(connection, number) as there:
            read.append(await account_of(there))
    return total_of(read)


def total_of(read: list[ShardAccount]) -> list[Conservation]:
    """The sums over all shards."""
    sums: dict[str, defaultdict[str, int]] = {}
    names = [name for name in Conservation.__struct_fields__ if name not in ("currency", "between")]
    for shard in read:
        for line in shard.lines:
            into = sums.setdefault(line.currency, defaultdict(int))
            for name in names:
                into[name] += getattr(line, name)
        for currency, amount in shard.carried.items():
            sums.setdefault(currency, defaultdict(int))["between"] += amount
    return [
        Conservation(currency=currency, **{name: by[name] for name in [*names, "between"]})
        for currency, by in sorted(sums.items())
    ]


async def waiting_of(connection: Connection) -> int:
    """How many messages of one shard are not known to be taken."""
    found: int = await connection.fetchval(
        "SELECT count(*) FROM shard_message WHERE taken_ms IS NULL"
    )
    return found
