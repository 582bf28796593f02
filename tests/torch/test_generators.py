"""Seeds that are drawn: from torch's default generator or from one that is given."""

import pytest
import torch

import rskernels
from rskernels.law.seeds import draw_seed

LOG_RATIO = torch.full((256,), -0.7)
LOGITS, TARGETS = torch.zeros(256, 2), torch.arange(256) % 2
DRAWS = {
    "bernoulli_mask": lambda **how: rskernels.bernoulli_mask(LOG_RATIO, **how),
    "bernoulli": lambda **how: rskernels.bernoulli(LOG_RATIO, **how).mask,
    "accept_sequences": lambda **how: rskernels.accept_sequences(LOG_RATIO[:, None], **how).mask,
    "accept_mask": lambda **how: rskernels.accept_mask(LOGITS, 0.25, 1.0, targets=TARGETS, **how),
    "verify_mask": lambda **how: rskernels.verify_mask(LOGITS, 1.0, targets=TARGETS, **how),
    "accept": lambda **how: rskernels.accept(LOGITS, 0.25, 1.0, targets=TARGETS, **how).mask,
    "dense": lambda **how: rskernels.accept_mask(LOGITS, 0.25, 1.0, **how),
}


@pytest.fixture(params=DRAWS)
def draw(request):
    return DRAWS[request.param]


@pytest.mark.parametrize("with_generator", [False, True])
def test_the_same_seed_gives_the_same_masks(draw, with_generator):
    generator = torch.Generator() if with_generator else None
    seed = generator.manual_seed if with_generator else torch.manual_seed
    seed(11)
    first = [draw(generator=generator) for _ in range(6)]
    # A draw a call, each of its own.
    assert all(not torch.equal(first[i], first[j]) for i in range(6) for j in range(i))
    seed(11)
    assert all(torch.equal(mask, draw(generator=generator)) for mask in first)
    seed(12)
    assert not torch.equal(first[0], draw(generator=generator))


def test_a_state_saved_and_restored_reproduces_the_masks(draw):
    generator = torch.Generator().manual_seed(3)
    draw(generator=generator)
    state, clone = generator.get_state(), generator.clone_state()
    first = [draw(generator=generator) for _ in range(3)]
    generator.set_state(state)
    assert all(torch.equal(mask, draw(generator=generator)) for mask in first)
    assert all(torch.equal(mask, draw(generator=clone)) for mask in first)


def test_the_default_state_saved_and_restored_reproduces_the_masks(draw):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = [draw() for _ in range(3)]
    torch.set_rng_state(state)
    assert all(torch.equal(mask, draw()) for mask in first)


def test_a_drawn_seed_is_what_a_given_one_is(draw):
    generator = torch.Generator().manual_seed(5)
    seed = draw_seed(generator, torch.device("cpu"))
    mask = draw(generator=generator.manual_seed(5))
    assert torch.equal(mask, draw(seed=seed))
    assert torch.equal(mask, draw(seed=seed[0]))
    assert torch.equal(mask, draw(seed=seed.item()))


def test_the_default_generator_draws_what_another_of_its_state_does(draw):
    for seed in range(8):
        torch.manual_seed(seed)
        assert torch.equal(draw(), draw(generator=torch.Generator().manual_seed(seed)))


def test_a_given_generator_or_seed_leaves_the_default_one_alone(draw):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw(generator=torch.Generator())
    draw(seed=1)
    draw(seed=torch.tensor(1))
    assert torch.equal(torch.get_rng_state(), before)
    draw()
    assert not torch.equal(torch.get_rng_state(), before)


def test_drawn_seeds_use_all_bits():
    generator = torch.Generator().manual_seed(0)
    seeds = torch.cat([draw_seed(generator, torch.device("cpu")) for _ in range(200)])
    assert seeds.unique().numel() == 200
    for bit in range(62):
        assert 50 < ((seeds >> bit) & 1).sum() < 150


def test_a_generator_of_another_device_is_refused():
    with pytest.raises(ValueError, match="generator is on cpu, the draw is on meta"):
        rskernels.accept_mask(LOGITS.to("meta"), 0.25, 1.0, generator=torch.Generator())


def test_a_generator_inside_a_graph_is_refused(compiled):
    draw, generator = DRAWS["accept_mask"], torch.Generator()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="give that as the seed"):
        compiled(draw, backend="eager")(generator=generator)
    # Where the graph may break, the draw is taken outside of it.
    broken = torch.compile(draw, backend="eager")
    generator.manual_seed(4)
    seen = [broken(generator=generator) for _ in range(2)]
    generator.manual_seed(4)
    assert all(torch.equal(mask, draw(generator=generator)) for mask in seen)


def test_an_exported_generator_is_refused():
    class Draw(torch.nn.Module):
        generator = torch.Generator()

        def forward(self, logits):
            return rskernels.accept_mask(logits, 0.25, 1.0, generator=self.generator)

    with pytest.raises(NotImplementedError, match="give that as the seed"):
        torch.export.export(Draw(), (LOGITS,), strict=False)
