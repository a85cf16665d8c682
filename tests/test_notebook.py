"""The worked notebook, run as a person would: cell by cell, in a kernel of its own, against the sandbox."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from websim_batch.progress import ProgressView
from websim_batch.progress.notebook import NotebookLine, in_kernel

SAMPLES = Path(__file__).parents[1] / "sample_inputs"
NOTEBOOK = SAMPLES / "notebook.ipynb"
CELL_S = 60


def read(path: Path = NOTEBOOK) -> Any:
    """The notebook as nbformat has it."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def executed(notebook: Any, folder: Path) -> Any:
    """The notebook after its kernel ran it in `folder`; an error in a cell is raised."""
    client = NotebookClient(notebook, timeout=CELL_S, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "PYTHONPATH": str(SAMPLES.parent)})
    return notebook


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The worked notebook after its run in a copy of the samples, and the folder of its output."""
    root = tmp_path_factory.mktemp("notebook")
    shutil.copytree(SAMPLES, root / "sample_inputs")
    return executed(read(), root / "sample_inputs"), root / "out"


def shown(notebook: Any, source: str, kind: str = "text/plain") -> list[str]:
    """What the cell that contains `source` showed, of one kind."""
    (cell,) = [cell for cell in notebook.cells if source in cell.source and cell.cell_type == "code"]
    return [output.data[kind] for output in cell.outputs if kind in output.get("data", {})]


def test_the_notebook_is_stored_without_outputs() -> None:
    """No output, no count, no machine's own metadata goes into the repository."""
    cells = [cell for cell in read().cells if cell.cell_type == "code"]

    assert cells
    assert [cell for cell in cells if cell.outputs or cell.execution_count or cell.metadata] == []


def test_every_cell_runs_and_the_last_one_tells_the_outcome(ran: tuple[Any, Path]) -> None:
    """The last cell shows that every prompt of the sample was answered or skipped."""
    notebook, _ = ran

    (told,) = shown(notebook, "**result.counts")

    rows = len(NOTEBOOK.with_name("chat.jsonl").read_text().splitlines())
    assert told.startswith(f"{{'rows': {rows}, 'exit_code': 0, 'ok': ")
    assert "failed" not in told


def test_progress_is_one_line_that_is_rewritten(ran: tuple[Any, Path]) -> None:
    """A cell that runs a job shows its progress in one place, without control characters, and then the result."""
    notebook, _ = ran

    progress, result = shown(notebook, 'chat.csv", output="chat.parquet", sandbox=True)\nresult')

    assert "rows (100 %)" in progress
    assert progress.isprintable()
    assert result.startswith("<RunResult chat.parquet: finished, exit code 0;")
    assert [
        cell
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream"
    ] == []


def test_a_cell_run_again_pays_nothing(ran: tuple[Any, Path]) -> None:
    """The notebook's own claim: the second run of the same cell sends no request."""
    assert shown(ran[0], "again.summary.sent")[-1] == "0"


def test_failures_are_told_at_a_glance(ran: tuple[Any, Path]) -> None:
    """The HTML of a result has the error table."""
    (page,) = shown(ran[0], "drawn = wb.run", "text/html")

    assert "<tr><td>failed</td><td>1</td></tr>" in page
    assert "<tr><td>input</td><td>1</td></tr>" in page


def test_what_the_notebook_writes_lands_in_the_ignored_folder(ran: tuple[Any, Path]) -> None:
    """Nothing is left beside the samples."""
    _, out = ran

    assert {path.name for path in (out.parent / "sample_inputs").iterdir()} == {
        path.name for path in SAMPLES.iterdir()
    }
    assert {path.name.partition("-")[0] for path in out.glob("*.parquet")} == {"chat.parquet", "websim"}


INTERRUPTED = """
import os, signal, threading
import pandas as pd
import websim_batch as wb
from websim_batch.sandbox import Sandbox, SandboxOptions

frame = pd.DataFrame({"prompt": [f"say {number}" for number in range(60)]})
with Sandbox(SandboxOptions(latency_ms=300)) as sandbox:
    def interrupt():
        while len(sandbox.arrivals) < 10:
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)  # as the kernel does for its interrupt button
    threading.Thread(target=interrupt).start()
    result = wb.run(frame, base_url=sandbox.base_url, concurrency=4)
print(result.exit_code, 0 < result.counts["ok"] == sandbox.status_count(200) < 60)
"""


def test_interrupting_a_cell_keeps_what_finished(tmp_path: Path) -> None:
    """The kernel's interrupt drains the run; the cell goes on with a result."""
    cell = nbformat.v4.new_code_cell(INTERRUPTED)  # type: ignore[no-untyped-call]
    notebook = nbformat.v4.new_notebook(cells=[cell])  # type: ignore[no-untyped-call]

    outputs = executed(notebook, tmp_path).cells[0].outputs

    assert [output.text for output in outputs if output.output_type == "stream"] == ["130 True\n"]
    assert "interrupted (SIGINT)" in outputs[0].data["text/plain"]


class FakeDisplay:
    """IPython's display: keeps what was shown, in place."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, data: dict[str, str], *, raw: bool, display_id: bool) -> FakeDisplay:
        self.shown.append(data["text/plain"])
        return self

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        """Show something else in the same place."""
        self.shown.append(data["text/plain"])


def test_messages_stand_above_the_line_and_old_ones_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are marked, details are left out, equal states are shown once, and five messages at most stay."""
    display = FakeDisplay()
    line = NotebookLine()
    monkeypatch.setattr(line, "_display", display)

    line.start(8)
    line.update(ProgressView(0, 8))
    line.log("debug", "detail", "nobody asked")
    for number in range(6):
        line.log("warning", "notice", f"number\r{number}")

    assert len(display.shown) == 7
    assert display.shown[0].startswith("0 of 8 rows (0 %)")
    *messages, state = display.shown[-1].splitlines()
    assert messages == [f"warning: number {number}" for number in range(1, 6)]
    assert state == display.shown[0]


def test_a_script_is_no_notebook() -> None:
    """Outside a kernel progress is the command line's."""
    assert not in_kernel()
