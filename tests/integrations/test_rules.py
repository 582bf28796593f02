"""How rules are read, and what is refused."""

import pytest

from rskernels.integrations.rules import RULES, Rule


@pytest.mark.parametrize(
    ("text", "policy", "unit", "statistic"),
    [
        ("seq_sum_bernoulli:2", "fixed:2.0", "sequence", "sum"),
        ("seq_sum_bernoulli:budget=0.5", "budget:0.5", "sequence", "sum"),
        (" seq_mean_bernoulli : quantile=0.9", "quantile:0.9", "sequence", "mean"),
        ("seq_max_bernoulli:decayed=100", "decayed:100", "sequence", "max"),
        ("seq_mean_k3_bernoulli", "fixed:1.0", "sequence", "mean_k3"),
        ("token_bernoulli:tail", "tail", "token", None),
        ("token_bernoulli:max", "max", "token", None),
        ("prefix_bernoulli", "fixed:1.0", "prefix", None),
        ("prefix_bernoulli:1.5", "fixed:1.5", "prefix", None),
    ],
)
def test_a_text_names_a_unit_a_statistic_and_a_policy(text, policy, unit, statistic):
    rule = Rule.parse(text)
    assert (rule.policy, rule.unit, rule.statistic) == (policy, unit, statistic)
    assert rule.is_fixed == policy.startswith("fixed")


def test_a_policy_may_be_kept_apart():
    assert Rule.parse("seq_sum_bernoulli", 2) == Rule.parse("seq_sum_bernoulli:2.0")
    assert Rule.parse("token_bernoulli", "budget=0.5") == Rule.parse("token_bernoulli:budget=0.5")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("seq_sum_k1:2",), ValueError, "a rule is one of seq_sum_bernoulli, .* got 'seq_sum_k1'"),
        (("seq_sum_bernoulli",), ValueError, "needs an M: a number M above 0, 'budget=RATE'"),
        (("seq_sum_bernoulli:",), ValueError, "M of seq_sum_bernoulli must be .* got ''"),
        (("seq_sum_bernoulli:0",), ValueError, "above 0.* got '0'"),
        (("seq_sum_bernoulli:nan",), ValueError, "above 0.* got 'nan'"),
        (("seq_sum_bernoulli:budget=2",), ValueError, r"RATE in \(0, 1\].* got 'budget=2'"),
        (("seq_sum_bernoulli:budget",), ValueError, "got 'budget'"),
        (("seq_sum_bernoulli:max=2",), ValueError, "got 'max=2'"),
        (("prefix_bernoulli:max",), ValueError, "takes a number M above 0 alone, got 'max'"),
        (("token_bernoulli:2", "3"), ValueError, "says its M, and so does '3'"),
        ((3,), TypeError, "a rule is a str such as 'seq_sum_bernoulli:2', got 3"),
        (("token_bernoulli", True), TypeError, "M of token_bernoulli must be .* got bool"),
    ],
)
def test_what_is_no_rule_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Rule.parse(*arguments)


def test_every_rule_is_read_by_its_name():
    assert [Rule.parse(name, 2.0).name for name in RULES] == list(RULES)


def test_labels_tell_rules_apart_without_the_words_that_verl_reads():
    texts = ("seq_max_bernoulli:2", "seq_sum_bernoulli:max", "seq_sum_bernoulli:budget=0.5")
    assert [Rule.parse(text).label for text in texts] == [
        "seq_largest_bernoulli_2.0",
        "seq_sum_bernoulli_largest",
        "seq_sum_bernoulli_budget=0.5",
    ]
    labels = [Rule.parse(name, number).label for name in RULES for number in (1.5, 2.0)]
    assert len(set(labels)) == len(labels)
    assert not [label for label in labels if "max" in label or "min" in label]
