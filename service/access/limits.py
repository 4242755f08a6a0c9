"""How often a key may be used: each has a bucket of tokens that fills as time goes by."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from service.callers import Caller
from service.problems import QuotaError, RateLimitedError

__all__ = ["Rates", "check_bytes", "check_jobs"]

_MOST = 100_000


@dataclass(slots=True)
class Rates:
    """How often each key was used lately. A second's worth may be used at once."""

    _buckets: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def use(self, caller: Caller) -> None:
        """Count a request.

        Raises:
            RateLimitedError: If there was one too many.
        """
        rate = caller.limits.requests_a_second
        if not rate:
            return
        now, most, name = time.monotonic(), max(rate, 1.0), (caller.tenant, caller.key)
        left, at = self._buckets.get(name, (most, now))
        left = min(most, left + (now - at) * rate)
        if left < 1.0:
            wait = math.ceil((1.0 - left) / rate)
            raise RateLimitedError(
                f"the key was used more often than {rate:g} times a second",
                hint="Ask less often, or ask whoever runs the service for more.",
                headers={"Retry-After": str(wait)},
            )
        if len(self._buckets) >= _MOST:
            self._buckets.clear()
        self._buckets[name] = (left - 1.0, now)


def check_jobs(caller: Caller, unfinished: int) -> None:
    """Refuse another job where the tenant has as many as it may.

    Raises:
        QuotaError: If there is one too many.
    """
    most = caller.limits.jobs
    if most and unfinished >= most:
        raise QuotaError(
            f"jobs of this tenant wait or run already: {unfinished} of {most}",
            hint="Wait for one to end, or cancel one.",
            members={"limit": most},
            headers={"Retry-After": "5"},
        )


def check_bytes(caller: Caller, uploaded: int, size: int) -> None:
    """Refuse an upload where the tenant has sent as much in a day as it may.

    Args:
        caller: Who sends it.
        uploaded: How many bytes were sent in 24 hours.
        size: How many bytes this one has.

    Raises:
        QuotaError: If that is too much.
    """
    most = caller.limits.bytes_a_day
    if most and uploaded + size > most:
        raise QuotaError(
            f"this tenant sent {uploaded} bytes in 24 hours; {size} more are beyond the {most} that it may send",
            hint="Try again later, or ask whoever runs the service for more.",
            members={"limit": most},
            headers={"Retry-After": "3600"},
        )
