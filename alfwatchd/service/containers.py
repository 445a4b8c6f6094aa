"""Variables that Kubernetes and Docker set in a container, whose names look like those of settings."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SERVICE = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


def set_variables(environ: Mapping[str, str], prefix: str) -> set[str]:
    """Return the variables with this prefix that Kubernetes and Docker set beside a service of such a name.

    `NAME_PORT` is then an address, as in ``ALFWATCHD_PORT=tcp://10.0.0.1:8310``, and other variables begin in the same
    way (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables). They are no settings.
    """
    found: set[str] = set()
    for name, value in environ.items():
        if name.startswith(prefix) and name.endswith("_PORT") and _SERVICE.match(value):
            start = name.removesuffix("PORT")
            ours = re.compile(rf"{start}(PORT(_\d+_.*)?|SERVICE_(HOST|PORT)(_.*)?|NAME|ENV_.*)")
            found.update(each for each in environ if ours.fullmatch(each))
    return found
