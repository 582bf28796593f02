"""Functions that are wrong, by backend: ``original`` is what each replaces."""

import torch
from numba import njit

from rskernels.kernels.gpu.speculative.draws import place_uniforms
from rskernels.law.streams import Stream

original = None  # bound where a function is planted
RESIDUAL = int(Stream.RESIDUAL)


# kernels.reference.speculative.processed
def nucleus_first(logits, law):
    """Cut to top_p, then to top_k."""
    p, bad = original(logits, law._replace(top_k=0))
    return original(p.log(), law._replace(temperature=1.0, top_p=1.0))[0], bad


def cut_before_temperature(logits, law):
    p, bad = original(logits, law._replace(temperature=1.0))
    return original(torch.where(p > 0, logits, -torch.inf), law._replace(top_p=1.0))[0], bad


def one_temperature(logits, law):
    return original(logits, law._replace(temperature=law.temperature.mean()))


# kernels.reference.speculative.residual_of
def of_p(p, q, factor):
    return factor[:, None] * p


def of_difference(p, q, factor):
    return (factor[:, None] * p - q).abs()


# kernels.reference.speculative.weights_of
def bonus_of_draft(p, q, factor, is_rejected):
    return torch.where(is_rejected[:, None], original(p, q, factor, is_rejected), q)


# kernels.reference.speculative.accepts
def of_inverse(log_r, u):
    return original(-log_r, u)


# kernels.reference.speculative.row_uniforms
def of_residual_words(rows, columns, seed, stream):
    return original(rows, columns, seed, RESIDUAL)


def of_first_place(rows, columns, seed, stream):
    return original(rows, 0, seed, stream)


# certainty_of, in every backend
def of_factor(s, factor):
    return factor


# kernels.cpu.speculative.weights.sum_weights_of
def sum_of_p(element):
    sum_weights = original(element)

    @njit
    def sum_weights_of_p(rows, laws, hole, V, sums):
        return sum_weights((rows[0], 0), laws, hole, V, sums)

    return sum_weights_of_p


def sum_without_hole(element):
    sum_weights = original(element)

    @njit
    def sum_all_weights(rows, laws, hole, V, sums):
        return sum_weights(rows, laws, -1, V, sums)

    return sum_all_weights


# kernels.cpu.speculative.weights.draw_entry_of
def entry_of_p(element):
    draw_entry = original(element)

    @njit
    def draw_entry_of_p(rows, laws, hole, V, sums, goal):
        return draw_entry((rows[0], 0), laws, hole, V, sums, goal)

    return draw_entry_of_p


def entry_without_hole(element):
    draw_entry = original(element)

    @njit
    def draw_any_entry(rows, laws, hole, V, sums, goal):
        return draw_entry(rows, laws, -1, V, sums, goal)

    return draw_any_entry


# kernels.cpu.speculative.rows.log_p_of
def negative_log_p(element):
    log_p = original(element)
    return njit(lambda row, entry, known, temperature: -log_p(row, entry, known, temperature))


# kernels.cpu.speculative.draws.uniform_at
def word_of_residual(row, column, stream, seed):
    return original(row, column, RESIDUAL, seed)


def word_of_first_place(row, column, stream, seed):
    return original(row, 0, stream, seed)


# kernels.cpu.speculative.decide.row_of
def last_row_before(rows, request, place):
    return original(rows, request, min(place, max(rows[5] - 2, 0)))


# kernels.gpu.speculative.draws.residual_uniform
def word_of_acceptance(row_id, place, seed):
    return place_uniforms(row_id, place, seed)


def words_of_first_place(row_id, places, seed):
    return original(row_id, places * 0, seed)


# kernels.gpu.speculative.weights.weights_of_step
def step_of_p(
    p_ptr, p_stride, p_top, p_scale, p_shift, p_factor, p_least,
    q_ptr, q_stride, q_top, q_scale, q_shift, q_factor, q_least,
    hole, has_q, start, V, LANES, WIDE, HAS_DRAFT,
):  # fmt: skip
    _, p = original(
        p_ptr=p_ptr, p_stride=p_stride, p_top=p_top, p_scale=p_scale,
        p_shift=p_shift, p_factor=p_factor, p_least=p_least,
        q_ptr=q_ptr, q_stride=q_stride, q_top=q_top, q_scale=q_scale,
        q_shift=q_shift, q_factor=q_factor, q_least=q_least,
        hole=hole, has_q=has_q, start=start, V=V,
        LANES=LANES, WIDE=WIDE, HAS_DRAFT=HAS_DRAFT,
    )  # fmt: skip
    return p, p


# kernels.gpu.speculative.weights.scale_of
def scale_of_first(temperature_ptr, temperature_stride, temperature, request, HAS_TEMPERATURE):
    return original(temperature_ptr, temperature_stride, temperature, request * 0, HAS_TEMPERATURE)
