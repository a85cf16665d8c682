"""The stand-in over real HTTP: routes, counts, limits, and every misbehaviour that tests ask for by name."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import pytest

from websim_batch.errors import UsageError
from websim_batch.sandbox import Misbehaviour, Outage, Sandbox, SandboxOptions, Scripted, steps, wire
from websim_batch.sandbox.limiters import LimitState
from websim_batch.sandbox.misbehaviour import NAMED

CHAT = "/api/v1/inference/run_chat_completion"
TIMEOUT_S = 5.0


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def call(
    sandbox: Sandbox, method: str, path: str, body: bytes | None = None, timeout_s: float = TIMEOUT_S
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=timeout_s)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def chat(sandbox: Sandbox, prompt: str, timeout_s: float = TIMEOUT_S) -> Answer:
    """One websim chat."""
    body = {"project_id": "p", "messages": [{"role": "user", "content": prompt}]}
    return call(sandbox, "POST", CHAT, json.dumps(body).encode(), timeout_s)


def openai_chat(sandbox: Sandbox, prompt: str) -> Answer:
    """One chat in OpenAI's words."""
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    return call(sandbox, "POST", "/v1/chat/completions", json.dumps(body).encode())


def statuses(sandbox: Sandbox, count: int) -> list[int]:
    """The statuses of so many chats, one after the other."""
    return [chat(sandbox, f"q{number}").status for number in range(count)]


