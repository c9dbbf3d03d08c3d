"""How long spans are kept, and how much of them: `30d`, `10GB`."""

import re
from datetime import timedelta

_AGE = re.compile(r"(\d{1,6})\s*(h|d|w)", re.IGNORECASE)
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(MB|GB|TB)", re.IGNORECASE)
_HOURS = {"h": 1, "d": 24, "w": 24 * 7}
_BYTES = {"mb": 10**6, "gb": 10**9, "tb": 10**12}


def age(text: str) -> timedelta:
    """How old the oldest span may be. Raises ValueError."""
    found = _AGE.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise ValueError(f"{text!r} is no age like 12h, 30d or 8w")
    return timedelta(hours=int(found[1]) * _HOURS[found[2].lower()])


def size(text: str) -> int:
    """How many bytes the spans may take. Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise ValueError(f"{text!r} is no size like 500MB, 10GB or 1TB")
    return int(float(found[1]) * _BYTES[found[2].lower()])
