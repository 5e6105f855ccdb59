import asyncio

import pytest

from phikit.ask.budget import Budget, BudgetExhausted, Prices
from phikit.ask.pace import Breaker, EndpointDown, Gate, backoff


def test_reserved_and_spent_never_exceed_the_limit():
    async def main():
        budget = Budget(tokens=100)
        first = await budget.reserve(30, 50)
        assert budget.left == 20
        waiting = asyncio.ensure_future(budget.reserve(20, 20))
        await asyncio.sleep(0)
        assert not waiting.done()  # does not fit now, but the first may give some back
        first.settle(30, 10)
        second = await waiting
        assert budget.left == 20
        second.settle(None, None)  # unknown usage counts as reserved
        second.release()  # closed already: does nothing
        assert budget.tokens == 80
        with pytest.raises(BudgetExhausted, match=r"up to 21 tokens; 80 of 100"):
            await budget.reserve(1, 20)
        (await budget.reserve(10, 10)).release()
        assert (budget.tokens, budget.left) == (80, 20)

    asyncio.run(main())


def test_money_is_a_limit_too():
    async def main():
        budget = Budget(money=1.0, prices=Prices(prompt=1.0, completion=2.0))
        (await budget.reserve(200_000, 300_000)).settle(200_000, 300_000)
        assert budget.money == pytest.approx(0.8)
        with pytest.raises(BudgetExhausted, match=r"0\.8000 of 1\.0000"):
            await budget.reserve(0, 200_000)

    asyncio.run(main())
    with pytest.raises(ValueError, match="prices"):
        Budget(money=1.0)


def test_gate_halves_once_for_one_overload_and_grows_by_one():
    async def main():
        gate = Gate(16)
        generations = [await gate.enter() for _ in range(16)]
        for g in generations:
            gate.overload(g)
            gate.leave()
        assert gate.limit == 8
        for _ in range(8):
            gate.success()
        assert gate.limit == 9
        for _ in range(30):
            gate.overload(gate.generation)
        assert gate.limit == 1
        assert gate.under_way == 0
        await gate.enter()
        blocked, cancelled = asyncio.ensure_future(gate.enter()), asyncio.ensure_future(gate.enter())
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
        assert not blocked.done()
        gate.leave()
        await asyncio.wait_for(blocked, 1)

    asyncio.run(main())


def test_breaker_counts_only_failures_in_a_row():
    breaker = Breaker(2, "http://x#m")
    breaker.failure("a")
    breaker.success()
    breaker.failure("b")
    breaker.check()
    breaker.failure("503 last words")
    with pytest.raises(EndpointDown, match="503 last words"):
        breaker.check()


def test_backoff_grows_to_its_cap():
    assert 0.5 <= backoff(1, 1.0, 30.0) <= 1.5
    assert 15.0 <= backoff(20, 1.0, 30.0) <= 45.0
