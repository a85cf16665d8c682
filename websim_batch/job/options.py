"""The one table of all options: flags, Python keyword, job-file key, parser, help, group.

Click's options, job-file keys, the keyword arguments of `run()` and the generated help derive from it.
Defaults come from `Settings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from websim_batch.job import parse as p
from websim_batch.job.settings import Settings

_DEFAULTS = Settings()

Parser: TypeAlias = Callable[[object, Path], object]

GROUPS = (
    "Everyday", "Input", "Endpoint", "Requests", "Retries and resuming", "Stopping", "Output", "Messages",
)  # fmt: skip
"""The headings of `run --help`, in order."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of `run`.

    `name` is its field in `Settings`, `key` its place in a job file (`table.key`; "" for none).
    `metavar` "" makes it a flag; `optional` values may be left out on the command line (`--retry-failed`).
    """

    name: str
    flags: tuple[str, ...]
    key: str
    parse: Parser
    group: str
    help: str
    metavar: str = ""
    multiple: bool = False
    optional: bool = False

    @property
    def default(self) -> object:
        """What holds where nobody says anything."""
        return getattr(_DEFAULTS, self.name)

    @property
    def keywords(self) -> tuple[str, ...]:
        """The keyword arguments that mean it in Python: named like the flag, and like the field."""
        return tuple(dict.fromkeys((self.flags[-1].lstrip("-").replace("-", "_"), self.name)))


def _plain(parser: Callable[[object], object]) -> Parser:
    return lambda value, _base: parser(value)


def _table(*options: Option) -> Mapping[str, Option]:
    return MappingProxyType({option.name: option for option in options})


TEXT, NAMES, FLAG, COUNT = _plain(p.text), _plain(p.names), _plain(p.flag), _plain(p.count)
URL, SHARE, DURATION, HEADERS = _plain(p.http_url), _plain(p.share), _plain(p.duration), _plain(p.headers)
ON_DRIFT = _plain(p.choice("refuse", "keep", "resend"))
KIND = _plain(p.choice("auto", "chat", "image"))
PROGRESS = _plain(p.choice("auto", "bar", "log", "none"))

EVERYDAY, INPUT, ENDPOINT, REQUESTS, RETRIES, STOPPING, OUTPUT, MESSAGES = GROUPS

OPTIONS: Mapping[str, Option] = _table(
    Option("output", ("-o", "--output"), "output.path", p.path, EVERYDAY,
           "The table to write: .csv, .parquet or .jsonl; text also .gz or .zst."
           " Default: prompts.csv becomes prompts.results.csv. Needed when INPUT is '-'.", "PATH"),
    Option("prompt_column", ("--prompt-column",), "input.prompt_column", TEXT, EVERYDAY,
           "The column that holds the prompts.", "NAME"),
    Option("template", ("--template",), "input.template", p.template, EVERYDAY,
           'A Jinja2 template over the columns instead of a prompt column: "Summarise: {{ text }}".',
           "TEXT|@FILE"),
    Option("model", ("--model",), "provider.model", TEXT, EVERYDAY,
           "The model for rows that do not name one; websim-batch models lists them.", "NAME"),
    Option("system", ("--system",), "provider.system", TEXT, EVERYDAY,
           "The system message for rows that have none.", "TEXT"),
    Option("rate", ("--rate",), "limits.rate", _plain(p.rates), EVERYDAY,
           "At most N requests in any sliding second, minute or hour; may be given twice.",
           "N/s|N/min|N/h", True),
    Option("concurrency", ("--concurrency",), "limits.concurrency", COUNT, EVERYDAY,
           "Most requests in flight at once.", "N"),
    Option("limit", ("--limit",), "input.limit", COUNT, EVERYDAY, "Only the first N rows.", "N"),
    Option("retry_failed", ("--retry-failed",), "retry.retry_failed", _plain(p.error_types), EVERYDAY,
           "Run again also rows that ended failed, invalid or refused; with =TYPE,… only these error types.",
           "TYPE,…", optional=True),
    Option("sandbox", ("--sandbox",), "", FLAG, EVERYDAY,
           "Rehearse: start a local stand-in for the service for this run. Writes prompts.sandbox.csv."),
    Option("json", ("--json",), "", FLAG, EVERYDAY,
           "Print the summary as one JSON object, the last line of stdout."),

    Option("id_column", ("--id-column",), "input.id_column", TEXT, INPUT,
           "The column that names each row; without it a row is known by the cells it uses.", "NAME"),
    Option("fields", ("--field",), "input.fields", NAMES, INPUT,
           "The column NAME is a request field of the provider (seed, width, temperature, …); repeatable.",
           "NAME", True),
    Option("data_columns", ("--data-column",), "input.data_columns", NAMES, INPUT,
           "The column NAME is plain data, whatever it is called; repeatable.", "NAME", True),
    Option("encoding", ("--encoding",), "input.encoding", _plain(p.encoding), INPUT,
           "Read the text file as this; UTF-8 with or without a byte order mark if not given.", "NAME"),
    Option("delimiter", ("--delimiter",), "input.delimiter", _plain(p.delimiter), INPUT,
           "What parts the cells of the CSV file; a comma if not given.", "CHAR"),

    Option("provider", ("--provider",), "provider.name", _plain(p.choice("websim", "openai")), ENDPOINT,
           "The service to talk to: websim or openai (any compatible endpoint).", "NAME"),
    Option("base_url", ("--base-url",), "provider.base_url", URL, ENDPOINT,
           "Where the service is, if not at the provider's own address; also from WEBSIM_BATCH_BASE_URL.",
           "URL"),
    Option("headers", ("--header",), "provider.headers", HEADERS, ENDPOINT,
           "A header on every request; an empty value removes ours; repeatable.", "'NAME: VALUE'", True),
    Option("headers_env", ("--header-env",), "provider.headers_env", HEADERS, ENDPOINT,
           "The same with $VARIABLES from the environment: 'Authorization: Bearer $TOKEN'; repeatable.",
           "'NAME: $VAR'", True),
    Option("proxy", ("--proxy",), "provider.proxy", URL, ENDPOINT, "An HTTP proxy.", "URL"),
    Option("trust_env", ("--trust-env",), "provider.trust_env", FLAG, ENDPOINT,
           "Take the proxy from HTTP_PROXY and HTTPS_PROXY."),
    Option("idempotency_header", ("--idempotency-header",), "provider.idempotency_header",
           _plain(p.header_name), ENDPOINT,
           "Send a key in this header, equal on all attempts of a row.", "NAME"),

    Option("kind", ("--kind",), "provider.kind", KIND, REQUESTS,
           "What rows ask for that do not say it; auto: by the row's model.", "auto|chat|image"),
    Option("aspect_ratio", ("--aspect-ratio",), "provider.aspect_ratio", TEXT, REQUESTS,
           "The shape of images for rows that do not say it, as 16:9.", "W:H"),
    Option("project_id", ("--project-id",), "provider.project_id", TEXT, REQUESTS,
           "The project id for rows that have none; else one is made up for each request.", "ID"),
    Option("params", ("--param",), "provider.params", _plain(p.params), REQUESTS,
           "Set a request field for all rows: seed=7; repeatable.", "NAME=JSON", True),
    Option("timeout_s", ("--timeout",), "limits.timeout_s", DURATION, REQUESTS,
           "One request, from sending to the last byte, in seconds; waiting for the throttle does not count.",
           "SECONDS"),

    Option("max_attempts", ("--max-attempts",), "retry.max_attempts", COUNT, RETRIES,
           "So many tries at a row whose attempts fail; rate limits use none.", "N"),
    Option("give_up_after_s", ("--give-up-after",), "retry.give_up_after_s", DURATION, RETRIES,
           "Stop (exit 4) after so many seconds without a success; 15 if nothing was ever answered.",
           "SECONDS"),
    Option("on_drift", ("--on-drift",), "retry.on_drift", ON_DRIFT, RETRIES,
           "When settings that change answers differ from those the job began with: refuse; keep what is"
           " finished; or resend rows whose request changed.", "refuse|keep|resend"),
    Option("overwrite", ("--overwrite",), "", FLAG, RETRIES,
           "Start anew; the old journal is kept as ….old, one generation."),

    Option("max_failures", ("--max-failures",), "stop.max_failures", SHARE, STOPPING,
           "Stop early (exit 4) once more rows than this failed.", "N|P%"),
    Option("time_limit_s", ("--time-limit",), "stop.time_limit", DURATION, STOPPING,
           "Drain and stop (exit 4) after this time: 90s, 2h, 1h30m.", "TIME"),
    Option("deadline", ("--deadline",), "stop.deadline", _plain(p.deadline), STOPPING,
           "Drain and stop (exit 4) at this moment, local time, the next one.", "HH:MM|ISO"),
    Option("grace_s", ("--grace",), "stop.grace_s", _plain(p.wait), STOPPING,
           "What is in flight at a stop may take so many seconds.", "SECONDS"),

    Option("journal", ("--journal",), "output.journal", p.path, OUTPUT,
           "Where the journal lies, if not beside the output.", "PATH"),
    Option("prefix", ("--prefix",), "output.prefix", _plain(p.any_text), OUTPUT,
           "Put this before the names of our columns.", "TEXT"),
    Option("bom", ("--bom",), "output.bom", FLAG, OUTPUT, "Write a byte order mark, for spreadsheets."),
    Option("csv_safe", ("--csv-safe",), "output.csv_safe", FLAG, OUTPUT,
           "Put ' before a leading = + - @ in our text columns, so that no spreadsheet computes an answer."),
    Option("tolerate", ("--tolerate",), "output.tolerate", SHARE, OUTPUT,
           "So many failed rows still exit 0.", "N|P%"),

    Option("progress", ("--progress",), "", PROGRESS, MESSAGES,
           "auto: a live bar on a terminal, else a line each 30 s, after five minutes each 5 min.",
           "auto|bar|log|none"),
    Option("log_format", ("--log-format",), "", _plain(p.choice("text", "json")), MESSAGES,
           "The form of lines on stderr.", "text|json"),
    Option("quiet", ("-q", "--quiet"), "", FLAG, MESSAGES, "Say nothing when the exit code is 0."),
    Option("verbose", ("-v", "--verbose"), "", FLAG, MESSAGES,
           "Say more; a fault of ours shows its traceback."),
)  # fmt: skip
"""All options of `run` by name, in the order in which the help tells them."""

INPUT_KEY = "input.path"
"""The job-file key of the table itself, which is INPUT on the command line."""

BY_KEYWORD: Mapping[str, Option] = MappingProxyType(
    {keyword: option for option in OPTIONS.values() for keyword in option.keywords}
)
BY_KEY: Mapping[str, Option] = MappingProxyType({o.key: o for o in OPTIONS.values() if o.key})
