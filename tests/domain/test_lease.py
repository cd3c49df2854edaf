"""AckIds read by the hundred are read as each of them is alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.lease import MAX_OFFSET, AckId, InvalidAckId, multirange, parse_ack_id, parts_of

OFFSETS = st.integers(1, MAX_OFFSET) | st.integers(1, 40)
ACK_IDS = st.builds(
    AckId, st.integers(0, 3), st.integers(1, 2), st.just(0), st.integers(2**40, 2**40 + 2), st.integers(1, 2), OFFSETS
).map(str)
# What somebody might send instead: cut, doubled, with a number too many or too large.
SPOILED = ACK_IDS.flatmap(
    lambda good: st.sampled_from(
        [good + "_7", good[:-1] + "G", good + "_", good.rpartition("_")[0], good.upper(), "", "_", f"{good}{'f' * 16}",
         f"{good.rpartition('_')[0]}_{2**63 - 1:x}", good.replace("ack", "msg")]
    )
)  # fmt: skip


@given(st.lists(ACK_IDS, max_size=30) | st.lists(ACK_IDS | SPOILED, max_size=8))
def test_many_are_read_as_each_alone(ack_ids: list[str]) -> None:
    alone = [parse_ack_id(text) for text in ack_ids]
    if None in alone:
        with pytest.raises(InvalidAckId) as error:
            parts_of(ack_ids)
        assert alone[error.value.position] is None
        return
    found = {
        position: part.first._replace(offset=offset)
        for part in parts_of(ack_ids)
        for position, offset in zip(part.positions, part.offsets, strict=True)
    }
    assert [found[position] for position in range(len(ack_ids))] == alone


@given(st.lists(st.integers(1, 60)))
def test_a_multirange_holds_just_the_offsets_it_was_made_of(offsets: list[int]) -> None:
    runs = [part.split(",") for part in multirange(offsets)[2:-2].split("),[") if part]
    held = [offset for low, high in runs for offset in range(int(low), int(high))]
    assert held == sorted(set(offsets))
