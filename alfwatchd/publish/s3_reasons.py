"""Why an S3 server did not do what it was asked: codes, and what a person can do about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "NotModified", "412", "409", "304"}
"""Codes that say: the condition of this write is not met."""
MISSING = {"NoSuchKey", "NotFound", "404"}
"""Codes that say: there is no such object."""
_REFUSED = {"NotImplemented", "NotSupported", "MethodNotAllowed", "InvalidArgument", "InvalidRequest", "400"}

_REDIRECTED = {"PermanentRedirect", "TemporaryRedirect", "Redirect", "301", "302", "303", "307", "308"}
_HINTS = {
    "InvalidAccessKeyId": "it does not know this access key; check aws_access_key_id",
    "SignatureDoesNotMatch": "the secret does not belong to the access key; check aws_secret_access_key",
    "ExpiredToken ExpiredTokenException RequestExpired InvalidToken TokenRefreshRequired": "the session "
    "token is old or wrong; get new credentials",
    "RequestTimeTooSkewed": "its clock and the clock of this machine differ too much; set the clocks",
    "AccessDenied AllAccessDisabled Forbidden Unauthorized 401 403": "the credentials may not do this; "
    "docs/guide/publish.md lists what a publisher must be allowed to do",
    "NoSuchBucket": "there is no such bucket; make it, or check target and endpoint",
    "InvalidBucketName ParamValidationError": "no bucket can have this name; check target",
    "AuthorizationHeaderMalformed IncorrectEndpoint": "it serves another region; check region and endpoint",
    "InvalidRegionError": "no region can have this name; check region",
    "SecondLevelDomainForbidden": "it wants the bucket in the host name; docs/guide/publish.md says how",
    "EntityTooLarge 413": "the zip is too large for it; publish smaller sub-tables",
    "QuotaExceeded XMinioStorageFull InsufficientStorage 507": "it has no room left; make room there",
    "XAmzContentSHA256Mismatch BadDigest IncompleteBody": "what arrived was damaged; check the network and proxies",
    "NotImplemented NotSupported 501": "it does not know what this request asks for; use another server or version",
    "MethodNotAllowed 405": "it does not take this request; is it an S3 server, or a proxy? check endpoint",
    "ResponseParserError": "it does not answer as S3 does; is it an S3 server, or a proxy? check endpoint",
    "SlowDown ServiceUnavailable InternalError 500 502 503 504": "it is busy or broken at the moment",
    "EndpointConnectionError ConnectionClosedError": "it cannot be reached; check endpoint and network",
    "ConnectTimeoutError ReadTimeoutError TimeoutError RequestTimeout": "it does not answer in time; check endpoint",
    "ProxyConnectionError": "the proxy cannot be reached; check HTTP_PROXY and HTTPS_PROXY",
    "SSLError": "its certificate is not trusted; name the certificate of its authority in AWS_CA_BUNDLE",
    "NoCredentialsError": "there are no credentials; docs/guide/install.md says where they may be",
    "PartialCredentialsError": "a key without a secret, or a secret without a key; give both",
    "ProfileNotFound ConfigParseError ConfigNotFound InvalidConfigError InfiniteLoopConfigError "
    "InvalidS3AddressingStyleError": "check AWS_PROFILE and the files in ~/.aws",
    "EndpointResolutionError": "this endpoint does not go with the settings for s3 in ~/.aws; check both",
    "CredentialRetrievalError UnauthorizedSSOTokenError SSOTokenLoadError TokenRetrievalError": "the credentials that "
    "~/.aws describes cannot be had; log in again",
    "RefreshWithMFAUnsupportedError": "the role in ~/.aws wants the code of a second factor, and a program cannot "
    "type it; use a profile without mfa_serial",
    "FileNotFoundError PermissionError": "a file that ~/.aws or AWS_... names is not there, or cannot be read: check "
    "credential_process, AWS_CA_BUNDLE and AWS_WEB_IDENTITY_TOKEN_FILE",
    "JSONDecodeError": "the credential_process in ~/.aws prints no JSON; run it to see what it prints",
    "ProxyAuthenticationRequired 407": "the proxy wants a name and a password; "
    "write them into HTTP_PROXY or HTTPS_PROXY",
}
"""Codes, separated by spaces -> what is the matter, and what to do."""
_CREDENTIALS = {
    "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId",
    "SignatureDoesNotMatch", "AccessDenied", "RequestExpired", "NoCredentialsError", "PartialCredentialsError",
    "401", "403",
}  # fmt: skip
"""Codes after which other credentials may help."""
_ADVICE = {code: hint for codes, hint in _HINTS.items() for code in codes.split()}
_WORD = re.compile(r"(?=.*[a-z])[A-Z][A-Za-z]{2,39}")  # access keys have no small letters
_ADDRESS = re.compile(r"(https?://[a-z0-9.-]{1,253}(?::\d{1,5})?)(?:[/?#].*)?")
_REGION = re.compile(r"[a-z0-9-]{1,32}")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a request failed, without anything of the request, which the server may have repeated.

    Parameters
    ----------
    code : str
        A code of S3, a status of HTTP, or a type of error.
    status : int
        Status of HTTP; 0 where there was no answer.
    address, region : str
        Where the server says that the bucket is; empty if it does not.
    """

    code: str
    status: int = 0
    address: str = ""
    region: str = ""

    @property
    def is_refusal(self) -> bool:
        """Whether the server may mean: I do not know what this request asks for."""
        return self.code in _REFUSED or self.status in (405, 501)

    @property
    def is_about_credentials(self) -> bool:
        """Whether the server refuses the credentials, or there are none."""
        return self.code in _CREDENTIALS

    def __str__(self) -> str:
        return f"the S3 server cannot be used ({self.code}): {self._what_to_do()}"

    def _what_to_do(self) -> str:
        if self.region:
            return f"the bucket is in the region {self.region}; set region to it"
        if self.address:
            return f"it redirects to {self.address}; set endpoint to the address of the S3 server itself"
        if self.code in _REDIRECTED:
            return "the bucket is at another address; check region and endpoint"
        return _ADVICE.get(self.code, "check endpoint, region, bucket and credentials")


def read_answer(answer: Mapping[str, Any]) -> Reason:
    """Return the reason in an answer of a server, as botocore parses it."""
    error, about = answer.get("Error", {}), answer.get("ResponseMetadata", {})
    headers, status = about.get("HTTPHeaders", {}), int(about.get("HTTPStatusCode", 0))
    code = str(error.get("Code", ""))
    if code not in _ADVICE and not _WORD.fullmatch(code) and not re.fullmatch(r"\d{3}", code):
        code = str(status)
    address = _ADDRESS.fullmatch(str(headers.get("location", "")))
    region = str(error.get("Region") or headers.get("x-amz-bucket-region", ""))
    is_elsewhere = status // 100 == 3 or code == "AuthorizationHeaderMalformed"
    return Reason(
        code,
        status,
        address[1] if address and is_elsewhere else "",
        region if _REGION.fullmatch(region) and is_elsewhere else "",
    )
