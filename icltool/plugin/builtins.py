"""Everything icltool brings along, registered through the hooks that third parties use."""

from __future__ import annotations

from icltool.plugin import Registration, hookimpl


@hookimpl
def icltool_models() -> list[Registration]:
    idefics = "icltool.models.idefics:IdeficsModel"
    return [
        Registration(
            "tiny-idefics",
            idefics,
            "the embedded world's model, 1.4 M parameters",
            {"name": "tiny-idefics", "packaged": "tiny-idefics"},
        ),
        Registration("idefics-9b", idefics, "IDEFICS 9B", {"name": "idefics-9b", "hub_id": "HuggingFaceM4/idefics-9b"}),
        Registration(
            "idefics-9b-instruct",
            idefics,
            "IDEFICS 9B, instruction-tuned",
            {"name": "idefics-9b-instruct", "hub_id": "HuggingFaceM4/idefics-9b-instruct"},
        ),
    ]


@hookimpl
def icltool_datasets() -> list[Registration]:
    return [
        Registration("shapes", "icltool.datasets.shapes:ShapesReader", "the embedded world; made, not downloaded"),
        Registration("coco2017", "icltool.datasets.coco2017:Coco2017Reader", "COCO 2017 captions"),
        Registration("vqav2", "icltool.datasets.vqav2:VQAv2Reader", "VQAv2 from its official files"),
    ]


@hookimpl
def icltool_encoders() -> list[Registration]:
    clip = "icltool.encoders.open_clip:OpenClipEncoder"
    return [
        Registration("tiny-clip", clip, "the embedded world's CLIP", {"name": "tiny-clip", "packaged": "tiny-clip"}),
        Registration(
            "vit-l-14",
            clip,
            "OpenAI CLIP ViT-L/14",
            {"name": "vit-l-14", "architecture": "ViT-L-14-quickgelu", "pretrained": "openai"},
        ),
        Registration(
            "vit-b-32",
            clip,
            "OpenAI CLIP ViT-B/32",
            {"name": "vit-b-32", "architecture": "ViT-B-32-quickgelu", "pretrained": "openai"},
        ),
    ]


@hookimpl
def icltool_samplers() -> list[Registration]:
    return [
        Registration("random", "icltool.samplers.random:RandomSampler", "uniform without replacement"),
        Registration("image-sim", "icltool.samplers.image_sim:ImageSimilaritySampler", "nearest by image"),
        Registration("text-sim", "icltool.samplers.text_sim:TextSimilaritySampler", "nearest by text"),
        Registration("mix", "icltool.samplers.mix:MixSampler", "shares of random, text-sim and image-sim"),
    ]


@hookimpl
def icltool_scorers() -> list[Registration]:
    return [
        Registration("infoscore", "icltool.scorers.infoscore:InfoScore", "probability of the label given the sequence"),
        Registration("cider", "icltool.scorers.cider:CiderScorer", "CIDEr of the generated answer"),
        Registration("vqa-accuracy", "icltool.scorers.vqa_accuracy:VQAAccuracyScorer", "VQA accuracy of the answer"),
        Registration("cosine", "icltool.scorers.cosine:CosineScorer", "mean similarity to the query; needs no LVLM"),
    ]


@hookimpl
def icltool_retrievers() -> list[Registration]:
    similarity = "icltool.retrieval.similarity:SimilarityRetriever"
    return [
        Registration("zero-shot", "icltool.retrieval.zero_shot:ZeroShot", "no demonstrations"),
        Registration("random", "icltool.retrieval.random:RandomRetriever", "uniform, seeded per query"),
        Registration(
            "i2i", similarity, "query image to ICD image (SIIR, RICES)", {"query": "image", "demonstration": "image"}
        ),
        Registration("i2t", similarity, "query image to ICD text (SITR)", {"query": "image", "demonstration": "text"}),
        Registration("t2t", similarity, "query text to ICD text (STTR)", {"query": "text", "demonstration": "text"}),
        Registration("t2i", similarity, "query text to ICD image", {"query": "text", "demonstration": "image"}),
        Registration("lever-lm", "icltool.retrieval.lever_lm:LeverLMRetriever", "the trained selector, greedy"),
    ]


@hookimpl
def icltool_metrics() -> list[Registration]:
    return [
        Registration("cider", "icltool.metrics.cider:Cider", "CIDEr-D of captions, x 100"),
        Registration("vqa-accuracy", "icltool.metrics.vqa_accuracy:VQAAccuracy", "official VQA accuracy, %"),
        Registration("word-accuracy", "icltool.metrics.word_accuracy:WordAccuracy", "share of the label's words, %"),
    ]


@hookimpl
def icltool_learners() -> list[Registration]:
    return [
        Registration("lever-lm", "icltool.learners.lever_lm.learner:LeverLM", "small causal model over the index set"),
    ]


@hookimpl
def icltool_executors() -> list[Registration]:
    return [Registration("local", "icltool.execution.local:LocalExecutor", "this process")]
