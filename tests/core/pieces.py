"""Bytes cut anywhere."""

from hypothesis import strategies as st


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces, cut at the given places (taken modulo its length)."""
    ends = [*sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


places = st.lists(st.integers(0, 100_000), max_size=12)
