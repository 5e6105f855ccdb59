"""A hard budget for teacher calls, in tokens and, if prices are given, money."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


class BudgetExhausted(RuntimeError):
    """The next request does not fit what is left. Everything asked so far is in the request log."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Money per million prompt and completion tokens."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, prompt: int, completion: int) -> float:
        return (prompt * self.prompt + completion * self.completion) / 1e6


class Budget:
    """Limits are None for none. A request reserves its worst case (prompt + max_tokens) before it is sent and
    settles what it really took; replayed answers take nothing. Spent plus reserved never exceeds a limit.

    A request that does not fit now waits while others may still give back what they reserved. Teachers may share
    a budget, each with prices of its own."""

    def __init__(
        self, tokens: int | None = None, money: float | None = None, prices: Prices | None = None
    ) -> None:
        if money is not None and prices is None:
            raise ValueError("a money budget needs prices (per million prompt and completion tokens)")
        self.limit, self.money_limit, self.prices = tokens, money, prices or Prices()
        self.tokens = 0
        self.money = 0.0
        self._reserved_tokens = 0
        self._reserved_money = 0.0
        self._open = 0
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def left(self) -> int | None:
        """Tokens neither spent nor reserved."""
        return None if self.limit is None else self.limit - self.tokens - self._reserved_tokens

    def charge(self, prompt: int, completion: int, prices: Prices | None = None) -> None:
        """Counts what was spent before: by an earlier run that wrote the same request log."""
        self.tokens += prompt + completion
        self.money += (prices or self.prices).cost(prompt, completion)

    async def reserve(self, prompt: int, completion: int, prices: Prices | None = None) -> Reservation:
        """Raises BudgetExhausted when the request does not fit and nothing under way could change that."""
        prices = prices or self.prices
        need, cost = prompt + completion, prices.cost(prompt, completion)
        while not self._fits(need, cost):
            if not self._open:
                raise BudgetExhausted(self._message(need, cost))
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        self._reserved_tokens += need
        self._reserved_money += cost
        self._open += 1
        return Reservation(self, prompt, completion, prices)

    def _fits(self, need: int, cost: float) -> bool:
        if self.limit is not None and self.tokens + self._reserved_tokens + need > self.limit:
            return False
        return self.money_limit is None or self.money + self._reserved_money + cost <= self.money_limit

    def _message(self, need: int, cost: float) -> str:
        text = (
            f"the next request needs up to {need:,} tokens; {self.tokens:,} of {self.limit or 0:,} are spent"
        )
        if self.limit is None:
            text = (
                f"the next request costs up to {cost:.4f}, {self.money:.4f} of {self.money_limit:.4f} spent"
            )
        return (
            f"teacher budget: {text}. Raise the budget and run again: what was answered is replayed for free"
        )

    def _close(self, reserved: tuple[int, int], used: tuple[int, int], prices: Prices) -> None:
        self._reserved_tokens -= sum(reserved)
        self._reserved_money -= prices.cost(*reserved)
        self.charge(*used, prices)
        self._open -= 1
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Reservation:
    """Closed once: by `settle` with the tokens used, or by `release` when nothing was computed."""

    def __init__(self, budget: Budget, prompt: int, completion: int, prices: Prices) -> None:
        self.prompt, self.completion, self._prices = prompt, completion, prices
        self._budget: Budget | None = budget
        self.used = (0, 0)  # prompt and completion tokens that were charged

    def settle(self, prompt: int | None, completion: int | None) -> None:
        """None is "unknown" and counts as what was reserved."""
        used = (
            self.prompt if prompt is None else prompt,
            self.completion if completion is None else completion,
        )
        budget, self._budget = self._budget, None
        if budget is not None:
            self.used = used
            budget._close((self.prompt, self.completion), used, self._prices)

    def release(self) -> None:
        self.settle(0, 0)
