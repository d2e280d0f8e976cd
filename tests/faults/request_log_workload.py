"""An application that serves requests and logs them."""

from __future__ import annotations

import threading
import time
from uuid import UUID

from tests.faults.child import hear, ready, report

import mindia
from mindia import Settings
from mindia.request_logging import RequestLogMiddleware

CAPACITY = 500


def serve(url: str, tenant_id: str) -> None:
    """Serve requests until told to stop; report what became of them."""
    settings = Settings(request_log_capacity=CAPACITY, pool_timeout_s=0.5)
    with mindia.connect(url, storage=mindia.MemoryStorage(), settings=settings) as app:
        tenant = UUID(tenant_id)

        def answer(_: object, start: object) -> list[bytes]:
            start("200 OK", [])  # type: ignore[operator]  # as the server hands it in
            return [b"ok"]

        wsgi = RequestLogMiddleware(answer, mindia=app, tenant=lambda _: tenant)
        stopped = threading.Event()
        served = 0
        most_waiting = 0

        def wait_for_the_end() -> None:
            hear()
            stopped.set()

        threading.Thread(target=wait_for_the_end, daemon=True).start()
        ready()
        while not stopped.is_set():
            wsgi({"REQUEST_METHOD": "GET", "PATH_INFO": f"/media/{served}"}, lambda *_: None)
            served += 1
            state = app.request_log.buffer
            most_waiting = max(most_waiting, state.waiting)
            if served % 50 == 0:
                report(f"state {state.written} {state.dropped}")
            time.sleep(0.002)
        app.request_log.flush()
        state = app.request_log.buffer
        report(f"end {served} {state.written} {state.dropped} {most_waiting}")
