"""Walks on the graph: their law, their worth, and what each form of a tilt keeps of them."""

import pytest
import torch

from rskernels.language.config import LanguageConfig
from rskernels.language.generate import generate
from rskernels.language.scratch import small_gpt, supervised, word_tokenizer
from rskernels.language.scratch.start import tokens_of
from rskernels.language.tasks import demonstrations_of, graph, task_of
from rskernels.select.forms import FORMS

from . import laws

PROPOSALS = 1_000_000


@pytest.fixture(scope="module")
def walks():
    return graph.all_walks(laws.START, laws.GOAL)


@pytest.fixture(scope="module")
def drawn(walks):
    """Return which walk each of a million is, and an id of 64 bits for each."""
    generator = torch.Generator().manual_seed(21)
    steps = graph.draw_walks(laws.START, laws.GOAL, PROPOSALS, generator)
    return walks.places(steps), torch.randint(
        -(2**63), 2**63 - 1, (PROPOSALS,), generator=generator
    )


def test_edges_lead_both_ways_and_to_every_node():
    reached = {0}
    for _ in range(graph.NODES):
        reached |= {after for node in reached for after in graph.NEIGHBOURS[node]}
    assert len(reached) == graph.NODES
    for node, after in enumerate(graph.NEIGHBOURS):
        assert len(after) in (2, 3)
        assert all(node in graph.NEIGHBOURS[other] for other in after)


def test_the_law_is_that_of_the_walks_drawn(walks, drawn):
    assert walks.prob.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert laws.chance_of(drawn[0], walks.prob) > laws.CHANCE
    # Another law is told apart: each walk alike.
    assert laws.chance_of(drawn[0], torch.full_like(walks.prob, 1 / len(walks.prob))) < laws.CHANCE


@pytest.mark.parametrize("form", FORMS)
def test_what_is_kept_of_a_million_walks_has_the_tilted_law(form, walks, drawn):
    rewards = laws.rewards_of(form, walks)
    # In whole numbers: a step has 2 or 3 ways.
    pilot = rewards.repeat_interleave((walks.prob * 6**graph.MOST_STEPS).round().long())
    kept = laws.select(form, rewards[drawn[0]], drawn[1], pilot)
    law = laws.law_of(form, walks.prob, rewards, pilot)
    places = drawn[0][kept.mask]
    assert laws.chance_of(places, law) > laws.CHANCE
    assert laws.chance_of(places, walks.prob) < laws.CHANCE
    assert kept.overall["violations"] == kept.overall["invalid"] == kept.overall["unknown"] == 0


def mass_above(rewards, prob, beta, size):
    """Return how much of the tilted law lies above M by a pilot, a mean over pilots."""
    values, place = rewards.unique(return_inverse=True)
    below = torch.zeros(len(values)).double().index_add_(0, place, prob).cumsum(0)
    of_largest = (below**size).diff(prepend=torch.zeros(1).double())
    weights = (rewards / beta).exp()
    above = (weights - (values[:, None] / beta).exp()).clamp(min=0) @ prob
    return (of_largest @ above / (weights @ prob)).item()


def test_the_usual_pilot_of_a_learnt_m_is_large_enough(walks):
    rewards = laws.rewards_of("learnt", walks)
    usual = {form: LanguageConfig(form=form).pilot for form in ("learnt", "quantile", "verifier")}
    assert usual == {"learnt": 64, "quantile": 8, "verifier": None}
    assert LanguageConfig(form="learnt", pilot=5).pilot == 5
    assert mass_above(rewards, walks.prob, 0.2, usual["learnt"]) < 0.03
    assert mass_above(rewards, walks.prob, 0.2, usual["quantile"]) > 0.1


def test_what_a_walk_is_worth():
    answers = {
        "4 11 10 17": (1.0, 1 - (0.8 + 0.7 + 0.0 + 0.9) / 4),
        "4 3 4 11 10 17": (1.0, 1 - (0.8 + 0.1 + 0.8 + 0.7 + 0.0 + 0.9) / 6),
        "4 11 10": (0.0, 0.0),
        "4 11 10 17 16": (0.0, 0.0),  # past the goal
        "4 10 17": (0.0, 0.0),  # no edge
        "4 11 12 11 10 11 10 17": (0.0, 0.0),  # too long
        "": (0.0, 0.0),
        "4 to 17": (0.0, 0.0),
    }
    for name, column in (("reach", 0), ("toll", 1)):
        worth = graph.REWARDS[name](["3 to 17 :"] * len(answers), list(answers))
        assert worth == pytest.approx([pair[column] for pair in answers.values()])


