"""The run directory: its files, its lock, who runs in it, and the state derived from them.

The directory is the only meeting point of engine and watchers. Liveness is derived from the lock and the
heartbeat, never stored. Every file appears whole: it is written under a temporary name, synced and renamed.
Torch-free.

``files`` writes; ``paths`` names, makes and finds runs; ``process`` and ``lock`` tell who is at work; ``state``
derives the state of a run from all of them.
"""

from engine.rundir.files import clear_partials, sync_rename, write_whole
from engine.rundir.heartbeat import last_event
from engine.rundir.lock import STALL_SECONDS, hold_lock, lock_held
from engine.rundir.paths import Request, RunDir, create, find, home, list_runs, new_id, runs_root
from engine.rundir.process import boot_id, identified, kill, write_process
from engine.rundir.state import ALIVE, RESUMABLE, Signs, State, derive_state, read_signs, state_of, unfinished

__all__ = [
    "ALIVE",
    "RESUMABLE",
    "STALL_SECONDS",
    "Request",
    "RunDir",
    "Signs",
    "State",
    "boot_id",
    "clear_partials",
    "create",
    "derive_state",
    "find",
    "hold_lock",
    "home",
    "identified",
    "kill",
    "last_event",
    "list_runs",
    "lock_held",
    "new_id",
    "read_signs",
    "runs_root",
    "state_of",
    "sync_rename",
    "unfinished",
    "write_process",
    "write_whole",
]
