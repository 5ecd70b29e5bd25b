"""Evolution strategies: CMA-ES, NEAT, and what all of them share."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from innerloop import LSTM, MAML, NEAT, Examples, Learner, ProtoNet, Task, TaskSpec
from innerloop.core.task import TaskDistribution
from innerloop.evaluation.few_shot import meta_test
from innerloop.measurements import TestPlan
from innerloop.metagrad import CMAES, META_GRADIENTS, NEATEvolution, meta_train
from innerloop.metagrad.cma_es import AdaptiveGaussian
from innerloop.metagrad.neat import Gene
from innerloop.metagrad.population import EvolutionStrategy
from innerloop.nets.neat_network import NEATNetwork
from innerloop.rl import Bandits, Environment, MDPs, Policy, evaluate
from innerloop.rl.objective import TrialReward
from innerloop.tasks.xor import ExclusiveOr

REALS = TaskSpec("reals", (2,), 1)
STRATEGIES = {
    name: rule
    for name, rule in META_GRADIENTS.items()
    if issubclass(rule, EvolutionStrategy)
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Planes(TaskDistribution):
    """Random linear maps of two inputs."""

    spec = REALS

    def sample(self, n: int, generator: torch.Generator) -> Task:
        x = torch.randn(n, 8, 2, generator=generator)
        y = x @ torch.randn(n, 2, 1, generator=generator)
        return Task(Examples(x[:, :4], y[:, :4]), Examples(x[:, 4:], y[:, 4:]))


class Ellipsoid(Learner):
    """The loss (w - 1)^T diag(1, 10, 100, ...) (w - 1)."""

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


def prepared(
    strategy: EvolutionStrategy,
    learner: Learner,
    tasks: TaskDistribution | None = None,
    seed: int = 0,
) -> Any:
    strategy.prepare(learner, tasks or Planes(), seeded(seed))
    return strategy


def small(learner: NEAT, **options: Any) -> NEATEvolution:
    return prepared(NEATEvolution(**{"population": 12, **options}), learner)


# CMA-ES


def rosenbrock(x: np.ndarray) -> np.ndarray:
    terms = 100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2
    return terms.sum(1)


def ellipsoid(x: np.ndarray) -> np.ndarray:
    return (10.0 ** np.linspace(0, 3, x.shape[1]) * x**2).sum(1)


def rastrigin(x: np.ndarray) -> np.ndarray:
    return (x**2 - 10 * np.cos(2 * np.pi * x) + 10).sum(1)


@pytest.mark.parametrize("function", [rosenbrock, ellipsoid, rastrigin])
@pytest.mark.parametrize("members", [None, 7, 20])
@pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
def test_cma_es_is_the_reference_implementation(
    diagonal: bool, members: int | None, function: Any
) -> None:
    """Against the package cmaes, with the same members, for 40 generations."""
    cmaes = pytest.importorskip("cmaes", reason="cmaes is not installed")
    start = np.random.default_rng(0).normal(size=6)
    own = AdaptiveGaussian(torch.from_numpy(start.copy()), 0.4, members, diagonal)
    reference = (cmaes.SepCMA if diagonal else cmaes.CMA)(
        mean=start.copy(), sigma=0.4, population_size=members, seed=0
    )
    assert own.members == reference.population_size
    rng = seeded()
    for _ in range(40):
        generation = own.sample(rng)
        losses = function(generation.numpy())
        own.update(generation, torch.from_numpy(losses))
        reference.tell(list(zip(generation.numpy(), losses, strict=True)))
        np.testing.assert_allclose(own.mean.numpy(), reference.mean, rtol=1e-6)
        np.testing.assert_allclose(own.sigma, reference._sigma, rtol=1e-6)
        np.testing.assert_allclose(own.C.numpy(), reference._C, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])
def test_cma_es_samples_from_its_gaussian(diagonal: bool) -> None:
    gaussian = AdaptiveGaussian(torch.ones(3).double(), 0.5, 40_000, diagonal)
    C = torch.tensor([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]]).double()
    state = gaussian.state_dict()
    gaussian.load_state_dict({**state, "C": C.diagonal() if diagonal else C})
    rows = gaussian.sample(seeded())
    expected = C.diagonal().diag() if diagonal else C
    torch.testing.assert_close(rows.mean(0), torch.ones(3).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(rows.T.cov(), 0.25 * expected, atol=0.01, rtol=0)
    white = gaussian.whitened((rows - 1) / 0.5)
    torch.testing.assert_close(white.T.cov(), torch.eye(3).double(), atol=0.03, rtol=0)


@pytest.mark.parametrize("full", [400, 1])
def test_cma_es_finds_the_minimum_of_an_ellipsoid(
    full: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("innerloop.metagrad.cma_es.FULL", full)
    learner = Ellipsoid()
    for _ in meta_train(
        learner, Planes(), meta_gradient=CMAES(sigma=0.5), steps=120, batch=1
    ):
        pass
    torch.testing.assert_close(learner.w.detach(), torch.ones(3), rtol=0, atol=1e-3)


def test_members_have_the_names_and_shapes_of_the_parameters() -> None:
    learner = MAML.build(REALS, net=nn.Linear(2, 1))
    members = prepared(CMAES(population=6), learner).ask()
    assert {name: t.shape for name, t in members.items()} == {
        name: (6, *p.shape) for name, p in learner.named_parameters()
    }


def test_a_loss_that_is_nan_is_the_worst() -> None:
    class Broken(Ellipsoid):
        """NaN beyond w = 0.5."""

        def loss(self, task: Task) -> tuple[Tensor, dict[str, Tensor]]:
            loss, _ = super().loss(task)
            return torch.where(self.w[0] > 0.5, torch.nan, loss), {}

    learner = Broken()
    for _ in meta_train(
        learner, Planes(), meta_gradient=CMAES(sigma=0.3), steps=60, batch=1
    ):
        pass
    assert 0.3 < float(learner.w[0].detach()) <= 0.5
    torch.testing.assert_close(learner.w[1:].detach(), torch.ones(2), rtol=0, atol=0.02)


# every strategy


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_step_moves_to_what_tell_returns_and_changes_nothing_itself(
    name: str,
) -> None:
    learner = net()
    strategy, twin = (
        prepared(STRATEGIES[name](population=8), learner)  # pyright: ignore[reportCallIssue]
        for _ in range(2)
    )
    before = copy.deepcopy(learner.state_dict())
    batch = Planes().sample(4, seeded())
    update = strategy(learner, lambda: batch)
    assert all(
        torch.equal(value, before[key]) for key, value in learner.state_dict().items()
    )
    torch.testing.assert_close(update.metrics["loss"], learner(batch)[0].detach())
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
    assert update.theta.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(update.theta[key], value.float())


@pytest.mark.parametrize(
    ("rule", "learner", "tasks", "match"),
    [
        (
            NEATEvolution(),
            ProtoNet.build(TaskSpec("classes", (2,), 2)),
            Planes(),
            "it needs a NEATLearner; got ProtoNet",
        ),
        (
            CMAES(),
            Ellipsoid(size=1),
            Planes(),
            "at least 2 parameters; Ellipsoid has 1",
        ),
        (
            CMAES(),
            MAML.build(REALS),
            Bandits(2, 3),
            "needs a learner that streams, such as RL2 or NEAT, and MAML does not",
        ),
    ],
)
def test_what_cannot_be_evolved_is_refused(
    rule: EvolutionStrategy, learner: Learner, tasks: TaskDistribution, match: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        rule.check(learner, tasks)


def test_neat_refuses_a_learner_with_other_parameters() -> None:
    learner = net()
    learner.extra = nn.Parameter(torch.zeros(1))
    with pytest.raises(
        TypeError, match="NEAT must not have other trainable parameters"
    ):
        NEATEvolution().check(learner, Planes())


@pytest.mark.parametrize(
    ("rule", "option", "value"),
    [
        (NEATEvolution, "population", 2),
        (NEATEvolution, "add_node", 1.5),
        (CMAES, "sigma", 0.0),
        (CMAES, "population", 3),
    ],
)
def test_options_out_of_range_are_refused(rule: Any, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option} of .* must be .*; got {value}"):
        rule(**{option: value})


# NEAT


def test_a_network_is_its_equation() -> None:
    torch.manual_seed(0)
    network = NEATNetwork(2, 1, 3, passes=2).double()
    nn.init.normal_(network.weight)
    x, a = torch.randn(2, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    w, inputs, activations = (
        network.weight.detach().numpy(),
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
    outputs, after = network(x, a)
    np.testing.assert_allclose(outputs.detach().numpy(), sums[:1])
    np.testing.assert_allclose(after.detach().numpy(), activations)


def test_the_first_generation_is_the_learner_and_others_with_its_connections() -> None:
    learner = net()
    weights = small(learner).ask()["network.weight"]
    assert torch.equal(weights[0], learner.network.weight.detach())
    assert ((weights != 0) == (weights[0] != 0)).all()
    assert len({float(w[0, 0]) for w in weights}) == 12


def test_a_new_node_splits_a_connection_and_disables_it() -> None:
    strategy = small(net())
    genome = dict(strategy.members[0])
    strategy.add_node_to(genome)
    new = [number for number in genome if number not in strategy.members[0]]
    (off,) = [number for number, gene in genome.items() if not gene.enabled]
    ends = strategy.innovations.ends()
    assert [ends[new[0]][0], ends[new[1]][1]] == list(ends[off])
    assert ends[new[0]][1] == ends[new[1]][0] == strategy.fixed
    assert [genome[number].weight for number in new] == [1.0, genome[off].weight]
    phenotype = strategy.phenotype(genome)
    source, target = ends[off]
    assert phenotype[source, target - strategy.sources] == 0
    assert phenotype[source, strategy.network.outputs] == 1.0
    assert phenotype[strategy.fixed, target - strategy.sources] == genome[off].weight


def test_an_innovation_has_one_number_in_all_genomes() -> None:
    strategy = small(net())
    number = next(iter(strategy.members[0]))
    assert strategy.innovations.split(number) == strategy.innovations.split(number)
    assert strategy.innovations.connection(0, 99) == strategy.innovations.connection(
        0, 99
    )
    assert strategy.innovations.connection(0, 99) != strategy.innovations.connection(
        99, 0
    )


def test_no_more_hidden_nodes_evolve_than_allowed() -> None:
    strategy = small(net(hidden=2))
    genome = dict(strategy.members[0])
    for _ in range(10):
        strategy.add_node_to(genome)
    assert (
        len(
            {
                node
                for number in genome
                for node in strategy.innovations.ends()[number]
                if node >= strategy.fixed
            }
        )
        == 2
    )


def test_a_child_has_the_genes_of_the_fitter_parent() -> None:
    strategy = small(net())
    fitter = {0: Gene(1.0, True), 1: Gene(2.0, True), 4: Gene(3.0, True)}
    other = {0: Gene(-1.0, True), 1: Gene(-2.0, False), 7: Gene(-3.0, True)}
    children = [strategy.crossover(fitter, other) for _ in range(400)]
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
    assert NEATEvolution.distance(*genomes) == pytest.approx(distance)


def test_the_champion_survives_unchanged_and_species_share_the_next_generation() -> (
    None
):
    strategy = small(net(), population=40, add_node=0.3, add_link=0.3)
    for seed in range(8):
        losses = torch.rand(40, generator=seeded(seed))
        champion = strategy.members[int(losses.argmin())]
        found = strategy.tell(losses)["network.weight"]
        assert strategy.members[0] == champion
        assert torch.equal(found, strategy.phenotype(champion))
        assert len(strategy.members) == 40
    assert len(strategy.living) > 1


def test_only_the_two_best_species_survive_without_improvement() -> None:
    strategy, died = small(net(), population=40, add_node=0.3, add_link=0.3), 0
    for seed in range(8):
        losses, old = torch.rand(40, generator=seeded(seed)), [*strategy.living]
        for kind in old:
            kind.best, kind.age = -math.inf, 100
        strategy.tell(losses)
        populated = {
            id(kind): kind for kind in [*old, *strategy.living] if kind.members
        }
        leading = sorted(
            populated, key=lambda kind: float(losses[populated[kind].members].min())
        )[:2]
        left = {id(kind) for kind in strategy.living}
        assert all((id(kind) in left) == (id(kind) in leading) for kind in old)
        died += sum(id(kind) not in left for kind in old)
    assert died > 0


def accuracy_of_xor(agree: float, steps: int) -> float:
    tasks = ExclusiveOr(agree=agree)
    torch.manual_seed(1)
    learner = NEAT.build(tasks.spec)
    for _ in meta_train(
        learner,
        tasks,
        meta_gradient=NEATEvolution(),
        steps=steps,
        batch=16,
        generator=seeded(1),
    ):
        pass
    return meta_test(learner, tasks, n=200).metrics["accuracy"].mean


def test_exclusive_or_is_solved() -> None:
    assert accuracy_of_xor(0.0, steps=80) > 0.95


@pytest.mark.slow
def test_exclusive_or_or_its_negation_is_learned_from_one_example() -> None:
    assert accuracy_of_xor(0.25, steps=400) > 0.9  # without the example 0.75


# in environments


@pytest.mark.parametrize(
    "environment", [Bandits(2, 20), MDPs(3, 2, 4, 5)], ids=["bandits", "mdps"]
)
@pytest.mark.parametrize(("kind", "fields"), [(NEAT, {}), (LSTM, {"hidden": 8})])
def test_parallel_rollouts_of_a_population_equal_separate_ones(
    kind: type[Learner], fields: dict[str, Any], environment: Environment
) -> None:
    torch.manual_seed(0)
    learner = kind.build(environment.spec, likelihood=Policy(), **fields)
    strategy = prepared(CMAES(sigma=2.0, population=4), learner, environment)
    assert isinstance(strategy.objective, TrialReward)
    members = {name: tensor.float() for name, tensor in strategy.ask().items()}
    objective, tasks = TrialReward(environment), environment.sample(4000, seeded())
    together = objective.of_members(learner, members, tasks, seeded(1))
    for i, loss in enumerate(together):
        alone = copy.deepcopy(learner)
        own = {name: tensor[i] for name, tensor in members.items()}
        alone.load_state_dict({**alone.state_dict(), **own})
        # of about 10, with other random numbers
        assert float((objective(alone, tasks, seeded(2))[0] - loss).abs()) < 0.2


def test_a_bandit_is_learned_in_a_few_generations() -> None:
    environment = Bandits(2, 10)
    torch.manual_seed(0)
    learner = NEAT.build(environment.spec, likelihood=Policy(), hidden=2, passes=1)
    strategy = NEATEvolution(population=50, sigma=2.0)
    for _ in meta_train(
        learner, environment, meta_gradient=strategy, steps=30, batch=128
    ):
        pass
    test = Bandits(2, 10, split="test")
    rows = evaluate(learner, test, TestPlan(n=2000)).tables[0].rows
    reward = {row.labels["agent"]: row.values[0].mean for row in rows}
    assert {"random", "Thompson"} <= set(reward)
    assert reward["NEAT"] > reward["random"] + 0.3
