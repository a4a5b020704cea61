"""A process that exchanges the key of a store, and kills itself after a step that was named."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from edge.folder import Folder
from edge.store_key import rotate_store_key
from hsm import software
from tests.support.branch_local import PASSPHRASE


async def main(folder: Folder, last: str) -> None:
    """Exchange it once; `never` lets it come to its end."""

    def step(name: str) -> None:
        print(name, flush=True)
        if name == last:
            os.kill(os.getpid(), signal.SIGKILL)

    token = await software.open_token(folder.token, passphrase=PASSPHRASE)
    await rotate_store_key(folder, token, step=step)
    await token.close()


if __name__ == "__main__":
    asyncio.run(main(Folder(Path(sys.argv[1])), sys.argv[2]))
