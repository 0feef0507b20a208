"""The rows of the table: each puts one load on one contender, checks every answer and returns the figures."""

import asyncio
import concurrent.futures
import contextlib
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count, repeat
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from benchmarks.scheduling.contenders import Contender
from benchmarks.scheduling.encoders import BATCH, BATCH_SECONDS, TABLE, Spec, calls, number

Figures = dict[str, Any]
clock = time.monotonic
DEADLINE = 0.5
PAUSE = 0.005  # between lone requests
PATIENCE = 1.0  # what a caller of the fault rows allows; asked for as the deadline where there is such a thing


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything.

    Attributes:
        backlogs: backlogs of 2,000 documents.
        queries: queries put behind each.
        budget: seconds after which no further backlog is begun.
        lone: lone requests.
        seconds: how long each closed loop runs.
        quiet: seconds of lone requests before a burst.
        places: places in a batch that the poison is tried at.
        submissions: requests of which half are cancelled.
    """

    backlogs: int
    queries: int
    budget: float
    lone: int
    seconds: float
    quiet: float
    places: tuple[int, ...]
    submissions: int


def summary(seconds: Sequence[float]) -> Figures:
    """Return what a sample of durations was like, in milliseconds."""
    if not seconds:
        return {"n": 0}
    ms = np.array(seconds) * 1000
    p50, p95, p99 = np.percentile(ms, [50, 95, 99])
    values = {"p50": p50, "p95": p95, "p99": p99, "min": ms.min(), "max": ms.max()}
    return {"n": len(ms), **{name: round(float(value), 3) for name, value in values.items()}}


def check(text: str, vector: Any) -> None:
    """Fail unless the vector is this very text's."""
    assert np.allclose(vector, TABLE[number(text)], atol=1e-6), f"{text!r} got the vector of another text"


async def settle(call: Awaitable[Any]) -> tuple[Any, float]:
    """Wait for a call; return its vector or its error, and the seconds it took."""
    began = clock()
    try:
        outcome = await call
    except Exception as err:  # a rival may raise anything; it is the outcome  # noqa: BLE001  # a rival may raise anything, and that is what is measured
        outcome = err
    return outcome, clock() - began


_numbers = count()


def fresh(many: int, kind: str = "query") -> list[str]:
    """Return texts that nobody has seen before, so that no cache and no sharing helps."""
    return [f"{kind} text number {next(_numbers)}" for _ in range(many)]


def texts_of(kind: str, many: int, given: Callable[[int, str], list[str]] | None) -> list[str]:
    return given(many, kind) if given else fresh(many, kind)


# --- 1: queries behind a backlog ----------------------------------------------------------------------------------


async def backlog(
    contender: Contender,
    documents: list[str],
    moments: Sequence[float],
    queries: Sequence[str],
    verify: Callable[[str, Any], None],
) -> tuple[float, list[float], int, int]:
    """Return documents a second, the queries' times, and how many documents and queries were not served."""
    began = clock()
    tasks = [asyncio.create_task(settle(contender.encode_bulk(text))) for text in documents]
    await asyncio.sleep(0)

    async def ask(after: float, text: str) -> tuple[str, Any, float]:
        await asyncio.sleep(after)
        return (text, *(await settle(contender.encode(text))))

    asked = [asyncio.create_task(ask(*pair)) for pair in zip(moments, queries, strict=True)]
    done = await asyncio.gather(*tasks)
    seconds = clock() - began
    answers = await asyncio.gather(*asked)
    served = [
        (text, outcome)
        for text, (outcome, _) in zip(documents, done, strict=True)
        if not isinstance(outcome, Exception)
    ]
    times = [took for _, outcome, took in answers if not isinstance(outcome, Exception)]
    for text, outcome in served + [
        (text, outcome) for text, outcome, _ in answers if not isinstance(outcome, Exception)
    ]:
        verify(text, outcome)
    return len(served) / seconds, times, len(documents) - len(served), len(answers) - len(times)


