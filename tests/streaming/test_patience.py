"""One timer for many waits: it ends those that take too long, and only those."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from niruhybrid.streaming.patience import Patience

Run = Callable[[Callable[[Patience], Awaitable[None]]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return what runs a scenario, on each of the event loops that servers run on."""
    factory = pytest.importorskip("uvloop").new_event_loop if request.param == "uvloop" else None

    def running(scenario: Callable[[Patience], Awaitable[None]]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_bounded(scenario))

    return running


async def _bounded(scenario: Callable[[Patience], Awaitable[None]]) -> None:
    patience = Patience()
    try:
        async with asyncio.timeout(5):
            await scenario(patience)
    finally:
        patience.close()


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_wait_ends_at_its_limit_whatever_came_before(run: Run, before: int) -> None:
    async def scenario(patience: Patience) -> None:
        for _ in range(before):
            with patience.within(60):
                await asyncio.sleep(0)
        with pytest.raises(TimeoutError), patience.within(0.01):
            await forever()
        assert patience.expired
        with patience.within(60):
            await asyncio.sleep(0)
        assert not patience.expired

    run(scenario)


def test_a_limit_that_is_over_at_once_leaves_the_next_waits_alone(run: Run) -> None:
    async def scenario(patience: Patience) -> None:
        for seconds in (0, -1, 0, 60):
            with patience.within(seconds):
                pass  # what does not wait can't wait for too long
        with patience.within(60):
            for _ in range(5):
                await asyncio.sleep(0)
        assert not patience.expired

    run(scenario)


def test_a_later_limit_counts_from_its_own_beginning(run: Run) -> None:
    async def scenario(patience: Patience) -> None:
        loop, fired = asyncio.get_running_loop(), asyncio.Event()
        with patience.within(0.02):
            began = loop.time()
        loop.call_later(0.04, fired.set)  # when the timer of the first wait has fired
        with patience.within(60):
            await fired.wait()
        assert not patience.expired
        with pytest.raises(TimeoutError), patience.within(0.02):
            await forever()
        assert loop.time() - began >= 0.05  # an event loop may count in milliseconds

    run(scenario)


def test_a_cancellation_from_outside_is_no_timeout(run: Run) -> None:
    async def scenario(patience: Patience) -> None:
        waiting = asyncio.Event()

        async def wait() -> None:
            with patience.within(60):
                waiting.set()
                await forever()

        task = asyncio.ensure_future(wait())
        await waiting.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not patience.expired

    run(scenario)


def test_a_cancellation_beside_the_limit_stays_one(run: Run) -> None:
    async def scenario(patience: Patience) -> None:
        async def wait() -> None:
            with patience.within(0):
                try:
                    await forever()
                except asyncio.CancelledError:
                    task.cancel()  # somebody else wants it to end, too
                    raise

        task = asyncio.ensure_future(wait())
        await asyncio.wait([task])
        assert task.cancelled()

    run(scenario)


def test_what_is_raised_inside_is_raised_even_if_it_is_a_timeout(run: Run) -> None:
    async def scenario(patience: Patience) -> None:
        for error in (ValueError("other"), TimeoutError("its own")):
            with pytest.raises(type(error), match=str(error)), patience.within(60):
                raise error
            assert not patience.expired

    run(scenario)


def test_a_wait_of_each_task_is_that_tasks_own(run: Run) -> None:
    async def scenario(patience: Patience) -> None:
        async def wait(seconds: float) -> None:
            with patience.within(seconds):
                await (asyncio.sleep(0) if seconds else forever())

        await asyncio.ensure_future(wait(60))
        with pytest.raises(TimeoutError):
            await asyncio.ensure_future(wait(0))

    run(scenario)


def test_no_timer_is_left_behind() -> None:
    async def main() -> None:
        loop, patience = asyncio.get_running_loop(), Patience()
        with patience.within(0.01):
            pass
        patience.close()
        patience.close()
        fired = asyncio.Event()
        loop.call_later(0.02, fired.set)
        await fired.wait()
        assert patience._timer is None

    asyncio.run(main())


def test_a_wait_outside_of_a_task_is_refused() -> None:
    async def main() -> None:
        patience, failed = Patience(), asyncio.get_running_loop().create_future()

        def outside() -> None:
            try:
                with patience.within(1):
                    pass
            except RuntimeError as err:
                failed.set_result(str(err))

        asyncio.get_running_loop().call_soon(outside)
        assert "make one" in await failed

    asyncio.run(main())