def test_prompts_held_out_have_no_demonstration():
    task = task_of("graph", 3, reward="toll")
    pairs = demonstrations_of("graph", task, 500, 1)
    held_out = {row["prompt"] for row in task.test}
    assert len(held_out) == 80
    assert not held_out & {row["prompt"] for row in task.train}
    assert not held_out & {prompt for prompt, _ in pairs}
    for prompt, answer in pairs[:50]:
        assert answer in graph.all_walks(*graph.problem_of(prompt)).answers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 400, "test": 80}, "at most 420, got 400 and 80"),
        ({"reward": "fast"}, "reach, toll, got 'fast'"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        task_of("graph", 0, **options)


@pytest.mark.parametrize("nodes", [(3, 3), (-1, 4), (2, 21)])
def test_nodes_that_are_none_are_refused(nodes):
    with pytest.raises(ValueError, match="two of the nodes 0 to 20"):
        graph.all_walks(*nodes)


def test_a_walk_of_another_prompt_is_refused(walks):
    with pytest.raises(ValueError, match="from 3 to 17"):
        walks.places(torch.tensor([[9, 9, 9, 9, 9, 9]]))


@pytest.fixture(scope="module")
def trained(walks):
    """Return a small model that was trained on walks, and its law of each by its probabilities."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(graph.WORDS)
    model = small_gpt(tokenizer, seed=1, layers=1, width=32, heads=2, length=16)
    prompt = graph.prompt_of(laws.START, laws.GOAL)
    pairs = graph.demonstrations([prompt], 3000, 1)
    policy = supervised(model, tokenizer, pairs, seed=0, epochs=1, batch=64, lr=2e-2)
    asked, answers = policy.encode(prompt, False), [tokens_of(tokenizer, a) for a in walks.answers]
    longest = max(map(len, answers))
    ids = torch.tensor([asked + a + [0] * (longest - len(a)) for a in answers])
    mask = torch.tensor([[1.0] * len(a) + [0.0] * (longest - len(a)) for a in answers])
    with torch.no_grad():
        logits = (
            model(ids, attention_mask=torch.ones_like(ids)).logits[:, len(asked) - 1 : -1].double()
        )
    log_probs = logits.log_softmax(-1).gather(-1, ids[:, len(asked) :, None])[..., 0]
    law = (log_probs * mask).sum(-1).exp()
    assert 0.5 < law.sum().item() < 1.0
    return policy, torch.cat([law, 1.0 - law.sum()[None]])


def check_model(trained, walks, count):
    """Compare what a model says, and what each form keeps of it, with laws by enumeration."""
    policy, law = trained
    asked = policy.encode(graph.prompt_of(laws.START, laws.GOAL), False)
    names, said = torch.arange(count), []
    for part in names.split(4096):
        answers = generate(
            policy, [asked], part[None], seed=11, temperature=1.0,
            max_new_tokens=graph.MOST_STEPS + 1,
        )  # fmt: skip
        said += [policy.decode(answer.tokens) for answer in answers]
    place_of = {answer: place for place, answer in enumerate(walks.answers)}
    # What is no walk from here is the last.
    places = torch.tensor([place_of.get(text, len(place_of)) for text in said])
    assert laws.chance_of(places, law) > laws.CHANCE
    for form in FORMS:
        rewards = torch.cat([laws.rewards_of(form, walks), torch.zeros(1, dtype=torch.float64)])
        pilot = rewards[torch.multinomial(law, 2000, replacement=True)]
        kept = laws.select(form, rewards[places], names, pilot)
        tilted = laws.law_of(form, law, rewards, pilot)
        # Few walks are right, and of the others few are kept.
        assert laws.chance_of(places[kept.mask], tilted, least=5) > laws.CHANCE
        assert laws.chance_of(places[kept.mask], law, least=5) < laws.CHANCE


def test_what_is_kept_of_a_models_answers_has_the_tilted_law(trained, walks):
    check_model(trained, walks, 40_000)


@pytest.mark.slow
def test_what_is_kept_of_a_million_answers_of_a_model_has_the_tilted_law(trained, walks):
    check_model(trained, walks, PROPOSALS)
