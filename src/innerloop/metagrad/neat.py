"""NeuroEvolution of augmenting topologies: the outer loop that evolves the connections
of a `NEATNetwork`.
"""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from innerloop.core.learner import Learner, Streaming
from innerloop.core.task import TaskDistribution
from innerloop.engine.errors import InnerloopTypeError
from innerloop.engine.options import Count, Fraction, Positive, Range
from innerloop.metagrad.population import EvolutionStrategy
from innerloop.nets.neat_network import NEATNetwork

STAGNATION = 15  # generations without progress after which a species dies out


class NEATLearner(Streaming):
    """A learner whose only parameters are the connections of one `NEATNetwork`."""

    @abstractmethod
    def evolved_network(self) -> NEATNetwork:
        """The network whose connections are evolved."""


class Gene(NamedTuple):
    """One connection; `Innovations` knows which nodes it connects."""

    weight: float
    enabled: bool


Genome = dict[int, Gene]  # connections by innovation number


class Innovations:
    """The numbers of all connections and nodes that have evolved. The same connection,
    and the same split of a connection, has the same number in every genome.

    nodes: the number of nodes: inputs, the bias, outputs, and hidden nodes.
    """

    def __init__(self, nodes: int):
        self.nodes = nodes
        self.numbers: dict[tuple[int, int], int] = {}  # (source, target) -> number
        self.splits: dict[int, int] = {}  # number of a connection -> its new node

    def connection(self, source: int, target: int) -> int:
        """The innovation number of a connection between two nodes."""
        return self.numbers.setdefault((source, target), len(self.numbers))

    def split(self, number: int) -> int:
        """The node that splits a connection."""
        if number not in self.splits:
            self.splits[number], self.nodes = self.nodes, self.nodes + 1
        return self.splits[number]

    def ends(self) -> list[tuple[int, int]]:
        """The (source, target) of every connection, by number."""
        return list(self.numbers)


@dataclass
class Species:
    """A group of similar genomes.

    representative: the genome that others are compared with. best: the lowest loss so
    far, and age: generations since then. members: indices into the population, the best
    one first.
    """

    representative: Genome
    best: float = math.inf
    age: int = 0
    members: list[int] = field(default_factory=list)