def until(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds; fails if it never does."""
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came to that")


# -- routes and counts --


def test_both_providers_are_served_and_counted() -> None:
    """A chat, a chat in other words, an image whose URL leads to its PNG."""
    with Sandbox() as sandbox:
        first, second = chat(sandbox, "a"), openai_chat(sandbox, "a")
        image = {"project_id": "p", "prompt": "a cat", "aspect_ratio": "3:2"}
        url = json.loads(
            call(
                sandbox,
                "POST",
                CHAT.replace("chat_completion", "image_generation"),
                json.dumps(image).encode(),
            ).body
        )["url"]
        picture = call(sandbox, "GET", url.removeprefix(sandbox.base_url))
        stats = json.loads(call(sandbox, "GET", "/__stats").body)

    assert json.loads(first.body)["content"]
    assert json.loads(second.body)["choices"][0]["message"]["content"]
    assert (picture.headers["content-type"], picture.body[:4]) == ("image/png", b"\x89PNG")
    assert stats["by_status"] == {"200": 3}
    assert (stats["requests"], stats["distinct_requests"]) == (3, 3)


def test_sends_are_counted_per_request_whatever_the_project_id() -> None:
    """Three times the same and once another."""
    with Sandbox() as sandbox:
        for prompt in ("a", "b", "a", "a"):
            chat(sandbox, prompt)

        stats = sandbox.stats()

        assert sorted(stats["sends"].values()) == [1, 3]
        assert sorted(stats["answered"].values()) == [1, 3]
        assert (sandbox.sends_of("a"), sandbox.sends_of("c")) == (3, 0)


def test_the_brief_stats_leave_out_what_grows() -> None:
    """For asking often during a long rehearsal."""
    with Sandbox() as sandbox:
        chat(sandbox, "a")
        brief = json.loads(call(sandbox, "GET", "/__stats?brief").body)

    assert brief["requests"] == 1
    assert not {"sends", "answered", "arrivals_per_100ms"} & brief.keys()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 404),
        ("GET", "/v1/models", 200),
        ("GET", "/__images/no.png", 404),
    ],
)
def test_other_paths_are_answered_and_not_counted(method: str, path: str, status: int) -> None:
    """What is no request for an answer is neither limited nor counted."""
    with Sandbox(SandboxOptions(capacity="1/h")) as sandbox:
        answers = [call(sandbox, method, path) for _ in range(3)]

        assert [answer.status for answer in answers] == [status] * 3
        assert sandbox.stats()["requests"] == 0


def test_a_bad_request_is_a_400_in_json() -> None:
    """With the reason."""
    with Sandbox() as sandbox:
        answer = call(sandbox, "POST", CHAT, b"{")

    assert answer.status == 400
    assert "JSON" in json.loads(answer.body)["error"]


def test_a_prompt_of_many_megabytes_is_taken() -> None:
    """No library limit stands in the way."""
    with Sandbox() as sandbox:
        assert chat(sandbox, "x" * 5_000_000).status == 200


def test_most_in_flight_is_counted() -> None:
    """Twelve slow requests at once are seen as twelve."""
    with Sandbox(SandboxOptions(latency_ms=500)) as sandbox, ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: chat(sandbox, f"q{number}"), range(12)))

        assert sandbox.stats()["most_in_flight"] == 12
        assert sandbox.stats()["in_flight"] == 0


def test_arrivals_are_recorded_in_order() -> None:
    """Each with its time, prompt, count and outcome; the counts per 100 ms add up."""
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"b": ["500", None]})) as sandbox:
        for prompt in ("a", "b", "b"):
            chat(sandbox, prompt)

        arrivals = sandbox.arrivals

        assert [(a.prompt, a.sent, a.attempt, a.status) for a in arrivals] == [
            ("a", 1, 1, 200),
            ("b", 1, 1, 500),
            ("b", 2, 2, 200),
        ]
        assert arrivals == sorted(arrivals, key=lambda arrival: arrival.at_s)
        assert sum(sandbox.stats()["arrivals_per_100ms"]) == 3


def test_a_client_that_goes_away_no_longer_counts_as_in_flight() -> None:
    """It gave up on a request that hangs."""
    with Sandbox(misbehaviour=Misbehaviour(every="hang")) as sandbox:
        with pytest.raises(TimeoutError):
            chat(sandbox, "a", timeout_s=0.2)
        until(lambda: not sandbox.stats()["in_flight"])

        assert sandbox.stats()["by_status"] == {"none": 1}


# -- limits --


def test_a_limit_refuses_with_429_in_both_words() -> None:
    """And a refusal uses no attempt of the request's faults."""
    with Sandbox(SandboxOptions(capacity="1/h", burst=1)) as sandbox:
        first, second, third = chat(sandbox, "a"), chat(sandbox, "a"), openai_chat(sandbox, "a")

        assert [first.status, second.status, third.status] == [200, 429, 429]
        assert json.loads(second.body) == {"error": "Rate limit exceeded"}
        assert json.loads(third.body)["error"]["code"] == "rate_limit_exceeded"
        assert [arrival.attempt for arrival in sandbox.arrivals] == [1, 0, 0]


@pytest.mark.parametrize(("wait_s", "told"), [(0.01, "1"), (1.0, "1"), (1.2, "2"), (59.98, "60")])
def test_retry_after_is_never_less_than_the_wait(wait_s: float, told: str) -> None:
    """Whole seconds, rounded up."""
    assert wire.retry_after("seconds", wait_s, 0.0) == {"Retry-After": told}


@pytest.mark.parametrize(("wait_s", "told"), [(0.02, "20ms"), (1.5, "1.5s"), (60, "1m0s"), (150, "2m30s")])
def test_reset_times_are_written_as_the_hosted_service_does(wait_s: float, told: str) -> None:
    """Milliseconds, seconds, minutes and seconds."""
    headers = wire.rate_headers("openai", LimitState(10, 60.0, 3, wait_s))

    assert headers["x-ratelimit-reset-requests"] == told


def test_retry_after_in_seconds_is_whole_and_enough() -> None:
    """One per minute: the second is told 59 to 60 seconds."""
    with Sandbox(SandboxOptions(capacity="1/min", retry_after="seconds")) as sandbox:
        chat(sandbox, "a")
        answer = chat(sandbox, "b")

    assert answer.headers["retry-after"] in ("59", "60")


def test_retry_after_as_a_date_counts_from_the_replys_own_date() -> None:
    """Both are cut to the second, as servers do."""
    with Sandbox(
        SandboxOptions(capacity="1/min", retry_after="date"), Misbehaviour(time_scale=20)
    ) as sandbox:
        chat(sandbox, "a")
        headers = chat(sandbox, "b").headers

    wait = parsedate_to_datetime(headers["retry-after"]) - parsedate_to_datetime(headers["date"])
    assert 55 <= wait.total_seconds() <= 61


def test_no_retry_after_unless_asked() -> None:
    """A 429 alone."""
    with Sandbox(SandboxOptions(capacity="1/min")) as sandbox:
        chat(sandbox, "a")

        assert "retry-after" not in chat(sandbox, "b").headers


@pytest.mark.parametrize("text", ["0", "0.5", "garbage", "-3", "86400000"])
def test_retry_after_can_be_any_text(text: str) -> None:
    """For clients that must not believe everything."""
    with Sandbox(SandboxOptions(capacity="1/min"), Misbehaviour(retry_after=text)) as sandbox:
        chat(sandbox, "a")

        assert chat(sandbox, "b").headers["retry-after"] == text


def test_a_refusal_can_be_told_in_other_ways() -> None:
    """A 403 whose words name the limit."""
    with Sandbox(SandboxOptions(capacity="1/min"), Misbehaviour(refusal="limit_in_words")) as sandbox:
        chat(sandbox, "a")
        answer = chat(sandbox, "b")

    assert (answer.status, json.loads(answer.body)["error"]) == (403, "Rate limit exceeded")


def test_the_concurrency_policy_limits_what_runs_at_once() -> None:
    """Ten at once on a capacity of three: three are taken, and room is made when they end."""
    options = SandboxOptions(capacity="3", policy="concurrency", latency_ms=400)
    with Sandbox(options) as sandbox, ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda number: chat(sandbox, f"q{number}").status, range(10)))
        later = chat(sandbox, "later").status

    assert sorted(answers) == [200] * 3 + [429] * 7
    assert later == 200


