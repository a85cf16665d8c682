"""How the result of a run reads: one line for a console, a small page for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING, TypeAlias

from websim_batch.progress.view import duration

if TYPE_CHECKING:
    from websim_batch.run.summary import Summary

Counts: TypeAlias = Iterable[tuple[str, int]]

_RETRY = "result.retry_failed() tries those rows again"


def as_line(summary: Summary) -> str:
    """`<RunResult answers.csv: finished, exit code 3; 40 rows: ok 38, failed 2; errors: server 2>`."""
    return f"<RunResult {'; '.join(_parts(summary))}>"


def as_html(summary: Summary) -> str:
    """The outcome in a sentence, rows by status, errors by type, and what to do next; all text is escaped."""
    heading = (
        f"<p><b>{escape(summary.state)}</b>, exit code {summary.exit_code}: {_rows(summary.rows)} in"
        f" <code>{escape(summary.output)}</code>; {summary.sent:,} sent in {duration(summary.elapsed_s)}</p>"
    )
    tables = [_table("status", summary.counts.items()), _table("error_type", summary.errors.items())]
    remark = _remark(summary)
    return f"<div>{heading}{''.join(tables)}{f'<p>{escape(remark)}</p>' if remark else ''}</div>"


def _parts(summary: Summary) -> Iterator[str]:
    yield f"{summary.output}: {summary.state}, exit code {summary.exit_code}"
    yield f"{_rows(summary.rows)}: {_told(summary.counts.items()) or 'empty'}"
    if summary.errors:
        yield f"errors: {_told(summary.errors.items())}"
    if remark := _remark(summary):
        yield " ".join(remark.split())


def _remark(summary: Summary) -> str:
    return summary.message or (_RETRY if summary.exit_code == 3 else "")


def _told(counts: Counts) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _table(heading: str, counts: Counts) -> str:
    lines = "".join(f"<tr><td>{escape(name)}</td><td>{count:,}</td></tr>" for name, count in counts)
    if not lines:
        return ""
    return f"<table><thead><tr><th>{heading}</th><th>rows</th></tr></thead><tbody>{lines}</tbody></table>"
