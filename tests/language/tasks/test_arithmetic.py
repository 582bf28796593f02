"""Arithmetic in steps: its verifier, its prompts, and demonstrations that slip."""

import pytest

from rskernels.language.tasks import arithmetic, demonstrations_of, task_of


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("+5 =12 +2 =14", True),
        ("+2 =9 +5 =14", True),
        ("-3 =4 +5 =9 +5 =14", True),
        (" +5 =12 +2 =14 ", True),
        ("+4 =12 +2 =14", False),  # a wrong total
        ("+5 =12 +1 =13", False),  # another number
        ("+5 =12 +2", False),  # no total
        ("+5 =12 =14 +2", False),
        ("+7 =14", False),  # too large a step
        ("+5 12 +2 14", False),
        ("-5 =2 -3 =-1 +5 =4 +5 =9 +5 =14", False),  # below 0
        ("+1 =8 +1 =9 +1 =10 +1 =11 +1 =12 +2 =14", False),  # a step too many
        ("+0 =7 +5 =12 +2 =14", False),
        ("", False),
        ("14", False),
    ],
)
def test_an_answer_is_right_or_not(answer, is_right):
    assert arithmetic.reward(["7 to 14 :"], [answer]) == [float(is_right)]


def test_the_same_steps_in_another_order_are_the_same_answer():
    key = task_of("arithmetic", 0).key
    assert key("+5 =12 +2 =14") == key("+2 =9 +5 =14") != key("+4 =11 +3 =14")


def test_prompts_are_held_out():
    task = task_of("arithmetic", 4)
    asked, held_out = ({row["prompt"] for row in rows} for rows in (task.train, task.test))
    assert len(asked) == 320
    assert len(held_out) == 100
    assert not asked & held_out
    assert {prompt for prompt, _ in demonstrations_of("arithmetic", task, 400, 0)} <= asked
    again = task_of("arithmetic", 4)
    assert again.train == task.train
    assert task_of("arithmetic", 5).train != task.train


def test_demonstrations_are_right_unless_they_slip():
    task = task_of("arithmetic", 0)
    for slips in (0.0, 0.3):
        pairs = demonstrations_of("arithmetic", task, 2000, 1, slips=slips)
        right = sum(task.reward(*map(list, zip(*pairs, strict=True)))) / len(pairs)
        assert right == 1.0 if slips == 0.0 else 0.3 < right < 0.6


def test_every_prompt_can_be_answered():
    prompts = [row["prompt"] for row in task_of("arithmetic", 0, train=419, test=1).train]
    for prompt in prompts:
        ((_, answer),) = arithmetic.demonstrations([prompt], 1, 0, slips=0.0)
        assert arithmetic.is_right(prompt, answer)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: task_of("arithmetic", 0, train=400), ValueError, "at most 420, got 400 and 100"),
        (lambda: task_of("sums", 0), ValueError, "arithmetic, parity, graph, got 'sums'"),
        (lambda: task_of("arithmetic", 0, digits=2), TypeError, "digits"),
        (lambda: arithmetic.reward(["7 14"], [""]), ValueError, "must be like '7 to 14 :'"),
    ],
)
def test_what_cannot_be_asked_is_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
