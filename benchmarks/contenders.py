"""One contender of a benchmark, as a process that waits for orders: innerloop, a peer,
or a plain loop on the same tasks and the same weights.

    python contenders.py CASE CONTENDER INPUTS

reads `run N` (N meta-steps; the seconds come back), `grad I FILE` (the meta-gradient of
the I-th smaller batch, in the order of the net's parameters, or the predictions where
nothing but testing is timed), and `peak` and `now` (the highest and the present
resident memory in MiB, above that before the first step). Peers are imported only where
they compete.
"""

from __future__ import annotations

import itertools
import sys
import time
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# one meta-step, which gives the meta-gradient; or one test, which gives predictions
Step = Callable[[], list[Tensor]]


class Case:
    """A workload: tasks (a batch of them), a net, and how it is adapted."""

    def __init__(self, name: str, inputs: dict[str, Any]):
        self.name, self.tasks, self.weights = name, inputs["tasks"], inputs["weights"]
        self.steps, self.lr = inputs["steps"], inputs["lr"]
        self.classes = inputs["kind"] == "classes"
        self.images = self.tasks[0][0].dim() == 5

    def net(self) -> nn.Module:
        """The net in plain torch, as a user of any library would write it."""
        if not self.images:
            net = nn.Sequential(
                nn.Linear(1, 40),
                nn.ReLU(),
                nn.Linear(40, 40),
                nn.ReLU(),
                nn.Linear(40, 1),
            )
        else:
            channels = [self.tasks[0][0].shape[2], 64, 64, 64, 64]
            layers = [
                layer
                for c, d in itertools.pairwise(channels)
                for layer in plain_block(c, d)
            ]
            head = (
                []
                if len(self.weights) == 12
                else [nn.Linear(self.weights[-2].shape[1], self.weights[-2].shape[0])]
            )
            net = nn.Sequential(*layers, nn.Flatten(), *head)
        for parameter, weight in zip(net.parameters(), self.weights, strict=True):
            parameter.data = weight.clone(memory_format=torch.contiguous_format)
        return net.train()

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (
            F.cross_entropy(outputs, y.argmax(-1))
            if self.classes
            else F.mse_loss(outputs, y)
        )

    def each(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """x and y of support and query, task by task."""
        (sx, sy), (qx, qy) = self.tasks
        return list(zip(sx, sy, qx, qy, strict=True))


def plain_block(channels_in: int, channels_out: int) -> list[nn.Module]:
    """A convolution block as every tutorial has it; its batch normalization uses the
    batch, as in the MAML papers.
    """
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return [
        conv,
        nn.BatchNorm2d(channels_out, track_running_stats=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]


def from_learn2learn(name: str) -> Any:
    """A class of learn2learn's algorithms; its package itself imports what nobody can
    install any more.
    """
    root = next(Path(sys.prefix).glob("peers/learn2learn-*/learn2learn"))
    for package in ("learn2learn", "learn2learn.algorithms"):
        module = types.ModuleType(package)
        module.__path__ = [
            str(root / package.removeprefix("learn2learn").removeprefix("."))
        ]
        sys.modules[package] = module
    module = __import__(
        f"learn2learn.algorithms.{'meta_sgd' if name == 'MetaSGD' else 'maml'}",
        fromlist=[name],
    )
    return getattr(module, name)


def plain(case: Case, dtype: torch.dtype = torch.float32) -> Step:
    """The loop of every tutorial: functional calls, create_graph."""
    net = case.net().to(dtype)
    theta = dict(net.named_parameters())
    first_order = case.name.startswith("fomaml")

    def step() -> list[Tensor]:
        total = torch.zeros((), dtype=dtype)
        for sx, sy, qx, qy in case.each():
            weights = theta
            for _ in range(case.steps):
                loss = case.loss(
                    torch.func.functional_call(net, weights, (sx.to(dtype),)),
                    sy.to(dtype),
                )
                grads = torch.autograd.grad(
                    loss, list(weights.values()), create_graph=not first_order
                )
                weights = {
                    n: w - case.lr * g
                    for (n, w), g in zip(weights.items(), grads, strict=True)
                }
            total = total + case.loss(
                torch.func.functional_call(net, weights, (qx.to(dtype),)), qy.to(dtype)
            )
        return list(torch.autograd.grad(total / len(case.each()), list(theta.values())))

    return step


def learn2learn(case: Case) -> Step:
    meta_sgd = case.name.startswith("metasgd")
    net = case.net()
    kind = from_learn2learn("MetaSGD" if meta_sgd else "MAML")
    learner = kind(net, lr=case.lr, first_order=case.name.startswith("fomaml"))
    tasks = case.each()

    def step() -> list[Tensor]:
        learner.zero_grad()
        for sx, sy, qx, qy in tasks:
            model = learner.clone()
            for _ in range(case.steps):
                model.adapt(case.loss(model(sx), sy))
            (case.loss(model(qx), qy) / len(tasks)).backward()
        return [p.grad for p in net.parameters()]

    return step


def higher(case: Case) -> Step:
    import higher as library  # type: ignore[import-not-found]

    net = case.net()
    optimizer = torch.optim.SGD(net.parameters(), lr=case.lr)
    tasks = case.each()

    def step() -> list[Tensor]:
        net.zero_grad()
        for sx, sy, qx, qy in tasks:
            with library.innerloop_ctx(net, optimizer, copy_initial_weights=False) as (
                model,
                inner,
            ):
                for _ in range(case.steps):
                    inner.step(case.loss(model(sx), sy))
                (case.loss(model(qx), qy) / len(tasks)).backward()
        return [p.grad for p in net.parameters()]

    return step


def torchopt(case: Case) -> Step:
    import torchopt as library  # type: ignore[import-not-found]

    net = case.net()
    inner = library.MetaSGD(net, lr=case.lr)
    tasks = case.each()

    def step() -> list[Tensor]:
        start = (
            library.extract_state_dict(net, by="reference"),
            library.extract_state_dict(inner),
        )
        theta = list(net.parameters())
        for p in theta:
            p.grad = None
        for sx, sy, qx, qy in tasks:
            for _ in range(case.steps):
                inner.step(case.loss(net(sx), sy))
            (case.loss(net(qx), qy) / len(tasks)).backward()
            library.recover_state_dict(net, start[0])
            library.recover_state_dict(inner, start[1])
        return [p.grad for p in theta]

    return step


def parallel_metalearn(case: Case, backend: str = "vmap") -> Step:
    """Its two ways to go through tasks: mapped, and one after the other."""
    from metalearn.algorithms.MAML import MAML  # type: ignore[import-not-found]
    from metalearn.inner_optimizers.optimizers import (  # type: ignore[import-not-found]
        InnerSGD,
    )
    from metalearn.loss.base import BaseLoss  # type: ignore[import-not-found]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = case.net()

        def forward(self, x: Tensor, **_: Any) -> dict[str, Any]:
            return {"logits": self.net(x), "buffers": {}}

        def get_fast_weights(self) -> OrderedDict[str, Tensor]:
            return OrderedDict(self.named_parameters())

    class Loss(BaseLoss):
        def forward(
            self, out_dict: dict[str, Any], targets: Tensor, **_: Any
        ) -> tuple[Tensor, Tensor]:
            loss = case.loss(out_dict["logits"], targets)
            return loss, loss.detach()

    model = Model()
    maml = MAML(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        inner_optimizer=InnerSGD(
            model.get_fast_weights(),
            first_order=case.name.startswith("fomaml"),
            inner_lr=case.lr,
            max_inner_steps=case.steps,
            learn_lr=False,
        ),
        support_loss_fn=Loss(),
        inner_steps=case.steps,
        backend=backend,
    )
    (sx, sy), (qx, qy) = case.tasks

    def step() -> list[Tensor]:
        maml.step(iter([(sx, sy, qx, qy)]))
        return [p.grad for p in model.parameters()]  # pyright: ignore[reportReturnType]

    return step


def adapting(case: Case, recompute: bool = False) -> Any:
    """The learner of innerloop that the case is about."""
    import innerloop as library
    from innerloop.core.task import TaskSpec

    spec = TaskSpec(
        "classes" if case.classes else "reals",
        tuple(case.tasks[0][0].shape[2:]),
        case.tasks[0][1].shape[-1],
    )
    given: dict[str, Any] = {
        "inner_steps": case.steps,
        "transductive": True,
        "recompute": recompute,
    }
    if case.name.startswith("metasgd"):
        return library.MetaSGD.build(spec, initial_rate=case.lr, **given)
    return library.MAML.build(
        spec, inner_lr=case.lr, first_order=case.name.startswith("fomaml"), **given
    )


def place(case: Case, net: nn.Module) -> list[str]:
    """The case's weights put into a net of innerloop's; the names of its parameters."""
    for parameter, weight in zip(net.parameters(), case.weights, strict=True):
        parameter.data.copy_(weight)
    return [name for name, _ in net.named_parameters()]


def innerloop(case: Case, bf16: bool = False, recompute: bool = False) -> Step:
    return meta_step(case, adapting(case, recompute), "net", bf16)


def plain_test(case: Case, dtype: torch.dtype = torch.float32) -> Step:
    """Adapting and predicting, task by task, with functional calls."""
    net = case.net().to(dtype)
    theta = dict(net.named_parameters())

    def step() -> list[Tensor]:
        found = []
        for sx, sy, qx, _ in case.each():
            weights = theta
            for _ in range(case.steps):
                loss = case.loss(
                    torch.func.functional_call(net, weights, (sx.to(dtype),)),
                    sy.to(dtype),
                )
                grads = torch.autograd.grad(loss, list(weights.values()))
                weights = {
                    n: (w - case.lr * g).detach().requires_grad_()
                    for (n, w), g in zip(weights.items(), grads, strict=True)
                }
            with torch.no_grad():
                found.append(torch.func.functional_call(net, weights, (qx.to(dtype),)))
        return found

    return step


def learn2learn_test(case: Case) -> Step:
    learner = from_learn2learn("MAML")(case.net(), lr=case.lr, first_order=True)

    def step() -> list[Tensor]:
        found = []
        for sx, sy, qx, _ in case.each():
            model = learner.clone()
            for _ in range(case.steps):
                model.adapt(case.loss(model(sx), sy))
            with torch.no_grad():
                found.append(model(qx))
        return found

    return step


def innerloop_test(case: Case, bf16: bool = False) -> Step:
    from innerloop.core.task import Examples, Task

    learner, tasks = adapting(case), Task(*(Examples(*part) for part in case.tasks))
    place(case, learner.net)

    def step() -> list[Tensor]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return list(
                learner.mapped(
                    lambda task: learner.predict(
                        learner.adapt(task.support), task.query.x
                    ),
                    tasks,
                )
            )

    return step


def plain_protonet(case: Case, dtype: torch.dtype = torch.float32) -> Step:
    """Prototypical networks in a few lines of plain torch."""
    net = case.net().to(dtype)
    tasks = case.each()

    def step() -> list[Tensor]:
        net.zero_grad()
        for sx, sy, qx, qy in tasks:
            support, query = net(sx.to(dtype)), net(qx.to(dtype))
            prototypes = torch.stack(
                [support[sy.argmax(-1) == k].mean(0) for k in range(sy.shape[-1])]
            )
            logits = -0.1 * torch.cdist(query, prototypes).square()
            (F.cross_entropy(logits, qy.argmax(-1)) / len(tasks)).backward()
        return [p.grad for p in net.parameters()]  # pyright: ignore[reportReturnType]

    return step


def innerloop_protonet(case: Case, bf16: bool = False) -> Step:
    import innerloop as library
    from innerloop.core.task import TaskSpec
    from innerloop.nets import Conv4

    shape = tuple(case.tasks[0][0].shape[2:])
    spec = TaskSpec("classes", shape, case.tasks[0][1].shape[-1])
    return meta_step(
        case,
        library.ProtoNet.build(
            spec, encoder=Conv4(shape), scale=0.1, rotate_support=False
        ),
        "encoder",
        bf16,
    )


def meta_step(case: Case, learner: Any, net: str, bf16: bool) -> Step:
    """One of innerloop's."""
    from innerloop.core.task import Examples, Task
    from innerloop.metagrad import backprop

    names = place(case, getattr(learner, net))
    learner.train()
    tasks = Task(*(Examples(*part) for part in case.tasks))

    def step() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            grads, _ = backprop(learner, tasks)
        return [grads[f"{net}.{name}"] for name in names]  # pyright: ignore[reportReturnType]

    return step


CONTENDERS: dict[str, Callable[[Case], Step]] = {
    "plain": plain,
    "float64": lambda case: plain(case, torch.float64),
    "learn2learn": learn2learn,
    "higher": higher,
    "torchopt": torchopt,
    "parallel-metalearn": parallel_metalearn,
    "parallel-metalearn loop": lambda case: parallel_metalearn(case, "sequential"),
    "innerloop": innerloop,
    "innerloop bf16": lambda case: innerloop(case, bf16=True),
    "innerloop recompute": lambda case: innerloop(case, recompute=True),
}
PROTONET: dict[str, Callable[[Case], Step]] = {
    "plain": plain_protonet,
    "float64": lambda case: plain_protonet(case, torch.float64),
    "innerloop": innerloop_protonet,
    "innerloop bf16": lambda case: innerloop_protonet(case, bf16=True),
}


TEST: dict[str, Callable[[Case], Step]] = {
    "plain": plain_test,
    "float64": lambda case: plain_test(case, torch.float64),
    "learn2learn": learn2learn_test,
    "innerloop": innerloop_test,
    "innerloop bf16": lambda case: innerloop_test(case, bf16=True),
}


def resident(which: str) -> float:
    """Resident memory of this process in MiB, "VmHWM" the highest so far, "VmRSS"
    now.
    """
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(which)
    )
    return int(line.split()[1]) / 1024


def main() -> None:
    name, contender, inputs = sys.argv[1:]
    if contender.startswith("innerloop"):  # as its command line does
        from innerloop.engine.memory import tune_allocator

        tune_allocator()
    given = torch.load(inputs)
    build = {"protonet": PROTONET, "test": TEST}.get(name.split("-")[0], CONTENDERS)[
        contender
    ]
    step = build(Case(name, given))
    answer, sys.stdout = sys.stdout, sys.stderr
    before = resident("VmRSS")
    print("ready", file=answer, flush=True)
    for line in sys.stdin:
        order, _, argument = line.strip().partition(" ")
        if order == "run":
            clock = time.perf_counter()
            for _ in range(int(argument)):
                step()
            print(time.perf_counter() - clock, file=answer, flush=True)
        elif order == "grad":
            index, _, file = argument.partition(" ")
            smaller = build(
                Case(name, {**given, "tasks": given["smaller"][int(index)]})
            )
            torch.save([g.detach().double() for g in smaller()], file)
            print("saved", file=answer, flush=True)
        else:
            print(
                resident({"peak": "VmHWM", "now": "VmRSS"}[order]) - before,
                file=answer,
                flush=True,
            )


if __name__ == "__main__":
    main()
