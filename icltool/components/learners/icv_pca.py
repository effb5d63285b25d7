"""The learner `icv-pca`: in each layer, the principal direction of the change that demonstrations make to the states."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from icltool.components.interventions.shift import shifting
from icltool.components.learners.interventions.activations import ActivationExtraction, Candidate, PromptOptions, max_of
from icltool.components.learners.options import OptionsLearner, names_of
from icltool.contracts import AnswerBatch, InterventionSet, Progress, TrainingOutcome

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from icltool.contracts import SupportsDecoderHooks

METHOD = "icv-pca"


class IcvPcaOptions(PromptOptions):
    """PromptOptions, and the strengths to choose from."""

    strengths: Annotated[tuple[float, ...], BeforeValidator(names_of)] = Field(
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0),
        min_length=1,
        description="strengths to try, the same for all layers; with strength 1 a shift is as long as the one that "
        "demonstrations cause at its layer",
    )


class IcvPca(OptionsLearner):
    """In-context vectors by PCA (Liu et al. 2023, arXiv:2311.06668).

    For each layer: the unit vector with the largest sum of squared projections of the differences between states with and
    without demonstrations, at the last token of the prompt, times the mean norm of the differences. It is the first right
    singular vector of the uncentred differences, as the paper's objective requires. They are not centred because their mean
    is the very shift that is sought; the first direction of centred differences is the one in which examples differ from one
    another.

    Differences from the paper: its pairs are the two sides of one demonstration, its direction is common to all layers, and
    its code centres the differences and adds the mean again. The strength is chosen by the mean log-probability of the
    answers in a development split; the paper sets it by hand. The vectors are applied as LIVE's are.
    """

    name = METHOD
    options_model = IcvPcaOptions
    options: IcvPcaOptions

    def learn_intervention(self, data: InterventionSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See InterventionLearner. The history holds the development split's log-probability for each strength, the chosen one
        last."""
        import torch

        extraction = ActivationExtraction(data, METHOD, self.options, folder, seed, progress)
        modules = extraction.model.shifted_modules()
        prompted = extraction.states(extraction.prompts, modules)
        plain = extraction.states(extraction.pool.plain_prompts(extraction.positions), modules)
        shifts = [principal_shift(a.double() - b.double()) for a, b in zip(prompted, plain, strict=True)]
        vectors = torch.stack([vector for vector, _ in shifts]).float()
        strengths = self.options.strengths
        values, without = extraction.compared(
            [_shifted(extraction.model, strength * vectors) for strength in strengths]
        )
        place, value = max_of(values)
        figures = {
            "strength": strengths[place],
            "log_prob": value,
            "log_prob without": without,
            "log_prob by strength": {str(s): round(v, 4) for s, v in zip(strengths, values, strict=True)},
            "share of the squared differences by layer": [round(share, 3) for _, share in shifts],
        }
        history = [{"strength": s, "log_prob": v} for s, v in zip(strengths, values, strict=True)]
        alphas = torch.full((len(vectors),), strengths[place])
        return extraction.save({"vectors": vectors, "alphas": alphas}, figures, history)


def principal_shift(differences: Tensor) -> tuple[Tensor, float]:
    """(the first principal direction of differences [n, D], uncentred, times their mean norm; its share of the sum of squares).

    The sign is chosen so that the mean of the differences projects positively. Zeros if all differences are zero.
    """
    import torch

    _, values, directions = torch.linalg.svd(differences, full_matrices=False)
    direction = directions[0]
    if differences.mean(0) @ direction < 0:
        direction = -direction
    total = values.square().sum()
    share = float(values[0].square() / total) if total > 0 else 0.0
    return direction * differences.norm(dim=1).mean(), share


def _shifted(model: SupportsDecoderHooks, shifts: Tensor) -> Candidate:
    def candidate(batch: AnswerBatch) -> AbstractContextManager[None]:
        return shifting(model, shifts.__getitem__)

    return candidate
