"""Signatures, judged by the published vectors and by an independent implementation of Standard Webhooks."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from app.domain.errors import InvalidField
from app.domain.signature import generate_secret, parse_secret, sign, verify

VECTORS = [
    (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
    (
        "whsec_plJ3nmyCDGBKInavdOK15jsl",
        "msg_loFOjxBNrRLzqYUf",
        1731705121,
        b'{"event_type":"ping","data":{"success":true}}',
        "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    ),
]
KEYS = st.binary(min_size=24, max_size=64)


@pytest.mark.parametrize(("secret", "webhook_id", "timestamp", "body", "signature"), VECTORS)
def test_the_published_vectors_come_out(
    secret: str, webhook_id: str, timestamp: int, body: bytes, signature: str
) -> None:
    # Decoded by hand: the second one's 18 bytes are fewer than the specification asks of a secret.
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert sign(webhook_id, timestamp, body, [key]) == signature
    assert verify(webhook_id, timestamp, body, signature, key)


@given(body=st.text(), new=KEYS, old=KEYS)
def test_an_independent_verifier_takes_both_signatures_of_an_overlap(body: str, new: bytes, old: bytes) -> None:
    timestamp = int(datetime.now(UTC).timestamp())
    signature = sign("msg_1_0_1", timestamp, body.encode(), [new, old])
    headers = {"webhook-id": "msg_1_0_1", "webhook-timestamp": str(timestamp), "webhook-signature": signature}
    for key in (new, old):
        try:
            Webhook("whsec_" + base64.b64encode(key).decode()).verify(body, headers)
        except ValueError:
            # It returns the body as JSON, after it has verified; this one is none.
            continue


def test_s39_the_independent_verifier_refuses_what_was_changed() -> None:
    secret = generate_secret()
    timestamp = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign("msg_1", timestamp, b"{}", [parse_secret(secret)]),
    }
    assert Webhook(secret).verify(b"{}".decode(), headers) == {}
    for changed in (
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(timestamp - 1)},
        {"webhook-signature": headers["webhook-signature"].replace("v1,", "v1a,")},
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify("{}", headers | changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify("[]", headers)


@given(key=KEYS, other=KEYS, body=st.binary(), timestamp=st.integers(0, 2**40))
def test_s39_only_the_same_key_and_bytes_verify(key: bytes, other: bytes, body: bytes, timestamp: int) -> None:
    header = sign("msg_1", timestamp, body, [key])
    assert verify("msg_1", timestamp, body, f"v1,bm9uZQ== {header}", key)
    assert verify("msg_1", timestamp, body, header, other) == (key == other)
    assert not verify("msg_1", timestamp, body + b".", header, key)
    assert not verify("msg_1", timestamp + 1, body, header, key)
    assert not verify("msg_1", timestamp, body, header.replace("v1,", "v2,"), key)
    assert not verify("msg_1", timestamp, body, "", key)


def test_generated_secrets_are_valid_and_all_different() -> None:
    secrets = {generate_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(parse_secret(secret)) for secret in secrets} == {32}


def test_missing_padding_is_tolerated() -> None:
    assert parse_secret("whsec_" + base64.b64encode(b"x" * 25).decode().rstrip("=")) == b"x" * 25


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "hunter2",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whsec_" + "*" * 40,
        "whsec_" + "é" * 40,
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
        "whsec_MfKQ9r8G KYqrTwjUPD8ILPZIo2LaLaSw",
    ],
)
def test_anything_else_is_no_secret_and_is_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidField) as refused:
        parse_secret(secret, "delivery.secret")
    (fault,) = refused.value.faults
    assert fault.field == "delivery.secret"
    assert len(secret) < 7 or secret.removeprefix("whsec_") not in str(refused.value)
