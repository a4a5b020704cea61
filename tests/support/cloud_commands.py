"""Commands of `cbdc-cloud` in the test's own process, against a cloud that runs there as well."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from cloud.cli import parser
from tests.support.cloud_local import LocalCloud


class Commands:
    """What two officers type."""

    def __init__(self, cloud: LocalCloud, files: dict[str, Path]) -> None:
        self._cloud = cloud
        self._files = files

    @classmethod
    async def by(cls, cloud: LocalCloud, *names: str) -> Commands:
        """New officers with every role, their tokens in files."""
        folder = cloud.cloud.config.folder
        (folder / "transport-ca.pem").write_bytes(cloud.authority)
        files = {name: folder / f"{name}.token" for name in names}
        for name, path in files.items():
            path.write_text(await cloud.officer(name))
        return cls(cloud, files)

    async def typed(self, officer: str, *arguments: str) -> str:
        """What a command prints. Raises: CloudError."""
        options = parser().parse_args([*arguments, "--officer-file", str(self._files[officer])])
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert await options.run(self._cloud.cloud.config, options) == 0
        return out.getvalue()
