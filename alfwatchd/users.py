"""Names of the users of this machine, for messages."""

from __future__ import annotations

import os
import pwd


def this_user() -> str:
    """Return the user of this process, as a message names it, also one without an entry in the list of users."""
    uid = os.geteuid()
    try:
        return f"user {pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"the user of uid {uid}"
