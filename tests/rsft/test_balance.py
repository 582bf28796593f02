import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rskernels.rsft.balance import Balance, log_M_of

MODALITY = torch.tensor([0] * 40 + [1] * 8 + [2] * 2)
NAMES = ("image", "speech", "word")


def expected(log_ratio, log_M):
    return (log_ratio - log_M).clamp(max=0).exp().sum()


def balance_of(log_ratio, has_M=True):
    balance = Balance(MODALITY, NAMES, has_M=has_M)
    balance.update(torch.arange(50), log_ratio)
    return balance


@given(
    ratios=st.lists(st.floats(-300, 300), min_size=1, max_size=30),
    share=st.floats(0.001, 0.999),
)
def test_M_of_a_count_accepts_that_many(ratios, share):
    log_ratio = torch.tensor(ratios, dtype=torch.float64)
    count = share * len(ratios)
    assert float(expected(log_ratio, log_M_of(log_ratio, count))) == pytest.approx(count, rel=1e-9)


def test_M_of_a_count_by_hand():
    # All below M: M is the sum over the count. Then the largest is accepted whole: M = (2 + 2) / 1.
    log_ratio = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64).log()
    assert float(log_M_of(log_ratio, 1.5).exp()) == pytest.approx(4.0)
    log_ratio = torch.tensor([2.0, 8.0, 2.0], dtype=torch.float64).log()
    assert float(log_M_of(log_ratio, 2.0).exp()) == pytest.approx(4.0)


def test_ratios_of_zero_are_never_part_of_the_count():
    log_ratio = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64).log()
    assert float(log_M_of(log_ratio, 1.0).exp()) == pytest.approx(2.0)


def test_every_modality_is_expected_as_often_as_the_scarcest():
    log_ratio = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    policy = torch.tensor([0.1, 0.5, 0.2], dtype=torch.float64)
    log_M = balance_of(log_ratio).log_M(policy)
    before = [float(expected(log_ratio[g == MODALITY], policy[g])) for g in range(3)]
    after = [float(expected(log_ratio[g == MODALITY], log_M[g])) for g in range(3)]
    assert before.index(min(before)) == 2
    assert after == pytest.approx([before[2]] * 3)
    assert log_M[2] == policy[2]
    assert (log_M >= policy).all()


def test_a_factor_of_a_modalitys_ratios_cancels_with_its_M():
    log_ratio = torch.randn(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factor = torch.tensor([-3.0, 2.0, 5.0], dtype=torch.float64)
    policy = torch.zeros(3, dtype=torch.float64)
    plain = balance_of(log_ratio).log_M(policy)
    scaled = balance_of(log_ratio + factor[MODALITY]).log_M(policy + factor)
    torch.testing.assert_close(scaled - factor, plain)


def test_the_newest_ratio_of_a_row_counts_and_invalid_ones_do_not():
    balance = balance_of(torch.zeros(50))
    zero = torch.zeros(3, dtype=torch.float64)
    assert balance.log_M(zero).exp().tolist() == pytest.approx([20, 4, 1])
    balance.update(torch.tensor([48]), torch.tensor([float("nan")]))
    assert balance.log_M(zero).exp().tolist() == pytest.approx([40, 8, 1])
    balance.update(torch.tensor([48]), torch.tensor([-0.5]))
    assert balance.log_M(zero)[0] < torch.tensor(40.0).log()


@pytest.mark.parametrize("ratio", [float("nan"), -float("inf")])
def test_a_modality_of_which_nothing_can_be_accepted_has_no_finite_M(ratio):
    log_ratio = torch.zeros(50, dtype=torch.float64)
    log_ratio[48:] = ratio
    log_M = balance_of(log_ratio).log_M(torch.zeros(3, dtype=torch.float64))
    assert (log_M[:2] == float("inf")).all()


def test_one_modality_or_a_rule_without_balance_leaves_one_group():
    for balance in (Balance(None, (), has_M=True), balance_of(torch.zeros(50), has_M=False)):
        assert balance.groups == 1
        assert balance.group(torch.arange(3)) is None
        assert balance.fewest(50) == 50
    assert balance_of(torch.zeros(50)).fewest(50) == 2
    assert Balance(None, (), has_M=True).measures() == {}


def test_state_comes_back():
    balance = balance_of(torch.randn(50))
    balance.update(torch.arange(5), torch.ones(5), torch.tensor([True, False, True, True, False]))
    other = Balance(MODALITY, NAMES, has_M=True)
    other.load_state_dict(balance.state_dict())
    zero = torch.zeros(3, dtype=torch.float64)
    assert torch.equal(other.log_M(zero), balance.log_M(zero))
    assert other.measures() == balance.measures()
    assert other.measures()["gradient_samples_image"] == 3
    assert other.measures()["log_M_speech"] == other.log_M(zero)[1]
