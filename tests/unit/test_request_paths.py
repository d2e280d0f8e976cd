"""What of a request's path is written down: without secrets, and once more without ids."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia.services.request_paths import MASK, masked, route_of, words_of

WORDS = words_of(())


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/media", "/media"),
        ("/media/17", "/media/{id}"),
        ("/media/17/", "/media/{id}/"),
        ("/media/17/tags/4", "/media/{id}/tags/{id}"),
        ("/media/b8350a8e-26e4-44d3-96b5-ada830b7a9e4/url", "/media/{id}/url"),
        ("/objects/346eb3640e064578ad03a4bf07fa78c2", "/objects/{id}"),
        ("/objects/0123456789ABCDEF0123", "/objects/{id}"),
        ("/t/dQw4w9WgXcQ-dQw4w9WgXcQ", "/t/{id}"),
        ("/api/v2/users", "/api/v2/users"),
        ("/about-us-and-all-the-others", "/about-us-and-all-the-others"),
        ("/covid19", "/covid19"),
    ],
)
def test_ids_are_taken_out_of_paths(path: str, route: str) -> None:
    assert route_of(path) == route


@pytest.mark.parametrize(
    "name",
    [
        "token", "access_token", "accessToken", "X-Amz-Signature", "api_key", "apikey", "API-Key", "key", "sig",
        "password", "newPassword", "client_secret", "%74oken", "code", "session_id", "email", "jwt",
    ],
)  # fmt: skip
def test_the_values_of_sensitive_parameters_are_masked(name: str) -> None:
    assert masked(f"q=cat&{name}=hunter2&page=2", WORDS) == f"q=cat&{name}={MASK}&page=2"


@pytest.mark.parametrize(
    "query", ["q=cat", "author=7&keyword=a", "country_code=pt", "a&b", "", "monkey=1", "expires=9"]
)
def test_other_values_are_left_as_they_are(query: str) -> None:
    assert masked(query, WORDS) == query


def test_a_host_names_further_words() -> None:
    assert masked("iban=PT50&q=a", words_of(["IBAN"])) == f"iban={MASK}&q=a"


@given(st.lists(st.tuples(st.sampled_from(["q", "token", "user_token", "page"]), st.text(min_size=1)), min_size=1))
def test_no_secret_is_left_whatever_it_is_and_the_rest_stays(pairs: list[tuple[str, str]]) -> None:
    left = parse_qsl(masked(urlencode(pairs), WORDS), keep_blank_values=True)

    assert left == [(name, MASK if "token" in name else value) for name, value in pairs]
