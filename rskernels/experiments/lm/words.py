"""What the report says in words."""

from __future__ import annotations

SHORT = """\
Of each pair of words the first is RFT's, the second that of the exact tilt with the rivals' β; on
the walks, whose rewards are graded, RFT is a threshold and no tilt, and stands among the others. It
*wins* or *loses* where the 95 % interval of the difference, seed by seed, leaves out 0; it *ties*
where that holds 0, which shows no difference and does not show that there is none.
"""
EXPLAINED = """\
A small GPT learns from demonstrations. Then, in {rounds} rounds, it answers prompts, answers are
rewarded, and it is trained on some of them. Methods differ in which, and in nothing else: each has
the same starting model, the same draws of the first round, as many generated tokens and as many
tokens with a gradient, to less than one answer. *SFT alone* generates none, and goes on with its
demonstrations.

{budgets}

{samples} answers to a prompt. What is kept is passed over until the gradient's tokens are used up,
so that a rule which keeps little passes over it often. AdamW, the learning rate falling linearly to
0 over the run. {rates}

- *RAFT* keeps the best answer to each prompt; *RFT* all right ones, with verifiers the exact tilt
  of β = 0, with graded rewards the threshold r > 0; *exact tilt* each with probability
  exp((r - 1)/β), which leaves π·exp(r/β)/Z.
- *RSO* is its Algorithm 1 as published, keeping one in eight; *soft best of n* draws one answer to
  each prompt by exp(r/β); *weights* trains on all answers, weighed by exp(r/β) over their mean.
- *Policy gradient* is REINFORCE with the mean reward of the answers to a prompt as its baseline;
  answers to prompts where all are worth the same are left out. Half of the answers get a gradient:
  at random, or with *off-policy rejection* those that `Envelope.accept_sequences` accepts, with
  `budget:0.5`, of twice as many before each step, by the ratio of the policy as it is to the one
  that gave them. Its steps hold what was accepted, so that it has a few more of them. Scores for
  that are in its seconds. *Fresh answers* renews them eight times a round, and has a few more steps
  too, as the end of a part ends one.

Generated tokens are those of answers that a method gets. The last batch of a pool has a few more,
which are thrown away and not counted, though they are in the seconds: of a starting model 1 to
2 % more, and with *fresh answers*, whose pools are an eighth, 8 to 24 %.

{tested} held-out prompts, {answers} answers to each. *pass@k*: the unbiased estimator; *greedy*:
the share of prompts whose most likely answer is right; *distinct right*: the number of different
right answers among those of a prompt. *KL* from the starting model, in nats an answer, by the
answers drawn. *Kept*: the share of answers. *Seconds*: of the processor, generating and training,
on one core that other work shared. ± is the 95 % t-interval over seeds. Differences are seed by
seed, bold where the interval leaves out 0, uncorrected for their number.
"""
RATES = """\
Every method has a rate of its own on every task, [the best of {tried}](#learning-rates) by {tuned}
seeds that are not among those here."""
UNTUNED = "No rate was chosen: all that train on rows have the same."
TUNING = """\
Every method's score after all rounds at each rate, the mean over seeds of their own: pass@1, and on
the walks the mean reward; 0 where nothing was left to be trained on. In bold the best, which is the
rate that the method has above. A method whose rate is the largest of its row might gain by a larger
one.
"""
TASKS = {
    "arithmetic": """\
From one number to another in at most five steps, each total written out. Hundreds of answers are
right; steps in another order count as the same.""",
    "parity": """\
The parity of twelve bits: a long answer adds them one by one, a short one guesses. The verifier
reads the last bit. Distinct right answers are two, a long and a short one; what makes a model right
is to give up the short one. A starting model of which nine in ten long answers are right is looked
for by seeds: one that has not learnt to add has nothing to select. *Long, by its own tilt*:
what the closed form of the rounds says of a long answer's share, were the tilt that a method means
kept exactly and learnt in full.""",
    "graph": """\
Walks on a graph of 21 nodes to a goal, in at most six steps: the reward is 1 less the mean toll of
the nodes, and 0 of a walk that does not get there; *right* is one that does. All walks are listed,
on 24 prompts: *KL above the least* is KL(π ‖ π₀) less that of the tilted law with the same mean
reward, which is the least that a law of such a reward can have. It is a lower bound, as all that
is no walk counts as one answer. A model whose mean reward there is below the start's has none: the
seeds that have one are then a choice by their outcome, so that their number stands beside them, and
no verdict. *KL from its own tilt* is
KL(π ‖ π₀·exp(R·r/β)/Z), R the rounds: what R rounds of a tilt come to, if all is learnt.""",
}
