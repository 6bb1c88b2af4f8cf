"""Locks of open files, which end with the process that holds them."""

from __future__ import annotations

import fcntl


def try_lock(descriptor: int) -> bool:
    """Lock the file for as long as it is open; ``False`` where another process has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A volume without locks: no other process can lock the file either.
        return True
    return True
