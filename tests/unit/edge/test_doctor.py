"""What `doctor` says of a TPM before anybody opens it."""

from pathlib import Path

import msgspec
import pytest

from edge.commands.doctor import token_findings
from edge.config import TokenConfig
from edge.secret_input import PIN_VARIABLE

TPM = TokenConfig(driver="tpm", algorithm="es256")


@pytest.fixture(autouse=True)
def no_pin_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have one."""
    monkeypatch.delenv(PIN_VARIABLE, raising=False)


def texts(token: TokenConfig) -> dict[str, str]:
    """Findings by their texts."""
    return {finding.text: finding.state for finding in token_findings(token)}


def test_other_tokens_say_nothing_before_they_are_opened() -> None:
    assert token_findings(TokenConfig()) == []


def test_a_tpm_that_is_not_there_is_bad_and_says_where_to_look(tmp_path: Path) -> None:
    token = msgspec.structs.replace(TPM, tcti=f"device:{tmp_path}/tpmrm0")
    found = texts(token)
    assert found[f"{tmp_path}/tpmrm0 is not there: switch the TPM on in the firmware's setup"] == (
        "bad"
    )
    (tmp_path / "tpmrm0").touch()
    assert texts(token)[f"{tmp_path}/tpmrm0 can be opened"] == "well"


def test_the_policy_is_named_with_its_registers_and_none_is_pointed_out() -> None:
    swtpm = msgspec.structs.replace(TPM, tcti="swtpm:port=2321")
    assert texts(swtpm) == {
        "the TPM is reached by swtpm:port=2321": "well",
        "the TPM opens to the PCR policy firmware (0, 2, 7) alone": "well",
        "the TPM has no PIN: whoever starts this box, unchanged, can pay with it": "look",
    }
    loose = msgspec.structs.replace(swtpm, pcr_policy="none", pin_file=Path("pin.txt"))
    assert texts(loose) == {
        "the TPM is reached by swtpm:port=2321": "well",
        "the PCR policy is none: the TPM opens to any firmware and system": "look",
    }
