"""A pod beside a service called `alfwatchd` must start: its variables are not the user's mistakes."""

import pytest

from alfwatchd.errors import ConfigError
from alfwatchd.service.configuration import load
from alfwatchd.service.containers import set_variables

KUBERNETES = {
    "ALFWATCHD_SERVICE_HOST": "10.0.0.1",
    "ALFWATCHD_SERVICE_PORT": "8310",
    "ALFWATCHD_SERVICE_PORT_HTTP": "8310",
    "ALFWATCHD_PORT": "tcp://10.0.0.1:8310",
    "ALFWATCHD_PORT_8310_TCP": "tcp://10.0.0.1:8310",
    "ALFWATCHD_PORT_8310_TCP_PROTO": "tcp",
    "ALFWATCHD_PORT_8310_TCP_PORT": "8310",
    "ALFWATCHD_PORT_8310_TCP_ADDR": "10.0.0.1",
}
SECOND_SERVICE = {key.replace("ALFWATCHD", "ALFWATCHD_SERVE"): value for key, value in KUBERNETES.items()}
DOCKER_LINK = {
    "ALFWATCHD_NAME": "/web/alfwatchd",
    "ALFWATCHD_PORT": "udp://172.17.0.5:53",
    "ALFWATCHD_PORT_53_UDP": "udp://172.17.0.5:53",
    "ALFWATCHD_ENV_PATH": "/bin",
}


@pytest.mark.parametrize("variables", [KUBERNETES, SECOND_SERVICE, DOCKER_LINK], ids=["Kubernetes", "second", "Docker"])
def test_what_a_container_gets_beside_a_service_of_this_name_is_no_setting(variables):
    """The pod would not start, in every namespace that has the service, and the user has set nothing."""
    environ = {"HOME": "/", "PATH": "/bin", **variables}
    assert set_variables(environ, "ALFWATCHD_") == set(variables)
    assert load({"root": "/data"}, {**environ, "ALFWATCHD_LAB": "mine"}).settings.lab == "mine"


@pytest.mark.parametrize("name", ["ALFWATCHD_PORT", "ALFWATCHD_SERVICE_PORT", "ALFWATCHD_PORT_8310_TCP"])
def test_a_variable_of_such_a_name_that_a_person_set_is_still_refused(name):
    """A user who means serve.port must learn how it is called."""
    with pytest.raises(ConfigError, match="unknown key"):
        load({"root": "/data"}, {"HOME": "/", name: "8310"})


def test_settings_beside_such_variables_keep_their_meaning():
    environ = {"HOME": "/", **SECOND_SERVICE, "ALFWATCHD_SERVE__PORT": "99", "ALFWATCHD_PORTT": "1"}
    with pytest.raises(ConfigError, match="'portt'"):
        load({"root": "/data"}, environ)
    del environ["ALFWATCHD_PORTT"]
    assert load({"root": "/data"}, environ).settings.serve.port == 99
