"""Ages and sizes as people write them."""

from datetime import timedelta

import pytest

from gateway.core import retention


@pytest.mark.parametrize(
    ("text", "age"),
    [("12h", timedelta(hours=12)), ("30d", timedelta(days=30)), (" 8 W ", timedelta(weeks=8))],
)
def test_ages(text: str, age: timedelta) -> None:
    assert retention.age(text) == age


@pytest.mark.parametrize(("text", "size"), [("500MB", 5 * 10**8), ("10 gb", 10**10), ("1.5TB", 15 * 10**11)])
def test_sizes(text: str, size: int) -> None:
    assert retention.size(text) == size


@pytest.mark.parametrize("text", ["", "30", "0d", "-1d", "30m", "d", "1e3d", "30d30d"])
def test_no_ages(text: str) -> None:
    with pytest.raises(ValueError, match="is no age like 12h, 30d or 8w"):
        retention.age(text)


@pytest.mark.parametrize("text", ["", "10", "0GB", "-1GB", "10KB", "GB", "1.GB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is no size like 500MB, 10GB or 1TB"):
        retention.size(text)
