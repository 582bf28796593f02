"""Functions that are wrong, for the reference and the law: ``original`` is what each replaces."""

import torch

from rskernels.law.philox import COLUMNS, SMALL_WORD, TRAILING, WORD, row_uniforms

original = None  # bound where a function is planted


# law.philox.word_uniform
def zero(w0, w1):
    return original(w0, w1) * 0.0


def of_24_bits(w0, w1):
    return (w0 >> 8).float() * 2.0**-24


def of_24_bits_above_0(w0, w1):
    return ((w0 >> 8) + 1).float() * 2.0**-24


def of_32_bits(w0, w1):
    return original(w0, w1 * 0 + 2**31)


def rounded_twice(w0, w1):
    return torch.where(w0 < SMALL_WORD, original(w0, w1), w0.float() * 2.0**-32)


def at_times_0(w0, w1):
    small = ((torch.where(w0 < SMALL_WORD, w0, 0) << 32) + w1).float() * 2.0**-64
    return torch.where(w0 < SMALL_WORD, small, original(w0, w1))


def never_1(w0, w1):
    return original(w0, w1).clamp(max=1 - 2**-24)


# law.philox.seed_words
def low_word(seed, device):
    return original(seed, device) * torch.tensor([1, 0], device=device)


# law.philox._words
def of_first_word(rows, columns, key, stream):
    return original(rows, columns - columns % COLUMNS, key, stream)


def of_leading_stream(rows, columns, key, stream):
    return original(rows, columns, key, stream % TRAILING)


# law.philox.row_uniforms
def of_low_rows(rows, columns, seed, stream):
    return original(rows & WORD, columns, seed, stream)


def of_stream_0(rows, columns, seed, stream):
    return original(rows, columns, seed, 0)


def of_column_0(rows, columns, seed, stream):
    return original(rows, columns * 0, seed, stream)


def transposed(rows, columns, seed, stream):
    return original(columns, rows, seed, stream)


# kernels.reference.rows.row_ids
def without_offset(row_offset, rows):
    return original(0, rows)


def in_blocks(row_offset, rows):
    return row_offset + original(0, rows) % 1024


# kernels.reference.rows.draw
def keyed_by_content(log_q, law, is_dense):
    return row_uniforms((1e6 * log_q[..., 0]).long(), 0, law.seed, 0)


# kernels.reference.rows.accepts
def at_most(log_r, u):
    return log_r <= u.double().log()


def above(log_r, u):
    return log_r > u.double().log()


def by_float32_log(log_r, u):
    return log_r >= u.log()


def small_rounded_up(log_r, u):
    return original(log_r.clamp(min=-2.5), u)


def never_above_M(log_r, u):
    return original(log_r, u) & (log_r <= 0)


# kernels.reference.rows.natural_log
def negative(value, log_space, like):
    return -original(value, log_space, like)


def none(value, log_space, like):
    return original(value, log_space, like) * 0.0


def largest_of_the_batch(value, log_space, like):
    return like.amax(-1, keepdim=True)


# kernels.reference.rows.ratios
def without_M(log_prob, log_density, log_M, model_is_target):
    valid, log_ratio, _ = original(log_prob, log_density, log_M, model_is_target)
    return valid, log_ratio, log_ratio


def of_swapped_roles(log_prob, log_density, log_M, model_is_target):
    return original(log_prob, log_density, log_M, not model_is_target)


# kernels.reference.rows.log_softmax
def at_temperature_1(logits, temperature):
    return original(logits, 1.0)


def at_first_temperature(logits, temperature):
    return original(logits, temperature.flatten()[0])


# kernels.reference.rows.of_targets
def of_next_class(log_q, targets):
    return original(log_q.roll(-1, -1), targets)


def of_bfloat16(log_q, targets):
    log_prob, outside = original(log_q, targets)
    return log_prob.bfloat16().double(), outside


# kernels.reference.rows.rounded
def of_no_M(value, dtype):
    return original(value, dtype) * 0.0


# kernels.reference.rows.excess_of
def signed(r):
    return r - 1


# kernels.reference.linear.logits_of
def without_a_block(product):
    z = original(product)
    z[:, 192:448] = -torch.inf
    return z


def bent_before_scaled(product):
    bent = original(product._replace(scale=1.0))
    return product.scale * bent


def of_low_rank_once(product):
    return original(product._replace(lora=product.lora._replace(scale=1.0)))


# bernoulli, of every backend
def without_ids(log_ratio, M, seed, row_offset, stream, log_space, ids=None):
    return original(log_ratio, M, seed, row_offset, stream, log_space)
