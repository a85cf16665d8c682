"""One table of options, one Settings: from flags, keywords and job files; contradictions refused."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

from websim_batch.errors import UsageError
from websim_batch.job.build import build, settings_from_kwargs
from websim_batch.job.keywords import RunOptions
from websim_batch.job.options import BY_KEY, BY_KEYWORD, GROUPS, OPTIONS
from websim_batch.job.settings import Settings, public_settings, resolve_headers
from websim_batch.records import Ceiling, Share

# The design's tables, word for word.
FLAGS = """-o --output --provider --base-url --sandbox --kind --model --system --aspect-ratio --project-id
    --prompt-column --id-column --template --field --param --data-column --rate --concurrency --timeout
    --max-attempts --give-up-after --proxy --trust-env --header --header-env --idempotency-header --limit
    --retry-failed --overwrite --on-drift --max-failures --tolerate --time-limit --deadline --grace --encoding
    --delimiter --bom --csv-safe --prefix --journal --progress --log-format -q -v --json"""
KEYS = {
    "input": "path prompt_column id_column template fields data_columns encoding delimiter limit",
    "provider": "name base_url kind model system aspect_ratio project_id params headers headers_env proxy"
    " trust_env idempotency_header",
    "limits": "rate concurrency timeout_s",
    "retry": "max_attempts give_up_after_s retry_failed on_drift",
    "output": "path journal prefix bom csv_safe tolerate",
    "stop": "max_failures time_limit deadline grace_s",
}


def refused(**raw: object) -> str:
    """What is said of options that are refused."""
    with pytest.raises(UsageError) as caught:
        build({"input": "prompts.csv", **raw}, environ={})
    return str(caught.value)


def built(**raw: object) -> Settings:
    """The settings of options for a table `prompts.csv`."""
    return build({"input": "prompts.csv", **raw}, environ={})


def test_every_flag_of_the_design() -> None:
    """The table has every flag of the design."""
    assert set(FLAGS.split()) <= {flag for option in OPTIONS.values() for flag in option.flags}


def test_every_key_of_the_design() -> None:
    """The table has exactly the job-file keys of the design."""
    expected = {f"{table}.{key}" for table, keys in KEYS.items() for key in keys.split()}

    assert {"input.path", *BY_KEY} == expected


def test_the_table_and_the_settings_agree() -> None:
    """Each option is a field of Settings, each field an option, and every option has a group and a help."""
    others = {"input", "stdin", "job_file"}

    assert {field.name for field in fields(Settings)} - others == set(OPTIONS)
    assert all(option.group in GROUPS and option.help for option in OPTIONS.values())


def test_the_typed_keywords_are_those_of_the_table() -> None:
    """What type checkers know as keyword arguments is what the table of options takes."""
    assert list(RunOptions.__annotations__) == list(BY_KEYWORD)


def test_every_default_can_be_parsed() -> None:
    """A default is what its own parser gives for it."""
    for option in OPTIONS.values():
        if option.default not in (None, (), "") and not isinstance(option.default, dict):
            assert option.parse(option.default, Path()) == option.default, option.name


@pytest.mark.parametrize(
    ("source", "is_sandbox", "expected"),
    [
        ("prompts.csv", False, "prompts.results.csv"),
        ("a/prompts.csv.gz", False, "a/prompts.results.csv.gz"),
        ("p.q.jsonl.zst", False, "p.q.results.jsonl.zst"),
        ("prompts.parquet", True, "prompts.sandbox.parquet"),
    ],
)
def test_the_output_lies_beside_the_input(source: str, is_sandbox: bool, expected: str) -> None:
    """Without -o the output has the input's name with `results`, a rehearsal's with `sandbox`."""
    assert build({"input": source, "sandbox": is_sandbox}, environ={}).output == Path(expected)


def test_standard_input_needs_an_output() -> None:
    """`-` without -o is refused; with it there is no path to read."""
    assert "--output is needed" in refused(input="-")
    settings = built(input="-", output="x.csv")
    assert settings.stdin
    assert settings.input is None


def test_keywords_have_the_names_of_the_flags_and_of_the_fields() -> None:
    """`timeout` and `timeout_s` are the same keyword; both at once are one too many."""
    assert settings_from_kwargs(input="p.csv", timeout=3).timeout_s == 3
    assert settings_from_kwargs(input="p.csv", timeout_s="2m", param={"a": 1}).params == {"a": 1}
    with pytest.raises(UsageError, match="twice"):
        settings_from_kwargs(input="p.csv", timeout=3, timeout_s=3)


def test_typed_keywords_are_taken_as_they_are() -> None:
    """A notebook may give values instead of texts."""
    moment = datetime(2999, 1, 1, tzinfo=UTC)
    settings = settings_from_kwargs(
        input=Path("p.csv"),
        rate=Ceiling(1, 1.0),
        deadline=moment,
        tolerate=Share(count=1),
        headers={"X": "y"},
    )

    assert settings.rate == (Ceiling(1, 1.0),)
    assert settings.deadline == moment
    assert settings.headers == (("X", "y"),)


def test_an_unknown_keyword_is_told_with_the_nearest() -> None:
    """A typo in a keyword does not pass in silence."""
    with pytest.raises(UsageError, match="did you mean 'concurrency'"):
        settings_from_kwargs(input="p.csv", concurency=3)


def test_all_mistakes_are_told_at_once() -> None:
    """Bad values and contradictions are told together, each under its flag."""
    told = refused(rate=["10"], timeout="x", quiet=True, verbose=True).splitlines()

    assert [line.split(":")[0].split(" ")[0] for line in told] == ["--rate", "--timeout", "--quiet"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"template": "x", "prompt_column": "y"}, "--template and --prompt-column"),
        ({"overwrite": True, "retry_failed": ""}, "--overwrite and --retry-failed"),
        ({"overwrite": True, "on_drift": "keep"}, "--overwrite and --on-drift"),
        ({"sandbox": True, "base_url": "http://x"}, "--sandbox and --base-url"),
        ({"sandbox": True, "proxy": "http://x"}, "--sandbox and --proxy"),
        ({"sandbox": True, "trust_env": True}, "--sandbox and --trust-env"),
        ({"proxy": "http://x", "trust_env": True}, "--proxy and --trust-env"),
        ({"quiet": True, "verbose": True}, "--quiet and --verbose"),
        ({"quiet": True, "progress": "bar"}, "--quiet"),
        ({"log_format": "json", "progress": "bar"}, "--log-format json"),
        ({"kind": "chat", "aspect_ratio": "1:1"}, "--aspect-ratio is for images"),
        ({"kind": "image", "system": "x"}, "--system is for chats"),
        ({"fields": ["seed"], "data_columns": ["seed"]}, "both --field and --data-column"),
        ({"data_columns": ["text"], "prompt_column": "text"}, "both --data-column and --prompt-column"),
        ({"fields": ["model"]}, "read by its name already"),
        ({"headers": ["X: 1"], "headers_env": ["x: $Y"]}, "both --header and --header-env"),
        ({"headers": ["X-Id: 1"], "idempotency_header": "x-id"}, "--idempotency-header"),
        ({"bom": True, "output": "x.parquet"}, "--bom is for CSV"),
        ({"csv_safe": True, "output": "x.jsonl.gz"}, "--csv-safe is for CSV"),
        ({"input": "x.parquet", "encoding": "utf-8"}, "--encoding is for text"),
        ({"input": "x.jsonl", "delimiter": ";"}, "--delimiter is for CSV"),
        ({"output": "prompts.csv"}, "is the input itself"),
        ({"journal": "prompts.results.csv"}, "--journal"),
        ({"output": "x-{date}.csv", "journal": "j"}, "one for all days"),
        ({"max_failures": "5", "tolerate": "10"}, "--max-failures stops the run below"),
    ],
)
def test_contradictions_are_refused(raw: dict[str, object], words: str) -> None:
    """Options that contradict each other are refused, with what to do."""
    told = refused(**raw)

    assert words in told
    assert ";" in told or ":" in told


@pytest.mark.parametrize(
    "raw",
    [
        {"quiet": True, "progress": "none"},
        {"time_limit": "1h", "deadline": "06:00"},
        {"rate": ["10/s", "60/min"]},
        {"params": {"seed": 1}, "fields": ["seed"]},
        {"template": "{{ prompt }}", "data_columns": ["prompt"]},
        {"max_failures": "10", "tolerate": "10"},
        {"quiet": True, "json": True},
        {"data_columns": ["prompt"]},
    ],
)
def test_what_goes_together(raw: dict[str, object]) -> None:
    """Options that do go together are taken."""
    built(**raw)


def test_the_environment_names_the_endpoint() -> None:
    """WEBSIM_BATCH_BASE_URL holds unless an option says otherwise, and never for the sandbox."""
    environ = {"WEBSIM_BATCH_BASE_URL": "http://from.env/"}

    assert build({"input": "p.csv"}, environ=environ).base_url == "http://from.env"
    assert build({"input": "p.csv", "base_url": "http://x"}, environ=environ).base_url == "http://x"
    assert build({"input": "p.csv", "sandbox": True}, environ=environ).base_url is None
    with pytest.raises(UsageError, match="WEBSIM_BATCH_BASE_URL"):
        build({"input": "p.csv"}, environ={"WEBSIM_BATCH_BASE_URL": "nonsense"})


def test_settings_cannot_change() -> None:
    """Settings are frozen."""
    with pytest.raises(AttributeError):
        built().concurrency = 3  # type: ignore[misc]


SECRETIVE = {
    "headers": ["Authorization: Bearer hunter2", "X-Plain: open"],
    "headers_env": ["X-Key: pre $TOKEN"],
    "proxy": "http://user:hunter3@proxy:1",
    "base_url": "http://hunter4@host",
}


def test_no_secret_is_shown() -> None:
    """Neither `repr` nor the manifest's settings hold a secret; names of variables they do."""
    settings = built(**SECRETIVE)
    shown = repr(settings) + repr(public_settings(settings))

    assert "hunter" not in shown
    assert "$TOKEN" in shown


def test_headers_are_filled_in_late() -> None:
    """Variables come from the environment given, and all secrets are told for masking."""
    headers, secrets = resolve_headers(built(**SECRETIVE), {"TOKEN": "hunter5"})

    assert ("X-Key", "pre hunter5") in headers
    assert {"hunter2", "hunter3", "hunter4", "hunter5"} <= set(secrets)
    assert "open" not in secrets


def test_a_variable_that_is_not_set() -> None:
    """A missing variable is refused by its name; a rehearsal leaves the header out."""
    settings = built(headers_env=["X-Key: ${TOKEN}"])
    with pytest.raises(UsageError, match="TOKEN"):
        resolve_headers(settings, {})

    rehearsal = built(headers_env=["X-Key: ${TOKEN}"], sandbox=True)
    assert resolve_headers(rehearsal, {}) == ((), ())