async def query_behind_bulk(
    contender: Contender,
    scale: Scale,
    *,
    documents: int = 2000,
    alone: int = 3,
    texts: Callable[[int, str], list[str]] | None = None,
    verify: Callable[[str, Any], None] = check,
) -> Figures:
    """Put single queries, at random moments, behind a backlog of documents that was handed in before them."""
    chance = random.Random(3)
    rates_alone = []
    for _ in range(alone):
        rate, _, refused, _ = await backlog(contender, texts_of("document", documents, texts), (), (), verify)
        rates_alone.append(rate)
    rate = statistics.median(rates_alone)
    lasts = documents / max(rate, 1.0)
    rates, times, lost, unanswered = [], [], 0, 0
    until = clock() + scale.budget
    while len(rates) < scale.backlogs and (clock() < until or not rates):
        moments = sorted(chance.uniform(0.05, 0.9) * lasts for _ in range(scale.queries))
        queries = texts_of("query", scale.queries, texts)
        got = await backlog(contender, texts_of("document", documents, texts), moments, queries, verify)
        rates.append(got[0])
        times += got[1]
        lost += got[2]
        unanswered += got[3]
    return {
        "documents": documents,
        "backlogs": len(rates),
        "query_ms": summary(times),
        "queries_unanswered": unanswered,
        "documents_refused": lost + refused,
        "bulk_rate_alone": round(rate, 1),
        "bulk_rate": round(statistics.mean(rates), 1),
        "bulk_share_of_alone": round(statistics.mean(rates) / rate, 4) if rate else 0.0,
        "queries_per_backlog": scale.queries,
    }


# --- 2: nobody else is there --------------------------------------------------------------------------------------


async def lone_request(contender: Contender, scale: Scale, encoder: Any, texts: list[str] | None = None) -> Figures:
    """Time single requests, spaced, and subtract what a call of such an encoder takes in a thread on its own."""
    mine = texts or fresh(scale.lone)
    alone = await asyncio.to_thread(_spaced_calls, encoder, mine)
    times = []
    for text in mine:
        outcome, took = await settle(contender.encode(text))
        if isinstance(outcome, Exception):
            raise outcome
        if texts is None:
            check(text, outcome)
        times.append(took)
        await asyncio.sleep(PAUSE)
    overhead = [
        took - its for took, its in zip(times, alone if texts else repeat(statistics.median(alone)), strict=False)
    ]
    warm = len(mine) // 10
    return {
        "encode_ms": summary(alone[warm:]),
        "request_ms": summary(times[warm:]),
        "overhead_ms": summary(overhead[warm:]),
    }


def _spaced_calls(encoder: Any, texts: list[str]) -> list[float]:
    took = []
    for text in texts:
        began = clock()
        encoder.encode([text])
        took.append(clock() - began)
        time.sleep(PAUSE)
    return took


def _cpu_seconds() -> float:
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            used = process.cpu_times()
            total += used.user + used.system
    return total


async def idle(seconds: float) -> Figures:
    """Return the processor time used while nothing is asked, all processes of the contender together."""
    await asyncio.sleep(0.5)
    children = bool(psutil.Process().children())
    cpu = _cpu_seconds if children else time.process_time  # the latter is the finer
    before, began = cpu(), clock()
    await asyncio.sleep(seconds)
    used, lasted = cpu() - before, clock() - began
    return {"cpu_percent_of_a_core": round(100 * used / lasted, 3), "seconds": seconds}


# --- 3 and 4: as much as goes -------------------------------------------------------------------------------------


async def closed_loop(
    contender: Contender,
    clients: int,
    seconds: float,
    ideal: float | None,
    *,
    texts: Callable[[int, str], list[str]] | None = None,
    verify: Callable[[str, Any], None] = check,
) -> Figures:
    """Let each client ask again as soon as it has its answer."""
    answers: list[tuple[str, Any, float, float]] = []
    failed = 0
    started = clock()
    opened, until = started + min(0.5, seconds / 4), started + min(0.5, seconds / 4) + seconds

    async def client() -> None:
        nonlocal failed
        while clock() < until:
            text = texts_of("query", 1, texts)[0]
            outcome, took = await settle(contender.encode(text))
            if isinstance(outcome, Exception):
                failed += 1
                await asyncio.sleep(0.001)
            else:
                answers.append((text, outcome, took, clock()))

    await asyncio.gather(*(client() for _ in range(clients)))
    for text, outcome, _, _ in answers:
        verify(text, outcome)
    inside = [answer for answer in answers if opened <= answer[3] < until]
    rate = len(inside) / seconds
    figures: Figures = {
        "clients": clients,
        "per_second": round(rate, 1),
        "failed": failed,
        "request_ms": summary([each[2] for each in inside]),
    }
    if ideal is not None:
        figures |= {"ideal_per_second": round(ideal, 1), "share_of_ideal": round(rate / ideal, 4)}
    return figures


