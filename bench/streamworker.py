"""`python -m bench.streamworker`: one worker of the bench, as `cbdc-cloud worker` is one.

It stands in another process than the front, with keys of the bench's own issuer instead of those
that a cloud has in its database.
"""

from __future__ import annotations

import argparse
import asyncio
import signal

import uvloop
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bench.reconciler import Signing
from cloud.clock import SystemClock
from cloud.config import DatabaseConfig
from cloud.database import Database
from cloud.ingest.members import Members
from cloud.ingest.worker import Worker
from cloud.reconciler.reconciler import Reconciler
from cloud.stream.jetstream import JetStream
from cloud.stream.settings import StreamConfig
from cloud.streaming import process_name
from sync.exchange import open_up
from tests.support.live_issuer import LiveIssuer
from wallet.memory import collect_seldom
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.envelope import VerifiedUp
from wallet.protocol.sealed import short_id

READY = "ready"


class BenchOpening:
    """Opens reports that are sealed to the bench's key."""

    def __init__(self, seed: bytes, anchor: TrustAnchor) -> None:
        private = X25519PrivateKey.from_private_bytes(seed)
        self.recipient = private.public_key().public_bytes_raw()
        self._keys = {short_id(self.recipient): private}
        self._anchor = anchor

    async def open(self, sealed: bytes) -> VerifiedUp:
        """See `Opening`."""
        return await asyncio.to_thread(open_up, sealed, keys=self._keys, root=self._anchor)


def stream_config(url: str) -> StreamConfig:
    """The stream of the bench."""
    return StreamConfig(servers=(url,), partitions=16, outcome_wait_s=60)


async def work(dsn: str, url: str, root: bytes, seed: bytes, helpers: int) -> None:
    """Until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    anchor, issuer = TrustAnchor(root), LiveIssuer()
    database = await Database.connect(dsn, config=DatabaseConfig())
    stream = await JetStream.connect(stream_config(url))
    reconciler = Reconciler(database, anchor=anchor, signing=Signing(issuer), workers=helpers)
    members = Members(stream, name=process_name())
    worker = Worker(
        stream,
        reconciler,
        BenchOpening(seed, anchor),
        clock=SystemClock(),
        partitions=stream_config(url).partitions,
        sharing=members,
    )
    async with members.meeting():
        working = asyncio.create_task(worker.run())
        collect_seldom()
        print(READY, flush=True)
        await stopping.wait()
        working.cancel()
        await asyncio.wait([working])
    await stream.close()
    await reconciler.close()
    await database.close()


def main() -> None:
    """Arguments are for the bench alone."""
    parser = argparse.ArgumentParser(prog="bench.streamworker", description=__doc__)
    for name in ("dsn", "url", "root", "seed"):
        parser.add_argument(name)
    parser.add_argument("helpers", type=int)
    options = parser.parse_args()
    root, seed = bytes.fromhex(options.root), bytes.fromhex(options.seed)
    uvloop.run(work(options.dsn, options.url, root, seed, options.helpers))


if __name__ == "__main__":
    main()
