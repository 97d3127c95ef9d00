"""Roles for kernels: which ids a pattern matches, and what several grants give together."""

import time

import pytest

from pydotcompute.access.roles import EVERYTHING, NOTHING, Grant, Rights, Role, checked_patterns, matches
from pydotcompute.exceptions import InvalidConfigurationError


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("sensors/*", "sensors/1", True),
        ("sensors/*", "sensors/", True),
        ("sensors/*", "sensors/a/b", True),
        ("sensors/*", "sensors", False),
        ("sensors/*", "Sensors/1", False),
        ("sensors/*", "xsensors/1", False),
        ("sensors/*", "sensors/a\nb", True),
        ("sensors/*", "sensors\n/1", False),
        ("sensors", "sensors\n", False),
        ("sensors", "sensors", True),
        ("*", "", True),
        ("*", "anything\n\0/…", True),
        ("**", "x", True),
        ("a*b*c", "abbc", True),
        ("a*b*c", "acb", False),
        ("a*a", "a", False),
        ("*ab*", "aab", True),
        ("*a?*", "baa", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a?c", "a\nc", True),
        ("a.c", "abc", False),
        ("a[bc]d", "abd", False),
        ("a[bc]d", "a[bc]d", True),
        ("(a|b)+", "a", False),
        ("(a|b)+", "(a|b)+", True),
        ("\\*", "*", False),
        ("\\*", "\\x", True),
        ("é", "é", True),
        ("é", "e\u0301", False),
        ("*", "x" * 257, False),
    ],
)
def test_a_pattern_matches_the_whole_of_a_name(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits


def test_no_pattern_takes_long() -> None:
    pattern = checked_patterns("kernels", ["a*" * 8 + "b"])[0]
    began = time.process_time()
    assert not matches(pattern, "a" * 256)
    assert not matches("*a" * 7, "a" * 100_000)
    assert not matches("a" + "*?a" * 7, "a" * 255 + "b")
    assert time.process_time() - began < 20.0


@pytest.mark.parametrize("patterns", ["*", [""], ["*" * 9], ["x" * 257], [1], None, {"a": 1}])
def test_what_is_no_list_of_patterns_is_refused(patterns: object) -> None:
    with pytest.raises(InvalidConfigurationError):
        checked_patterns("kernels", patterns)


def test_several_grants_give_what_each_gives() -> None:
    rights = Rights([Grant(Role.VIEWER), Grant(Role.OPERATOR, ("mine/*",), ("square",)), Grant(Role.CALLER, ("*/1",))])
    assert rights.role_for("other") is Role.VIEWER
    assert rights.role_for("mine/2") is Role.OPERATOR
    assert rights.role_for("mine/1") is Role.OPERATOR
    assert rights.role_for("other/1") is Role.CALLER
    assert rights.see_everything
    assert rights.highest is Role.OPERATOR


def test_a_grant_for_some_kernels_hides_the_others() -> None:
    rights = Rights([Grant(Role.ADMIN, ("mine/*",), ("square",))])
    assert not rights.see_everything
    assert [rights.see(each) for each in ("mine/1", "other", "square", "x" * 1_000)] == [True, False, False, False]
    assert [rights.see_type(each) for each in ("mine/1", "other", "square")] == [True, False, True]
    assert rights.patterns == ("mine/*",)


def test_everything_and_nothing() -> None:
    assert EVERYTHING.have(Role.ADMIN, "any")
    assert NOTHING.highest is None
    assert not NOTHING.have(Role.VIEWER, "any")
    assert not NOTHING.see("any")


def test_the_ids_that_strangers_invent_are_not_kept() -> None:
    rights = Rights([Grant(Role.VIEWER, ("a*",))])
    for number in range(5_000):
        rights.role_for(f"b{number}")
    assert len(rights._roles) <= 1_024
    assert rights.role_for("ab") is Role.VIEWER


def test_the_roles_have_words() -> None:
    assert [Role.of(role.word) for role in Role] == [Role.VIEWER, Role.CALLER, Role.OPERATOR, Role.ADMIN]
    with pytest.raises(InvalidConfigurationError, match="viewer, caller, operator, admin"):
        Role.of("root")
