"""Options that contradict each other, each with the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from websim_batch.job.paths import table_format
from websim_batch.job.settings import Settings
from websim_batch.records import Share


class Pair(NamedTuple):
    """Two options of which one place may say one only, and what to do."""

    one: str
    other: str
    remedy: str


PAIRS = (
    Pair("template", "prompt_column", "the template takes the place of the prompt column; give one of them"),
    Pair("overwrite", "retry_failed", "starting anew leaves nothing to retry; give one of them"),
    Pair("overwrite", "on_drift", "a job that starts anew cannot have drifted; give one of them"),
    Pair("sandbox", "base_url", "the sandbox is the endpoint; give one of them"),
    Pair("sandbox", "proxy", "the sandbox is on this machine; leave the proxy out"),
    Pair("sandbox", "trust_env", "the sandbox is on this machine; leave the proxy out"),
    Pair("proxy", "trust_env", "both name a proxy; give one of them"),
    Pair("quiet", "verbose", "silence and detail; give one of them"),
)


def exclusive(said: Mapping[str, object], call: Callable[[str], str]) -> list[str]:
    """What is wrong with the options that one place gave: pairs of PAIRS of which both were said."""
    return [
        f"{call(pair.one)} and {call(pair.other)} contradict each other: {pair.remedy}"
        for pair in PAIRS
        if _is_on(said, pair.one) and _is_on(said, pair.other)
    ]


def losers(said: Mapping[str, object]) -> set[str]:
    """The options that a lower place said in vain, because the upper one said the other of a pair."""
    lost = {pair.other for pair in PAIRS if _is_on(said, pair.one)}
    return lost | {pair.one for pair in PAIRS if _is_on(said, pair.other)}


def _is_on(said: Mapping[str, object], name: str) -> bool:
    return said.get(name) is not None and said[name] is not False


def conflicts(settings: Settings, call: Callable[[str], str]) -> list[str]:
    """What is wrong with the settings taken together; `call` names an option as its place does."""
    rules = (_kind, _messages, _columns, _headers, _formats, _paths, _dates, _failures)
    return [text for rule in rules for text in rule(settings, call)]


def _kind(s: Settings, call: Callable[[str], str]) -> Iterator[str]:
    if s.kind == "chat" and s.aspect_ratio is not None:
        yield f"{call('aspect_ratio')} is for images, but {call('kind')} is chat; leave one of them out"
    if s.kind == "image" and s.system is not None:
        yield f"{call('system')} is for chats, but {call('kind')} is image; leave one of them out"


def _messages(s: Settings, call: Callable[[str], str]) -> Iterator[str]:
    if s.quiet and s.progress in ("bar", "log"):
        yield f"{call('quiet')} shows no progress, but {call('progress')} is {s.progress}; give one of them"
    if s.log_format == "json" and s.progress == "bar":
        yield f"{call('log_format')} json is for lines, but {call('progress')} is bar; make it log"


def _columns(s: Settings, call: Callable[[str], str]) -> Iterator[str]:
    roles = {"fields": set(s.fields), "data_columns": set(s.data_columns)}
    # Under its usual name the prompt column may be plain data: then the prompts stand in `messages`.
    if s.template is None and s.prompt_column != "prompt":
        roles["prompt_column"] = {s.prompt_column}
    for (one, left), (other, right) in combinations(roles.items(), 2):
        for name in sorted(left & right):
            yield f"the column {name!r} is both {call(one)} and {call(other)}; give it one meaning"
    for name in sorted(set(s.fields) & {"messages", "system", "kind", "model", "aspect_ratio", "project_id"}):
        yield f"{call('fields')}: the column {name!r} is read by its name already; leave it out"


def _headers(s: Settings, call: Callable[[str], str]) -> Iterator[str]:
    plain, from_env = ({name.lower() for name, _ in pairs} for pairs in (s.headers, s.headers_env))
    for name in sorted(plain & from_env):
        yield f"the header {name!r} is in both {call('headers')} and {call('headers_env')}; give it once"
    if s.idempotency_header and s.idempotency_header.lower() in plain | from_env:
        yield f"{call('idempotency_header')}: {s.idempotency_header!r} has a value of its own; give it once"


def _formats(s: Settings, call: Callable[[str], str]) -> Iterator[str]:
    source = table_format(s.input) if s.input is not None else ""
    if s.encoding and source == "parquet":
        yield f"{call('encoding')} is for text files, but {s.input} is Parquet; leave it out"
    if s.delimiter and source in ("parquet", "jsonl"):
        yield f"{call('delimiter')} is for CSV, but {s.input} is not; leave it out"
    for name in ("bom", "csv_safe"):
        if getattr(s, name) and s.output is not None and table_format(s.output) in ("parquet", "jsonl"):
            yield f"{call(name)} is for CSV, but {s.output} is not; leave it out"


def _paths(s: Settings, call: Callable[[str], str]) -> Iterator[str]:
    if s.output is not None and s.output == s.input:
        yield f"{call('output')} {s.output} is the input itself; give another path"
    if s.journal is not None and s.journal in (s.output, s.input):
        yield f"{call('journal')} {s.journal} is a table of this job; give another path"


def _dates(s: Settings, call: Callable[[str], str]) -> Iterator[str]:
    if s.output is not None and "{date}" in str(s.output) and s.journal is not None:
        yield f"{call('journal')} would be one for all days of {s.output}; leave it out"


def _failures(s: Settings, call: Callable[[str], str]) -> Iterator[str]:
    most, tolerated = s.max_failures, s.tolerate
    if most is not None and tolerated is not None and _is_below(most, tolerated):
        yield (
            f"{call('max_failures')} stops the run below what {call('tolerate')} forgives;"
            " make it as large at least"
        )


def _is_below(one: Share, other: Share) -> bool:
    if one.count is not None and other.count is not None:
        return one.count < other.count
    return one.percent is not None and other.percent is not None and one.percent < other.percent
