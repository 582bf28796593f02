"""What the report says around its tables."""

TASK = """\
A residual network of {parameters:,} parameters, {width} wide, learns distorted handwritten digits
of 16x16 pixels: scikit-learn's real ones, turned, sheared, scaled, moved, and with noise. The most
frequent class has {largest:,} rows of the pool, the rarest {rarest}, {rows:,} in all; rows of
frequent classes are distorted copies of some 120 originals each, {copies:.0f} of one, as frames of
a video or near copies in a crawl are. A share of {noise:.0%} of the labels is drawn at random. The
test set is of other originals, {test} rows, even over the classes and labelled right. Adam,
learning rate {lr:g}, {steps} steps of {batch} rows, {passes:.1f} passes over the pool for plain
training. Rate and batch were chosen for plain training on a seed that is not used here, of three
rates and batches of 32 to 128, and are the same for all. Each of {seeds} seeds decides pool, test
set, weights and order.

Every method takes gradient steps on about {batch} rows, so what differs is which. All that look at
losses begin with one pass in which every row is used. Then

- *cached*: no forward pass but that of steps. A row is decided by the loss that it had when it was
  last trained on; a rejected row keeps its score and is asked again a pass later;
- *fresh*: {batch}/a candidates are scored by a forward pass, a share a of them is accepted, M by
  `budget:a`, with a half-life of {half:,} rows, from earlier candidates;
- *fresh in bf16*: the same with the forward pass of the scores in bfloat16. It has the run of the
  fresh ones and costs of its own: of {asked:,} rows, on a model that plain training has half
  trained, {differing} were decided otherwise by scores in bfloat16, by the same M and uniforms;
- *forward kept*: the same decisions as fresh. The products of the scoring pass are kept, and the
  forward pass of the step takes its rows of them (`rskernels/experiments/seconds/kept.py`): no
  product is computed twice, and the gradients are the same.

Selective backpropagation (Jiang et al. 2019) uses a row by its loss's percentile, squared, which is
a third of them. *Oversampling* draws with replacement, *weights* use every row.
"""
LAWS = """\
They do not train the same objective. *Law* says what a row's weight in it is in proportion to; p̂
evens out the classes and q is the model's probability of the label. Rejection without weights
trains min(1, p̂/(M q)), which favours rare classes and rows that are not known yet, and wrong
labels with them. *Weighed back* divides by the chance of acceptance, which gives plain training's
objective, with more variance. Accuracy is that on even classes, to which all but plain training,
selective backpropagation and *weighed back* lean on purpose: part of what they gain is that.
"""
COUNTED = """\
- *R*: the steps that plain training takes to its own accuracy at the end over the steps of the
  method to the same accuracy, seed by seed; geometric mean and 95 % interval over seeds. An
  accuracy is reached where the mean of three judgements is, one every {every} steps, of a running
  mean of the weights.
- *Reached*: seeds that get there. The others count with all of their steps, so that with fewer than
  {seeds} the ratios are at most what is said.
- *Scored*: rows scored by a forward pass of their own for each row trained on. *Accepted*: the
  share of the rows decided on that was used.
- *Seconds*: steps, rows and decisions as counted in each run, times what they cost, below: seconds
  of one thread of this processor. Runs shared the machine with other work, so they were not timed
  themselves.
- *Times as fast*: by these seconds, to {levels} of plain training's accuracy; bold where the
  interval leaves out 1.
"""
COSTS = """\
Medians of {rounds} rounds, each part in turn, as lines through three sizes of batch. They are
seconds that the processor spent on one thread: other work on the machine is not in them, but can
lengthen them by the caches that it shares. *f*: a row's forward pass without autograd. *Step*:
forward, backward and update of a row in a batch of the size given, over f. *Update*: of this, what
a step takes whatever its rows (ω). *bf16*, *keep*: a score in bfloat16, and one whose products are
kept, over f. *Resume*: the same step on kept products, over f. *Decide*: a candidate's decision
with fresh scores and learning M, over f; *recall*: with cached ones.
"""
MODEL = """\
A forward pass takes f a row, its backward pass 2f, the update ω·f. For each row that is used 1/a
are scored, so that a row costs 3 + ω with plain training or cached scores, 3 + ω + 1/a with fresh
ones, 3 + ω + β/a with scores that cost β, and 2 + ω + 1/a with the forward pass kept. The speed-up
is R times the first over the one in question. The first pass, which needs no scores, is left out,
so that speed-ups measured with fresh scores lie above. What R must be for {wanted} times as fast:
"""
