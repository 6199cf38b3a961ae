"""The worker thread: order, results, errors, and an end that loses nobody."""

import asyncio
import threading

import pytest

from gardener.runtime import clock
from gardener.runtime.worker import Worker


def test_work_runs_in_order_on_one_other_thread() -> None:
    async def main() -> None:
        worker = Worker("test")
        seen: list[tuple[int, int]] = []
        for number in range(5):
            worker.submit(lambda n: seen.append((n, threading.get_ident())), number)
        last = await worker.run(threading.get_ident)
        worker.close()
        assert seen == [(number, last) for number in range(5)]
        assert last != threading.get_ident()

    asyncio.run(main())


def test_what_work_raises_reaches_who_waits() -> None:
    async def main() -> None:
        worker = Worker("test")
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        assert await worker.run(lambda: 3) == 3
        worker.close()

    asyncio.run(main())


def test_done_is_called_on_the_loop() -> None:
    async def main() -> None:
        worker = Worker("test")
        came: asyncio.Future[tuple[object, object, int]] = asyncio.Future()
        worker.call(
            lambda result, error, _: came.set_result((result, error, threading.get_ident())),
            lambda: "result",
        )
        assert await came == ("result", None, threading.get_ident())
        worker.close()

    asyncio.run(main())


def test_it_says_how_long_the_work_took_without_the_wait() -> None:
    times = iter([10.0, 11.5, 20.0, 20.25])

    async def main() -> None:
        worker = Worker("test")
        first: asyncio.Future[float] = asyncio.Future()
        second: asyncio.Future[float] = asyncio.Future()
        with clock.using(lambda: next(times)):
            worker.call(lambda _, error, seconds: first.set_result(seconds), lambda: None)
            worker.call(lambda _, error, seconds: second.set_result(seconds), lambda: 1 // 0)
            assert (await first, await second) == (1.5, 0.25)
        worker.close()

    asyncio.run(main())


def test_closing_drops_what_has_not_begun() -> None:
    async def main() -> None:
        worker = Worker("test")
        hold, begun = threading.Event(), threading.Event()
        seen: list[int] = []

        def first() -> None:
            begun.set()
            hold.wait()
            seen.append(1)

        worker.submit(first)
        worker.submit(seen.append, 2)
        begun.wait()
        # `close` waits for the first one, and that one for the timer.
        threading.Timer(0.05, hold.set).start()
        worker.close()
        assert seen == [1]

    asyncio.run(main())


def test_a_waiter_that_left_is_no_problem() -> None:
    async def main() -> None:
        worker = Worker("test")
        hold = threading.Event()
        waiting = asyncio.create_task(worker.run(hold.wait))
        await asyncio.sleep(0)
        waiting.cancel()
        hold.set()
        assert await worker.run(lambda: 4) == 4
        worker.close()

    asyncio.run(main())
