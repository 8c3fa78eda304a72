"""Services with limits, and a map that asks them, in virtual time: a few thousand calls take milliseconds."""

import heapq
import random
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

import attrs

from ctxcache import RateLimitError, Retry
from ctxcache.managed.mapping.limiter import Call, Limiter

TURN = 2e-4  # seconds of one turn of an event loop


class Service(Protocol):
    """Takes a call, or refuses it."""

    def take(self, now: float) -> tuple[bool, float | None]:
        """Return whether a call is taken now, and the `Retry-After` if not."""
        ...

    def release(self) -> None:
        """End a call."""
        ...

    def ideal(self, questions: int, latency: float) -> float:
        """Return the seconds an all-knowing client needs."""
        ...


class AtOnce:
    """Takes so many calls at once; `most` may change with time."""

    def __init__(self, most: int | Callable[[float], int], retry_after: float | None = None) -> None:
        self.most = (lambda _: most) if isinstance(most, int) else most
        self.retry_after = retry_after
        self.running = 0

    def take(self, now: float) -> tuple[bool, float | None]:
        """Take a call if a slot is free."""
        if self.running >= self.most(now):
            return False, self.retry_after
        self.running += 1
        return True, None

    def release(self) -> None:
        """Free a slot."""
        self.running -= 1

    def ideal(self, questions: int, latency: float) -> float:
        """Keep all slots busy."""
        now, done = 0.0, 0.0
        while done < questions:
            now += latency / 10
            done += self.most(now) / 10
        return now


class Bucket:
    """Takes `rate` calls a second, and up to `burst` at once after a rest."""

    def __init__(self, rate: float, burst: int, retry_after: float | None = None) -> None:
        self.rate, self.burst, self.retry_after = rate, burst, retry_after
        self.tokens, self.filled_at = float(burst), 0.0

    def take(self, now: float) -> tuple[bool, float | None]:
        """Take a call if a token is left."""
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.tokens < 1:
            return False, self.retry_after
        self.tokens -= 1
        return True, None

    def release(self) -> None:
        """Free nothing."""

    def ideal(self, questions: int, latency: float) -> float:
        """Use the burst, then each token."""
        return max(questions - self.burst, 0) / self.rate + latency


class Window:
    """Takes so many calls in each window of some seconds: of the clock, or the last ones (`sliding`)."""

    def __init__(self, most: int, seconds: float, *, sliding: bool, names_wait: bool) -> None:
        self.most, self.seconds, self.sliding, self.names_wait = most, seconds, sliding, names_wait
        self.taken: deque[float] = deque()

    def take(self, now: float) -> tuple[bool, float | None]:
        """Take a call if the window has room."""
        begin = now - self.seconds if self.sliding else now // self.seconds * self.seconds
        while self.taken and self.taken[0] < begin:
            self.taken.popleft()
        if len(self.taken) < self.most:
            self.taken.append(now)
            return True, None
        end = (self.taken[0] if self.sliding else begin) + self.seconds
        return False, end - now if self.names_wait else None

    def release(self) -> None:
        """Free nothing."""

    def ideal(self, questions: int, latency: float) -> float:
        """Keep the rate."""
        return questions * self.seconds / self.most


@attrs.frozen
class Outcome:
    """How a simulated map went.

    Attributes:
        share: its rate, as a share of the rate an all-knowing client reaches.
        refused: the share of calls that got a 429.
        failed: questions given up.
        early: calls that started before a `Retry-After` had passed.
    """

    share: float
    refused: float
    failed: int
    early: int


class Simulation:
    """One map over a service.

    Args:
        service: the service.
        questions: their number.
        latency: seconds of an answer.
        jitter: the latency varies at random by this share; None: exponentially.
        seed: of the randomness.
        concurrency: of the map.
    """

    def __init__(
        self,
        service: Service,
        questions: int,
        latency: float,
        *,
        jitter: float | None = 0.0,
        seed: int = 0,
        concurrency: int = 64,
    ) -> None:
        self.service, self.questions, self.latency, self.jitter = service, questions, latency, jitter
        self.random = random.Random(seed)  # for a simulation
        self.limiter = Limiter(concurrency, Retry())
        self.events: list[tuple[float, int, str, Call | None, float | None]] = []
        self.order = count()
        self.now = 0.0
        self.waiting = questions
        self.calls = self.refused = self.failed = self.answered = self.early = 0
        self.named_until = 0.0

    def run(self) -> Outcome:
        """Ask all questions."""
        ideal = self.service.ideal(self.questions, self.latency)
        woken = None
        while self.answered + self.failed < self.questions:
            while self.waiting and self.limiter.may_start(self.now):
                self.start()
            resume_at = self.limiter.resume_at
            if self.waiting and self.now < resume_at != woken:
                woken = resume_at
                self.at(resume_at + self.random.random() * 5e-4, "wake")  # timers ring late
            # An event loop sees all that came meanwhile before a task starts the next call.
            turn = self.events[0][0] + TURN
            while self.events and self.events[0][0] <= turn:
                self.now, _, kind, call, retry_after = heapq.heappop(self.events)
                if kind == "release":
                    self.service.release()
                elif call is not None:
                    self.end(kind, call, retry_after)
        return Outcome(ideal / self.now, self.refused / self.calls, self.failed, self.early)

    def at(self, when: float, kind: str, call: Call | None = None, retry_after: float | None = None) -> None:
        """Plan an event."""
        heapq.heappush(self.events, (when, next(self.order), kind, call, retry_after))

    def start(self) -> None:
        """Start a call."""
        call = self.limiter.start(self.now)
        self.waiting -= 1
        self.calls += 1
        self.early += self.now < self.named_until
        taken, retry_after = self.service.take(self.now)
        if taken:
            end = self.now + self.seconds()
            self.at(end, "release")
            self.at(end + self.random.random() * 1e-4, "answer", call)  # on its way back
        else:
            self.at(self.now + 0.001 + self.random.random() * 0.002, "refusal", call, retry_after)

    def seconds(self) -> float:
        """How long an answer takes."""
        if self.jitter is None:
            return self.latency * self.random.expovariate(1)
        return self.latency * (1 + self.jitter * self.random.uniform(-1, 1))

    def end(self, kind: str, call: Call, retry_after: float | None) -> None:
        """End a call."""
        if kind == "answer":
            self.limiter.succeeded(call, self.now)
            self.answered += 1
            return
        self.refused += 1
        self.named_until = max(self.named_until, self.now + (retry_after or 0))
        error = RateLimitError("too fast", status=429, retry_after=retry_after)
        if self.limiter.refused(call, error, self.now, self.random.random()):
            self.waiting += 1
        else:
            self.failed += 1


