"""Message ids, and where a key goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.message import MAX_BIGINT, MessageId, iso, message_id, parse_message_id, stamp_of
from app.domain.partition import MAX_PARTITIONS, number_of, partition_for, partition_id, topic_of

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("key", "partitions", "number"),
    [("acct_1", 16, 0), ("acct_2", 16, 2), ("ord_123", 4, 2), ("tenant-42", 32, 29), ("", 8, 6), ("é", 8, 1)],
)
def test_a_key_goes_where_the_contract_says(key: str, partitions: int, number: int) -> None:
    assert partition_for(key, partitions) == number


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, MAX_PARTITIONS))
def test_a_key_goes_to_a_partition_there_is(key: str, partitions: int) -> None:
    assert 0 <= partition_for(key, partitions) < partitions


@given(st.integers(1, 2**47 - 1), st.integers(0, MAX_PARTITIONS - 1), MOMENTS, st.integers(1, MAX_BIGINT))
def test_an_id_leads_back_to_its_message(topic: int, number: int, at: datetime, offset: int) -> None:
    place = partition_id(topic, number)
    assert (topic_of(place), number_of(place)) == (topic, number)
    text = message_id(place, at, offset)
    assert parse_message_id(text) == MessageId(place, stamp_of(at), offset)
    assert text.startswith("msg_")
    assert "." not in text


@given(MOMENTS, st.integers(1, 2**32 - 1))
def test_ids_of_the_same_place_at_other_times_differ(at: datetime, microseconds: int) -> None:
    later = at + timedelta(microseconds=microseconds)
    assert message_id(1, at, 1) != message_id(1, later, 1)


@pytest.mark.parametrize("text", [
    "", "msg_", "msg_1_2_3", "msg_1_00000001_0", "msg_g_00000001_1", "msg_1_00000001_1 ", "MSG_1_00000001_1",
    "msg_1_00000001_-1", "msg_1_00000001_8000000000000000", "msg_8000000000000000_00000001_1", "msg_1_00000001_1_1",
    "msg_\N{FULLWIDTH DIGIT ONE}_00000001_1",
])  # fmt: skip
def test_what_is_no_id_leads_nowhere(text: str) -> None:
    assert parse_message_id(text) is None


def test_times_are_written_in_utc_with_a_z() -> None:
    assert iso(datetime(2026, 11, 25, 14, 0, 0, 123456, tzinfo=UTC)) == "2026-11-25T14:00:00.123456Z"
    assert iso(datetime(2026, 11, 25, 14, tzinfo=UTC)) == "2026-11-25T14:00:00Z"
