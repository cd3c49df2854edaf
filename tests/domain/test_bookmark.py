"""A bookmark says every offset, shortly, and nothing else is taken for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.domain.bookmark import Bookmark, parse_bookmark

OFFSETS = st.lists(st.integers(1, 2**63 - 1), max_size=50).map(tuple)


@given(st.integers(1, 2**40), st.integers(1, 2**31), OFFSETS)
def test_what_is_written_is_read(topic_id: int, timeline: int, offsets: tuple[int, ...]) -> None:
    bookmark = Bookmark(topic_id, timeline, offsets)
    assert parse_bookmark(str(bookmark)) == bookmark


@given(st.text(max_size=100) | st.from_regex(r"[A-Za-z0-9_-]{1,60}", fullmatch=True))
def test_other_text_is_refused_or_at_least_harmless(text: str) -> None:
    bookmark = parse_bookmark(text)
    assert bookmark is None or all(0 <= offset < 2**63 for offset in bookmark.offsets)


def test_a_thousand_even_partitions_fit_into_a_header() -> None:
    offsets = tuple(10**9 + number * 7 % 500 for number in range(1024))
    assert len(str(Bookmark(2**31, 7, offsets))) < 4096
