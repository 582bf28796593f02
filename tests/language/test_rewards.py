"""What ``--tasks`` names, and what is said where it names nothing."""

import asyncio
import json
import sys
import types

import pytest
import torch

from rskernels.language.config import LanguageConfig
from rskernels.language.rewards import options_of, read_rows, task_from
from rskernels.language.task import Task, mixed, rewards_of
from rskernels.rsft.errors import DataError, TrainingError


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def data(tmp_path):
    rows = [{"prompt": f"{n}+{n}=", "answer": 2 * n} for n in range(20)]
    return write(tmp_path / "data.jsonl", rows)


def score(task, rows, answers):
    return rewards_of(task, rows, [row["prompt"] for row in rows], answers)


def test_an_answer_column_is_compared_with_what_the_pattern_finds(data):
    task = task_from(LanguageConfig(tasks="answer", data=data))
    assert (len(task.train), len(task.test)) == (18, 2)
    rows = [{"prompt": "", "answer": 4}, {"prompt": "", "answer": 6}]
    assert score(task, rows, [" 4\n", "is 6"]) == [1.0, 0.0]
    task = task_from(LanguageConfig(tasks="answer", data=data, answer_pattern=r"is (\d+)"))
    assert score(task, rows, ["4", "is 5, no, is 6."]) == [0.0, 1.0]
    assert (task.key("it is 6, is 7"), task.key("none")) == ("7", "")


def test_the_held_out_part_follows_from_the_seed_or_the_file(data, tmp_path):
    def held(**more):
        task = task_from(LanguageConfig(tasks="answer", data=data, **more))
        prompts = [row["prompt"] for row in task.test]
        assert not set(prompts) & {row["prompt"] for row in task.train} or "test_data" in more
        return prompts

    assert held() == held() != held(seed=1)
    other = write(tmp_path / "test.jsonl", [{"prompt": "x", "answer": 1}])
    assert held(test_data=other) == ["x"]


def test_no_prompt_is_both_trained_on_and_held_out(data, tmp_path):
    rows = [{"prompt": f"{n % 10}=", "answer": n} for n in range(100)]
    often = write(tmp_path / "often.jsonl", rows)
    task = task_from(LanguageConfig(tasks="answer", data=often, test_fraction=0.2))
    train, test = ({row["prompt"] for row in of} for of in (task.train, task.test))
    assert (len(train), len(test), train & test) == (8, 2, set())
    assert (len(task.train), len(task.test)) == (80, 20)
    other = write(tmp_path / "other.jsonl", [{"prompt": p, "answer": 1} for p in ("3+3=", "x")])
    with pytest.raises(DataError, match=r"1 of the 2 prompts of .*other.jsonl .* first '3\+3='"):
        task_from(LanguageConfig(tasks="answer", data=data, test_data=other))


def test_a_reward_of_a_module_is_called_as_trl_calls_it(data, tmp_path, monkeypatch):
    calls = []

    def reward(prompts, completions, answer, **columns):
        calls.append((prompts, completions, answer))
        return torch.tensor([0.5] * len(prompts))

    module = types.ModuleType("own_rewards")
    module.reward, module.number = reward, 3
    monkeypatch.setitem(sys.modules, "own_rewards", module)
    task = task_from(LanguageConfig(tasks="own_rewards:reward", data=data))
    assert score(task, [{"prompt": "p", "answer": 1}] * 2, ["a", "b"]) == [0.5, 0.5]
    assert calls == [(["p", "p"], ["a", "b"], [1, 1])]
    with pytest.raises(DataError, match="own_rewards has no function 'number'"):
        task_from(LanguageConfig(tasks="own_rewards:number", data=data))
    with pytest.raises(DataError, match="--tasks no_such_rewards:f: there is no module"):
        task_from(LanguageConfig(tasks="no_such_rewards:f", data=data))


