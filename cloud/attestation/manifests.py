"""Published manifests of images: what the registers of a TPM show when an image has started.

A manifest is JSON, made with the image and published beside it:

    {"format": "cbdc-image-manifest-1", "image": "cbdc-edge", "hardware": "acme-100",
     "version": "1.4.0", "security_version": 3,
     "pcrs": {"firmware": {"0": "<SHA-256 in hex>", "2": "...", "7": "..."}}}

Registers stand under the name of a PCR policy (`hsm.pcr_policies`), all of that policy's. They
depend on the board's firmware as well, so that each pair of hardware and version has its own.

`"security_version_min": 2` beside them says that from this release on the same image on the same
hardware is not to run with a lower security version. It counts from the approval on, for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import msgspec

from cloud.errors import IssuerError
from hsm.pcr_policies import PCR_POLICIES

PcrPolicyName = Literal["firmware", "firmware-and-boot"]
_WORD = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$", max_length=64)]
_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
_Register = Annotated[str, msgspec.Meta(pattern="^(1?[0-9]|2[0-3])$", max_length=2)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One image on one kind of hardware."""

    format: Literal["cbdc-image-manifest-1"]
    image: _WORD
    hardware: _WORD
    version: _WORD
    security_version: _Count
    security_version_min: _Count = 0
    pcrs: Annotated[
        dict[PcrPolicyName, dict[_Register, _Digest]], msgspec.Meta(min_length=1, max_length=8)
    ]

    @property
    def kind(self) -> tuple[str, str]:
        """What a lowest security version is said of: an image on one kind of hardware."""
        return self.image, self.hardware

    @property
    def name(self) -> str:
        """For people: which image, on what."""
        return f"{self.image} {self.version} ({self.security_version}) on {self.hardware}"

    def registers(self, policy: str) -> dict[int, bytes] | None:
        """What a policy's registers show; None where the manifest does not say."""
        found = {str(name): values for name, values in self.pcrs.items()}.get(policy)
        return None if found is None else {int(n): bytes.fromhex(text) for n, text in found.items()}


def read_manifest(content: bytes) -> Manifest:
    """Raises: IssuerError `manifest-invalid`."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IssuerError("manifest-invalid", str(error)) from error
    if manifest.security_version_min > manifest.security_version:
        raise IssuerError("manifest-invalid", "it refuses itself: security_version_min is higher")
    for policy in manifest.pcrs:
        named = manifest.registers(policy) or {}
        if named.keys() != set(PCR_POLICIES[policy]):
            wanted = ", ".join(map(str, PCR_POLICIES[policy]))
            raise IssuerError("manifest-invalid", f"{policy} has the registers {wanted}")
    return manifest


def floors_of(manifests: Iterable[Manifest]) -> dict[tuple[str, str], int]:
    """The lowest security version that may run, by `Manifest.kind`."""
    floors: dict[tuple[str, str], int] = {}
    for manifest in manifests:
        floors[manifest.kind] = max(floors.get(manifest.kind, 0), manifest.security_version_min)
    return floors


def fitting(
    manifests: Iterable[Manifest], policy: str, found: Mapping[int, bytes]
) -> Manifest | None:
    """The manifest that tells of these values; the newest security version where several do."""
    fits = [manifest for manifest in manifests if manifest.registers(policy) == dict(found)]
    return max(fits, key=lambda manifest: manifest.security_version, default=None)
