"""pass@k and distinct right answers."""

from itertools import combinations

import pytest

from rskernels.language.evaluate import numbers_of, pass_at_k


@pytest.mark.parametrize(("n", "right"), [(5, 0), (5, 2), (5, 5), (1, 1)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n, right):
    for k in range(1, n + 1):
        subsets = list(combinations([at < right for at in range(n)], k))
        assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize("given", [(3, 1, 0), (3, 1, 4), (3, 4, 1), (3, -1, 1)])
def test_what_cannot_be_is_refused(given):
    with pytest.raises(ValueError, match="1 <= k <= n"):
        pass_at_k(*given)


def test_numbers_of_answers():
    texts = [["7", " 7", "8", "9"], ["1", "2", "3", "3"], ["x"] * 4]
    is_right = [[True, True, True, False], [True, False, False, False], [False] * 4]
    numbers = numbers_of(texts, is_right, None)
    assert list(numbers) == ["pass_at_1", "pass_at_2", "pass_at_4", "distinct_right"]
    assert numbers["pass_at_1"] == pytest.approx(1 / 3)
    assert numbers["pass_at_2"] == pytest.approx((1 + 1 / 2) / 3)
    assert numbers["pass_at_4"] == pytest.approx(2 / 3)
    assert numbers["distinct_right"] == pytest.approx(1.0)
    assert numbers_of(texts, is_right, lambda text: "")["distinct_right"] == pytest.approx(2 / 3)
    assert list(numbers_of([["7"] * 3], [[True] * 3], None))[:3] == [
        "pass_at_1", "pass_at_2", "pass_at_3",
    ]  # fmt: skip