@pytest.mark.parametrize(
    ("form", "name", "value"),
    [
        ("x-ratelimit", "x-ratelimit-limit", "60"),
        ("x-ratelimit", "x-ratelimit-remaining", "58"),
        ("openai", "x-ratelimit-remaining-requests", "58"),
        ("ratelimit", "ratelimit-policy", '"default";q=60;w=60'),
        ("ratelimit-03", "ratelimit-remaining", "58"),
    ],
)
def test_rate_headers_tell_the_limit(form: Any, name: str, value: str) -> None:
    """In each of the ways in which servers do."""
    with Sandbox(
        SandboxOptions(capacity="60/min", policy="sliding-window"), Misbehaviour(rate_headers=form)
    ) as sandbox:
        chat(sandbox, "a")

        assert chat(sandbox, "b").headers[name] == value


def test_the_server_clock_can_run_faster() -> None:
    """At 600 times the speed, two per minute are all back after a tenth of a second."""
    options = SandboxOptions(capacity="2/min", policy="sliding-window")
    with Sandbox(options, Misbehaviour(time_scale=600)) as sandbox:
        while 429 not in statuses(sandbox, 1):
            pass
        asyncio.run(asyncio.sleep(0.11))

        assert statuses(sandbox, 1) == [200]


def test_the_capacity_can_step() -> None:
    """Six at once before the step, half of it after."""
    options = SandboxOptions(capacity="6/min", policy="fixed-window", window_s=60)
    with Sandbox(options, Misbehaviour(factor=steps((0.0, 0.5)))) as sandbox:
        assert statuses(sandbox, 5) == [200, 200, 200, 429, 429]


def test_a_ban_counts_its_hits() -> None:
    """Everything after the first refusal is refused, and knocks are counted."""
    options = SandboxOptions(capacity="1/h")
    with Sandbox(options, Misbehaviour(ban_s=3600.0)) as sandbox:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: chat(sandbox, f"q{number}"), range(40)))
        stats = sandbox.stats()

    assert (stats["by_status"], stats["ban_hits"]) == ({"200": 1, "429": 39}, 38)


# -- faults --


def outcome(sandbox: Sandbox, prompt: str) -> bytes:
    """What one chat came to, in bytes that can be compared."""
    try:
        answer = chat(sandbox, prompt)
    except (http.client.HTTPException, OSError):
        return b"broken"
    return b"%d " % answer.status + answer.body


def test_two_servers_of_one_seed_do_the_same_in_any_order() -> None:
    """Faults are functions of the seed, the request and its attempt; answers of the request."""
    options = SandboxOptions(fail_share=0.2, drop_share=0.2, garbage_share=0.2, seed=5)
    prompts = [f"q{number}" for number in range(60)]
    with Sandbox(options) as one, Sandbox(options) as other:
        first = {prompt: [outcome(one, prompt), outcome(one, prompt)] for prompt in prompts}
        second: dict[str, list[bytes]] = {prompt: [] for prompt in prompts}
        for prompt in prompts[::-1] * 2:
            second[prompt].append(outcome(other, prompt))

        assert first == second
        assert one.stats()["faults"].keys() == {"fail", "drop", "garbage"}


# -- misbehaviours by name --


@pytest.mark.parametrize("name", [name for name, scripted in NAMED.items() if scripted.mode == "answer"])
def test_scripted_answers_come_word_for_word(name: str) -> None:
    """Status and body as the table has them."""
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"a": name})) as sandbox:
        answer = chat(sandbox, "a")
        other = chat(sandbox, "b")

    assert (answer.status, answer.body) == (NAMED[name].status, NAMED[name].body)
    assert other.status == 200


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("drop", http.client.RemoteDisconnected),
        ("cut", http.client.IncompleteRead),
        ("too_long", http.client.IncompleteRead),
    ],
)
def test_broken_answers_break_the_client(name: str, error: type[Exception]) -> None:
    """The connection ends before the answer does; the next request is well."""
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"a": [name, None]})) as sandbox:
        with pytest.raises(error):
            chat(sandbox, "a")

        assert chat(sandbox, "a").status == 200


