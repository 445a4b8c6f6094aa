"""Every exception class of the package. Each message says what failed, on which path, and what to do next."""

from __future__ import annotations


class AlfwatchdError(Exception):
    """Base of all errors that a caller may want to catch."""

    exit_code = 1


class UsageError(AlfwatchdError):
    """The command line or the request makes no sense."""

    exit_code = 2


class NoDaemon(AlfwatchdError):
    """No daemon answers on the control socket."""

    exit_code = 3


class WrongRoot(AlfwatchdError):
    """The daemon that was asked keeps another root than the client named; it did nothing."""

    exit_code = 3


class Locked(AlfwatchdError):
    """Another process holds the output folder."""

    exit_code = 75


class Busy(AlfwatchdError):
    """The daemon is doing something during which it cannot answer this request; try again."""

    exit_code = 75


class TooOften(Busy):
    """A user without control rights may not ask for this again so soon.

    Parameters
    ----------
    message : str
    wait_seconds : float
        When to ask again.
    """

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class NoThreads(Busy):
    """The kernel allows no more threads now."""


class ConfigError(AlfwatchdError):
    """A setting is missing, unknown or invalid."""

    exit_code = 78


class RootOffline(AlfwatchdError):
    """The root is missing, unreadable, another file system than before, or suddenly empty."""


class OutDirError(AlfwatchdError, AssertionError):
    """The output folder is missing or not a folder (upstream raises ``AssertionError`` here)."""


class LabConflict(AlfwatchdError, AssertionError):
    """The `lab` setting differs from a lab folder (upstream raises ``AssertionError`` here)."""


class TablesError(AlfwatchdError):
    """Tables could not be read or written."""


class SourceError(AlfwatchdError):
    """The tables of a database, whose ids are to be adopted, could not be read."""


class SourceMissing(SourceError):
    """There are no tables at the source, or the server does not say whether there are."""


class SourceRefused(SourceMissing):
    """The server refuses: it does not accept the credential, or hides what is not there."""


class TargetError(AlfwatchdError):
    """A target of a publication could not be read or written. It is unchanged, or is tried again."""


class TargetChanged(TargetError):
    """Another publisher has written to the target meanwhile; nothing was overwritten."""

    exit_code = 75


class StateError(AlfwatchdError):
    """The state file could not be read or written. The next scan can make its content again."""


class StateLocked(Locked, StateError):
    """Another process has the state file open."""


class WatchError(AlfwatchdError):
    """A folder could not be watched."""


class WatchLimit(WatchError):
    """The kernel's limit of inotify watches or instances is reached."""


class PruneRefused(AlfwatchdError):
    """A prune would not be safe, so nothing was deleted."""


class NotAllowed(AlfwatchdError):
    """The user that connected to the control socket may not do this."""


class RequestFailed(AlfwatchdError):
    """The daemon answered a request with an error."""