class NEATEvolution(EvolutionStrategy):
    """NEAT: evolves the topology and the weights of networks.

    distance = (E + D) / N + 0.4 W, E and D the excess and disjoint genes, N the genes
    of the larger genome, W the mean difference of common weights

    Reference: Stanley and Miikkulainen 2002, "Evolving neural networks through
    augmenting topologies", Evolutionary Computation 10 (2), section 3.

    Mutations add nodes and connections. Innovation numbers align genomes for crossover,
    and species protect new structures. The offspring of a species is proportional to
    its mean fitness, here the rank of a member's loss. Unlike the paper, mutations have
    many sizes, half of them change only about three weights, and the two best species
    never die out: every generation is evaluated on new tasks, where many large changes
    lose earlier progress.

    Args:
        population: members of a generation.
        sigma: the largest standard deviation of a change of a weight.
        species: the intended number of species; the distance between them is adapted.
        add_node: probability that a child gains a node.
        add_link: probability that a child gains a connection.
    """

    population: Annotated[int, Range(4)] = 150
    sigma: Positive = 0.5
    species: Count = 10
    add_node: Fraction = 0.03
    add_link: Fraction = 0.08

    requires = NEATLearner

    def check(self, learner: Learner, tasks: TaskDistribution) -> None:
        super().check(learner, tasks)
        self._network(learner)

    @staticmethod
    def _network(learner: Learner) -> tuple[str, NEATNetwork]:
        """The evolved network, and the name of its weight among the parameters."""
        assert isinstance(learner, NEATLearner)  # see requires
        network = learner.evolved_network()
        trainable = [(n, p) for n, p in learner.named_parameters() if p.requires_grad]
        if len(trainable) != 1 or trainable[0][1] is not network.weight:
            raise InnerloopTypeError(
                "neat evolves the connections of one network; "
                f"{type(learner).__name__} must not have other trainable parameters"
            )
        return trainable[0][0], network

    def start(self, learner: Learner) -> None:
        self.name, self.network = self._network(learner)
        self.random = random.Random(self.generator.initial_seed())
        self.sources = self.network.inputs + 1  # inputs and the bias
        self.fixed = self.sources + self.network.outputs  # nodes of every genome
        self.innovations = Innovations(self.fixed)
        weight = self.network.weight.tolist()
        first = {
            self.innovations.connection(source, target): Gene(
                weight[source][target - self.sources], True
            )
            for source in range(self.sources)
            for target in range(self.sources, self.fixed)
        }
        self.members = [first] + [
            {number: Gene(self.random.gauss(0, 1), True) for number in first}
            for _ in range(self.population - 1)
        ]
        self.largest_distance = 3.0  # within a species
        self.living = [Species(first)]

    def ask(self) -> dict[str, Tensor]:
        return {self.name: torch.stack([self.phenotype(g) for g in self.members])}

    def tell(self, losses: Tensor) -> dict[str, Tensor]:
        loss, order = losses.tolist(), losses.argsort().tolist()
        champion = self.members[order[0]]
        fitness = {member: self.population - rank for rank, member in enumerate(order)}
        self._speciate(order)
        for species in self.living:
            lowest = loss[species.members[0]]
            improved = lowest < species.best
            species.best = lowest if improved else species.best
            species.age = 0 if improved else species.age + 1
        leading = sorted(self.living, key=lambda species: loss[species.members[0]])[:2]
        self.living = [
            species
            for species in self.living
            if species.age < STAGNATION or species in leading
        ]
        shares = [
            sum(fitness[member] for member in species.members) / len(species.members)
            for species in self.living
        ]
        children = [champion]
        for species, share in zip(self.living, shares, strict=True):
            best = species.members[: math.ceil(len(species.members) / 5)]
            parents = [self.members[member] for member in best]
            quota = round(self.population * share / sum(shares))
            elite = parents[:1] if quota > 5 else []
            children += elite
            children += [self._child(parents) for _ in range(quota - len(elite))]
            member = self.random.choice(species.members)
            species.representative = self.members[member]
        while len(children) < self.population:  # quotas are rounded
            children.append(self._child([champion]))
        self.members = children[: self.population]
        self.largest_distance *= 1.1 if len(self.living) > self.species else 0.9
        return {self.name: self.phenotype(champion)}

    def phenotype(self, genome: Genome) -> Tensor:
        """The weight (sources + nodes, nodes) of the genome's network."""
        weight, ends = torch.zeros(self.network.weight.shape), self.innovations.ends()
        row = {node: self.fixed + i for i, node in enumerate(self._hidden(genome))}
        for number, gene in genome.items():
            if gene.enabled:
                source, target = (row.get(node, node) for node in ends[number])
                weight[source, target - self.sources] = gene.weight
        return weight

    def _hidden(self, genome: Genome) -> list[int]:
        ends = self.innovations.ends()
        nodes = {node for number in genome for node in ends[number]}
        return sorted(node for node in nodes if node >= self.fixed)

    def _speciate(self, order: list[int]) -> None:
        """Put every genome, the best one first, into the first species that it is
        similar to, or into a new one.
        """
        for species in self.living:
            species.members = []
        for member in order:
            genome = self.members[member]
            similar = (
                species
                for species in self.living
                if self.distance(genome, species.representative) < self.largest_distance
            )
            species = next(similar, None)
            if species is None:
                self.living.append(species := Species(genome))
            species.members.append(member)
        self.living = [species for species in self.living if species.members]

    @staticmethod
    def distance(a: Genome, b: Genome) -> float:
        """The distance between two genomes, eq. (1); disjoint and excess genes count
        alike, with N = 1 for fewer than 20 genes.
        """
        common = a.keys() & b.keys()
        different = len(a) + len(b) - 2 * len(common)
        weights = sum(abs(a[number].weight - b[number].weight) for number in common)
        size = max(len(a), len(b))
        mean_difference = weights / max(1, len(common))
        return different / (size if size >= 20 else 1) + 0.4 * mean_difference

    def _child(self, parents: list[Genome]) -> Genome:
        """A child of one parent, or three times in four of two; `parents` are sorted,
        the fittest first.
        """
        chance = self.random.random
        indices = sorted(self.random.choices(range(len(parents)), k=2))
        fitter, other = (parents[index] for index in indices)
        child = self.crossover(fitter, other) if chance() < 0.75 else dict(fitter)
        if chance() < 0.8:
            self._mutate_weights(child)
        if chance() < self.add_node:
            self.add_node_to(child)
        if chance() < self.add_link:
            self.add_link_to(child)
        return child

    def _mutate_weights(self, genome: Genome) -> None:
        size = self.sigma * 100 ** -(self.random.random() ** 2)
        share = self.random.choice((1.0, 3 / len(genome)))
        for number, gene in genome.items():
            if self.random.random() < share:
                weight = (
                    gene.weight + self.random.gauss(0, size)
                    if self.random.random() < 0.95
                    else self.random.gauss(0, 1)
                )
                genome[number] = gene._replace(weight=weight)

    def crossover(self, fitter: Genome, other: Genome) -> Genome:
        """The genes of the fitter parent, common ones from either parent; a gene that
        is disabled in one of them is disabled in the child three times in four.
        """
        child = {}
        for number, gene in fitter.items():
            match = other.get(number, gene)
            both = gene.enabled and match.enabled
            enabled = both or self.random.random() > 0.75
            weight = self.random.choice((gene, match)).weight
            child[number] = Gene(weight, enabled)
        return child

    def add_node_to(self, genome: Genome) -> None:
        """Split a connection by a new node and disable it: the connection to the new
        node has weight 1, the one from it that of the old connection.
        """
        enabled = [number for number, gene in genome.items() if gene.enabled]
        if not enabled or len(self._hidden(genome)) >= self.network.hidden:
            return
        number = self.random.choice(enabled)
        source, target = self.innovations.ends()[number]
        node = self.innovations.split(number)
        before = self.innovations.connection(source, node)
        after = self.innovations.connection(node, target)
        if before not in genome:  # else it was split before, and enabled again
            genome[before] = Gene(1.0, True)
            genome[after] = Gene(genome[number].weight, True)
        genome[number] = genome[number]._replace(enabled=False)

    def add_link_to(self, genome: Genome) -> None:
        """Connect two nodes, which may be the same."""
        hidden = self._hidden(genome)
        source = self.random.choice([*range(self.fixed), *hidden])
        target = self.random.choice([*range(self.sources, self.fixed), *hidden])
        number = self.innovations.connection(source, target)
        genome.setdefault(number, Gene(self.random.gauss(0, 1), True))

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "connections": self.innovations.ends(),
            "splits": list(self.innovations.splits.items()),
            "nodes": self.innovations.nodes,
            "random": self.random.getstate(),
            "members": [_plain(genome) for genome in self.members],
            "largest_distance": self.largest_distance,
            "species": [
                (_plain(species.representative), species.best, species.age)
                for species in self.living
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.innovations.numbers = {
            tuple(ends): number for number, ends in enumerate(state["connections"])
        }
        self.innovations.splits = dict(state["splits"])
        self.innovations.nodes = state["nodes"]
        version, internal, gauss = state["random"]
        self.random.setstate((version, tuple(internal), gauss))
        self.members = [_genome(genes) for genes in state["members"]]
        self.largest_distance = state["largest_distance"]
        self.living = [
            Species(_genome(genes), best, age) for genes, best, age in state["species"]
        ]


def _plain(genome: Genome) -> list[tuple[int, float, bool]]:
    return [(number, gene.weight, gene.enabled) for number, gene in genome.items()]


def _genome(genes: list[tuple[int, float, bool]]) -> Genome:
    return {number: Gene(weight, enabled) for number, weight, enabled in genes}
