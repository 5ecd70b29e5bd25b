"""Networks that read tokens, and prompts."""

import pytest
import torch
from torch import nn

from innerloop.core.task import TaskSpec
from innerloop.learners.optimization import MAML, PromptTuning
from innerloop.nets import TextEncoder, encoder
from innerloop.nets.transformers import TransformersEncoder, bert
from innerloop.testing import Blobs, check_learner

SPEC = TaskSpec("classes", (6,), 3, vocabulary=15)


@pytest.mark.parametrize("name", ["transformer", "bert"])
def test_padding_does_not_matter(name: str) -> None:
    torch.manual_seed(0)
    if name == "bert":
        pytest.importorskip("transformers")
    net = encoder(SPEC, name).eval()
    x = torch.tensor([[3.0, 4.0, 5.0, 0.0, 0.0, 0.0], [7.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    z = net(x)
    torch.testing.assert_close(net(x[:1]), z[:1], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        embedding = (
            net.embedding
            if isinstance(net, TextEncoder)
            else net.model.get_input_embeddings()
        )  # pyright: ignore
        embedding.weight[0] += 1.0  # pyright: ignore
    torch.testing.assert_close(net(x), z)
    assert torch.isfinite(net(torch.zeros(1, 6))).all()


@pytest.mark.parametrize("name", ["transformer", "bert"])
def test_a_prompt_changes_the_features(name: str) -> None:
    torch.manual_seed(0)
    if name == "bert":
        pytest.importorskip("transformers")
    net, x = encoder(SPEC, name).eval(), torch.randint(1, 15, (2, 6)).float()
    prompt = net.embed_tokens(torch.tensor([3, 9, 4]))  # pyright: ignore
    assert not torch.allclose(net(x), net(x, prompt))
    assert not torch.allclose(net(x, prompt), net(x, torch.randn_like(prompt)))


def test_tokens_have_learned_weights() -> None:
    torch.manual_seed(0)
    net = TextEncoder(15, 6, width=8, layers=0).eval()
    x = torch.tensor([[3.0, 4.0, 0.0, 0.0, 0.0, 0.0]])
    with torch.no_grad():
        net.weight.weight[3] = 9.0
        net.log_share.fill_(0.0)
    counted, meant = net(x)[0].split([15, 8])
    torch.testing.assert_close(
        counted,
        8 * nn.functional.one_hot(torch.tensor(3), 15).float(),
        rtol=0.01,
        atol=0.02,
    )
    torch.testing.assert_close(
        meant,
        8 * nn.functional.normalize(net.embedding.weight[3], dim=0),
        rtol=0.01,
        atol=0.02,
    )


def test_every_token_has_a_dimension_of_its_own() -> None:
    torch.manual_seed(0)
    net = TextEncoder(15, 6, width=8, layers=0, dropped=0.0).eval()
    with torch.no_grad():
        net.embedding.weight.zero_()  # all words mean the same, wherever they stand
        net.positions.zero_()
    one, other, apart = net(
        torch.tensor(
            [[3.0, 4.0, 0, 0, 0, 0], [4.0, 3.0, 0, 0, 0, 0], [5.0, 6.0, 0, 0, 0, 0]]
        )
    )
    torch.testing.assert_close(one, other)
    assert float((one @ apart).detach()) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "check",
    [
        "mapped_is_looped",
        "adapt_changes_nothing",
        "gradient_is_right",
        "survives_copying",
    ],
)
def test_a_model_of_transformers_passes_the_check(check: str) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    for learner in (
        PromptTuning.build(SPEC, encoder="bert", inner_steps=2),
        MAML.build(SPEC, net="bert", inner_lr=0.05),
    ):
        check_learner(learner, SPEC, checks=[check])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_of_peft_is_an_encoder() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = peft.get_peft_model(
        bert(SPEC).model, peft.LoraConfig(r=2, target_modules=["query", "value"])
    )
    net = TransformersEncoder(model)
    assert any(p.requires_grad for p in net.parameters())
    assert not all(p.requires_grad for p in net.parameters())
    learner = PromptTuning.build(SPEC, encoder=net)
    task = Blobs(SPEC).sample(1, torch.Generator().manual_seed(0)).unbind()[0]
    assert learner.predict(learner.adapt(task.support), task.query.x).shape == (9, 3)
