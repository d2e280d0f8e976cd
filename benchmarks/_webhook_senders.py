"""Senders of webhooks, each in a process of its own: `python -m benchmarks._webhook_senders KIND URL SECRET_KEY`.

KIND is `mindia`, a worker as hosts run it; `loop`, which sends one request after the other with `requests`; or `pool`,
which does so with 64 threads. The latter two claim, sign and record with Mindia's own functions, in batches, and keep
their connections to receivers: what differs is how requests are made.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from threading import local

from mindia.config import Settings
from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS
from mindia.db.units import OwnTransaction
from mindia.delivery.recording import ends_of, give_up
from mindia.delivery.signer import Signer
from mindia.domain.webhooks import Attempt, AttemptOutcome, ClaimedDelivery
from mindia.repositories import webhook_outbox

_THREADS = 64
_TIMEOUT_S = 15
_IDLE_S = 0.01


class _Outbox:
    """What both peers use of Mindia."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self._database = Database(url, settings=settings)
        self._unit = OwnTransaction(self._database, ACROSS_TENANTS)
        self._signer = Signer(settings)

    def claim(self, limit: int) -> list[ClaimedDelivery]:
        with self._database.transaction(ACROSS_TENANTS, single=True) as session:
            return session.ask(webhook_outbox.claim(limit=limit, lease=timedelta(minutes=10))).deliveries

    def record(self, attempts: Sequence[Attempt]) -> None:
        batch = ends_of(attempts, settings=self._settings)
        give_up(self._unit, self._unit.run(lambda session: session.ask(batch), single=True).failing)

    def sending(self) -> Callable[[ClaimedDelivery], Attempt]:
        """Return what sends with `requests`, over connections that each thread keeps."""
        import requests

        here = local()

        def send(delivery: ClaimedDelivery) -> Attempt:
            if not hasattr(here, "session"):
                here.session = requests.Session()
                here.session.trust_env = False  # looking for proxies in the environment costs time
                here.session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=100))
            started_at, begun = datetime.now(UTC), time.monotonic()
            outcome, status = AttemptOutcome.FAILED, None
            try:
                response = here.session.post(
                    delivery.url,
                    data=delivery.body,
                    headers=self._signer.headers(delivery, at=started_at),
                    timeout=_TIMEOUT_S,
                    allow_redirects=False,
                )
                status = response.status_code
                outcome = AttemptOutcome.DELIVERED if response.ok else AttemptOutcome.REJECTED
            except requests.RequestException:
                pass
            return Attempt(
                delivery=delivery,
                started_at=started_at,
                duration=timedelta(seconds=time.monotonic() - begun),
                outcome=outcome,
                status_code=status,
            )

        return send


def _loop(outbox: _Outbox) -> None:
    send = outbox.sending()
    while True:
        deliveries = outbox.claim(_THREADS)
        if not deliveries:
            time.sleep(_IDLE_S)
            continue
        outbox.record([send(delivery) for delivery in deliveries])


def _pool(outbox: _Outbox) -> None:
    send = outbox.sending()
    flying: set[Future[Attempt]] = set()
    with ThreadPoolExecutor(_THREADS) as threads:
        while True:
            # As many wait as there are threads, which so are never idle while ends are recorded and more is claimed.
            if len(flying) <= _THREADS:
                flying |= {threads.submit(send, delivery) for delivery in outbox.claim(2 * _THREADS - len(flying))}
            if not flying:
                time.sleep(_IDLE_S)
                continue
            ended, flying = wait(flying, return_when=FIRST_COMPLETED)
            if len(ended) < _THREADS // 4 and flying:
                more, flying = wait(flying, timeout=0.01)
                ended |= more
            outbox.record([future.result() for future in ended])


def main() -> None:
    """Send until the parent ends this process."""
    kind, url, secret_key = sys.argv[1:]
    settings = Settings(secret_key=secret_key, webhook_allow_private=True)
    if kind == "mindia":
        import mindia

        with mindia.connect(url, storage=mindia.MemoryStorage(), settings=settings) as app:
            worker = app.worker(concurrency=1)
            print("ready", flush=True)
            worker.run()
        return
    outbox = _Outbox(settings, url)
    print("ready", flush=True)
    {"loop": _loop, "pool": _pool}[kind](outbox)


if __name__ == "__main__":
    main()
