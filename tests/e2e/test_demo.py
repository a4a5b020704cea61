"""The demo is the whole spine: provisioning, cutting off, killing, settling, closing account."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 240
REFUSALS = (
    "payment-above-limit",
    "sequence-used",
    "sequence-gap",
    "order-expired",
    "order-from-the-future",
    "bad-signature",
    "wrong-currency",
    "wrong-journal",
)


@pytest.mark.timeout(WAIT_S + 30)
async def test_the_demo_adds_up_to_the_cent(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.demo", "--customers", "24"),
        *("--folder", str(tmp_path / "demo")),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    async with asyncio.timeout(WAIT_S):
        out, _ = await process.communicate()
    told = out.decode()
    assert process.returncode == 0, told
    assert "It adds up, to the cent." in told
    assert "receipts hold under the issuer's root alone" in told
    assert [code for code in REFUSALS if code not in told] == []
