"""An embedder over HTTP, against a real server that misbehaves."""

from __future__ import annotations

import gc
import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.integration.model_server import Answer, ModelServer, Request, model_server, vectors_of

from mindia import OpenAICompatibleEmbedder, _http
from mindia._ids import uuid7
from mindia.embedding.base import Embedder
from mindia.embedding.vectors import Vectors
from mindia.errors import EmbeddingError, InvalidError, ProviderError, ProviderUnavailableError

_KEY = "sk-very-secret-0123456789"
_TENANT = uuid7()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client has waited between its tries; it does not really wait."""
    found: list[float] = []
    monkeypatch.setattr(_http, "_sleep", found.append)
    return found


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", _KEY)


@pytest.fixture(autouse=True)
def no_connection_is_left() -> Iterator[None]:
    yield
    gc.collect()  # a socket that was not closed is a warning, and so an error


def embedder(server: ModelServer, **how: Any) -> OpenAICompatibleEmbedder:
    return OpenAICompatibleEmbedder("small", base_url=server.url, **{"dimensions": 4, **how})


def test_texts_are_sent_with_their_prefixes_and_the_key() -> None:
    with model_server(vectors_of) as server:
        made = embedder(server, api_key_env="MODEL_KEY", query_prefix="query: ", document_prefix="passage: ")
        assert made.embed_documents(["a", "bb"]).shape == (2, 4)
        assert made.embed_queries(["c"]).shape == (1, 4)
    assert [request.path for request in server.requests] == ["/v1/embeddings"] * 2
    assert [body["input"] for body in server.bodies] == [["passage: a", "passage: bb"], ["query: c"]]
    assert {request.headers["Authorization"] for request in server.requests} == {f"Bearer {_KEY}"}
    assert all(body["model"] == "small" and "dimensions" not in body for body in server.bodies)


def test_dimensions_are_asked_for_where_that_is_wanted_and_texts_are_cut() -> None:
    with model_server(vectors_of) as server:
        embedder(server, request_dimensions=True, max_chars=3).embed_documents(["abcdef"])
    assert server.bodies[0]["dimensions"] == 4
    assert server.bodies[0]["input"] == ["abc"]
    assert "Authorization" not in server.requests[0].headers


def test_whatever_changes_the_vectors_changes_the_name() -> None:
    with model_server(vectors_of) as server:
        names = [
            embedder(server, **how).model_name
            for how in ({}, {"request_dimensions": True}, {"query_prefix": "q "}, {"document_prefix": "q "})
        ]
        assert len(set(names)) == 4
        assert names[0] == "small"
        assert embedder(server, name="ours").model_name == "ours"
        assert isinstance(embedder(server), Embedder)


def test_vectors_come_back_in_the_order_of_the_texts_whatever_the_order_of_the_answer() -> None:
    def shuffled(request: Request) -> Answer:
        data = [{"index": place, "embedding": [len(text), 1, 0, 0]} for place, text in enumerate(request.body["input"])]
        return Answer.of({"data": data[::-1]})

    with model_server(shuffled) as server:
        found = embedder(server).embed_documents(["a", "bb", "ccc"])
    assert found[:, 0].tolist() == [1, 2, 3]


def test_a_busy_server_is_asked_again_after_the_time_that_it_names(waits: list[float]) -> None:
    busy = Answer.of({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "3"})
    with model_server(busy, Answer(status=503), vectors_of) as server:
        assert embedder(server).embed_documents(["a"]).shape == (1, 4)
    assert len(server.requests) == 3
    assert waits[0] == 3
    assert 0 < waits[1] < 2


def test_a_wait_that_is_too_long_is_left_to_the_caller(waits: list[float]) -> None:
    with (
        model_server(Answer(status=429, headers={"Retry-After": "600"})) as server,
        pytest.raises(ProviderUnavailableError, match="429") as raised,
    ):
        embedder(server).embed_documents(["a"])
    assert raised.value.retry_after is not None
    assert raised.value.retry_after.total_seconds() == 600
    assert raised.value.retryable
    assert not waits
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5", 5), ("0.5", 0.5), ("-4", 0), ("1e99", 86400), ("nan", None), ("soon", None), (None, None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)  # fmt: skip
def test_retry_after_is_read_in_all_its_forms(value: str | None, seconds: float | None) -> None:
    found = _http._retry_after(value)
    assert (None if found is None else found.total_seconds()) == seconds


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_a_server_that_goes_on_failing_is_given_up(status: int, waits: list[float]) -> None:
    with model_server(Answer(status=status)) as server, pytest.raises(ProviderUnavailableError, match=str(status)):
        embedder(server, max_retries=2).embed_documents(["a"])
    assert len(server.requests) == 3
    assert len(waits) == 2


@pytest.mark.parametrize("status", [400, 404, 413, 422, 301])
def test_a_refusal_is_not_repeated_and_says_what_the_server_said(status: int, waits: list[float]) -> None:
    said = Answer.of(
        {"error": {"message": "no\nsuch\x00 model"}}, status=status, headers={"Location": "http://127.0.0.1:1/"}
    )
    with model_server(said) as server, pytest.raises(ProviderError, match=str(status)) as raised:
        embedder(server).embed_documents(["a"])
    assert not isinstance(raised.value, ProviderUnavailableError)
    assert raised.value.status == status
    assert ("no such model" in str(raised.value)) == (status != 301)
    assert len(server.requests) == 1
    assert not waits


def test_the_key_stands_in_no_message() -> None:
    said = Answer.of({"error": {"message": f"Incorrect API key provided: {_KEY}"}}, status=401)
    with model_server(said) as server, pytest.raises(ProviderError, match="MODEL_KEY") as raised:
        embedder(server, api_key_env="MODEL_KEY").embed_documents(["a"])
    assert _KEY not in f"{raised.value} {raised.value!r} {embedder(server, api_key_env='MODEL_KEY')!r}"
    assert "***" in str(raised.value)


def test_a_key_that_is_missing_or_odd_is_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with model_server(vectors_of) as server:
        for odd in ("", "  ", "two\nlines", "schlüssel"):
            monkeypatch.setenv("MODEL_KEY", odd)
            with pytest.raises(ProviderError, match="MODEL_KEY"):
                embedder(server, api_key_env="MODEL_KEY").embed_documents(["a"])
    assert not server.requests


def test_a_key_in_place_of_its_name_is_refused_without_being_shown() -> None:
    with pytest.raises(InvalidError, match="name of an environment variable") as raised:
        OpenAICompatibleEmbedder("m", base_url="https://example.org/v1", dimensions=4, api_key_env=_KEY)
    assert _KEY not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:11434", "ftp://host/v1", "https://", "https://host/v1?key=1", "https://user:secret@host/v1"]
)
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidError, match="base_url") as raised:
        OpenAICompatibleEmbedder("m", base_url=url, dimensions=4)
    assert "secret" not in str(raised.value)


def test_a_server_that_does_not_answer_in_time_is_given_up(waits: list[float]) -> None:
    hold = threading.Event()
    with model_server(Answer(hold=hold)) as server:
        made = embedder(server, timeout_s=0.05, max_retries=1)
        with pytest.raises(ProviderUnavailableError, match="does not answer in time"):
            made.embed_documents(["a"])
        hold.set()
    assert len(server.requests) == 2
    assert len(waits) == 1


def test_nobody_at_the_other_end_is_an_outage(waits: list[float]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(ProviderUnavailableError, match="nobody listens"):
            OpenAICompatibleEmbedder("m", base_url=url, dimensions=4).embed_queries(["a"])
    assert len(waits) == 2


def test_an_answer_that_is_cut_off_is_asked_for_again(waits: list[float]) -> None:
    whole = json.dumps({"data": [{"embedding": [1, 2, 3, 4]}]}).encode()
    cut_connection = Answer(body=whole[:20], declared=len(whole))
    cut_text = Answer(body=whole[:20])
    with model_server(cut_connection, cut_text, Answer(body=whole)) as server:
        assert embedder(server).embed_documents(["a"]).tolist() == [[1, 2, 3, 4]]
    assert len(waits) == 2
    with model_server(cut_text) as server, pytest.raises(ProviderError, match="no JSON"):
        embedder(server).embed_documents(["a"])


@pytest.mark.parametrize(
    "answer",
    [
        [], "text", None, {}, {"data": None}, {"data": [{}]}, {"data": [1]}, {"data": [{"embedding": None}]},
        {"data": [{"embedding": "abcd"}]}, {"data": [{"embedding": [1, 2, 3, {}]}]}, {"data": []},
        {"data": [{"index": 7, "embedding": [1, 2, 3, 4]}]}, {"data": [{"index": "x", "embedding": [1, 2, 3, 4]}]},
        {"data": [{"index": 0, "embedding": [1, 2, 3, 4]}, {"index": 1, "embedding": [1, 2, 3, 4]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]},
    ],
    ids=lambda answer: json.dumps(answer)[:40],
)  # fmt: skip
def test_an_answer_without_vectors_is_a_typed_error(answer: object) -> None:
    with model_server(Answer.of(answer)) as server, pytest.raises(EmbeddingError):
        embedder(server).embed_documents(["a"])


def of_vectors(*vectors: object) -> Answer:
    return Answer.of({"data": [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]})


@pytest.mark.parametrize(
    ("vector", "why"),
    [
        ([float("nan"), 1, 1, 1], "not finite"), ([float("inf"), 1, 1, 1], "not finite"),
        ([1e300, 1, 1, 1], "not finite"),
        ([0, 0, 0, 0], "zeros"), ([1, 2, 3], r"shape \(1, 3\)"), ([], r"shape \(1, 0\)"), ([[1, 2, 3, 4]], "shape"),
    ],
    ids=["nan", "infinite", "beyond float32", "zeros", "short", "empty", "nested"],
)  # fmt: skip
def test_what_is_no_usable_vector_is_an_error(vector: object, why: str) -> None:
    with model_server(of_vectors(vector)) as server:
        made = embedder(server)
        with pytest.raises(EmbeddingError, match=why):
            Vectors().queries(made, ["a"], tenant_id=_TENANT)
        (found,) = Vectors().documents(made, ["a"], tenant_id=_TENANT)
        assert isinstance(found, EmbeddingError)


def test_one_bad_vector_does_not_spoil_the_others_of_its_batch() -> None:
    with model_server(of_vectors([1, 0, 0, 0], [float("nan")] * 4, [0, 3, 0, 4])) as server:
        first, second, third = Vectors().documents(embedder(server), ["a", "b", "c"], tenant_id=_TENANT)
    assert isinstance(second, EmbeddingError)
    assert not isinstance(first, Exception)
    assert not isinstance(third, Exception)
    assert first.shape == (768,)
    assert third[:5].tolist() == pytest.approx([0, 0.6, 0, 0.8, 0])
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_text_that_the_server_refuses_is_found_by_halving(status: int, waits: list[float]) -> None:
    def picky(request: Request) -> Answer:
        return Answer(status=status) if "poison" in request.body["input"] else vectors_of(request)

    texts = [f"text {number}" for number in range(40)]
    texts[13] = "poison"
    with model_server(picky) as server:
        found = Vectors().documents(embedder(server, max_retries=0), texts, tenant_id=_TENANT)
    assert [isinstance(each, Exception) for each in found] == [text == "poison" for text in texts]
    assert isinstance(found[13], ProviderError)
    assert max(len(body["input"]) for body in server.bodies) == 32
    assert len(server.requests) <= 1 + 2 * 6 + 1
    assert not waits


def test_a_server_that_answers_with_too_few_vectors_is_asked_for_fewer() -> None:
    def forgetful(request: Request) -> Answer:
        answer = json.loads(vectors_of(request).body)
        return Answer.of({"data": answer["data"][:3]})

    with model_server(forgetful) as server:
        found = Vectors().documents(embedder(server), [f"text {number}" for number in range(8)], tenant_id=_TENANT)
    assert not any(isinstance(each, Exception) for each in found)
    assert all(isinstance(each, np.ndarray) for each in found)


@pytest.mark.parametrize("answer", [Answer(status=401), Answer(status=404), Answer(status=429), Answer(status=500)])
def test_an_outage_is_not_halved_down_to_every_text(answer: Answer) -> None:
    with model_server(answer) as server:
        found = Vectors().documents(
            embedder(server, max_retries=0), [f"text {number}" for number in range(70)], tenant_id=_TENANT
        )
    assert all(isinstance(each, ProviderError) for each in found)
    assert len(found) == 70
    assert len(server.requests) <= 4


def test_what_was_made_before_an_outage_is_kept() -> None:
    with model_server(vectors_of, Answer(status=429), vectors_of) as server:
        vectors, made = Vectors(), embedder(server, max_retries=0)
        texts = [f"text {number}" for number in range(70)]
        found = vectors.documents(made, texts, tenant_id=_TENANT)
        assert [isinstance(each, Exception) for each in found] == [False] * 32 + [True] * 38
        assert not any(isinstance(each, Exception) for each in vectors.documents(made, texts, tenant_id=_TENANT))
        assert [len(body["input"]) for body in server.bodies] == [32, 32, 32, 6]


def test_what_was_embedded_is_not_embedded_again_for_the_same_tenant() -> None:
    with model_server(vectors_of) as server:
        vectors, made = Vectors(), embedder(server)
        first = vectors.queries(made, ["a", "a", "b"], tenant_id=_TENANT)
        assert server.bodies[-1]["input"] == ["a", "b"]
        again = vectors.queries(made, ["b", "a", "c"], tenant_id=_TENANT)
        assert server.bodies[-1]["input"] == ["c"]
        assert (again[1] == first[0]).all()
        vectors.queries(made, ["a"], tenant_id=uuid7())
        vectors.documents(made, ["a"], tenant_id=_TENANT)
        vectors.queries(embedder(server, name="another"), ["a"], tenant_id=_TENANT)
    assert len(server.requests) == 5


def test_the_cache_is_bounded_and_what_failed_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mindia.embedding.vectors._MAX_CACHED", 2)
    with model_server(of_vectors([0, 0, 0, 0]), vectors_of) as server:
        vectors, made = Vectors(), embedder(server)
        assert isinstance(vectors.documents(made, ["a"], tenant_id=_TENANT)[0], EmbeddingError)
        for text in ("a", "b", "c", "b", "a"):
            vectors.documents(made, [text], tenant_id=_TENANT)
    assert [body["input"][0] for body in server.bodies] == ["a", "a", "b", "c", "a"]


def test_a_forked_process_opens_connections_of_its_own() -> None:
    with model_server(vectors_of) as server:
        made = embedder(server)
        made.embed_documents(["a"])
        child = os.fork()
        if not child:
            code = 1
            try:
                code = 0 if made.embed_documents(["b"]).shape == (1, 4) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert made.embed_documents(["c"]).shape == (1, 4)
