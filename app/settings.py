"""Every setting of the server: one frozen model, read once at start from the environment and the command line.

The names are the environment's without the prefix ``LOGPOST_``; units are part of the name, and a size or a time
without one in its name is a plain count. Only ``app.main``, ``app.serve``, ``app.worker`` and ``app.cli`` import this
module: everything else is given plain values.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "LOGPOST_"

# Variables of the same prefix that are not the server's: the command line client's, and the tests'.
FOREIGN_VARIABLES = frozenset({"LOGPOST_URL", "LOGPOST_KEY", "LOGPOST_TEST_DATABASE_URL"})
# What Kubernetes puts into every pod beside a Service named "logpost".
KUBERNETES_LINK = re.compile(r"LOGPOST_(SERVICE_(HOST|PORT)(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?)")

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
DAY_MS = 24 * 60 * 60 * 1000
YEAR_MS = 365 * DAY_MS
MIB = 1024 * 1024


class SettingsError(Exception):
    """``lines``: one sentence per fault, each starting with the variable or option at fault."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        super().__init__("\n".join(self.lines))


def _none_if_empty(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


OrNone = BeforeValidator(_none_if_empty)


class Settings(BaseSettings):
    """The server's configuration. Read it with ``Settings.load``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    # Where it runs
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port to listen on; 0 takes any free one.")
    workers: int = Field(1, ge=1, le=256, description="Processes that serve requests.")
    data_dir: Path = Field(Path(".logpost"), description="Directory of the embedded Postgres.")
    database_url: Annotated[str | None, OrNone] = Field(
        None, description="A Postgres server to use instead of the embedded one: postgresql://user:password@host/name."
    )
    database_pool_size: int = Field(10, ge=2, le=1000, description="Database connections of each worker.")
    insecure: bool = Field(False, description="Allow an address that is not loopback without a root key.")
    root_key: Annotated[SecretStr | None, OrNone] = Field(
        None, description="Switches API keys on: this key (32 characters or more) manages the others."
    )
    secret_keys: Annotated[SecretStr | None, OrNone] = Field(
        None, description="Keys that encrypt secrets at rest, newest first: 32 characters or more each, or base64."
    )
    project: str = Field("default", pattern=f"^{NAME}$", description="Project of requests that name none.")
    environment: str = Field("default", pattern=f"^{NAME}$", description="Environment of requests that name none.")
    docs: bool = Field(True, description="Serve /docs and /openapi.json.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe event logged.")

    # How it works
    poll_interval_ms: int = Field(
        100, ge=10, le=60_000, description="How often a waiting reader looks for messages when no wake-up came."
    )
    lock_ttl_ms: int = Field(
        30_000, ge=1000, le=3_600_000, description="Lease of pushes and streams; a dead replica's messages wait this."
    )
    shutdown_timeout_ms: int = Field(25_000, ge=0, le=3_600_000, description="Longest wait for requests when stopping.")
    reconciliation_interval_ms: int = Field(
        30_000, ge=0, le=DAY_MS, description="Pause between rescues of expired leases nobody waits for; 0 is off."
    )
    reconciliation_batch_size: int = Field(500, ge=1, le=10_000, description="Leases rescued in one go.")
    retention_interval_ms: int = Field(
        60_000, ge=0, le=DAY_MS, description="Pause between two removals of messages past retention; 0 is off."
    )
    attempt_retention_ms: int = Field(7 * DAY_MS, ge=1000, le=YEAR_MS, description="How long attempts can be read.")

    # What a topic gets that says nothing else
    partitions: int = Field(1, ge=1, le=65_536, description="Partitions of a topic that does not say.")
    idempotency_window_ms: int = Field(
        7 * DAY_MS, ge=1000, le=YEAR_MS, description="How long a topic remembers idempotency keys."
    )
    retention_max_age_ms: Annotated[int | None, OrNone] = Field(
        None, ge=1000, description="Age at which messages are removed; none keeps them."
    )
    retention_max_count: Annotated[int | None, OrNone] = Field(
        None, ge=1, description="How many of the newest messages of a topic are kept; none keeps all."
    )

    # What a group gets that says nothing else
    ordering: Literal["partition", "key", "none"] = Field("partition", description="What is delivered in order.")
    start_from: Literal["latest", "earliest"] = Field("latest", description="Where a new group begins.")
    ack_mode: Literal["auto", "manual"] = Field("auto", description="What acks a push: its answer, or a later call.")
    concurrency: int = Field(1, ge=1, le=10_000, description="Parallel deliveries of a push group.")
    batch_size: int = Field(50, ge=1, le=1000, description="Most messages one pull returns when it does not say.")
    max_in_flight: int = Field(10_000, ge=1, le=1_000_000, description="Most unsettled messages of a pull group.")
    ack_timeout_ms: int = Field(30_000, ge=100, le=86_400_000, description="How long a consumer has to settle.")
    retries_max: int = Field(3, ge=0, le=1000, description="Redeliveries after the first attempt.")
    retries_strategy: Literal["exponential", "fixed"] = Field("exponential", description="How the delay grows.")
    retries_base_delay_ms: int = Field(1000, ge=1, le=DAY_MS, description="Delay before the first redelivery.")
    retries_max_delay_ms: int = Field(60_000, ge=1, le=7 * DAY_MS, description="The delay never grows past this.")
    dead_letter_enabled: bool = Field(True, description="Keep messages that used up their attempts.")

    # Limits
    max_connections: int = Field(10_000, ge=10, le=1_000_000, description="Open connections of one worker; then 503.")
    max_message_bytes: int = Field(MIB, ge=1024, le=64 * MIB, description="Largest message.")
    max_batch_bytes: int = Field(8 * MIB, ge=1024, le=512 * MIB, description="Largest body of a batch.")
    queue_max_messages: int = Field(
        50_000, ge=1000, le=10_000_000, description="Messages waiting for their commit in one worker; then 503."
    )
    queue_max_bytes: int = Field(
        256 * MIB, ge=MIB, le=64 * 1024 * MIB, description="Bytes waiting for their commit in one worker; then 503."
    )
    max_topics: int = Field(10_000, ge=1, le=10_000_000, description="Topics of a namespace.")
    max_partitions: int = Field(100_000, ge=1, le=100_000_000, description="Partitions of a namespace.")
    max_topic_partitions: int = Field(65_536, ge=1, le=65_536, description="Partitions of a topic.")
    max_topic_groups: int = Field(1000, ge=1, le=100_000, description="Groups of a topic.")
    max_streams: int = Field(10_000, ge=1, le=1_000_000, description="Open streams of a namespace.")
    max_unsettled: int = Field(1_000_000, ge=1, le=10**9, description="Messages of a namespace leased at a time.")
    max_keys: int = Field(1000, ge=1, le=1_000_000, description="API keys of a namespace.")
    key_requests_per_s: int = Field(0, ge=0, le=10**12, description="Requests a second of an API key; 0 is no limit.")
    key_bytes_per_s: int = Field(0, ge=0, le=10**12, description="The same for bytes of its requests' bodies.")
    push_ports: str = Field("80,443,1024-65535", description="Ports a webhook may be at, and ranges of them.")
    push_allow: str | None = Field(
        None,
        description="Internal networks a webhook may be in, as CIDRs; empty allows none. "
        "Unset allows loopback if the server itself listens on loopback only.",
    )
    cors_origins: str = Field("", description="Origins whose pages may call, separated by commas; empty is none.")

    @classmethod
    def load(cls, options: Mapping[str, Any] | None = None) -> Settings:
        """The environment, with ``options`` (field name → text or value) winning over it.

        Raises SettingsError naming every fault: unknown variables, malformed values, values out of range.
        """
        options = {name: value for name, value in (options or {}).items() if value is not None}
        faults = [_unknown(name) for name in sorted(os.environ) if not _is_known(name)]
        try:
            settings = cls(**options)
        except ValidationError as error:
            faults += [_sentence(fault, options) for fault in error.errors(include_url=False)]
            raise SettingsError(faults) from error
        if faults:
            raise SettingsError(faults)
        return settings

    def to_environment(self) -> dict[str, str]:
        """Variables from which ``load`` makes an equal value: how a worker process is told."""
        environment = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            if value is not None:
                environment[variable(name)] = str(value)
        return environment

    @property
    def loopback_only(self) -> bool:
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def push_port_ranges(self) -> tuple[range, ...]:
        return _port_ranges(self.push_ports)

    @property
    def push_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """Internal networks that webhooks may reach all the same."""
        if self.push_allow is not None:
            return _networks(self.push_allow)
        return _networks("127.0.0.0/8,::1/128") if self.loopback_only else ()

    @property
    def secret_key_list(self) -> list[str]:
        """The first encrypts, all decrypt."""
        return _items(self.secret_keys.get_secret_value()) if self.secret_keys else []

    @property
    def cors_origin_list(self) -> tuple[str, ...]:
        return tuple(_items(self.cors_origins))

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_lists(self)
        if self.database_url is not None and urlsplit(self.database_url).scheme not in ("postgres", "postgresql"):
            _refuse("database_url", "must start with postgresql://")
        if self.root_key is not None and len(self.root_key.get_secret_value()) < 32:
            _refuse("root_key", "must have 32 characters or more")
        if any(len(key) < 32 for key in self.secret_key_list):
            _refuse("secret_keys", "must be keys of 32 characters or more each, separated by commas")
        if self.retries_base_delay_ms > self.retries_max_delay_ms:
            _refuse("retries_base_delay_ms", f"must not exceed {variable('retries_max_delay_ms')}")
        if self.partitions > self.max_topic_partitions:
            _refuse("partitions", f"must not exceed {variable('max_topic_partitions')}")
        if self.max_message_bytes > self.max_batch_bytes:
            _refuse("max_message_bytes", f"must not exceed {variable('max_batch_bytes')}")
        if self.max_batch_bytes > self.queue_max_bytes:
            _refuse("max_batch_bytes", f"must not exceed {variable('queue_max_bytes')}")
        if not (self.loopback_only or self.insecure or self.root_key):
            _refuse(
                "host",
                f"{self.host} can be reached from other machines, and there are no API keys: set "
                f"{variable('root_key')}, listen on 127.0.0.1, or accept it with --insecure ({variable('insecure')}=1)",
            )
        return self


def variable(name: str) -> str:
    """The environment variable of a field: ``poll_interval_ms`` → ``LOGPOST_POLL_INTERVAL_MS``."""
    return PREFIX + name.upper()


def option(name: str) -> str:
    """The command line option of a field: ``poll_interval_ms`` → ``--poll-interval-ms``."""
    return "--" + name.replace("_", "-")


def _refuse(name: str, reason: str) -> None:
    # The name travels in the context, because a check of the whole model has no location of its own.
    raise PydanticCustomError("setting", "{reason}", {"reason": reason, "name": name})


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _port_ranges(text: str) -> tuple[range, ...]:
    ranges = []
    for item in _items(text):
        low, dash, high = item.partition("-")
        ports = range(int(low), int(high if dash else low) + 1)
        if not ports or not 1 <= ports[0] <= ports[-1] <= 65535:
            raise ValueError(item)
        ranges.append(ports)
    return tuple(ranges)


def _networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(item) for item in _items(text))


def _check_lists(settings: Settings) -> None:
    try:
        _port_ranges(settings.push_ports)
    except ValueError:
        _refuse("push_ports", "must be ports and ranges of ports separated by commas, like 80,443,1024-65535")
    try:
        _networks(settings.push_allow or "")
    except ValueError as error:
        _refuse("push_allow", f"must be networks separated by commas, like 10.0.0.0/8 ({error})")
    for origin in settings.cors_origin_list:
        if not re.fullmatch(r"https?://[^/\s]+", origin):
            _refuse("cors_origins", f"{origin!r} is not an origin like https://example.com")


def _is_known(name: str) -> bool:
    name = name.upper()
    if not name.startswith(PREFIX) or name in FOREIGN_VARIABLES or KUBERNETES_LINK.fullmatch(name):
        return True
    return name.removeprefix(PREFIX).lower() in Settings.model_fields


def _unknown(name: str) -> str:
    known = [variable(field) for field in Settings.model_fields]
    nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)[0]
    return f"{name}: there is no such setting; did you mean {nearest}?"


def _sentence(fault: ErrorDetails, options: Mapping[str, Any]) -> str:
    """``LOGPOST_PORT: input should be less than or equal to 65535 (got '70000').``"""
    context = fault.get("ctx", {})
    field = str(context["name"] if fault["type"] == "setting" else fault["loc"][0])
    name = option(field) if field in options else variable(field)
    reason = fault["msg"][0].lower() + fault["msg"][1:] if fault["type"] != "setting" else fault["msg"]
    got = fault["input"]
    if fault["type"] == "setting" or field in ("root_key", "secret_keys") or not isinstance(got, str | int):
        return f"{name}: {reason}."
    linked = field == "port" and isinstance(got, str) and got.startswith("tcp://")
    hint = " Kubernetes set it for a Service named logpost: set enableServiceLinks: false." if linked else ""
    return f"{name}: {reason} (got {got!r}).{hint}"
