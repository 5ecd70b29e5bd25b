"""Learned update rules: networks that compute the change of every weight from its
gradient and a memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from innerloop.nets.recurrent import LSTMCell

Named = dict[str, Tensor]


def preprocessed(gradient: Tensor, p: float = 7.0) -> Tensor:
    """The magnitude and sign of a gradient (..., 2): log|g| / p and sign(g), or -1 and
    exp(p) g where |g| < exp(-p). Andrychowicz et al. 2016, appendix A.
    """
    large = gradient.abs() >= math.exp(-p)
    size = torch.where(large, gradient.abs(), 1.0).log() / p
    return torch.stack(
        [
            torch.where(large, size, -1.0),
            torch.where(large, gradient.sign(), gradient * math.exp(p)),
        ],
        -1,
    )


class LSTMRule(nn.Module):
    """A two-layer LSTM that is applied to every weight separately. Andrychowicz et al.
    2016, arXiv:1606.04474, section 2.1 and appendix A.

    Memory: h and c of both layers, each (weights, hidden).
    """

    def __init__(self, hidden: int = 20, scale: float = 0.1):
        super().__init__()
        self.scale = scale
        self.cells = nn.ModuleList([LSTMCell(2, hidden), LSTMCell(hidden, hidden)])
        self.out = nn.Linear(hidden, 1)
        self.out.weight.data *= 0.1  # first steps are small
        self.out.bias.data.zero_()

    def start(self, weights: Named) -> list[Tensor]:
        vector = flat(weights)
        return [zero for cell in self.cells for zero in cell.start(vector[:, None])]  # pyright: ignore[reportCallIssue]

    def forward(
        self, gradients: Named, weights: Named, memory: list[Tensor]
    ) -> tuple[Named, list[Tensor]]:
        """The changes of the weights, and the new memory."""
        x, after = preprocessed(flat(gradients), 10.0), []  # (weights, 2)
        for i, cell in enumerate(self.cells):
            after += cell(x, (memory[2 * i], memory[2 * i + 1]))
            x = after[-2]
        return like(weights, self.scale * self.out(x)[:, 0]), after


class MLPRule(nn.Module):
    """A small perceptron that is applied to every weight separately. It reads the
    gradient, moving averages of it with several decays, and the value of the weight.

    change = direction * exp(magnitude)

    Reference: Metz, Maheswaranathan, Nixon, Freeman and Sohl-Dickstein 2019,
    "Understanding and correcting pathologies in the training of learned optimizers",
    arXiv:1810.10180, appendix C.

    Memory: moving averages of the gradient (decays, weights) and of its square
    (weights,), and the number of steps ().
    """

    decays = (0.5, 0.9, 0.99)
    outputs = 2

    def __init__(self, hidden: int = 32, scale: float = 0.01):
        super().__init__()
        self.scale = scale
        into = 2 * len(self.decays) + 6
        self.net = nn.Sequential(
            nn.Linear(into, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, self.outputs),
        )
        self.net[-1].weight.data *= 0.1  # pyright: ignore[reportOperatorIssue]

    def start(self, weights: Named) -> list[Tensor]:
        vector = flat(weights)
        return [
            vector.new_zeros(len(self.decays), len(vector)),
            torch.zeros_like(vector),
            vector.new_zeros(()),
        ]

    def forward(
        self, gradients: Named, weights: Named, memory: list[Tensor]
    ) -> tuple[Named, list[Tensor]]:
        """The changes of the weights, and the new memory."""
        g, w, (averages, squares, step) = flat(gradients), flat(weights), memory
        step = step + 1
        decays = torch.stack([g.new_full((1,), decay) for decay in self.decays])
        averages, squares = (
            decays * averages + (1 - decays) * g,
            0.99 * squares + 0.01 * g.square(),
        )
        root = (squares / (1 - 0.99**step) + 1e-12).sqrt()
        means = averages / (1 - decays**step)  # without bias, (decays, weights)
        scales = _scales(gradients)
        features = [
            g / (scales + 1e-8),
            w,
            root.log() / 7,
            (g / root).clamp(-10, 10),
            *means / root,
            *means / (scales + 1e-8),
        ]
        clock = torch.stack([torch.tanh(step / 10), torch.tanh(step / 100)])
        features = torch.stack(features, -1).clamp(-10, 10)
        outputs = self.net(torch.cat([features, clock.expand(len(g), -1)], -1))
        changes = self.changes(outputs, means / root)
        return like(weights, changes), [averages, squares, step]

    def changes(self, outputs: Tensor, steps: Tensor) -> Tensor:
        """The changes (weights,) from the outputs of the perceptron (weights, outputs);
        steps (decays, weights) are those of Adam with a rate of 1.
        """
        direction, magnitude = outputs.unbind(-1)
        return self.scale * direction * magnitude.clamp(-8, 4).exp()


class STARRule(MLPRule):
    """The same perceptron beside a nominal term: a step of Adam, whose rate it adapts.
    At the start, when the perceptron puts out little, the rule is nearly Adam.

    change = direction * exp(magnitude) - nominal * exp(rate) * mean / root

    Reference: Harrison, Metz and Sohl-Dickstein 2022, "A closer look at learned
    optimization: stability, robustness, and inductive biases", arXiv:2209.11208,
    section 4; there with averages of several decays in the nominal term, and with
    weight decay.
    """

    outputs = 3
    nominal = 0.03

    def changes(self, outputs: Tensor, steps: Tensor) -> Tensor:
        own = super().changes(outputs[:, :2], steps)
        return own - self.nominal * outputs[:, 2].clamp(-8, 4).exp() * steps[1]


RULES = {"lstm": LSTMRule, "mlp": MLPRule, "star": STARRule}


def flat(tensors: Named) -> Tensor:
    """All tensors as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def _scales(gradients: Named) -> Tensor:
    """The root mean square of each tensor of gradients, repeated for each of its
    elements (weights,).
    """
    return torch.cat(
        [g.square().mean().sqrt().expand(g.numel()) for g in gradients.values()]
    )


def like(weights: Named, vector: Tensor) -> Named:
    """A vector in the shapes of the weights."""
    parts = vector.split([w.numel() for w in weights.values()])
    return {
        name: part.view_as(w)
        for (name, w), part in zip(weights.items(), parts, strict=True)
    }
