"""Reward functions as users have them, right and wrong; ``CALLS`` has the rows they were given."""

CALLS = []


def answers(prompts, completions):
    CALLS.extend(completions)
    return [int(text.split()[1]) / 8 for text in completions]


def sevenths(prompts, completions, id, **columns):
    assert {"sample", "note"} <= set(columns)
    assert columns["note"][0]["n"] * 7919 == id[0]
    return [i % 7 == 0 for i in id]


def of_messages(prompts, completions):
    assert all([m["role"] for m in prompt] == ["system", "user"] for prompt in prompts)
    return [len(prompt[1]["content"]) / len(c["content"]) for prompt, (c,) in zip(
        prompts, completions, strict=True)]  # fmt: skip


async def later(prompts, completions):
    return [1.0] * len(prompts)


def needy(prompts, completions, answer):
    return [0.0] * len(prompts)


def nameless(texts):
    return [0.0] * len(texts)


def dies_on_nine(prompts, completions):
    return [1 / (int(text.split()[1]) - 9) for text in completions]


def odd(prompts, completions):
    return [{"1": None, "2": float("nan"), "3": "3", "4": float("inf")}.get(c[-1:], 0.5) for c in
            completions]  # fmt: skip


def too_few(prompts, completions):
    return [0.5] * (len(prompts) - (len(prompts) > 1 or "answer 3" in completions))


def huge(prompts, completions):
    return [10**400 if text == "answer 3" else 0.5 for text in completions]


def exits(prompts, completions):
    if "answer 3" in completions:
        raise SystemExit(0)
    return [0.5] * len(prompts)