@attrs.define(eq=False)
class Process:
    """One of several processes, each with a map of its own."""

    limiter: Limiter
    waiting: int
    left: int
    woken: float | None = None
    looked_at: float = 0.0


class Processes:
    """Several processes over one service; those that share a store join each other's pauses.

    Args:
        service: the service.
        count: how many processes.
        questions: all questions, the same number for each process.
        latency: seconds of an answer on average, at random from half to one and a half of that.
        look: seconds between two looks at the store; None: nothing is shared.
        seed: of the randomness.

    Attributes:
        share: the rate until the first process is done, as a share of the rate of one all-knowing client.
        total_share: the rate until the last process is done.
        refused: the share of calls that got a 429.
        failed: questions given up.
    """

    def __init__(
        self, service: Service, count: int, questions: int, latency: float, *, look: float | None = 0.2, seed: int = 0
    ) -> None:
        self.service, self.latency, self.look = service, latency, look
        self.random = random.Random(seed)  # for a simulation
        each = questions // count
        self.processes = [Process(Limiter(64, Retry()), each, each) for _ in range(count)]
        self.events: list[tuple[float, int, str, Process | None, Call | None, float | None]] = []
        self.order = iter(range(10**9))
        self.now = self.paused_until = self.share = 0.0
        self.calls = self.refusals = self.failed = 0
        self.run(service.ideal(questions, latency), questions)

    def run(self, ideal: float, questions: int) -> None:
        """Ask all questions."""
        for process in self.processes:
            self.at(self.random.random() * 0.02, "wake", process)
        while any(process.left for process in self.processes):
            self.now, _, kind, process, call, retry_after = heapq.heappop(self.events)
            if process is None:
                self.service.release()
                continue
            self.end(kind, process, call, retry_after)
            if not process.left and not self.share:
                done = questions - sum(other.left for other in self.processes)
                self.share = done / questions * ideal / self.now
            while process.waiting and process.limiter.may_start(self.now):
                self.start(process)
            resume_at = process.limiter.resume_at
            if process.waiting and self.now < resume_at != process.woken:
                process.woken = resume_at
                self.at(resume_at + self.random.random() * 5e-4, "wake", process)
        self.total_share = ideal / self.now
        self.refused = self.refusals / self.calls

    def at(
        self,
        when: float,
        kind: str,
        process: Process | None = None,
        call: Call | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Plan an event."""
        heapq.heappush(self.events, (when, next(self.order), kind, process, call, retry_after))

    def start(self, process: Process) -> None:
        """Start a call; look at the store if that is due."""
        if self.look is not None and self.now >= process.looked_at + self.look:
            process.looked_at = self.now
            if self.paused_until > self.now:
                self.at(self.now + 0.002, "found", process, None, self.paused_until - self.now)
        process.waiting -= 1
        self.calls += 1
        call = process.limiter.start(self.now)
        taken, retry_after = self.service.take(self.now)
        if taken:
            end = self.now + self.latency * (0.5 + self.random.random())
            self.at(end, "release")
            self.at(end + self.random.random() * 1e-4, "answer", process, call)  # on its way back
        else:
            self.at(self.now + 0.001 + self.random.random() * 0.002, "refusal", process, call, retry_after)

    def end(self, kind: str, process: Process, call: Call | None, retry_after: float | None) -> None:
        """End a call, or a look at the store."""
        limiter = process.limiter
        if kind == "found":
            assert retry_after is not None
            limiter.hold(retry_after, self.now)
        if call is None:
            return
        if kind == "answer":
            process.left -= 1
            limiter.succeeded(call, self.now)
            return
        self.refusals += 1
        self.paused_until = max(self.paused_until, self.now + (retry_after or 0))
        error = RateLimitError("too fast", status=429, retry_after=retry_after)
        if limiter.refused(call, error, self.now, self.random.random()):
            process.waiting += 1
        else:
            process.left -= 1
            self.failed += 1


def simulate(make: Callable[[], Service], questions: int, latency: float, **options: Any) -> list[Outcome]:
    """Run with three seeds, for each of three kinds of latency: constant, jittered by a half, exponential."""
    return [
        Simulation(make(), questions, latency, jitter=jitter, seed=seed, **options).run()
        for jitter in (0.0, 0.5, None)
        for seed in range(3)
    ]
