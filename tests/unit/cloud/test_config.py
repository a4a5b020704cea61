"""The cloud's configuration: what stands over what, and that nothing unknown passes."""

from pathlib import Path

import pytest

from cloud.cli import parser
from cloud.config import Config, load_config
from cloud.errors import ConfigError


def written(folder: Path, text: str, *, name: str = "config.toml") -> Path:
    """A file with the text."""
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def loaded(path: Path | None, **flags: str) -> Config:
    """The configuration of a file and dotted flags."""
    return load_config(
        path, environment={}, flags={name.replace("__", "."): text for name, text in flags.items()}
    )


def test_an_empty_file_is_a_configuration(tmp_path: Path) -> None:
    assert loaded(written(tmp_path, "")) == Config()


def test_the_default_file_need_not_exist() -> None:
    assert loaded(None).database.dsn is None


def test_a_named_file_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config-missing"):
        loaded(tmp_path / "none.toml")


def test_flags_stand_over_the_environment_over_parts_over_the_file(tmp_path: Path) -> None:
    text = "folder = '/a'\n[listen]\nhost = 'file'\napi_port = 1\n[issuer]\norganisation = 'file'"
    file = written(tmp_path, text)
    written(tmp_path, "[listen]\nhost = 'part'\napi_port = 2", name="config.d/10.toml")
    written(tmp_path, "[listen]\nhost = 'later'", name="config.d/20.toml")
    config = load_config(
        file,
        environment={
            "CBDC_CLOUD_LISTEN__API_PORT": "3",
            "CBDC_CLOUD_LISTEN__GATEWAY_PORT": "4",
            "OTHER": "5",
        },
        flags={"listen.gateway_port": "6", "issuer.currencies": "EUR,CHF"},
    )
    listen = config.listen
    assert (listen.host, listen.api_port, listen.gateway_port) == ("later", 3, 6)
    assert (str(config.folder), config.issuer.organisation) == ("/a", "file")
    assert config.issuer.currencies == ("EUR", "CHF")


@pytest.mark.parametrize(
    "text",
    [
        "unknown = 1",
        "[database]\nunknown = 1",
        "[database]\npool_max = 0",
        "[database]\npool_min = 9\npool_max = 3",
        "[listen]\napi_port = 65536",
        "[issuer]\ncurrencies = ['euro']",
        "[issuer]\ncurrencies = []",
        "folder = 7",
        "folder = ",
    ],
)
def test_what_is_unknown_or_out_of_range_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="config-invalid"):
        loaded(written(tmp_path, text))


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="config-invalid"):
        loaded(file)


def test_a_flag_below_a_value_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder is no table"):
        loaded(written(tmp_path, "folder = '/a'"), folder__name="x")


@pytest.mark.parametrize("amount", ["12.5", "0", "-5", "x", "", "9007199254740992", "0" * 20 + "1"])
def test_an_amount_that_is_none_is_a_mistake_of_usage(
    amount: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["issuer", "issue", "--wallet", "w", "--reason", "r", "--officer-file", "f"]
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args([*words, f"--amount={amount}"])
    assert stopped.value.code == 2
    assert "argument --amount" in capsys.readouterr().err
    assert parser().parse_args([*words, "--amount", "9007199254740991"]).amount == 2**53 - 1


def test_shards_are_named_in_their_order(tmp_path: Path) -> None:
    text = "[[database.shards]]\ndsn = 'one'\n[[database.shards]]\ndsn = 'two'"
    config = loaded(written(tmp_path, text))
    assert [shard.dsn for shard in config.database.shards] == ["one", "two"]
    with pytest.raises(ConfigError, match="config-invalid"):
        loaded(written(tmp_path, "[[database.shards]]\ndsn = ''"))
