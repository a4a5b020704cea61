"""A software TPM of a test's own: its own process, ports and state; it ends with the test."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2B_NV_PUBLIC,
    TPMA_NV,
    TPML_DIGEST_VALUES,
    TPMS_NV_PUBLIC,
    TPMT_HA,
    TPMU_HA,
)

from hsm.pcr_policies import PcrPolicy
from hsm.tpm import TpmConfig
from hsm.tpm.config import NV_INDEX_DEFAULT
from hsm.tpm.device import device_for

START_S = 30.0
ATTEMPTS = 20
LOOPBACK = "127.0.0.1"
NV_BUFFER_BYTES = 512
# The first command of swtpm's control channel (swtpm_ioctls(3)).
GET_CAPABILITY = (1).to_bytes(4)
Result = TypeVar("Result")


class Swtpm:
    """One TPM: `start` powers it on with the state of its folder, `kill` pulls the plug."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._kept: list[socket.socket] = []
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def tcti(self) -> str:
        """How it is reached."""
        return f"swtpm:host={LOOPBACK},port={self.port}"

    def config(
        self,
        folder: Path,
        *,
        pcr_policy: PcrPolicy = "firmware",
        pin: bytes = b"4711",
        nv_index: int = NV_INDEX_DEFAULT,
        timeout_s: float = 30.0,
        owner_auth: bytes = b"",
        endorsement_auth: bytes = b"",
    ) -> TpmConfig:
        """The driver's configuration; `folder` is for its files."""
        return TpmConfig(
            folder=folder,
            tcti=self.tcti,
            pcr_policy=pcr_policy,
            pin=pin,
            nv_index=nv_index,
            timeout_s=timeout_s,
            owner_auth=owner_auth,
            endorsement_auth=endorsement_auth,
        )

    def start(self) -> None:
        """Power on, on the ports that it had before. Raises: RuntimeError."""
        for _ in range(ATTEMPTS):
            if not self._kept:
                self._kept = _keep_ports()
            port = int(self._kept[0].getsockname()[1])
            self._process = self._spawn(port)
            if _answers(self._process, port + 1):
                self.port = port
                return
            self.kill()
            if not self.port:
                self.leave()
        raise RuntimeError("swtpm does not start (Debian: swtpm, libtss2-tcti-swtpm0)")

    def kill(self) -> None:
        """Pull the plug."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def leave(self) -> None:
        """Let others have its ports."""
        while self._kept:
            self._kept.pop().close()

    def restart(self) -> None:
        """Pull the plug and power on again: the registers are empty, what is durable stays."""
        self.kill()
        self.start()

    def replace(self) -> None:
        """Put another TPM in its place; `put_back` undoes it."""
        self.kill()
        self.folder.rename(self.folder.with_suffix(".away"))
        self.folder.mkdir()
        self.start()

    def put_back(self) -> None:
        """Put the first one back."""
        self.kill()
        shutil.rmtree(self.folder)
        self.folder.with_suffix(".away").rename(self.folder)
        self.start()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it not answer for so long."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    async def administer(self, work: Callable[[ESAPI], Result]) -> Result:
        """Do something to it beside the tokens of this process, as its owner may."""
        device, me = device_for(self.tcti), object()

        def turn() -> Result:
            try:
                return work(device.enter(me))
            finally:
                device.leave(me)

        return await device.thread.call(turn, timeout_s=START_S)

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        # It ends with the process that runs the test, however that one ends.
        command = ["setpriv", "--pdeathsig", "KILL", "swtpm", "socket", "--tpm2"]
        command += ["--tpmstate", f"dir={self.folder}", "--flags", "not-need-init,startup-clear"]
        for name, number in (("--server", port), ("--ctrl", port + 1)):
            command += [name, f"type=tcp,port={number},bindaddr={LOOPBACK}"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def running_swtpm(folder: Path) -> Iterator[Swtpm]:
    """A TPM that is powered on; gone at the end."""
    made = Swtpm(folder)
    made.start()
    try:
        yield made
    finally:
        made.kill()
        made.leave()


def extend_pcr(pcr: int) -> Callable[[ESAPI], None]:
    """Measure something into a register, as other firmware would."""

    def work(esys: ESAPI) -> None:
        digest = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=b"\x07" * 32))
        esys.pcr_extend(ESYS_TR(pcr), TPML_DIGEST_VALUES([digest]))

    return work


def clear(esys: ESAPI) -> None:
    """TPM2_Clear, as a firmware menu does."""
    esys.clear(ESYS_TR.LOCKOUT)


def undefine(index: int) -> Callable[[ESAPI], None]:
    """Remove an NV index."""
    return lambda esys: esys.nv_undefine_space(esys.tr_from_tpmpublic(index))


def define(index: int, content: bytes) -> Callable[[ESAPI], None]:
    """Define an NV index that everybody reads, and write it, as a maker does."""

    def work(esys: ESAPI) -> None:
        attributes = TPMA_NV.OWNERWRITE | TPMA_NV.OWNERREAD | TPMA_NV.AUTHREAD | TPMA_NV.NO_DA
        public = TPMS_NV_PUBLIC(
            nvIndex=index,
            nameAlg=TPM2_ALG.SHA256,
            attributes=attributes,
            authPolicy=b"",
            dataSize=len(content),
        )
        handle = esys.nv_define_space(b"", TPM2B_NV_PUBLIC(public))
        for at in range(0, len(content), NV_BUFFER_BYTES):
            part = content[at : at + NV_BUFFER_BYTES]
            esys.nv_write(handle, part, at, auth_handle=ESYS_TR.OWNER)

    return work


def _keep_ports() -> list[socket.socket]:
    """Two ports in a row that are free now, held as long as the sockets are open.

    They are bound and do not listen, so that swtpm, which sets the same option, can; but the system
    gives them to nobody else while the TPM has no power, neither as a free port nor for the near
    end of a connection.
    """
    while True:
        first, second = _reusable(), _reusable()
        try:
            first.bind((LOOPBACK, 0))
            second.bind((LOOPBACK, int(first.getsockname()[1]) + 1))
        except (OSError, OverflowError):
            first.close()
            second.close()
        else:
            return [first, second]


def _reusable() -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it serves: its control port takes connections before the other one listens.

    So it is asked something there, which it answers when all is open.
    """
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((LOOPBACK, port), timeout=START_S) as control,
        ):
            control.sendall(GET_CAPABILITY)
            return bool(control.recv(len(GET_CAPABILITY))) and process.poll() is None
        time.sleep(0.01)
    return False