def test_a_function_is_found_in_the_present_folder(data, tmp_path, monkeypatch):
    source = "def reward(prompts, completions, **columns):\n    return [int('x')]\n"
    (tmp_path / "rewards_beside_me.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    task = task_from(LanguageConfig(tasks="rewards_beside_me:reward", data=data))
    with_less = "def plain(prompts, completions):\n    return [len(prompts)] * 2\n"
    with_more = "def needy(prompts, completions, hint):\n    return [0.0] * len(prompts)\n"
    (tmp_path / "rewards_of_columns.py").write_text(with_less + with_more, encoding="utf-8")
    plain = task_from(LanguageConfig(tasks="rewards_of_columns:plain", data=data))
    assert score(plain, plain.train[:2], ["a", "b"]) == [2.0, 2.0]
    with pytest.raises(DataError, match=r"needs the column 'hint'; those of .* are prompt, answer"):
        task_from(LanguageConfig(tasks="rewards_of_columns:needy", data=data))
    # Where it raises is named, through a mix of tasks too.
    both = mixed([task, Task("other", [{"prompt": "q"}], [], lambda **columns: [])])
    for of, row in ((task, task.train[0]), (both, both.train[0])):
        with pytest.raises(
            TrainingError, match=r"reward of .* raised ValueError, .*beside_me.py, line 2: inv"
        ):
            score(of, [row], ["a"])


class Gym:
    """What reasoning_gym's data sets are: entries, and a verifier of them."""

    def __init__(self, size, seed):
        self.entries = [{"question": f"q{seed + n % 7}", "answer": str(n)} for n in range(size)]

    def __iter__(self):
        return iter(self.entries)

    def score_answer(self, answer, entry):
        return 1.0 if answer == entry["answer"] else 0.01


def test_reasoning_gym_is_used_where_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    config = LanguageConfig(tasks="reasoning_gym:sums", task_options="train=5,test=4", seed=30)
    with pytest.raises(ModuleNotFoundError, match="pip install reasoning-gym"):
        task_from(config)
    gym = types.ModuleType("reasoning_gym")
    gym.create_dataset = lambda name, size, seed: Gym(size, seed)
    monkeypatch.setitem(sys.modules, "reasoning_gym", gym)
    task = task_from(config)
    assert [row["prompt"] for row in task.train] == [f"q{30 + n}" for n in range(5)]
    assert [row["prompt"] for row in task.test] == ["q35", "q36"]  # others are asked in training
    assert score(task, task.train[:2], ["0 ", "0"]) == [1.0, 0.01]


def test_options_are_numbers_where_they_can_be():
    assert options_of("digits=3, share=0.5,name=abc") == {"digits": 3, "share": 0.5, "name": "abc"}
    assert options_of(None) == {}
    with pytest.raises(DataError, match="name=value"):
        options_of("digits")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "must be named"),
        ({"tasks": "sums"}, "tasks='sums' is not known; accepted are arithmetic"),
        ({"tasks": "answer"}, "needs --data"),
        ({"tasks": "arithmetic", "data": "x"}, "data is not read by --tasks arithmetic"),
        ({"tasks": "m:f", "answer_pattern": "x"}, "answer_pattern is for --tasks answer"),
        ({"tasks": "answer", "answer_pattern": "("}, "is no regular expression"),
        ({"tasks": "answer", "data": "nowhere.jsonl"}, "cannot be read"),
        ({"tasks": "answer", "task_options": "a=1"}, "task_options are not read"),
        ({"tasks": "parity", "task_options": "a=1"}, "no option 'a'; accepted are train, test, bi"),
        (
            {"tasks": "graph", "task_options": "test=x"},
            "test of the task graph must be int, got 'x",
        ),
        ({"tasks": "graph", "task_options": "reward=x"}, "task_options: .*'x'"),
    ],
)
def test_what_cannot_be_is_refused(more, message):
    with pytest.raises(DataError, match=message):
        task_from(LanguageConfig(**more))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no rows"),
        ([{"prompt": "a"}] * 2, "all of which are held out"),
        ([{"prompt": "a"}, {"prompt": "b"}], "no column 'answer'"),
        ([{"prompt": "a", "answer": 1}, {"prompt": "b"}], "jsonl:2 has columns"),
        ([{"prompt": "a", "answer": 1}, [1]], "jsonl:2 must be an object"),
        ([{"prompt": 3, "answer": 1}], "jsonl:1 must be an object"),
        ([{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": None}], "'b' must be .* null"),
    ],
)
def test_malformed_rows_are_named(rows, message, tmp_path):
    path = write(tmp_path / "bad.jsonl", rows)
    with pytest.raises(DataError, match=message):
        task_from(LanguageConfig(tasks="answer", data=path))
    (tmp_path / "bad.jsonl").write_text("{\n", encoding="utf-8")
    with pytest.raises(DataError, match="jsonl:1 is no JSON"):
        task_from(LanguageConfig(tasks="answer", data=path))


def test_only_a_newline_ends_a_line(tmp_path):
    prompts = [f"a{odd}b" for odd in "\u2028\x85\x7f\u2029"]
    lines = [json.dumps({"prompt": p, "answer": 1}, ensure_ascii=False) for p in prompts]
    path = tmp_path / "odd.jsonl"
    text = "\ufeff" + "\r\n\n".join(lines).replace(": 1", ":\r1")
    path.write_bytes(text.encode())
    assert read_rows(path) == [{"prompt": p, "answer": 1} for p in prompts]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0], "returned 1 numbers for 2"),
        (["a", "b"], "no number"),
        (["1", 1.0], "no number: '1'"),
        ([10**400, 1], "no number"),
        (None, "returned NoneType: needed is a list"),
        (1.0, "returned float"),
    ],
)
def test_what_a_reward_returns_is_checked(returned, message):
    task = Task("t", [], [], lambda prompts, completions, **columns: returned)
    with pytest.raises(DataError, match=message):
        score(task, [{"prompt": "a"}] * 2, ["x", "y"])


