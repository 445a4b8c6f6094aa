"""The tables of a database on a web server: a zip file, a folder, or what an Alyx itself gives to ONE's clients."""

from __future__ import annotations

import io
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from alfwatchd import credentials
from alfwatchd.addresses import shown
from alfwatchd.alf.file_names import DATASETS, SESSIONS
from alfwatchd.bounded_json import parse as parse_json
from alfwatchd.database.download import MOST_BYTES, Version, fetch, origin
from alfwatchd.database.source_tables import Pair, Source, SourceVersion, read_pair, read_zip
from alfwatchd.errors import SourceError, SourceMissing, SourceRefused

ZIP, INFO, ALYX_INFO = "cache.zip", "cache_info.json", "cache/info"
"""What Alyx calls the two files that it publishes, and the address at which it gives the second one itself."""
TOKEN = "adopt_token"  # noqa: S105  # the name of a credential

_MOST_INFO_BYTES = 1 << 20
TRIES, PAUSE_SECONDS = 5, 0.2
"""How often to try to read files that are being replaced, and seconds between two tries."""


def read_web(source: str, seen: SourceVersion | None, scratch: Path | None) -> Source | None:
    """Do what `sources.read_source` does, with an address that begins with ``http``."""
    web = _Web(source, seen, scratch, credentials.find(TOKEN) or "")
    if urlsplit(source).path.endswith(".zip"):
        return web.read_zip(source)
    if location := web.find_location():
        return web.read_zip(location)
    try:
        return web.read_zip(web.below(ZIP))
    except SourceMissing as missing:
        try:
            return web.read_pair()
        except SourceMissing as error:
            if isinstance(missing, SourceRefused) and not isinstance(error, SourceRefused):
                raise missing from None  # it says more than that there are no two files either
            raise


class _Web:
    """One look at one address.

    Parameters
    ----------
    source : str
    seen : dict or None
    scratch : Path or None
    token : str
        For the server of `source` alone.
    """

    def __init__(self, source: str, seen: SourceVersion | None, scratch: Path | None, token: str) -> None:
        self._source, self._scratch, self._token = source, scratch, token
        self._known = {each["address"]: Version(**each) for each in (seen or {}).get("files", ())}
        self._known_info: dict[str, Any] | None = (seen or {}).get("info")

    def below(self, name: str) -> str:
        """Return the address of a file in the folder that the source is."""
        parts = urlsplit(self._source)
        folder = parts.path.rstrip("/").removesuffix(f"/{ALYX_INFO}")
        return parts._replace(path=f"{folder}/{name}", fragment="").geturl()

    def find_location(self) -> str:
        """Return where the JSON about the tables says that the zip file is; empty if it does not say it."""
        for name in (INFO, ALYX_INFO):
            address = self.below(name)
            if (info := self._find_info(address)) is not None:
                return self._location(address, info)
        return ""

    def _location(self, address: str, info: dict[str, Any]) -> str:
        try:
            location = urljoin(address, info.get("location") or "")
            is_web = urlsplit(location).scheme in ("http", "https")
        except (ValueError, AttributeError, TypeError) as error:
            raise SourceError(f"{shown(address)}: is not a {INFO} as Alyx writes it; check adopt.source") from error
        if not is_web:
            raise SourceError(
                f"{shown(address)}: its location is not an http or https address; name the address of the tables as "
                "adopt.source"
            )
        return "" if location == address else location

    def _find_info(self, address: str) -> dict[str, Any] | None:
        """Return the JSON about the tables; None where there is none."""
        content = io.BytesIO()
        try:
            self._fetch(address, content, None, _MOST_INFO_BYTES)
        except SourceMissing:
            return None
        try:
            info = parse_json(content.getvalue())
        except ValueError:
            info = None
        if not isinstance(info, dict):
            raise SourceError(f"{shown(address)}: is not a {INFO} as Alyx writes it; check adopt.source")
        return info

    def read_zip(self, address: str) -> Source | None:
        known = self._known.get(address)
        if known is not None and self._known_info is not None and self._info_beside(address) == self._known_info:
            return None
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            version = self._fetch(address, file, known)
            if version is known:
                return None
            file.seek(0)
            pair = read_zip(file, shown(address), self._scratch)
        info = None if version.etag or version.modified else self._info_beside(address)
        # Of another date than the zip file, it is of the one that is just being put in its place.
        is_of_it = info is not None and pair.date_created and info.get("date_created") == pair.date_created
        return self._make(pair, [version], info if is_of_it else None)

    def _info_beside(self, address: str) -> dict[str, Any] | None:
        """Return the JSON about a zip file of which the server tells no version, as Alyx's own server does not."""
        try:
            return self._find_info(urljoin(address, ALYX_INFO))
        except SourceError:
            return None

    def read_pair(self) -> Source | None:
        """Read two files of which neither is replaced meanwhile."""
        addresses = [self.below(SESSIONS), self.below(DATASETS)]
        for attempt in range(TRIES):
            with ExitStack() as stack:
                files = [stack.enter_context(tempfile.TemporaryFile(dir=self._scratch)) for _ in addresses]
                known = [self._known.get(address) for address in addresses]
                found = [self._fetch(*each) for each in zip(addresses, files, known, strict=True)]
                if found == known:
                    return None
                # What has not changed was not fetched; both are needed.
                for number, (address, file) in enumerate(zip(addresses, files, strict=True)):
                    if found[number] is known[number]:
                        file.seek(0)
                        file.truncate()
                        found[number] = self._fetch(address, file, None)
                if self._fetch(addresses[0], io.BytesIO(), found[0]) is found[0]:
                    paths = [Path(f"/proc/self/fd/{file.fileno()}") for file in files]
                    for file in files:
                        file.flush()
                    return self._make(read_pair(paths, [*map(shown, addresses)]), found, None)
            time.sleep(PAUSE_SECONDS * (attempt + 1))
        raise SourceError(f"{shown(self._source)}: is being replaced all the time; will be read when it is at rest")

    def _fetch(self, address: str, into: BinaryIO, known: Version | None, most_bytes: int = MOST_BYTES) -> Version:
        token = self._token if origin(address) == origin(self._source) else ""
        return fetch(address, into, known, token, most_bytes)

    def _make(self, pair: Pair, versions: list[Version], info: dict[str, Any] | None) -> Source:
        version: SourceVersion = {"source": self._source, "files": [asdict(each) for each in versions]}
        if info is not None:
            version["info"] = info
        return Source(pair.sessions, pair.datasets, version, ", ".join(shown(each.address) for each in versions))
