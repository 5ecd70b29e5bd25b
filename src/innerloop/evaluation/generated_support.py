"""Support sets that are enlarged by generated examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, replace

import torch

from innerloop.core.learner import Learner
from innerloop.core.task import Examples, Task, TaskDistribution
from innerloop.engine.errors import InnerloopError
from innerloop.engine.options import Count
from innerloop.evaluation.base import Evaluation
from innerloop.evaluation.chunks import device_of
from innerloop.evaluation.few_shot import evaluate
from innerloop.measurements import Report, TestPlan, merged


class GeneratedSupportTasks(TaskDistribution):
    """Tasks whose support sets hold `count` more examples of every class, which a
    generative learner makes from the true ones. The query sets are those of `tasks`.
    """

    def __init__(self, tasks: TaskDistribution, maker: Learner, count: int):
        self.tasks, self.maker, self.count = tasks, maker, count
        self.spec = tasks.spec

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Task:
        tasks = self.tasks.sample(n, generator)
        made = [
            self.maker.generate(task.support, self.count, generator).flatten(0, 1).cpu()
            for task in tasks.to(device_of(self.maker)).unbind()
        ]
        labels = torch.eye(self.spec.y_dim).repeat_interleave(self.count, 0)
        x = torch.cat([tasks.support.x, torch.stack(made)], 1)
        y = torch.cat([tasks.support.y, labels.expand(n, -1, -1)], 1)
        # shuffled, for learners that depend on the order
        order = torch.randperm(x.shape[1], generator=generator)
        return Task(Examples(x[:, order], y[:, order]), tasks.query)

    def class_keys(self) -> frozenset[str]:
        return self.tasks.class_keys()


class GeneratedSupport(Evaluation):
    """Generated support examples: accuracy with and without added generated examples.

    Reference: Antoniou, Storkey and Edwards 2017, "Data augmentation generative
    adversarial networks", arXiv:1711.04340, where the generator is a GAN.

    Args:
        generator_run: folder of a run of a generative learner (FlowMatching, MetaVAE).
        count: generated examples of every class.
    """

    generator_run: str
    count: Count = 5
    _: KW_ONLY
    maker: Learner | None = None  # the learner of that run

    @classmethod
    def supports(cls, learner: Learner, tasks: TaskDistribution) -> str | None:
        if tasks.spec.kind != "classes" or tasks.played:
            return "it needs tasks of classes"
        return None

    def prepare(self, load: Callable[[str], Learner]) -> None:
        self.maker = load(self.generator_run)

    def measure(
        self, learner: Learner, tasks: TaskDistribution, plan: TestPlan
    ) -> Report:
        if self.maker is None:
            raise InnerloopError("call prepare() first, to load generator_run")
        spec = self.maker.spec
        if spec is not None and spec.x_shape != tasks.spec.x_shape:
            raise InnerloopError(
                f"{self.generator_run} generates inputs of shape {spec.x_shape}; got "
                f"tasks with inputs of shape {tasks.spec.x_shape}"
            )
        self.maker.to(device_of(learner))
        reports = []
        for count in (0, self.count):
            labels = {**plan.labels, "generated": count}
            source = GeneratedSupportTasks(tasks, self.maker, count) if count else tasks
            reports.append(evaluate(learner, source, replace(plan, labels=labels)))
        return merged(reports)