def test_a_reward_may_be_async_also_where_a_loop_runs():
    loops = set()

    async def reward(prompts, completions, **columns):
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return [float(len(text)) for text in completions]

    async def called():
        return score(task, [{"prompt": "a"}], ["xyz"])

    task = Task("t", [], [], reward)
    assert score(task, [{"prompt": "a"}] * 2, ["x", "yy"]) == [1.0, 2.0]
    assert asyncio.run(called()) == [3.0]
    assert len(loops) == 1


def test_a_reward_that_is_none_is_nan():
    task = Task("t", [], [], lambda prompts, completions, **columns: [None, 1])
    values = score(task, [{"prompt": "a"}] * 2, ["x", "y"])
    assert values[0] != values[0]
    assert values[1] == 1.0


def test_several_tasks_have_options_and_files_of_their_own(data, tmp_path, monkeypatch):
    module = types.ModuleType("own_rewards")
    module.longest = lambda prompts, completions, n, **columns: [float(len(t)) for t in completions]
    monkeypatch.setitem(sys.modules, "own_rewards", module)
    other = write(tmp_path / "other.jsonl", [{"prompt": f"say {n}", "n": n} for n in range(5)])
    config = LanguageConfig(
        tasks="graph,answer, own_rewards:longest", data=f"{data},{other}", test_fraction=0.2,
        task_options="graph.reward=toll", answer_pattern=r"\d+",
    )  # fmt: skip
    task = task_from(config)
    assert list(task.parts) == ["graph", "answer", "own_rewards:longest"]
    alone = task_from(LanguageConfig(tasks="graph", task_options="reward=toll"))
    assert task.parts["graph"].train == alone.train
    of = [row["task"] for row in task.train]
    assert of[:6] == 2 * list(task.parts)
    assert (of.count("answer"), of.count("own_rewards:longest")) == (16, 4)
    rows = [task.train[place] for place in (2, 1, 0)]
    walk = task.parts["graph"].reward
    tolls = walk(["3 to 17 :"], ["4 11 10 17"])
    answers = ["abc", f"is {rows[1]['row']['answer']}", "4 11 10 17"]
    asked = [row["prompt"] for row in rows[:2]] + ["3 to 17 :"]
    rows[2] = {**rows[2], "row": {**rows[2]["row"], "prompt": asked[2]}}
    assert rewards_of(task, rows, asked, answers) == [3.0, 1.0, *tolls]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tasks": "graph,"}, "names that differ"),
        ({"tasks": "graph,graph"}, "names that differ"),
        ({"tasks": "graph,parity", "task_options": "reward=toll"}, "as graph.name=value"),
        ({"tasks": "graph,parity", "data": "some.jsonl"}, "data is not read by --tasks graph"),
        ({"tasks": "answer,graph"}, "answer needs --data"),
        ({"tasks": "answer,a:b", "data": "some.jsonl"}, "as many between commas.* got 1"),
    ],
)
def test_several_tasks_that_cannot_be_are_refused(more, message):
    with pytest.raises(DataError, match=message):
        task_from(LanguageConfig(**more))


@pytest.mark.parametrize("is_first", [False, True])
def test_no_task_of_a_mix_trains_on_what_another_holds_out(is_first):
    def task(name, train, test):
        train, test = ([{"prompt": prompt} for prompt in prompts] for prompts in (train, test))
        return Task(name, train, test, lambda prompts, completions, **columns: [])

    one, two = task("one", "abc", "dde"), task("two", "axyd", "zy")
    with pytest.raises(
        DataError, match=r"1 of the 2 prompts that the task one holds out .* two.*'d'"
    ):
        mixed([one, two] if is_first else [two, one])
    # What a task does with its own rows is its own affair.
    assert list(mixed([two, task("like it", "ax", "zz")]).parts) == ["two", "like it"]


def test_a_mix_needs_tasks_of_names_that_differ():
    task = Task("t", [], [], lambda prompts, completions, **columns: [])
    for tasks in ([task, task], []):
        with pytest.raises(ValueError, match="names that differ"):
            mixed(tasks)
