"""Train a classifier of rare and frequent digits on the samples that rejection accepts.

p̂ is the weight of a class, q the model's probability of the label. Chance of acceptance:
min(1, p̂ / (M q)), so that rare and badly learnt digits stay and easy frequent ones go.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rskernels

CLASSES, STEPS, BATCH = 10, 400, 32


def long_tailed_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training and test digits; in training, 0 is 20 times as frequent as 9."""
    split = train_test_split(*load_digits(return_X_y=True), test_size=0.4, random_state=0)
    train_x, test_x = (torch.tensor(part).float() / 16.0 for part in split[:2])
    train_y, test_y = (torch.tensor(part) for part in split[2:])
    counts = (100 * 20 ** (-torch.arange(CLASSES) / 9)).long().tolist()
    rows = torch.cat([(train_y == c).nonzero()[:n, 0] for c, n in enumerate(counts)])
    return train_x[rows], train_y[rows], test_x, test_y


def train(envelope: rskernels.Envelope | None) -> tuple[float, int]:
    """Return balanced accuracy and gradient samples; without an envelope every sample is used."""
    torch.manual_seed(0)
    x, y, test_x, test_y = long_tailed_digits()
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    p_hat = len(y) / (CLASSES * y.bincount(minlength=CLASSES).float())  # of each class
    if envelope:  # a first M, of the pool that it decides: good for a budget, not for exactness
        envelope.update(p_hat[y].log() - rskernels.target_log_prob(model(x), y).detach())
    used = 0
    for step in range(STEPS):
        rows = torch.randint(len(y), (BATCH,))
        if envelope:
            with torch.no_grad():
                logits, M = model(x[rows]), envelope.M()
            seen = rskernels.accept(logits, p_hat[y[rows]], M, targets=y[rows], seed=step)
            envelope.update(seen.log_ratio)
            rows = rows[seen.mask]
        used += len(rows)
        if len(rows):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return balanced_accuracy_score(test_y, model(test_x).argmax(1)), used


torch.set_num_threads(1)  # of so small a model, the fastest
budget = rskernels.Envelope("budget", rate=0.5, half_life=500)
for name, envelope in (("every sample", None), ("accepted samples", budget)):
    accuracy, used = train(envelope)
    print(f"{name}: balanced accuracy {accuracy:.3f} from {used:,} gradient samples")
