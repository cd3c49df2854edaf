"""What can be set, and what nonsense is told apart from it."""

from __future__ import annotations

import os
import re

import pytest
from click.testing import CliRunner

from app.cli import main
from app.settings import Settings, SettingsError, option, variable
from tests.servers import ROOT, Servers

KEY = "k" * 32


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("LOGPOST_"):
            monkeypatch.delenv(name)


def faults(**environment: str) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SettingsError) as caught:
            Settings.load()
    return caught.value.lines


def test_an_unknown_variable_names_the_nearest_known_one() -> None:
    (line,) = faults(LOGPOST_POLL_INTERVALL_MS="5")
    assert line.startswith("LOGPOST_POLL_INTERVALL_MS: ")
    assert "LOGPOST_POLL_INTERVAL_MS" in line.removeprefix("LOGPOST_POLL_INTERVALL_MS")


def test_every_fault_is_told_at_once_and_names_its_variable() -> None:
    lines = faults(LOGPOST_PORT="70000", LOGPOST_WORKERS="none", LOGPOST_LOG_LEVEL="loud", LOGPOST_NOPE="1")
    assert sorted(line.partition(":")[0] for line in lines) == [
        "LOGPOST_LOG_LEVEL", "LOGPOST_NOPE", "LOGPOST_PORT", "LOGPOST_WORKERS",
    ]  # fmt: skip
    assert any("70000" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOGPOST_RETRIES_BASE_DELAY_MS", "0"),
        ("LOGPOST_RETRIES_BASE_DELAY_MS", "-1"),
        ("LOGPOST_RETRIES_BASE_DELAY_MS", "60001"),  # past the largest delay
        ("LOGPOST_ACK_TIMEOUT_MS", "99"),
        ("LOGPOST_DATABASE_URL", "mysql://a/b"),
        ("LOGPOST_ROOT_KEY", "short"),
        ("LOGPOST_SECRET_KEYS", "short"),
        ("LOGPOST_SECRET_KEYS", f"{KEY},short"),
        ("LOGPOST_PROJECT", "no spaces"),
        ("LOGPOST_PUSH_PORTS", "80-"),
        ("LOGPOST_PUSH_PORTS", "0"),
        ("LOGPOST_PUSH_ALLOW", "10.0.0.1/8"),
        ("LOGPOST_CORS_ORIGINS", "https://a.example/path"),
        ("LOGPOST_HOST", "0.0.0.0"),
        ("LOGPOST_HOST", "::"),
        ("LOGPOST_HOST", ""),
    ],
)
def test_nonsense_is_refused_under_its_name(name: str, value: str) -> None:
    (line,) = faults(**{name: value})
    assert line.startswith(f"{name}: ")


def test_a_key_is_never_repeated() -> None:
    told = faults(LOGPOST_ROOT_KEY="hunter2") + faults(LOGPOST_SECRET_KEYS=f"{KEY},hunter2")
    assert "hunter2" not in " ".join(told)
    assert KEY not in " ".join(told)


def test_what_kubernetes_sets_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGPOST_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("LOGPOST_PORT_8080_TCP_ADDR", "10.0.0.1")
    Settings.load()
    monkeypatch.setenv("LOGPOST_PORT", "tcp://10.0.0.1:8080")
    with pytest.raises(SettingsError, match="enableServiceLinks"):
        Settings.load()


def test_an_option_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGPOST_PORT", "1")
    assert Settings.load({"port": "2", "workers": None}).port == 2


def test_a_worker_reads_the_same_settings_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"port": "0", "root_key": KEY, "secret_keys": f"{KEY},{KEY}2", "push_allow": "", "docs": False}
    settings = Settings.load(given | {"retention_max_count": 5})
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings


def test_help_shows_every_setting_with_its_variable() -> None:
    shown = CliRunner().invoke(main, ["serve", "--help"], terminal_width=200)
    assert shown.exit_code == 0
    words = " ".join(shown.output.split())
    for name, field in Settings.model_fields.items():
        assert f"{option(name)} " in words
        assert f"[{variable(name)}" in words
        assert field.description is not None
        assert field.description in words


@pytest.mark.parametrize("file", ["Dockerfile", "docker-compose.yml", "Makefile"])
def test_what_the_files_around_us_set_is_a_setting(file: str) -> None:
    named = set(re.findall(r"LOGPOST_[A-Z_]*[A-Z]", (ROOT / file).read_text()))
    assert named
    assert named <= {variable(name) for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("arguments", "at_fault"),
    [
        (["--port", "70000"], "--port: "),
        (["--host", "0.0.0.0"], "--host: 0.0.0.0 can be reached from other machines"),
        (["--no-such-option"], "No such option"),
    ],
)
async def test_the_command_refuses_with_code_2(servers: Servers, arguments: list[str], at_fault: str) -> None:
    server = servers.spawn(args=arguments)
    assert await server.exit_code() == 2
    assert at_fault in server.log()


async def test_every_interface_is_served_when_it_is_asked_for(servers: Servers, dsn: str) -> None:
    insecure = await servers.start(dsn=dsn, args=["--host", "0.0.0.0", "--insecure"])
    assert insecure.url.startswith("http://0.0.0.0:")
    guarded = await servers.start(dsn=dsn, env={"LOGPOST_HOST": "0.0.0.0", "LOGPOST_ROOT_KEY": KEY})
    assert guarded.url.startswith("http://0.0.0.0:")
