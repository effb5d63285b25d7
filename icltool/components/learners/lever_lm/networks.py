"""The sequence models behind one small interface. To add a network, write a class and add it to `NETWORKS`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lever_lm.rows import Vocabulary
from icltool.components.models.shared.transformers_cache import forward_cache, output_cache

if TYPE_CHECKING:
    from transformers import GPT2Config, GPT2Model
    from transformers.cache_utils import Cache


class Network(nn.Module):
    """A causal model over the vocabulary that reads embeddings and predicts the next token at each position."""

    #: Layers of the MLP that adapts embeddings of width D to width E, given as widths in units of E after D.
    adapter_widths: tuple[int, ...] = (4, 1)

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """int64 [...] -> the tokens' own embeddings [..., E]."""

    @abstractmethod
    def advance(self, embeddings: Tensor, state: object = None, keep: bool = False) -> tuple[Tensor, object]:
        """Reads [B, T, E] after the input of `state`; returns the hidden states [B, T, E] and the state after them.

        `state` is consumed; None starts a row. Without `keep` the returned state must not be used.
        """

    @abstractmethod
    def selected(self, state: object, rows: Tensor) -> object:
        """The state of a batch of the rows int64 [B'] of this state's batch; a row may be taken several times.

        `state` is consumed.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """[..., E] -> scores of the next token [..., V]."""


class ReadsWithGPT2(nn.Module):
    """The base of models that read embeddings with transformers' GPT-2."""

    transformer: GPT2Model

    def advance(self, embeddings: Tensor, state: object = None, keep: bool = False) -> tuple[Tensor, object]:
        """As Network.advance."""
        cache = forward_cache(self.transformer, cast("Cache | None", state))
        output = self.transformer(inputs_embeds=embeddings, **cache, use_cache=keep)
        return output.last_hidden_state, output_cache(output)

    def selected(self, state: object, rows: Tensor) -> object:
        """As Network.selected."""
        cast("Cache", state).batch_select_indices(rows)
        return state


def gpt2_config(options: LeverLMOptions, size: int, bos: int | None = None, eos: int | None = None) -> GPT2Config:
    """A GPT-2 of these options for `size` tokens."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=size,
        n_positions=options.n_positions,
        n_embd=options.n_embd,
        n_layer=options.n_layer,
        n_head=options.n_head,
        resid_pdrop=options.dropout,
        embd_pdrop=options.dropout,
        attn_pdrop=options.dropout,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own gelu_new in one kernel
        bos_token_id=bos,
        eos_token_id=eos,
    )


class GPT2Network(ReadsWithGPT2, Network):
    """transformers' GPT-2 with its output tied to the token embeddings, as GPT2LMHeadModel has it."""

    def __init__(self, vocabulary: Vocabulary, options: LeverLMOptions) -> None:
        super().__init__()
        from transformers import GPT2Model

        self.transformer = GPT2Model(gpt2_config(options, len(vocabulary), vocabulary.bos, vocabulary.eos))

    def embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.transformer.wte(tokens)
        return embedded

    def logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.transformer.wte.weight)


class LSTMNetwork(Network):
    """A unidirectional LSTM with an MLP head."""

    adapter_widths = (1, 1)

    def __init__(self, vocabulary: Vocabulary, options: LeverLMOptions) -> None:
        super().__init__()
        width = options.n_embd
        between = options.dropout if options.n_layer > 1 else 0.0  # torch warns about dropout in a single layer
        self.tokens = nn.Embedding(len(vocabulary), width)
        self.lstm = nn.LSTM(width, width, options.n_layer, dropout=between, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(options.dropout), nn.Linear(width, len(vocabulary))
        )

    def embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.tokens(tokens)
        return embedded

    def advance(self, embeddings: Tensor, state: object = None, keep: bool = False) -> tuple[Tensor, object]:
        hidden, after = self.lstm(embeddings, state)
        return hidden, after

    def selected(self, state: object, rows: Tensor) -> object:
        return tuple(part[:, rows] for part in cast(tuple[Tensor, Tensor], state))

    def logits(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self.head(hidden)
        return scores


NETWORKS: dict[str, type[Network]] = {"gpt2": GPT2Network, "lstm": LSTMNetwork}


def build_adapter(dim: int, options: LeverLMOptions) -> nn.Module:
    """The MLP from D to E with ReLU between its layers: D -> 4E -> E for GPT-2, D -> E -> E for LSTM."""
    layers: list[nn.Module] = []
    width = dim
    for factor in NETWORKS[options.network].adapter_widths:
        layers += [nn.Linear(width, factor * options.n_embd), nn.ReLU()]
        width = factor * options.n_embd
    return nn.Sequential(*layers[:-1])


def parameters_of(module: nn.Module) -> int:
    """The number of trained parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
