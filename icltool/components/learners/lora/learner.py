"""The learner `lora`: low-rank adapters of the decoder's self-attention, trained on the same data as LIVE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icltool.components.interventions.lora import need_peft
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.learner import GradientLearner
from icltool.components.learners.lora.options import LoRAOptions
from icltool.contracts import InterventionSet, Progress, SupportsDecoderHooks

if TYPE_CHECKING:
    from icltool.components.learners.interventions.module import InterventionModule


class Lora(GradientLearner):
    """LoRA (Hu et al. 2021, arXiv:2106.09685) through PEFT.

    Minimises the cross-entropy of the answers to prompts without demonstrations. The paper draws A from a normal
    distribution, PEFT from a uniform one.
    """

    name = "lora"
    options_model = LoRAOptions
    options: LoRAOptions

    @property
    def shots(self) -> int:
        """See GradientLearner."""
        return self.options.shots if self.options.distil else 0

    def module(self, model: SupportsDecoderHooks, data: InterventionSet, draws: Draws, seed: int) -> InterventionModule:
        """See GradientLearner. Also raises ConfigError if PEFT is missing or cannot wrap the model's projections."""
        from icltool.components.learners.lora.adapters import LearnedAdapters, LoraModule

        need_peft()
        return LoraModule(LearnedAdapters(model, self.options), data, draws, self.options, seed)

    def announce(self, model: SupportsDecoderHooks, parameters: int, progress: Progress) -> None:
        """See GradientLearner."""
        layers = len(model.decoder_layers())
        progress.say(f"lora: {parameters} parameters of rank {self.options.rank} in {layers} layers")
