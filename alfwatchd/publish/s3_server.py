"""One bucket at an S3 server: requests and answers; the only importer of botocore.

Of a server's answer to a request that failed, only a `Reason` is passed on, because the answer may repeat parts of the
request, and so a secret.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar

from alfwatchd import credentials
from alfwatchd.errors import ConfigError
from alfwatchd.publish.s3_reasons import Reason, read_answer

CREDENTIALS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
"""Names of credentials, see `credentials.find`, and arguments of botocore."""
_TRIES = 2
_TALKATIVE = ("botocore", "urllib3")
_Result = TypeVar("_Result")


class S3Failure(Exception):
    """A request failed, or could not be made.

    Parameters
    ----------
    reason : Reason
        Why, and what to do; the text of the exception is that of the reason.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class S3Server:
    """A bucket at a server. Connects at the first request, and again after the server refused the credentials.

    Parameters
    ----------
    bucket : str
        Name of the bucket, without ``s3://``.
    endpoint : str
        Address of the server, which may end in a path; empty for the one in the environment or in ``~/.aws``, else
        Amazon's.
    region : str
        Region of the bucket, as the server calls it; empty likewise, else ``us-east-1``.
    connect_seconds, read_seconds : float
        Time-outs in seconds, for connecting, and for the pause between two pieces of an answer.
    request_seconds : float
        Time-out in seconds for a whole request with all its tries.

    Attributes
    ----------
    address : str
        Address of the server, without a slash at its end.

    Raises
    ------
    ConfigError
        botocore is not installed, or a credential cannot be read.
    S3Failure
        The settings, those in ``~/.aws`` included, make no sense.
    """

    def __init__(
        self,
        bucket: str,
        endpoint: str,
        region: str,
        *,
        connect_seconds: float,
        read_seconds: float,
        request_seconds: float,
    ) -> None:
        self._bucket, self._request_seconds = bucket, request_seconds
        self._connect = partial(_connect, endpoint, region, connect_seconds, read_seconds)
        self._client = self._connect()
        self._is_refused = False
        self.address = str(self._client.meta.endpoint_url).rstrip("/")

    def ask(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """Make a request that botocore has a method for, and return the answer with its whole body in ``Body``.

        Raises
        ------
        S3Failure
            See the class.
        """
        if self._is_refused:
            self._renew()
        client = self._client

        def run() -> Mapping[str, Any]:
            answer: dict[str, Any] = getattr(client, operation)(Bucket=self._bucket, **arguments)
            if "Body" in answer:
                with answer["Body"] as body:
                    answer["Body"] = body.read()
            return answer

        try:
            return _surely(lambda: _in_time(run, self._request_seconds))
        except S3Failure as failure:
            self._is_refused = failure.reason.is_about_credentials
            raise

    def head(self, key: str) -> Mapping[str, Any]:
        """Return what the server tells about an object, without its content. Raises as `ask` does."""
        try:
            return self.ask("head_object", Key=key)
        except S3Failure as failure:
            told = failure
        if told.reason.status // 100 in (3, 4) and told.reason.status != 404:
            # The answer to HEAD has no body, which would say why.
            self.ask("get_object", Key=key, Range="bytes=0-0")
        raise told

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _renew(self) -> None:
        """Connect again: botocore reads keys from files only once, and other programs renew these files."""
        fresh = self._connect()
        self.close()
        self._client, self._is_refused = fresh, False


def check_installed() -> None:
    """Raise `ConfigError` if botocore is not installed, or a credential cannot be read."""
    if find_spec("botocore") is None:
        raise ConfigError("targets in S3 need botocore: pip install 'alfwatchd[s3]'")
    _find_credentials()


def _find_credentials() -> dict[str, str]:
    found = {name: credentials.find(name) for name in CREDENTIALS}
    return {name: value for name, value in found.items() if value}


def _connect(endpoint: str, region: str, connect_seconds: float, read_seconds: float) -> Any:
    """Return a client of botocore. What a setting leaves empty, botocore takes from the environment or ``~/.aws``."""
    check_installed()
    import botocore.config
    import botocore.session

    for name in _TALKATIVE:  # at the level `debug` they log requests with their signatures
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = botocore.config.Config(
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        retries={"total_max_attempts": _TRIES, "mode": "standard"},
        # Many servers know none of the checksums that botocore adds by itself. All know the sha256 of the signature,
        # by which they recognise a body that arrives damaged.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": True},
    )
    found = {"endpoint_url": endpoint or None, "region_name": region or None, **_find_credentials()}
    session = botocore.session.get_session()
    _surely(lambda: _ask_nobody(session))
    client = _surely(lambda: session.create_client("s3", config=config, **found))
    client.meta.events.register("before-call.s3.HeadBucket", _ask_no_region)
    return client


def _ask_nobody(session: Any) -> None:
    """Keep botocore from asking for the code of a second factor at the terminal: nobody sits there.

    botocore has no public way to say so; a test holds this.
    """

    def refuse(_: str) -> str:
        from botocore.exceptions import RefreshWithMFAUnsupportedError

        raise RefreshWithMFAUnsupportedError

    session.get_component("credential_provider").get_provider("assume-role")._prompter = refuse  # noqa: SLF001


def _ask_no_region(**_: Any) -> None:
    """Keep botocore from asking a server that redirects for the region of the bucket: it asks again and again.

    Amazon's servers tell the region with each redirect.
    """
    from botocore.exceptions import ClientError

    raise ClientError({"Error": {}, "ResponseMetadata": {"HTTPHeaders": {}}}, "HeadBucket")


def _surely(function: Callable[[], _Result]) -> _Result:
    """Return what a function returns; raise `S3Failure` in place of any error, which may hold a secret."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - of botocore, urllib3, the system; all mean the same
        answer = getattr(error, "response", None)
        reason = read_answer(answer) if isinstance(answer, dict) else Reason(type(error).__name__)
    # Not inside the `except`: the failure would carry the error.
    raise S3Failure(reason)


def _in_time(function: Callable[[], _Result], seconds: float) -> _Result:
    """Return what a function returns, or raise `TimeoutError`; then its thread goes on until the connection ends.

    The time-outs of a connection do not end a request whose answer comes byte by byte.
    """
    result: Future[_Result] = Future()

    def run() -> None:
        try:
            result.set_result(function())
        except Exception as error:  # noqa: BLE001 - raised by the thread that waits
            result.set_exception(error)

    threading.Thread(target=run, name="S3 request", daemon=True).start()
    return result.result(timeout=seconds)
