"""The sequence models behind one small interface. A further network is one class and one entry of `NETWORKS`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lever_lm.rows import Vocabulary
from icltool.components.models.shared.continued_cache import forward_cache, output_cache


class Network(nn.Module):
    """A causal model over the vocabulary that reads embeddings and predicts the next token at each position."""

    #: Layers of the MLP that adapts embeddings of width D to width E, given as widths in units of E after D.
    adapter_widths: tuple[int, ...] = (4, 1)

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """int64 [...] -> the tokens' own embeddings [..., E]."""

    @abstractmethod
    def advance(self, embeddings: Tensor, state: Any | None = None, keep: bool = False) -> tuple[Tensor, Any]:
        """Reads [B, T, E] after what `state` has read; gives the hidden states [B, T, E] and the state after them.

        `state` is consumed; None starts a row. Without `keep` the state that comes back is of no use.
        """

    @abstractmethod
    def selected(self, state: Any, rows: Tensor) -> Any:
        """The state of a batch of the rows int64 [B'] of this state's batch; a row may be taken several times.

        `state` is consumed.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """[..., E] -> scores of the next token [..., V]."""


class GPT2Network(Network):
    """transformers' GPT-2 with its output tied to the token embeddings, as GPT2LMHeadModel has it."""

    def __init__(self, vocabulary: Vocabulary, options: LeverLMOptions) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2Model

        config = GPT2Config(
            vocab_size=len(vocabulary),
            n_positions=options.n_positions,
            n_embd=options.n_embd,
            n_layer=options.n_layer,
            n_head=options.n_head,
            resid_pdrop=options.dropout,
            embd_pdrop=options.dropout,
            attn_pdrop=options.dropout,
            activation_function="gelu_pytorch_tanh",  # GPT-2's own gelu_new in one kernel
            bos_token_id=vocabulary.bos,
            eos_token_id=vocabulary.eos,
        )
        self.transformer = GPT2Model(config)

    def embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.transformer.wte(tokens)
        return embedded

    def advance(self, embeddings: Tensor, state: Any | None = None, keep: bool = False) -> tuple[Tensor, Any]:
        output = self.transformer(inputs_embeds=embeddings, **forward_cache(self.transformer, state), use_cache=keep)
        return output.last_hidden_state, output_cache(output)

    def selected(self, state: Any, rows: Tensor) -> Any:
        return selected_cache(state, rows)

    def logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.transformer.wte.weight)


class LSTMNetwork(Network):
    """A unidirectional LSTM with an MLP head."""

    adapter_widths = (1, 1)

    def __init__(self, vocabulary: Vocabulary, options: LeverLMOptions) -> None:
        super().__init__()
        width = options.n_embd
        between = options.dropout if options.n_layer > 1 else 0.0  # torch warns about a rate that has no place
        self.tokens = nn.Embedding(len(vocabulary), width)
        self.lstm = nn.LSTM(width, width, options.n_layer, dropout=between, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(options.dropout), nn.Linear(width, len(vocabulary))
        )

    def embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.tokens(tokens)
        return embedded

    def advance(self, embeddings: Tensor, state: Any | None = None, keep: bool = False) -> tuple[Tensor, Any]:
        hidden, state = self.lstm(embeddings, state)
        return hidden, state

    def selected(self, state: Any, rows: Tensor) -> Any:
        return tuple(part[:, rows] for part in state)

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


def selected_cache(cache: Any, rows: Tensor) -> Any:
    """As Network.selected, for the key-value cache of a transformers model."""
    cache.batch_select_indices(rows)
    return cache


def parameters_of(module: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