# --- 5: bursts ----------------------------------------------------------------------------------------------------


async def burst(
    contender: Contender,
    scale: Scale,
    many: int,
    feasible: int,
    *,
    texts: Callable[[int, str], list[str]] | None = None,
    verify: Callable[[str, Any], None] = check,
) -> Figures:
    """After a quiet spell of lone requests, ask `many` things at once, each wanted within 500 ms."""
    lone = 25
    for text in texts_of("query", lone, texts):
        await settle(contender.encode(text))
        await asyncio.sleep(max(0.0, scale.quiet / lone - BATCH_SECONDS))
    queries = texts_of("query", many, texts)
    ended = await asyncio.gather(*(settle(contender.encode(text)) for text in queries))
    answers = [
        (text, outcome, took)
        for text, (outcome, took) in zip(queries, ended, strict=True)
        if not isinstance(outcome, Exception)
    ]
    for text, outcome, _ in answers:
        verify(text, outcome)
    in_time = sum(took <= DEADLINE for *_, took in answers)
    refused = [took for outcome, took in ended if isinstance(outcome, Exception)]
    return {
        "asked": many,
        "feasible": feasible,
        "answered_in_time": in_time,
        "share_of_feasible": round(in_time / feasible, 4),
        "answered_late": len(answers) - in_time,
        "not_answered": len(refused),
        "answer_ms": summary([took for *_, took in answers]),
        "refusal_ms": summary(refused),
    }


# --- 6: poison ----------------------------------------------------------------------------------------------------


async def _poisoned(contender: Contender, spec: Spec, places: Sequence[int]) -> tuple[int, int, int]:
    """Return how many of a batch of 32 were answered, how many should have been, and the extra encodes."""
    texts = fresh(BATCH)
    for place in places:
        texts[place] = texts[place].replace("query", "raise", 1)
    opener = asyncio.create_task(settle(contender.encode(fresh(1)[0])))
    await asyncio.sleep(BATCH_SECONDS / 4)  # the opener is in the encoder now, so that the 32 make up one batch
    before = len(calls(spec))
    ended = await asyncio.gather(*(settle(contender.encode(text)) for text in texts))
    await opener
    answered = 0
    for text, (outcome, _) in zip(texts, ended, strict=True):
        if not isinstance(outcome, Exception):
            assert not text.startswith("raise"), "a text that can't be encoded was answered"
            check(text, outcome)
            answered += 1
    mine = [call for call in calls(spec)[before:] if set(call.texts) & set(texts)]
    return answered, BATCH - len(places), len(mine) - 1


