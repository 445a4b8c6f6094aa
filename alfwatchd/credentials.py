"""Finds secrets in the environment or in systemd's LoadCredential=; they are never in the settings file or a log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from alfwatchd.errors import ConfigError

PREFIX = "ALFWATCHD_CREDENTIAL_"
"""Start of the names of variables that hold secrets; these are not settings."""


def find(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return a secret.

    Parameters
    ----------
    name : str
        For example ``serve_token``: the variable ``ALFWATCHD_CREDENTIAL_SERVE_TOKEN``, else the file ``serve_token`` in
        ``$CREDENTIALS_DIRECTORY``, which systemd makes of ``LoadCredential=serve_token:PATH``.
    environ : mapping of str to str
        The environment.

    Returns
    -------
    str or None
        Without white space around it; None if neither exists, or both are empty.

    Raises
    ------
    ConfigError
        The file exists and cannot be read. The message holds its path, never its content.
    """
    if given := environ.get(PREFIX + name.upper(), "").strip():
        return given
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    if not folder:
        return None
    path = Path(folder, name)
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{path}: the credential cannot be read: {reason}; check LoadCredential=") from error
