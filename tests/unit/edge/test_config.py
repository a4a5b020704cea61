"""The configuration: files, then the environment, then flags; unknown keys are errors."""

from pathlib import Path

import msgspec
import pytest

from edge.config import Config, load_config
from edge.errors import ConfigInvalid
from edge.folder import Folder
from edge.gateway import hsm_config


def load(path: Path | None, **environment: str) -> Config:
    """With an environment and no flags."""
    return load_config(path, environment=environment, flags={})


def test_an_empty_file_is_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.touch()
    assert load(path) == Config()


def test_the_technicians_page_is_on_loopback_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.touch()
    page = load(path).technician
    assert (page.host, page.port, page.names) == ("127.0.0.1", 8445, ())
    path.write_text("[technician]\nlisten = '[::1]:0'\nnames = ['box.branch']\n")
    page = load(path).technician
    assert (page.host, page.port, page.names) == ("::1", 0, ("box.branch",))
    path.write_text("[technician]\nlisten = ''\n")
    assert not load(path).technician.listen


def test_flags_stand_over_the_environment_and_that_over_files(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[listen]\nport = 1\npairing_port = 1\nmetrics_port = 1\nhost = '0.0.0.0'\n")
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d" / "10.toml").write_text("[listen]\nport = 2\n[log]\nlevel = 'debug'\n")
    environment = {
        "CBDC_EDGE_LISTEN__PORT": "3",
        "CBDC_EDGE_LISTEN__PAIRING_PORT": "3",
        "CBDC_EDGE_LISTEN__NAMES": "gateway.local,192.0.2.1",
        "CBDC_EDGE_PASSPHRASE": "not a key of the configuration",
    }
    flags = {"listen.port": "4", "folder": "/var/tmp/gateway"}
    config = load_config(path, environment=environment, flags=flags)
    listen = config.listen
    assert (listen.port, listen.pairing_port, listen.metrics_port) == (4, 3, 1)
    assert (listen.host, config.log.level) == ("0.0.0.0", "debug")
    assert listen.names == ("gateway.local", "192.0.2.1")
    assert config.folder == Path("/var/tmp/gateway")


@pytest.mark.parametrize(
    "text",
    [
        "unknown = 1",
        "[listen]\nprot = 1",
        "[listen]\nport = 70000",
        "[token]\ndriver = 'pkcs11'",
        "[token]\ndriver = 'tpm'",  # which would sign with eddsa
        "[token]\ndriver = 'tpm'\nalgorithm = 'es256'\npcr_policy = 'some'",
        "[token]\ndriver = 'tpm'\nalgorithm = 'es256'\nnv_index = 1",
        "folder = ''",
        "listen = 1",
        "= broken",
        "[sync]\ninterval_s = 0",
        "[technician]\nlisten = '8445'",
        "[technician]\nlisten = '127.0.0.1:70000'",
        "[technician]\nlisten = '[::1:8445'",
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigInvalid):
        load(path)


def test_a_tpm_is_configured_by_its_tcti_policy_and_index(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        "[token]\ndriver = 'tpm'\nalgorithm = 'es256'\ntcti = 'device:/dev/tpmrm1'\n"
        "pcr_policy = 'firmware-and-boot'\nnv_index = 0x01800100\nowner_auth_file = 'owner.txt'\n"
    )
    token = load(path).token
    assert (token.driver, token.tcti) == ("tpm", "device:/dev/tpmrm1")
    assert (token.pcr_policy, token.nv_index) == ("firmware-and-boot", 0x01800100)
    (tmp_path / "owner.txt").write_text("owner\n")
    owned = msgspec.structs.replace(token, owner_auth_file=tmp_path / "owner.txt")
    config = hsm_config(owned, Folder(tmp_path))
    assert (config.owner_auth, config.endorsement_auth) == (b"owner", b"")
    assert (config.driver, config.tcti, config.nv_index) == ("tpm", token.tcti, 0x01800100)


def test_a_named_file_has_to_exist_and_the_default_one_need_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="does not exist"):
        load(tmp_path / "nothing.toml")
    assert load(None) == Config()


def test_a_key_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="no table"):
        load_config(None, environment={}, flags={"folder": "x", "folder.more": "y"})


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigInvalid):
        load(path)
