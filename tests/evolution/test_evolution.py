"""Outer loops that evolve: what they ask, what they are told, where they come to."""

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from innerloop import (
    CMAES,
    LSTM,
    MAML,
    NEAT,
    AugmentingTopologies,
    Examples,
    Learner,
    ProtoNet,
    Task,
    TaskSpec,
    evolve,
    meta_test,
)
from innerloop.metagrad import STRATEGIES, Strategy
from innerloop.metagrad.neat import Gene
from innerloop.nets.neat_network import NEATNetwork
from innerloop.rl import Bandits, Environment, MDPs, Policy, oracles, play_test
from innerloop.rl.objective import Fitness
from innerloop.rl.evaluation import oracle_test
from innerloop.tasks.xor import ExclusiveOr
from innerloop.testing import Blobs

REALS = TaskSpec("reals", (2,), 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Ellipsoid(Learner):
    """A loss of (w - 1)^T diag(1, 10, 100, ...) (w - 1), for tests."""

    size: int = 3

    def __post_init__(self) -> None:
        self.w = nn.Parameter(torch.zeros(self.size))
        super().__post_init__()

    def adapt(self, support: Examples) -> Tensor:
        return self.w

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return x @ state[:, None]

    def loss(self, task: Task) -> tuple[Tensor, dict[str, Tensor]]:
        return ((self.w - 1).square() * 10.0 ** torch.arange(self.size)).sum(), {}


def net(hidden: int = 4, passes: int = 3, spec: TaskSpec = REALS) -> NEAT:
    torch.manual_seed(0)
    return NEAT.build(spec, hidden=hidden, passes=passes)


def small(learner: NEAT, **build_args: Any) -> AugmentingTopologies:
    return AugmentingTopologies(learner, **{"population": 12, **build_args})


# CMA-ES


@pytest.mark.parametrize("full", [400, 1])
def test_cma_es_finds_the_bottom_of_an_ellipsoid(
    full: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("innerloop.metagrad.cma_es.FULL", full)
    learner = Ellipsoid()
    for _ in evolve(
        learner, Blobs(REALS), CMAES(learner, sigma=0.5), steps=120, batch=1
    ):
        pass
    torch.testing.assert_close(learner.w.detach(), torch.ones(3), rtol=0, atol=1e-3)


def test_cma_es_is_the_package_asked_and_told() -> None:
    from cmaes import CMA

    learner, losses = (
        MAML.build(REALS, net=nn.Linear(2, 1)),
        np.random.default_rng(0).random((4, 6)),
    )
    strategy = CMAES(learner, sigma=0.3, population=6, seed=5)
    theta = (
        torch.cat([p.detach().flatten() for p in learner.parameters()]).double().numpy()
    )
    reference = CMA(mean=theta, sigma=0.3, population_size=6, seed=5)
    for row in losses:
        members, asked = strategy.ask(), [reference.ask() for _ in row]
        flat = torch.cat([t.flatten(1) for t in members.values()], 1)
        np.testing.assert_allclose(flat.numpy(), np.stack(asked))
        assert {name: t.shape[1:] for name, t in members.items()} == {
            name: p.shape for name, p in learner.named_parameters()
        }
        reference.tell(list(zip(asked, row, strict=True)))
        mean = strategy.tell(torch.from_numpy(row))
        np.testing.assert_allclose(
            torch.cat([t.flatten() for t in mean.values()]).numpy(), reference.mean
        )


def test_a_loss_that_is_no_number_is_the_worst() -> None:
    class Broken(Ellipsoid):
        """Breaks off, for tests."""

        def loss(self, task: Task) -> tuple[Tensor, dict[str, Tensor]]:
            loss, _ = super().loss(task)
            return torch.where(self.w[0] > 0.5, torch.nan, loss), {}

    learner = Broken()
    for _ in evolve(
        learner, Blobs(REALS), CMAES(learner, sigma=0.3), steps=60, batch=1
    ):
        pass
    assert 0.3 < float(learner.w[0].detach()) <= 0.5
    torch.testing.assert_close(learner.w[1:].detach(), torch.ones(2), rtol=0, atol=0.02)


# every strategy


def told(strategy: Strategy, generations: int, seed: int) -> list[Tensor]:
    generator, asked = seeded(seed), []
    for _ in range(generations):
        asked.append(next(iter(strategy.ask().values())))
        strategy.tell(torch.rand(len(asked[-1]), generator=generator))
    return asked


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_goes_on_from_its_state_as_if_it_had_never_stopped(
    name: str,
) -> None:
    learner = net()
    whole, first, second = (
        STRATEGIES[name](learner, population=12, seed=seed) for seed in (3, 3, 4)
    )
    told(whole, 6, 0), told(first, 6, 0)
    memory = io.BytesIO()
    torch.save(first.state_dict(), memory)
    memory.seek(0)
    second.load_state_dict(torch.load(memory, weights_only=True))
    for a, b in zip(told(whole, 4, 1), told(second, 4, 1), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_step_goes_where_the_population_went_and_changes_nothing_else(
    name: str,
) -> None:
    learner, tasks = net(), Blobs(REALS)
    strategy, twin = (STRATEGIES[name](learner, population=8) for _ in range(2))
    before = copy.deepcopy(learner.state_dict())
    batch = tasks.sample(4, seeded())
    grads, metrics = strategy(learner, batch)
    assert all(
        torch.equal(value, before[key]) for key, value in learner.state_dict().items()
    )
    torch.testing.assert_close(metrics["loss"], learner(batch)[0].detach())
    members = twin.ask()
    losses = torch.stack(
        [
            torch.func.functional_call(
                learner, {k: v[i].float() for k, v in members.items()}, (batch,)
            )[0]
            for i in range(8)
        ]
    )
    expected = twin.tell(losses.double().detach())
    for key, value in expected.items():
        grad = grads[key]
        assert grad is not None
        torch.testing.assert_close(before[key] - grad, value.float())


@pytest.mark.parametrize(
    ("name", "learner", "given", "match"),
    [
        (
            "neat",
            ProtoNet.build(TaskSpec("classes", (2,), 2)),
            {},
            "neat evolves the wiring of one network, that of the learner NEAT; ProtoNet has",
        ),
        (
            "neat",
            net(),
            {"population": 2},
            "neat needs at least 4 members and a positive sigma, got 2 and 0.5",
        ),
        (
            "cma-es",
            net(),
            {"sigma": 0.0},
            "CMA-ES needs a positive sigma, 2 parameters and 4 members, got 0.0",
        ),
    ],
)
def test_what_cannot_be_evolved_is_refused(
    name: str, learner: Learner, given: dict[str, Any], match: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        STRATEGIES[name](learner, **build_args)


# NEAT


def test_a_wired_network_is_its_equation() -> None:
    torch.manual_seed(0)
    wired = NEATNetwork(2, 1, 3, passes=2).double()
    nn.init.normal_(wired.weight)
    x, a = torch.randn(2, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    w, inputs, activations = (
        wired.weight.detach().numpy(),
        np.array([*x, 1.0]),
        a.numpy(),
    )
    for _ in range(2):
        sums = np.array(
            [
                sum(inputs[i] * w[i, j] for i in range(3))
                + sum(activations[i] * w[3 + i, j] for i in range(4))
                for j in range(4)
            ]
        )
        activations = np.tanh(sums)
    outputs, after = wired(x, a)
    np.testing.assert_allclose(outputs.detach().numpy(), sums[:1])
    np.testing.assert_allclose(after.detach().numpy(), activations)


def test_the_first_generation_is_the_learner_and_others_wired_alike() -> None:
    learner = net()
    weights = small(learner).ask()["wired.weight"]
    assert torch.equal(weights[0], learner.wired.weight.detach())
    assert ((weights != 0) == (weights[0] != 0)).all()
    assert len({float(w[0, 0]) for w in weights}) == 12


def test_splitting_a_connection_disables_it_and_goes_through_a_new_node() -> None:
    strategy = small(net())
    genome = dict(strategy.members[0])
    strategy.split(genome)
    new = [number for number in genome if number not in strategy.members[0]]
    (off,) = [number for number, gene in genome.items() if not gene.enabled]
    ends = strategy.book.ends()
    assert [ends[new[0]][0], ends[new[1]][1]] == list(ends[off])
    assert ends[new[0]][1] == ends[new[1]][0] == strategy.fixed
    assert [genome[number].weight for number in new] == [1.0, genome[off].weight]
    phenotype = strategy.phenotype(genome)
    source, target = ends[off]
    assert phenotype[source, target - strategy.sources] == 0
    assert phenotype[source, strategy.net.outputs] == 1.0
    assert phenotype[strategy.fixed, target - strategy.sources] == genome[off].weight


def test_an_innovation_has_one_number_whoever_makes_it() -> None:
    strategy = small(net())
    number = next(iter(strategy.members[0]))
    assert strategy.book.split(number) == strategy.book.split(number)
    assert strategy.book.link(0, 99) == strategy.book.link(0, 99)
    assert strategy.book.link(0, 99) != strategy.book.link(99, 0)


def test_no_more_nodes_grow_than_there_is_room_for() -> None:
    strategy = small(net(hidden=2))
    genome = dict(strategy.members[0])
    for _ in range(10):
        strategy.split(genome)
    assert (
        len(
            {
                node
                for number in genome
                for node in strategy.book.ends()[number]
                if node >= strategy.fixed
            }
        )
        == 2
    )


def test_a_child_has_the_genes_of_the_fitter_parent() -> None:
    strategy = small(net())
    fitter = {0: Gene(1.0, True), 1: Gene(2.0, True), 4: Gene(3.0, True)}
    other = {0: Gene(-1.0, True), 1: Gene(-2.0, False), 7: Gene(-3.0, True)}
    children = [strategy.crossed(fitter, other) for _ in range(400)]
    assert all(
        child.keys() == fitter.keys() and child[4].weight == 3.0 and child[0].enabled
        for child in children
    )
    assert {child[0].weight for child in children} == {1.0, -1.0}
    assert 0.65 < np.mean([not child[1].enabled for child in children]) < 0.85  # 3 in 4


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ({0: 1.0, 1: 2.0}, {0: 1.5, 1: 1.0}, 0.4 * 0.75),
        ({0: 1.0, 1: 2.0, 2: 0.0}, {0: 1.0, 5: 2.0}, 3.0),
        ({i: 0.0 for i in range(20)}, {i: 1.0 for i in range(10)}, 10 / 20 + 0.4),
    ],
)
def test_distance_is_equation_1(
    a: dict[int, float], b: dict[int, float], distance: float
) -> None:
    genomes = [
        {number: Gene(weight, True) for number, weight in genes.items()}
        for genes in (a, b)
    ]
    assert AugmentingTopologies.distance(*genomes) == pytest.approx(distance)


def test_the_champion_goes_on_unchanged_and_species_share_the_next_generation() -> None:
    strategy = small(net(), population=40, add_node=0.3, add_link=0.3)
    for seed in range(8):
        losses = torch.rand(40, generator=seeded(seed))
        champion = strategy.members[int(losses.argmin())]
        found = strategy.tell(losses)["wired.weight"]
        assert strategy.members[0] == champion
        assert torch.equal(found, strategy.phenotype(champion))
        assert len(strategy.members) == 40
    assert len(strategy.species) > 1


def test_of_species_that_do_not_improve_the_two_leading_ones_live_on() -> None:
    strategy, died = small(net(), population=40, add_node=0.3, add_link=0.3), 0
    for seed in range(8):
        losses, old = torch.rand(40, generator=seeded(seed)), [*strategy.species]
        for kind in old:
            kind.best, kind.age = -math.inf, 100
        strategy.tell(losses)
        peopled = {id(kind): kind for kind in [*old, *strategy.species] if kind.members}
        leading = sorted(
            peopled, key=lambda kind: float(losses[peopled[kind].members].min())
        )[:2]
        left = {id(kind) for kind in strategy.species}
        assert all((id(kind) in left) == (id(kind) in leading) for kind in old)
        died += sum(id(kind) not in left for kind in old)
    assert died > 0


def solved(agree: float, **build_args: Any) -> dict[str, Any]:
    tasks = ExclusiveOr(agree=agree)
    torch.manual_seed(1)
    learner = NEAT.build(tasks.spec)
    for _ in evolve(
        learner,
        tasks,
        AugmentingTopologies(learner, seed=1),
        batch=16,
        generator=seeded(1),
        **build_args,
    ):
        pass
    return meta_test(learner, tasks, n=200).metrics


def test_exclusive_or_is_solved() -> None:
    assert solved(0.0, steps=80)["accuracy"].mean > 0.95


@pytest.mark.slow
def test_exclusive_or_or_its_negation_is_found_out_from_one_example() -> None:
    assert solved(0.25, steps=400)["accuracy"].mean > 0.9  # without the example 0.75


# by playing


@pytest.mark.parametrize(
    "environment", [Bandits(2, 20), MDPs(3, 2, 4, 5)], ids=["bandits", "mdps"]
)
@pytest.mark.parametrize(("kind", "given"), [(NEAT, {}), (LSTM, {"hidden": 8})])
def test_members_that_play_at_once_gain_what_each_gains_alone(
    kind: type[Learner], given: dict[str, Any], environment: Environment
) -> None:
    torch.manual_seed(0)
    learner = kind.build(environment.spec, likelihood=Policy(), **build_args)
    strategy = CMAES(learner, sigma=2.0, population=4)
    members = {name: tensor.float() for name, tensor in strategy.ask().items()}
    fitness, tasks = Fitness(environment), environment.sample(4000, seeded())
    together = fitness.of_members(learner, members, tasks)
    for i, loss in enumerate(together):
        alone = copy.deepcopy(learner)
        alone.load_state_dict(
            {
                **alone.state_dict(),
                **{name: tensor[i] for name, tensor in members.items()},
            }
        )
        # of about 10, with other luck
        assert float((fitness(alone, tasks)[0] - loss).abs()) < 0.2


def test_a_bandit_is_learned_in_a_few_generations() -> None:
    environment = Bandits(2, 10)
    torch.manual_seed(0)
    learner = NEAT.build(environment.spec, likelihood=Policy(), hidden=2, passes=1)
    strategy = AugmentingTopologies(
        learner, population=50, sigma=2.0, objective=Fitness(environment)
    )
    for _ in evolve(learner, environment, strategy, steps=30, batch=128):
        pass
    reward = play_test(learner, environment, n=2000).metrics["reward"]
    chance = oracle_test(environment, n=2000)["random"]
    assert {"random", "Thompson"} <= set(oracles(environment))
    assert reward.mean > chance.mean + 0.3