def test_a_reset_is_a_tcp_reset() -> None:
    """And no orderly end."""
    with Sandbox(misbehaviour=Misbehaviour(every="reset")) as sandbox, pytest.raises(ConnectionResetError):
        chat(sandbox, "a")


def test_too_short_a_length_leaves_half_an_answer() -> None:
    """The client sees whole HTTP and cut JSON."""
    with Sandbox(misbehaviour=Misbehaviour(every="too_short")) as sandbox:
        answer = chat(sandbox, "a")

    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.body)


def test_broken_gzip_is_labelled_gzip() -> None:
    """And cannot be unpacked."""
    with Sandbox(misbehaviour=Misbehaviour(every="bad_gzip")) as sandbox:
        answer = chat(sandbox, "a")

    assert answer.headers["content-encoding"] == "gzip"
    with pytest.raises(gzip.BadGzipFile):
        gzip.decompress(answer.body)


def test_a_request_can_hang_while_others_are_answered() -> None:
    """The server ends all the same when it is told to."""
    with Sandbox(misbehaviour=Misbehaviour(by_prompt={"slow": "hang"})) as sandbox:
        waiting = socket.create_connection(("127.0.0.1", sandbox.port))
        body = json.dumps({"project_id": "p", "messages": [{"role": "user", "content": "slow"}]}).encode()
        waiting.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )

        until(lambda: sandbox.stats()["requests"] == 1)

        assert chat(sandbox, "b").status == 200
        assert sandbox.stats()["in_flight"] == 1
    waiting.close()


def test_a_script_may_be_a_function_of_prompt_and_attempt() -> None:
    """Here every second attempt fails."""
    plan = Misbehaviour(script=lambda prompt, attempt: "503" if attempt % 2 else None)
    with Sandbox(misbehaviour=plan) as sandbox:
        assert [chat(sandbox, "a").status for _ in range(4)] == [503, 200, 503, 200]


def test_a_scripted_answer_has_its_headers_and_delay() -> None:
    """Server seconds, so compressed time makes them short."""
    scripted = Scripted(503, b"later", {"Retry-After": "7"}, delay_s=100.0)
    with Sandbox(
        misbehaviour=Misbehaviour(every=scripted, time_scale=1000, headers={"X-Always": "1"})
    ) as sandbox:
        before = sandbox.now_s()
        answer = chat(sandbox, "a")

        assert sandbox.now_s() - before >= 100
    assert (answer.status, answer.headers["retry-after"], answer.headers["x-always"]) == (503, "7", "1")


def test_everything_can_change_from_the_nth_request_on() -> None:
    """Here the key is withdrawn after two."""
    with Sandbox(misbehaviour=Misbehaviour(from_nth=(3, "401"))) as sandbox:
        assert statuses(sandbox, 4) == [200, 200, 401, 401]


@pytest.mark.parametrize(
    ("kind", "status"), [("503", 503), ("refused", None), ("reset", None), ("hang", None)]
)
def test_an_outage_begins_and_ends_when_told(kind: Any, status: int | None) -> None:
    """The same port serves again afterwards."""
    with Sandbox() as sandbox:
        assert statuses(sandbox, 1) == [200]

        sandbox.begin_outage(kind)
        if status is None:
            with pytest.raises(OSError, match=r"refused|reset|timed out"):
                chat(sandbox, "a", timeout_s=0.3)
        else:
            assert statuses(sandbox, 1) == [status]
        sandbox.end_outage()

        assert statuses(sandbox, 1) == [200]


def test_an_outage_can_come_after_so_many_requests_and_end_by_itself() -> None:
    """It lasts its time on the server's clock."""
    outage = Outage("503", for_s=200.0, after_requests=3)
    with Sandbox(misbehaviour=Misbehaviour(outages=(outage,), time_scale=1000)) as sandbox:
        seen: list[int] = []
        while len(seen) < 5 or seen[-1] == 503:
            seen += statuses(sandbox, 1)

    first = seen.index(503)
    assert first in (3, 4)
    assert len(seen) > 5
    assert set(seen[first:-1]) == {503}


def test_a_taken_port_is_told_with_the_remedy() -> None:
    """One sentence, and nothing is left open."""
    with Sandbox() as sandbox, pytest.raises(UsageError, match=r"--port 0"), Sandbox(port=sandbox.port):
        pass
