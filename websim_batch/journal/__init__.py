"""The journal: an SQLite file beside the output that knows every row sent, every request, every result.

Only this package meets sqlite3. What it gives to others:

    open_journal(path) ──> Journal         runs, what is known of rows, the output's cells, the ledger
    JournalWriter                          durable groups of intents, outcomes and results
    Identity                               who each input row is, and where the journal has it
    OutputLock                             one run at a time for each output
    read_status                            what a run wrote about itself last, from any process
"""

from websim_batch.journal.identity import Identity
from websim_batch.journal.lock import Holder, OutputLock
from websim_batch.journal.occurrences import occurrence_key
from websim_batch.journal.places import journal_path, lock_path, old_path, point_to, retire_journal
from websim_batch.journal.reading import Known, Placed
from websim_batch.journal.status import JournalStatus, read_status
from websim_batch.journal.store import Journal, LedgerFacts, RunFacts, open_journal
from websim_batch.journal.writer import JournalWriter

__all__ = [
    "Holder", "Identity", "Journal", "JournalStatus", "JournalWriter", "Known", "LedgerFacts", "OutputLock",
    "Placed", "RunFacts", "journal_path", "lock_path", "occurrence_key", "old_path", "open_journal",
    "point_to", "read_status", "retire_journal",
]  # fmt: skip
