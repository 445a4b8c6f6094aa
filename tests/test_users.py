"""Messages name the user whose rights are missing, also in a container without a list of users."""

import os
import pwd

from alfwatchd.users import this_user


def test_a_user_with_a_name():
    name = pwd.getpwuid(os.geteuid()).pw_name
    assert this_user() == f"user {name} (uid {os.geteuid()})"


def test_a_user_without_a_name(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert this_user() == "the user of uid 54321"