async def poison(contender: Contender, scale: Scale, spec: Spec) -> Figures:
    """One text, at each place, and three at random places, of 32 that make the encoder raise."""
    chance = random.Random(6)
    one = [await _poisoned(contender, spec, (place,)) for place in scale.places]
    three = [
        await _poisoned(contender, spec, chance.sample(range(BATCH), 3)) for _ in range(max(1, len(scale.places) // 4))
    ]
    return {
        "one_of_32": {
            "tried": len(one),
            "answered_least": min(each[0] for each in one),
            "answered_most": max(each[0] for each in one),
            "extra_encodes_most": max(each[2] for each in one),
        },
        "three_of_32": {
            "tried": len(three),
            "answered_least": min(each[0] for each in three),
            "answered_most": max(each[0] for each in three),
            "extra_encodes_most": max(each[2] for each in three),
        },
    }


# --- 7: faults ----------------------------------------------------------------------------------------------------


async def fault(contender: Contender, kind: str) -> Figures:
    """Eight callers, of whom one brings the fault; all want to know within a second. Then one more asks."""
    opened = await asyncio.wait_for(settle(contender.encode(fresh(1)[0])), 30)
    assert not isinstance(opened[0], Exception), opened[0]
    texts = fresh(8)
    texts[3] = texts[3].replace("query", kind, 1)

    async def ask(text: str) -> tuple[Any, float]:
        return await settle(asyncio.wait_for(contender.encode(text), 2 * PATIENCE))

    ended = await asyncio.gather(*(ask(text) for text in texts))
    answered = 0
    for text, (outcome, _) in zip(texts, ended, strict=True):
        if not isinstance(outcome, Exception):
            check(text, outcome)
            answered += 1
    text = fresh(1)[0]
    outcome, took = await ask(text)
    good = not isinstance(outcome, Exception)
    if good:
        check(text, outcome)
    late = sum(took > PATIENCE * 1.05 for _, took in ended)
    return {
        "callers": len(texts),
        "settled_in_time": len(texts) - late,
        "answered": answered,
        "errors": sorted({type(outcome).__name__ for outcome, _ in ended if isinstance(outcome, Exception)}),
        "next_query_succeeds": good,
        "next_query_ms": round(took * 1000, 1),
    }


# --- 8: half of them go away --------------------------------------------------------------------------------------


async def cancellations(contender: Contender, scale: Scale, spec: Spec, flights: int = 1000) -> Figures:
    """Cancel half of many requests at random moments; look for what was encoded for nobody, and for what is left."""
    chance = random.Random(8)
    room = asyncio.Semaphore(flights)
    gone: dict[str, float] = {}
    ends = {"answered": 0, "cancelled": 0, "failed": 0}

    async def one(text: str, after: float | None) -> None:
        async with room:
            task = asyncio.create_task(contender.encode(text))
            if after is not None:
                await asyncio.wait((task,), timeout=after)
                if not task.done():
                    task.cancel()
                    gone[text] = clock()
            try:
                check(text, await task)
                ends["answered"] += 1
            except asyncio.CancelledError:
                ends["cancelled"] += 1
            except Exception:  # a rival may turn a cancellation into anything  # noqa: BLE001  # a rival may raise anything, and that is what is measured
                ends["failed"] += text not in gone
                ends["cancelled"] += text in gone

    async def wave(many: int) -> None:
        texts = fresh(many)
        moments = [chance.uniform(0.0, 0.6) if chance.random() < 0.5 else None for _ in texts]
        await asyncio.gather(*(one(*pair) for pair in zip(texts, moments, strict=True)))
        await asyncio.sleep(0.5)

    await wave(scale.submissions // 10)
    before = _held()
    await wave(scale.submissions)
    after = _held()
    late = [(call.began - gone[text]) * 1000 for call in calls(spec) for text in call.texts if text in gone]
    encoded = sum(len(call.texts) for call in calls(spec))
    after_cancel = [ms for ms in late if ms > 0]
    return {
        "submitted": scale.submissions + scale.submissions // 10,
        **ends,
        "texts_encoded": encoded,
        "encoded_after_cancel": len(after_cancel),
        "encoded_after_cancel_ms_most": round(max(after_cancel, default=0.0), 3),
        "before": before,
        "after": after,
    }


def _held() -> Figures:
    gc.collect()
    jobs = [each for each in gc.get_objects() if type(each).__name__ == "Job"]  # ours; nobody else has any
    futures = [each for each in gc.get_objects() if isinstance(each, asyncio.Future | concurrent.futures.Future)]
    me = psutil.Process()
    rss = sum(process.memory_info().rss for process in (me, *me.children(recursive=True)))
    return {
        "threads": me.num_threads(),
        "tickets": sum(each.state != "ended" for each in jobs if hasattr(each, "state")),
        "futures": sum(not each.done() for each in futures),
        "tasks": len(asyncio.all_tasks()),
        "rss_mb": round(rss / 2**20, 1),
    }


def journalled(spec: Spec, folder: str, name: str) -> Spec:
    """Return the spec with a journal of its own."""
    return replace(spec, journal=str(Path(folder) / f"{name}.jsonl"))
