"""The sample of known sessions is nearly the same each time: else a lost disk could be taken for a changed one."""

from alfwatchd.tree.known_sample import KnownSession, sample


def make(numbers, ino=1):
    return [KnownSession((f"s{number}/2020-01-01/001",), ino) for number in numbers]


def test_few_sessions_are_all_in_it():
    assert set(sample(make(range(5)), most=10)) == set(make(range(5)))


def test_it_does_not_depend_on_the_order_and_hardly_on_new_sessions():
    first = sample(make(range(1000)), most=100)
    assert sample(reversed(make(range(1000))), most=100) == first
    assert len(set(sample(make(range(1010)), most=100)) & set(first)) >= 90


def test_sessions_with_a_known_inode_come_first():
    unknown, known = make(range(1000), ino=0), make(range(1000, 1010), ino=7)
    assert set(sample(unknown + known, most=10)) == set(known)
