"""Being told to wait is no attempt: the whole actor pauses, goes on slower, and nothing is lost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import pytest

from baton_actors.models import ModelAnswer, ModelError, Models, Pace
from baton_actors.models.speed import Speed

from .model_servers import RatedServer, request_for, settings_for, start_rated
from .virtual_time import run_virtually


class MinuteProvider:
    """Answers `allowed` calls a minute, each in 4 s, and tells the others to wait, as documented by the API."""

    def __init__(self, allowed: int, says_when: bool) -> None:
        self._allowed, self._says_when = allowed, says_when
        self._window: list[float] = []
        self.refused = 0

    async def answer(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self._window = [at for at in self._window if now_s - at < 60.0]
        if len(self._window) >= self._allowed:
            self.refused += 1
            await asyncio.sleep(0.1)
            raise overload(60.0 - (now_s - self._window[0]) if self._says_when else None)
        self._window.append(now_s)
        await asyncio.sleep(4.0)


def evenly() -> float:
    return 0.0


@pytest.fixture
def speed() -> Speed:
    return Speed(evenly)


@pytest.fixture(name="rated")
def rated_server() -> Iterator[RatedServer]:
    with start_rated() as server:
        yield server


def overload(retry_after_s: float | None = None) -> ModelError:
    return ModelError(
        type="overloaded_error", message="Sorry.", retryable=True, overloaded=True, retry_after_s=retry_after_s
    )


def start_calls(speed: Speed, count: int) -> None:
    for _ in range(count):
        assert speed.may_start(0.0)
        speed.start()


def test_without_overloads_there_is_no_limit(speed: Speed) -> None:
    start_calls(speed, 10_000)
    assert speed.may_start(0.0)


def test_actor_pauses_until_the_time_that_the_provider_gave(speed: Speed) -> None:
    start_calls(speed, 1)
    assert speed.overloaded(10.0, 9.0, 7.5) == 7.5
    speed.end()
    assert not speed.may_start(17.4)
    assert speed.may_start(17.5)


def test_pause_without_a_time_doubles_from_a_second_to_a_minute(speed: Speed) -> None:
    pauses, now_s = [], 0.0
    for _ in range(8):
        pauses.append(speed.overloaded(now_s, now_s, None))
        now_s = speed.paused_until
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    speed.succeeded(now_s)
    assert speed.overloaded(now_s, now_s, None) == 1


def test_pause_is_never_shorter_than_asked_and_differs_between_processes() -> None:
    late = Speed(lambda: 1.0)
    assert late.overloaded(0.0, 0.0, 10.0) == pytest.approx(11.0)


def test_overload_halves_what_is_in_flight_and_a_burst_counts_once(speed: Speed) -> None:
    start_calls(speed, 60)
    for _ in range(55):
        speed.overloaded(1.0, 0.0, 1.0)
        speed.end()
    assert speed.limit == 30
    speed.overloaded(3.0, 2.5, 1.0)
    assert speed.limit == max(1, 5 // 2)


def test_limit_is_never_less_than_one(speed: Speed) -> None:
    for now_s in range(5):
        speed.overloaded(now_s, now_s, 0.5)
    assert speed.limit == 1


def test_limit_grows_by_one_for_each_window_of_successes(speed: Speed) -> None:
    start_calls(speed, 8)
    speed.overloaded(0.0, 0.0, 1.0)
    limits = []
    for _ in range(15):
        speed.succeeded(2.0)
        limits.append(speed.limit)
    assert limits == [4] * 3 + [5] * 5 + [6] * 6 + [7]


def test_limit_is_soon_back_after_an_outage(speed: Speed) -> None:
    start_calls(speed, 64)
    for now_s in range(10):
        speed.overloaded(now_s, now_s, 0.5)
    assert speed.limit == 1
    for _ in range(31):
        speed.succeeded(20.0)
    assert speed.limit == 32
    speed.succeeded(20.0)
    assert speed.limit == 32


def test_word_of_another_process_pauses_and_slows_once(speed: Speed) -> None:
    start_calls(speed, 8)
    speed.told(0.0, 5.0)
    speed.told(0.1, 5.0)
    assert speed.limit == 4
    assert speed.paused_until == pytest.approx(5.1)


@pytest.mark.parametrize(("says_when", "took_s_max"), [(True, 75.0), (False, 100.0)])
def test_sixty_calls_at_fifty_a_minute_all_succeed_in_little_more_than_a_minute(
    says_when: bool, took_s_max: float
) -> None:
    provider = MinuteProvider(50, says_when)

    async def main() -> float:
        pace = Pace("a", speed=Speed(evenly))
        await asyncio.gather(*(pace.run(provider.answer) for _ in range(60)))
        return asyncio.get_running_loop().time()

    assert run_virtually(main()) <= took_s_max
    assert 10 <= provider.refused <= 40


def test_thousand_calls_at_fifty_a_minute_lose_none_and_keep_the_rate() -> None:
    provider = MinuteProvider(50, says_when=True)

    async def main() -> float:
        pace, slots = Pace("a"), asyncio.Semaphore(64)

        async def step() -> None:
            async with slots:
                await pace.run(provider.answer)

        await asyncio.gather(*(step() for _ in range(1000)))
        return asyncio.get_running_loop().time()

    # 1,000 at 50 a minute are 19 minutes; each minute ends with a few refusals, by which the limit is found.
    assert run_virtually(main()) <= 19 * 60 * 1.25
    assert provider.refused <= 300


def test_outage_of_half_an_hour_costs_no_call() -> None:
    async def main() -> float:
        pace, loop = Pace("a"), asyncio.get_running_loop()

        async def call() -> None:
            await asyncio.sleep(2.0)
            if loop.time() < 1800:
                raise overload()

        await asyncio.gather(*(pace.run(call) for _ in range(200)))
        return loop.time()

    assert run_virtually(main()) <= 1800 + 120


def test_outage_of_two_hours_ends_each_step_after_one_with_a_final_error() -> None:
    async def main() -> list[BaseException | None]:
        pace = Pace("a")

        async def call() -> None:
            raise overload()

        return await asyncio.gather(*(pace.run(call) for _ in range(50)), return_exceptions=True)

    errors = run_virtually(main())
    assert {error.type for error in errors if isinstance(error, ModelError)} == {"overloaded"}
    assert len(errors) == 50


def test_provider_that_says_in_six_hours_is_not_asked_by_all_calls_in_turn() -> None:
    calls = 0

    async def main() -> float:
        pace = Pace("a")

        async def call() -> None:
            nonlocal calls
            calls += 1
            raise overload(6 * 3600.0)

        first = await asyncio.gather(pace.run(call), return_exceptions=True)
        rest = await asyncio.gather(*(pace.run(call) for _ in range(50)), return_exceptions=True)
        assert all(isinstance(error, ModelError) and not error.retryable for error in [*first, *rest])
        ended_s = asyncio.get_running_loop().time()
        # A later step tries whether the word still holds, once the hour is over.
        assert await pace.run(answer_at_once) == "done"
        assert asyncio.get_running_loop().time() <= 2 * 3600.0
        return ended_s

    assert run_virtually(main()) == pytest.approx(3600.0, abs=1.0)
    assert calls == 1


def test_provider_that_always_says_at_once_is_not_asked_without_end() -> None:
    calls = 0

    async def main() -> None:
        async def call() -> None:
            nonlocal calls
            calls += 1
            raise overload(0.0)

        with pytest.raises(ModelError, match="overload_max_s"):
            await Pace("a").run(call)

    run_virtually(main())
    assert calls < 100


def test_calls_wait_for_their_turn_for_hours_as_long_as_others_are_answered() -> None:
    async def main() -> float:
        pace = Pace("a")
        pace.heard(1.0)
        await asyncio.gather(*(pace.run(lambda: asyncio.sleep(600.0)) for _ in range(100)))
        return asyncio.get_running_loop().time()

    assert run_virtually(main()) > 3600.0


async def test_sixty_calls_at_twenty_a_second_all_succeed_over_http(rated: RatedServer) -> None:
    pace = Pace("a", speed=Speed(evenly, pause_base_s=0.1))
    answers = await calls_through([pace], rated, 60)
    assert len(answers) == 60
    assert rated.answered == 60
    assert rated.refused > 0


async def test_retry_after_is_kept_by_all_calls_of_the_actor(rated: RatedServer) -> None:
    rated.retry_after = True
    answers = await calls_through([Pace("a")], rated, 30)
    assert len(answers) == 30
    # Each burst that is sent too early costs refusals: the first one all but 5, the next ones ever fewer.
    assert rated.refused <= 60


async def test_processes_of_an_actor_share_what_one_was_told(rated: RatedServer) -> None:
    paces: list[Pace] = []
    told: list[float] = []

    def tell(pause_s: float) -> None:
        told.append(pause_s)
        for pace in paces:
            pace.heard(pause_s)

    paces.extend(Pace(f"{number}", tell=tell, speed=Speed(evenly, pause_base_s=0.1)) for number in range(2))
    answers = await calls_through(paces, rated, 40)
    assert len(answers) == 40
    assert 0 < len(told) < rated.refused


async def calls_through(paces: list[Pace], server: RatedServer, count: int) -> list[ModelAnswer]:
    async with Models(settings_for(server.url)) as models:

        async def answer() -> ModelAnswer:
            return await models.complete(request_for())

        return await asyncio.gather(*(paces[number % len(paces)].run(answer) for number in range(count)))


async def test_overload_inside_a_stream_is_a_wait_and_tells_what_it_took(rated: RatedServer) -> None:
    rated.inside_streams = True
    noted: list[ModelError] = []

    async def note(wait_s: float, error: ModelError | None) -> None:
        assert error is not None
        noted.append(error)

    rated.refuse_next = 1
    async with Models(settings_for(rated.url)) as models:
        pace = Pace("a", speed=Speed(evenly, pause_base_s=0.05))
        answer = await pace.run(lambda: models.complete(request_for()), on_wait=note)
    assert answer.text == "Yes."
    assert [error.type for error in noted] == ["overloaded_error"]
    assert noted[0].usage is not None
    assert noted[0].usage.input_tokens == 12


async def test_caller_is_told_before_the_wait_so_that_it_can_be_noted() -> None:
    events: list[str] = []

    async def call() -> str:
        events.append("call")
        if events.count("call") == 1:
            raise overload(0.05)
        return "done"

    async def note(wait_s: float, error: ModelError | None) -> None:
        assert error is not None
        events.append(f"{error.type}, {wait_s:.2f} s")

    assert await Pace("a", speed=Speed(evenly)).run(call, on_wait=note) == "done"
    assert events == ["call", "overloaded_error, 0.05 s", "call"]


async def test_call_that_waits_only_for_others_is_noted_without_an_error() -> None:
    pace = Pace("a", speed=Speed(evenly))
    pace.heard(0.05)
    noted: list[tuple[float, ModelError | None]] = []

    async def note(wait_s: float, error: ModelError | None) -> None:
        noted.append((wait_s, error))

    assert await pace.run(answer_at_once, on_wait=note) == "done"
    assert [error for _, error in noted] == [None]
    assert 0 < noted[0][0] <= 0.05


async def test_patience_ends_after_overload_max_s_and_the_error_is_final() -> None:
    calls = 0

    async def call() -> str:
        nonlocal calls
        calls += 1
        raise overload()

    pace = Pace("writer", overload_max_s=0.3, speed=Speed(evenly, pause_base_s=0.05))
    with pytest.raises(ModelError, match=r"overload_max_s is 0\.3.*Sorry") as caught:
        await pace.run(call)
    assert (caught.value.type, caught.value.retryable, caught.value.overloaded) == ("overloaded", False, False)
    assert calls > 1


async def test_patience_counts_from_the_first_overload_of_the_step_over_its_tries() -> None:
    calls = 0

    async def call() -> str:
        nonlocal calls
        calls += 1
        raise overload(5.0)

    with pytest.raises(ModelError, match="waited 3598 s and is to wait 5 s more"):
        await Pace("a", speed=Speed(evenly)).run(call, waited_s=3598.0)
    assert calls == 1


async def test_queued_call_loses_patience_when_nobody_is_answered() -> None:
    pace = Pace("a", overload_max_s=0.1, speed=Speed(evenly))
    blocked = asyncio.create_task(pace.run(forever))
    await asyncio.sleep(0)
    pace.heard(0.01)
    with pytest.raises(ModelError, match="overload_max_s"):
        await pace.run(answer_at_once)
    blocked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await blocked


async def test_waiting_call_can_be_cancelled_at_once_and_leaves_no_trace() -> None:
    pace = Pace("a", speed=Speed(evenly))
    pace.heard(1000.0)
    waiting = [asyncio.create_task(pace.run(answer_at_once)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 1)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)


async def test_cancelled_call_gives_its_place_to_the_next() -> None:
    pace = Pace("a", speed=Speed(evenly))
    pace.heard(0.01)
    first = asyncio.create_task(pace.run(forever))
    second = asyncio.create_task(pace.run(answer_at_once))
    done, _ = await asyncio.wait([second], timeout=0.1)
    assert not done
    first.cancel()
    assert await asyncio.wait_for(second, 5) == "done"


async def test_call_that_was_told_to_wait_goes_before_those_that_were_not() -> None:
    order: list[str] = []
    pace = Pace("a", speed=Speed(evenly))

    async def refused_once() -> None:
        order.append("first")
        if len(order) == 1:
            await asyncio.sleep(0)
            raise overload(0.02)

    async def other() -> None:
        order.append("other")

    pace.heard(0.01)
    await asyncio.gather(pace.run(refused_once), pace.run(other), pace.run(other))
    assert order == ["first", "first", "other", "other"]


async def test_calls_that_were_told_to_wait_go_on_in_the_order_of_that() -> None:
    order: list[int] = []
    pace = Pace("a", speed=Speed(evenly, pause_base_s=0.02))

    async def refused_once(number: int) -> None:
        order.append(number)
        if order.count(number) == 1:
            await asyncio.sleep(0)
            raise overload()

    await asyncio.gather(*(pace.run(lambda number=number: refused_once(number)) for number in range(5)))  # type: ignore[misc]
    assert order == [*range(5), *range(5)]


async def test_other_failures_pass_the_gate_as_they_are() -> None:
    async def call() -> None:
        raise ModelError(type="api_error", message="Oops", retryable=True)

    pace = Pace("a")
    with pytest.raises(ModelError, match="Oops"):
        await pace.run(call)
    assert await pace.run(answer_at_once) == "done"


@pytest.mark.parametrize("note_takes_s", [0.0, 0.05])
async def test_note_that_fails_ends_the_wait_and_frees_the_place(note_takes_s: float) -> None:
    async def fail(wait_s: float, error: ModelError | None) -> None:
        await asyncio.sleep(note_takes_s)
        raise RuntimeError("no log")

    pace = Pace("a", speed=Speed(evenly))
    pace.heard(0.01)
    with pytest.raises(RuntimeError, match="no log"):
        await pace.run(answer_at_once, on_wait=fail)
    assert await asyncio.wait_for(pace.run(answer_at_once), 5) == "done"


@pytest.mark.parametrize("pause_s", [math.nan, math.inf, -1.0, 0.0])
async def test_word_that_makes_no_sense_is_ignored(pause_s: float) -> None:
    pace = Pace("a")
    pace.heard(pause_s)
    assert await asyncio.wait_for(pace.run(answer_at_once), 1) == "done"


async def answer_at_once() -> str:
    return "done"


async def forever() -> str:
    await asyncio.Event().wait()
    raise AssertionError
