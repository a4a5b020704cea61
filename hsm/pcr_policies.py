"""Named choices of the registers (PCRs) that a TPM opens the seal to.

TCG PC Client Platform Firmware Profile, section 3.3.4: 0 firmware, 2 firmware of plugged cards,
4 boot loader, 7 Secure Boot's keys; UAPI Group's Linux TPM PCR Registry: 8 kernel command line,
9 kernel and initial file system, both as GRUB measures them.
"""

from typing import Literal

from hsm.api import TokenRefused

PcrPolicy = Literal["none", "firmware", "firmware-and-boot"]
PCR_POLICIES: dict[PcrPolicy, tuple[int, ...]] = {
    "none": (),
    "firmware": (0, 2, 7),
    "firmware-and-boot": (0, 2, 4, 7, 8, 9),
}
PCR_COUNT = 24


def check_policy(name: str) -> None:
    """Raises: TokenRefused when there is no policy of this name."""
    if name not in PCR_POLICIES:
        raise TokenRefused(f"the PCR policies are {', '.join(PCR_POLICIES)}")


def selection(pcrs: tuple[int, ...]) -> str:
    """The registers of the SHA-256 bank, as the library writes a selection."""
    return "sha256:" + ",".join(str(pcr) for pcr in pcrs)
