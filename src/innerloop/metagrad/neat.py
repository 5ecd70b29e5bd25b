"""NeuroEvolution of augmenting topologies: the outer loop that grows the wiring of a
`NEATNetwork` network.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from innerloop.core.learner import Learner
from innerloop.engine.errors import InnerloopTypeError
from innerloop.engine.options import Count, Fraction, Positive, Range
from innerloop.metagrad.population import EvolutionStrategy
from innerloop.nets.neat_network import NEATNetwork


class Gene(NamedTuple):
    """One connection; what it connects is in the book, under its innovation number."""

    weight: float
    enabled: bool


Genome = dict[int, Gene]  # connections by innovation number


class Book:
    """The innovations so far. The same link, and the same split of a link, has one
    number whoever comes upon it.
    """

    def __init__(self, nodes: int):
        # how many have a number: inputs, the bias, outputs, hidden nodes
        self.nodes = nodes
        self.links: dict[tuple[int, int], int] = {}  # (from, to): innovation number
        # innovation number: the node that splits the link
        self.splits: dict[int, int] = {}

    def link(self, source: int, target: int) -> int:
        return self.links.setdefault((source, target), len(self.links))

    def split(self, innovation: int) -> int:
        if innovation not in self.splits:
            self.splits[innovation], self.nodes = self.nodes, self.nodes + 1
        return self.splits[innovation]

    def ends(self) -> list[tuple[int, int]]:
        """What the innovations link, by number."""
        return list(self.links)


@dataclass
class Species:
    """Genomes near to one of them, its best loss, and for how many generations that has
    stood.
    """

    like: Genome
    best: float = math.inf
    age: int = 0
    # places in the population, best first
    members: list[int] = field(default_factory=list)


class NEATEvolution(EvolutionStrategy):
    """NEAT: genomes grow node by node and connection by connection; innovation numbers
    align them for crossover, species protect new structures.

    distance = (E + D) / N + 0.4 W, E and D the excess and disjoint genes, N the genes
    of the larger genome, W the mean difference of common weights

    Reference: Stanley and Miikkulainen 2002, "Evolving neural networks through
    augmenting topologies", Evolutionary Computation 10 (2), section 3.

    A species has offspring in proportion to its mean fitness, here the rank of a
    member's loss. Unlike the paper, mutations have many sizes, half of them change only
    about three weights, and the two best species never die out: losses are measured on
    new tasks in every generation, where many large changes lose what was found.

    Args:
        population: members of a generation.
        sigma: the largest standard deviation of a change of a weight.
        species: the number of species aimed at, by moving the distance between them.
        add_node: probability that a child gains a node.
        add_link: probability that a child gains a connection.
    """

    population: Annotated[int, Range(4)] = 150
    sigma: Positive = 0.5
    species: Count = 10
    add_node: Fraction = 0.03
    add_link: Fraction = 0.08

    def start(self, learner: Learner, seed: int) -> None:
        nets = {
            f"{name}.weight": module
            for name, module in learner.named_modules()
            if isinstance(module, NEATNetwork)
        }
        trainable = [name for name, p in learner.named_parameters() if p.requires_grad]
        if len(nets) != 1 or trainable != list(nets):
            raise InnerloopTypeError(
                "neat evolves the connections of a single network, that of the learner "
                f"NEAT; {type(learner).__name__} has other parameters"
            )
        ((self.name, self.net),) = nets.items()
        self.random, self.sources = random.Random(seed), self.net.inputs + 1
        self.distance_of_species = 3.0
        # inputs, the bias, outputs: what every genome has
        self.fixed = self.sources + self.net.outputs
        self.book, weight = Book(self.fixed), self.net.weight.detach()
        links = [
            (source, target)
            for source in range(self.sources)
            for target in range(self.sources, self.fixed)
        ]
        first = {
            self.book.link(a, b): Gene(float(weight[a, b - self.sources]), True)
            for a, b in links
        }
        self.members = [first] + [
            {number: Gene(self.random.gauss(0, 1), True) for number in first}
            for _ in range(self.population - 1)
        ]
        self.alive = [Species(first)]

    def ask(self) -> dict[str, Tensor]:
        return {
            self.name: torch.stack([self.phenotype(genome) for genome in self.members])
        }

    def tell(self, losses: Tensor) -> dict[str, Tensor]:
        told, order = losses.tolist(), losses.argsort().tolist()
        champion = self.members[order[0]]
        fitness = {member: self.population - rank for rank, member in enumerate(order)}
        self._speciate(order)
        for kind in self.alive:
            kind.best, kind.age = (
                (told[kind.members[0]], 0)
                if told[kind.members[0]] < kind.best
                else (kind.best, kind.age + 1)
            )
        leading = sorted(self.alive, key=lambda kind: told[kind.members[0]])[:2]
        alive = [kind for kind in self.alive if kind.age < 15 or kind in leading]
        shares = [
            sum(fitness[member] for member in kind.members) / len(kind.members)
            for kind in alive
        ]
        children = [champion]
        for kind, share in zip(alive, shares, strict=True):
            parents = [
                self.members[member]
                for member in kind.members[: math.ceil(len(kind.members) / 5)]
            ]
            quota = round(self.population * share / sum(shares))
            children += [parents[0]][: int(quota > 5)] + [
                self._child(parents) for _ in range(quota - int(quota > 5))
            ]
            kind.like = self.members[self.random.choice(kind.members)]
        while len(children) < self.population:  # shares are rounded
            children.append(self._child([champion]))
        self.members, self.alive = children[: self.population], alive
        self.distance_of_species *= 1.1 if len(alive) > self.species else 0.9
        return {self.name: self.phenotype(champion)}

    def phenotype(self, genome: Genome) -> Tensor:
        """The weight (sources + nodes, nodes) of a network."""
        weight, ends = torch.zeros(self.net.weight.shape), self.book.ends()
        place = {node: self.fixed + i for i, node in enumerate(self._hidden(genome))}
        for number, gene in genome.items():
            if gene.enabled:
                source, target = ends[number]
                weight[
                    place.get(source, source), place.get(target, target) - self.sources
                ] = gene.weight
        return weight

    def _hidden(self, genome: Genome) -> list[int]:
        ends = self.book.ends()
        return sorted(
            {node for number in genome for node in ends[number] if node >= self.fixed}
        )

    def _speciate(self, order: list[int]) -> None:
        """Every genome, the best first, goes to the first species that it is near to,
        or founds one.
        """
        for kind in self.alive:
            kind.members = []
        for member in order:
            near = (
                kind
                for kind in self.alive
                if self.distance(self.members[member], kind.like)
                < self.distance_of_species
            )
            kind = next(near, None)
            if kind is None:
                self.alive.append(kind := Species(self.members[member]))
            kind.members.append(member)
        self.alive = [kind for kind in self.alive if kind.members]

    @staticmethod
    def distance(a: Genome, b: Genome) -> float:
        """How far two genomes are apart, eq. (1); disjoint and excess genes count
        alike, with N = 1 for fewer than 20 genes.
        """
        common = a.keys() & b.keys()
        apart = len(a) + len(b) - 2 * len(common)
        weights = sum(
            abs(a[number].weight - b[number].weight) for number in common
        ) / max(1, len(common))
        return (
            apart / (max(len(a), len(b)) if max(len(a), len(b)) >= 20 else 1)
            + 0.4 * weights
        )

    def _child(self, parents: list[Genome]) -> Genome:
        """Of one parent or, three times in four, of two; the first named of `parents`
        is the fitter.
        """
        chance = self.random.random
        one, other = (
            parents[place]
            for place in sorted(self.random.choices(range(len(parents)), k=2))
        )
        child = self.crossed(one, other) if chance() < 0.75 else dict(one)
        if chance() < 0.8:
            size, some = (
                self.sigma * 100 ** -(chance() ** 2),
                self.random.choice((1.0, 3 / len(child))),
            )
            for number, gene in child.items():
                if chance() < some:
                    changed = (
                        gene.weight + self.random.gauss(0, size)
                        if chance() < 0.95
                        else self.random.gauss(0, 1)
                    )
                    child[number] = gene._replace(weight=changed)
        if chance() < self.add_node:
            self.split(child)
        if chance() < self.add_link:
            self.linked(child)
        return child

    def crossed(self, fitter: Genome, other: Genome) -> Genome:
        """The genes of the fitter one, those in common from either; what is disabled in
        one of them is likely so in the child.
        """
        child = {}
        for number, gene in fitter.items():
            twin = other.get(number, gene)
            enabled = (gene.enabled and twin.enabled) or self.random.random() > 0.75
            child[number] = Gene(self.random.choice((gene, twin)).weight, enabled)
        return child

    def split(self, genome: Genome) -> None:
        """A new node in the middle of a connection, which is disabled: the way in
        weighs 1, the way out what the connection did.
        """
        enabled = [number for number, gene in genome.items() if gene.enabled]
        if enabled and len(self._hidden(genome)) < self.net.hidden:
            number = self.random.choice(enabled)
            (source, target), node = self.book.ends()[number], self.book.split(number)
            ways = self.book.link(source, node), self.book.link(node, target)
            if ways[0] not in genome:  # split before, and enabled again
                genome.update(
                    {
                        ways[0]: Gene(1.0, True),
                        ways[1]: Gene(genome[number].weight, True),
                    }
                )
            genome[number] = genome[number]._replace(enabled=False)

    def linked(self, genome: Genome) -> None:
        """A new connection between two nodes that had none, to itself too."""
        hidden = self._hidden(genome)
        ends = (
            self.random.choice([*range(self.fixed), *hidden]),
            self.random.choice([*range(self.sources, self.fixed), *hidden]),
        )
        genome.setdefault(self.book.link(*ends), Gene(self.random.gauss(0, 1), True))

    def state_dict(self) -> dict[str, Any]:
        def plain(genome: Genome) -> list[tuple[int, float, bool]]:
            return [
                (number, gene.weight, gene.enabled) for number, gene in genome.items()
            ]

        return {
            "links": self.book.ends(),
            "splits": dict(self.book.splits),
            "nodes": self.book.nodes,
            "random": self.random.getstate(),
            "members": [plain(genome) for genome in self.members],
            "distance": self.distance_of_species,
            "species": [(plain(kind.like), kind.best, kind.age) for kind in self.alive],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        def genome(genes: list[tuple[int, float, bool]]) -> Genome:
            return {number: Gene(weight, enabled) for number, weight, enabled in genes}

        self.book.links, self.book.splits = (
            {ends: number for number, ends in enumerate(state["links"])},
            dict(state["splits"]),
        )
        self.book.nodes, self.distance_of_species = state["nodes"], state["distance"]
        self.random.setstate(state["random"])
        self.members = [genome(genes) for genes in state["members"]]
        self.alive = [
            Species(genome(like), best, age) for like, best, age in state["species"]
        ]
